#!/usr/bin/env python3
"""Packed files and parts: the same bytes come back, a flipped bit anywhere is found, the piece or part that it hit is named, and a second copy of it
makes the file whole, with the same id.
cvq-test: native formats"""
import functools
import os
import random
import re
import struct
import sys

import harness
from harness import check, files, path, read, remove, summary, working_folder, write

run = functools.partial(harness.run, text=True)
CHECKPOINT = os.path.abspath('models/cogvlm2-tiny')
# Damaged places tried for each type of file; a sanitizer's build tries fewer.
PLACES = 200 if os.environ.get('CVQ_CONFIG', 'gcc') == 'gcc' else 20


def identity(name):
    return re.search('^id: +([0-9a-f]{64})', run('cvq-info', name).out, re.M)[1]


def flip(data, at, bit):
    out = bytearray(data)
    out[at] ^= 1 << bit
    return bytes(out)


# ---------------------------------------------------------------- there and back

def packing():
    data = read('bf16.cvq')
    r = run('cvq-pack', 'bf16.cvq', 'packed')
    packed = read('packed')
    check('packed: smaller', r.code == 0 and len(packed) < 0.7 * len(data), r)
    r = run('cvq-pack', '--threads', '1', 'bf16.cvq', 'packed-1')
    check('packed: the same with one thread', r.code == 0 and read('packed-1') == packed, r)
    r = run('cvq-pack', '-d', 'packed', 'out-1.cvq')
    check('unpacked: the same file', r.code == 0 and read('out-1.cvq') == data and identity('bf16.cvq') in r.out, r)
    r = run('cvq-pack', '--split', '3M', 'bf16.cvq', 'p')
    parts = sorted(n for n in files() if n.startswith('p.0'))
    check('parts: joined they are the packed file', b''.join(read(n) for n in parts) == packed and len(parts) > 2 and
          all(len(read(n)) == 3000000 for n in parts[:-1]), (r, parts))
    r = run('cvq-pack', '-d', 'p.001', 'out-2.cvq')
    check('parts: unpacked', r.code == 0 and read('out-2.cvq') == data, r)
    r = run('cvq-pack', '-d', '-', 'out-3.cvq', stdin=packed)
    check('unpacked from standard input', r.code == 0 and read('out-3.cvq') == data, r)
    remove(*parts)
    r = run('cvq-pack', 'q4.cvq', 'no')
    check('a quantized file is not packed', r.code == 1 and '--split' in r.err and not os.path.exists(path('no')), r)
    r = run('cvq-pack', '--split', '5Mi', 'q4.cvq', 'p')
    parts = sorted(n for n in files() if n.startswith('p.0'))
    check('but cut into parts', r.code == 0 and b''.join(read(n) for n in parts) == read('q4.cvq'), r)
    r = run('cvq-pack', '-d', 'p.001', 'out-4.cvq')
    check('and joined', r.code == 0 and read('out-4.cvq') == read('q4.cvq'), r)
    remove(*parts)


# ---------------------------------------------------------------- damage

def pieces(packed):
    """-> [(place in the packed file, bytes there, place in the .cvq file, bytes there)] as formats/packed_file.c lays them out."""
    size, = struct.unpack_from('<Q', packed, 16)
    at, to, out = 64, 0, []
    while to < size:
        _, first, second, _ = struct.unpack_from('<IIII', packed, at)
        out.append((at, 16 + first + second, to, min(2**20, size - to)))
        at, to = at + out[-1][1], to + out[-1][3]
    return out


def hit(r, table):
    """The pieces that a message names, by bytes of the .cvq file; of what says that the file ends too early or goes on, or of the header, all."""
    place = re.search(r'bytes (\d+) to (\d+)', r.err) or re.search(r'byte (\d+)()', r.err)
    if not place:
        return table
    first, last = int(place[1]), int(place[2] or place[1])
    return [p for p in table if p[2] <= last and first < p[2] + p[3]]


def flipped_packed(packed):
    """Bits of a packed file; what is named, taken from a second copy, makes it whole."""
    rng = random.Random('packed')
    table = pieces(packed)
    missed, misnamed, unmended = [], [], []
    for _ in range(PLACES):
        at, bit = rng.randrange(len(packed)), rng.randrange(8)
        bad = flip(packed, at, bit)
        write('bad', bad)
        r = run('cvq-pack', '-d', 'bad', 'out-6.cvq')
        if r.code != 1 or os.path.exists(path('out-6.cvq')) or not r.err.startswith('cvq-pack: bad: ') or r.err.count('\n') != 1:
            missed.append((at, bit, str(r)))
            continue
        named = hit(r, table)
        if at >= 64 and not any(p[0] <= at < p[0] + p[1] for p in named):
            misnamed.append((at, bit, str(r)))
        mended = bytearray(bad[:0] + packed[:64] + bad[64:])
        for place, size, _, _ in named:
            mended[place:place + size] = packed[place:place + size]
        write('bad', bytes(mended))
        r = run('cvq-pack', '--force', '-d', 'bad', 'out-7.cvq')
        if r.code != 0 or read('out-7.cvq') != read('bf16.cvq'):
            unmended.append((at, bit, str(r)))
    check(f'{PLACES} flipped bits of a packed file are found', not missed, missed[:3])
    check('the piece is named', not misnamed, misnamed[:3])
    check('and a second copy of it gives the same file', not unmended, unmended[:3])


def flipped_parts(kind):
    """Bits of parts: the part is named, and a second copy of that part makes the file whole."""
    rng = random.Random(kind)
    whole = read(kind + '.cvq')
    run('cvq-pack', '--force', '--split', '5Mi', kind + '.cvq', kind)
    names = sorted(n for n in files() if n.startswith(kind + '.0'))
    parts = [read(n) for n in names]
    missed, misnamed, unmended = [], [], []
    for _ in range(PLACES):
        i = rng.randrange(len(parts))
        at, bit = rng.randrange(len(parts[i])), rng.randrange(8)
        write(names[i], flip(parts[i], at, bit))
        r = run('cvq-pack', '-d', names[0], 'out-8.cvq')
        if r.code != 1 or os.path.exists(path('out-8.cvq')) or r.err.count('\n') != 1:
            missed.append((i, at, bit, str(r)))
        elif names[i] not in r.err:
            misnamed.append((i, at, bit, str(r)))
        write(names[i], parts[i])
        r = run('cvq-pack', '--force', '-d', names[0], 'out-9.cvq')
        if r.code != 0 or read('out-9.cvq') != whole:
            unmended.append((i, at, bit, str(r)))
    check(f'{kind}: {PLACES} flipped bits of parts are found', not missed, missed[:3])
    check(f'{kind}: the part is named', not misnamed, misnamed[:3])
    check(f'{kind}: and a second copy of it gives the same file', not unmended, unmended[:3])


def cut_and_changed(packed):
    bad = []
    cases = [packed[:n] for n in (0, 10, 63, 64, 70, 80, len(packed) // 2, len(packed) - 1)] + [packed + b'\0']
    cases += [flip(packed, at, bit) for at in range(0, 96, 5) for bit in (0, 7)]
    for i, data in enumerate(cases):
        write('bad', data)
        r = run('cvq-pack', '-d', 'bad', 'out-6.cvq')
        if r.code != 1 or os.path.exists(path('out-6.cvq')) or not r.err.startswith('cvq-pack: bad: ') or r.err.count('\n') != 1:
            bad.append((i, str(r)))
    check(f'{len(cases)} damaged packed files are refused', not bad, bad[:3])


def main():
    with working_folder('cvq-packing-'):
        os.environ['XDG_CACHE_HOME'] = path('cache')
        for recipe in ('bf16', 'q4'):
            r = run('cvq-convert', '-q', '--recipe', recipe, CHECKPOINT, recipe + '.cvq')
            if r.code != 0:
                sys.exit(f'cannot convert: {r}')
        packing()
        packed = read('packed')
        flipped_packed(packed)
        flipped_parts('q4')
        cut_and_changed(packed)
        check('nothing half-written is left', not [n for n in files() if n.endswith('.partial')], files())
    return summary()


if __name__ == '__main__':
    sys.exit(main())
