"""Memory control groups of both versions, for scripts that run something with less memory.

    group = memory_group.make(6 * 10**9)
    if group:
        with group:
            subprocess.run(..., preexec_fn=group.enter)
            print(group.peak())
"""
import os
import time

V1, V2 = '/sys/fs/cgroup/memory', '/sys/fs/cgroup'


def read(*path):
    with open(os.path.join(*path), encoding='ascii') as f:
        return f.read()


def write(text, *path):
    with open(os.path.join(*path), 'w', encoding='ascii') as f:
        f.write(str(text))


class Group:
    def __init__(self, folder, v2):
        self.folder, self.v2 = folder, v2

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for _ in range(50):  # until what ran in it is gone
            try:
                return os.rmdir(self.folder)
            except OSError:
                time.sleep(0.1)

    def enter(self):
        """In the child."""
        write(os.getpid(), self.folder, 'cgroup.procs')

    def peak(self):
        """The most that was taken, the cache of files included; 0 where the system does not tell."""
        try:
            return int(read(self.folder, 'memory.peak' if self.v2 else 'memory.max_usage_in_bytes'))
        except OSError:
            return 0

    def now(self):
        """-> (anonymous memory, pages of files) in bytes"""
        stat = dict(line.split() for line in read(self.folder, 'memory.stat').splitlines())
        names = ('anon', 'file') if self.v2 else ('total_rss', 'total_cache')
        return tuple(int(stat[n]) for n in names)

    def killed(self):
        """How often the system has killed something for want of memory."""
        try:
            text = read(self.folder, 'memory.events' if self.v2 else 'memory.oom_control')
            return int(dict(line.split() for line in text.splitlines()).get('oom_kill', 0))
        except OSError:
            return 0


def make(limit):
    """A group of `limit` bytes, or None where this user may not have one. limit None: no limit."""
    for root, v2 in ((V1, False), (V2, True)):
        folder = os.path.join(root, f'cvq-{os.getpid()}-{time.monotonic_ns()}')
        if v2 and 'memory' not in _controllers():
            continue
        try:
            os.mkdir(folder)
        except OSError:
            continue
        try:
            if limit is not None:
                write(limit, folder, 'memory.max' if v2 else 'memory.limit_in_bytes')
            if v2:
                write(0, folder, 'memory.swap.max')
            return Group(folder, v2)
        except OSError:
            os.rmdir(folder)
    return None


def _controllers():
    try:
        return read(V2, 'cgroup.subtree_control').split()
    except OSError:
        return []
