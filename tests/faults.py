#!/usr/bin/env python3
"""Every call of the system or the allocator fails once, command by command: what is said, and what is left behind.

    faults.py [--all] [--sample N] [--jobs N] [--trace] [TEXT]     TEXT: cases and kinds of calls whose name has it

tests/preload/failing_calls.c is preloaded into each command and counts its calls; then the command runs again and again, each time with
another call failing. Without --all (`make faults`) one call is taken for each way through the program that leads to a call; with --sample
(`make test`, tests/test_faults.py) N of these for each command. After each run:
 - the command has failed with one line that names the cause, or has done its work as if nothing had been (a cache that cannot be written is no
   error); it has not crashed, hung, or failed silently;
 - the inputs are as they were, nothing is under the final name that does not belong there, and nothing else is left but what --resume takes up;
 - the next run succeeds and gives the same bytes.
Then all of them from some call on (a full disk), and reads and writes that do less than was asked for or are interrupted, which changes nothing.
"""
import argparse
import array
import concurrent.futures
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile

from harness import BIN, SECONDS, TOOLS, check, lock, summary

SMALL, TINY, PICTURES = (os.path.abspath(p) for p in ('tests/checkpoints/small', 'models/cogvlm2-tiny', 'models/pictures'))
KINDS = ('memory', 'open', 'read', 'scan', 'write', 'print', 'sync', 'name', 'map', 'length', 'look', 'start')
ONCE, FROM, SHORT, INTERRUPTED = range(4)
NOTED = 65536  # as in failing_calls.c
HEADER = struct.Struct(f'<IIQQ{len(KINDS)}Q')


class Case:
    """A command and what belongs to it: files it writes; those that may be left of a failed run, which goes on with them or replaces them;
    of these, files that grow line by line, and `early` ones that are complete before; what it is given on standard input; whether what it
    prints is measured, and so another each time."""

    def __init__(self, name, *command, outputs=(), left=(), grows=(), early=(), stdin=b'', measures=False):
        self.name, self.command, self.stdin, self.measures = name, command, stdin, measures
        self.grows, self.early = tuple(grows), tuple(early)
        self.outputs, self.left = tuple(outputs) + self.grows + self.early, tuple(left) + self.grows


def resumable(name):
    return name + '.partial', name + '.partial.journal'


CASES = (
    Case('convert', 'cvq-convert', SMALL, 'out.cvq', outputs=['out.cvq'], left=resumable('out.cvq')),
    Case('convert q4', 'cvq-convert', '--recipe', 'q4', SMALL, 'out.cvq', outputs=['out.cvq'], left=resumable('out.cvq')),
    Case('convert --check', 'cvq-convert', '--check', 'calibrated', '--imatrix', 'imatrix', SMALL),
    Case('convert --dry-run', 'cvq-convert', '--dry-run', SMALL),
    Case('quantize', 'cvq-quantize', '--report', 'report', 'small.cvq', 'out.cvq', outputs=['out.cvq', 'report'], left=resumable('out.cvq')),
    Case('quantize --feedback', 'cvq-quantize', '--imatrix', 'imatrix', '--feedback', 'moments', 'small.cvq', 'out.cvq', outputs=['out.cvq'],
         left=resumable('out.cvq')),
    Case('quantize --target-size', 'cvq-quantize', '--target-size', '7M', '--sensitivity', 'sensitivity', 'small.cvq', 'out.cvq',
         outputs=['out.cvq'], left=resumable('out.cvq')),
    Case('info', 'cvq-info', '--tensors', 'q4.cvq'),
    Case('info --verify', 'cvq-info', '--verify', 'q4.cvq'),
    Case('info --manifest', 'cvq-info', '--manifest', 'q4.cvq'),
    Case('info --verify --manifest', 'cvq-info', '--verify', '--manifest', 'manifest', 'q4.cvq'),
    Case('info --diff', 'cvq-info', '--diff', 'manifest', 'damaged.cvq'),
    Case('info --repair', 'cvq-info', '--repair', 'q4.cvq', 'damaged.cvq', 'out.cvq', outputs=['out.cvq']),
    Case('pack', 'cvq-pack', '-q', 'tiny.cvq', 'out', outputs=['out']),
    Case('pack --split', 'cvq-pack', '-q', '--split', '3M', 'q4.cvq', 'out', outputs=['out.001', 'out.002', 'out.003']),
    Case('pack -d', 'cvq-pack', '-d', 'packed', 'out.cvq', outputs=['out.cvq']),
    Case('run', 'cvq-run', '--image', 'number.png', '--prompt', 'What?', '--max-tokens', '4', 'q4.cvq'),
    Case('run --json', 'cvq-run', '--json', '--prompt', 'What?', '--max-tokens', '2', 'q4.cvq'),
    Case('run: a conversation', 'cvq-run', '--max-tokens', '2', 'q4.cvq', stdin=b'Which?\n/image number.png\nWhat?\n/clear\n'),
    Case('run --logits', 'cvq-run', '--prompt', 'What?', '--max-tokens', '0', '--logits', 'out', '--taps', 'q4.cvq', outputs=['out']),
    Case('run --batch', 'cvq-run', '--max-tokens', '4', '--batch', 'task.jsonl', '--out', 'out', 'q4.cvq', grows=['out'],
         early=['out.origin']),
    Case('eval', 'cvq-eval', '--metric', 'exact', '--max-tokens', '4', '--out', 'out', 'q4.cvq', 'task.jsonl', grows=['out'],
         early=['out.origin']),
    Case('perplexity', 'cvq-perplexity', '--context', '32', '--save-logits', 'out', 'q4.cvq', 'text', outputs=['out']),
    Case('perplexity --kld', 'cvq-perplexity', '--context', '32', '--kld', 'logits', 'q4.cvq', 'text'),
    Case('calibrate', 'cvq-calibrate', '-o', 'out', '--second-moments', 'out.2', 'small.cvq', 'task.jsonl', outputs=['out', 'out.2']),
    Case('calibrate --merge', 'cvq-calibrate', '-o', 'out', '--merge', 'imatrix', 'imatrix', outputs=['out']),
    Case('compare', 'cvq-compare', '--svg', 'out', 'small.cvq', 'q4.cvq', 'task.jsonl', outputs=['out']),
    Case('sensitivity', 'cvq-sensitivity', '-o', 'out', '--context', '32', 'small.cvq', 'one.jsonl', grows=['out']),
    Case('bench', 'cvq-bench', '--quick', '--scale', '16', '--only', 'adapter', measures=True),
)


def run(folder, command, plan=None, trace=False, stdin=b''):
    e = dict(os.environ, XDG_CACHE_HOME=os.path.join(folder, 'cache'))
    e.pop('CVQ_CPU', None)
    if plan:
        e.update(LD_PRELOAD=os.path.join(TOOLS, 'failing_calls.so'), CVQ_FAIL_PLAN=plan)
        if trace:
            e['CVQ_FAIL_TRACE'] = '1'
    try:
        p = subprocess.run([os.path.join(BIN, command[0]), '--threads', '1', *command[1:]], cwd=folder, env=e, input=stdin,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return 'too long', b'', ''
    return p.returncode, p.stdout, p.stderr.decode('utf-8', 'replace')


def prepare(folder):
    """The files that all cases read."""
    def must(*command):
        code, out, err = run(folder, command)
        if code != 0:
            sys.exit(f'cannot prepare: {command}: {err}')
        return out

    def write(name, data):
        with open(os.path.join(folder, name), 'wb') as f:
            f.write(data)

    must('cvq-convert', SMALL, 'small.cvq')
    must('cvq-quantize', 'small.cvq', 'q4.cvq')
    must('cvq-convert', TINY, 'tiny.cvq')
    must('cvq-pack', 'tiny.cvq', 'packed')
    write('manifest', must('cvq-info', '--manifest', 'q4.cvq'))
    with open(os.path.join(folder, 'q4.cvq'), 'rb') as f:
        data = bytearray(f.read())
    data[-3] ^= 1
    write('damaged.cvq', data)
    shutil.copy(os.path.join(PICTURES, 'number-13.png'), os.path.join(folder, 'number.png'))
    write('task.jsonl', b'{"id": "a", "question": "Which?", "answers": ["This."]}\n'
                        b'{"id": "b", "image": "number.png", "question": "What?", "answers": ["13"]}\n')
    write('text', b'The quick brown fox jumps over the lazy dog. ' * 4)
    write('one.jsonl', b'{"question": "Which?", "answers": ["This."]}\n')
    must('cvq-perplexity', '--context', '32', '--save-logits', 'logits', 'small.cvq', 'text')
    must('cvq-calibrate', '-o', 'imatrix', '--second-moments', 'moments', 'small.cvq', 'task.jsonl')
    must('cvq-sensitivity', '-o', 'sensitivity', 'small.cvq', 'one.jsonl')
    must('cvq-convert', '--recipe', 'q4', '--imatrix', 'imatrix', SMALL, 'calibrated.cvq')
    write('calibrated', must('cvq-info', '--manifest', 'calibrated.cvq'))
    os.unlink(os.path.join(folder, 'calibrated.cvq'))
    shutil.rmtree(os.path.join(folder, 'cache'), ignore_errors=True)


def inputs(folder):
    return {e.name: (e.stat().st_ino, e.stat().st_size, e.stat().st_mtime_ns) for e in os.scandir(folder)}


class Trial:
    """One case in its own folder, run with many plans."""

    def __init__(self, case, base, options):
        self.case, self.options = case, options
        self.folder = tempfile.mkdtemp(dir=base, prefix=re.sub(r'\W+', '-', case.name) + '.')
        for e in os.scandir(os.path.join(base, 'inputs')):
            os.link(e.path, os.path.join(self.folder, e.name))
        self.start = inputs(self.folder)
        self.plan = os.path.join(base, os.path.basename(self.folder) + '.plan')
        self.counts = {k: [0, 0, 0, 0] for k in KINDS}  # calls; of these made to fail: failed runs, runs that went well

    def read(self, name):
        try:
            with open(os.path.join(self.folder, name), 'rb') as f:
                return f.read()
        except OSError:
            return None

    def new_files(self):
        return sorted(set(os.listdir(self.folder)) - set(self.start))

    def clean(self):
        for name in self.new_files():
            path = os.path.join(self.folder, name)
            (shutil.rmtree if os.path.isdir(path) else os.unlink)(path)

    def attempt(self, kind=0, mode=ONCE, at=0, noting=False, trace=False):
        """-> (exit status, stdout, stderr), (calls that failed, calls by kind)"""
        with open(self.plan, 'wb') as f:
            f.write(HEADER.pack(kind, mode, at, 0, *[0] * len(KINDS)))
            if noting:
                f.truncate(HEADER.size + 4 * len(KINDS) * NOTED)
        result = run(self.folder, self.case.command, self.plan, trace, self.case.stdin)
        with open(self.plan, 'rb') as f:
            fields = HEADER.unpack(f.read(HEADER.size))
        return result, (fields[3], fields[4:])

    def ways(self, kind, calls):
        """Numbers of calls, one for each way through the program."""
        with open(self.plan, 'rb') as f:
            f.seek(HEADER.size + 4 * NOTED * kind)
            way = array.array('I', f.read(4 * min(calls, NOTED)))
        first = {}
        for i, w in enumerate(way):
            first.setdefault(w, i + 1)
        return sorted(first.values())

    def wrong(self, result):
        """What is not as it ought to be after a run, or ''."""
        code, out, err = result
        case, new = self.case, self.new_files()
        if any(inputs(self.folder).get(n) != s for n, s in self.start.items()):
            return 'an input is not what it was'
        if code == 0:
            if not self.same_text(out):
                return f'another result: {out[:300]}'
            for name in case.outputs:
                if self.read(name) != self.expected[name] and not (name in case.grows and self.answered(name)):
                    return f'{name} is not what it should be: {(self.read(name) or b"")[-300:]}'
            return self.unexpected(new, case.outputs)
        if code != 1:
            return f'exit status {code}'
        lines = [line for line in err.splitlines() if not re.match(r'cvq-\w+: note: ', line)]
        most = case.stdin.count(b'\n') or 1  # in a conversation each line may have its own error
        if not 1 <= len(lines) <= most or not all(re.match(r'cvq-\w+: \S.*[^ :]', x) and 'CVQ_' not in x for x in lines):
            return 'not one line that says why'
        for name in case.grows:
            have = self.read(name)
            if have and not self.answered(name, whole=False):
                return f'{name} is not the beginning of what it should be: {have[-200:]}'
        for name in case.early:
            if self.read(name) not in (None, self.expected[name]):
                return f'{name} is there and not what it should be: {self.read(name)[-200:]}'
        finished = [n for n in case.outputs if n in new and self.read(n) == self.expected[n]]
        return self.unexpected(new, finished + list(case.left))

    def same_text(self, out):
        """Of JSON with times in it the keys; not how many questions had a fault, nor the size of a file of which stat failed."""
        if self.case.measures:
            return True
        if '--json' in self.case.command:
            return list(json.loads(out)) == list(json.loads(self.out))
        return out in (self.out, re.sub(rb': [^:]* bytes\), id', b': id', self.out)) or bool(self.case.grows)

    def answered(self, name, whole=True):
        """Whether a file of answers holds the right ones; a question's own picture may have had the fault, which is then in its line."""
        have, right = ((data or b'').splitlines(keepends=True) for data in (self.read(name), self.expected[name]))
        if len(have) > len(right) or (whole and len(have) < len(right)):
            return False
        return all(h == r or self.not_answered(h, r) for h, r in zip(have, right))

    @staticmethod
    def not_answered(line, right):
        try:
            return line.endswith(b'\n') and bool(json.loads(line)['error']) and json.loads(line)['id'] == json.loads(right)['id']
        except (ValueError, KeyError):
            return False

    def unexpected(self, new, allowed):
        empty = {n for n in new if n.endswith('.partial') and not self.read(n)}  # of a file that was opened, and then could not be looked at
        rest = set(new) - set(allowed) - empty - {'cache'}
        if 'cache' in new:
            kept = os.path.join(self.folder, 'cache', 'cvq')
            names = os.listdir(kept) if os.path.isdir(kept) else []
            rest |= {n for n in names if not re.fullmatch(r'[0-9a-f]{64}\.(picture|verified)(\.\w+)?', n)}
        return f'left behind: {sorted(rest)}' if rest else ''

    def step(self, kind, mode, at, again):
        """One run with a fault, and the next one without. -> whether any call failed"""
        result, (faults, _) = self.attempt(kind, mode, at)
        counts = self.counts[KINDS[kind]]
        if faults == 0:
            self.clean()
            return False
        counts[1] += 1
        counts[2 if result[0] else 3] += 1
        why = self.wrong(result)
        if not why and mode in (SHORT, INTERRUPTED) and result[0] != 0:
            why = 'does not go on'
        if not why and result[0] != 0 and (again or self.new_files()):
            result = self.next_run()
            why = self.wrong(result) and f'the next run: {self.wrong(result)}'
        elif not why and result[0] == 0:
            why = ''
        if why and self.options.trace:
            self.clean()
            result = self.attempt(kind, mode, at, trace=True)[0]
        name = f'{self.case.name}: {KINDS[kind]} {("once", "from", "short", "interrupted")[mode]} {at}'
        check(name, not why, f'{why}; exit status {result[0]}: {result[2][-4000:]}')
        self.clean()
        return True

    def next_run(self):
        """Without a fault, over what is left; a part of the outputs may be finished."""
        done = [n for n in self.case.outputs if n in self.new_files() and n not in self.case.grows + self.case.early]
        for name in done:
            os.unlink(os.path.join(self.folder, name))
        result = run(self.folder, self.case.command, stdin=self.case.stdin)
        return result

    def all(self):
        result, (_, calls) = self.attempt(noting=True)
        self.out = result[1]
        self.expected = {n: self.read(n) for n in self.case.outputs}
        check(f'{self.case.name}: without faults', result[0] == 0 and None not in self.expected.values() and not self.wrong(result), result)
        if result[0] != 0:
            return
        wanted = self.options.text
        steps = [(k, self.ways(k, calls[k])) for k in range(len(KINDS))]
        self.clean()
        if self.options.sample:
            return self.sample(calls, steps)
        for kind, ways in steps:
            if wanted and wanted not in f'{self.case.name}: {KINDS[kind]}':
                continue
            self.counts[KINDS[kind]][0] = calls[kind]
            rng = random.Random(kind)
            points = range(1, calls[kind] + 64) if self.options.all else ways
            for n in points:
                if not self.step(kind, ONCE, n, rng.randrange(20) == 0) and n >= calls[kind]:
                    break  # success without a fault
            for n in points if self.options.all and KINDS[kind] != 'memory' else rng.sample(ways, min(len(ways), 3)):
                self.step(kind, FROM, n, True)
        for kind in map(KINDS.index, ('read', 'write')):
            if not wanted or wanted in f'{self.case.name}: {KINDS[kind]}':
                self.step(kind, SHORT, 0, False)
                self.step(kind, INTERRUPTED, 0, False)
        self.print_counts()

    def sample(self, calls, steps):
        """Some faults of all: each kind is as likely as another, however often it is called."""
        rng = random.Random(self.case.name)
        for kind, n in enumerate(calls):
            self.counts[KINDS[kind]][0] = n
        steps = [(kind, ways) for kind, ways in steps if ways]
        for kind, ways in rng.choices(steps, k=self.options.sample):
            self.step(kind, ONCE, rng.choice(ways), True)
        self.print_counts()

    def print_counts(self):
        with lock:
            print(f'{self.case.name:26}' + ''.join(f'{"{}/{} {}+{}".format(*c[1::-1], *c[2:]):>16}' for c in self.counts.values()), flush=True)


def report(trials):
    total = [sum(t.counts[k][i] for t in trials for k in KINDS) for i in range(4)]
    print(f'{total[1]} faults in {total[0]} calls: {total[2]} failed with a message, {total[3]} were got over '
          '(above: faults/calls failed+got over)')


def main(arguments=None):
    p = argparse.ArgumentParser()
    p.add_argument('--all', action='store_true', help='every call, not one for each way that leads to it')
    p.add_argument('--sample', type=int, metavar='N', help='N calls of each command')
    p.add_argument('--jobs', type=int, default=1)
    p.add_argument('--trace', action='store_true', help='show where the call was that failed')
    p.add_argument('text', nargs='?', help='only cases and kinds of calls with this in "case: kind"')
    options = p.parse_args(arguments)
    if not os.path.exists(os.path.join(TOOLS, 'failing_calls.so')):
        print('skip faults: they are made by overriding functions of glibc\n0 passed, 0 failed, 1 skipped')
        return 0
    with tempfile.TemporaryDirectory(prefix='cvq-faults-') as base:
        os.mkdir(os.path.join(base, 'inputs'))
        prepare(os.path.join(base, 'inputs'))
        cases = [c for c in CASES if not options.text or any(options.text in f'{c.name}: {k}' for k in KINDS)]
        trials = [Trial(c, base, options) for c in cases]
        print(f'{"":26}' + ''.join(f'{k:>16}' for k in KINDS), flush=True)
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(Trial.all, trials))
        report(trials)
    return summary()


if __name__ == '__main__':
    sys.exit(main())
