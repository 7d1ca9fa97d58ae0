#!/usr/bin/env python3
"""cvq's 4-bit types beside those of other programs: error on the same rows, and what a model loses by it.

    compare_types.py --calibration DATA.jsonl --text TEXT --task TASK.jsonl [--library libggml.so] [--types q4t,q4s] [--build build]
                     [--folder DIR] [--questions N] [--rows N] [--skip-model] [--skip-rows]

A model's: every matrix of the small checkpoint's decoder goes to the type, all else stays in 16 bits. cvq's types are tried with --imatrix and
with --feedback; another program's by its own quantizers and the same importance (each row of the file that cvq-calibrate makes of DATA), and
their values, rounded to bf16, stand in a checkpoint. cvq-perplexity says perplexity and divergence from the 16-bit model, in exact arithmetic, of
TEXT and of the answers to the first N questions of TASK. Errors are means over the matrices, x 1000: diagonal, sum h e^2 / sum h w^2 with h the
mean square of the input's channels; full, tr(E C E^T) / tr(W C W^T) with C its second moments, of the language and of the vision expert.

Rows': N rows of 4,096 and of 14,336 weights, normal and of Student's t, with lognormal importance and six channels a thousand times as
important; the diagonal error in multiples of the first type's.

LIBRARY is ggml as a shared library, of llama.cpp or of a program that grew from it; types that it does not have are left out. Prints two tables
in Markdown for docs/quantization.md. By hand; takes minutes.
"""
import argparse
import ctypes
import glob
import json
import os
import shutil
import struct
import subprocess
import sys

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, 'tests'))
from cvq_reader import CvqFile, tensor_list  # noqa: E402

SMALL = os.path.join(ROOT, 'models/cogvlm2-tiny')
OTHERS = {'q4_K': 12, 'iq4_xs': 23, 'iq4_ks': 144, 'iq4_k': 139}  # numbers of ggml.h
ROWS = {'Gauss': None, 't8': 8, 't5': 5, 't4': 4}
WIDTHS = (4096, 14336)


# ---------------------------------------------------------------- safetensors

def to_bf16(values):
    bits = np.ascontiguousarray(values, '<f4').view('<u4')
    return ((bits + 0x7fff + (bits >> 16 & 1)) >> 16).astype('<u2')


def from_bf16(bits):
    return (bits.astype('<u4') << 16).view('<f4')


def read_safetensors(path):
    """-> {name: array}, bf16 as f32"""
    raw = np.fromfile(path, np.uint8)
    size, = struct.unpack('<Q', raw[:8].tobytes())
    out, kinds = {}, {'F32': '<f4', 'F16': '<f2', 'BF16': '<u2', 'I64': '<i8'}
    for name, t in json.loads(raw[8:8 + size].tobytes()).items():
        if name != '__metadata__':
            first, end = (8 + size + n for n in t['data_offsets'])
            values = raw[first:end].view(kinds[t['dtype']]).reshape(t['shape'])
            out[name] = from_bf16(values) if t['dtype'] == 'BF16' else values
    return out


def write_safetensors(path, tensors):
    """tensors: {name: array}; f32 is written as bf16 unless its name ends in .sum_sq"""
    head, parts, at = {}, [], 0
    for name, values in tensors.items():
        kind = 'I64' if values.dtype == np.int64 else 'F32' if name.endswith('.sum_sq') else 'BF16'
        data = (to_bf16(values) if kind == 'BF16' else values).tobytes()
        head[name] = {'dtype': kind, 'shape': list(values.shape), 'data_offsets': [at, at + len(data)]}
        parts.append(data)
        at += len(data)
    text = json.dumps(head).encode()
    text += b' ' * (-len(text) % 8)
    with open(path, 'wb') as f:
        f.write(struct.pack('<Q', len(text)) + text + b''.join(parts))


# ---------------------------------------------------------------- other programs' types

class InitParams(ctypes.Structure):
    _fields_ = [('mem_size', ctypes.c_size_t), ('mem_buffer', ctypes.c_void_p), ('no_alloc', ctypes.c_bool)]


class Library:
    """ggml's quantizers. Those of a row, the same in every program that has the type."""

    def __init__(self, path):
        self.lib = lib = ctypes.CDLL(os.path.abspath(path))
        lib.ggml_type_name.restype = ctypes.c_char_p
        lib.ggml_init.argtypes, lib.ggml_init.restype = [InitParams], ctypes.c_void_p
        lib.ggml_init(InitParams(1 << 16, None, False))  # fills tables
        pointer, n = ctypes.c_void_p, ctypes.c_int64
        lib.ggml_row_size.argtypes, lib.ggml_row_size.restype = [ctypes.c_int, n], ctypes.c_size_t
        # one program takes an argument more, which is a null pointer here
        lib.ggml_quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer, n, n, n, pointer, pointer]
        lib.ggml_quantize_chunk.restype = ctypes.c_size_t
        self.types = [t for t in OTHERS if hasattr(lib, f'dequantize_row_{t}') and lib.ggml_type_name(OTHERS[t]) == t.encode()]

    def bits(self, kind, cols):
        return 8 * self.lib.ggml_row_size(OTHERS[kind], cols) / cols

    def values(self, kind, weights, importance):
        """f32 [rows][cols], [cols] -> f32 [rows][cols]"""
        weights, importance = np.ascontiguousarray(weights, np.float32), np.ascontiguousarray(importance, np.float32)
        rows, cols = weights.shape
        size, out = self.lib.ggml_row_size(OTHERS[kind], cols), np.empty_like(weights)
        packed, decode = np.zeros((rows, size), np.uint8), getattr(self.lib, f'dequantize_row_{kind}')
        decode.argtypes, decode.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64], None
        self.lib.ggml_quantize_chunk(OTHERS[kind], weights.ctypes.data, packed.ctypes.data, 0, rows, cols, importance.ctypes.data, None)
        for r in range(rows):
            decode(packed[r].ctypes.data, out[r].ctypes.data, cols)
        return out


# ---------------------------------------------------------------- cvq's commands

class Commands:
    def __init__(self, args):
        self.bin, self.folder = os.path.join(args.build, 'bin'), args.folder

    def path(self, name):
        return os.path.join(self.folder, name)

    def run(self, program, *args):
        command = [os.path.join(self.bin, program), *args]
        r = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
        if r.returncode:
            sys.exit(f'compare_types: {" ".join(command)}: exit status {r.returncode}')
        return r.stdout

    def convert(self, checkpoint, name):
        out = self.path(name)
        self.run('cvq-convert', '-q', '--force', '--recipe', 'bf16', checkpoint, out)
        return out

    def quantize(self, source, name, pattern, kind, *options):
        out = self.path(name)
        self.run('cvq-quantize', '-q', '--force', '--recipe', 'bf16', '--type', f'{pattern}={kind}', *options, source, out)
        return out


def cvq_values(path, names):
    """-> {name: f32 [rows][cols]}, bits of a weight in them"""
    file = CvqFile(path)
    chosen = [t for t in file.tensors if t.name in names]
    bits = 8 * sum(t.size for t in chosen) / sum(t.rows * t.cols for t in chosen)
    return {t.name: file.values(t)[0] for t in chosen}, bits


# ---------------------------------------------------------------- errors

def diagonal_error(w, v, h):
    e = (v - w).astype(np.float64)
    return (e * e @ h).sum() / (w.astype(np.float64) ** 2 @ h).sum()


def full_error(w, v, c):
    e, w = (v - w).astype(np.float64), w.astype(np.float64)
    return np.einsum('ij,ij->', e @ c, e) / np.einsum('ij,ij->', w @ c, w)


class Statistics:
    """Importance and second moments, as cvq-calibrate wrote them"""

    def __init__(self, importance, moments):
        self.h, self.c = {}, {}
        for name in (n for n in importance if n.endswith('.sum_sq')):
            self.h[name[:-7]] = importance[name].astype(np.float64) / max(1, int(importance[name[:-7] + '.count'][0]))
        for name in (n for n in moments if n.endswith('.sum_sq')):
            root = np.sqrt(moments[name].astype(np.float64) / int(moments[name[:-7] + '.count'][0]))
            c = np.zeros((len(root),) * 2)
            c[np.tril_indices(len(root))] = moments[name[:-7] + '.correlation']
            self.c[name[:-7]] = (np.tril(c) + np.tril(c, -1).T) * np.outer(root, root)

    def errors(self, source, values):
        """-> diagonal error, full error of the language and of the vision expert"""
        diagonal = [diagonal_error(w, values[n], self.h[n]) for n, w in source.items()]
        full = {n: full_error(w, values[n], self.c[n.replace('up_proj', 'gate_proj')]) for n, w in source.items()}
        return (np.mean(diagonal), *(np.mean([e for n, e in full.items() if expert in n]) for expert in ('language', 'vision')))


# ---------------------------------------------------------------- a model

def first_questions(args, folder):
    """The task's first questions, pictures by their whole path. -> its path"""
    base, path = os.path.dirname(os.path.abspath(args.task)), os.path.join(folder, 'task.jsonl')
    with open(args.task, encoding='utf-8') as f, open(path, 'w', encoding='utf-8') as out:
        for line in [x for x in f if x.strip()][:args.questions]:
            question = json.loads(line)
            if 'image' in question:
                question['image'] = os.path.join(base, question['image'])
            out.write(json.dumps(question) + '\n')
    return path


class Model:
    def __init__(self, args, commands):
        self.cmd, self.args = commands, args
        self.bf16 = commands.convert(SMALL, 'bf16.cvq')
        self.task = first_questions(args, commands.folder)
        self.h, self.c = commands.path('importance.safetensors'), commands.path('moments.safetensors')
        commands.run('cvq-calibrate', '--force', '--precision', 'exact', '--second-moments', self.c, '-o', self.h, self.bf16,
                     args.calibration)
        self.stats = Statistics(read_safetensors(self.h), read_safetensors(self.c))
        self.checkpoint = {}
        for path in sorted(glob.glob(os.path.join(SMALL, '*.safetensors'))):
            self.checkpoint.update(read_safetensors(path))
        self.source = {n: w for n, w in self.checkpoint.items()
                       if n.startswith('model.layers.') and w.ndim == 2}
        for name, what in self.data():
            commands.run('cvq-perplexity', '-q', '--save-logits', commands.path(name + '.ref'), *what(self.bf16))

    def data(self):
        return (('text', lambda m: [m, self.args.text]), ('answers', lambda m: ['--jsonl', m, self.task]))

    def row(self, name, bits, values, file):
        found = {n: json.loads(self.cmd.run('cvq-perplexity', '-q', '--json', '--precision', 'exact', '--kld', self.cmd.path(n + '.ref'),
                                            *what(file))) for n, what in self.data()}
        diagonal, language, vision = (1000 * e for e in self.stats.errors(self.source, values))
        print(f'| {name} | {bits:.2f} | {diagonal:.2f} | {language:.2f} / {vision:.3g} | x{found["text"]["perplexity_ratio"]:.4f} | '
              f'{found["text"]["kld_mean"]:.4f} | {found["answers"]["kld_mean"]:.5f} |', flush=True)
        os.remove(file)

    def other(self, library, kind):
        values = {n: library.values(kind, w, self.stats.h[n]) for n, w in self.source.items()}
        folder = self.cmd.path('checkpoint')
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(SMALL, folder, ignore=shutil.ignore_patterns('*.safetensors*'))
        write_safetensors(os.path.join(folder, 'model.safetensors'), {**self.checkpoint, **values})
        weights = sum(w.size for w in self.source.values())
        bits = sum(library.bits(kind, w.shape[1]) * w.size for w in self.source.values()) / weights
        self.row(kind, bits, values, self.cmd.convert(folder, f'{kind}.cvq'))

    def ours(self, kind, how, *options):
        file = self.cmd.quantize(self.bf16, f'{kind}.cvq', 'model.layers.*', kind, *options)
        values, bits = cvq_values(file, self.source)
        self.row(f'{kind}, `{how}`', bits, values, file)


def compare_models(args, commands, library):
    model = Model(args, commands)
    print('| | bits | diagonal error | full error, language / vision expert | perplexity | KLD text | KLD answers |')
    print('|---|---|---|---|---|---|---|')
    for kind in library.types if library else ():
        model.other(library, kind)
    for kind in args.types:
        model.ours(kind, '--imatrix', '--imatrix', model.h)
        model.ours(kind, '--feedback', '--imatrix', model.h, '--feedback', model.c)


# ---------------------------------------------------------------- synthetic rows

def importance_of(rng, cols):
    h = rng.lognormal(size=cols)
    h[rng.choice(cols, 6, replace=False)] *= 1000
    return h.astype(np.float32)


def rows_as_model(args, commands, cols):
    """A model whose down_proj, two layers by two experts, are the rows. -> .cvq, importance file, {distribution: (name, rows)}, importance"""
    rng = np.random.default_rng(cols)
    with open(os.path.join(SMALL, 'config.json'), encoding='utf-8') as f:
        config = json.load(f)
    config.update(hidden_size=args.rows, num_attention_heads=args.rows // 32, num_multi_query_heads=1, intermediate_size=cols,
                  num_hidden_layers=2)
    folder = commands.path(f'rows-{cols}')
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(SMALL, folder, ignore=shutil.ignore_patterns('*.safetensors*', 'config.json'))
    with open(os.path.join(folder, 'config.json'), 'w', encoding='utf-8') as f:
        json.dump(config, f)
    vision = {f'vit_{k}': v for k, v in config['vision_config'].items()}
    shape = {**config, **vision, 'num_heads': config['num_attention_heads'], 'num_kv_heads': 1, 'vit_num_layers': vision['vit_num_hidden_layers'],
             'patch_size': config['vision_config']['patch_size'], 'in_channels': config['vision_config']['in_channels'], 'num_layers': 2}
    tensors = {n: np.zeros(dims, np.float32) for n, dims, _ in tensor_list(shape)}
    places = [f'model.layers.{layer}.mlp.{expert}_mlp.down_proj.weight' for layer in (0, 1) for expert in ('language', 'vision')]
    rows, h, calibration = {}, importance_of(rng, cols), {}
    for (kind, freedom), name in zip(ROWS.items(), places):
        w = rng.standard_normal((args.rows, cols)) if freedom is None else rng.standard_t(freedom, (args.rows, cols))
        rows[kind] = name, from_bf16(to_bf16(0.02 * w))
        tensors[name] = rows[kind][1]
        calibration[name + '.sum_sq'], calibration[name + '.count'] = h * 1000, np.array([1000], np.int64)
    write_safetensors(os.path.join(folder, 'model.safetensors'), tensors)
    write_safetensors(commands.path('rows.safetensors'), calibration)
    return commands.convert(folder, 'rows.cvq'), commands.path('rows.safetensors'), rows, h.astype(np.float64)


def errors_of_rows(args, commands, library, cols):
    """-> {type: {distribution: diagonal error}}"""
    model, importance, rows, h = rows_as_model(args, commands, cols)
    out = {t: {k: diagonal_error(w, library.values(t, w, h), h) for k, (_, w) in rows.items()} for t in (library.types if library else ())}
    for kind in args.types:
        file = commands.quantize(model, f'rows-{kind}.cvq', 'model.layers.*down_proj.weight', kind, '--imatrix', importance)
        values, _ = cvq_values(file, [name for name, _ in rows.values()])
        out[kind] = {k: diagonal_error(w, values[name], h) for k, (name, w) in rows.items()}
        os.remove(file)
    return out


def compare_rows(args, commands, library):
    found = [errors_of_rows(args, commands, library, cols) for cols in WIDTHS]
    types = list(found[0])
    first, rest = types[0], types[1:]
    print(f'| relative to {first}; {"; ".join(f"{c:,}" for c in WIDTHS)} | ' + ' | '.join(rest) + ' |')
    print('|---' * (1 + len(rest)) + '|')
    for kind in ROWS:
        print(f'| {kind} | ' + ' | '.join('; '.join(f'{f[t][kind] / f[first][kind]:.2f}' for f in found) for t in rest) + ' |', flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--calibration')
    p.add_argument('--text')
    p.add_argument('--task')
    p.add_argument('--library')
    p.add_argument('--types', default='q4t,q4s')
    p.add_argument('--build', default='build')
    p.add_argument('--folder', default='build/compare-types')
    p.add_argument('--questions', type=int, default=1500)
    p.add_argument('--rows', type=int, default=128)
    p.add_argument('--skip-model', action='store_true')
    p.add_argument('--skip-rows', action='store_true')
    args = p.parse_args()
    if not args.skip_model and not (args.calibration and args.text and args.task):
        p.error('a model needs --calibration, --text and --task; --skip-model compares rows alone')
    args.types = args.types.split(',')
    os.makedirs(args.folder, exist_ok=True)
    commands, library = Commands(args), Library(args.library) if args.library else None
    if not args.skip_model:
        compare_models(args, commands, library)
    if not args.skip_rows:
        compare_rows(args, commands, library)


if __name__ == '__main__':
    main()
