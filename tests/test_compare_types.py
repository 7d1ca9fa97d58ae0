#!/usr/bin/env python3
"""scripts/compare_types.py: its table beside cvq-quantize's own report, and another program's library, which here is one that rounds to an
eighth of the row's largest value.
cvq-test: once
"""
import json
import os
import shlex
import subprocess
import sys
import tempfile

import numpy as np
from harness import check, summary

sys.path.insert(0, 'scripts')
import compare_types  # noqa: E402

BUILD = os.path.abspath(os.environ.get('CVQ_BUILD', 'build'))
CC = shlex.split(os.environ.get('CVQ_CC', 'cc'))
LIBRARY = r'''
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
struct params { size_t size; void *buffer; _Bool no_alloc; };
void *ggml_init(struct params p) { return p.size ? (void *)"" : 0; }
const char *ggml_type_name(int type) { return type == 12 ? "q4_K" : type == 139 ? "another" : "iq4_ks"; }
size_t ggml_row_size(int type, int64_t n) { return type == 12 ? n * 4 : 0; }
size_t ggml_quantize_chunk(int type, const float *w, float *out, int64_t start, int64_t rows, int64_t n, const float *h, void *none) {
    for (int64_t i = 0; i < rows; i++, w += n, out += n) {
        float most = 0;
        for (int64_t k = 0; k < n; k++) most = fmaxf(most, fabsf(w[k]));
        for (int64_t k = 0; k < n; k++) out[k] = most > 0 && h[k] >= 0 ? rintf(w[k] / most * 8) / 8 * most : 0;
    }
    return type == 12 && !start && !none ? rows * n * 4 : 0;
}
void dequantize_row_q4_K(const void *p, float *out, int64_t n) { memcpy(out, p, n * 4); }
void dequantize_row_iq4_k(const void *p, float *out, int64_t n) { memcpy(out, p, n * 4); }
'''


def compare(folder, *args):
    return subprocess.run([sys.executable, 'scripts/compare_types.py', '--build', BUILD, '--folder', folder, '--types', 'q4t', *args],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)


def table(text):
    """-> {first cell: [the others, as text]}"""
    rows = [[c.strip() for c in line.strip('|').split('|')] for line in text.splitlines() if line.startswith('| ')]
    return {r[0]: r[1:] for r in rows}


def library(work):
    source, out = os.path.join(work, 'other.c'), os.path.join(work, 'other.so')
    with open(source, 'w', encoding='utf-8') as f:
        f.write(LIBRARY)
    subprocess.run([*CC, '-O1', '-shared', '-fPIC', '-o', out, source, '-lm'], check=True)
    return out


def test_files(work):
    path = os.path.join(work, 'x.safetensors')
    values = {'a': np.array([[1, -2.5], [3.14159, 1e-3]], np.float32), 'a.sum_sq': np.array([1.1], np.float32), 'a.count': np.array([7], np.int64)}
    compare_types.write_safetensors(path, values)
    got = compare_types.read_safetensors(path)
    check('sums are kept as they are', got['a.sum_sq'] == values['a.sum_sq'] and got['a.count'] == 7, got)
    check('weights are rounded to the nearest bf16', np.abs(got['a'] / values['a'] - 1).max() <= 2**-8 and got['a'][1, 0] == 3.140625, got)


def test_errors():
    rng = np.random.default_rng(3)
    w, x = rng.standard_normal((5, 8)).astype(np.float32), rng.standard_normal((100, 8))
    v = np.round(w * 4).astype(np.float32) / 4
    c = x.T @ x / 100
    full = ((x @ (v - w).T) ** 2).sum() / ((x @ w.T) ** 2).sum()
    check('the full error is that of the outputs', abs(compare_types.full_error(w, v, c) / full - 1) < 1e-5)
    diagonal = compare_types.full_error(w, v, np.diag(np.diag(c)))
    check('the diagonal error is that of inputs that do not go together', abs(compare_types.diagonal_error(w, v, np.diag(c)) / diagonal - 1) < 1e-5)


def test_model(work, other):
    task = os.path.join(work, 'task.jsonl')
    with open('models/pictures/questions.jsonl', encoding='utf-8') as f, open(task, 'w', encoding='utf-8') as out:
        for line in f:
            question = json.loads(line)
            question['image'] = os.path.abspath(os.path.join('models/pictures', question['image']))
            out.write(json.dumps(question) + '\n')
    r = compare(os.path.join(work, 'model'), '--calibration', 'tests/data/calibration.jsonl', '--text', 'tests/data/held-out.txt', '--task', task,
                '--questions', '3', '--library', other, '--skip-rows')
    got = table(r.stdout)
    check('a line for each', r.returncode == 0 and list(got) == ['', 'q4_K', 'q4t, `--imatrix`', 'q4t, `--feedback`'], r)
    if list(got)[1:2] != ['q4_K']:
        return
    kld = {name: float(cells[4]) for name, cells in got.items() if name}
    check('bits', got['q4_K'][0] == '32.00' and got['q4t, `--imatrix`'][0] == '4.50', got)
    check('a scale for a row loses more than one for a block', float(got['q4_K'][1]) > float(got['q4t, `--imatrix`'][1]), got)
    check('the model suffers by it', kld['q4_K'] > kld['q4t, `--imatrix`'] > 0.001, got)


def test_rows(work, other):
    r = compare(os.path.join(work, 'rows'), '--skip-model', '--rows', '32', '--library', other)
    got = table(r.stdout)
    cells = [float(x) for kind in ('Gauss', 't8', 't5', 't4') for x in got.get(kind, ['0'])[0].split(';')]
    check('rows of all four kinds, two widths', r.returncode == 0 and len(cells) == 8, r)
    check('the heavier the tails, the better is a scale for a block', 0.05 < cells[0] < 0.2 and cells[-1] < cells[0] / 2, got)


def main():
    with tempfile.TemporaryDirectory(prefix='cvq-compare-types-') as work:
        other = library(work)
        test_files(work)
        test_errors()
        test_model(work, other)
        test_rows(work, other)
        r = compare(work)
        check('a model needs data', r.returncode == 2 and '--calibration' in r.stderr, r)
    return summary()


if __name__ == '__main__':
    sys.exit(main())
