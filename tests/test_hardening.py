#!/usr/bin/env python3
"""The built commands are hardened as the Makefile says, the check of that can fail, and no build for a big-endian machine
succeeds.  cvq-test: once"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

from harness import BIN, check, skip, summary



def readelf(*arguments):
    return subprocess.run(['readelf', '-W', *arguments], capture_output=True, text=True, check=True).stdout


def lacks(program):
    """What is missing of: code at any address, relocations read-only before main, no stack that can be executed, canaries,
    and the C library's calls that know how large their destination is."""
    dynamic, segments, symbols = readelf('-d', program), readelf('-l', program), readelf('--dyn-syms', program)
    stack = re.search(r'GNU_STACK\s+(?:0x\w+\s+){5}(\w+)', segments)
    imported = set(re.findall(r' UND (\w+)', symbols))
    there = {
        'PIE': re.search(r'FLAGS_1\).*\bPIE\b', dynamic) and re.search(r'Elf file type is DYN', segments),
        'RELRO': 'GNU_RELRO' in segments,
        'BIND_NOW': re.search(r'\(BIND_NOW\)|\(FLAGS\).*BIND_NOW|FLAGS_1\).*\bNOW\b', dynamic),
        'a stack without execution': stack and 'E' not in stack.group(1),
        'canaries': '__stack_chk_fail' in imported,
        'FORTIFY': any(re.fullmatch(r'__\w+_chk', n) for n in imported - {'__stack_chk_fail'}),
        'no RPATH': not re.search(r'\((RPATH|RUNPATH)\)', dynamic),
    }
    return sorted(name for name, good in there.items() if not good)


def commands():
    names = sorted(n for n in os.listdir(BIN) if n.startswith('cvq-'))
    check('there are commands', len(names) >= 10, names)
    for name in names:
        check(f'{name} is hardened', not lacks(os.path.join(BIN, name)), f'it lacks {lacks(os.path.join(BIN, name))}')


# Without one flag each, and what is then found to be missing.
SOFT = (('-no-pie', ['PIE']), ('-Wl,-z,norelro', ['RELRO']), ('-Wl,-z,lazy', ['BIND_NOW']), ('-Wl,-z,execstack', ['a stack without execution']),
        ('-fno-stack-protector', ['canaries']), ('-U_FORTIFY_SOURCE', ['FORTIFY']), ('-Wl,-rpath,/tmp', ['no RPATH']), ('-pie', []))
SOURCE = '''#include <stdio.h>
int main(int n, char **words) {
    char line[64];
    if (!fgets(line, n * 8, stdin)) return 1;
    return printf("%s %s", words[0], line) < 0;
}
'''


def check_of_it():
    with tempfile.TemporaryDirectory() as folder:
        source, program = os.path.join(folder, 'soft.c'), os.path.join(folder, 'soft')
        with open(source, 'w', encoding='utf-8') as f:
            f.write(SOURCE)
        for flag, missing in SOFT:
            r = subprocess.run(['gcc', '-O2', '-D_FORTIFY_SOURCE=2', '-fstack-protector-strong', '-fPIE', '-pie', '-Wl,-z,relro,-z,now', flag,
                                '-o', program, source], capture_output=True, text=True)
            found = lacks(program) if r.returncode == 0 else r.stderr
            check(f'{flag} is found out', found == missing, f'missing: {found}, not {missing}')


def big_endian():
    """Compilers for such a machine stop at the header through which files are read and written, and say why."""
    text = '"big-endian machines are not supported'
    for target, big in (('s390x', True), ('powerpc64', True), ('x86_64', False), ('aarch64', False), ('powerpc64le', False)):
        name = f'base/checked.h for {target}'
        if not shutil.which('clang'):
            skip(name, 'no clang here')
            continue
        r = subprocess.run(['clang', f'--target={target}-linux-gnu', '-fsyntax-only', '-x', 'c', 'base/checked.h'], capture_output=True, text=True)
        check(name, (text in r.stderr) == big and (not big or r.returncode != 0), r.stderr[:1000])
    compiler = shutil.which('s390x-linux-gnu-gcc')
    for file in ('formats/cvq_reader.c', 'formats/cvq_writer.c', 'formats/safetensors.c', 'runtime/attention.c'):
        if not compiler:
            skip(f'{file} for s390x', 'no cross compiler here (scripts/setup.sh cross installs it)')
            continue
        r = subprocess.run([compiler, '-fsyntax-only', '-D_GNU_SOURCE', '-I.', '-Iinclude', file], capture_output=True, text=True)
        check(f'{file} for s390x', text in r.stderr and r.returncode != 0, r.stderr[:1000])


commands()
check_of_it()
big_endian()
sys.exit(summary())
