#!/usr/bin/env python3
"""Static cycle counts of the ARM kernels, by llvm-mca, where no ARM machine is at hand.

    make aarch64                                       (or only its build)
    scripts/arm_cycles.py [BUILD] [--cpu NAME]... [--level NAME]... [--kernel NAME]... [--type NAME]...
                          [--mca llvm-mca-22]

qemu follows one call of a kernel (tests/tools/kernel_call.c) instruction by instruction, and llvm-mca
simulates the stream on each core: nothing is left out, neither how tiles begin and end, nor what a
compiler spills. Two calls that differ by a piece of work are counted, and the difference is printed:

    gemm    12 more rows of activations over 256 columns of 8 panels (unpack: what all rows share)
    gemv    256 more columns of 2 panels for one row
    attend  6 more rows (a tile) over 256 keys of 128 dimensions

Share: of a stream of the level's products alone on the same core (64 multiply-adds a cycle where two
units have sdot). Bytes: of weights, for one row; times the clock it is the rate that a thread can reach.

What it is worth: llvm-mca knows a core's units, latencies and width, assumes that every load hits L1,
that every branch is foreseen and that no load waits for a store. Versions before 17 have no models of
Neoverse N1, V1 and V2 and quietly take others in their place.
"""
import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

BEGIN, END = 'kernel_call_begin', 'kernel_call_end'
LEVELS = ['neon', 'dotprod', 'i8mm']
CPUS = ['neoverse-n1', 'neoverse-n2', 'neoverse-v2']
KERNELS = ['gemm', 'gemv', 'attend']
TYPES = ['q8', 'q4', 'q4t', 'q4s', 'q4h', 'q6']
BITS = {'q8': 8 + 32 / 256, 'q6': 6.5, 'q4t': 4.5, 'q4': 4.5, 'q4s': 4.25, 'q4h': 4.5}
FEATURES = '+dotprod,+i8mm,+fullfp16,+bf16'
# A level's products, and their multiply-adds.
PRODUCTS = {'neon': (['smull v{0}.8h, v24.8b, v25.8b', 'smlal v{0}.8h, v26.8b, v27.8b', 'sadalp v{1}.4s, v{0}.8h'], 16),
            'dotprod': (['sdot v{0}.4s, v24.16b, v25.16b'], 16),
            'i8mm': (['smmla v{0}.4s, v24.16b, v25.16b'], 32)}


def run(command, text=None):
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f'{command[0]} failed: {(done.stderr or done.stdout).strip()[:500]}')
    return done.stdout


def instructions(program):
    """{address: instruction}, and the address of BEGIN."""
    code, begin = {}, 0
    for line in run(['llvm-objdump', '-d', '--no-show-raw-insn', f'--mattr={FEATURES}', program]).splitlines():
        if match := re.match(rf'^([0-9a-f]+) <{BEGIN}>:$', line):
            begin = int(match[1], 16)
        elif match := re.match(r'^\s*([0-9a-f]+):\s+(.*)$', line):
            text = ' '.join(match[2].split('//')[0].split())
            text = re.sub(r'(#?-?0x[0-9a-f]+|#?-?\d+) <.*>', 'top', text)
            # llvm-mca lets a call or a return wait for 100 cycles: here it is one more jump.
            code[int(match[1], 16)] = re.sub(r'^(bl|blr|br|ret)\b.*', 'b top', text)
    return code, begin


class Counter:
    def __init__(self, build, mca):
        self.program = f'{build}/tools/kernel_call'
        if not pathlib.Path(self.program).exists():
            sys.exit(f'{self.program}: not there; cross-build first (make aarch64) or name its folder')
        self.code, self.begin = instructions(self.program)
        self.mca = mca
        self.traces = {}

    def trace(self, *call):
        """The instructions between the marks, as they are executed."""
        if call not in self.traces:
            with tempfile.NamedTemporaryFile('r') as log:
                run(['qemu-aarch64', '-L', '/usr/aarch64-linux-gnu', '-cpu', 'max', '-singlestep', '-d', 'exec,nochain',
                     '-D', log.name, self.program, *map(str, call)])
                text = log.read()
            at = [int(m[1], 16) for m in re.finditer(r'\[[0-9a-f]+/([0-9a-f]+)/', text[:text.index(END)])]
            begin = int(re.search(rf'/([0-9a-f]+)/\S* {BEGIN}$', text, re.M)[1], 16)
            at, base = at[at.index(begin):], begin - self.begin
            self.traces[call] = [self.code[a - base] for a in at if a - base in self.code]
        return self.traces[call]

    def cycles(self, cpu, stream, times=1):
        text = run([self.mca, '-mtriple=aarch64', f'-mcpu={cpu}', f'-mattr={FEATURES}', f'-iterations={times}',
                    '--resource-pressure=0', '--instruction-info=0'], 'top:\n' + '\n'.join(stream) + '\n')
        return int(re.search(r'^Total Cycles:\s+(\d+)', text, re.M)[1])

    def peak(self, cpu, level):
        """Multiply-adds a cycle of the level's products alone."""
        lines, each = PRODUCTS[level]
        stream = [line.format(i, i + 12) for line in lines for i in range(12)]
        took = self.cycles(cpu, stream, 200) - self.cycles(cpu, stream, 100)
        return each * 12 * 100 / took

    def more(self, cpu, few, many):
        """Cycles and instructions of what the second call does beyond the first, and cycles of the first."""
        a, b = self.trace(*few), self.trace(*many)
        first = self.cycles(cpu, a)
        return self.cycles(cpu, b) - first, len(b) - len(a), first


def print_gemm(counter, options, level):
    for type_ in options.type or TYPES[:2]:
        cells = []
        for cpu in options.cpu:
            part, count, first = counter.more(cpu, (level, 'gemm', type_, 12, 256, 8), (level, 'gemm', type_, 24, 256, 8))
            share = 12 * 256 * 128 / counter.peak(cpu, level) / part
            cells.append(f'{part}, {share:.0%}, {first - part}')
        print(f'| {level} gemm {type_} | {count} | ' + ' | '.join(cells) + ' |', flush=True)


def print_gemv(counter, options, level):
    for type_ in options.type or TYPES:
        cells = []
        for cpu in options.cpu:
            part, count, _ = counter.more(cpu, (level, 'gemv', type_, 1, 256, 2), (level, 'gemv', type_, 1, 1280, 2))
            cells.append(f'{part / 4:.0f}, {32 * 1024 * BITS[type_] / 8 / part:.1f}')
        print(f'| {level} gemv {type_} | {count / 4:.0f} | ' + ' | '.join(cells) + ' |', flush=True)


def print_attend(counter, options, level):
    cells = []
    for cpu in options.cpu:
        part, count, _ = counter.more(cpu, (level, 'attend', 128, 12), (level, 'attend', 128, 18))
        cells.append(f'{part}, {6 * 256 * 256 / counter.peak(cpu, level) / part:.0%}')
    print(f'| {level} attend 128 | {count} | ' + ' | '.join(cells) + ' |', flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('build', nargs='?', default='build/aarch64')
    for name, values in ('cpu', None), ('level', LEVELS), ('kernel', KERNELS), ('type', TYPES):
        parser.add_argument('--' + name, action='append', choices=values)
    parser.add_argument('--mca', default='llvm-mca', help='the program, of LLVM 17 or later')
    options = parser.parse_args()
    options.cpu = options.cpu or CPUS
    counter = Counter(options.build, options.mca)
    told = {'gemm': 'cycles, share, unpack', 'gemv': 'cycles, bytes a cycle', 'attend': 'cycles, share'}
    printers = {'gemm': print_gemm, 'gemv': print_gemv, 'attend': print_attend}
    for kernel in options.kernel or KERNELS:
        print('\n| kernel | instructions | ' + ' | '.join(f'{c}: {told[kernel]}' for c in options.cpu) + ' |')
        print('|---' * (2 + len(options.cpu)) + '|')
        for level in options.level or LEVELS:
            printers[kernel](counter, options, level)


if __name__ == '__main__':
    main()
