#!/usr/bin/env python3
"""cvq-calibrate: its sums against the original model's, files that add up, and what cvq-quantize makes of them.

tests/data/calibration-expected.safetensors was computed by the original model's code in PyTorch (float32, bf16 rotary tables) for
models/cogvlm2-tiny and tests/data/calibration.jsonl, texts in windows of 16: hooks saw the input of every linear layer and convolution and added
up its squares in float64, without the first row of each decoder's matrix (bos in the language expert, boi in the vision expert), and for lm_head
without bos, boi and patches.

tests/data/second-moments-expected.safetensors: the same hooks on the decoder's matrices added up x x^T in float64, the slots of a picture once for
the questions that follow one another about it. For each matrix NAME.count, and NAME.product, F32 [K, 4]: the moments times a matrix V of small
integers, V[k][j] = (k (2 j + 3)) mod 7 - 3.
cvq-test: native compiled"""
import functools
import json
import os
import signal
import struct
import sys
import time

import numpy as np

import harness
from cvq_reader import CvqFile
from harness import RUNNER, check, files, path, skip, start, summary, working_folder

run = functools.partial(harness.run, text=True)
DATA = os.path.abspath('tests/data/calibration.jsonl')
EXPECTED = 'tests/data/calibration-expected.safetensors'
MOMENTS = 'tests/data/second-moments-expected.safetensors'
OTHER = os.path.abspath('tests/checkpoints/small')


def calibrate(out, *args):
    return run('cvq-calibrate', '--force', '--context', '16', '-o', out, *args)


def read(name):
    """{name: float64 or int64 values}"""
    with open(path(name), 'rb') as f:
        n, = struct.unpack('<Q', f.read(8))
        header, data = json.loads(f.read(n)), f.read()
    return {k: np.frombuffer(data[slice(*t['data_offsets'])], {'F32': '<f4', 'F16': '<f2', 'I64': '<i8'}[t['dtype']]).astype(int if t['dtype'] == 'I64' else float)
            for k, t in header.items()}


def write_data(name, lines):
    """The lines in the scratch folder, with pictures by their whole path."""
    with open(path(name), 'w') as f:
        for line in lines:
            if 'image' in line and not os.path.isabs(line['image']):
                line = dict(line, image=os.path.join(os.path.dirname(DATA), line['image']))
            f.write(json.dumps(line) + '\n')
    return name


def difference(got, want, bound):
    """None, or what is wrong. Channels below a millionth of the largest are held to that."""
    if set(got) != set(want):
        return f'names: {sorted(set(got) ^ set(want))[:3]}'
    for name, w in want.items():
        g = got[name]
        if g.shape != w.shape:
            return f'{name}: shape {g.shape}, not {w.shape}'
        if name.endswith('.count'):
            if g[0] != w[0]:
                return f'{name}: {g[0]}, not {w[0]}'
        elif (np.abs(g - w) > bound * np.maximum(w, 1e-6 * w.max())).any():
            return f'{name}: off by up to {np.max(np.abs(g - w) / np.maximum(w, 1e-6 * w.max())):.2e}'
    return None


def as_the_original():
    r = calibrate('whole.safetensors', 'tiny.cvq', DATA)
    check('calibrates', r.code == 0 and r.out.startswith('whole.safetensors: 59 matrices; 187 tokens'), r)
    want = read(os.path.abspath(EXPECTED))
    problem = difference(read('whole.safetensors'), want, 1e-3)
    check('sums and counts are the original model\'s', not problem, problem)
    notes = r.err.splitlines()
    check('a line for each part that saw too little', len(notes) == 2 and all(': only 80 tokens, 128' in n for n in notes), r)
    with open(path('whole.safetensors'), 'rb') as f:
        whole = f.read()
    for threads in ('1', '3'):
        calibrate('again.safetensors', '--threads', threads, 'tiny.cvq', DATA)
        with open(path('again.safetensors'), 'rb') as f:
            check(f'the same bytes with {threads} threads', f.read() == whole)


def adding_up():
    whole = read('whole.safetensors')
    with open(DATA) as f:
        lines = [json.loads(line) for line in f if line.strip()]
    for name, a, b in (('halves', lines[:4], lines[4:]), ('every other line', lines[::2], lines[1::2]), ('one and the others', lines[:1], lines[1:])):
        calibrate('a.safetensors', 'tiny.cvq', write_data('a.jsonl', a))
        calibrate('b.safetensors', 'tiny.cvq', write_data('b.jsonl', b))
        r = run('cvq-calibrate', '--force', '--merge', 'a.safetensors', 'b.safetensors', '-o', 'merged.safetensors')
        problem = difference(read('merged.safetensors'), whole, 1e-6)
        check(f'{name} add up to the whole', r.code == 0 and not problem, problem or r)
    r = run('cvq-calibrate', '-q', '--force', '--merge', '-o', 'merged.safetensors', *['a.safetensors'] * 3)
    three = {k: 3 * v for k, v in read('a.safetensors').items()}
    check('three files', r.code == 0 and not r.out and not difference(read('merged.safetensors'), three, 1e-6), r)


def texts_alone():
    """No picture: the vision parts are there, with nothing."""
    r = calibrate('text.safetensors', 'tiny.cvq', write_data('text.jsonl', [{'text': 'The tower stands at the harbour.'}]))
    got = read('text.safetensors')
    unseen = [k for k in got if k.endswith('.count') and got[k][0] == 0]
    check('only vision is unseen', r.code == 0 and unseen and all('vision' in k for k in unseen) and len(unseen) == 38, (r, len(unseen)))
    check('which is said', r.err.count('no token went through') == 4, r)
    r = run('cvq-quantize', '-q', '--imatrix', 'text.safetensors', 'tiny.cvq', 'text.cvq')
    check('cvq-quantize takes it', r.code == 0 and not r.err, r)
    r = run('cvq-quantize', '--force', '--imatrix', 'text.safetensors', 'tiny.cvq', 'text.cvq')
    check('and says how much is missing', r.code == 0 and '--imatrix: 59 of 59 matrices saw fewer than 128 tokens' in r.err, r)


def long_prompts():
    """Through the layers in several stretches, and through the MLPs in several blocks: each row counts once, the first never."""
    words = 'Ships of many sizes come in with the tide. ' * 120
    n = len(run('cvq-run', '--tokenize', words, 'tiny.cvq').out.split())
    r = run('cvq-calibrate', '--force', '--context', '2000', '-o', 'long.safetensors', 'tiny.cvq', write_data('long.jsonl', [{'text': words}]))
    counts = {v[0] for k, v in read('long.safetensors').items() if k.endswith('.count')}
    check('a text longer than a stretch', r.code == 0 and 1024 < n < 2000 and counts == {0, n}, (r, n, counts))
    line = {'image': '../../models/pictures/chart-a.png', 'question': words, 'template': 'base'}
    r = calibrate('long.safetensors', 'tiny.cvq', write_data('long.jsonl', [line]))
    counts = {k[:-6]: v[0] for k, v in read('long.safetensors').items() if k.endswith('.count')}
    want = {k: 65 if '.transformer.' in k else 64 if 'patch_embedding' in k else 16 if 'vision' in k else n + 1 for k in counts}
    check('and one after a picture', r.code == 0 and counts == want, (r, n, [(k, v) for k, v in counts.items() if v != want[k]][:4]))


def refusals():
    kept = files()
    r = run('cvq-convert', '-q', OTHER, 'other.cvq')
    if r.code == 0:
        r = calibrate('other.safetensors', 'other.cvq', 'text.jsonl')
    check('another model', r.code == 0, r)
    for name, code, words, args in (
            ('another model\'s file', 1, 'other.safetensors', ('--merge', 'whole.safetensors', 'other.safetensors')),
            ('no safetensors', 1, 'tiny.cvq', ('--merge', 'whole.safetensors', 'tiny.cvq')),
            ('other tensors', 1, 'cvq-calibrate wrote', ('--merge', 'whole.safetensors', os.path.abspath('tests/golden/cogvlm2-tiny-text.safetensors'))),
            ('one file', 2, 'too few', ('--merge', 'whole.safetensors')),
            ('three operands', 2, '--merge', ('tiny.cvq', 'text.jsonl', 'text.jsonl')),
            ('a window longer than the model', 2, '--context', ('--context', '2048', 'tiny.cvq', 'text.jsonl')),
            ('no data', 1, 'nothing to calibrate', ('tiny.cvq', write_data('none.jsonl', []))),
            ('a line that is wrong', 1, 'line 2', ('tiny.cvq', write_data('wrong.jsonl', [{'text': 'a'}, {'image': 'x.png'}]))),
            ('a text that is none', 1, 'line 1', ('tiny.cvq', write_data('wrong2.jsonl', [{'text': 7}]))),
            ('a picture that is not there', 1, 'missing.png',
             ('tiny.cvq', write_data('missing.jsonl', [{'text': 'a'}, {'question': 'b', 'image': path('missing.png')}]))),
            ('a question longer than the model', 1, 'line 1', ('tiny.cvq', write_data('longer.jsonl', [{'question': 'w1 ' * 3000}]))),
    ):
        r = run('cvq-calibrate', *args, '-o', 'new.safetensors')
        check(name, r.code == code and words in r.err and r.err.count('\n') == 1 and not os.path.exists(path('new.safetensors')), r)
    r = run('cvq-calibrate', 'tiny.cvq', 'text.jsonl', '-o', 'whole.safetensors')
    check('an existing file stays', r.code == 1 and '--force' in r.err, r)
    r = run('cvq-calibrate', '--force', 'tiny.cvq', 'text.jsonl', '-o', 'text.jsonl')
    check('an input cannot be the output', r.code == 1 and 'input' in r.err, r)
    r = run('cvq-calibrate', '--force', '--merge', 'a.safetensors', 'b.safetensors', '-o', 'b.safetensors')
    check('nor one of the files to add up', r.code == 1 and 'input' in r.err, r)
    check('nothing half-written stays', not [f for f in set(files()) - set(kept) if '.partial' in f or 'new' in f], files())


def stopped():
    write_data('much.jsonl', [{'text': 'The tower stands at the harbour. ' * 400}] * 20)
    kept, code, err = files(), 0, b''
    for _ in range(10):  # it may be finished before the signal comes
        p = start('cvq-calibrate', '--threads', '1', '-o', 'stopped.safetensors', 'tiny.cvq', 'much.jsonl')
        while p.poll() is None and not any('.partial' in f for f in files()):
            time.sleep(0.001)
        p.send_signal(signal.SIGINT)
        _, err = p.communicate(timeout=120)
        code = p.returncode
        if code:
            break
        os.remove(path('stopped.safetensors'))
    check('Ctrl-C: exit 130, quiet, nothing left', code == 130 and not err and files() == kept, (code, err, set(files()) ^ set(kept)))
    r = run('cvq-calibrate', '--progress', '--force', '-o', 'again.safetensors', 'tiny.cvq', 'text.jsonl')
    check('progress in lines, up to all of it', r.code == 0 and 'calibrating: 100% (token ' in r.err and '\x1b' not in r.err, r)


def weighted_error(original, quantized, importance):
    """{tensor: sum of importance x squared error}"""
    a, b = CvqFile(path(original)), CvqFile(path(quantized))
    out = {}
    for s, t in zip(a.tensors, b.tensors):
        if t.type == s.type or s.name + '.sum_sq' not in importance:
            continue
        h = importance[s.name + '.sum_sq'] / importance[s.name + '.count'][0]
        e = (np.asarray(a.values(s)[0], float) - np.asarray(b.values(t)[0], float))[:, :len(h)]
        out[s.name] = float((e * e * h).sum())
    return out


def quantizing():
    """With importance the search minimises the error that importance weighs."""
    importance = read('whole.safetensors')
    for recipe in ('q4', 'q4-small'):
        sums = []
        for name, more in (('plain', ()), ('weighed', ('--imatrix', 'whole.safetensors'))):
            r = run('cvq-quantize', '-q', '--force', '--recipe', recipe, '--report', name + '.tsv', *more, 'tiny.cvq', name + '.cvq')
            check(f'{recipe} {name}', r.code == 0, r)
            sums.append(weighted_error('tiny.cvq', name + '.cvq', importance))
        r = run('cvq-quantize', '--force', '--recipe', recipe, '--imatrix', 'whole.safetensors', 'tiny.cvq', name + '.cvq')
        check(f'{recipe}: what saw too little is said', r.err.count('saw fewer than 128 tokens') == 1 and '--imatrix: 25 of 59' in r.err, r)
        plain, weighed = sums
        worse = [k for k in plain if weighed[k] > plain[k]]
        total = sum(weighed.values()) / sum(plain.values())
        check(f'{recipe}: no matrix has a larger weighted error', len(plain) > 50 and not worse, (len(plain), worse[:4]))
        check(f'{recipe}: the sum is smaller', total < 0.95, f'{total:.4f} of that without')
        rows = [[line.split('\t') for line in open(path(f))][1:] for f in ('plain.tsv', 'weighed.tsv')]
        larger = sum(float(w[4]) > float(p[4]) for p, w in zip(*rows))
        check(f'{recipe}: the report tells the price, a larger plain error', larger > 30, larger)


def moment(file, name):
    """[K, K] sums of products; up_proj shares gate_proj's. Up to 4,096 columns, so one triangle."""
    name = name.replace('up_proj', 'gate_proj')
    diagonal = file[name + '.sum_sq']
    n = len(diagonal)
    out = np.zeros((n, n))
    out[np.tril_indices(n)] = file[name + '.correlation']
    out += np.tril(out, -1).T
    return out * np.sqrt(np.outer(diagonal, diagonal))


def second_moments():
    args = ('--second-moments', 'moments.safetensors', 'tiny.cvq', DATA)
    r = calibrate('with.safetensors', *args)
    check('second moments: done', r.code == 0, r)
    with open(path('with.safetensors'), 'rb') as a, open(path('whole.safetensors'), 'rb') as b:
        check('second moments: the sums of squares are as without', a.read() == b.read())
    got, want = read('moments.safetensors'), read(os.path.abspath(MOMENTS))
    matrices = [k[:-len('.count')] for k in want if k.endswith('.count')]
    check('second moments: of every matrix', len(matrices) == 32 and len(got) == 3 * 32, (len(matrices), len(got)))
    for name in matrices:
        c, product = moment(got, name), want[name + '.product'].reshape(-1, 4)
        v = np.array([[k * (2 * j + 3) % 7 - 3 for j in range(4)] for k in range(len(c))])
        off = np.linalg.norm(c @ v - product, axis=0) / np.linalg.norm(product, axis=0)
        check(f'second moments: {name} are the original model\'s', got[name + '.count'] == want[name + '.count'] and off.max() < 1e-3,
              (got[name + '.count'], want[name + '.count'], off))
    with open(path('moments.safetensors'), 'rb') as f:
        whole = f.read()
    for threads in ('1', '3'):
        calibrate('with.safetensors', '--threads', threads, *args)
        with open(path('moments.safetensors'), 'rb') as f:
            check(f'second moments: the same bytes with {threads} threads', f.read() == whole)
    for name, more in (('to the file of the sums', ('--second-moments', 'new.safetensors', 'tiny.cvq', DATA)),
                       ('added up', ('--second-moments', 'x.safetensors', '--merge', 'whole.safetensors', 'whole.safetensors'))):
        r = run('cvq-calibrate', '-o', 'new.safetensors', *more)
        check(f'second moments {name}: wrong usage', r.code == 2 and '--second-moments' in r.err and not os.path.exists(path('new.safetensors')), r)


def full_error(quantized, moments):
    """{tensor: tr(E C E^T) / tr(W C W^T)} of the language expert's matrices"""
    out = {}
    for s, t in zip(CvqFile(path('tiny.cvq')).tensors, CvqFile(path(quantized)).tensors):
        if s.type == t.type or 'language' not in s.name:
            continue
        w, q = (np.asarray(CvqFile(path(f)).values(x)[0], float) for f, x in (('tiny.cvq', s), (quantized, t)))
        c, e = moment(moments, s.name), w - q
        out[s.name] = ((e @ c) * e).sum() / ((w @ c) * w).sum()
    return out


def feedback():
    """It lowers the error that second moments measure; the vision expert saw too little and goes without."""
    moments = read('moments.safetensors')
    for kind, mean in (('q4h', 0.2), ('q4t', 0.19), ('q4s', 0.18), ('q4', 0.171), ('q6', 0.169)):
        types = ('--recipe', 'bf16', '--type', f'model.layers.*={kind}')
        errors = []
        for name, more in (('plain', ('--imatrix', 'whole.safetensors')), ('feedback', ('--feedback', 'moments.safetensors'))):
            r = run('cvq-quantize', '--force', *types, *more, 'tiny.cvq', name + '.cvq')
            check(f'{kind} {name}', r.code == 0 and ('20 of 40 matrices saw fewer than 128' in r.err) == (name == 'feedback'), r)
            errors.append(full_error(name + '.cvq', moments))
        plain, better = errors
        ratios = {k: better[k] / plain[k] for k in plain}
        check(f'{kind}: feedback lowers the full error', len(ratios) == 20 and max(ratios.values()) < 0.35, sorted(ratios.values())[-3:])
        found = np.mean(list(ratios.values()))  # a tenth more with the scale that is found first
        check(f'{kind}: neighbouring scales lower it further', found < mean, found)
        with open(path('feedback.cvq'), 'rb') as f:
            whole = f.read()
        for threads in ('1', '3'):
            run('cvq-quantize', '-q', '--force', '--threads', threads, *types, '--feedback', 'moments.safetensors', 'tiny.cvq', 'again.cvq')
            with open(path('again.cvq'), 'rb') as f:
                check(f'{kind}: the same bytes with {threads} threads', f.read() == whole)
    r = run('cvq-quantize', '-q', '--force', '--feedback', 'moments.safetensors', '--recipe', 'q8', 'tiny.cvq', 'again.cvq')
    check('q8 goes without feedback', r.code == 0, r)
    for name, file, words in (('sums of squares', 'whole.safetensors', '.correlation'), ('another model\'s sums', 'other.safetensors', '.correlation'),
                              ('no safetensors', 'tiny.cvq', 'tiny.cvq'), ('no file', 'absent.safetensors', 'absent')):
        r = run('cvq-quantize', '--feedback', file, 'tiny.cvq', 'new.cvq')
        check(f'feedback from {name}', r.code == 1 and words in r.err and not os.path.exists(path('new.cvq')), r)
    raw = bytearray(open(path('moments.safetensors'), 'rb').read())
    start = 8 + struct.unpack('<Q', raw[:8])[0]
    header = json.loads(raw[8:start])
    for ending, at, value in (('.correlation', 10, b'\x00\x7c'), ('.sum_sq', 0, b'\x00\x00\x80\xbf')):
        bad = bytearray(raw)
        name = next(k for k in header if k.endswith(ending) and 'language' in k)
        place = start + header[name]['data_offsets'][0] + at
        bad[place:place + len(value)] = value
        open(path('bad.safetensors'), 'wb').write(bad)
        r = run('cvq-quantize', '--type', 'model.layers.*=q4t', '--feedback', 'bad.safetensors', 'tiny.cvq', 'new.cvq')
        check(f'feedback: a damaged {ending}', r.code == 1 and ending in r.err and not os.path.exists(path('new.cvq')), r)


with working_folder('cvq-calibrate-'):
    made = run('cvq-convert', os.path.abspath('models/cogvlm2-tiny'), 'tiny.cvq')
    check('convert', made.code == 0, made)
    steps = (as_the_original, adding_up, texts_alone, long_prompts, refusals, stopped, quantizing, second_moments, feedback)
    if RUNNER:
        steps = (as_the_original, second_moments)
        skip('what does not depend on the processor', 'an emulator takes minutes for it')
    for step in steps:
        step()
sys.exit(summary())
