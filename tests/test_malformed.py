#!/usr/bin/env python3
"""Malformed files of every kind that a command reads, beside .cvq files (tests/unit/test_malformed_files.c): each is refused in one line that names
the file, what is wrong, and where that is not plain, what to do.
cvq-test: native formats"""
import json
import os
import re
import shutil
import struct
import sys
import zlib

import harness
from harness import check, path, read, summary, working_folder, write

SMALL = os.path.abspath('tests/checkpoints/small')
PICTURE = os.path.abspath('models/pictures/number-13.png')
JPEG = os.path.abspath('tests/pictures/photo420.jpg')
rows = 0  # malformed files tried


def run(program, *args):
    return harness.run(program, '--threads', '1', *args, text=True)


def deep(n=100000):
    return '[' * n + ']' * n


# ---------------------------------------------------------------- pictures

def chunk(kind, data, crc=None):
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data) if crc is None else crc)


def png(width=2, height=2, rows=None, before=b'', depth=8, color=2, idat=None, interlace=0):
    rows = b'\0' * (height * (1 + 3 * width)) if rows is None else rows
    ihdr = struct.pack('>IIBBBBB', width, height, depth, color, 0, 0, interlace)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', ihdr) + before + chunk(b'IDAT', zlib.compress(rows) if idat is None else idat) + chunk(b'IEND', b'')


def jpeg(change):
    with open(JPEG, 'rb') as f:
        return change(bytearray(f.read()))


def marker(data, number):
    return data.index(bytes((0xff, number)))


def with_size(data, width, height):
    at = marker(data, 0xc0)
    data[at + 5:at + 9] = struct.pack('>HH', height, width)
    return bytes(data)


def many_scans(data):
    """A progressive picture whose scans repeat: little to read, much to decode."""
    with open('tests/pictures/photo_progressive.jpg', 'rb') as f:
        whole = f.read()
    scan = whole.rindex(b'\xff\xda')
    return whole[:scan] + whole[scan:-2] * 4000 + b'\xff\xd9'


def pictures():
    bomb = zlib.compress(bytes(100 << 20), 9)
    good = png()
    return [
        ('empty', b'', 'empty'),
        ('only a signature', good[:8], 'a truncated PNG: it ends at byte 8, inside a chunk'),
        ('cut in its header', good[:20], 'a truncated PNG: it ends at byte 20, inside a chunk'),
        ('cut in its data', good[:-20], 'a truncated PNG: it ends at byte 48, inside a chunk'),
        ('without its end', good[:-12], 'a truncated PNG: it ends at byte 56, inside a chunk'),
        ('a wrong checksum', good[:-16] + b'\0\0\0\0' + good[-12:], 'a damaged PNG: the checksum of the chunk at byte 33 is wrong'),
        ('no width', png(width=0, rows=b''), 'a picture of 0 x 2 pixels'),
        ('65,535 x 65,535', png(65535, 65535, rows=b''), '65535 x 65535 pixels; at most 200000000 pixels and sides of 65535 are read'),
        ('2^31 - 1 wide', png(2**31 - 1, 1, rows=b''), '2147483647 x 1 pixels; at most 200000000 pixels and sides of 65535 are read'),
        ('2^32 - 1 high', png(1, 2**32 - 1, rows=b''), '1 x 4294967295 pixels; at most 200000000 pixels and sides of 65535 are read'),
        ('a chunk of 2^32 - 1 bytes', good[:33] + b'\xff\xff\xff\xff' + good[37:], 'a truncated PNG: it ends at byte 68, inside a chunk'),
        ('100 MiB of zeros behind 2 x 2', png(idat=bomb), 'a damaged file: it holds more data than 2 x 2 pixels need'),
        ('too little data', png(64, 64, rows=b'\0' * 100), 'a damaged file: it cannot be decoded (not enough pixels)'),
        ('data that are not zlib', png(idat=b'abcdefgh' * 4), 'a damaged file: it cannot be decoded (bad zlib header)'),
        ('a colour type of its own', png(color=5), 'PNG colour type 5 with 8 bits does not exist'),
        ('a depth of its own', png(depth=3), 'PNG colour type 2 with 3 bits does not exist'),
        ('an interlace of its own', png(interlace=9), 'unknown PNG compression, filter or interlace method (0, 0, 9)'),
        ('a palette that is not there', png(color=3, rows=b'\0\0\0' * 2), 'a PNG with palette colours but no palette'),
        ('two headers', good[:33] + good[8:], 'a PNG with a second or misshapen IHDR'),
        ('JPEG: cut in a marker', jpeg(lambda d: bytes(d[:3])), 'a truncated JPEG: it ends at byte 3, before its end marker'),
        ('JPEG: cut in its tables', jpeg(lambda d: bytes(d[:200])), 'a truncated JPEG: it ends at byte 200, before its end marker'),
        ('JPEG: cut in its data', jpeg(lambda d: bytes(d[:len(d) // 2])), 'a truncated JPEG: it ends at byte 487, before its end marker'),
        ('JPEG: no height', jpeg(lambda d: with_size(d, 16, 0)), 'a JPEG that tells its height only at its end; convert it'),
        ('JPEG: 65,535 x 65,535', jpeg(lambda d: with_size(d, 65535, 65535)),
         '65535 x 65535 pixels; at most 200000000 pixels and sides of 65535 are read'),
        ('JPEG: no frame', jpeg(lambda d: bytes(d[:marker(d, 0xc0)] + d[marker(d, 0xda):])),
         'a damaged JPEG: a scan before the frame header (before byte 172)'),
        ('JPEG: two frames', jpeg(lambda d: bytes(d[:marker(d, 0xda)] + d[marker(d, 0xc0):])),
         'a damaged JPEG: a second frame header (before byte 350)'),
        ('JPEG: arithmetic coding', jpeg(lambda d: bytes(d[:marker(d, 0xc0)] + b'\xff\xc9' + d[marker(d, 0xc0) + 2:])),
         'an arithmetic-coded JPEG; only baseline and progressive Huffman-coded ones are read, so'),
        ('JPEG: a segment without length', jpeg(lambda d: bytes(d[:2] + b'\xff\xe1\0\0' + d[2:])),
         'a damaged JPEG: a segment shorter than its own length (before byte 4)'),
        ('JPEG: 4,000 scans', many_scans(None), 'a damaged file: it cannot be decoded (bad huffman code)'),
    ]


# ---------------------------------------------------------------- checkpoints

def checkpoint_files():
    config = json.loads(read('checkpoint/config.json'))
    tokenizer = json.loads(read('checkpoint/tokenizer.json'))
    shard = next(n for n in sorted(os.listdir(path('checkpoint'))) if n.endswith('.safetensors'))
    data = read('checkpoint/' + shard)
    length, = struct.unpack_from('<Q', data)
    header = json.loads(data[8:8 + length])

    def shaped(change):
        h = json.loads(json.dumps(header))
        change(h, [k for k in h if k != '__metadata__'])
        text = json.dumps(h).encode()
        return struct.pack('<Q', len(text)) + text + data[8 + length:]

    def set_config(**values):
        return json.dumps({**config, **values})

    def set_vision(**values):
        return json.dumps({**config, 'vision_config': {**config['vision_config'], **values}})

    def vocabulary(**values):
        return json.dumps({**tokenizer, 'model': {**tokenizer['model'], **values}})
    return [
        ('config.json', 'empty', '', 'empty, expected JSON'),
        ('config.json', 'nesting of 100,000', deep(), 'line 1, column 65: nested more than 64 deep'),
        ('config.json', 'no layers', set_config(num_hidden_layers=0), 'config: num_hidden_layers is 0, outside 1 .. 1024'),
        ('config.json', '2^31 layers', set_config(num_hidden_layers=2**31), 'config: num_hidden_layers is 2147483648, outside 1 .. 1024'),
        ('config.json', 'half a layer', set_config(num_hidden_layers=1.5), '"num_hidden_layers" must be an integer from 0 to 2^53 - 1'),
        ('config.json', 'a negative width', set_config(hidden_size=-256), '"hidden_size" must be an integer from 0 to 2^53 - 1'),
        ('config.json', 'width 2^53 + 1', set_config(hidden_size=2**53 + 1), '"hidden_size" must be an integer from 0 to 2^53 - 1'),
        ('config.json', 'no heads', set_config(num_attention_heads=0), 'config: num_attention_heads is 0, outside 1 .. 1024'),
        ('config.json', 'a picture of 2^20 pixels a side', set_vision(image_size=2**20),
         'config: vision_config.image_size is 1048576, outside 4 .. 4096'),
        ('config.json', 'patches of no size', set_vision(patch_size=0), 'config: vision_config.patch_size is 0, outside 1 .. 256'),
        ('config.json', 'a key twice', json.dumps(config)[:-1] + ', "hidden_size": 1}', 'the key "hidden_size" stands twice in an object'),
        ('config.json', 'an unknown key', set_config(secret=1), 'unknown key "secret": it may change what the model computes'),
        ('tokenizer.json', 'empty', '', 'empty, expected JSON'),
        ('tokenizer.json', 'nesting of 100,000', deep(), 'line 1, column 65: nested more than 64 deep'),
        ('tokenizer.json', 'no vocabulary', vocabulary(vocab={}), 'has no piece for the byte 0x00'),
        ('tokenizer.json', 'an id of 2^31', vocabulary(vocab={**tokenizer['model']['vocab'], 'zzz': 2**31}),
         "a token has id 2147483648, config.json's vocab_size is 1024"),
        ('tokenizer.json', 'a merge of nothing', vocabulary(merges=['a']), 'merge 0 is neither "a b" nor ["a", "b"]'),
        ('tokenizer.json', 'an id twice', vocabulary(vocab={**tokenizer['model']['vocab'], 'zzz': 1}), 'two pieces of model.vocab have id 1'),
        ('tokenizer.json', 'cut', json.dumps(tokenizer)[:-9], 'line 1, column 27009: the string does not end'),
        (shard, 'empty', b'', 'only 0 bytes: not a safetensors file; download it again'),
        (shard, 'cut in its header', data[:100], 'its header of 1864 bytes ends behind the end of the file; download it again'),
        (shard, 'cut in its last tensor', data[:-1], 'ends 1 bytes behind the end of the file; download it again'),
        (shard, 'a header of 2^63 bytes', struct.pack('<Q', 2**63) + data[8:],
         'a header of 9223372036854775808 bytes, more than the 100000000 allowed: not a safetensors'),
        (shard, 'a header of 2^40 bytes', struct.pack('<Q', 2**40) + data[8:],
         'a header of 1099511627776 bytes, more than the 100000000 allowed: not a safetensors file;'),
        (shard, 'a nested header', struct.pack('<Q', 2 * 10**5) + deep().encode() + data[8 + length:],
         "its header does not begin with '{'; download it again"),
        (shard, 'two tensors in one place', shaped(lambda h, k: h[k[1]].update(data_offsets=h[k[0]]['data_offsets'],
                                                                             shape=h[k[0]]['shape'], dtype=h[k[0]]['dtype'])),
         'tensors lm_head.weight and model.embed_tokens.weight overlap by 262144 bytes; download it'),
        (shard, 'a tensor past the end', shaped(lambda h, k: h[k[-1]].update(data_offsets=[2**52, 2**52 + 8])),
         'its shape and dtype need 98304 bytes, its "data_offsets" span 8'),
        (shard, 'a shape of 2^64', shaped(lambda h, k: h[k[0]].update(shape=[2**32, 2**32])),
         'tensor lm_head.weight: its "shape" needs more than 2^63 bytes'),
        (shard, 'a type of its own', shaped(lambda h, k: h[k[0]].update(dtype='Q4_0')), 'tensor lm_head.weight has the unknown dtype "Q4_0"'),
        (shard, 'a tensor less', shaped(lambda h, k: h.pop(k[0])),
         '262144 bytes between the header and tensor model.embed_tokens.weight belong to no tensor; download it again'),
        (shard, 'a byte behind', data + b'\0', '1 bytes behind'),
    ]


# ---------------------------------------------------------------- other files

def packed_files():
    good = read('packed')

    def header(**values):
        out = bytearray(good[:64])
        for at, (form, value) in values.items():
            struct.pack_into(form, out, int(at[1:]), value)
        return bytes(out) + good[64:]

    def piece(*fields):
        return good[:64] + struct.pack('<IIII', *fields) + good[80:]
    frame = bytes.fromhex('28b52ffd') + b'\xe0' + struct.pack('<Q', 2**40) + b'\x03\0\0\0'
    return [
        ('empty', b'', 'is too short to be a packed or a .cvq file; fetch it again'),
        ('cut in its header', good[:40], 'is too short to be a packed or a .cvq file; fetch it again'),
        ('cut before its first piece', good[:64], 'ends too early'),
        ('cut in a piece\'s header', good[:70], 'ends too early'),
        ('cut in the middle', good[:len(good) // 2], 'ends too early'),
        ('a byte behind', good + b'x', 'has bytes behind its last piece'),
        ('another version', header(_8=('<I', 9)), 'packed in version 9 with pieces of 1048576 bytes; this program reads version 1 with'),
        ('pieces of 2^31', header(_12=('<I', 2**31)), 'packed in version 1 with pieces of 2147483648 bytes; this program reads version 1 with'),
        ('of no file', header(_16=('<Q', 0)), 'its header is malformed'),
        ('of a file of 2^63 bytes', header(_16=('<Q', 2**63)), 'its header is malformed'),
        ('of a longer file', header(_16=('<Q', 2**40)), 'ends too early'),
        ('of a shorter file', header(_16=('<Q', 4096)), 'the piece for byte 0 has a malformed header'),
        ('of another file', header(_24=('<Q', 1)), 'holds another file than its header says; fetch it again'),
        ('a piece of 3 planes', piece(3, 1, 1, 0), 'the piece for byte 0 has a malformed header'),
        ('a piece of nothing', piece(1, 0, 0, 0), 'the piece for byte 0 has a malformed header'),
        ('a piece of 2^32 - 1 bytes', piece(1, 2**32 - 1, 0, 0), 'the piece for byte 0 has a malformed header'),
        ('a frame that says 2^40 bytes', good[:64] + struct.pack('<IIII', 1, len(frame), 0, 0) + frame + good[80:],
         'the piece for byte 1048576 has a malformed header'),
    ]


def manifests():
    m = json.loads(read('manifest'))

    def changed(change):
        x = json.loads(json.dumps(m))
        change(x)
        return json.dumps(x)
    return [
        ('empty', '', 'empty, expected JSON'),
        ('nesting of 100,000', deep(), 'line 1, column 65: nested more than 64 deep'),
        ('not UTF-8', b'{"format": "\xff"}', 'line 1, column 13: not valid UTF-8'),
        ('no file', changed(lambda x: x.pop('file')), 'manifest: "file" must be an object'),
        ('2^63 bytes', changed(lambda x: x['file'].update(bytes=2**63)), '"bytes" must be an integer from 0 to 2^53 - 1'),
        ('a negative size', changed(lambda x: x['tensors'][0].update(bytes=-1)), '"bytes" must be an integer from 0 to 2^53 - 1'),
        ('an offset of 2^53', changed(lambda x: x['tensors'][0].update(offset=2**53)), '"offset" must be an integer from 0 to 2^53 - 1'),
        ('tensors that overlap', changed(lambda x: x['tensors'][1].update(offset=x['tensors'][0]['offset'])), 'manifest:'),
        ('a name twice', changed(lambda x: x['tensors'][1].update(name=x['tensors'][0]['name'])), 'manifest: the tensor'),
        ('a path', changed(lambda x: x['file'].update(name='/etc/passwd')), "manifest: the file's name must be a name without folders"),
        ('a key twice', json.dumps(m)[:-1] + ', "file": {}}', 'the key "file" stands twice in an object'),
    ]


def filled(data, **values):
    """A safetensors file in which the tensors of each ending have one element's bytes throughout."""
    length, = struct.unpack_from('<Q', data)
    out = bytearray(data)
    for name, tensor in json.loads(data[8:8 + length]).items():
        element = values.get(name.rsplit('.', 1)[-1])
        if element:
            start, end = (8 + length + x for x in tensor['data_offsets'])
            out[start:end] = element * ((end - start) // len(element))
    return bytes(out)


def text_files():
    """(file, what is wrong, its bytes, the command that reads it, what is said)"""
    history = ('cvq-run', '--max-tokens', '1', '--prompt', 'x', '--history', 'bad', 'q4.cvq')
    batch = ('cvq-run', '--max-tokens', '1', '--batch', 'bad', '--out', 'out', 'q4.cvq')
    evaluate = ('cvq-eval', '--metric', 'exact', '--max-tokens', '1', 'q4.cvq', 'bad')
    calibrate = ('cvq-calibrate', '-o', 'out', 'small.cvq', 'bad')
    importance = ('cvq-quantize', '--imatrix', 'bad', 'small.cvq', 'out')
    moments = ('cvq-quantize', '--feedback', 'bad', 'small.cvq', 'out')
    tiny_moments = ('cvq-quantize', '-q', '--feedback', 'bad', 'tiny.cvq', 'out')
    kld = ('cvq-perplexity', '--context', '32', '--kld', 'bad', 'q4.cvq', 'text')
    sensitivity = ('cvq-quantize', '--target-size', '7M', '--sensitivity', 'bad', 'small.cvq', 'out')
    logits, imatrix, enough = read('logits'), read('imatrix'), filled(read('moments'), count=struct.pack('<q', 10**6))
    rates = '# cvq-sensitivity 1\n# model x\ntensor\ttype\terror\tkld_text\tkld_answers\nlm_head.weight\tq4h\t%s\t%s\t-\n'
    return [
        ('history', 'nesting of 100,000', deep(), history, 'line 1, column 65: nested more than 64 deep; write [["question", "answer"], ...]'),
        ('history', 'no list', '{}', history, 'the history is not a list; write [["question", "answer"], ...]'),
        ('history', 'a turn of one', '[["q"]]', history, 'turn 1 of the history is not a pair of texts; write [["question", "answer"], ...]'),
        ('task', 'empty', '', evaluate, 'holds no questions'),
        ('task', 'no answers', '{"question": "x"}', evaluate, 'line 1 has no "answers"; there is nothing to score with'),
        ('calibration data', 'nesting of 100,000', deep(), calibrate, 'line 1 of the task: line 1, column 65: nested more than 64 deep'),
        ('calibration data', 'no JSON', 'x', calibrate, 'line 1 of the task: line 1, column 1: not a JSON value'),
        ('importance', 'empty', b'', importance, 'only 0 bytes: not a safetensors file; take a file that cvq-calibrate wrote for this model'),
        ('importance', 'cut', imatrix[:len(imatrix) // 2], importance, 'ends 484 bytes behind the end of the file; take a file that'),
        ('importance', 'another kind of file', read('small.cvq')[:4096], importance,
         'a header of 727905342089216905 bytes, more than the 100000000 allowed: not a safetensors'),
        ('importance', 'a value that is no number', imatrix[:-4] + b'\0\0\xc0\x7f', importance,
         'value 223 is negative or not finite; take a file that'),
        ('second moments', 'an importance file', imatrix, moments,
         "does not have .count, .sum_sq and .correlation as this model's matrix needs them; take what cvq-calibrate --second-moments wrote for"),
        ('second moments', 'a square that is negative', filled(enough, sum_sq=struct.pack('<f', -1)), tiny_moments,
         '.sum_sq: value 0 is negative or not finite; calibrate again'),
        ('second moments', 'a correlation of 2', filled(enough, correlation=b'\0\x40'), tiny_moments,
         '.correlation holds a value that is none; calibrate again'),
        ('second moments', 'correlations that no inputs have', filled(enough, correlation=b'\0\xbc'), tiny_moments,
         '.correlation and .sum_sq are of no inputs; calibrate again'),
        ('predictions', 'empty', b'', kld, 'holds no saved logits; make them with cvq-perplexity --save-logits'),
        ('predictions', 'cut in the head', logits[:100], kld, 'holds no saved logits; make them with cvq-perplexity --save-logits'),
        ('predictions', 'cut in a row', logits[:-1], kld, 'is not as long as its head says; save the logits again'),
        ('predictions', 'a head that was changed', logits[:20] + b'\xff' + logits[21:], kld, 'its head is damaged; save the logits again'),
        ('sensitivity', 'empty', '', sensitivity, 'line 0: cut short; take a file that cvq-sensitivity wrote'),
        ('sensitivity', 'another file', 'a\tb\n', sensitivity, 'line 1: not the head of such a file; take a file that cvq-sensitivity wrote'),
        ('sensitivity', 'binary', b'\0\1\2', sensitivity, 'line 1: not a text; take a file that cvq-sensitivity wrote'),
        ('sensitivity', 'an error of 1e-300', rates % ('1e-300', '1'), sensitivity,
         'line 4: not three numbers; take a file that cvq-sensitivity wrote'),
        ('sensitivity', 'a divergence of 1e300', rates % ('0.1', '1e300'), sensitivity,
         'line 4: not three numbers; take a file that cvq-sensitivity wrote'),
        ('answers', 'another file', '{"id": "x"}\n', ('cvq-eval', '--metric', 'exact', '--baseline', 'bad', 'q4.cvq', 'task.jsonl'),
         'line 1 is no answer of an earlier run'),
    ]


def enormous():
    """A file of 1 TB, sparse: refused by its size, not read. (what it is taken for, the command that reads it)"""
    return [
        ('a picture', ('cvq-run', '--image', 'bad', '--prompt', 'x', 'q4.cvq')),
        ('a manifest', ('cvq-info', '--verify', '--manifest', 'bad', 'q4.cvq')),
        ('a key', ('cvq-info', '--verify', '--manifest', 'manifest', '--pubkey', 'bad', 'q4.cvq')),
        ('a task', ('cvq-eval', '--metric', 'exact', 'q4.cvq', 'bad')),
        ('a history', ('cvq-run', '--prompt', 'x', '--history', 'bad', 'q4.cvq')),
        ('a text', ('cvq-perplexity', 'q4.cvq', 'bad')),
        ('answers', ('cvq-eval', '--metric', 'exact', '--baseline', 'bad', 'q4.cvq', 'task.jsonl')),
        ('a sensitivity file', ('cvq-quantize', '--target-size', '7M', '--sensitivity', 'bad', 'small.cvq', 'out')),
        ('a card', ('cvq-convert', '--card', 'bad', 'checkpoint', 'out')),
    ]


TASK_LINES = [
    ('nesting of 100,000', deep(), 'line 1, column 65: nested more than 64 deep'),
    ('no JSON', '{"question": ', 'line 1, column 14: the text ends where a value should be'),
    ('no object', '[1, 2]', 'is not a JSON object; write {"question": ...}'),
    ('not UTF-8', b'{"question": "\xff"}', 'line 1, column 15: not valid UTF-8'),
    ('a NUL', '{"question": "a\\u0000b"}', 'line 1, column 16: a NUL character in a string'),
    ('a key twice', '{"question": "a", "question": "b"}', 'the key "question" stands twice in an object'),
    ('no question', '{"id": "x"}', '"question" is missing'),
    ('an id that is a list', '{"id": [], "question": "x"}', '"id" is neither a text nor a whole number'),
    ('an unknown template', '{"question": "x", "template": "poem"}', '"template" is not chat, vqa or base'),
    ('answers that are numbers', '{"question": "x", "answers": [1]}', '"answers" is not a list of texts'),
    ('a picture that is not there', '{"question": "x", "image": "nowhere.png"}', 'nowhere.png: no such file'),
    ('a picture that is a folder', '{"question": "x", "image": "checkpoint"}', 'checkpoint: not a regular file'),
    ('a picture that is a device', '{"question": "x", "image": "/dev/zero"}', '/dev/zero: not a regular file'),
    ('a history of numbers', '{"question": "x", "history": [1]}', 'turn 1 of the history is not a pair of texts; write [["question", "answer"], ...]'),
    ('a number of 400 digits', '{"question": "x", "n": ' + '9' * 400 + '}', 'line 1, column 24: a number of too many digits'),
]


def caches():
    """An entry of the cache that is not right is no error: what it stood for is computed, and the entry replaced."""
    global rows
    ask = ('cvq-run', '--image', PICTURE, '--prompt', 'x', '--max-tokens', '3', 'q4.cvq')
    shutil.rmtree(path('cache'), ignore_errors=True)
    right = run(*ask)
    for ending in ('.picture', '.verified'):
        names = [n for n in os.listdir(path('cache/cvq')) if n.endswith(ending)]
        check(f'there is an entry {ending}', right[0] == 0 and len(names) == 1, names)
        entry = 'cache/cvq/' + names[0]
        good = read(entry)
        for name, data in (('empty', b''), ('of one byte', b'\0'), ('cut in its head', good[:12]), ('cut in the middle', good[:len(good) // 2]),
                           ('without its last byte', good[:-1]), ('with a byte behind', good + b'x'),
                           ('with a flipped bit', flip(good, len(good) // 2)), ('with another magic number', flip(good, 0)),
                           ('of zeros', bytes(len(good))), ('of ones', b'\xff' * len(good))):
            rows += 1
            write(entry, data)
            again = run(*ask)
            check(f'an entry {ending} {name}', again == right and read(entry) not in (data, b''), again)


def flip(data, at):
    return data[:at] + bytes((data[at] ^ 8,)) + data[at + 1:]


# What to do about it stands at the end of the line, wherever a file came from somewhere else.
ANOTHER_PICTURE = ('`convert ', '; fetch it again')
ANOTHER_CHECKPOINT = ('; download it again', ' as they are published')
ANOTHER_DOWNLOAD = ('etch it again', 'fetch the manifest again', 'get a newer cvq')


def refused(name, result, file, says, advice=('',)):
    """In one line: the file, what is wrong with it, and one of these pieces of advice; and nothing was written."""
    global rows
    rows += 1
    code, out, err = result
    lines = [line for line in err.splitlines() if not re.match(r'cvq-\w+: note: ', line)]
    check(name, code == 1 and not out and len(lines) == 1 and re.match(rf'cvq-\w+: (checkpoint/)?{re.escape(file)}: ', lines[0]) and
          says in lines[0] and any(a in lines[0] for a in advice) and not os.path.exists(path('out')) and
          not os.path.exists(path('out.cvq')), (code, out, err))


def main():
    global rows
    with working_folder('cvq-malformed-'):
        os.environ['XDG_CACHE_HOME'] = path('cache')
        shutil.copytree(SMALL, path('checkpoint'))
        write('task.jsonl', '{"id": "a", "question": "Which?", "answers": ["This."]}\n')
        write('text', 'The quick brown fox jumps over the lazy dog. ' * 4)
        for command in (('cvq-convert', 'checkpoint', 'small.cvq'), ('cvq-quantize', 'small.cvq', 'q4.cvq'),
                        ('cvq-convert', os.path.abspath('models/cogvlm2-tiny'), 'tiny.cvq'), ('cvq-pack', 'tiny.cvq', 'packed'),
                        ('cvq-calibrate', '-o', 'imatrix', 'small.cvq', 'task.jsonl'),
                        ('cvq-calibrate', '-o', 'tiny.imatrix', '--second-moments', 'moments', 'tiny.cvq', 'task.jsonl'),
                        ('cvq-perplexity', '--context', '32', '--save-logits', 'logits', 'small.cvq', 'text')):
            r = run(*command)
            if r[0] != 0:
                sys.exit(f'cannot prepare: {command}: {r}')
        write('manifest', run('cvq-info', '--manifest', 'q4.cvq')[1])
        for name, data, says in pictures():
            write('bad', data)
            refused(f'picture: {name}', run('cvq-run', '--image', 'bad', '--prompt', 'x', '--max-tokens', '1', 'q4.cvq'), 'bad', says,
                    ANOTHER_PICTURE)
        for file, name, data, says in checkpoint_files():
            good = read('checkpoint/' + file)
            write('checkpoint/' + file, data)
            refused(f'{file}: {name}', run('cvq-convert', 'checkpoint', 'out.cvq'), file, says, ANOTHER_CHECKPOINT)
            write('checkpoint/' + file, good)
        for name, data, says in packed_files():
            write('bad', data)
            refused(f'packed: {name}', run('cvq-pack', '-d', 'bad', 'out.cvq'), 'bad', says, ANOTHER_DOWNLOAD)
        for name, data, says in manifests():
            write('bad', data)
            refused(f'manifest: {name}', run('cvq-info', '--verify', '--manifest', 'bad', 'q4.cvq'), 'bad', says, ANOTHER_DOWNLOAD)
        for file, name, data, command, says in text_files():
            write('bad', data)
            refused(f'{file}: {name}', run(*command), 'bad', says)
        write('bad', b'')
        os.truncate(path('bad'), 10**12)
        for name, command in enormous():
            refused(f'{name} of 1 TB', run(*command), 'bad', 'larger than')
        write('bad', b'\n'.join(t if isinstance(t, bytes) else t.encode() for _, t, _ in TASK_LINES) + b'\n')
        r = run('cvq-run', '--max-tokens', '1', '--batch', 'bad', '--out', 'answers', 'q4.cvq')
        check('a task of bad lines has an answer to each', r[0] == 0 and read('answers').count(b'\n') == len(TASK_LINES), r)
        for (name, _, says), answer in zip(TASK_LINES, map(json.loads, read('answers').splitlines())):
            rows += 1
            check(f'line of a task: {name}', list(answer) == ['id', 'error'] and says in answer['error'], answer)
        caches()
    print(f'{rows} malformed files')
    return summary()


if __name__ == '__main__':
    sys.exit(main())
