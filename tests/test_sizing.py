#!/usr/bin/env python3
"""cvq-quantize --target-size and cvq-sensitivity: sizes that hold, types that follow what was measured, stopping and going on.
cvq-test: native
"""
import json
import os
import signal
import sys
import time

from harness import check, files, path, read, run, start, summary, working_folder, write

ROOT = os.getcwd()


def table(text):
    head, *rows = [line.split('\t') for line in text.decode().splitlines()]
    return [dict(zip(head, row)) for row in rows]


def types(*args):
    r = run('cvq-quantize', '--dry-run', *args, 'tiny.cvq')
    check(f'{args}: a plan', r.code == 0, r)
    return {t['name']: t['type'] for t in table(r.out)}


def sizes():
    weights = sum(os.path.getsize(os.path.join(ROOT, 'models/cogvlm2-tiny', f)) for f in os.listdir('models/cogvlm2-tiny')
                  if f.endswith('.safetensors')) / 2
    before = 0
    for size in ('11M', '11.5M', '12M', '12345678', '13MB', '0.014G', '13bpw', '15M', '19.4M', '1G'):
        r = run('cvq-quantize', '--force', '--target-size', size, 'tiny.cvq', 'sized.cvq')
        number = float(size.rstrip('GMBbpw')) * {'G': 1e9, 'M': 1e6, 'B': 1e6, 'w': weights / 8}.get(size[-1], 1)
        got = os.path.getsize(path('sized.cvq'))
        check(f'{size}: never more, and near to it', r.code == 0 and got <= number * 1.001 and
              (got >= 0.99 * number or size == '1G'), (r, got, number))
        check(f'{size}: exactly as it says', f'({got} bytes)'.encode() in r.err, r.err)
        before = got
    whole = run('cvq-quantize', '--force', '--recipe', 'bf16', 'tiny.cvq', 'bf16.cvq')
    check('all 16 bits is the most there is', whole.code == 0 and abs(before - os.path.getsize(path('bf16.cvq'))) < 65536, before)
    for size, words in (('1M', (b'10.9 MB', b'19.4 MB')), ('0', (b'is no size',)), ('12X', (b'is no size',)), ('-3G', (b'is no size',)),
                        ('', (b'is no size',)), ('nan', (b'is no size',))):
        r = run('cvq-quantize', '--force', '--target-size', size, 'tiny.cvq', 'none.cvq')
        check(f'{size!r} is refused', r.code == 2 and all(w in r.err for w in words) and not os.path.exists(path('none.cvq')), r)
    for args in (('--recipe', 'q4'), ('--type', '*=q8')):
        r = run('cvq-quantize', '--target-size', '12M', *args, 'tiny.cvq', 'none.cvq')
        check(f'not with {args[0]}', r.code == 2 and args[0].encode() in r.err, r)
    r = run('cvq-quantize', '--sensitivity', 'x', 'tiny.cvq', 'none.cvq')
    check('a sensitivity without a size', r.code == 2, r)


def kept_in_the_file():
    plan = types('--target-size', '12M')
    run('cvq-quantize', '--force', '--target-size', '12M', '--report', 'report.tsv', 'tiny.cvq', 'sized.cvq')
    report = {t['tensor']: t['type'] for t in table(read('report.tsv'))}
    check('the report says what the plan said', report == plan, (report, plan))
    info = json.loads(run('cvq-info', '--json', 'sized.cvq').out)
    check('the recipe has a name', 'sized' in json.dumps(info), info)
    rules = info.get('recipe', {}).get('types', {}) if isinstance(info.get('recipe'), dict) else {}
    if rules:
        args = [a for k, v in rules.items() for a in ('--type', f'{k}={v}')]
        check('its rules give the same types', types('--recipe', 'bf16', *args) == plan, rules)
    one = read('sized.cvq')
    run('cvq-quantize', '--force', '--threads', 1, '--target-size', '12M', 'tiny.cvq', 'sized.cvq')
    check('the same with one thread', read('sized.cvq') == one)


def measured():
    """Little data: what is tried is the way, not the numbers."""
    question = {'image': os.path.join(ROOT, 'models/pictures/number-13.png'), 'question': 'How many digits are there?', 'answers': ['2']}
    with open('tests/data/held-out.txt', encoding='utf-8') as f:
        text = f.read()[:700]
    write('data.jsonl', json.dumps(question) + '\n' + json.dumps({'text': text}) + '\n')
    command = ('cvq-sensitivity', '--context', 40, '-o', 's.tsv', 'tiny.cvq', 'data.jsonl')
    kept = set(files())
    p = start(*command)
    end = time.monotonic() + 300
    while p.poll() is None and time.monotonic() < end and (not os.path.exists(path('s.tsv')) or read('s.tsv').count(b'\n') < 9):
        time.sleep(0.01)
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=120)
    check('stopped: exit 130, with a word', p.returncode == 130 and not out and b'goes on' in err, (p.returncode, out, err))
    part = read('s.tsv')
    check('nothing else is left', set(files()) == kept | {'s.tsv'}, files())
    write('s.tsv', part.decode() + 'model.layers.0.half a line')
    r = run(*command)
    check('going on', r.code == 0 and read('s.tsv').startswith(part) and part.count(b'\n') >= 9, r)
    rows = table(read('s.tsv').split(b'\n', 2)[2])
    check('a line for each matrix and table', len({t['tensor'] for t in rows}) == len(rows) == 59, len(rows))
    vision = [t for t in rows if 'vision' in t['tensor']]
    check('vision matters to answers alone', all(float(t['kld_text']) == 0 for t in vision) and
          sum(float(t['kld_answers']) for t in vision) > 0, vision)
    check('language matters to texts', all(float(t['kld_text']) > 0 for t in rows if t not in vision), rows)
    check('an error of 4 bits', all(0.003 < float(t['error']) < 0.006 for t in rows), rows)
    r = run(*command)
    check('all is measured', r.code == 0 and b' 0 matrices measured' in r.out, r)
    # What matters more gets more bits.
    s = read('s.tsv').decode()
    down = 'model.layers.3.mlp.language_mlp.down_proj.weight'
    line, = [x for x in s.splitlines() if x.startswith(down)]
    write('most.tsv', s.replace(line, f'{down}\tq4t\t0.004\t5\t5'))
    write('least.tsv', s.replace(line, f'{down}\tq4t\t0.004\t0\t0'))
    most, least = (types('--target-size', '11.6M', '--sensitivity', f)[down] for f in ('most.tsv', 'least.tsv'))
    check('types follow the file', (most, least) == ('bf16', 'q4s'), (most, least))
    write('bad.tsv', s.replace(line + '\n', ''))
    r = run('cvq-quantize', '--target-size', '12M', '--sensitivity', 'bad.tsv', 'tiny.cvq', 'none.cvq')
    check('a matrix that is missing', r.code == 1 and down.encode() in r.err, r)
    r = run('cvq-quantize', '--target-size', '12M', '--sensitivity', 'gone.tsv', 'tiny.cvq', 'none.cvq')
    check('a file that is missing', r.code == 1 and b'gone.tsv' in r.err, r)
    run('cvq-quantize', '-q', 'tiny.cvq', 'q4.cvq')
    r = run('cvq-sensitivity', '-o', 'x.tsv', 'q4.cvq', 'data.jsonl')
    check('a quantized model', r.code == 1 and b'quantized already' in r.err, r)
    write('s.tsv', s.replace('# model ', '# model 0'))
    r = run(*command)
    check('of another model', r.code == 1 and b'another model' in r.err, r)
    r = run('cvq-sensitivity', '-o', 'data.jsonl', 'tiny.cvq', 'data.jsonl')
    check('the output is an input', r.code == 1 and b'"question"' in read('data.jsonl'), r)


def main():
    with working_folder('cvq-sizing-'):
        check('convert', run('cvq-convert', '-q', os.path.join(ROOT, 'models/cogvlm2-tiny'), 'tiny.cvq').code == 0)
        sizes()
        kept_in_the_file()
        measured()
    return summary()


if __name__ == '__main__':
    sys.exit(main())
