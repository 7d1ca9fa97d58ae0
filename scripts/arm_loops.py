#!/usr/bin/env python3
"""Static cycle counts of the ARM kernels' inner loops, by llvm-mca, where no ARM machine is at hand.

    make aarch64                                  (or only its build)
    scripts/arm_loops.py [BUILD] [--cpu NAME]... [--all]

Takes the kernels' objects of a cross build (default build/aarch64), finds every innermost loop that
multiplies, and prints for each core: cycles of one pass over the loop as llvm-mca simulates it, the
least that its multiplications alone need there (what cvq-bench's peak counts), the share, and
multiply-adds a cycle. Without --all, only the loops with most multiplications of each family of
functions: the full tiles.

What it is worth: llvm-mca knows a core's units, latencies and width, assumes that every load hits L1
and every branch is foreseen, and sees neither what is around the loop nor how a tile begins and ends.
The default cores are those that LLVM 14 has a model of their own for and that resemble what people
have: cortex-a55 (in order, the small cores of phones and boards) and tsv110 (out of order, two SIMD
units, near Cortex-A76 and Neoverse N1, for which LLVM 14 falls back on the model of Cortex-A57).
"""
import argparse
import functools
import pathlib
import re
import subprocess
import sys

LEVELS = ['neon', 'dotprod', 'i8mm']
CPUS = ['cortex-a55', 'tsv110']
FEATURES = '+dotprod,+i8mm,+fullfp16,+bf16'
# Multiply-adds of one instruction; 0: part of a product (pairwise adding of 16-bit products).
PRODUCTS = {'sdot': 16, 'udot': 16, 'usdot': 16, 'sudot': 16, 'smmla': 32, 'ummla': 32, 'usmmla': 32,
            'smull': 8, 'smull2': 8, 'smlal': 8, 'smlal2': 8, 'umull': 8, 'umull2': 8, 'umlal': 8,
            'umlal2': 8, 'sadalp': 0, 'uadalp': 0, 'saddlp': 0, 'fmla': 4}
VECTOR = re.compile(r'\bv\d+\.\d*[bhsd]')
BRANCH = re.compile(r'^(b\.\w+|cbn?z|tbn?z|b)\s+(?:.*,\s*)?(0x[0-9a-f]+) <')


def run(command, text=None):
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f'{command[0]} failed: {done.stderr.strip()[:500]}')
    return done.stdout


def functions(path):
    """[(name, [(address, instruction)])] of an object file."""
    found = []
    for line in run(['llvm-objdump', '-d', '--no-show-raw-insn', f'--mattr={FEATURES}', str(path)]).splitlines():
        if match := re.match(r'^[0-9a-f]+ <(.+)>:$', line):
            found.append((match[1], []))
        elif match := re.match(r'^\s*([0-9a-f]+):\s+(.*)$', line):
            text = ' '.join(match[2].split('//')[0].split())
            found[-1][1].append((int(match[1], 16), text))
    return found


def is_product(text, counted):
    return text.split()[0] in counted and bool(VECTOR.search(text))


def loops(code):
    """Innermost loops: from the target of a backward branch to the branch, no other within."""
    spans = []
    for address, text in code:
        match = BRANCH.match(text)
        if match and int(match[2], 16) <= address:
            spans.append((int(match[2], 16), address))
    for first, last in spans:
        if not any((f, e) != (first, last) and first <= f and e <= last for f, e in spans):
            yield [text for address, text in code if first <= address <= last]


@functools.lru_cache(None)
def simulate(cpu, block, passes):
    return run(['llvm-mca', '-mtriple=aarch64', f'-mcpu={cpu}', f'-mattr={FEATURES}',
                f'-iterations={passes}', '--resource-pressure=0', '--instruction-info=0'], block)


def number(report, label):
    return float(re.search(rf'^{label}:\s+([0-9.]+)', report, re.M)[1])


def cycles(cpu, loop):
    """Of one pass, once the loop is under way."""
    block = 'top:\n' + '\n'.join(re.sub(r'0x[0-9a-f]+ <.*', 'top', t) for t in loop) + '\n'
    few, many = (number(simulate(cpu, block, n), 'Total Cycles') for n in (100, 300))
    return (many - few) / 200


def least(cpu, products):
    """What the units that multiply need for the loop's products, nothing else in the way."""
    return number(simulate(cpu, '\n'.join(products) + '\n', 100), 'Block RThroughput')


def rows(build, everything):
    """(file, function, loop, its products) of what is worth a line."""
    folder = pathlib.Path(build) / 'obj/runtime/kernels'
    paths = [p for s in LEVELS for p in sorted(folder.glob(f'*_{s}.o'))
             if everything or not p.name.startswith('rows_')]
    if not paths:
        sys.exit(f'{folder}: no ARM kernels; cross-build first (make aarch64) or name its folder')
    for path in paths:
        # An int8 kernel's multiplications are of integers; what scales its sums is not counted.
        counted = {n for n in PRODUCTS if (n == 'fmla') == ('_f32_' in path.name or 'rows_' in path.name)}
        found = [(name, loop, sum(is_product(t, counted) for t in loop))
                 for name, code in functions(path) for loop in loops(code)]
        # tile_128_4, the full tile, stands for tile_128_1 to 3.
        full = {re.sub(r'_\d+$', '', name): name for name, _, n in sorted(found) if n}
        for name, loop, products in found:
            most = max(n for f, _, n in found if f == name)
            shown = name == full.get(re.sub(r'_\d+$', '', name)) and 4 * products > 3 * most
            if products and (everything or shown):
                yield path.stem, name, loop, [t for t in loop if is_product(t, counted)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('build', nargs='?', default='build/aarch64')
    parser.add_argument('--cpu', action='append', help=f'cores, default {", ".join(CPUS)}')
    parser.add_argument('--all', action='store_true', help='every loop that multiplies')
    options = parser.parse_args()
    cpus = options.cpu or CPUS
    print('| kernel | function | instructions, products | ' +
          ' | '.join(f'{c}: cycles, least, share, MAC/cycle' for c in cpus) + ' |')
    print('|---' * (3 + len(cpus)) + '|')
    for stem, name, loop, products in rows(options.build, options.all):
        macs = sum(PRODUCTS[t.split()[0]] for t in products)
        cells = []
        for cpu in cpus:
            took, need = cycles(cpu, loop), least(cpu, products)
            cells.append(f'{took:.1f}, {need:.1f}, {need / took:.0%}, {macs / took:.1f}')
        print(f'| {stem} | {name} | {len(loop)}, {len(products)} | ' + ' | '.join(cells) + ' |')


if __name__ == '__main__':
    main()
