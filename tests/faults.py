#!/usr/bin/env python3
"""Every call of the system or the allocator fails once, command by command: what is said, and what is left behind.

    faults.py [--all] [--part I/N] [--sample N] [--jobs N] [--trace] [--keep FILE] [TEXT]     TEXT: cases and kinds of calls whose name has it

tests/preload/failing_calls.c is preloaded into each command and counts its calls; then the command runs again and again, each time with
another call failing. With --all (`make faults`) that is every call, until the command gets to its end without a failure; without it one call is
taken for each way through the program that leads to a call; with --sample (`make test`, tests/test_faults.py) N of these for each command. All
is done with the smallest checkpoint (smallest_checkpoint.py), where a run takes hundredths of a second. After each run:
 - the command has failed with one line that names the cause, or has done its work as if nothing had been (a cache that cannot be written is no
   error); it has not crashed, hung, or failed silently;
 - the inputs are as they were, nothing is under the final name that does not belong there, and nothing else is left but what --resume takes up;
 - where something is left, the next run succeeds and gives the same bytes.
Then all of them from some call on (a full disk), and reads and writes that do less than was asked for or are interrupted, which changes nothing.
"""
import argparse
import concurrent.futures
import json
import os
import random
import re
import shutil
import sys
import tempfile
import threading
import time

import harness
from cases import cases, environment, prepare
from failing_calls import FROM, INTERRUPTED, KINDS, LIBRARY, MODES, ONCE, SHORT, Plan, Server
from harness import check, lock, summary

MEMORY_FOLDER = '/dev/shm'  # where there is one: nothing here is to wait for a disk
CASES = cases('3.2M', '1.5M')


def inputs(folder):
    """What tells whether a file has changed, without reading it."""
    found = {e.name: e.stat() for e in os.scandir(folder)}
    found.update(('checkpoint/' + e.name, e.stat()) for e in os.scandir(os.path.join(folder, 'checkpoint')))
    return {name: (s.st_ino, s.st_size, s.st_mtime_ns) for name, s in found.items()}


class Trial:
    """One case in its own folder, run with many plans."""

    def __init__(self, case, base, options):
        self.case, self.options = case, options
        self.base = tempfile.mkdtemp(dir=base, prefix=re.sub(r'\W+', '-', case.name) + '.')
        self.folder = os.path.join(self.base, 'work')
        os.mkdir(self.folder)
        for e in os.scandir(os.path.join(base, 'inputs')):
            (os.symlink if e.is_dir() else os.link)(e.path, os.path.join(self.folder, e.name))
        self.start = inputs(self.folder)
        self.counts = {k: [0, 0, 0, 0] for k in KINDS}  # calls; those made to fail by themselves: all, ended in a message, did their work
        self.more = [0, 0, 0]  # the same of runs in which several calls failed
        self.runs, self.failures, self.seconds = 0, 0, 0.0
        self.server = Server(self.folder, self.base, case.command[0], '--threads', '1', *case.command[1:], stdin=case.stdin,
                             env=environment(self.folder))

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

    def slowly(self, **plan):
        """A run of its own, so that its ways can be noted or its failing calls shown. -> (exit status, stdout, stderr), the plan"""
        plan = Plan(os.path.join(self.base, 'slow'), **plan)
        e = {**environment(self.folder), **plan.environment, **({'CVQ_FAIL_TRACE': '1'} if plan.at else {})}
        r = harness.run(self.case.command[0], '--threads', '1', *self.case.command[1:], stdin=self.case.stdin, env=e, cwd=self.folder)
        return (r.code, r.out, r.err.decode('utf-8', 'replace')), plan.read()

    def attempt(self, kind=KINDS[0], mode=ONCE, at=0):
        """-> (exit status, stdout, stderr), how many calls failed"""
        code, out, err, failed, _ = self.server.run(kind, mode, at)
        return (code, out, err.decode('utf-8', 'replace')), failed

    def wrong(self, result):
        """What is not as it ought to be after a run, or ''."""
        code, out, err = result
        case, new, found = self.case, self.new_files(), inputs(self.folder)
        if any(found.get(n) != s for n, s in self.start.items()):
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

    def step(self, kind, mode, at):
        """One run with a fault, and where it left anything the next one without. -> whether any call failed"""
        result, failed = self.attempt(kind, mode, at)
        self.runs += 1
        why = self.wrong(result)
        if not why and (failed == 0 or mode in (SHORT, INTERRUPTED)) and result[0] != 0:
            why = 'does not go on'
        if failed:
            counts = self.counts[kind][1:] if mode == ONCE else self.more
            counts = [counts[0] + 1, counts[1] + (result[0] != 0), counts[2] + (result[0] == 0)]
            if mode == ONCE:
                self.counts[kind][1:] = counts
            else:
                self.more = counts
        if not why and result[0] != 0 and self.left_anything():
            for name in set(self.case.outputs) & set(self.new_files()) - set(self.case.grows + self.case.early):
                os.unlink(os.path.join(self.folder, name))  # it was finished
            result, _ = self.attempt()
            why = self.wrong(result) and f'the next run: {self.wrong(result)}'
        if why and self.options.trace:
            self.clean()
            result = self.slowly(kind=kind, mode=mode, at=at)[0]
        name = f'{self.case.name}: {kind} {MODES[mode]} {at}'
        self.failures += bool(why)
        check(name, not why, f'{why}; exit status {result[0]}: {result[2][-4000:]}')
        self.clean()
        return failed > 0

    def left_anything(self):
        """An empty folder of a cache is nothing."""
        kept = os.path.join(self.folder, 'cache', 'cvq')
        return self.new_files() not in ([], ['cache']) or (os.path.isdir(kept) and bool(os.listdir(kept)))

    def begin(self):
        """A run without faults: what is right, and how often which kind of call is made. -> whether it went well"""
        result, plan = self.slowly(noting=not self.options.all)
        self.way = {k: plan.ways(k) for k in KINDS} if not self.options.all else {}
        self.out = result[1]
        self.expected = {n: self.read(n) for n in self.case.outputs}
        good = result[0] == 0 and None not in self.expected.values() and not self.wrong(result)
        check(f'{self.case.name}: without faults', good, result)
        self.clean()
        for kind, n in plan.calls.items():
            self.counts[kind][0] = n
        return good

    def kinds(self):
        return [k for k in KINDS if not self.options.text or self.options.text in f'{self.case.name}: {k}']

    def left(self):
        """How many runs of --all are still to come, about."""
        return max(sum(self.counts[k][0] // self.options.part[1] + min(self.counts[k][0], 20) for k in self.kinds()) - self.runs, 0)

    def step_through(self):
        """Each call fails once, until the command gets to its end without a failure; then all calls from some on."""
        for kind in self.kinds():
            calls, (n, parts) = self.counts[kind][0], self.options.part
            while self.step(kind, ONCE, n) or n <= calls:
                n += parts
            for n in [] if self.options.part[0] > 1 else self.some(kind, range(1, calls + 1)):
                self.step(kind, FROM, n)
        if self.options.part[0] == 1:
            self.transfers()

    def ways(self):
        """One call for each way through the program that leads to one."""
        for kind in self.kinds():
            for n in self.way[kind]:
                self.step(kind, ONCE, n)
            for n in self.some(kind, self.way[kind]):
                self.step(kind, FROM, n)
        self.transfers()

    def some(self, kind, points):
        return random.Random(kind).sample(points, min(len(points), 20 if self.options.all else 3))

    def transfers(self):
        for kind in set(self.kinds()) & {'read', 'write'}:
            self.step(kind, SHORT, 0)
            self.step(kind, INTERRUPTED, 0)

    def sample(self):
        """Some faults of all: each kind is as likely as another, however often it is called."""
        rng = random.Random(self.case.name)
        for kind in rng.choices([k for k in KINDS if self.way[k]], k=self.options.sample):
            self.step(kind, ONCE, rng.choice(self.way[kind]))

    def all(self):
        began = time.monotonic()
        (self.sample if self.options.sample else self.step_through if self.options.all else self.ways)()
        self.seconds = time.monotonic() - began
        self.server.close()
        with lock:
            print(f'{self.case.name:26}' + ''.join(f'{"{1}/{0} {2}+{3}".format(*c):>16}' for c in self.counts.values()) +
                  f'  and {self.more[0]} {self.more[1]}+{self.more[2]}', flush=True)

    def result(self):
        return {'name': self.case.name, 'once': [sum(c[i] for c in self.counts.values()) for i in range(4)], 'more': self.more,
                'runs': self.runs, 'seconds': round(self.seconds, 1)}


def report(results):
    for r in results:
        print(f'| {r["name"]} | ' + ' | '.join(f'{n:,}' for n in r['once'] + r['more']) + ' |')
    once, more = ([sum(r[k][i] for r in results) for i in range(len(results[0][k]))] for k in ('once', 'more'))
    print(f'{once[1]} of {once[0]} calls failed by themselves: {once[2]} runs ended in a message, {once[3]} did their work; '
          f'several at once in {more[0]} runs: {more[1]} and {more[2]}; {sum(r["seconds"] for r in results):.0f} s')


class Kept:
    """Results of whole cases that went well, a line each, so that stepping through all can be stopped and gone on with."""

    def __init__(self, path):
        self.path, self.results = path, []
        if path and os.path.exists(path):
            with open(path, encoding='utf-8') as f:
                self.results = [json.loads(line) for line in f]

    def has(self, case):
        return any(r['name'] == case.name for r in self.results)

    def add(self, result):
        with lock:
            self.results.append(result)
            if self.path:
                with open(self.path, 'a', encoding='utf-8') as f:
                    f.write(json.dumps(result) + '\n')


def tell_progress(trials, ended):
    """Every half minute: how far it is."""
    began = time.monotonic()
    while not ended.wait(30):
        runs, left = sum(t.runs for t in trials), sum(t.left() for t in trials)
        seconds = time.monotonic() - began
        print(f'  {runs} runs in {seconds:.0f} s, about {left} to go: {seconds / max(runs, 1) * left / 60:.0f} min', flush=True)


def work(options, base):
    os.mkdir(os.path.join(base, 'inputs'))
    prepare(os.path.join(base, 'inputs'))
    kept = Kept(options.keep)
    cases = [c for c in CASES if any(not options.text or options.text in f'{c.name}: {k}' for k in KINDS) and not kept.has(c)]
    trials = [t for t in (Trial(c, base, options) for c in cases) if t.begin()]
    print(f'{"":26}' + ''.join(f'{k:>16}' for k in KINDS), flush=True)

    def one(trial):
        trial.all()
        if not trial.failures:
            kept.add(trial.result())

    ended = threading.Event()
    if options.all:
        threading.Thread(target=tell_progress, args=(trials, ended), daemon=True).start()
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(one, trials))
    ended.set()
    if kept.results:
        report(kept.results)


def part(text):
    i, n = map(int, text.split('/'))
    if not 1 <= i <= n:
        raise argparse.ArgumentTypeError('1/N to N/N')
    return i, n


def main(arguments=None):
    p = argparse.ArgumentParser()
    p.add_argument('--all', action='store_true', help='every call, not one for each way that leads to it')
    p.add_argument('--part', type=part, metavar='I/N', default=(1, 1), help='of --all, call I and then every Nth; other runs do the others')
    p.add_argument('--sample', type=int, metavar='N', help='N calls of each command')
    p.add_argument('--jobs', type=int, default=1)
    p.add_argument('--trace', action='store_true', help='show where the call was that failed')
    p.add_argument('--keep', metavar='FILE', help='keep the results of each command there; those that it has are not run again')
    p.add_argument('text', nargs='?', help='only cases and kinds of calls with this in "case: kind"')
    options = p.parse_args(arguments)
    if not os.path.exists(LIBRARY):
        print('skip faults: they are made by overriding functions of glibc\n0 passed, 0 failed, 1 skipped')
        return 0
    fast = MEMORY_FOLDER if os.access(MEMORY_FOLDER, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix='cvq-faults-', dir=fast) as base:
        work(options, base)
    return summary()


if __name__ == '__main__':
    sys.exit(main())
