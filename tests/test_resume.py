#!/usr/bin/env python3
"""Conversions that are killed, stopped, started twice or left behind: what is there afterwards, and that --resume gives the
same bytes.

cvq-test: once
"""
import functools
import os
import random
import re
import signal
import subprocess
import sys
import time

import harness
from harness import check, files, path, read, remove, skip, start, summary, working_folder

run = functools.partial(harness.run, text=True)
START = []  # the files that are there before
LEFT = ['out.cvq.partial', 'out.cvq.partial.journal']


def kill_later(p, seconds):
    """SIGKILL after so long, unless it has ended. -> killed"""
    try:
        p.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        p.kill()
        p.wait()
        return True
    finally:
        p.stdout.close()
        p.stderr.close()


def killed(program, source, whole, seconds):
    """Five times at a random point, each time with other threads."""
    points = random.Random(7)
    kills = 0
    for i in range(5):
        p = start(program, '-q', '--resume', '--threads', str(1 + i % 3), *source, 'out.cvq')
        if not kill_later(p, seconds * points.uniform(0.1, 0.4)):
            break
        kills += 1
        check(f'{program}: killed: no output', 'out.cvq' not in files() and set(files()) <= set(START + LEFT), files())
    code, out, err = run(program, '-v', '--resume', *source, 'out.cvq')
    check(f'{program}: killed {kills} times and resumed: the same file', code == 0 and kills > 1 and read('out.cvq') == whole, (code, err))
    before = re.search(r'; (.*) of the source were done before', err)
    check(f'{program}: not all was done again', before and before.group(1) != '0 bytes', err)
    check(f'{program}: nothing else stays', files() == sorted(START + ['out.cvq']), files())
    remove('out.cvq')


def leave(program, source, seconds):
    """A leftover that is worth something."""
    for part in (0.5, 0.7, 0.3, 0.2):
        if kill_later(start(program, '-q', *source, 'out.cvq'), seconds * part) and os.path.getsize(path(LEFT[1])) > 500:
            return
        remove('out.cvq')


def leftovers(program, source, whole, seconds):
    leave(program, source, seconds)
    check(f'{program}: killed: a leftover', files() == sorted(START + LEFT), files())
    code, _, err = run(program, '--resume', '--threads', '1', '--type', 'lm_head.weight=q8', *source, 'out.cvq')
    check(f'{program}: other options do not go on', code == 1 and 'another recipe' in err and files() == sorted(START + LEFT), (code, err))
    p = start(program, '--resume', '--threads', '1', *source, 'out.cvq')
    time.sleep(min(0.3, seconds * 0.1))
    p.send_signal(signal.SIGINT)
    out, err = p.communicate()
    check(f'{program}: Ctrl-C after --resume keeps it and says so', p.returncode == 130 and not out and b'--resume goes on' in err and
          files() == sorted(START + LEFT), (p.returncode, err, files()))
    code, out, err = run(program, *source, 'out.cvq')
    check(f'{program}: without --resume it starts over', code == 0 and 'started over' in err and read('out.cvq') == whole, (code, err))
    check(f'{program}: and cleans up', files() == sorted(START + ['out.cvq']), files())
    code, out, err = run(program, '--resume', *source, 'out.cvq')
    check(f'{program}: a finished file is not replaced', code == 1 and '--force' in err, (code, err))
    code, out, err = run(program, '--resume', '--force', *source, 'out.cvq')
    check(f'{program}: --resume with nothing to resume', code == 0 and read('out.cvq') == whole, (code, err))
    remove('out.cvq')


def two_at_once(program, source, whole):
    p = start(program, '--threads', '1', *source, 'out.cvq')
    while p.poll() is None and LEFT[0] not in files():
        time.sleep(0.001)
    code, _, err = run(program, *source, 'out.cvq')
    out = p.communicate()
    check(f'{program}: the second of two at once is refused', code == 1 and ('another process' in err or 'exists already' in err) and
          err.count('\n') == 1, (code, err))
    check(f'{program}: the first is not disturbed', p.returncode == 0 and read('out.cvq') == whole and files() == sorted(START + ['out.cvq']),
          out)
    remove('out.cvq')


def stopped_early(program, source, seconds):
    p = start(program, '--threads', '1', *source, 'out.cvq')
    time.sleep(2.2)
    p.send_signal(signal.SIGTERM)
    out, err = p.communicate()
    if p.returncode == 0:
        skip(f'{program}: stopped after two seconds', 'it takes no two seconds here')
    else:
        check(f'{program}: stopped after two seconds: kept', p.returncode == 130 and b'--resume goes on' in err and
              files() == sorted(START + LEFT), (p.returncode, err))
    remove('out.cvq', *LEFT)


def in_the_way():
    os.symlink('src.cvq', path(LEFT[0]))
    code, _, err = run('cvq-quantize', 'src.cvq', 'out.cvq')
    check('a link in the way is not followed', code == 1 and 'out.cvq' in err, (code, err))
    remove(LEFT[0])
    os.link(path('src.cvq'), path(LEFT[0]))
    code, _, err = run('cvq-quantize', 'src.cvq', 'out.cvq')
    check('another name of a file is not written over', code == 1 and 'in the way' in err and read('src.cvq') == read(LEFT[0]), (code, err))
    remove(LEFT[0])


def full_disk(whole):
    """Room for the file, not for its journal: said, and nothing but the leftover stays."""
    disk = path('disk')
    os.mkdir(disk)
    size = -(-len(whole) // 4096) * 4096 + 4096
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', disk], capture_output=True).returncode:
        skip('a full disk', 'a small file system cannot be mounted here (needs root)')
    else:
        code, _, err = run('cvq-quantize', 'src.cvq', 'disk/out.cvq')
        check('a disk that fills up', code == 1 and 'No space left' in err, (code, err))
        for name in os.listdir(disk):
            os.remove(os.path.join(disk, name))
        with open(os.path.join(disk, 'fill'), 'wb') as f:
            f.write(bytes(1 << 20))
        code, _, err = run('cvq-quantize', 'src.cvq', 'disk/out.cvq')
        check('a disk that is too small is found at once', code == 1 and re.search(r'[0-9.]+ MB more are needed, and [0-9.]+ MB are free', err)
              and os.listdir(disk) == ['fill'], (code, err, os.listdir(disk)))
        subprocess.run(['umount', disk], check=True)
    os.rmdir(disk)


def main():
    global START
    with working_folder('cvq-resume-'):
        made = run('make_model', '-q', '--scale', '8', '--layers', '8', '--vit-layers', '2', '--recipe', 'bf16', 'cvq', 'src.cvq')
        check('make_model', made[0] == 0, made)
        START = files()
        program, source = 'cvq-quantize', ('src.cvq',)
        began = time.monotonic()
        code, _, err = run(program, *source, 'out.cvq')
        seconds = time.monotonic() - began
        check(f'{program}: in one go', code == 0, err)
        whole = read('out.cvq')
        remove('out.cvq')
        killed(program, source, whole, seconds)
        leftovers(program, source, whole, seconds)
        two_at_once(program, source, whole)
        stopped_early(program, source, seconds)
        in_the_way()
        full_disk(whole)
    return summary()


if __name__ == '__main__':
    sys.exit(main())
