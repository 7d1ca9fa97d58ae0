#!/usr/bin/env python3
"""Whatever keeps a command from writing: what is said, what is left, and that the next run is right. Every command that writes a file (the cases
of cases.py that have outputs) is killed at random points, meets a full disk, a read-only one, a folder that is not its own, another command that
writes the same output, and is started twice at once; every command that prints finds its pipe closed and its disk full.

cvq-test: once
"""
import fcntl
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import cases
import harness
from harness import check, skip, summary

KILLS = 6
NOBODY = 65534
base = None
CASES = cases.cases('7M', '3M')  # of a checkpoint that takes longer than the smallest
WRITERS = [c for c in CASES if c.outputs]


def start(folder, command, stdout=subprocess.PIPE, preexec=None, stdin=b''):
    p = subprocess.Popen([os.path.join(harness.BIN, command[0]), '--threads', '1', *command[1:]], cwd=folder, stdin=subprocess.PIPE,
                         stdout=stdout, stderr=subprocess.PIPE, preexec_fn=preexec, env=dict(os.environ, XDG_CACHE_HOME='/dev/null'))
    try:
        p.stdin.write(stdin)
        p.stdin.close()
    except BrokenPipeError:
        pass
    p.stdin = None
    return p


def run(folder, case, **more):
    p = start(folder, case.command, stdin=case.stdin, **more)
    out, err = p.communicate(timeout=harness.SECONDS)
    return p.returncode, (out or b'').decode(), err.decode()


def errors(err):
    return [line for line in err.splitlines() if not re.match(r'cvq-\w+: note: ', line)]


def one_line(err):
    return err.endswith('\n') and len(errors(err)) == 1


def read(folder, name):
    try:
        with open(os.path.join(folder, name), 'rb') as f:
            return f.read()
    except OSError:
        return None


def new_files(folder):
    return {n for n in os.listdir(folder) if not os.path.islink(os.path.join(folder, n))}


def clean(folder):
    for name in new_files(folder):
        os.unlink(os.path.join(folder, name))


def link_inputs(folder):
    for name in os.listdir(os.path.join(base, 'inputs')):
        os.symlink(os.path.join(base, 'inputs', name), os.path.join(folder, name))


def half_written(folder, case):
    """What is under a final name and does not belong there, or None."""
    for name in case.outputs:
        have, whole = read(folder, name), case.expected[name]
        if have is None or have == whole:
            continue
        if name not in case.grows or not whole.startswith(have) or (have and not have.endswith(b'\n')):
            return f'{name}: {len(have)} bytes of {len(whole)}: {have[-100:]}'
    return None


def refused(name, case, folder, result, *words, left=()):
    """An error in one line with these words; nothing is left but what belongs to a growing output."""
    code, _, err = result
    more = new_files(folder) - set(case.outputs) - set(left)
    check(f'{case.name}: {name}', code == 1 and one_line(err) and all(w in err for w in words) and not more and not half_written(folder, case),
          f'exit {code}, {err[-600:]}, left {sorted(more)}, {half_written(folder, case)}')


def right(name, case, folder, result):
    code, _, err = result
    wrong = [n for n in case.outputs if read(folder, n) != case.expected[n]]
    rest = new_files(folder) - set(case.outputs)
    check(f'{case.name}: {name}', code == 0 and not wrong and not rest, f'exit {code}, {err[-600:]}, other: {wrong}, left: {sorted(rest)}')


# ---------------------------------------------------------------- files

def undisturbed(case, folder):
    """What it writes where nothing is in its way."""
    began = time.monotonic()
    code, _, err = run(folder, case)
    case.seconds = time.monotonic() - began
    case.expected = {n: read(folder, n) for n in case.outputs}
    case.pages = sum(-(-e.stat().st_blocks // 8) for e in os.scandir(folder) if e.name in case.outputs)  # without its holes
    check(f'{case.name}: undisturbed', code == 0 and None not in case.expected.values() and not new_files(folder) - set(case.outputs), err)
    clean(folder)


def killed(case, folder):
    """SIGKILL at random points, each time over what the last one left; then a run to the end."""
    rng = random.Random(case.name)
    for i in range(KILLS):
        p = start(folder, case.command, stdin=case.stdin)
        time.sleep(case.seconds * rng.uniform(0, 0.9))
        p.kill()
        p.communicate()
        check(f'{case.name}: killed', not half_written(folder, case), half_written(folder, case))
        for name in set(case.outputs) - set(case.grows) - set(case.early) & new_files(folder):
            if read(folder, name) is not None:  # it was done, or this output of several was
                os.unlink(os.path.join(folder, name))
    leftover = sorted(new_files(folder))
    right(f'killed {KILLS} times, leaving {", ".join(leftover) or "nothing"}: the next run cleans up', case, folder, run(folder, case))
    clean(folder)


def locked(case, folder):
    """Another command is writing the same output."""
    for name in case.outputs:
        if name in case.early:
            continue
        other = name if name in case.grows else name + '.partial'
        with open(os.path.join(folder, other), 'wb') as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            result = run(folder, case)
        refused('while another writes ' + name, case, folder, result, 'is being written by another', left=[other])
        clean(folder)


def twice(case, folder):
    """Two at once: at least one succeeds, whoever does not says why, and the output is right."""
    two = [start(folder, case.command, stdin=case.stdin) for _ in range(2)]
    ends = [(p.communicate(timeout=harness.SECONDS)[1].decode(), p.returncode) for p in two]
    whys = ('is being written by another', 'exists already')
    check(f'{case.name}: started twice', sorted(code for _, code in ends) in ([0, 0], [0, 1]) and
          all(code == 0 or (one_line(err) and any(w in err for w in whys)) for err, code in ends), ends)
    right('started twice', case, folder, (0, '', ''))
    clean(folder)


def mount(folder, *options):
    return subprocess.run(['mount', '-t', 'tmpfs', '-o', ','.join(options), 'tmpfs', folder], capture_output=True).returncode == 0


def full_disk(case):
    """No room at all, and room for half of it."""
    folder = os.path.join(base, 'disk')
    os.mkdir(folder)
    for name, free in (('a full disk', 0), ('a disk that fills up', case.pages // 2)):
        if not mount(folder, f'size={(free + 1) * 4096}'):
            skip(f'{case.name}: {name}', 'a small file system cannot be mounted here (needs root)')
            break
        with open(os.path.join(folder, 'fill'), 'wb') as f:
            f.write(bytes(4096))
        link_inputs(folder)
        result = run(folder, case)
        refused(name, case, folder, result, 'free' if 'are free' in result[2] else 'No space left', left=['fill'])
        subprocess.run(['umount', folder], check=True)
    os.rmdir(folder)


def read_only(case):
    folder = os.path.join(base, 'disk')
    os.mkdir(folder)
    if not mount(folder, 'size=1m'):
        skip(f'{case.name}: a read-only disk', 'nothing can be mounted here (needs root)')
    else:
        link_inputs(folder)
        subprocess.run(['mount', '-o', 'remount,ro', folder], check=True)
        refused('a read-only disk', case, folder, run(folder, case), 'Read-only file system')
        subprocess.run(['umount', folder], check=True)
    os.rmdir(folder)


def become_nobody():
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def nobody_can(folder):
    """Whether the commands and their inputs can be reached by somebody without rights."""
    try:
        return start(folder, ('cvq-info', 'q4.cvq'), preexec=become_nobody, stdout=subprocess.DEVNULL).wait() == 0
    except (OSError, subprocess.SubprocessError):
        return False


def not_ones_own(case, folder):
    """A folder that others may read only."""
    if os.geteuid() == 0:
        if not nobody_can(folder):
            return skip(f'{case.name}: no permission', 'user nobody cannot run the commands')
        result = run(folder, case, preexec=become_nobody)
    else:
        os.chmod(folder, 0o555)
        result = run(folder, case)
        os.chmod(folder, 0o755)
    refused('no permission', case, folder, result, 'Permission denied')


def inputs_stay(case):
    """An output that is called as an input is refused, with --force too; and so is one that would first be written under an input's name."""
    folder = os.path.join(base, 'copies')
    shutil.copytree(os.path.join(base, 'inputs'), folder, symlinks=True)

    def contents():
        return {n: read(folder, n) for n in os.listdir(folder) if os.path.isfile(os.path.join(folder, n))}

    def refuse(name, command):
        before = contents()
        p = start(folder, (case.command[0], '--force', *command), stdin=case.stdin)
        err = p.communicate(timeout=harness.SECONDS)[1].decode()
        check(f'{case.name}: {name}', p.returncode == 1 and one_line(err) and 'is read as input' in err and contents() == before, err)

    def with_words(**words):
        return [words.get(word, word) for word in case.command[1:]]
    read_too = {'number.png'} if 'task.jsonl' in case.command else {'checkpoint/config.json'} if 'checkpoint' in case.command else set()
    for output in set(case.outputs) & set(case.command):
        given = {word for word in case.command[1:] if os.path.isfile(os.path.join(folder, word))}
        for name in given | read_too:
            refuse(f'{output} is called {name}', with_words(**{output: name}))
        for name in given:
            os.rename(os.path.join(folder, name), os.path.join(folder, 'new.partial'))
            refuse(f'{output} is first written as {name}', with_words(**{output: 'new', name: 'new.partial'}))
            os.rename(os.path.join(folder, 'new.partial'), os.path.join(folder, name))
    shutil.rmtree(folder)


def parts_stay():
    """Parts that a command finds by itself are inputs, too."""
    folder = os.path.join(base, 'work')
    subprocess.run([os.path.join(harness.BIN, 'cvq-pack'), '-q', '--split', '3M', 'q4.cvq', 'parts'], cwd=folder, check=True)
    whole = {n: read(folder, n) for n in new_files(folder)}
    for name in whole:
        code, _, err = run(folder, cases.Case('', 'cvq-pack', '--force', '-d', 'parts.001', name))
        check(f'pack -d: onto {name}', code == 1 and 'is read as input' in err and {n: read(folder, n) for n in new_files(folder)} == whole, err)
    clean(folder)


# ---------------------------------------------------------------- standard output

def printing():
    """The reader of a pipe is gone, or the disk behind standard output is full."""
    folder = os.path.join(base, 'work')
    more = (cases.Case('quantize --report -', 'cvq-quantize', '--dry-run', 'small.cvq'),
            cases.Case('run --tokenize', 'cvq-run', '--tokenize', 'a word', 'q4.cvq'),
            cases.Case('help', 'cvq-run', '--help'))
    for case in (*(c for c in CASES if not c.outputs), *more):
        reading, writing = os.pipe()
        os.close(reading)
        p = start(folder, case.command, stdout=writing, stdin=case.stdin)
        os.close(writing)
        err = p.communicate(timeout=harness.SECONDS)[1].decode()
        quiet = p.returncode in (-signal.SIGPIPE, 128 + signal.SIGPIPE) and not errors(err)
        check(f'{case.name}: a closed pipe', quiet or (p.returncode == 1 and one_line(err)), (p.returncode, err))
        with open('/dev/full', 'wb') as full:
            code, _, err = run(folder, case, stdout=full)
        check(f'{case.name}: a full disk behind it', code == 1 and one_line(err) and 'standard output: cannot write: ' in err, (code, err))


def pipes_are_no_files(case, folder):
    """An output is a file: a pipe, a device or a link under its name is refused and stays."""
    for name in set(case.outputs) - set(case.early):
        os.mkfifo(os.path.join(folder, name))
        for force in ((), ('--force',)):
            p = start(folder, (case.command[0], *force, *case.command[1:]), stdin=case.stdin)
            err = p.communicate(timeout=harness.SECONDS)[1].decode()
            check(f'{case.name}: a pipe is in the way {force}', p.returncode == 1 and one_line(err) and 'not a regular file' in err, err)
        os.unlink(os.path.join(folder, name))
        clean(folder)


def main():
    global base
    began = time.monotonic()
    base = tempfile.mkdtemp(prefix='cvq-outputs-')
    try:
        os.chmod(base, 0o755)
        inputs, folder = os.path.join(base, 'inputs'), os.path.join(base, 'work')
        os.mkdir(inputs)
        os.mkdir(folder)
        cases.prepare(inputs, 'tests/checkpoints/small')
        link_inputs(folder)
        for case in WRITERS:
            undisturbed(case, folder)
            for part in (killed, locked, twice, not_ones_own, pipes_are_no_files):
                part(case, folder)
            inputs_stay(case)
            full_disk(case)
            read_only(case)
        parts_stay()
        printing()
    finally:
        subprocess.run(['umount', os.path.join(base, 'disk')], capture_output=True)
        shutil.rmtree(base)
    print(f'{len(WRITERS)} commands that write files, {time.monotonic() - began:.0f} s')
    return summary()


if __name__ == '__main__':
    sys.exit(main())
