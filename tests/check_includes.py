#!/usr/bin/env python3
"""Checks the source's rules: who may include whom, and what the libraries may not do.

    check_includes.py [ROOT]     prints FILE:LINE: what is wrong, and exits 1, or nothing and 0

 - Each folder includes only itself, include/ and the folders that FOLDERS allows; includes are
   written from the root ("formats/json.h") and name a file that is there.
 - A *_internal.h is included only inside its folder. No two files include each other, by any way.
 - File names are unique in the whole tree.
 - System libraries stand behind one folder each (LIBRARIES); threads only in base/parallel.c.
 - The library folders (QUIET) never print, never exit, never read the environment.
 - Every kernel of kernels_list.inc is called by tests/unit/test_kernels*.c and timed by kernels_bench.h.
"""
import os
import re
import sys

ALL = 'base formats quant convert runtime imageio bench'.split()
FOLDERS = {
    'include': [],
    'base': [],
    'formats': ['base'],
    'quant': ['formats', 'base'],
    'convert': ['formats', 'quant', 'base'],
    'runtime': ['formats', 'base'],
    'imageio': ['base'],
    'bench': ALL,
    'cli': ALL,
    'examples': [],
    'tests': ALL + ['cli'],
}
LIBRARIES = [  # a system header, and where it may be included
    (r'zstd.*\.h|cjson/.*|cJSON\.h|openssl/.*', ['formats']),
    (r'pcre2.*\.h', ['runtime']),
    (r'(stb/)?stb_.*\.h', ['imageio']),
]
QUIET = 'base formats quant convert runtime imageio'.split()
FORBIDDEN = re.compile(r'\b(printf|vprintf|puts|putchar|perror|exit|_exit|_Exit|quick_exit|abort|getenv'
                       r'|secure_getenv|setenv)\s*\(')
PRINTS = re.compile(r'\b(stdout|stderr)\b')
# The child that decodes a picture is a process of its own: it ends itself.
ALLOWED_CALLS = {'imageio': {'_exit'}}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def sources(root):
    """-> {path from root: text}"""
    found = {}
    for folder in FOLDERS:
        for at, _, names in os.walk(os.path.join(root, folder)):
            for name in names:
                if name.endswith(('.c', '.h', '.inc')):
                    path = os.path.join(at, name)
                    with open(path, encoding='utf-8') as f:
                        found[os.path.relpath(path, root).replace(os.sep, '/')] = f.read()
    return found


TOKENS = re.compile(r'/\*.*?\*/|//[^\n]*|^[ \t]*#[ \t]*include[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'',
                    re.S | re.M)


def code_only(text):
    """Comments blanked out and strings emptied, except those of #include; lines stay where they are."""
    def blank(m):
        s = m.group(0)
        if s.startswith(('/*', '//')):
            return re.sub(r'[^\n]', ' ', s)
        return s[0] * 2 if s[0] in '"\'' else s
    return TOKENS.sub(blank, text)


def resolve(path, name, files):
    """The file that an include in `path` names, or None."""
    if name in files:
        return name
    beside = os.path.normpath(os.path.join(os.path.dirname(path), name)).replace(os.sep, '/')
    if 'include/' + name in files:
        return 'include/' + name
    return beside if beside in files else None


def check_include(path, kind, name, files, complain):
    folder = path.split('/')[0]
    if kind == '<':
        for pattern, places in LIBRARIES:
            if re.fullmatch(pattern, name) and folder != 'tests' and folder not in places and path not in places:
                complain(f'<{name}> belongs to {" and ".join(places)}')
        return None
    target = resolve(path, name, files)
    if target is None:
        complain(f'"{name}" is no file here (includes are written from the root)')
        return None
    owner = target.split('/')[0]
    if owner == 'include':
        return target
    if target != name and folder not in ('tests', 'include'):
        complain(f'"{name}": write it from the root, "{target}"')
    if owner != folder and owner not in FOLDERS[folder]:
        complain(f'{folder}/ may not include {owner}/')
    if target.endswith('_internal.h') and os.path.dirname(target) != os.path.dirname(path) and folder != 'tests':
        complain(f'"{name}" is read only inside {os.path.dirname(target)}/')
    return target


def check_calls(path, number, line, complain):
    folder = path.split('/')[0]
    if folder in QUIET:
        for m in FORBIDDEN.finditer(line):
            if m.group(1) not in ALLOWED_CALLS.get(folder, ()):
                complain(f'{m.group(1)}(): libraries never print, exit or read the environment')
        if PRINTS.search(line):
            complain('libraries never print')
    if re.search(r'\bpthread_create\b|#\s*pragma\s+omp', line) and path.split('/')[0] in QUIET and path != 'base/parallel.c':
        complain('threads are started in base/parallel.c only')


def check_kernels(files):
    """Entries of the table of kernels that no test compares or no bench times."""
    listing = 'runtime/kernels/kernels_list.inc'
    entries = set(re.findall(r'^KERNEL\(\w+, \w+, (\w+)', code_only(files.get(listing, '')), re.M))
    places = {'no kernel test calls': 'tests/unit/test_kernels', '--bench does not time': 'tests/unit/kernels_bench'}
    for what, prefix in places.items():
        text = '\n'.join(code_only(t) for path, t in sorted(files.items()) if path.startswith(prefix))
        called = set(re.findall(r'(?:->|\.)\s*(\w+)', text))
        yield from (f'{listing}: {what} {entry} ({prefix}*)' for entry in sorted(entries - called))


def cycles(graph):
    """Files that include each other, as lists that end where they begin; one for each back edge."""
    state, found = {}, []

    def visit(node, way):
        state[node] = 'open'
        for other in sorted(graph.get(node, ())):
            if state.get(other) == 'open':
                found.append(way[way.index(other):] + [other])
            elif other not in state:
                visit(other, way + [other])
        state[node] = 'done'

    for node in sorted(graph):
        if node not in state:
            visit(node, [node])
    return found


def check(root):
    """-> list of complaints, empty if all is well"""
    files, complaints, graph = sources(root), [], {}
    if not files:
        return [f'{root}: no source found']
    for path, text in sorted(files.items()):
        graph[path] = set()
        for number, line in enumerate(code_only(text).split('\n'), 1):
            def complain(what):
                complaints.append(f'{path}:{number}: {what}')
            m = INCLUDE.match(line)
            if m:
                target = check_include(path, m.group(1), m.group(2), files, complain)
                if target:
                    graph[path].add(target)
            else:
                check_calls(path, number, line, complain)
    complaints += check_kernels(files)
    complaints += ['include each other: ' + ' -> '.join(c) for c in cycles(graph)]
    seen = {}
    for path in sorted(files):
        name = os.path.basename(path)
        if name in seen:
            complaints.append(f'{path}: the name is taken by {seen[name]}')
        seen.setdefault(name, path)
    return complaints


if __name__ == '__main__':
    result = check(sys.argv[1] if len(sys.argv) > 1 else '.')
    print(*result, sep='\n', end='\n' if result else '')
    sys.exit(1 if result else 0)
