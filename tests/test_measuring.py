#!/usr/bin/env python3
"""cvq-perplexity and cvq-eval: numbers of the original model in PyTorch, divergences computed a second way, scores, stopping
and going on, files that do not belong together.  cvq-test: native
"""
import json
import math
import os
import re
import signal
import struct
import sys
import time

from harness import check, files, lines, path, read, run, skip, start, summary, working_folder, write

try:
    import numpy as np
except ImportError:
    np = None

CHECKPOINT = os.path.abspath('models/cogvlm2-tiny')
TEXT = os.path.abspath('tests/data/held-out.txt')
QUESTIONS = os.path.abspath('models/pictures/questions.jsonl')

# The small checkpoint in PyTorch, float32, log-softmax in float64: the held-out text in windows of 128 and 300 tokens, and the
# answers to models/pictures/questions.jsonl; with the bf16 rotary tables, and with float32 ones compared with those.
REFERENCE = {
    128: (dict(perplexity=22.9212867896689, stderr=1.612009799541207, tokens=1280),
          dict(perplexity=22.918412263609163, stderr=1.6115261489980297, tokens=1280, kld_mean=0.000483576540404998,
               kld_p99=0.007052635123097805, top1_agreement=0.99140625, perplexity_ratio=0.9998745914186182)),
    300: (dict(perplexity=28.14794283212968, stderr=2.073744888678896, tokens=1200),
          dict(perplexity=27.13557291040718, stderr=1.9958153625547164, tokens=1200, kld_mean=0.04412955598115324,
               kld_p99=0.8601098649780929, top1_agreement=0.9391666666666667, perplexity_ratio=0.9640339641244786)),
    'answers': (dict(perplexity=1.0125235175811256, stderr=0.009017682661406998, tokens=27),
                dict(perplexity=1.012507672589388, stderr=0.009004315197931184, tokens=27, top1_agreement=1.0,
                     perplexity_ratio=0.9999843509889276)),
}


def numbers(program, *args):
    r = run(program, '--json', *args)
    return json.loads(r.out) if r.code == 0 else {'failed': str(r)}


def rows_of(name):
    return [json.loads(line) for line in read(name).splitlines()]


def refused(name, result, *words):
    check(name, result.code == 1 and not result.out and result.err.count(b'\n') == 1 and
          all(w in result.err for w in words), result)


def close(got, want):
    """Within a thousandth; agreement may differ by two tokens that are too close to call."""
    if not set(want) <= set(got):
        return False
    return all(abs(got[k] - v) <= (2.01 / want['tokens'] if k == 'top1_agreement' else 1e-3 * abs(v)) for k, v in want.items())


# ---------------------------------------------------------------- perplexity

def against_the_original():
    for key, (plain, compared) in REFERENCE.items():
        where = ('--jsonl', 'tiny.cvq', QUESTIONS) if key == 'answers' else ('--context', key, 'tiny.cvq', TEXT)
        got = numbers('cvq-perplexity', '--save-logits', f'{key}.ref', *where)
        check(f'{key}: as in PyTorch', list(got) == list(plain) and close(got, plain), got)
        got = numbers('cvq-perplexity', '--rope', 'f32', '--kld', f'{key}.ref', *where)
        check(f'{key}: divergence as in PyTorch', close(got, compared), got)
        got = numbers('cvq-perplexity', '--kld', f'{key}.ref', *where)
        check(f'{key}: none from itself', 0 <= got['kld_mean'] <= got['kld_p99'] < 1e-7 and got['top1_agreement'] == 1 and
              abs(got['perplexity_ratio'] - 1) < 1e-6, got)
    r = run('cvq-perplexity', '--context', '128', '--kld', '128.ref', 'q4.cvq', TEXT)
    check('for people', r.code == 0 and re.match(rb'perplexity [0-9.]+ \+- [0-9.]+ over 1,280 tokens\nagainst 128\.ref: perplexity x '
                                                 rb'[0-9.]+ \+- [0-9.]+, KL divergence 0\.[0-9]+ \+- [0-9.]+ \(median ', r.out) and not r.err, r)


def logits_of(model, text):
    r = run('cvq-run', '--force', '--template', 'base', '--prompt', text, '--max-tokens', '0', '--logits', 'l.safetensors', model)
    check(f'logits of {model}', r.code == 0, r)
    data = read('l.safetensors')
    n, = struct.unpack('<Q', data[:8])
    header, out = json.loads(data[8:8 + n]), {}
    for name, dtype in (('ids', np.int32), ('logits', np.float32)):
        a, b = header[name]['data_offsets']
        out[name] = np.frombuffer(data[8 + n + a:8 + n + b], dtype).reshape(header[name]['shape'])
    x = out['logits'].astype(np.float64)
    x -= x.max(-1, keepdims=True)
    return out['ids'], x - np.log(np.exp(x).sum(-1, keepdims=True))


def against_logits():
    """A quantized model, by way of cvq-run --logits."""
    with open(TEXT, encoding='utf-8') as f:
        text = f.read()[:700].rsplit(' ', 1)[0]
    write('short.txt', text)
    n = len(run('cvq-run', '--tokenize', text, 'tiny.cvq').out.split())
    ids, p = logits_of('tiny.cvq', text)
    _, q = logits_of('q4.cvq', text)
    p, q, ids = p[:n], q[:n], ids[1:]
    kld, nll = (np.exp(p) * (p - q)).sum(-1), -q[np.arange(n), ids]
    excess = nll + p[np.arange(n), ids]
    want = dict(perplexity=math.exp(nll.mean()), stderr=math.exp(nll.mean()) * nll.std(ddof=1) / math.sqrt(n), tokens=n,
                kld_mean=kld.mean(), kld_p99=np.quantile(kld, 0.99), top1_agreement=(p.argmax(-1) == q.argmax(-1)).mean(),
                perplexity_ratio=math.exp(excess.mean()), perplexity_ratio_stderr=math.exp(excess.mean()) * excess.std(ddof=1) / math.sqrt(n),
                kld_stderr=kld.std(ddof=1) / math.sqrt(n), kld_median=np.median(kld))
    run('cvq-perplexity', '--context', n, '--save-logits', 'one.ref', 'tiny.cvq', 'short.txt')
    got = numbers('cvq-perplexity', '--context', n, '--kld', 'one.ref', 'q4.cvq', 'short.txt')
    check('a quantized model: the same from its logits', close(got, want) and abs(got['top1_agreement'] - want['top1_agreement']) < 1e-9,
          f'{got}, not {want}')
    got = numbers('cvq-perplexity', '--context', (n + 1) // 2, 'tiny.cvq', 'short.txt')
    check('a short last window is dropped', got['tokens'] == (n + 1) // 2 * (n // ((n + 1) // 2)), got)


def wrong_references():
    good = read('128.ref')
    refused('another context', run('cvq-perplexity', '--context', '64', '--kld', '128.ref', 'tiny.cvq', TEXT), b'128.ref')
    with open(TEXT, 'rb') as f:
        write('other.txt', f.read().replace(b'Jude', b'Juda'))
    refused('another text', run('cvq-perplexity', '--context', '128', '--kld', '128.ref', 'tiny.cvq', 'other.txt'), b'128.ref')
    refused('a task for a text', run('cvq-perplexity', '--jsonl', '--kld', '128.ref', 'tiny.cvq', QUESTIONS), b'128.ref')
    refused('no saved logits', run('cvq-perplexity', '--kld', 'tiny.cvq', 'tiny.cvq', TEXT), b'tiny.cvq')
    refused('no such reference', run('cvq-perplexity', '--kld', 'nothing', 'tiny.cvq', TEXT), b'nothing')
    write('cut.ref', good[:-2])
    refused('a cut reference', run('cvq-perplexity', '--context', '128', '--kld', 'cut.ref', 'tiny.cvq', TEXT), b'cut.ref')
    bad = bytearray(good)
    bad[160:164] = struct.pack('<f', math.nan)
    write('bad.ref', bytes(bad))
    refused('a damaged row', run('cvq-perplexity', '--context', '128', '--kld', 'bad.ref', 'tiny.cvq', TEXT), b'bad.ref', b'row 0')
    refused('an existing output', run('cvq-perplexity', '--save-logits', '128.ref', 'tiny.cvq', TEXT), b'--force')
    for target in ('tiny.cvq', 'other.txt'):
        before = read(target)
        refused(f'the output is the input {target}', run('cvq-perplexity', '--force', '--save-logits', target, 'tiny.cvq', 'other.txt'))
        check(f'{target} is untouched', read(target) == before)
    check('so is the reference', read('128.ref') == good)


def wrong_texts():
    write('few.txt', 'In the beginning')
    refused('less than a window', run('cvq-perplexity', 'tiny.cvq', 'few.txt'), b'few.txt', b'512')
    refused('no text', run('cvq-perplexity', 'tiny.cvq', 'nothing.txt'), b'nothing.txt')
    refused('a text for a task', run('cvq-perplexity', '--jsonl', 'tiny.cvq', TEXT), b'held-out.txt')
    write('t.jsonl', lines([{'question': 'What?'}]))
    refused('a task without answers', run('cvq-perplexity', '--jsonl', 'tiny.cvq', 't.jsonl'), b't.jsonl', b'line 1')
    write('t.jsonl', lines([{'question': 'What?', 'answers': ['x'], 'image': 'gone.png'}]))
    refused('a task without its picture', run('cvq-perplexity', '--jsonl', 'tiny.cvq', 't.jsonl'), b'gone.png')
    write('t.jsonl', '')
    refused('an empty task', run('cvq-perplexity', '--jsonl', 'tiny.cvq', 't.jsonl'), b't.jsonl')
    r = run('cvq-perplexity', '--context', '2048', 'tiny.cvq', TEXT)
    check('a window beyond the limit', r.code == 2 and b'2047' in r.err, r)
    write('t.jsonl', lines([{'question': 'Who art thou?', 'answers': ['Jude']}]))
    got = numbers('cvq-perplexity', '--jsonl', 'tiny.cvq', 't.jsonl')
    write('t.jsonl', lines([{'question': 'Who art thou?', 'answers': [' Jude', 'not this']}]))
    check('an answer gets one space in front', got.get('tokens', 0) > 0 and got == numbers('cvq-perplexity', '--jsonl', 'tiny.cvq', 't.jsonl'), got)


def interrupted_saving():
    kept = files()
    p = start('cvq-perplexity', '--threads', 1, '--context', '64', '--save-logits', 'stopped.ref', 'tiny.cvq', 'long.txt')
    end = time.monotonic() + 60
    while p.poll() is None and time.monotonic() < end and not any('stopped' in f for f in files()):
        time.sleep(0.001)
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=120)
    check('interrupted: exit 130, nothing left', p.returncode == 130 and not out and files() == kept,
          (p.returncode, out, err, set(files()) ^ set(kept)))


# ---------------------------------------------------------------- eval

def make_task():
    """Every third answer is made wrong, one picture is missing, one line is broken. -> scores expected of exact"""
    with open(QUESTIONS, encoding='utf-8') as f:
        task = [json.loads(line) for line in f]
    scores = []
    for i, x in enumerate(task):
        x['image'] = os.path.join(os.path.dirname(QUESTIONS), x['image'])
        if i % 3 == 1:
            x['answers'] = ['wrong']
        scores.append(0 if i % 3 == 1 else 1)
    task.insert(4, {'id': 'gone', 'image': 'gone.png', 'question': 'What?', 'answers': ['x']})
    scores.insert(4, 0)
    write('task.jsonl', lines(task[:6]) + '{broken\n' + lines(task[6:]))
    scores.insert(6, 0)
    return scores


def evaluating():
    scores = make_task()
    n = len(scores)
    r = run('cvq-eval', '--metric', 'exact', '--json', '--out', 'whole.jsonl', 'tiny.cvq', 'task.jsonl')
    got = json.loads(r.out)
    check('exact: the score', list(got) == ['metric', 'score', 'n'] and got['metric'] == 'exact' and got['n'] == n and
          abs(got['score'] - sum(scores) / n) < 1e-12, got)
    check('what could not be answered is said', b'2 of 14' in r.err and r.err.count(b'\n') == 1, r)
    rows = rows_of('whole.jsonl')
    check('a line each', [x['score'] for x in rows] == scores and
          [list(x) for x in rows] == [['id', 'error' if i in (4, 6) else 'answer', 'score'] for i in range(n)], rows)
    check('without --out nothing is kept, and the score is the same', numbers('cvq-eval', '--metric', 'exact', 'tiny.cvq', 'task.jsonl') == got)
    r = run('cvq-eval', '--metric', 'exact', 'tiny.cvq', 'task.jsonl')
    check('for people', r.code == 0 and re.match(rb'exact: 0\.[0-9]{4} over 14 questions\n$', r.out), r)
    going_on(got)
    baselines(scores)
    for metric in ('vqa', 'anls', 'relaxed', 'ocrbench', 'mmmu', 'choice'):
        got = numbers('cvq-eval', '--metric', metric, 'tiny.cvq', QUESTIONS)
        check(f'{metric} runs', got.get('n') == 12 and (got['score'] == 1 or metric == 'choice'), got)


def going_on(want):
    whole = read('whole.jsonl')
    write('more.jsonl', read('task.jsonl') + read('task.jsonl').splitlines(True)[-1])
    command = ('cvq-eval', '--metric', 'exact', '--json', '--out', 'part.jsonl', 'tiny.cvq', 'task.jsonl')
    ends = [i + 1 for i, c in enumerate(whole) if c == 10]
    for name, size in (('nothing', 0), ('one line', ends[0]), ('half a line', ends[4] + 9), ('an error', ends[4]), ('all', len(whole))):
        write('part.jsonl', whole[:size])
        r = run(*command)
        check(f'going on after {name}: the same file and score', r.code == 0 and read('part.jsonl') == whole and
              json.loads(r.out) == want, r)
    os.remove(path('part.jsonl'))
    stops = 0
    for _ in range(30):  # stopped at any time, as often as it takes
        p = start(*command)
        before = os.path.getsize(path('part.jsonl')) if os.path.exists(path('part.jsonl')) else 0
        end = time.monotonic() + 120
        while p.poll() is None and time.monotonic() < end and not (os.path.exists(path('part.jsonl')) and
                                                                   os.path.getsize(path('part.jsonl')) > before):
            time.sleep(0.001)
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=120)
        if p.returncode == 0:
            break
        stops += 1
        check('stopped: exit 130', p.returncode == 130 and not out, (p.returncode, out, err))
    check(f'stopped {stops} times: the same file', p.returncode == 0 and read('part.jsonl') == whole and json.loads(out) == want, out)
    write('part.jsonl', whole[:ends[2]])
    run('cvq-quantize', '--recipe', 'q8', 'tiny.cvq', 'other.cvq')
    for name, word, args in (('precision', b'--precision', ('--precision', 'fast', 'tiny.cvq', 'task.jsonl')),
                             ('length', b'--max-tokens', ('--max-tokens', 3, 'tiny.cvq', 'task.jsonl')),
                             ('model', b'another model', ('other.cvq', 'task.jsonl')), ('task', b'another task', ('tiny.cvq', 'more.jsonl'))):
        refused(f'going on with another {name}', run('cvq-eval', '--metric', 'exact', '--out', 'part.jsonl', *args), word)
    check('and the answers are untouched', read('part.jsonl') == whole[:ends[2]])
    write('lone.jsonl', whole[:ends[2]])
    r = run('cvq-eval', '--metric', 'exact', '--out', 'lone.jsonl', 'tiny.cvq', 'task.jsonl')
    check('without an origin it goes on, and says so', r.code == 0 and read('lone.jsonl') == whole and b'lone.jsonl.origin' in r.err, r)
    write('near.jsonl', lines({**json.loads(line), 'answers': ['14']} for line in read('task.jsonl').splitlines()[:1]))
    refused('going on with another metric', run('cvq-eval', '-q', '--metric', 'anls', '--out', 'lone.jsonl', 'tiny.cvq', 'near.jsonl'),
            b'lone.jsonl', b'another metric')
    check('and the file is untouched', read('lone.jsonl') == whole)
    r = run('cvq-eval', '--force', '--metric', 'ocrbench', '--out', 'part.jsonl', 'tiny.cvq', 'task.jsonl')
    check('--force begins anew', r.code == 0 and [x['id'] for x in rows_of('part.jsonl')] == [x['id'] for x in rows_of('whole.jsonl')], r)
    run('cvq-run', '--force', '--batch', 'task.jsonl', '--out', 'part.jsonl', 'tiny.cvq')
    refused('answers without scores', run('cvq-eval', '--metric', 'exact', '--out', 'part.jsonl', 'tiny.cvq', 'task.jsonl'), b'part.jsonl')


def baselines(scores):
    """Baselines with scores of their own; and answers of cvq-run --batch, which are scored."""
    n = len(scores)
    others = [(i * 7 % 5) / 4 for i in range(n)]
    ids = [x['id'] for x in rows_of('whole.jsonl')]
    write('base.jsonl', lines({'id': i, 'answer': 'x', 'score': s} for i, s in zip(reversed(ids), reversed(others))))
    got = numbers('cvq-eval', '--metric', 'exact', '--out', 'whole.jsonl', '--baseline', 'base.jsonl', 'tiny.cvq', 'task.jsonl')
    d = [a - b for a, b in zip(scores, others)]
    mean = sum(d) / n
    half = 1.959964 * math.sqrt(sum((x - mean) ** 2 for x in d) / (n - 1) / n)
    check('baseline: difference and interval, in any order', list(got) == ['metric', 'score', 'n', 'difference', 'ci_low', 'ci_high'] and
          abs(got['difference'] - mean) < 1e-9 and abs(got['ci_low'] - mean + half) < 1e-6 and abs(got['ci_high'] - mean - half) < 1e-6,
          (got, mean, half))
    got = numbers('cvq-eval', '--metric', 'exact', '--out', 'whole.jsonl', '--baseline', 'part.jsonl', 'tiny.cvq', 'task.jsonl')
    check('baseline: answers without scores are scored', got.get('difference') == got.get('ci_low') == got.get('ci_high') == 0, got)
    r = run('cvq-eval', '--metric', 'exact', '--baseline', 'base.jsonl', 'tiny.cvq', 'task.jsonl')
    check('baseline: for people', r.code == 0 and b'difference to base.jsonl: ' in r.out, r)
    kept = read('base.jsonl')
    for force in ((), ('--force',)):
        refused('the output is the baseline', run('cvq-eval', *force, '--metric', 'exact', '--out', 'base.jsonl', '--baseline', 'base.jsonl',
                                                  'tiny.cvq', 'task.jsonl'), b'base.jsonl')
    check('and the baseline is untouched', read('base.jsonl') == kept)
    write('base.jsonl', lines({'id': i, 'answer': 'x', 'score': 1} for i in ids[1:]))
    refused('a baseline without a question', run('cvq-eval', '--metric', 'exact', '--baseline', 'base.jsonl', 'tiny.cvq', 'task.jsonl'),
            b'base.jsonl', ids[0].encode())
    for bad in ('{"id": "x"}\n', 'x\n', '[]\n', '{"id": "x", "answer": "y", "score": "z"}\n'):
        write('base.jsonl', bad)
        refused(f'a bad baseline: {bad!r}', run('cvq-eval', '--metric', 'exact', '--baseline', 'base.jsonl', 'tiny.cvq', 'task.jsonl'), b'base.jsonl')


def wrong_tasks():
    for name, data in (('no answers', lines([{'question': 'What?'}])), ('an empty list of answers', lines([{'question': 'What?', 'answers': []}])),
                       ('no questions', ''),
                       ('27 choices', lines([{'question': 'What?', 'answers': ['A'], 'choices': ['x'] * 27}]))):
        write('t.jsonl', data)
        write('kept.jsonl', '{"id":"x","answer":"y","score":1}\n')
        refused(f'a task with {name}', run('cvq-eval', '--force', '--metric', 'exact', '--out', 'kept.jsonl', 'tiny.cvq', 't.jsonl'), b't.jsonl')
        check(f'a task with {name}: the output is untouched', b'"x"' in read('kept.jsonl'))
    write('t.jsonl', lines([{'question': 'What?', 'answers': 5}]))
    r = run('cvq-eval', '--json', '--metric', 'exact', 'tiny.cvq', 't.jsonl')
    check('answers that are no texts make a line unusable', r.code == 0 and json.loads(r.out)['score'] == 0 and b'1 of 1' in r.err, r)
    write('t.jsonl', lines([{'question': 'What?', 'answers': 'alone'}]))
    check('one answer without a list', numbers('cvq-eval', '--metric', 'exact', '--max-tokens', '2', 'tiny.cvq', 't.jsonl').get('n') == 1)
    r = run('cvq-eval', 'tiny.cvq', 'task.jsonl')
    check('a metric is needed', r.code == 2 and b'--metric' in r.err, r)
    r = run('cvq-eval', '--metric', 'bleu', 'tiny.cvq', 'task.jsonl')
    check('no such metric', r.code == 2 and b'bleu' in r.err, r)


def main():
    with working_folder('cvq-measuring-'):
        r = run('cvq-convert', '-q', CHECKPOINT, 'tiny.cvq')
        check('convert', r.code == 0, r)
        r = run('cvq-quantize', '-q', '--recipe', 'q4', 'tiny.cvq', 'q4.cvq')
        check('quantize', r.code == 0, r)
        with open(TEXT, 'rb') as f:
            write('long.txt', f.read() * 8)
        against_the_original()
        if np is None:
            skip('divergence from logits', 'numpy is not installed')
        else:
            against_logits()
        wrong_references()
        wrong_texts()
        interrupted_saving()
        evaluating()
        wrong_tasks()
    return summary()


if __name__ == '__main__':
    sys.exit(main())
