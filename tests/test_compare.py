#!/usr/bin/env python3
"""cvq-compare: predictions as cvq-perplexity gives them, hidden states as cvq-run --taps writes them, and files that do not belong
together.  cvq-test: native
"""
import json
import os
import struct
import sys
import xml.dom.minidom

from harness import check, files, path, run, skip, summary, working_folder, write

try:
    import numpy as np
except ImportError:
    np = None

TEXT = os.path.abspath('tests/data/held-out.txt')
PICTURES = os.path.abspath('models/pictures')


def close(a, b, bound):
    return abs(a - b) <= bound * abs(b) + 1e-9


def make_data():
    with open(os.path.join(PICTURES, 'questions.jsonl'), encoding='utf-8') as f:
        questions = [json.loads(line) for line in f]
    for q in questions:
        q['image'] = os.path.join(PICTURES, q['image'])
    with open(TEXT, encoding='utf-8') as f:
        text = f.read()
    lines = [json.dumps(q) + '\n' for q in questions]
    write('answers.jsonl', ''.join(lines))
    write('text.txt', text)
    write('data.jsonl', ''.join(lines[:5]) + json.dumps({'text': text}) + '\n' + ''.join(lines[5:]))


def predictions():
    r = run('cvq-compare', '--json', '--context', 100, 'tiny.cvq', 'q4.cvq', 'data.jsonl')
    check('it runs', r.code == 0 and not r.err, r)
    got = json.loads(r.out)
    check('a quantized file in both precisions', [(m['file'], m['recipe'], m['precision']) for m in got['models']] ==
          [('q4.cvq', 'q4', 'exact'), ('q4.cvq', 'q4', 'fast')], got['models'])
    for key, args in (('text', ('--context', 100, 'text.txt')), ('answers', ('--jsonl', 'answers.jsonl'))):
        *options, data = args
        run('cvq-perplexity', '--force', '--save-logits', 'a.ref', *options, 'tiny.cvq', data)
        for m in got['models']:
            p = run('cvq-perplexity', '--json', '--precision', m['precision'], '--kld', 'a.ref', *options, 'q4.cvq', data)
            want = json.loads(p.out)
            # A file of saved predictions rounds them: by bench/logits_file.h less than a 300th of a divergence of 1e-4.
            check(f'{key}, {m["precision"]}: as cvq-perplexity', all(close(m[key][k], v, 3e-3 if k.startswith('kld') else 1e-6)
                                                                     for k, v in want.items()), (m[key], want))
        check(f'{key}: the reference', got['reference'][key]['tokens'] == want['tokens'], got['reference'])
    return got


def taps(model, precision, picture, question):
    r = run('cvq-run', '--force', '--precision', precision, '--taps', '--logits', 't.safetensors', '--max-tokens', 0, '--image', picture,
            '--prompt', question, model)
    check('taps', r.code == 0, r)
    with open(path('t.safetensors'), 'rb') as f:
        data = f.read()
    n, = struct.unpack('<Q', data[:8])
    out = {}
    for name, m in json.loads(data[8:8 + n]).items():
        if name != '__metadata__' and m['dtype'] == 'F32':
            a, b = m['data_offsets']
            out[name] = np.frombuffer(data[8 + n + a:8 + n + b], np.float32).reshape(m['shape']).astype(float)
    return out


def hidden_states():
    """One question, whose answer is one token: the states are those of its prompt."""
    q = {'image': os.path.join(PICTURES, 'number-13.png'), 'question': 'How many digits are there?', 'answers': ['2']}
    write('one.jsonl', json.dumps(q))
    r = run('cvq-compare', '--json', 'tiny.cvq', 'q4.cvq', 'one.jsonl')
    check('one question', r.code == 0, r)
    ref = taps('tiny.cvq', 'exact', q['image'], q['question'])
    slots = ref['vision.out'].shape[0]
    for m in json.loads(r.out)['models']:
        got = taps('q4.cvq', m['precision'], q['image'], q['question'])
        states = {s['name']: s for s in m['states']}
        want = {}
        for name in ref:
            if name in ('pixels', 'logits'):
                continue
            if name.startswith('layer.'):
                want[name + '.vision'] = ref[name][2:slots], got[name][2:slots]
                want[name + '.language'] = ref[name][slots:], got[name][slots:]
            else:
                want[name] = ref[name], got[name]
        check('all places, no other', set(want) == set(states), (sorted(want), sorted(states)))
        for name, (a, b) in want.items():
            rms = np.sqrt((a * a).mean(0))
            error, outliers = np.sqrt(((a - b) ** 2).sum() / (a * a).sum()), rms.max() / np.median(rms)
            s = states[name]
            check(f'{m["precision"]}: {name}', close(s['relative_error'], error, 1e-4) and close(s['outliers'], outliers, 1e-4),
                  (s, error, outliers))


def other_forms(got):
    r = run('cvq-compare', '--context', 100, '--svg', 'c.svg', 'tiny.cvq', 'q4.cvq', 'tiny.cvq', 'data.jsonl')
    check('for people', r.code == 0 and b'layer.3.language\t' in r.out and b'answers of q4.cvq, fast\t' in r.out, r)
    last = [line.split('\t') for line in r.out.decode().splitlines() if line.startswith('vision.out')][0]
    check('none from itself', float(last[3]) == 0 < float(last[1]), last)
    svg = xml.dom.minidom.parse(path('c.svg'))
    texts = [t.firstChild.data for t in svg.getElementsByTagName('text') if t.firstChild]
    check('a picture with a label for each place and a name for each line', {'q4.cvq, exact', 'q4.cvq, fast'} <= set(texts) and
          {s['name'] for s in got['models'][0]['states']} <= set(texts), texts)
    strokes = [(p.getAttribute('stroke'), p.getAttribute('stroke-dasharray') != 'none') for p in svg.getElementsByTagName('path')
               if p.getAttribute('fill') == 'none']
    check('a color for each file, fast mode dashed', len(strokes) == 3 and strokes[0][0] == strokes[1][0] != strokes[2][0] and
          [dashed for _, dashed in strokes] == [False, True, False], strokes)
    check('nothing else is left', files() == sorted(kept + ['c.svg']), files())
    r = run('cvq-compare', '--precision', 'fast', '--json', 'tiny.cvq', 'q4.cvq', 'one.jsonl')
    check('one precision', [m['precision'] for m in json.loads(r.out)['models']] == ['fast'], r)


def refused():
    def refuse(name, code, *args, words=()):
        r = run('cvq-compare', *args)
        check(name, r.code == code and not r.out and all(w in r.err for w in words), r)
    refuse('no models', 2, 'tiny.cvq', 'data.jsonl')
    refuse('no data', 1, 'tiny.cvq', 'q4.cvq', 'gone.jsonl', words=(b'gone.jsonl',))
    refuse('an existing picture', 1, '--svg', 'c.svg', 'tiny.cvq', 'q4.cvq', 'one.jsonl', words=(b'--force',))
    refuse('a folder that is not there', 1, '--scratch', 'gone', 'tiny.cvq', 'q4.cvq', 'one.jsonl', words=(b'gone',))
    write('none.jsonl', json.dumps({'question': 'What?'}) + '\n')
    refuse('no answers', 1, 'tiny.cvq', 'q4.cvq', 'none.jsonl', words=(b'none.jsonl', b'line 1'))
    write('short.jsonl', json.dumps({'text': 'In the beginning'}) + '\n')
    refuse('a text shorter than a window', 1, 'tiny.cvq', 'q4.cvq', 'short.jsonl', words=(b'short.jsonl',))


def main():
    global kept
    with working_folder('cvq-compare-'):
        check('convert', run('cvq-convert', '-q', os.path.abspath('models/cogvlm2-tiny'), 'tiny.cvq').code == 0)
        check('quantize', run('cvq-quantize', '-q', '--recipe', 'q4', 'tiny.cvq', 'q4.cvq').code == 0)
        make_data()
        got = predictions()
        if np is None:
            skip('hidden states', 'numpy is not installed')
            write('one.jsonl', json.dumps({'question': 'Who?', 'answers': ['he']}))
        else:
            hidden_states()
        kept = files()
        other_forms(got)
        refused()
    return summary()


if __name__ == '__main__':
    sys.exit(main())
