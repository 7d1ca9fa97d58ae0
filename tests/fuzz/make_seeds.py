#!/usr/bin/env python3
"""Seeds of the fuzz corpora that are text or pictures:  make_seeds.py CORPUS
(tests/tools/fuzz_seeds.c makes the binary ones.) Files that are there stay."""
import io
import json
import os
import random
import struct
import sys
import zlib

import numpy
from PIL import Image

corpus = sys.argv[1]
MINISIGN_KEY = 'untrusted comment: minisign public key\nRWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3\n'
MINISIGN = ('untrusted comment: signature from minisign secret key\n'
            'RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=\n'
            'trusted comment: timestamp:1633700835\tfile:test\tprehashed\n'
            'wLMDjy9FLAuxZ3q4NlEvkgtyhrr0gtTu6KC4KBJdITbbOeAi1zBIYo0v4iTgt8jJpIidRJnp94ABQkJAgAooBQ==\n')


def seed(target, name, data):
    folder = os.path.join(corpus, target)
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        with open(path, 'wb') as f:
            f.write(data if isinstance(data, bytes) else data.encode())


def safetensors(tensors):
    header, at = {}, 0
    for name, dtype, shape, data in tensors:
        header[name] = {'dtype': dtype, 'shape': shape, 'data_offsets': [at, at + len(data)]}
        at += len(data)
    text = json.dumps({**header, '__metadata__': {'format': 'pt'}}).encode()
    text += b' ' * (-len(text) % 8)
    return struct.pack('<Q', len(text)) + text + b''.join(t[3] for t in tensors)


def picture(mode, kind, size=(9, 7), **options):
    out = io.BytesIO()
    noise = numpy.random.default_rng(3).integers(0, 256, (size[1], size[0], 4), dtype=numpy.uint8)
    Image.fromarray(noise, 'RGBA').convert(mode).save(out, kind, **options)
    return out.getvalue()


def png(width, height, depth, color, palette):
    """An interlaced one, which PIL does not write: the rows of seven passes, each with its filter."""
    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    bits, rows = depth * {0: 1, 2: 3, 3: 1, 6: 4}[color], b''
    for x0, y0, dx, dy in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)):
        w, h = len(range(x0, width, dx)), len(range(y0, height, dy))
        rows += b''.join(bytes([y % 5]) + bytes(range((bits * w + 7) // 8)) for y in range(h)) if w else b''
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, depth, color, 0, 0, 1)) +
            (chunk(b'PLTE', palette) + chunk(b'tRNS', b'\0\200') if palette else b'') + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b''))


seed('safetensors', 'half', safetensors([('h', 'F16', [3], b'\0\x3c' * 3), ('b', 'BOOL', [1, 1], b'\1'), ('d', 'F64', [0], b'')]))
seed('safetensors', 'small', safetensors([('a', 'F32', [2, 3], b'\0' * 24), ('b', 'BF16', [4], b'\1' * 8), ('c', 'I64', [], b'\2' * 8)]))
seed('safetensors', 'empty', safetensors([]))
seed('safetensors_index', 'shards', json.dumps({'weight_map': {'x': 'a.safetensors', 'y': 'a.safetensors', 'z': 'b.safetensors'}}))
seed('safetensors_index', 'small', json.dumps({'metadata': {'total_size': 32}, 'weight_map': {'a': 'model-1.safetensors'}}))
seed('importance', 'small', safetensors([
    ('model.layers.0.self_attn.language_expert_dense.weight.sum_sq', 'F32', [72], struct.pack('<72f', *range(72))),
    ('model.layers.0.self_attn.language_expert_dense.weight.count', 'I64', [1], struct.pack('<q', 5))]))
with open('models/cogvlm2-tiny/config.json', 'rb') as f:
    seed('config', 'tiny', f.read())
with open('models/cogvlm2-tiny/generation_config.json', 'rb') as f:
    seed('config', 'generation', f.read())
seed('task', 'small', '\n'.join(json.dumps(x) for x in (
    {'image': 'a.png', 'question': 'What?', 'answers': ['a', 'b'], 'id': 'x', 'template': 'vqa', 'history': [['q', 'a']]},
    {'question': 'A or B?', 'choices': ['A', 'B'], 'answers': 'A', 'id': 7}, {'text': 'plain'})) + '\n')
seed('results', 'small', '\n'.join(json.dumps(x) for x in (
    {'id': 'x', 'answer': 'a', 'score': 0.5}, {'id': '7', 'error': 'no such picture'}, {'id': 'x', 'answer': ''})) + '\n{"id":"torn')
rng = random.Random(1)
for i in range(12):
    choices = [rng.randrange(256) for _ in range(16)] + [i % 4, i * 23 % 256, 70, 71, 72, i | 1, 80, 0]
    seed('shape', f'random-{i}', bytes(choices))
for i in range(14):
    seed('quantize', f'random-{i}', bytes((i, 16 * i + 1, 15 * (i > 6), i)) + bytes(b for _ in range(64) for b in (rng.randrange(256), 60 + rng.randrange(4))))
seed('minisign', 'signature', '\1' + MINISIGN)
seed('minisign', 'key', '\0' + MINISIGN_KEY)
for mode in ('RGB', 'RGBA', 'L', 'P', '1', 'LA', 'I;16'):
    if mode == 'I;16':
        out = io.BytesIO()
        Image.fromarray(numpy.arange(63, dtype=numpy.uint16).reshape(7, 9) * 999).save(out, 'PNG')
        seed('picture', 'png-16', out.getvalue())
    else:
        seed('picture', 'png-' + mode, picture(mode, 'PNG'))
for depth, color in ((8, 2), (1, 3), (4, 0), (16, 6)):
    seed('picture', f'png-interlaced-{depth}-{color}', png(9, 7, depth, color, b'\1\2\3\4\5\6\7\10\11' if color == 3 else b''))
seed('picture', 'jpeg', picture('RGB', 'JPEG', (19, 17)))
seed('picture', 'jpeg-grey', picture('L', 'JPEG', (19, 17)))
seed('picture', 'jpeg-420', picture('RGB', 'JPEG', (33, 18), subsampling=2))
seed('picture', 'jpeg-progressive', picture('RGB', 'JPEG', (19, 17), progressive=True))
exif = Image.Exif()
exif[0x112] = 6
seed('picture', 'jpeg-exif', picture('RGB', 'JPEG', (19, 17), exif=exif))
