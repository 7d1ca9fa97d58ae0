"""Plans for tests/preload/failing_calls.c: which call of the system or the allocator of a command fails, or at which it gets a signal.

    plan = Plan(path('plan'), 'write', SIGNALLED, 7, signal.SIGKILL)
    run('cvq-convert', ..., env=plan.environment)
    plan.calls['write']
"""
import array
import mmap
import os
import select
import struct
import subprocess

from harness import SECONDS, TOOLS, argv

KINDS = ('memory', 'open', 'read', 'scan', 'write', 'print', 'sync', 'name', 'map', 'length', 'look', 'start')
ONCE, FROM, SHORT, INTERRUPTED, SIGNALLED = range(5)
MODES = ('once', 'from', 'short', 'interrupted', 'signalled')
NOTED = 65536  # as in failing_calls.c
HEADER = struct.Struct(f'<IHHQQ{len(KINDS)}Q')
LIBRARY = os.path.join(TOOLS, 'failing_calls.so')  # it is made for glibc alone


class Plan:
    def __init__(self, path, kind=KINDS[0], mode=ONCE, at=0, signal=0, noting=False):
        self.path, self.at = path, at
        self.environment = {'LD_PRELOAD': LIBRARY, 'CVQ_FAIL_PLAN': path}
        with open(path, 'wb') as f:
            f.write(HEADER.pack(KINDS.index(kind), mode, signal, at, 0, *[0] * len(KINDS)))
            if noting:
                f.truncate(HEADER.size + 4 * len(KINDS) * NOTED)

    def read(self):
        """After a run: failed, the number of calls that failed, and calls, how many there were of each kind."""
        with open(self.path, 'rb') as f:
            fields = HEADER.unpack(f.read(HEADER.size))
        self.failed, self.calls = fields[4], dict(zip(KINDS, fields[5:]))
        return self

    def ways(self, kind):
        """Of a run that was noted: numbers of calls, one for each way through the program."""
        with open(self.path, 'rb') as f:
            f.seek(HEADER.size + 4 * NOTED * KINDS.index(kind))
            way = array.array('I', f.read(4 * min(self.calls[kind], NOTED)))
        first = {}
        for i, w in enumerate(way):
            first.setdefault(w, i + 1)
        return sorted(first.values())


class Server:
    """A command with its arguments that is loaded once and then runs again and again, each time with another plan; fast."""

    def __init__(self, folder, base, program, *args, stdin=b'', env=None):
        """folder: where it runs; base: where the plan and what it prints are kept."""
        plan = Plan(os.path.join(base, 'plan'))
        self.plan = os.open(plan.path, os.O_RDWR)
        self.map = mmap.mmap(self.plan, HEADER.size)
        with open(os.path.join(base, 'stdin'), 'wb') as f:
            f.write(stdin)
        files = [os.open(os.path.join(base, 'stdin'), os.O_RDONLY)]
        files += [os.open(os.path.join(base, name), os.O_RDWR | os.O_CREAT | os.O_APPEND) for name in ('stdout', 'stderr')]
        self.printed = files[1:]
        asked, self.ask = os.pipe()
        self.answer, answered = os.pipe()
        self.process = subprocess.Popen(
            argv(program, *args), cwd=folder, stdin=files[0], stdout=files[1], stderr=files[2], pass_fds=(asked, answered),
            env={**os.environ, **(env or {}), **plan.environment, 'CVQ_FAIL_SERVE': f'{asked},{answered}'})
        for fd in (files[0], asked, answered):
            os.close(fd)

    def run(self, kind=KINDS[0], mode=ONCE, at=0):
        """-> exit status (of a signal that ended it, -signal) or 'too long', stdout, stderr, how many calls failed, calls by kind"""
        self.map[:] = HEADER.pack(KINDS.index(kind), mode, 0, at, 0, *[0] * len(KINDS))
        for fd in self.printed:
            os.ftruncate(fd, 0)
        os.write(self.ask, b'.')
        child, = struct.unpack('<i', os.read(self.answer, 4))
        late = not select.select([self.answer], [], [], SECONDS)[0]
        if late:
            os.kill(child, 9)
        status, = struct.unpack('<i', os.read(self.answer, 4))
        fields = HEADER.unpack(self.map[:])
        printed = [os.pread(fd, os.fstat(fd).st_size, 0) for fd in self.printed]
        return ('too long' if late else os.waitstatus_to_exitcode(status), *printed, fields[4], dict(zip(KINDS, fields[5:])))

    def close(self):
        for fd in (self.ask, self.answer, self.plan, *self.printed):
            os.close(fd)
        self.process.wait()
        self.map.close()
