#!/usr/bin/env python3
"""scripts/regress.py notices what got worse: a search that was taken out, a value that is gone. With little data, in a folder of its own.
cvq-test: once
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile

from harness import BIN, TOOLS, check, summary



def regress(*args):
    return subprocess.run([sys.executable, 'scripts/regress.py', '--bin', BIN, '--out', os.path.join(work, 'out'), *args],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)


def stored():
    with open(expected, encoding='utf-8') as f:
        return json.load(f)


def main():
    global work, expected
    with tempfile.TemporaryDirectory(prefix='cvq-regress-') as work:
        expected = os.path.join(work, 'expected.json')
        data = os.path.join(work, 'data.jsonl')
        with open('tests/data/regress/data.jsonl', encoding='utf-8') as f:
            lines = [json.loads(line) for line in f]
        for x in lines:
            if 'image' in x:
                x['image'] = os.path.abspath(os.path.join('tests/data/regress', x['image']))
        with open(data, 'w', encoding='utf-8') as f:
            f.writelines(json.dumps(x) + '\n' for x in lines[:12])
            f.write(json.dumps({'text': lines[-1]['text'][:8000]}) + '\n')
        args = ('--data', data, '--expected', expected, '--only', 'q4')

        r = regress(*args)
        check('the first time it writes', r.returncode == 0 and f'written: {expected}' in r.stdout, r)
        check('all that was measured', set(stored()) == {'q4, exact', 'q4, fast', 'bf16, exact'} and
              {'text.kld_mean', 'answers.kld_mean', 'accuracy', 'state.layer.3.language'} <= set(stored()['q4, fast']), stored())
        r = regress(*args)
        check('then nothing is worse', r.returncode == 0 and 'WORSE' not in r.stdout and 'written' not in r.stdout, r)
        for name in ('report.txt', 'layers.svg'):
            check(f'{name} is there', os.path.getsize(os.path.join(work, 'out', name)) > 100)

        r = regress(*args, '--quantize', os.path.join(TOOLS, 'worse_quantize'))
        words = ('WORSE q4, exact: text.kld_mean: ', 'WORSE q4, fast: text.kld_mean: ', 'WORSE q4, exact: state.layer.1.language: ')
        check('a search that does not search is noticed', r.returncode == 1 and all(w in r.stdout for w in words), r)
        check('what it does not touch is not', 'vision.layer.0' not in r.stdout, r)

        good = stored()
        good['q4, exact']['text.kld_mean'] *= 0.9
        good['gone, exact'] = {'bytes': 1}
        good['q4, fast']['state.layer.9.vision'] = 1
        with open(expected, 'w', encoding='utf-8') as f:
            json.dump(good, f)
        r = regress(*args)
        check('a tenth more is noticed, and nothing else', r.returncode == 1 and r.stdout.count('WORSE') == 2 and
              'q4, exact: text.kld_mean' in r.stdout and 'state.layer.9.vision: not measured any more' in r.stdout, r)
        r = regress(*args, '--rewrite')
        check('--rewrite takes the present values', r.returncode == 0 and abs(stored()['q4, exact']['text.kld_mean'] * 0.9 / good['q4, exact'][
            'text.kld_mean'] - 1) < 1e-9, r)
        another_model(data)
    return summary()


def another_model(data):
    """As make regress MODEL= DATA= does: what the first run writes is what the next one is compared with."""
    r = regress('--model', os.path.join(work, 'out', 'bf16.cvq'))
    check('a model needs data', r.returncode == 2 and 'DATA=' in r.stderr, r)
    model = os.path.join(work, 'another.cvq')
    shutil.move(os.path.join(work, 'out', 'bf16.cvq'), model)
    args = ('--model', model, '--data', data, '--only', 'q8')
    where = os.path.join(work, 'out', 'expected.json')
    r = regress(*args)
    check('another model: written', r.returncode == 0 and f'written: {where}' in r.stdout, r)
    r = regress(*args)
    check('another model: compared', r.returncode == 0 and 'WORSE' not in r.stdout and 'written' not in r.stdout and
          'q8, fast' in r.stdout, r)
    check('the model alone was taken', not os.path.exists(os.path.join(work, 'out', 'bf16.cvq')))


if __name__ == '__main__':
    sys.exit(main())
