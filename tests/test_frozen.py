#!/usr/bin/env python3
"""Version 1 of the format is frozen: tests/frozen/v1.cvq.xz, with every block type, was written when it was, and stays as it is.
So do the files that were added since, each when a writer's choice changed.

All must still be read, by the C code and by the reader that was written from docs/format.md alone, with every value to the bit as
it was then; and the same checkpoint converted with the same types must still give the bytes of the last.

    test_frozen.py --write      wrote the last; a file that is there is never written again
"""
import hashlib
import json
import lzma
import os
import sys
import tempfile

try:
    import numpy as np
except ImportError:
    print('skip: numpy is not installed, so the independent reader could not run')
    print('0 passed, 0 failed, 1 skipped')
    sys.exit(0)

import cvq_reader as reader
from harness import check, run, summary

CHECKPOINT = 'tests/checkpoints/small'
FROZEN = ('tests/frozen/v1',
          'tests/frozen/v1-2',  # q4s: the scale of a row by its blocks' error
          'tests/frozen/v1-3')  # q4s: every level tried, one of two tables
LAST = FROZEN[-1]
# Every block type, in language and in vision matrices; two of them in tables too.
LAYER_TYPES = {'query_key_value': ('q4h', 'q6'), 'dense': ('q4', 'q4s'), 'gate_proj': ('q4t', 'q8'), 'up_proj': ('q4s', 'q4h'),
               'down_proj': ('q6', 'q4t')}
RULES = [f'model.layers.{layer}.*{matrix}.weight={types[layer]}' for matrix, types in LAYER_TYPES.items() for layer in (0, 1)] + [
    'lm_head.weight=q4h', 'model.embed_tokens.weight=q4s', 'model.vision.patch_embedding.position_embedding.weight=q4h',
    'model.vision.transformer.layers.0.*.weight=q4t', 'model.vision.transformer.layers.1.*.weight=q4',
    'model.vision.transformer.layers.2.*.weight=bf16']


def command(name, *arguments):
    made = run(name, '-q', '--force', *arguments)
    if made.code != 0:
        raise RuntimeError(f'{name} {" ".join(arguments)}: {made}')


def make(path):
    """The checkpoint in these types, as this program makes it."""
    command('cvq-convert', '--recipe', 'bf16', CHECKPOINT, path + '.16')
    command('cvq-quantize', '--recipe', 'q8', *(word for rule in RULES for word in ('--type', rule)), path + '.16', path)
    with open(path, 'rb') as f:
        return f.read()


def digest(values):
    return hashlib.sha256(np.ascontiguousarray(values, '<f4').tobytes()).hexdigest()


def facts(path):
    """-> what has to stay: the file's id, and of each tensor its type and the hash of its values as f32"""
    file = reader.CvqFile(path)
    return {'id': file.id.hex(), 'tensors': {t.name: [reader.NAMES[t.type], digest(file.values(t)[0])] for t in file.tensors}}


def write(folder):
    if os.path.exists(LAST + '.cvq.xz'):
        sys.exit(f'{LAST}.cvq.xz is frozen: it stays as it is')
    path = os.path.join(folder, 'file.cvq')
    data = make(path)
    with open(LAST + '.cvq.xz', 'wb') as f:
        f.write(lzma.compress(data, preset=9))
    with open(LAST + '.json', 'w', encoding='utf-8') as f:
        json.dump(facts(path), f, indent=1)
        f.write('\n')
    print(f'{LAST}.cvq.xz: {len(data)} bytes')


def read_again(name, path):
    with open(name + '.json', encoding='utf-8') as f:
        then = json.load(f)
    now, tensors = facts(path), then['tensors']
    check(f'{name}: the id', now['id'] == then['id'], now['id'])
    wrong = [t for t in tensors if now['tensors'].get(t) != tensors[t]]
    check(f'{name}: {len(tensors)} tensors as the specification reads them', not wrong and len(now['tensors']) == len(tensors), wrong)
    wrong = [t for i, t in enumerate(tensors) if hashlib.sha256(run('format_dump', 'values', path, i).out).hexdigest() != tensors[t][1]]
    check(f'{name}: {len(tensors)} tensors as the C code reads them', not wrong, wrong)
    verified = run('cvq-info', '--verify', path)
    check(f'{name}: verified', verified.code == 0, verified)
    types = {kind for kind, _ in tensors.values()}
    check(f'{name}: every block type is among them', types == set(reader.NAMES), types)


def other_versions(data, folder):
    """A version that is not there yet, and the one from before the freeze, are named in the message."""
    for version in (0, 2, 0xffffffff):
        other = os.path.join(folder, f'version-{version}.cvq')
        with open(other, 'wb') as f:
            f.write(data[:8] + version.to_bytes(4, 'little') + data[12:])
        said = run('cvq-info', other)
        check(f'version {version} is refused by its number', said.code == 1 and f'file version {version};'.encode() in said.err, said)
    other = os.path.join(folder, 'feature.cvq')
    with open(other, 'wb') as f:
        f.write(data[:12] + (4).to_bytes(4, 'little') + data[16:])
    said = run('cvq-info', other)
    check('a feature that is not known is refused', said.code == 1 and b'feature' in said.err, said)


def main():
    with tempfile.TemporaryDirectory() as folder:
        if '--write' in sys.argv[1:]:
            write(folder)
            return 0
        path = os.path.join(folder, 'frozen.cvq')
        for name in FROZEN:
            with lzma.open(name + '.cvq.xz') as f:
                data = f.read()
            with open(path, 'wb') as f:
                f.write(data)
            read_again(name, path)
        again = make(os.path.join(folder, 'again.cvq'))
        first = next((i for i, (a, b) in enumerate(zip(again, data)) if a != b), min(len(again), len(data)))
        check('the checkpoint gives these bytes again', again == data, f'{len(again)} and {len(data)} bytes, different from {first}')
        other_versions(data, folder)
    return summary()


if __name__ == '__main__':
    sys.exit(main())
