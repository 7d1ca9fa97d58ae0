#!/usr/bin/env python3
"""A model of the real size in little memory: what each phase of an answer takes, reads and waits for.

    scripts/measure_memory.py [--build build] [--folder DIR] [--keep] [--tokens 32] [--layers 32] [--vit-layers 63]
                              [--scale 1] [--limits none,16,8,6]

Makes a model of noise (13.5 GB in DIR, by default the build folder; removed at the end unless --keep, and taken as it is if it
is there), then asks it about a picture of 1344 x 1344 pixels from a cold cache: without a limit, and in memory control groups
of so many GB (those need the right to make groups, as root has). 6 GB and less take keys and values in q8 and a context of
4,096. Prints a table in Markdown for docs/memory.md. A picture takes minutes; --vit-layers and --layers cut the model, --scale N
divides every width (and the picture) by N, so that limits are to be divided by N squared. By hand; tests/test_memory.py does the same with
a small model.
"""
import argparse
import json
import os
import resource
import struct
import subprocess
import sys
import threading
import time
import zlib

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import memory_group  # noqa: E402


def write_picture(path, size):
    """Stripes and a gradient, as PNG."""
    rows = b''.join(b'\0' + bytes(c for x in range(size) for c in (x * 255 // size, y * 255 // size, (x // 16 + y // 16) % 2 * 255))
                    for y in range(size))

    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    with open(path, 'wb') as f:
        f.write(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', size, size, 8, 2, 0, 0, 0)) +
                chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b''))


def forget(path):
    """Out of the system's cache of files."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def status_of(pid):
    """-> (anonymous, file) resident bytes of a process"""
    try:
        with open(f'/proc/{pid}/status', encoding='ascii') as f:
            found = dict(line.split(':', 1) for line in f)
        return tuple(int(found[n].split()[0]) * 1024 for n in ('RssAnon', 'RssFile'))
    except (OSError, KeyError, ValueError):
        return 0, 0


def busy_seconds():
    """What all processors have worked since the start of the system."""
    with open('/proc/stat', encoding='ascii') as f:
        ticks = [int(n) for n in f.readline().split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf('SC_CLK_TCK')  # without idle, and idle for the disk's sake


def used_seconds():
    """What this process and those it has waited for have worked."""
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


class Peaks:
    """The most of each kind while a process runs, seen every 50 ms."""

    def __init__(self, process, group):
        self.process, self.group = process, group
        self.anon = self.file = self.group_file = 0
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()

    def watch(self):
        while self.process.poll() is None:
            anon, file = status_of(self.process.pid)
            self.anon, self.file = max(self.anon, anon), max(self.file, file)
            if self.group:
                self.group_file = max(self.group_file, self.group.now()[1])
            time.sleep(0.05)


def measure(command, limit, cold=None):
    """Runs cvq-run --json in a group of `limit` bytes (None: no group). -> its object, with peaks and what the system did."""
    group = None
    if limit is not None:
        group = memory_group.make(limit)
        if not group:
            sys.exit('measure_memory.py: this user cannot make memory control groups; --limits none goes without')
    if cold:
        forget(cold)
    start, others = time.monotonic(), busy_seconds() - used_seconds()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               preexec_fn=group.enter if group else None)
    peaks = Peaks(process, group)
    out, err = process.communicate()
    peaks.thread.join()
    result = json.loads(out) if process.returncode == 0 else {}
    result.update(code=process.returncode, stderr=err, seconds=time.monotonic() - start, peak_anon=peaks.anon, peak_file=peaks.file,
                  others_seconds=busy_seconds() - used_seconds() - others, group_peak=group.peak() if group else 0,
                  killed=group.killed() if group else 0)
    if group:
        group.__exit__()
    return result


def needed_bytes(plan):
    return plan['weights_encode'] + plan['weights_prefill']


def gb(n):
    return f'{n / 1e9:.2f}'


def table(name, r):
    plan = r['memory']
    print(f'\n### {name}\n')
    print(f"Available {gb(plan['available'])} GB of {gb(plan['total'])} GB; planned at most {gb(plan['resident_encode'])}, "
          f"{gb(plan['resident_prefill'])}, {gb(plan['resident_decode'])} GB; weights kept {gb(plan['weights_kept'])} GB. "
          f"Peaks: anonymous {gb(r['peak_anon'])} GB, mapped file {gb(r['peak_file'])} GB"
          + (f", the group {gb(r['group_peak'])} GB, killed {r['killed']}" if r['group_peak'] else '') + '.\n')
    print('| phase | seconds | read from disk, GB | major faults | tokens/s |\n|---|---|---|---|---|')
    rates = {'prefill': r['prompt_tokens'] / r['prefill_s'] if r['prefill_s'] else 0, 'decode': r['decode_tokens_per_s']}
    for phase in ('encode', 'prefill', 'decode'):
        rate = f'{rates[phase]:.2f}' if phase in rates else ''
        print(f"| {phase} | {r[phase + '_s']:.1f} | {gb(r[phase + '_read_bytes'])} | {r[phase + '_major_faults']:.0f} | {rate} |")
    print(f"| after the second token | | {gb(r['steady_read_bytes'])} | {r['steady_major_faults']:.0f} | "
          f"{r['steady_tokens_per_s']:.2f} |")
    read = sum(r[p + '_read_bytes'] for p in ('encode', 'prefill', 'decode'))
    print(f"\nRead in all {gb(read)} GB: {read / needed_bytes(plan):.3f} times the weights that the answer needs. "
          f"Ready {r['start_s'] * 1e3:.0f} ms after the start. The system and other programs worked {r['others_seconds']:.0f} s on the "
          'processors meanwhile.', flush=True)
    if r['stderr'].strip():
        print('\n' + r['stderr'].strip())


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--build', default='build')
    p.add_argument('--folder')
    p.add_argument('--keep', action='store_true')
    p.add_argument('--tokens', type=int, default=32)
    p.add_argument('--layers', type=int, default=32)
    p.add_argument('--vit-layers', type=int, default=63)
    p.add_argument('--scale', type=int, default=1)
    p.add_argument('--limits', default='none,16,8,6')
    args = p.parse_args()
    folder = args.folder or args.build
    model = os.path.join(folder, f'memory-{args.scale}-{args.layers}-{args.vit_layers}.cvq')
    picture = os.path.join(folder, 'memory.png')
    write_picture(picture, 1344 // args.scale)
    try:
        if not os.path.exists(model):
            subprocess.run([os.path.join(args.build, 'tools/make_model'), '--layers', str(args.layers), '--vit-layers',
                            str(args.vit_layers), '--scale', str(args.scale), 'cvq', model], check=True)
        for limit in args.limits.split(','):
            size = None if limit == 'none' else int(float(limit) * 1e9)
            command = [os.path.join(args.build, 'bin/cvq-run'), '--json', '--memory', '--no-cache', '--image', picture, '--prompt',
                       'What is in the picture?', '--max-tokens', str(args.tokens)]
            small = size is not None and size * args.scale ** 2 <= 6e9
            if small:
                command += ['--kv', 'q8', '--context', '4096']
            r = measure(command + [model], size, cold=model)
            name = 'Without a limit' if size is None else f'{limit} GB' + (', q8, 4,096 slots' if small else '')
            if r['code'] != 0:
                print(f"\n### {name}\n\nexit status {r['code']}, killed {r['killed']}: {r['stderr']}")
            else:
                table(name, r)
    finally:
        os.unlink(picture)
        if not args.keep and os.path.exists(model):
            os.unlink(model)


if __name__ == '__main__':
    main()
