#!/usr/bin/env python3
"""cvq-bench at a sixteenth of the model's sizes: every field of the JSON, every row that must be there, shares that belong to
the peaks, the filter, a model's own rows, wrong usage. The figures themselves are not judged.
cvq-test: native compiled"""
import json
import math
import os
import signal
import subprocess
import sys
import tempfile

from harness import BIN, RUNNER, check, summary

ROOT = {'version', 'cpu', 'level', 'threads', 'peaks', 'results', 'conversion'}
PEAK = {'kind', 'level', 'threads', 'value', 'unit'}
ROW = {'name', 'phase', 'shape', 'type', 'level', 'threads', 'median_s', 'min_s', 'runs', 'ops', 'bytes', 'rate', 'unit',
       'bound', 'fraction', 'model_s'}
UNITS = {'int8': 'Gop/s', 'bf16': 'GFLOP/s', 'f32': 'GFLOP/s', 'read': 'GB/s'}
LAYERS = {'vit_layer': 63, 'vit_attention': 63, 'decoder_layer_prefill': 32, 'decoder_layer_decode': 32, 'lm_head': 1,
          'adapter': 1, 'decode_attention': 32}
GEMMS = {'gemm_' + n for n in ('patch vit_qkv vit_dense vit_fc1 vit_fc2 conv adapter_proj qkv dense gate_up down '
                               'lm_head').split()}


def run(program, *args):
    return subprocess.run([*RUNNER, os.path.join(BIN, program), *args], capture_output=True, text=True)


def bench(*args):
    r = run('cvq-bench', '--quick', '--scale', '16', '--threads', '2', '--json', *args)
    if r.returncode != 0:
        check(f'cvq-bench {args}', False, r.stderr)
        return {'peaks': [], 'results': [], 'conversion': []}
    return json.loads(r.stdout)


def close(a, b):
    return math.isclose(a, b, rel_tol=1e-9)


def wrong_with(row, peaks, phases):
    """What breaks the contract in one row, or ''."""
    if set(row) != ROW:
        return f'fields {sorted(set(row) ^ ROW)}'
    numbers = [row[k] for k in ('median_s', 'min_s', 'rate', 'fraction', 'model_s', 'bytes')]
    if not all(math.isfinite(x) and x > 0 for x in numbers) or row['ops'] < 0 or row['runs'] < 1:
        return 'a number that is none'
    if row['min_s'] > row['median_s'] or row['phase'] not in phases:
        return 'minimum or phase'
    if len(row['shape']) != 3 or not all(isinstance(n, int) and n > 0 for n in row['shape']):
        return 'shape'
    peak = peaks.get((row['bound'], row['level'], row['threads']))
    if not peak:
        return 'bound by a peak that is not there'
    work = row['bytes'] if row['bound'] == 'read' else row['ops']
    if not close(row['fraction'], work / row['median_s'] * 1e-9 / peak):
        return 'fraction'
    if row['unit'] == UNITS[row['bound']] and not close(row['rate'], row['fraction'] * peak):
        return 'rate'
    return ''


def everything():
    j = bench()
    check('the fields of the object', set(j) == ROOT and j['version'] == 1 and j['threads'] == 2, str(set(j) ^ ROOT))
    peaks = {(p['kind'], p['level'], p['threads']): p['value'] for p in j['peaks']}
    check('the fields of the peaks', all(set(p) == PEAK and p['unit'] == UNITS[p['kind']] and p['value'] > 0 for p in j['peaks']))
    for kind in ('int8', 'f32', 'read'):
        check(f'the {kind} peak of this level, with one thread and with all',
              all((kind, j['level'], n) in peaks for n in (1, 2)))
    problems = {r['name']: wrong_with(r, peaks, ('encode', 'prefill', 'decode')) for r in j['results']}
    problems.update({r['name']: wrong_with(r, peaks, ('convert',)) for r in j['conversion']})
    problems = {n: why for n, why in problems.items() if why}
    check('every row keeps the contract', not problems, str(problems))
    rows = {}
    for r in j['results']:
        rows.setdefault(r['name'], []).append(r)
    check('all rows are there', set(rows) == set(LAYERS) | GEMMS | {'quantize_rows'},
          str(set(rows) ^ (set(LAYERS) | GEMMS | {'quantize_rows'})))
    for name, layers in LAYERS.items():
        check(f'{name} stands for the whole model', close(rows[name][0]['model_s'], layers * rows[name][0]['median_s']))
    check('a token goes through a matrix in one row', {r['phase'] for r in rows['gemm_qkv'] if r['shape'][0] == 1} == {'decode'})
    check('the types of conversion', [r['type'] for r in j['conversion']] == ['q8', 'q6', 'q4t', 'q4', 'q4s', 'q4h'])


def some():
    j = bench('--only', 'gemm_qkv:q4t:*')
    check('--only with type and rows', j['results'] and not j['conversion'] and
          {(r['name'], r['type']) for r in j['results']} == {('gemm_qkv', 'q4t')})
    j = bench('--only', '*_layer_*', '--recipe', 'bf16', '--cpu', 'scalar')
    check('--recipe bf16 is exact, --cpu is heeded', [(r['name'], r['type'], r['level']) for r in j['results']] ==
          [(f'decoder_layer_{n}', 'bf16', 'scalar') for n in ('prefill', 'decode')], str(j['results']))
    r = run('cvq-bench', '--quick', '--scale', '16', '--only', 'lm_head')
    check('the table', r.returncode == 0 and len([l for l in r.stdout.splitlines() if l.startswith('lm_head')]) == 1,
          r.stdout + r.stderr)


def model():
    with tempfile.TemporaryDirectory() as work:
        path = os.path.join(work, 'q4.cvq')
        r = run('cvq-convert', '--recipe', 'q4', 'models/cogvlm2-tiny', path)
        check('the small model is converted', r.returncode == 0, r.stderr)
        if r.returncode != 0:
            return
        found = {r['name']: r for r in bench('--only', '??code', path)['results']}
        check('a model is encoded and decoded', set(found) == {'encode', 'decode'}, str(found))
        found.update({r['name']: r for r in bench('--only', 'prefill', path)['results']})
        check('units', [found[n]['unit'] for n in ('encode', 'prefill', 'decode')] == ['pictures/s', 'tokens/s', 'tokens/s'])
        check('tokens a second', all(close(found[n]['rate'] * found[n]['median_s'], found[n]['shape'][0])
                                     for n in ('prefill', 'decode')))


def usage():
    for args, said in ((['--scale', '3'], '1, 2, 4, 8 or 16'), (['--recipe', 'q5'], 'q5'), (['a', 'b'], '')):
        r = run('cvq-bench', *args)
        check(f'{args} is wrong usage', r.returncode == 2 and said in r.stderr and not r.stdout, r.stderr)
    r = run('cvq-bench', '--quick', '--scale', '16', '--json', '--only', 'nothing')
    check('--only that matches nothing fails', r.returncode == 1 and 'nothing' in r.stderr and not r.stdout, r.stderr)
    r = run('cvq-bench', '--quick', '--scale', '16', '--json', '--only', 'encode', 'tests/missing.cvq')
    check('a missing model is named', r.returncode == 1 and 'missing.cvq' in r.stderr and not r.stdout, r.stderr)


def interrupted():
    p = subprocess.Popen([*RUNNER, os.path.join(BIN, 'cvq-bench'), '-q', '--scale', '2', '--only', 'vit_layer'],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    p.stdout.readline()  # the machine's name: signals are caught from here on
    p.send_signal(signal.SIGINT)
    try:
        out, err = p.communicate(timeout=120)
        check('Ctrl-C ends it between two runs', p.returncode == 130 and 'vit_layer' not in out and not err,
              f'{p.returncode} {out} {err}')
    except subprocess.TimeoutExpired:
        p.kill()
        check('Ctrl-C ends it between two runs', False, 'still running after two minutes')


everything()
some()
model()
usage()
interrupted()
sys.exit(summary())
