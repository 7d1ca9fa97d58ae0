#!/usr/bin/env python3
"""Version 1 of the format is frozen: the files in tests/frozen/ were written when it was, and stay as they are.

Each must still be read, by the C code and by the reader that was written from docs/format.md alone, with every value to the bit as
it was then; and the same checkpoint converted with the same types must still give these bytes.

    test_frozen.py --write      writes the files that are not there yet; one that is there is never written again
"""
import hashlib
import json
import lzma
import os
import subprocess
import sys
import tempfile

try:
    import numpy as np
except ImportError:
    print('skip: numpy is not installed, so the independent reader could not run')
    print('0 passed, 0 failed, 1 skipped')
    sys.exit(0)

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import cvq_reader as reader

RUNNER = os.environ.get('CVQ_RUNNER', '').split()
DUMP = RUNNER + [os.path.join(os.environ.get('CVQ_TOOLS', 'build/tools'), 'format_dump')]
BIN = os.environ.get('CVQ_BIN', 'build/bin')
CHECKPOINT = 'tests/checkpoints/small'
FROZEN = 'tests/frozen'
# Every block type, each in a language and a vision matrix; two of them also as a table.
LAYER_TYPES = {'query_key_value': ('q4h', 'q6'), 'dense': ('q4', 'q4s'), 'gate_proj': ('q4t', 'q8'), 'up_proj': ('q4s', 'q4h'), 'down_proj': ('q6', 'q4t')}
RULES = [f'model.layers.{layer}.*{matrix}.weight={types[layer]}' for matrix, types in LAYER_TYPES.items() for layer in (0, 1)] + [
    'lm_head.weight=q4h', 'model.embed_tokens.weight=q4s', 'model.vision.patch_embedding.position_embedding.weight=q4h',
    'model.vision.transformer.layers.0.*.weight=q4t', 'model.vision.transformer.layers.1.*.weight=q4', 'model.vision.transformer.layers.2.*.weight=bf16']
RECIPES = {'v1-types': ['--recipe', 'q8'] + [word for rule in RULES for word in ('--type', rule)],
           'v1-q4': ['--recipe', 'q4']}
passed = failed = skipped = 0


def check(name, good, why=''):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    print(f'ok {name}' if good else f'FAIL {name}: {why}')
    sys.stdout.flush()


def run(*command):
    return subprocess.run(command, capture_output=True)


def convert(path, options):
    made = run(*RUNNER, os.path.join(BIN, 'cvq-convert'), '-q', *options, CHECKPOINT, path)
    if made.returncode != 0:
        raise RuntimeError(made.stderr.decode())
    with open(path, 'rb') as f:
        return f.read()


def digest(values):
    return hashlib.sha256(np.ascontiguousarray(values, '<f4').tobytes()).hexdigest()


def facts(path):
    """-> what has to stay: the file's id, and of each tensor its type and the hash of its values as f32"""
    file = reader.CvqFile(path)
    return {'id': file.id.hex(), 'tensors': {t.name: [reader.NAMES[t.type], digest(file.values(t)[0])] for t in file.tensors}}


def write(folder):
    for name, options in RECIPES.items():
        frozen = os.path.join(FROZEN, name)
        if os.path.exists(frozen + '.cvq.xz'):
            print(f'{frozen}.cvq.xz is frozen: left as it is')
            continue
        path = os.path.join(folder, 'file.cvq')
        data = convert(path, ['--force'] + options)
        with open(frozen + '.cvq.xz', 'wb') as f:
            f.write(lzma.compress(data, preset=9))
        with open(frozen + '.json', 'w', encoding='utf-8') as f:
            json.dump(facts(path), f, indent=1)
            f.write('\n')
        print(f'{frozen}.cvq.xz: {len(data)} bytes')


def read_again(name, path):
    with open(os.path.join(FROZEN, name + '.json'), encoding='utf-8') as f:
        then = json.load(f)
    now = facts(path)
    check(f'{name}: the id', now['id'] == then['id'], now['id'])
    wrong = [t for t in then['tensors'] if now['tensors'].get(t) != then['tensors'][t]]
    check(f'{name}: {len(then["tensors"])} tensors as the specification reads them', not wrong and len(now['tensors']) == len(then['tensors']), wrong)
    wrong = [t for i, t in enumerate(then['tensors'])
             if hashlib.sha256(run(*DUMP, 'values', path, str(i)).stdout).hexdigest() != then['tensors'][t][1]]
    check(f'{name}: {len(then["tensors"])} tensors as the C code reads them', not wrong, wrong)
    verified = run(*RUNNER, os.path.join(BIN, 'cvq-info'), '--verify', path)
    check(f'{name}: verified', verified.returncode == 0, verified)
    return {kind for kind, _ in then['tensors'].values()}


def other_versions(path, data, folder):
    """A version that is not there yet, and the one from before the freeze, are named in the message."""
    for version in (0, 2, 0xffffffff):
        other = os.path.join(folder, f'version-{version}.cvq')
        with open(other, 'wb') as f:
            f.write(data[:8] + version.to_bytes(4, 'little') + data[12:])
        said = run(*RUNNER, os.path.join(BIN, 'cvq-info'), other)
        check(f'version {version} is refused by its number', said.returncode == 1 and f'file version {version};'.encode() in said.stderr, said)
    other = os.path.join(folder, 'feature.cvq')
    with open(other, 'wb') as f:
        f.write(data[:12] + (4).to_bytes(4, 'little') + data[16:])
    said = run(*RUNNER, os.path.join(BIN, 'cvq-info'), other)
    check('a feature that is not known is refused', said.returncode == 1 and b'feature' in said.stderr, said)


def main():
    with tempfile.TemporaryDirectory() as folder:
        if '--write' in sys.argv[1:]:
            write(folder)
            return 0
        types = set()
        for name, options in RECIPES.items():
            with lzma.open(os.path.join(FROZEN, name + '.cvq.xz')) as f:
                data = f.read()
            path = os.path.join(folder, name + '.cvq')
            with open(path, 'wb') as f:
                f.write(data)
            types |= read_again(name, path)
            again = convert(os.path.join(folder, 'again.cvq'), ['--force'] + options)
            first = next((i for i, (a, b) in enumerate(zip(again, data)) if a != b), min(len(again), len(data)))
            check(f'{name}: converting the checkpoint gives these bytes', again == data, f'{len(again)} and {len(data)} bytes, different from {first}')
        check('every block type is among them', types == set(reader.NAMES), types)
        other_versions(path, data, folder)
    print(f'{passed} passed, {failed} failed, {skipped} skipped')
    return failed > 0


if __name__ == '__main__':
    sys.exit(main())
