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
import tempfile
import time

import harness
from failing_calls import LIBRARY, SIGNALLED, Plan
from harness import check, files, path, read, remove, skip, start, summary, working_folder

run = functools.partial(harness.run, text=True)
START = []  # the files that are there before
plans = None  # a folder for plans, in which nothing else is
LEFT = ['out.cvq.partial', 'out.cvq.partial.journal']
# Calls of fsync: the first is of the empty journal, the next two are of the file and of the journal with the first tensor, and the fourth comes
# before the file has its name, however slow the disk is. A run that goes on begins with the second.
SYNC_FIRST_TENSOR, SYNC_NEXT_TENSOR = 4, 3


def at(kind, call, number):
    """A plan: in front of this call the command gets the signal. So it is stopped at the same place, whatever else the machine does."""
    return Plan(os.path.join(plans, 'plan'), kind, SIGNALLED, call, number)


def start_with(plan, program, *args):
    return start(program, *args, env={**os.environ, **plan.environment})


def kill_at(plan, program, *args):
    """-> (whether it was killed, what it was like otherwise)"""
    r = run(program, *args, env=plan.environment)
    return r.code == -signal.SIGKILL, r


def wait_for_stop(p):
    """Until it has stopped itself. -> whether it has; else it has ended"""
    return os.waitid(os.P_PID, p.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT).si_code == os.CLD_STOPPED


def killed(program, source, whole, writes):
    """Five times, each time with other threads: at random writes, which are three quarters of all together, and when a tensor was noted."""
    points = random.Random(7)
    for i, share in enumerate((0.4, None, 0.2, None, 0.15)):
        plan = at('write', int(writes * share * points.uniform(0.5, 1)), signal.SIGKILL) if share else at('sync', SYNC_NEXT_TENSOR, signal.SIGKILL)
        was, r = kill_at(plan, program, '-q', '--resume', '--threads', str(1 + i % 3), *source, 'out.cvq')
        check(f'{program}: killed: no output', was and files() == sorted(START + LEFT), (r, files()))
    code, out, err = run(program, '-v', '--resume', *source, 'out.cvq')
    check(f'{program}: killed five times and resumed: the same file', code == 0 and read('out.cvq') == whole, (code, err))
    before = re.search(r'; (.*) of the source were done before', err)
    check(f'{program}: not all was done again', before and before.group(1) != '0 bytes', err)
    check(f'{program}: nothing else stays', files() == sorted(START + ['out.cvq']), files())
    remove('out.cvq')


def leave(program, source):
    """A leftover that is worth something: its journal has a tensor."""
    was, r = kill_at(at('sync', SYNC_FIRST_TENSOR, signal.SIGKILL), program, '-q', *source, 'out.cvq')
    check(f'{program}: killed: a leftover', was and files() == sorted(START + LEFT), (r, files()))


def leftovers(program, source, whole):
    leave(program, source)
    code, _, err = run(program, '--resume', '--threads', '1', '--type', 'lm_head.weight=q8', *source, 'out.cvq')
    check(f'{program}: other options do not go on', code == 1 and 'another recipe' in err and files() == sorted(START + LEFT), (code, err))
    p = start_with(at('write', 3, signal.SIGINT), program, '--resume', '--threads', '1', *source, 'out.cvq')
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
    p = start_with(at('write', 3, signal.SIGSTOP), program, '--threads', '1', *source, 'out.cvq')
    check(f'{program}: the first stands still', wait_for_stop(p))
    code, _, err = run(program, *source, 'out.cvq')
    p.send_signal(signal.SIGCONT)
    out = p.communicate()
    check(f'{program}: the second of two at once is refused', code == 1 and 'another process' in err and err.count('\n') == 1, (code, err))
    check(f'{program}: the first is not disturbed', p.returncode == 0 and read('out.cvq') == whole and files() == sorted(START + ['out.cvq']),
          out)
    remove('out.cvq')


def stopped_early(program, source):
    """What took two seconds is worth keeping."""
    p = start_with(at('sync', SYNC_FIRST_TENSOR, signal.SIGSTOP), program, '--threads', '1', *source, 'out.cvq')
    check(f'{program}: it stands still', wait_for_stop(p))
    time.sleep(2.1)
    p.send_signal(signal.SIGTERM)
    p.send_signal(signal.SIGCONT)
    out, err = p.communicate()
    check(f'{program}: stopped after two seconds: kept', p.returncode == 130 and b'--resume goes on' in err and files() == sorted(START + LEFT),
          (p.returncode, err))
    remove('out.cvq', *LEFT)


def in_the_way():
    os.symlink('src.cvq', path(LEFT[0]))
    code, _, err = run('cvq-quantize', 'src.cvq', 'out.cvq')
    check('a link in the way is not followed', code == 1 and 'out.cvq' in err, (code, err))
    remove(LEFT[0])
    os.link(path('src.cvq'), path(LEFT[0]))
    code, _, err = run('cvq-quantize', 'src.cvq', 'out.cvq')
    check('another name of a file is not written over', code == 1 and 'read as input' in err and read('src.cvq') == read(LEFT[0]), (code, err))
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
    global START, plans
    if not os.path.exists(LIBRARY):
        skip('conversions that are stopped', 'they are stopped by overriding functions of glibc')
        return summary()
    with tempfile.TemporaryDirectory(prefix='cvq-resume-plans-') as plans, working_folder('cvq-resume-'):
        made = run('make_model', '-q', '--scale', '8', '--layers', '8', '--vit-layers', '2', '--recipe', 'bf16', 'cvq', 'src.cvq')
        check('make_model', made[0] == 0, made)
        START = files()
        program, source = 'cvq-quantize', ('src.cvq',)
        counted = Plan(os.path.join(plans, 'plan'))
        code, _, err = run(program, *source, 'out.cvq', env=counted.environment)
        check(f'{program}: in one go', code == 0, err)
        whole = read('out.cvq')
        remove('out.cvq')
        killed(program, source, whole, counted.read().calls['write'])
        leftovers(program, source, whole)
        two_at_once(program, source, whole)
        stopped_early(program, source)
        in_the_way()
        full_disk(whole)
    return summary()


if __name__ == '__main__':
    sys.exit(main())
