"""The runtime against the golden outputs of the reference model, at every level of instructions.

For every case in exact mode, from a bf16 file: ids and pixels equal; every tap and the logits within 2e-4 of the tensor's largest magnitude,
with the released bf16 rotary tables and with --rope f32; greedy ids equal up to the first step whose recorded gap between the two best
logits is below 1e-3. In fast mode, from a q8 file: the relative error (root of squared differences over squares) of every tap and the
logits within FAST_TRAINED, and all greedy ids equal; a checkpoint of random weights, whose logits are nearly alike, within FAST_RANDOM.

Cases come from tests/golden (with models/cogvlm2-tiny and tests/checkpoints); from $CVQ_SHARED (golden/, checkpoints/) where that is set
(those at every level in the gcc build, at the best level under an emulator, and not in the other builds, whose code is the same);
and from $CVQ_REAL, a folder that holds a case of the real model's widths beside its checkpoint, of which only some rows are kept.

cvq-test: processor
"""
import json
import os
import struct
import sys
import tempfile

import numpy as np

import harness
from harness import RUNNER, run, skip, summary

SHARED = os.environ.get('CVQ_SHARED', '')
REAL = os.environ.get('CVQ_REAL', '')
CONFIG = os.environ.get('CVQ_CONFIG', 'gcc')
LEVELS = ('scalar', 'avx2', 'avxvnni', 'avx512', 'avx512bf16', 'neon', 'dotprod', 'i8mm')
BOUND = 2e-4
TRAINED = 'cogvlm2-tiny'
FAST_TRAINED, FAST_RANDOM = 0.03, 0.2  # the worst seen: 0.018, 0.159


def check(name, problem):
    harness.check(name, not problem, problem)


def read_tensors(path):
    with open(path, 'rb') as f:
        n, = struct.unpack('<Q', f.read(8))
        header, data = json.loads(f.read(n)), f.read()
    out = {}
    for name, t in header.items():
        if name != '__metadata__':
            a, b = t['data_offsets']
            dtype = {'F32': np.float32, 'I32': np.int32}[t['dtype']]
            out[name] = np.frombuffer(data[a:b], dtype).reshape(t['shape'])
    return out


def difference(got, want):
    """None if got is within the bound of want, else what is wrong."""
    if got.shape != want.shape:
        return f'shape {got.shape}, not {want.shape}'
    worst = float(np.abs(got.astype(np.float64) - want).max() / np.abs(want).max())
    return None if worst <= BOUND else f'off by {worst:.2e} of the largest magnitude'


def same_greedy(got, want, gaps):
    """Equal up to the first step that was too close to call."""
    for step, gap in enumerate(gaps):
        if gap < 1e-3:
            return None
        g = got[step] if step < len(got) else None
        w = int(want[step]) if step < len(want) else None
        if g != w:
            return f'step {step}: {g}, not {w}'
    return None


def relative_error(got, want):
    return float(np.sqrt(((got.astype(np.float64) - want) ** 2).sum() / (want.astype(np.float64) ** 2).sum()))


def arguments(info, folder, precision):
    args = ['--prompt', info['query'], '--template', info['template'], '--precision', precision]
    if info['image']:
        args += ['--image', os.path.join(folder, info['image'])]
    if info['history']:
        history = os.path.join(scratch, 'history.json')
        json.dump(info['history'], open(history, 'w'))
        args += ['--history', history]
    return args


def run_case(name, folder, info, model, level):
    want = read_tensors(os.path.join(folder, name + '.safetensors'))
    out = os.path.join(scratch, 'out.safetensors')
    args = ['--cpu', level, *arguments(info, folder, 'exact'), '--force', '--logits', out]
    label = f'{name} at {level}'
    r = run('cvq-run', *args, '--taps', '--json', '--max-tokens', '24', model)
    if r.code:
        check(label, r.err.decode().strip())
        return
    got = read_tensors(out)
    check(label + ': ids', None if np.array_equal(got['ids'], want['ids']) else 'differ')
    for tensor, value in want.items():
        if tensor == 'pixels':
            equal = np.array_equal(got[tensor].reshape(value.shape), value)
            check(label + ': pixels', None if equal else 'differ')
        elif tensor.startswith(('vision.', 'layer.')) or tensor == 'logits':
            rows = want.get('rows.' + tensor, slice(None))
            problem = difference(got[tensor][rows], value) if tensor in got else 'missing'
            check(f'{label}: {tensor}', problem)
    answer = json.loads(r.out)['completion_ids']
    check(label + ': greedy', same_greedy(answer, want['greedy'], want['greedy_gap']))
    r = run('cvq-run', *args, '--rope', 'f32', '--max-tokens', '0', model)
    if r.code:
        check(label + ': --rope f32', r.err.decode().strip())
        return
    got = read_tensors(out)['logits'][want.get('rows.logits_f32rope', slice(None))]
    check(label + ': --rope f32', difference(got, want['logits_f32rope']))


def run_fast_case(name, folder, info, model, level):
    want = read_tensors(os.path.join(folder, name + '.safetensors'))
    out = os.path.join(scratch, 'out.safetensors')
    label = f'{name} at {level}, fast'
    r = run('cvq-run', '--cpu', level, *arguments(info, folder, 'fast'), '--force', '--logits', out, '--taps', '--json', '--max-tokens', '24',
            model)
    if r.code:
        check(label, r.err.decode().strip())
        return
    got, trained = read_tensors(out), info['checkpoint'] == TRAINED
    names = [n for n in want if n.startswith(('vision.', 'layer.')) or n == 'logits']
    errors = {n: relative_error(got[n][want.get('rows.' + n, slice(None))], want[n]) for n in names}
    worst, bound = max(errors, key=errors.get), FAST_TRAINED if trained else FAST_RANDOM
    check(label, None if errors[worst] <= bound else f'{worst}: relative error {errors[worst]:.3f}, more than {bound}')
    if trained:
        answer = json.loads(r.out)['completion_ids']
        check(label + ': greedy', None if answer == want['greedy'].tolist() else f'{answer}, not {want["greedy"].tolist()}')


def cases():
    """(name, folder, checkpoint's folder)"""
    known = {'cogvlm2-tiny': 'models/cogvlm2-tiny'}
    folders, roots = ['tests/golden'], ['tests/checkpoints']
    if REAL:
        folders, roots = [REAL], [REAL]
    if REAL:
        pass
    elif SHARED and CONFIG != 'gcc' and not RUNNER:
        skip('the odd-shaped checkpoints outside the project', 'the gcc build tries them')
    elif SHARED:
        folders.append(os.path.join(SHARED, 'golden'))
        roots.append(os.path.join(SHARED, 'checkpoints'))
    else:
        skip('the odd-shaped checkpoints outside the project', 'CVQ_SHARED is not set')
    seen = set()
    for folder in folders:
        for file in sorted(os.listdir(folder)):
            name = file[:-5]
            if not file.endswith('.json') or name in seen:
                continue
            seen.add(name)
            info = json.load(open(os.path.join(folder, file)))
            checkpoint = known.get(info['checkpoint'])
            for root in roots:
                path = os.path.join(root, info['checkpoint'])
                if not checkpoint and os.path.isdir(path):
                    checkpoint = path
            if checkpoint:
                yield name, folder, info, checkpoint
            else:
                skip(name, f'no checkpoint {info["checkpoint"]}')


def main():
    models, levels = {}, []
    for name, folder, info, checkpoint in cases():
        if checkpoint not in models:
            models[checkpoint] = []
            for recipe in 'bf16', 'q8':
                model = os.path.join(scratch, f'{os.path.basename(checkpoint)}-{recipe}.cvq')
                r = run('cvq-convert', '--recipe', recipe, checkpoint, model)
                check(f'convert {checkpoint}, {recipe}', r.err.decode().strip() if r.code else None)
                models[checkpoint].append(model)
        lossless, quantized = models[checkpoint]
        if not levels:
            for level in os.environ.get('CVQ_LEVELS', ' '.join(LEVELS)).split():
                r = run('cvq-run', '--cpu', level, '--tokenize', 'x', lossless)
                if r.code == 0:
                    levels.append(level)
            print('levels:', *levels)
            if not levels:
                check('levels', 'cvq-run runs at none')
        elsewhere = SHARED and folder.startswith(SHARED)
        for level in levels[-1:] if elsewhere and RUNNER else levels:
            run_case(name, folder, info, lossless, level)
            run_fast_case(name, folder, info, quantized, level)
    return summary()


with tempfile.TemporaryDirectory() as scratch:
    sys.exit(main())
