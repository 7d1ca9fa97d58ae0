#!/usr/bin/env python3
"""What quantization costs, recipe by recipe, compared with what it cost before.

    regress.py --bin FOLDER [--model MODEL.cvq] [--data DATA.jsonl] [--expected FILE.json] [--rewrite] [--out FOLDER]

Without --model the small checkpoint is taken, with the data of tests/data/regress. MODEL is a 16-bit file, DATA as for cvq-calibrate: questions
with answers, and texts. Every recipe, and the decoder alone in every type, is quantized and compared with the original: divergence, perplexity,
likeliest token, error layer by layer (cvq-compare), and exact answers (cvq-eval). FILE.json has what was measured before, and how much worse a
value may be; without one, or with --rewrite, it is written. OUT (build/regress) gets report.txt and layers.svg, and keeps the quantized files.

Exit status: 0 nothing is worse, 1 something is (its name is told), 2 wrong usage.
"""
import argparse
import json
import os
import subprocess
import sys

SMALL = 'models/cogvlm2-tiny'
DATA = 'tests/data/regress/data.jsonl'
EXPECTED = 'tests/regress/cogvlm2-tiny.json'
RECIPES = {'q8': ['--recipe', 'q8'], 'q4': ['--recipe', 'q4'], 'q4-small': ['--recipe', 'q4-small'],
           'sized-12bpw': ['--target-size', '12bpw']}
TYPES = {f'decoder-{t}': ['--recipe', 'bf16', '--type', f'model.layers.*={t}'] for t in ('q6', 'q4h', 'q4t', 'q4s', 'q4')}
# How much worse a value may be before it counts: a share of it, and something on top. Answers are few, so that rounding differently moves
# their divergence more.
TOLERANCES = {'text.kld_mean': (0.03, 1e-5), 'text.kld_p99': (0.10, 1e-4), 'text.perplexity_ratio': (0.003, 0), 'text.top1_agreement': (0, 0.01),
              'answers.kld_mean': (0.25, 1e-5), 'answers.top1_agreement': (0, 0.005), 'accuracy': (0, 0.015), 'bytes': (0, 0), 'state': (0.05, 1e-4)}
MORE_IS_BETTER = ('text.top1_agreement', 'answers.top1_agreement', 'accuracy')


def parse():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--bin', required=True)
    p.add_argument('--model')
    p.add_argument('--data')
    p.add_argument('--expected')
    p.add_argument('--rewrite', action='store_true')
    p.add_argument('--out', default='build/regress')
    p.add_argument('--only', help='names of files to make, with commas')
    p.add_argument('--quantize', help='a program in place of cvq-quantize')
    args = p.parse_args()
    if args.model and not args.data:
        p.error('--model needs --data (make regress MODEL=... DATA=...)')
    return args


class Regress:
    def __init__(self, args):
        self.args, self.out = args, args.out
        os.makedirs(self.out, exist_ok=True)
        self.data = args.data or DATA
        self.model = args.model or self.path('bf16.cvq')
        self.variants = {**RECIPES, **TYPES}
        if args.only:
            self.variants = {n: self.variants[n] for n in args.only.split(',')}

    def path(self, name):
        return os.path.join(self.out, name)

    def run(self, program, *args):
        """-> stdout"""
        command = [program if os.sep in program else os.path.join(self.args.bin, program), *args]
        r = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
        if r.returncode:
            sys.exit(f'regress: {" ".join(command)}: exit status {r.returncode}')
        return r.stdout

    def make_files(self):
        if not self.args.model:
            self.run('cvq-convert', '-q', '--force', SMALL, self.model)
        for name, how in self.variants.items():
            say(f'making {name}')
            self.run(self.args.quantize or 'cvq-quantize', '-q', '--force', *how, self.model, self.path(f'{name}.cvq'))

    def questions(self):
        """The data's questions alone, beside the data, so that their pictures are found. -> its path, or None"""
        with open(self.data, encoding='utf-8') as f:
            lines = [json.loads(line) for line in f if line.strip()]
        asked = [x for x in lines if 'question' in x and x.get('answers')]
        for x in asked:
            if 'image' in x:
                x['image'] = os.path.abspath(os.path.join(os.path.dirname(self.data), x['image']))
        if not asked:
            return None
        with open(self.path('questions.jsonl'), 'w', encoding='utf-8') as f:
            f.writelines(json.dumps(x) + '\n' for x in asked)
        return self.path('questions.jsonl')

    def accuracy(self, model, questions):
        return json.loads(self.run('cvq-eval', '-q', '--json', '--metric', 'exact', model, questions))['score']

    def measure(self):
        """-> {"q4, fast": {"text.kld_mean": ..., "accuracy": ..., "state.layer.0.vision": ...}}"""
        files = [self.path(f'{name}.cvq') for name in self.variants]
        say('comparing layers and predictions')
        got = json.loads(self.run('cvq-compare', '-q', '--json', '--force', '--scratch', self.out, '--svg', self.path('layers.svg'),
                                  self.model, *files, self.data))
        results = {}
        for m in got['models']:
            name = m['file'].removesuffix('.cvq')
            values = {'bytes': int(m['bytes'])} if m['precision'] == 'exact' else {}
            for kind in ('text', 'answers'):
                values.update({f'{kind}.{k}': v for k, v in m.get(kind, {}).items() if f'{kind}.{k}' in TOLERANCES})
            values.update({f'state.{s["name"]}': s['relative_error'] for s in m['states']})
            results[f'{name}, {m["precision"]}'] = values
        questions = self.questions()
        if questions:
            say('answering')
            results['bf16, exact'] = {'accuracy': self.accuracy(self.model, questions)}
            for name in self.variants:
                if name not in TYPES:
                    results[f'{name}, fast']['accuracy'] = self.accuracy(self.path(f'{name}.cvq'), questions)
        return results


def say(what):
    print(f'regress: {what}', file=sys.stderr, flush=True)


def shown(v):
    return str(v) if isinstance(v, int) else f'{v:.6g}'


def worse(key, value, before):
    """By how much over the tolerance, or 0."""
    share, more = TOLERANCES['state' if key.startswith('state.') else key]
    allowed = abs(before) * share + more
    loss = before - value if key in MORE_IS_BETTER else value - before
    return max(0, loss - allowed)


def compare(got, expected):
    """-> lines about what is worse, or gone"""
    problems = []
    for name, before in expected.items():
        if name not in got:
            problems.append(f'{name}: not measured any more')
            continue
        for key, b in before.items():
            v = got[name].get(key)
            if v is None:
                problems.append(f'{name}: {key}: not measured any more')
            elif worse(key, v, b):
                problems.append(f'{name}: {key}: {shown(v)}, was {shown(b)}')
    return problems


def table(got, expected):
    keys = ('bytes', 'text.kld_mean', 'text.perplexity_ratio', 'answers.kld_mean', 'accuracy', 'state.vision.out')
    lines = ['\t'.join(('file, precision', *keys))]
    for name, values in got.items():
        cells = []
        for k in keys:
            v, b = values.get(k), expected.get(name, {}).get(k)
            cells.append('' if v is None else f'{shown(v)}' + ('' if b is None or b == v else f' (was {shown(b)})'))
        lines.append('\t'.join((name, *cells)))
    return '\n'.join(lines) + '\n'


def main():
    args = parse()
    r = Regress(args)
    where = args.expected or (EXPECTED if not args.model else r.path('expected.json'))
    r.make_files()
    got = r.measure()
    expected = {}
    if os.path.exists(where) and not args.rewrite:
        with open(where, encoding='utf-8') as f:
            expected = json.load(f)
        if args.only:
            expected = {n: v for n, v in expected.items() if n.split(',')[0] in (*r.variants, 'bf16')}
    text = table(got, expected)
    print(text, end='', flush=True)
    problems = compare(got, expected)
    with open(r.path('report.txt'), 'w', encoding='utf-8') as f:
        f.write(text + ''.join(p + '\n' for p in problems))
    if not expected:
        with open(where, 'w', encoding='utf-8') as f:
            f.write(json.dumps(got, indent=1) + '\n')
        print(f'written: {where}')
    for p in problems:
        print(f'WORSE {p}')
    print(f'{r.path("layers.svg")} shows the error layer by layer' + (f'; {len(problems)} values are worse' if problems else ''))
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
