#!/usr/bin/env python3
"""Conversions of a model of the real size: how fast, in how much memory, and whether one that is killed and resumed gives the
same file.

    scripts/measure_conversion.py [--build build] [--folder DIR] [--layers 32] [--vit-layers 63] [--sparse] [--kills 0]
                                  [--recipes q8,q4,q4-small] [--limit 1.0]

Makes a checkpoint of noise in DIR (39 GB at full size; --sparse makes most of it holes and takes 2.5 GB, for what does not depend on
the values: memory, order, resumption) and converts it by each recipe, in a memory control group of --limit GB, page cache
included, where this user may make one. With --kills N every recipe is converted once more, killed at N random points and resumed
after each. Prints a table in Markdown for docs/quantization.md. What it made is removed at the end. By hand;
tests/test_resume.py does the same with a small model.
"""
import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import memory_group  # noqa: E402


def processor_seconds(pid):
    """What a process has used so far."""
    with open(f'/proc/{pid}/stat', encoding='ascii') as f:
        fields = f.read().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def run(command, group, seconds=None):
    """Runs it, or kills it after so many seconds of processor time, which other programs do not change much. -> (exit status or
    None, stdout, stderr, seconds, processor seconds, peak RSS)"""
    start = time.monotonic()
    p = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                         preexec_fn=group.enter if group else None)
    if seconds is not None:
        while processor_seconds(p.pid) < seconds and os.waitid(os.P_PID, p.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            time.sleep(0.05)
        p.kill()
    out, err = p.stdout.read(), p.stderr.read()
    _, status, usage = os.wait4(p.pid, 0)
    p.returncode = os.waitstatus_to_exitcode(status)
    code = None if p.returncode == -9 else p.returncode
    return code, out, err, time.monotonic() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def id_of(text):
    found = re.search(r'id ([0-9a-f]{64})', text)
    return found.group(1) if found else None


def source_bytes(folder):
    return sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder) if f.endswith('.safetensors'))


def in_group(limit, work):
    group = memory_group.make(limit)
    if not group:
        return work(None) + (0, 0)
    with group:
        return work(group) + (group.peak(), group.killed())


def killed_and_resumed(command, kills, seconds, limit, points):
    """The kills take the first half of `seconds`, the processor time of a whole run, or so. -> id"""
    done = 0
    for _ in range(kills):
        code, _, err, *_ = in_group(limit, lambda g: run(command, g, seconds * points.uniform(0.3, 1) / (kills + 1)))
        if code is not None:
            sys.exit(f'measure_conversion.py: ended with {code} before it was killed: {err}')
        done += 1
    code, out, err, *_ = in_group(limit, lambda g: run(command, g))
    print(f'killed {done} times; the last run: {err.strip()}', flush=True)
    return id_of(out) if code == 0 else f'exit status {code}'


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--build', default='build')
    p.add_argument('--folder')
    p.add_argument('--layers', type=int, default=32)
    p.add_argument('--vit-layers', type=int, default=63)
    p.add_argument('--sparse', action='store_true')
    p.add_argument('--kills', type=int, default=0)
    p.add_argument('--recipes', default='q8,q4,q4-small')
    p.add_argument('--limit', type=float, default=1.0)
    args = p.parse_args()
    folder = args.folder or args.build
    source, output = os.path.join(folder, 'conversion-source'), os.path.join(folder, 'conversion.cvq')
    limit = int(args.limit * 1e9)
    good = True
    try:
        subprocess.run([os.path.join(args.build, 'tools/make_model'), '-q', '--layers', str(args.layers), '--vit-layers',
                        str(args.vit_layers), *(['--sparse'] if args.sparse else []), 'checkpoint', source], check=True)
        size = source_bytes(source)
        print(f'source {size / 1e9:.2f} GB, a limit of {args.limit} GB with page cache\n')
        print('| recipe | wall | processor | source MB/s, wall | peak resident | peak of the group | killed for want of memory |')
        print('|---|---|---|---|---|---|---|', flush=True)
        for recipe in args.recipes.split(','):
            command = [os.path.join(args.build, 'bin/cvq-convert'), '-v', '--resume', '--recipe', recipe, source, output]
            code, out, err, wall, cpu, rss, peak, killed = in_group(limit, lambda g, c=command: run(c, g))
            if code != 0:
                sys.exit(f'measure_conversion.py: {recipe}: exit status {code}: {err}')
            print(f'| {recipe} | {wall:.1f} s | {cpu:.1f} s | {size / wall / 1e6:.0f} | {rss / 1e6:.0f} MB | {peak / 1e6:.0f} MB | '
                  f'{killed} |', flush=True)
            os.unlink(output)
            if args.kills:
                again = killed_and_resumed(command, args.kills, cpu, limit, random.Random(args.kills))
                same = again == id_of(out)
                good = good and same
                print(f'{recipe}: killed {args.kills} times and resumed: {"the same id" if same else "ANOTHER ID"}, {again}', flush=True)
                os.unlink(output)
    finally:
        shutil.rmtree(source, ignore_errors=True)
        for name in (output, output + '.partial', output + '.partial.journal'):
            if os.path.exists(name):
                os.unlink(name)
    return 0 if good else 1


if __name__ == '__main__':
    sys.exit(main())
