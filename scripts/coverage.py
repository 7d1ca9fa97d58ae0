#!/usr/bin/env python3
"""Branches that were taken, file by file, from what a build with --coverage wrote down.

    coverage.py [--least PERCENT] [--lines] OBJECTS FOLDER|FILE.c...

OBJECTS holds the .gcda files. Every conditional jump of FOLDER's .c and .h files, or of FILE.c, counts twice, once for each way, as gcov counts it
(`branches taken at least once`); one in a header counts as taken if it was in any file that includes it. With --lines, each branch that was
never taken is listed. Exits with 1 if less than PERCENT of all branches were taken.
"""
import argparse
import glob
import json
import os
import subprocess
import sys


def records(objects):
    """What gcov says of each object."""
    found = sorted(glob.glob(os.path.join(objects, '**', '*.gcda'), recursive=True))
    if not found:
        sys.exit(f'coverage: no .gcda below {objects}: build with --coverage, then run the tests')
    out = subprocess.run(['gcov', '--branch-probabilities', '--json-format', '--stdout', *found], capture_output=True, text=True, check=True).stdout
    decoder, at = json.JSONDecoder(), 0
    while at < len(out):
        record, at = decoder.raw_decode(out, at)
        yield record
        while at < len(out) and out[at].isspace():
            at += 1


def branches(objects, wanted):
    """-> {file: {(function, line, number within the line): count}}"""
    files = {}
    for record in records(objects):
        for file in record['files']:
            name = os.path.relpath(file['file'])
            if os.path.dirname(name) not in wanted and name not in wanted:
                continue
            seen = files.setdefault(name, {})
            for line in file['lines']:
                for number, branch in enumerate(line['branches']):
                    key = line.get('function_name', ''), line['line_number'], number
                    seen[key] = seen.get(key, 0) + branch['count']
    return files


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--least', type=float, default=0)
    p.add_argument('--lines', action='store_true')
    p.add_argument('objects')
    p.add_argument('wanted', nargs='+')
    o = p.parse_args()
    wanted = [f.rstrip('/') for f in o.wanted]
    files = branches(o.objects, wanted)
    sources = {f for w in wanted for f in ([w] if w.endswith('.c') else glob.glob(os.path.join(w, '*.c')))}
    if sources - set(files):
        sys.exit(f'coverage: nothing is known of {", ".join(sorted(sources - set(files)))}')
    total = taken = 0
    for name in sorted(files):
        count, had = len(files[name]), sum(1 for n in files[name].values() if n)
        total, taken = total + count, taken + had
        if count:
            print(f'{name:36} {had:5} of {count:5} branches  {100 * had / count:6.2f}%')
    if o.lines:
        for name in sorted(files):
            with open(name, encoding='utf-8') as f:
                text = f.read().splitlines()
            missed = {}
            for (_, line, number), n in files[name].items():
                if not n:
                    missed.setdefault(line, []).append(number)
            for line in sorted(missed):
                print(f'{name}:{line}: {",".join(map(str, sorted(missed[line])))}: {text[line - 1].strip()}')
    percent = 100 * taken / total
    print(f'{"all":36} {taken:5} of {total:5} branches  {percent:6.2f}%')
    if percent < o.least:
        sys.exit(f'coverage: {percent:.2f}% of the branches were taken, less than {o.least:g}%')


if __name__ == '__main__':
    main()
