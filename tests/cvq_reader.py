"""An independent reader of .cvq files, written from docs/format.md alone: numpy and hashlib, and
libzstd for the metadata. It checks what the specification demands and decodes every type.

    cvq_reader.py FILE     checks FILE and lists its tensors
"""
import ctypes
import ctypes.util
import hashlib
import json
import math
import re
import struct
import sys

import numpy as np

ALIGNMENT, CHUNK = 65536, 1 << 20
MAX_HEAD, MAX_TOKENIZER, MAX_METADATA = 256 << 20, 64 << 20, 16 << 20
SECTIONS = ['CONFIG', 'INDEX', 'TOKENIZER', 'METADATA', 'CHUNKS', 'RESERVE', 'DATA']
CONFIG = ('hidden_size num_layers num_heads num_kv_heads intermediate_size vocab_size max_positions '
          'rms_norm_eps bos_id pad_id num_eos eos_0 eos_1 eos_2 eos_3 eos_4 eos_5 eos_6 eos_7 '
          'template_version vit_hidden_size vit_num_layers vit_num_heads vit_intermediate_size image_size '
          'patch_size in_channels vit_num_positions vit_layer_norm_eps').split()
F32, BF16, Q8, Q6, Q4T, Q4, Q4S, Q4H = range(8)
NAMES = ['f32', 'bf16', 'q8', 'q6', 'q4t', 'q4', 'q4s', 'q4h']
GROUP = [1, 64, 256, 64, 64, 64, 128, 64]
ROW_BYTES = [4, 128, 260, 52, 36, 36, 68, 36]
HEAD_BYTES = [0, 0, 0, 0, 0, 0, 4, 0]
TABLED = (Q4T, Q4S)
# q4s: level 0 is zero, the others rise by 6% to 255
LEVELS = np.array([0] + [round(255 * 1.06 ** (i - 31)) for i in range(1, 32)], np.float32)


# q4h: wide and narrow
TABLES = np.array([[0, 19, 27, 35, 41, 46, 51, 56, 60, 64, 69, 75, 81, 87, 96, 113],
                   [21, 29, 35, 40, 45, 49, 53, 56, 59, 62, 66, 70, 74, 79, 84, 93]], np.int32)


class Malformed(Exception):
    pass


def need(condition, what):
    if not condition:
        raise Malformed(what)


def up(n, unit):
    return (n + unit - 1) // unit * unit


# ---------------------------------------------------------------- types

def decode_group(kind, height, data, table=None, zero=0, rows=None):
    """bytes of a group -> values [height][columns]; f32, one rounding. rows: q4s, scales of the rows"""
    if kind == F32:
        return data.view('<f4').reshape(1, 1)
    if kind == BF16:
        lines = data.view('<u2').astype(np.uint32)
        if height == 16:  # [32 pairs of columns][16 rows][2]
            lines = lines.reshape(32, 16, 2).transpose(1, 0, 2)
        return (lines.reshape(height, 64) << 16).view(np.float32)
    rest, blocks = data[4 * height:], 2
    if kind == Q4S:
        blocks, byte = 4, data[:4 * height].reshape(4, height)
        scale = rows * np.where(byte & 128, -1, 1).astype(np.float32) * LEVELS[byte & 31]
        offset = 5 + 4 * (byte >> 5 & 3)
    else:
        bits = data[:4 * height].view('<u2').reshape(2, height)
        if kind == Q4H:
            level = (bits >> 8).astype(np.int32)
            scale = np.ldexp((16 + level % 16).astype(np.float32), level // 16 - 22)
        else:
            scale, offset = bits.view('<f2').astype(np.float32), bits & 31
    if kind == Q8:  # [block][32 fours][row][4]
        code = rest.reshape(2, 32, height, 4).transpose(2, 0, 1, 3).reshape(height, 2, 128).astype(np.int32)
    else:
        low = rest[:16 * blocks * height].reshape(blocks, 4, height, 4)
        low = low.transpose(2, 0, 1, 3).reshape(height, blocks, 16)
        code = np.concatenate([low & 15, low >> 4], axis=2).astype(np.int32)
        if kind == Q6:
            high = rest[32 * height:].reshape(2, 2, height, 4).transpose(2, 0, 1, 3).reshape(height, 2, 8)
            code |= np.concatenate([high >> s & 3 for s in (0, 2, 4, 6)], axis=2).astype(np.int32) << 4
    if kind == Q4H:  # [row][block][column]
        half = bits.T[:, :, None] >> np.where(np.arange(32) < 16, 0, 4).astype(np.uint16) & 15
        number = TABLES[half >> 3, code] + 2 * (half & 7).astype(np.int32) - 64
    elif kind in TABLED:
        number = table[code].astype(np.int32) + offset.T[:, :, None].astype(np.int32) - zero
    else:
        number = code - {Q8: 128, Q6: 32, Q4: 8}[kind]
    return (scale.T[:, :, None] * number.astype(np.float32)).reshape(height, -1)


def decode(kind, height, rows, cols, data, table=None, zero=0):
    """bytes of a tensor -> (values [rows][cols], padding as values: below, right)"""
    if kind == F32:
        return data.view('<f4').reshape(rows, cols), None
    padded = up(cols, GROUP[kind])
    out = np.empty((up(rows, height), padded), np.float32)
    head, size, across = height * HEAD_BYTES[kind], height * ROW_BYTES[kind], padded // GROUP[kind]
    for p, panel in enumerate(data.reshape(-1, head + across * size)):
        scales = panel[:head].view('<f4')
        for k, g in enumerate(panel[head:].reshape(across, size)):
            out[p * height:(p + 1) * height, k * GROUP[kind]:(k + 1) * GROUP[kind]] = decode_group(
                kind, height, g, table, zero, scales)
    return out[:rows, :cols], (out[rows:, :], out[:rows, cols:])


# ---------------------------------------------------------------- the model's tensors

def tensor_list(c):
    """[(name, dims, role)] in the order of the file"""
    h, mlp, vocab, v, vm = (c[k] for k in ('hidden_size', 'intermediate_size', 'vocab_size', 'vit_hidden_size',
                                           'vit_intermediate_size'))
    head = h // c['num_heads']
    qkv = h + 2 * c['num_kv_heads'] * head
    out = []

    def add(name, role, *dims):
        out.append((name, dims, role))

    for n in range(c['num_layers']):
        p = f'model.layers.{n}.'
        add(p + 'input_layernorm.weight', 'vector', h)
        add(p + 'self_attn.rotary_emb.inv_freq', 'inv_freq', head // 2)
        add(p + 'self_attn.language_expert_query_key_value.weight', 'matrix', qkv, h)
        add(p + 'self_attn.language_expert_dense.weight', 'matrix', h, h)
        add(p + 'post_attention_layernorm.weight', 'vector', h)
        for part, dims in (('gate', (mlp, h)), ('up', (mlp, h)), ('down', (h, mlp))):
            add(p + f'mlp.language_mlp.{part}_proj.weight', 'matrix', *dims)
    add('model.norm.weight', 'vector', h)
    add('lm_head.weight', 'matrix', vocab, h)
    add('model.embed_tokens.weight', 'table', vocab, h)
    for n in range(c['num_layers']):
        p = f'model.layers.{n}.'
        add(p + 'self_attn.vision_expert_query_key_value.weight', 'matrix', qkv, h)
        add(p + 'self_attn.vision_expert_query_key_value.bias', 'vector', qkv)
        add(p + 'self_attn.vision_expert_dense.weight', 'matrix', h, h)
        for part, dims in (('gate', (mlp, h)), ('up', (mlp, h)), ('down', (h, mlp))):
            add(p + f'mlp.vision_mlp.{part}_proj.weight', 'matrix', *dims)
    p = 'model.vision.'
    add(p + 'conv.weight', 'matrix', v, v, 2, 2)
    add(p + 'conv.bias', 'vector', v)
    add(p + 'linear_proj.linear_proj.weight', 'matrix', h, v)
    add(p + 'linear_proj.norm1.weight', 'vector', h)
    add(p + 'linear_proj.norm1.bias', 'vector', h)
    add(p + 'linear_proj.gate_proj.weight', 'matrix', mlp, h)
    add(p + 'linear_proj.dense_h_to_4h.weight', 'matrix', mlp, h)
    add(p + 'linear_proj.dense_4h_to_h.weight', 'matrix', h, mlp)
    add(p + 'boi', 'vector', 1, 1, h)
    add(p + 'eoi', 'vector', 1, 1, h)
    size = c['patch_size']
    add(p + 'patch_embedding.proj.weight', 'matrix', v, c['in_channels'], size, size)
    add(p + 'patch_embedding.proj.bias', 'vector', v)
    add(p + 'patch_embedding.cls_embedding', 'vector', 1, v)
    add(p + 'patch_embedding.position_embedding.weight', 'table', c['vit_num_positions'], v)
    for n in range(c['vit_num_layers']):
        p = f'model.vision.transformer.layers.{n}.'
        for name, dims in (('attention.query_key_value', (3 * v, v)), ('attention.dense', (v, v)),
                           ('input_layernorm', (v,)), ('mlp.fc1', (vm, v)), ('mlp.fc2', (v, vm)),
                           ('post_attention_layernorm', (v,))):
            add(p + name + '.weight', 'matrix' if len(dims) == 2 else 'vector', *dims)
            add(p + name + '.bias', 'vector', dims[0])
    return out


ALLOWED = {'matrix': (BF16, Q8, Q6, Q4T, Q4, Q4S, Q4H), 'table': tuple(range(8)), 'vector': (F32,),
           'inv_freq': (F32, BF16)}


class Tensor:
    def __init__(self, name, dims, role):
        self.name, self.dims, self.role = name, dims, role
        flat = role in ('vector', 'inv_freq')
        total = int(np.prod(dims, dtype=object))
        self.rows = 1 if flat else dims[0]
        self.cols = total // self.rows


# ---------------------------------------------------------------- tokenizer

class Tokenizer:
    def __init__(self, data):
        need(len(data) >= 32 and data[:4] == b'CVQT', 'tokenizer: magic')
        version, n, ordinary, merges, size, flags, reserved = struct.unpack('<7I', data[4:32])
        need(version == 1 and flags < 2 and reserved == 0, 'tokenizer: header')
        need(1 <= n <= 1 << 20 and ordinary <= n and merges <= 1 << 21, 'tokenizer: counts')
        counts = [n + 1, n, n, ordinary + 1, 3 * merges]
        need(len(data) == 32 + 4 * sum(counts) + size, 'tokenizer: size')
        at, arrays = 32, []
        for k in counts:
            arrays.append(np.frombuffer(data, '<u4', k, at).astype(np.int64))
            at += 4 * k
        offsets, self.ids, numbers, first, table = arrays
        text = data[at:]
        need(offsets[0] == 0 and offsets[-1] == size and (np.diff(offsets) >= 0).all(), 'tokenizer: offsets')
        need((np.diff(offsets)[:ordinary] > 0).all(), 'tokenizer: an ordinary piece is empty')
        need((numbers < n).all() and (self.ids[numbers] == np.arange(n)).all(), 'tokenizer: ids')
        need((np.diff(self.ids[ordinary:]) > 0).all(), 'tokenizer: order of the others')
        self.pieces = [text[offsets[i]:offsets[i + 1]] for i in range(n)]
        need(all(a < b for a, b in zip(self.pieces[:ordinary], self.pieces[1:ordinary])), 'tokenizer: order')
        need({bytes([b]) for b in range(256)} <= set(self.pieces[:ordinary]), 'tokenizer: single bytes')
        need(first[0] == 0 and first[-1] == merges and (np.diff(first) >= 0).all(), 'tokenizer: merges')
        table = table.reshape(-1, 3)
        need((table[:, [0, 2]] < ordinary).all(), 'tokenizer: a merge of no ordinary piece')
        need(sorted(table[:, 1]) == list(range(merges)), 'tokenizer: ranks')
        self.merges, self.ignore_merges, self.ordinary = [None] * merges, bool(flags & 1), ordinary
        for left in range(ordinary):
            mine = table[first[left]:first[left + 1]]
            need((np.diff(mine[:, 0]) > 0).all(), 'tokenizer: order of merges')
            for right, rank, merged in mine:
                need(self.pieces[merged] == self.pieces[left] + self.pieces[right], 'tokenizer: a merge')
                self.merges[rank] = tuple(int(self.ids[i]) for i in (left, right, merged))


# ---------------------------------------------------------------- config

BOUNDS = {'hidden_size': (2, 65536), 'num_layers': (1, 1024), 'num_heads': (1, 1024), 'num_kv_heads': (1, 1024),
          'intermediate_size': (1, 262144), 'vocab_size': (257, 1 << 20), 'max_positions': (8, 1 << 20), 'num_eos': (1, 8),
          'template_version': (0, 2), 'vit_hidden_size': (2, 65536), 'vit_num_layers': (1, 1024), 'vit_num_heads': (1, 1024),
          'vit_intermediate_size': (1, 262144), 'image_size': (4, 4096), 'patch_size': (1, 256), 'in_channels': (3, 3)}


def check_config(c):
    for name, (least, most) in BOUNDS.items():
        need(least <= c[name] <= most, f'CONFIG: {name}')
    need(c['hidden_size'] % c['num_heads'] == 0 and c['hidden_size'] // c['num_heads'] % 2 == 0, 'CONFIG: hidden_size / num_heads')
    need(c['num_heads'] % c['num_kv_heads'] == 0, 'CONFIG: num_heads / num_kv_heads')
    need(c['vit_hidden_size'] % c['vit_num_heads'] == 0, 'CONFIG: vit_hidden_size / vit_num_heads')
    grid, rest = divmod(c['image_size'], c['patch_size'])
    need(rest == 0 and grid % 2 == 0, 'CONFIG: image_size / patch_size')
    need(c['vit_num_positions'] == grid * grid + 1, 'CONFIG: vit_num_positions')
    for name in ('rms_norm_eps', 'vit_layer_norm_eps'):
        need(0 < c[name] <= np.float32(0.1), f'CONFIG: {name}')
    ends = [c[f'eos_{i}'] for i in range(8)]
    need(max([c['bos_id'], c['pad_id']] + ends[:c['num_eos']]) < c['vocab_size'], 'CONFIG: an id')
    need(not any(ends[c['num_eos']:]), 'CONFIG: unused eos_ids')


# ---------------------------------------------------------------- metadata

def members(pairs):
    need(len(dict(pairs)) == len(pairs), 'metadata: a key stands twice')
    return dict(pairs)


def number(kind):
    def read(digits):
        need(len(digits) <= 63, 'metadata: a long number')
        return kind(digits)
    return read


def constant(word):
    raise Malformed(f'metadata: {word}')


def check_strings(value, depth=0):
    """NUL, halves of surrogate pairs, and depth"""
    need(depth <= 64, 'metadata: depth')
    if isinstance(value, str):
        need(not re.search('[\0\ud800-\udfff]', value), 'metadata: a string')
    elif isinstance(value, (dict, list)):
        for v in value:
            check_strings(v, depth + 1)
        for v in value.values() if isinstance(value, dict) else ():
            check_strings(v, depth + 1)


def check_object(value, keys, optional=()):
    need(isinstance(value, dict) and set(keys) <= set(value) <= set(keys) | set(optional), f'metadata: keys {keys}')
    return value


def check_text(value):
    need(isinstance(value, str), 'metadata: no string')
    return value


def check_metadata(text):
    try:
        root = json.loads(text.decode('utf-8', 'strict'), object_pairs_hook=members, parse_int=number(int), parse_float=number(float),
                          parse_constant=constant)
    except (ValueError, RecursionError) as e:
        raise Malformed(f'metadata: {e}') from None
    check_strings(root, 0)
    check_object(root, ('format', 'recipe', 'source', 'generation', 'licenses', 'card'))
    need(root['format'] == 'cvq', 'metadata: format')
    check_text(root['card'])
    recipe = check_object(root['recipe'], ('name', 'types'), ('importance', 'second_moments'))
    check_text(recipe['name'])
    need(isinstance(recipe['types'], dict), 'metadata: types')
    for value in recipe['types'].values():
        check_text(value)
    source = check_object(root['source'], ('revision', 'files'))
    check_text(source['revision'])
    need(isinstance(source['files'], list) and isinstance(root['licenses'], list), 'metadata: a list')
    hashes = [recipe[k] for k in ('importance', 'second_moments') if k in recipe]
    for file in source['files']:
        check_object(file, ('name', 'size', 'sha256'))
        need(check_text(file['name']) and '/' not in file['name'], 'metadata: name of a file')
        size = file['size']
        need(type(size) in (int, float) and 0 <= size < 2 ** 53 and size == math.floor(size), 'metadata: size of a file')
        hashes.append(file['sha256'])
    for digits in hashes:
        need(re.fullmatch('[0-9a-f]{64}', check_text(digits)), 'metadata: a hash')
    for value in check_object(root['generation'], (), ('temperature', 'top_p')).values():
        need(type(value) in (int, float) and 0 <= value <= 10 ** 6, 'metadata: generation')
    for licence in root['licenses']:
        check_object(licence, ('name', 'text'))
        check_text(licence['name']), check_text(licence['text'])


# ---------------------------------------------------------------- the file

def unzstd(frame, size):
    name = ctypes.util.find_library('zstd')
    if not name:
        return None
    lib = ctypes.CDLL(name)
    lib.ZSTD_decompress.restype = lib.ZSTD_findFrameCompressedSize.restype = ctypes.c_size_t
    need(lib.ZSTD_findFrameCompressedSize(frame, ctypes.c_size_t(len(frame))) == len(frame), 'metadata: frame')
    out = ctypes.create_string_buffer(size)
    need(lib.ZSTD_decompress(out, ctypes.c_size_t(size), frame, ctypes.c_size_t(len(frame))) == size,
         'metadata: size')
    return out.raw


class CvqFile:
    def __init__(self, path):
        self.data = np.memmap(path, np.uint8, 'r')
        self._header()
        self.config = self._config()
        check_config(self.config)
        self.tensors = self._index()
        self.tokenizer = Tokenizer(self._section('TOKENIZER'))
        need(self.sections['TOKENIZER'][1] <= MAX_TOKENIZER, 'TOKENIZER: size')
        need(len(self.tokenizer.ids) <= self.config['vocab_size'], 'more tokens than vocab_size')
        raw = self._section('METADATA')
        need(len(raw) > 8, 'METADATA: size')
        size, = struct.unpack('<Q', raw[:8])
        need(0 < size <= MAX_METADATA, 'METADATA: stated size')
        self.metadata = unzstd(raw[8:], size)

    def check_metadata(self):
        """Not done with the rest: the worked example of the specification has none of the keys."""
        if self.metadata is not None:  # without libzstd
            check_metadata(self.metadata)

    def _section(self, name):
        offset, size = self.sections[name]
        return self.data[offset:offset + size].tobytes()

    def _header(self):
        d = self.data
        need(len(d) >= 240 and d[:8].tobytes() == b'\x89CVQ\r\n\x1a\n', 'magic')
        version, features, size, self.head_size = struct.unpack('<IIQQ', d[8:32].tobytes())
        need(version == 1 and features == 0, 'version')
        need(size == len(d), 'file size')
        need(0 < self.head_size <= min(MAX_HEAD, size) and self.head_size % ALIGNMENT == 0, 'head size')
        head = d[:self.head_size].copy()
        self.id = head[32:64].tobytes()
        head[32:64] = 0
        need(hashlib.sha256(head).digest() == self.id, 'hash of the head')
        need(struct.unpack('<II', head[64:72].tobytes()) == (7, 0), 'section count')
        end, self.sections = 240, {}
        for i, name in enumerate(SECTIONS):
            kind, reserved, offset, length = struct.unpack('<IIQQ', head[72 + 24 * i:96 + 24 * i].tobytes())
            need(kind == i + 1 and reserved == 0, f'section {name}')
            need(offset == up(end, 64) and not head[end:offset].any(), f'section {name}: place or padding')
            end = offset + length
            self.sections[name] = (offset, length)
            if name == 'RESERVE':
                need(end == self.head_size and not head[offset:end].any(), 'RESERVE')
        need(end == size, 'end of DATA')

    def _config(self):
        raw = self._section('CONFIG')
        need(len(raw) == 116, 'CONFIG: size')
        floats = ('rms_norm_eps', 'vit_layer_norm_eps')
        return dict(zip(CONFIG, struct.unpack('<' + ''.join('f' if n in floats else 'I' for n in CONFIG), raw)))

    def _index(self):
        raw, wanted = self._section('INDEX'), tensor_list(self.config)
        need(len(raw) == 200 * len(wanted), 'INDEX: size')
        at, chunk, out = self.sections['DATA'][0], 0, []
        for i, (name, dims, role) in enumerate(wanted):
            t, e = Tensor(name, dims, role), raw[200 * i:200 * i + 200]
            need(e[:104] == name.encode().ljust(104, b'\0'), f'name of {name}')
            t.type, t.height, ndim, reserved, *place = struct.unpack('<4I4Q3Q', e[104:176])
            need(ndim == len(dims) and reserved == 0, f'{name}: ndim')
            need(tuple(place[:4]) == tuple(dims) + (1,) * (4 - len(dims)), f'{name}: dims')
            need(t.type in ALLOWED[role] and t.height == (16 if role == 'matrix' else 1), f'{name}: type')
            t.table, t.zero = np.frombuffer(e[176:192], np.uint8), e[192]
            book = e[176:]
            if t.type in TABLED:
                need(t.table[0] == 0 and (np.diff(t.table.astype(int)) > 0).all() and t.table[15] <= 127
                     and t.zero <= 127 and not any(book[17:]), f'{name}: codebook')
            else:
                need(not any(book), f'{name}: codebook')
            t.size = up(t.rows, t.height) * (
                HEAD_BYTES[t.type] + up(t.cols, GROUP[t.type]) // GROUP[t.type] * ROW_BYTES[t.type])
            t.offset, t.first_chunk = up(at, ALIGNMENT), chunk
            need(tuple(place[4:]) == (t.offset, t.size, t.first_chunk), f'{name}: place')
            at = t.offset + t.size
            chunk += up(t.size, CHUNK) // CHUNK
            out.append(t)
        need(at == len(self.data), 'end of the last tensor')
        need(self.sections['CHUNKS'][1] == 32 * chunk, 'CHUNKS: size')
        return out

    def bytes_of(self, t):
        return np.asarray(self.data[t.offset:t.offset + t.size])

    def values(self, t):
        """f32 [rows][cols] and the padding"""
        return decode(t.type, t.height, t.rows, t.cols, self.bytes_of(t), t.table, t.zero)

    def damage(self):
        """[(tensor name or 'padding', offset, size)]"""
        bad, end, table = [], self.head_size, self.sections['CHUNKS'][0]
        for t in self.tensors:
            if self.data[end:t.offset].any():
                bad.append(('padding', end, t.offset - end))
            for i, at in enumerate(range(0, t.size, CHUNK)):
                piece = self.data[t.offset + at:t.offset + min(at + CHUNK, t.size)]
                here = table + 32 * (t.first_chunk + i)
                if hashlib.sha256(piece).digest() != self.data[here:here + 32].tobytes():
                    bad.append((t.name, t.offset + at, len(piece)))
            end = t.offset + t.size
        return bad


if __name__ == '__main__':
    file = CvqFile(sys.argv[1])
    print('id', file.id.hex())
    for tensor in file.tensors:
        print(tensor.name, 'x'.join(map(str, tensor.dims)), NAMES[tensor.type], tensor.offset, tensor.size, sep='\t')
    for where in file.damage():
        print('damaged:', *where)
