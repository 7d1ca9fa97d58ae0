#!/usr/bin/env python3
"""What several threads and several processes do at once gives what one thread gives; under the sanitizer of data races (make tsan) none is found.
The small checkpoint converted, quantized, calibrated with, packed, verified, asked; two processes with one cache.
cvq-test: once threads"""
import os
import shutil
import sys

import harness
from harness import check, lines, path, read, start, summary, working_folder

SMALL, TINY = os.path.abspath('tests/checkpoints/small'), os.path.abspath('models/cogvlm2-tiny')
PICTURES = os.path.abspath('models/pictures')


def run(program, *args):
    return harness.run(program, '-q', *args, text=True)


def same(name, program, *args, outputs=('out',)):
    """The same files from one thread and from four."""
    contents = []
    for threads in (1, 4):
        r = run(program, '--threads', threads, *args)
        check(f'{name}: {threads} threads', r.code == 0 and not r.err, r)
        contents.append([read(f) for f in outputs if os.path.exists(path(f))])
        for f in outputs:
            shutil.move(path(f), path('made-' + f)) if os.path.exists(path(f)) else check(f'{name}: {f} was written', False)
    check(f'{name}: the same with both', contents[0] == contents[1])
    return ['made-' + f for f in outputs]


def conversion():
    bf16, = same('bf16', 'cvq-convert', SMALL, 'out')
    shutil.move(path(bf16), path('bf16.cvq'))
    same('from the checkpoint', 'cvq-convert', '--recipe', 'q4', SMALL, 'out')
    shutil.move(path('made-out'), path('one-step.cvq'))
    same('from the 16-bit file', 'cvq-quantize', '--report', 'report', 'bf16.cvq', 'out', outputs=('out', 'report'))
    check('one step or two', read('made-out') == read('one-step.cvq'))
    shutil.move(path('made-out'), path('q4.cvq'))
    imatrix, moments = same('calibration', 'cvq-calibrate', '-o', 'imatrix', '--second-moments', 'moments', 'bf16.cvq', 'task.jsonl',
                            outputs=('imatrix', 'moments'))
    same('with feedback', 'cvq-quantize', '--imatrix', imatrix, '--feedback', moments, 'bf16.cvq', 'out')
    tiny, = same('another checkpoint', 'cvq-convert', TINY, 'out')
    shutil.move(path(tiny), path('tiny.cvq'))
    packed, = same('packed', 'cvq-pack', 'tiny.cvq', 'out')
    shutil.move(path(packed), path('packed'))
    same('unpacked', 'cvq-pack', '-d', 'packed', 'out')
    for name in ('bf16.cvq', 'q4.cvq'):
        r = run('cvq-info', '--threads', '4', '--verify', name)
        check(f'{name}: verified', r.code == 0, r)


def cache():
    """Two processes that verify, look for pictures and keep them in one folder at the same time, each with threads of its own."""
    ask = ('cvq-run', '-q', '--max-tokens', '4', '--batch', 'task.jsonl')
    for model in ('bf16.cvq', 'q4.cvq'):
        alone = run(*ask, '--threads', '1', '--no-cache', '--out', 'alone', model)
        check(f'{model}: alone', alone.code == 0 and read('alone').count(b'\n') == 4, alone)
        for times in ('first', 'again'):
            both = [start(*ask, '--threads', '2', '--out', f'answers-{i}', model) for i in range(2)]
            for i, p in enumerate(both):
                _, err = p.communicate(timeout=harness.SECONDS)
                check(f'{model}: two at once, {times}', p.returncode == 0 and not err and read(f'answers-{i}') == read('alone'),
                      (p.returncode, err[-3000:]))
                harness.remove(f'answers-{i}', f'answers-{i}.origin')
        harness.remove('alone', 'alone.origin')
    kept = os.listdir(path('cache/cvq'))
    check('both left entries', sum(n.endswith('.picture') for n in kept) == 4 and sum(n.endswith('.verified') for n in kept) == 2, kept)


def main():
    with working_folder('cvq-races-'):
        os.environ['XDG_CACHE_HOME'] = path('cache')
        harness.write('task.jsonl', lines({'id': i, 'image': os.path.join(PICTURES, picture), 'question': question, 'answers': ['13']}
                                          for i, (picture, question) in enumerate((p, q) for p in ('number-13.png', 'number-490.png')
                                                                                  for q in ('What?', 'Which number?'))))
        conversion()
        cache()
    return summary()


if __name__ == '__main__':
    sys.exit(main())
