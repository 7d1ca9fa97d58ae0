#!/usr/bin/env python3
"""Runs every test in one or more build folders and adds up.

    run_tests.py [--only TEXT] [--jobs N] [--skipped WHY]... NAME=FOLDER[=RUNNER]...

A configuration is a build folder with its name and, for another architecture, what runs its
programs ("qemu-aarch64 -cpu max"). In each, these run: FOLDER/tests/test_* (tests/unit/*.c) and
tests/test_*.py, from the root of the checkout, with
    CVQ_BIN     folder of the commands            CVQ_TOOLS   folder of the programs of tests/tools/
    CVQ_RUNNER  RUNNER, or empty                  CVQ_CONFIG  the configuration's name
    CVQ_BUILD   the build folder                  CVQ_CC      its compiler
    CVQ_SHARED  passed on: a folder of further cases
A test ends with a line "N passed, N failed, N skipped" and exit status 0, or 1 if anything failed.
A sanitizer's finding exits with 99, so that no test takes it for an error it expects.

A line "cvq-test: ..." near the top of a test's source says where it runs:
    once          only in the configuration "gcc", the ordinary build
    native        in no configuration that is emulated, where it would take too long
    processor     also in a configuration called *-plain, which has an older processor than another
                  of the same folder; tests without this mark do not run there again
    threads       also in the configuration "tsan", in which tests without this mark do not run
                  ("tsan-all": all unit tests)
    formats       likewise in the configuration "coverage"
    compiled      also in "clang" and "ubsan", which run all unit tests, but of the tests of commands only
                  those with this mark, "processor" or "formats": what a compiler may get wrong, arithmetic
                  and the reading of files; "gcc" and "asan" run everything

The output of what failed is shown, what was skipped is listed with its reason, and the last line is
the sum in the same form.
"""
import argparse
import concurrent.futures
import glob
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

CLOSING = re.compile(r'^(\d+) passed, (\d+) failed, (\d+) skipped$')
SECONDS = 1200  # after which a test is taken for hanging
SHOWN_LINES = 150
OTHER_BUILDS = ('clang', 'ubsan')
COMPILED = {'processor', 'formats', 'compiled'}
NEEDED = (('-plain', 'processor'), ('tsan', 'threads'), ('tsan-all', 'threads'), ('coverage', 'formats'))


class Job:
    def __init__(self, config, name, command):
        self.config, self.name, self.command = config, name, command

    def label(self):
        return f'{self.config.name}: {self.name}'


class Config:
    def __init__(self, text):
        name, _, rest = text.partition('=')
        folder, _, runner = rest.partition('=')
        if not name or not folder:
            raise argparse.ArgumentTypeError(f'{text}: not NAME=FOLDER[=RUNNER]')
        self.name, self.folder, self.runner = name, os.path.abspath(folder), runner
        try:
            with open(os.path.join(folder, 'flags'), encoding='utf-8') as f:
                self.compiler = f.read().split()[0]
        except OSError:
            raise argparse.ArgumentTypeError(f'{folder}: nothing was built there') from None


def marks_of(source):
    """The words after "cvq-test:" in the first lines of a test's source."""
    with open(source, encoding='utf-8') as f:
        head = [next(f, '') for _ in range(40)]
    return {w for line in head if 'cvq-test:' in line
            for w in re.findall(r'[a-z-]+', line.split('cvq-test:')[1])}


def jobs_of(config):
    tests = []
    for source in sorted(glob.glob('tests/unit/test_*.c')):
        name = os.path.basename(source)[:-2]
        program = os.path.join(config.folder, 'tests', name)
        tests.append((name, source, config.runner.split() + [program]))
    for source in sorted(glob.glob('tests/test_*.py')):
        tests.append((os.path.basename(source), source, [sys.executable, source]))
    for name, source, command in tests:
        marks = marks_of(source)
        if config.name in OTHER_BUILDS and source.endswith('.py') and not marks & COMPILED:
            continue
        needed = next((m for ending, m in NEEDED if config.name.endswith(ending)), None)
        if needed and needed not in marks and not (config.name == 'tsan-all' and source.endswith('.c')):
            continue
        if 'once' in marks and not needed and config.name != 'gcc':
            continue
        if 'native' in marks and config.runner:
            continue
        yield Job(config, name, command)


def environment(job):
    e = dict(os.environ)
    e.update(CVQ_BIN=os.path.join(job.config.folder, 'bin'), CVQ_BUILD=job.config.folder,
             CVQ_TOOLS=os.path.join(job.config.folder, 'tools'), CVQ_RUNNER=job.config.runner,
             CVQ_CONFIG=job.config.name, CVQ_CC=job.config.compiler,
             PYTHONDONTWRITEBYTECODE='1', LC_ALL='C.UTF-8',
             # No cache of pictures: what is tested is computed (test_cache.py has one of its own).
             XDG_CACHE_HOME='/dev/null',
             ASAN_OPTIONS='detect_leaks=1:exitcode=99:detect_stack_use_after_return=1',
             LSAN_OPTIONS='exitcode=99',
             TSAN_OPTIONS='exitcode=99:second_deadlock_stack=1:die_after_fork=0',
             UBSAN_OPTIONS='print_stacktrace=1:halt_on_error=1:exitcode=99')
    e.pop('CVQ_CPU', None)
    return e


def run(job):
    """-> (passed, failed, skipped, output, seconds, seconds of processor time)"""
    start, cpu = time.monotonic(), 0
    with tempfile.TemporaryFile() as out:
        try:
            code, cpu = run_command(job, out)
        except OSError as e:
            code = str(e)
        out.seek(0)
        text = out.read().decode('utf-8', 'replace')
    counts, wrong = judge(code, text)
    if wrong:
        text += f'\n{wrong}\n'
    return (*counts, text, time.monotonic() - start, cpu)


def run_command(job, out):
    """-> exit status, or 'timeout'; seconds of processor time, which say on a busy machine too where time goes"""
    p = subprocess.Popen(job.command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=environment(job))
    late = []
    timer = threading.Timer(SECONDS, lambda: (late.append(True), p.kill()))
    timer.start()
    _, status, usage = os.wait4(p.pid, 0)
    timer.cancel()
    p.returncode = os.waitstatus_to_exitcode(status)
    return 'timeout' if late else p.returncode, usage.ru_utime + usage.ru_stime


def judge(code, text):
    """-> ((passed, failed, skipped), what was wrong with the way it ended or '')"""
    closings = [m for m in map(CLOSING.match, text.splitlines()) if m]
    if not closings:
        return (0, 1, 0), f'no closing line; exit status {code}'
    passed, failed, skipped = map(int, closings[-1].groups())
    if code == (1 if failed else 0):
        return (passed, failed, skipped), ''
    return (passed, failed + 1, skipped), f'exit status {code} with {failed} failed'


def skip_lines(text):
    return [m.group(1).strip() for m in re.finditer(r'^\s*skip:?\s(.*)$', text, re.I | re.M)]


def report(job, result, lock):
    passed, failed, skipped, text, seconds, cpu = result
    with lock:
        print(f'{"FAIL" if failed else "ok":4} {job.label():48} {passed:5} passed'
              + (f', {failed} failed' if failed else '') + (f', {skipped} skipped' if skipped else '')
              + f'  ({seconds:.1f} s, processor {cpu:.1f} s)')
        if failed:
            lines = [line for line in text.rstrip().splitlines() if not line.startswith('ok ')]
            if len(lines) > SHOWN_LINES:
                lines = [f'... {len(lines) - SHOWN_LINES} lines before ...'] + lines[-SHOWN_LINES:]
            print(*('     | ' + line for line in lines), sep='\n')
        sys.stdout.flush()


def run_all(jobs, workers):
    """-> [(job, result)]; slow configurations start first."""
    lock = threading.Lock()

    def one(job):
        result = run(job)
        report(job, result, lock)
        return job, result

    jobs = sorted(jobs, key=lambda j: (not j.config.runner, j.config.name not in ('asan', 'ubsan', 'tsan')))
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        return list(pool.map(one, jobs))


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--only', help='only tests with this text in "configuration: test"')
    p.add_argument('--jobs', type=int, default=min(2, os.cpu_count() or 1))
    p.add_argument('--skipped', action='append', default=[], help='count this as skipped')
    p.add_argument('configs', nargs='+', type=Config)
    args = p.parse_args()

    # Tests send signals to commands; whoever started this (nohup, a background job) may ignore some.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    jobs = [j for c in args.configs for j in jobs_of(c)
            if not args.only or args.only in j.label()]
    results = run_all(jobs, args.jobs)
    reasons = {}
    for why in args.skipped:
        reasons.setdefault(why, [])
    for job, result in results:
        for why in skip_lines(result[3]):
            reasons.setdefault(why, []).append(job.label())
    if reasons:
        print('skipped:')
        for why, where in sorted(reasons.items()):
            print(f'  {why}' + (f'  [{len(where)} x, first in {where[0]}]' if where else ''))
    broken = [job.label() for job, result in results if result[1]]
    if broken:
        print('failed:', *broken, sep='\n  ')
    passed, failed, skipped = (sum(r[i] for _, r in results) for i in range(3))
    if not jobs:
        print('no test was found')
        failed += 1
    for config in args.configs:
        spent = [r[5] for job, r in results if job.config is config]
        print(f'{config.name}: {len(spent)} tests, processor {sum(spent):.0f} s')
    print(f'{passed} passed, {failed} failed, {skipped + len(args.skipped)} skipped')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
