#!/usr/bin/env python3
"""make install and uninstall, the installed library used as a stranger would, and the public headers
alone as C and C++.  cvq-test: once"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

from harness import check, skip, summary

BUILD = os.path.relpath(os.environ['CVQ_BUILD'])
MODEL, PICTURE = 'models/cogvlm2-tiny', 'models/pictures/number-13.png'
QUESTION, ANSWER = 'What number is written in the image?', '13'


def run(*command, **environment):
    e = {k: v for k, v in os.environ.items() if k not in ('MAKEFLAGS', 'MFLAGS', 'MAKELEVEL')}
    r = subprocess.run(command, capture_output=True, text=True, env={**e, **environment})
    return r.returncode == 0, r.stdout, r.stdout + r.stderr


def files_below(folder):
    return sorted(os.path.relpath(os.path.join(at, n), folder) for at, _, names in os.walk(folder) for n in names)


def headers_alone():
    for header in ('cvq.h', 'cvq_status.h'):
        for compiler, standard, language in (('gcc', 'c11', 'c'), ('clang', 'c11', 'c'),
                                             ('g++', 'c++11', 'c++'), ('clang++', 'c++17', 'c++')):
            name = f'{header} compiles alone with {compiler} -std={standard}'
            if not shutil.which(compiler):
                skip(name, f'no {compiler} here')
                continue
            for unstable in ([], ['-DCVQ_UNSTABLE']):
                good, _, text = run(compiler, '-fsyntax-only', f'-std={standard}', '-Wall', '-Wextra', '-Wpedantic',
                                    '-Werror', '-x', language, *unstable, f'include/{header}')
                check(' '.join([name, *unstable]), good, text)


def library_symbols():
    good, out, text = run('nm', '-g', '--defined-only', f'{BUILD}/lib/libcvq.a')
    names = {line.split()[2] for line in out.splitlines() if len(line.split()) == 3}
    foreign = sorted(n for n in names if not re.match(r'cvq_|\w+__[a-z0-9]+$', n))
    check('all that libcvq.a defines is called cvq_*, or kernel__level', good and names and not foreign, text if not good else str(foreign))
    for name in ('cvq_model_open', 'cvq_session_generate', 'cvq_status_name'):
        check(f'libcvq.a defines {name}', name in names)


def installed_example(root, folder):
    """Build examples/ask.c with pkg-config's flags against the installed files, and ask."""
    where = {'PKG_CONFIG_PATH': f'{root}/usr/lib/pkgconfig'}
    good, flags, text = run('pkg-config', '--define-variable=prefix=' + root + '/usr',
                            '--define-variable=libdir=' + root + '/usr/lib', '--cflags', '--libs', 'cvq', **where)
    check('pkg-config knows cvq', good, text)
    _, version, _ = run('pkg-config', '--modversion', 'cvq', **where)
    _, said, _ = run(f'{root}/usr/bin/cvq-run', '--version')
    check('the pkg-config file and cvq-run --version agree', version.strip() and version.strip() in said,
           f'{version.strip()} / {said}')
    ask = os.path.join(folder, 'ask')
    source = f'{root}/usr/share/doc/cvq/examples/ask.c'
    good, _, text = run('gcc', '-std=c11', '-Wall', '-Wextra', '-Werror', '-o', ask, source, *flags.split())
    check('the installed example builds with its flags', good, text)
    return ask if good else None


def ask_installed(root, folder, ask):
    model = os.path.join(folder, 'tiny.cvq')
    good, _, text = run(f'{root}/usr/bin/cvq-convert', '-q', MODEL, model)
    check('the installed cvq-convert converts the small checkpoint', good, text)
    picture = os.path.join(folder, 'picture.ppm')
    try:
        from PIL import Image
        Image.open(PICTURE).convert('RGB').save(picture)
    except ImportError:
        skip('the installed example answers', 'Pillow is not installed')
        return
    good, out, text = run(ask, model, picture, QUESTION)
    check('the installed example answers', good and out.strip() == ANSWER, text)


def manual_and_completion(name, prefix):
    """Both say what --help says: every option, and the choices of those that have some."""
    _, help_text, _ = run(f'{prefix}/bin/{name}', '--help')
    options = set(re.findall(r'^  (?:-\w, |    )--([a-z0-9-]+)', help_text, re.M))
    with open(f'{prefix}/share/man/man1/{name}.1', encoding='utf-8') as f:
        page = f.read()
    shown = set(re.findall(r'^\.B (?:\\-\w, )?\\-\\-([a-z0-9\\-]+)', page, re.M))
    check(f'{name}.1 has the options of --help', options and {o.replace('\\', '') for o in shown} == options,
           str(options ^ {o.replace('\\', '') for o in shown}))
    if shutil.which('groff'):
        good, _, text = run('groff', '-man', '-ww', '-z', f'{prefix}/share/man/man1/{name}.1')
        check(f'groff has nothing against {name}.1', good and not text, text)
    script = f'. {prefix}/share/bash-completion/completions/{name}; COMP_WORDS=({name} --th) COMP_CWORD=1; ' \
             f'_{name.replace("-", "_")}; echo "${{COMPREPLY[@]}}"; COMP_WORDS=({name} --cpu av) COMP_CWORD=2; ' \
             f'_{name.replace("-", "_")}; echo "${{COMPREPLY[@]}}"'
    good, out, text = run('bash', '-c', script)
    check(f'completion of {name}', good and out.splitlines() == ['--threads', 'avx2 avxvnni avx512 avx512bf16'], text)


def install():
    with tempfile.TemporaryDirectory() as folder:
        root = os.path.join(folder, 'root')
        make = ('make', '--no-print-directory', f'B={BUILD}', f'DESTDIR={root}', 'PREFIX=/usr')
        good, _, text = run(*make, 'install')
        check('make install', good, text)
        if not good:
            return
        commands = [f'usr/bin/{n}' for n in sorted(os.listdir(f'{BUILD}/bin'))]
        wanted = commands + ['usr/include/cvq.h', 'usr/include/cvq_status.h', 'usr/lib/libcvq.a',
                             'usr/lib/pkgconfig/cvq.pc', 'usr/share/doc/cvq/LICENSE', 'usr/share/doc/cvq/examples/ask.c']
        there = files_below(root)
        check('what is installed', not set(wanted) - set(there), f'missing: {sorted(set(wanted) - set(there))}')
        names = [os.path.basename(c) for c in commands]
        manuals = [f'usr/share/man/man1/{n}.1' for n in names]
        completions = [f'usr/share/bash-completion/completions/{n}' for n in names]
        check('a manual page and completion for every command', not set(manuals + completions) - set(there))
        for n in names:
            manual_and_completion(n, f'{root}/usr')
        check('nothing names the folder of DESTDIR', root not in open(f'{root}/usr/lib/pkgconfig/cvq.pc').read())
        ask = installed_example(root, folder)
        if ask:
            ask_installed(root, folder, ask)
        good, _, text = run(*make, 'uninstall')
        check('make uninstall leaves no file', good and not files_below(root), text + str(files_below(root)))


headers_alone()
library_symbols()
install()
sys.exit(summary())
