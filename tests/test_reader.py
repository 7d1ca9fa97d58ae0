#!/usr/bin/env python3
"""The specification read twice: tests/cvq_reader.py, written from docs/format.md alone, must find in a
file what the C code put there, to the bit; and the worked example of docs/format.md must be what the
C code writes and what the Python code understands. And of the heads that a fuzzer made, both must take the same ones.

    test_reader.py --write      puts the example anew into docs/format.md
cvq-test: compiled"""
import hashlib
import json
import os
import re
import struct
import sys
import tempfile

try:
    import numpy as np
except ImportError:
    print('skip: numpy is not installed, so the independent reader could not run')
    print('0 passed, 0 failed, 1 skipped')
    sys.exit(0)

import cvq_reader as reader
from harness import RUNNER, check, run, skip, summary

MODEL = 'models/cogvlm2-tiny'
DOCUMENT = 'docs/format.md'
START, END = '<!-- example: written by tests/test_reader.py --write -->\n', '<!-- end of example -->\n'


def printed(program, *args):
    r = run(program, *args)
    if r.code != 0:
        raise RuntimeError(f'{program} {args}: {r}')
    return r.out


def same(a, b):
    return a.shape == b.shape and (a.view(np.uint32) == b.view(np.uint32)).all()


# ---------------------------------------------------------------- files

def values_agree(name, path, file):
    wrong = []
    for i, t in enumerate(file.tensors):
        mine = np.ascontiguousarray(file.values(t)[0])
        its = np.frombuffer(printed('format_dump', 'values', path, i), '<f4').reshape(t.rows, t.cols)
        if not same(mine, its):
            wrong.append(f'{t.name} ({reader.NAMES[t.type]})')
    check(f'{name}: {len(file.tensors)} tensors decode to the same values', not wrong, wrong)


def small_file(folder):
    path = os.path.join(folder, 'small.cvq')
    printed('format_dump', 'small', path)
    file = reader.CvqFile(path)
    types = {(t.type, t.height) for t in file.tensors}
    everything = {(t, 16) for t in (1, 2, 3, 4, 5, 6)} | {(t, 1) for t in (0, 1)}
    check('the small file has every type', everything <= types, types)
    values_agree('small file', path, file)
    check('small file: no damage', not file.damage(), file.damage())
    check('small file: metadata', file.metadata is None or file.metadata.startswith(b'{"format":"cvq"'), file.metadata)
    check('small file: merges', file.tokenizer.merges == [(97, 98, 256), (256, 99, 257)], file.tokenizer.merges)
    data = bytearray(open(path, 'rb').read())
    for t in (file.tensors[0], file.tensors[9]):
        data[t.offset + t.size - 1] ^= 1
    data[file.tensors[1].offset - 1] ^= 1
    open(path, 'wb').write(data)
    found = [d[0] for d in reader.CvqFile(path).damage()]
    check('small file: damage is found', found == [file.tensors[0].name, 'padding', file.tensors[9].name], found)
    data[300] ^= 1
    open(path, 'wb').write(data)
    try:
        reader.CvqFile(path)
        check('small file: a changed head is refused', False, 'it was not')
    except reader.Malformed as e:
        check('small file: a changed head is refused', 'hash' in str(e), e)


def checkpoint():
    """-> {name: bf16 values as f32}"""
    out = {}
    for name in sorted(os.listdir(MODEL)):
        if name.endswith('.safetensors'):
            data = open(os.path.join(MODEL, name), 'rb').read()
            size, = struct.unpack('<Q', data[:8])
            for tensor, info in json.loads(data[8:8 + size]).items():
                if tensor != '__metadata__' and info['dtype'] == 'BF16':
                    a, b = info['data_offsets']
                    raw = np.frombuffer(data[8 + size + a:8 + size + b], '<u2').astype(np.uint32)
                    out[tensor] = (raw << 16).view(np.float32)
    return out


def padding_follows_the_rules(file):
    wrong = []
    for t in file.tensors:
        padding = file.values(t)[1]
        if padding is None:
            continue
        below, right = padding
        if below.any():
            wrong.append(f'{t.name}: pad rows')
        if t.type not in reader.TABLED and right.any():
            wrong.append(f'{t.name}: pad columns')
    return wrong


def converted_files(folder):
    if RUNNER:
        skip('the conversion of the small checkpoint', 'it is compared on the machine itself only')
        return
    source = checkpoint()
    for recipe in ('bf16', 'q4'):
        path = os.path.join(folder, recipe + '.cvq')
        printed('cvq-convert', '-q', '--recipe', recipe, MODEL, path)
        file = reader.CvqFile(path)
        check(f'{recipe}: no damage', not file.damage(), file.damage())
        wrong = padding_follows_the_rules(file)
        check(f'{recipe}: padding', not wrong, wrong)
        if recipe == 'bf16':
            wrong = [t.name for t in file.tensors if t.name in source
                     and not same(np.ascontiguousarray(file.values(t)[0]).reshape(-1), source[t.name])]
            check('bf16: the values of the checkpoint', source and not wrong, wrong)
        else:
            values_agree(recipe, path, file)


# ---------------------------------------------------------------- hostile files

HEADS = 'tests/fuzz/corpus/cvq_mended'


def write_mended(path, start):
    """A file whose head begins like this, with zeros behind it and a hash that fits (tests/fuzz/fuzz_cvq_mended.c)"""
    size, head_size = struct.unpack_from('<QQ', start, 16)
    if max(size, 16 * head_size) > 64 << 20 or head_size < 240:
        return False
    head = bytearray(start[:head_size].ljust(head_size, b'\0'))
    head[32:64] = bytes(32)
    head[32:64] = hashlib.sha256(head).digest()
    with open(path, 'wb') as f:
        f.write(head)
        f.truncate(size)
    return True


def refusal(path):
    """Why the Python reader refuses it; None if it does not"""
    try:
        reader.CvqFile(path).check_metadata()
    except reader.Malformed as e:
        return str(e)
    return None


def hostile_files(folder):
    path, taken, refused, wrong = os.path.join(folder, 'hostile.cvq'), 0, 0, []
    for name in sorted(os.listdir(HEADS)):
        with open(os.path.join(HEADS, name), 'rb') as f:
            start = f.read()
        if len(start) < 240 or not write_mended(path, start):
            continue
        its, mine = run('cvq-info', '--json', path), refusal(path)
        taken, refused = taken + (its.code == 0), refused + (its.code != 0)
        if (its.code == 0) != (mine is None):
            wrong.append((name, its.err, mine))
    check('hostile heads: both readers take the same ones', taken > 20 and refused > 20 and not wrong, (taken, refused, wrong[:5]))


# ---------------------------------------------------------------- the example

def written_example(folder):
    return printed('format_dump', 'example', os.path.join(folder, 'example.cvq')).decode()


def blocks(text):
    """{title: bytes} of the hex dumps"""
    found = re.findall(r'^(.+):\n```\n((?:[0-9a-f]{4}:.*\n)+)```$', text, re.M)
    return {title: bytes.fromhex(''.join(line.split(':')[1] for line in dump.splitlines())) for title, dump in found}


def example_agrees(folder, document):
    text = document.split(START)[1].split(END)[0]
    check('docs/format.md: the example is what the code writes', text == written_example(folder),
          'run tests/test_reader.py --write')
    hexes = blocks(text)
    table = np.frombuffer(hexes['Entry 2 of INDEX, type q4t'][176:192], np.uint8)
    for kind, name in enumerate(reader.NAMES):
        data = np.frombuffer(hexes[f'{name}, R = 1'], np.uint8)
        head = reader.HEAD_BYTES[kind]
        mine = reader.decode_group(kind, 1, data[head:], table, 67, data[:head].view('<f4'))[0]
        said = re.search(rf'^{name} values: (.*)$', text, re.M).group(1)
        pairs = re.findall(r'\[(\d+)\] (\S+)', said)
        wrong = [p for p in pairs if np.float32(p[1]) != mine[int(p[0])]]
        check(f'docs/format.md: the example of {name}', pairs and not wrong, wrong)
    head = hexes['Header and section table']
    check('docs/format.md: the header', head[:8] == b'\x89CVQ\r\n\x1a\n' and len(head) == 240)


def main():
    with tempfile.TemporaryDirectory() as folder:
        with open(DOCUMENT, encoding='utf-8') as f:
            document = f.read()
        if sys.argv[1:] == ['--write']:
            before, rest = document.split(START)
            with open(DOCUMENT, 'w', encoding='utf-8') as f:
                f.write(before + START + written_example(folder) + END + rest.split(END)[1])
            return 0
        example_agrees(folder, document)
        small_file(folder)
        converted_files(folder)
        hostile_files(folder)
    return summary()


if __name__ == '__main__':
    sys.exit(main())
