#!/usr/bin/env python3
"""The small model under valgrind: converted, quantized and asked about a picture, at the levels valgrind knows (`make valgrind`).

Errors and definite leaks of every process, those of the picture decoder too, fail the test; a program with an error shows that they would.
"""
import os
import shutil
import subprocess
import sys
import tempfile

from harness import BIN, check, summary

TINY, PICTURE = 'models/cogvlm2-tiny', 'models/pictures/number-13.png'
QUESTION, ANSWER = 'What number is written in the image?', '13'
FOUND = 99
VALGRIND = ('valgrind', '--quiet', f'--error-exitcode={FOUND}', '--leak-check=full', '--errors-for-leak-kinds=definite',
            '--show-leak-kinds=definite', '--trace-children=yes', '--fair-sched=yes')


def watched(*command, level='scalar'):
    """-> whether it went well and nothing was found, stdout, all that was said"""
    e = {**os.environ, 'CVQ_CPU': level, 'XDG_CACHE_HOME': '/dev/null'}
    r = subprocess.run([*VALGRIND, *command], capture_output=True, text=True, env=e)
    return r.returncode == 0 and '==' not in r.stderr, r.stdout, f'exit {r.returncode}\n{r.stdout}{r.stderr}'


def finds_errors(folder):
    program = os.path.join(folder, 'wrong')
    for name, body in (('a byte too far', 'char *p = malloc(n + 7); p[n + 7] = 1; free(p); return 0;'),
                       ('a leak', 'char *volatile p = malloc(n + 7); p = 0; return p != 0;'),
                       ('a branch on what was never set', 'int *p = malloc(sizeof *p * n); if (*p == 3) puts(""); free(p); return 0;')):
        subprocess.run(['gcc', '-O0', '-x', 'c', '-o', program, '-'], input='#include <stdio.h>\n#include <stdlib.h>\nint main(int n, char **w) { (void)w; '
                       + body + ' }\n', text=True, check=True)
        good, _, text = watched(program)
        check(f'{name} is found', not good and f'exit {FOUND}' in text, text)


def main():
    if not shutil.which('valgrind'):
        print('skip valgrind: it is not installed (scripts/setup.sh analyze installs it)\n0 passed, 0 failed, 1 skipped')
        return
    with tempfile.TemporaryDirectory(prefix='cvq-valgrind-') as folder:
        finds_errors(folder)
        command = {n: os.path.join(BIN, f'cvq-{n}') for n in ('convert', 'quantize', 'info', 'run')}
        wide, q4 = os.path.join(folder, 'bf16.cvq'), os.path.join(folder, 'q4.cvq')
        good, _, text = watched(command['convert'], '-q', '--recipe', 'bf16', TINY, wide)
        check('cvq-convert', good, text)
        good, _, text = watched(command['quantize'], '-q', '--recipe', 'q4', wide, q4)
        check('cvq-quantize', good, text)
        good, _, text = watched(command['info'], '--verify', q4)
        check('cvq-info --verify', good, text)
        for level in ('scalar', 'avx2'):
            good, said, text = watched(command['run'], '--image', PICTURE, '--prompt', QUESTION, '--max-tokens', '8', q4, level=level)
            check(f'cvq-run at {level}', good and said.strip() == ANSWER, text)
    sys.exit(summary())


main()
