"""What tests of commands share: where the commands are, a folder for what they read and write, one way to run them, and the count of checks.

    from harness import check, run, summary, working_folder
    with working_folder('cvq-some-'):
        r = run('cvq-info', 'x.cvq')
        check('what is not there is refused', r.code == 1, r)
    sys.exit(summary())
"""
import contextlib
import json
import os
import shlex
import subprocess
import tempfile
import threading
import typing

BIN = os.path.abspath(os.environ.get('CVQ_BIN', 'build/bin'))
TOOLS = os.path.abspath(os.environ.get('CVQ_TOOLS', 'build/tools'))
RUNNER = shlex.split(os.environ.get('CVQ_RUNNER', ''))
SECONDS = 1200  # of a command, on a machine that does other things, too
passed = failed = skipped = 0
work = None  # the folder in which commands run; that of the checkout until working_folder() makes one
lock = threading.Lock()


def check(name, good, explanation=''):
    global passed, failed
    with lock:
        passed, failed = passed + bool(good), failed + (not good)
        if not good:
            print(f'FAIL {name}: {explanation}', flush=True)


def skip(name, why):
    global skipped
    with lock:
        skipped += 1
        print(f'skip {name}: {why}', flush=True)


def summary():
    """The closing line that run_tests.py looks for. -> exit status"""
    print(f'{passed} passed, {failed} failed, {skipped} skipped')
    return 1 if failed else 0


# ---------------------------------------------------------------- commands

class Result(typing.NamedTuple):
    """How a command ended; what it printed is bytes, or text where that was asked for."""
    code: int
    out: typing.AnyStr
    err: typing.AnyStr

    def __str__(self):
        return f'exit {self.code}, stdout {self.out[:600]!r}, stderr {self.err[:600]!r}'


def argv(program, *args):
    """The command, or tool of tests/tools, with what runs it on another processor."""
    found = os.path.join(BIN, program)
    return [*RUNNER, found if program.startswith('cvq-') else os.path.join(TOOLS, program), *map(str, args)]


def run(program, *args, stdin=b'', env=None, text=False, cwd=None, **more):
    """env: what is added to the environment; cwd: another folder than the one below; more: as for subprocess.run"""
    p = subprocess.run(argv(program, *args), input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd or work, timeout=SECONDS,
                       env={**os.environ, **(env or {})}, **more)
    out, err = ((x.decode('utf-8', 'replace') for x in (p.stdout, p.stderr)) if text else (p.stdout, p.stderr))
    return Result(p.returncode, out, err)


def start(program, *args, **more):
    """Running, with pipes behind its outputs. more: as for subprocess.Popen"""
    return subprocess.Popen(argv(program, *args), cwd=work, **{'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, **more})


def one_line(err):
    return err.endswith(b'\n') and err.count(b'\n') == 1


# ---------------------------------------------------------------- the working folder

@contextlib.contextmanager
def working_folder(prefix):
    """Makes the folder in which commands run, and to which all names below belong."""
    global work
    with tempfile.TemporaryDirectory(prefix=prefix) as work:
        yield work
    work = None


def path(*names):
    return os.path.join(work, *names)


def read(name):
    with open(path(name), 'rb') as f:
        return f.read()


def write(name, data):
    with open(path(name), 'wb') as f:
        f.write(data if isinstance(data, bytes) else data.encode())
    return name


def remove(*names):
    """Those that are there."""
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path(name))


def files():
    return sorted(os.listdir(work))


def lines(objects):
    return ''.join(json.dumps(o) + '\n' for o in objects)
