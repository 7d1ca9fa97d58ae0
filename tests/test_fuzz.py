#!/usr/bin/env python3
"""The fuzz targets on their corpora, without a fuzzer: what was once found, and what covers the most. Some of each corpus must be
accepted, or nothing is tried of what lies behind (tests/tools/fuzz_seeds.c makes new seeds).
`make fuzz MINUTES=n` looks for more.
cvq-test: formats"""
import os
import re
import shlex
import subprocess
import sys

BUILD = os.environ.get('CVQ_BUILD', 'build')
RUNNER = shlex.split(os.environ.get('CVQ_RUNNER', ''))
CORPUS = 'tests/fuzz/corpus'
passed = failed = 0

targets = sorted(n[5:] for n in os.listdir(os.path.join(BUILD, 'fuzz')) if n.startswith('fuzz_'))
sources = sorted(n[5:-2] for n in os.listdir('tests/fuzz') if n.startswith('fuzz_') and n.endswith('.c') and n != 'fuzz_files.c')
for name in sorted(set(sources) | set(os.listdir(CORPUS))):
    folder = os.path.join(CORPUS, name)
    inputs = len(os.listdir(folder)) if os.path.isdir(folder) else 0
    good, why = False, ''
    if name not in targets:
        why = 'the corpus has no target' if name not in sources else 'the target is not built'
    elif inputs == 0:
        why = 'the target has no corpus'
    else:
        r = subprocess.run([*RUNNER, os.path.join(BUILD, 'fuzz', 'fuzz_' + name), folder], capture_output=True, text=True, timeout=600)
        accepted = re.fullmatch(rf'{inputs} inputs, (\d+) accepted\n', r.stdout)
        good = r.returncode == 0 and accepted is not None and int(accepted[1]) > 0
        why = f'exit {r.returncode}: {r.stdout[-300:]}{r.stderr[-3000:]}'
    passed, failed = passed + good, failed + (not good)
    if not good:
        print(f'FAIL {name}: {why}')
print(f'{passed} passed, {failed} failed, 0 skipped')
sys.exit(failed > 0)
