#!/usr/bin/env python3
"""Pictures and their resize against PIL: every PNG mode exactly, JPEG within a bound, EXIF as
ImageOps.exif_transpose, the resize and its normalization to the bit; then files that are damaged,
hostile or of another kind. Everything is made here from fixed seeds.

    test_pictures.py --write-fixtures     makes tests/pictures/ anew (for tests/unit/test_picture.c)
cvq-test: compiled"""
import os
import random
import struct
import subprocess
import sys
import tempfile
import time
import warnings
import zlib

from harness import check, skip, summary

try:
    import numpy as np
    from PIL import Image, ImageOps
except ImportError:
    print('skip: PIL or numpy is not installed, so pictures were not compared with it')
    print('0 passed, 0 failed, 1 skipped')
    sys.exit(0)

warnings.simplefilter('ignore')
Image.MAX_IMAGE_PIXELS = None
TOOL = os.environ.get('CVQ_RUNNER', '').split() + [
    os.path.join(os.environ.get('CVQ_TOOLS', 'build/tools'), 'picture_dump')]
SLOW = bool(os.environ.get('CVQ_RUNNER')) or os.environ.get('CVQ_CONFIG') in ('asan', 'ubsan')
FIXTURES = 'tests/pictures'


# ---------------------------------------------------------------- making files

def chunk(kind, data=b''):
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def png(width, height, depth, color, rows, interlace=0, extra=b'', after=b'', level=9, split=0):
    """rows: the filtered bytes of the picture, as they are compressed."""
    z = zlib.compress(rows, level)
    pieces = [z[i:i + split] for i in range(0, len(z), split)] if split else [z]
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, depth, color, 0, 0, interlace))
            + extra + b''.join(chunk(b'IDAT', p) for p in pieces) + after + chunk(b'IEND'))


CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def filtered(r, width, height, depth, color, colors=256):
    """Random samples below a palette of `colors`, with random filters."""
    bits = CHANNELS[color] * depth
    line = (width * bits + 7) // 8
    out, before, bpp = bytearray(), bytes(line), max(1, bits // 8)
    for _ in range(height):
        if color == 3 and depth == 8:
            row = bytes(r.randrange(colors) for _ in range(line))
        else:
            row = bytes(r.randrange(256) for _ in range(line))
        kind = r.randrange(5)
        out.append(kind)
        for i, v in enumerate(row):
            a = row[i - bpp] if i >= bpp else 0
            b, c = before[i], before[i - bpp] if i >= bpp else 0
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            out.append((v - (0, a, b, (a + b) // 2, paeth)[kind]) & 255)
        before = row
    return bytes(out)


def passes(width, height):
    for x0, y0, dx, dy in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)):
        w, h = (width - x0 + dx - 1) // dx, (height - y0 + dy - 1) // dy
        if w > 0 and h > 0:
            yield w, h


def random_png(r, width, height, depth, color, interlace, transparent, split=0):
    colors = 1 << min(depth, 8)
    extra = b''
    if color == 3:
        extra += chunk(b'gAMA', struct.pack('>I', 45455))
        extra += chunk(b'PLTE', bytes(r.randrange(256) for _ in range(3 * colors)))
        if transparent:
            extra += chunk(b'tRNS', bytes(r.randrange(256) for _ in range(colors)))
    elif transparent:
        top = (1 << depth) - 1
        extra += chunk(b'tRNS', struct.pack('>' + 'H' * CHANNELS[color], *(r.randrange(top + 1) for _ in range(CHANNELS[color]))))
    sizes = passes(width, height) if interlace else [(width, height)]
    rows = b''.join(filtered(r, w, h, depth, color, colors) for w, h in sizes)
    return png(width, height, depth, color, rows, interlace, extra, chunk(b'tEXt', b'a\0b'), split=split)


PNG_MODES = [(d, c) for c, ds in ((0, (1, 2, 4, 8, 16)), (2, (8, 16)), (3, (1, 2, 4, 8)), (4, (8, 16)), (6, (8, 16))) for d in ds]


def photo(seed, width, height):
    """Smooth with edges and noise, as a photo is."""
    r = np.random.RandomState(seed)
    small = Image.fromarray(r.randint(0, 256, (max(2, height // 16), max(2, width // 16), 3)).astype(np.uint8))
    a = np.asarray(small.resize((width, height), Image.BICUBIC)).astype(int)
    a[height // 3:height // 2, width // 4:width // 2] = (250, 20, 30)
    a += r.randint(-6, 7, a.shape)
    return Image.fromarray(np.clip(a, 0, 255).astype(np.uint8))


def exif(orientation, order='<', kind=3, entries_before=2, count=1):
    e = b''
    for i in range(entries_before):
        e += struct.pack(order + 'HHII', 0x100 + i, 4, 1, 77)
    value = struct.pack(order + ('HH' if kind == 3 else 'I'), *((orientation, 0) if kind == 3 else (orientation,)))
    e += struct.pack(order + 'HHI', 0x112, kind, count) + value
    tiff = (b'II*\0' if order == '<' else b'MM\0*') + struct.pack(order + 'I', 8)
    return b'Exif\0\0' + tiff + struct.pack(order + 'H', entries_before + 1) + e + struct.pack(order + 'I', 0)


def segment(marker, data):
    return b'\xff' + bytes([marker]) + struct.pack('>H', len(data) + 2) + data


def with_segment(jpeg, marker, data):
    return jpeg[:2] + segment(marker, data) + jpeg[2:]


def without(jpeg, marker):
    """The first segments with this marker taken out."""
    at, out = 2, jpeg[:2]
    while jpeg[at + 1] != 0xda:
        n = 2 + struct.unpack('>H', jpeg[at + 2:at + 4])[0]
        if jpeg[at + 1] != marker:
            out += jpeg[at:at + n]
        at += n
    return out + jpeg[at:]


def saved_jpeg(image, **how):
    path = os.path.join(FOLDER, 'saved.jpg')
    image.save(path, 'JPEG', **how)
    with open(path, 'rb') as f:
        return f.read()


def bits_to_scan(bits):
    bits += '1' * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, 'big').replace(b'\xff', b'\xff\0') if bits else b''


def dc_jpeg(r, blocks_x, blocks_y, restart, components=1, interleaved=True):
    """A baseline JPEG of flat blocks: each block is the DC difference (3 to 6 bits) and an end of block."""
    dqt = segment(0xdb, b'\0' + bytes([8] * 64))
    sof = segment(0xc0, struct.pack('>BHHB', 8, 8 * blocks_y, 8 * blocks_x, components)
                  + b''.join(bytes([i + 1, 0x11, 0]) for i in range(components)))
    # DC: symbols 0..7 all of 3 bits would use the all-ones code, so 4 bits each; AC: only end of block, '0'.
    dht = segment(0xc4, b'\0' + bytes([0, 0, 0, 8] + [0] * 12) + bytes(range(8))
                  + b'\x10' + bytes([1] + [0] * 15) + b'\0')
    out = b'\xff\xd8' + segment(0xe0, b'JFIF\0\1\1\0\0\1\0\1\0\0') + dqt + sof + dht
    if restart:
        out += segment(0xdd, struct.pack('>H', restart))
    scans = [list(range(components))] if interleaved else [[c] for c in range(components)]
    for scan in scans:
        out += segment(0xda, bytes([len(scan)]) + b''.join(bytes([c + 1, 0]) for c in scan) + b'\0\x3f\0')
        bits, dc, units = '', {c: 0 for c in scan}, blocks_x * blocks_y
        for unit in range(units):
            for c in scan:
                value = r.randrange(-60, 61)
                diff = value - dc[c]
                dc[c] = value
                n = abs(diff).bit_length()
                bits += format(n, '04b')
                if n:
                    bits += format(diff if diff > 0 else diff + (1 << n) - 1, f'0{n}b')
                bits += '0'
            if restart and (unit + 1) % restart == 0 and unit + 1 < units:
                out += bits_to_scan(bits) + bytes([0xff, 0xd0 + (unit // restart) % 8])
                bits, dc = '', {c: 0 for c in scan}
        out += bits_to_scan(bits)
    return out + b'\xff\xd9'


def endless_jpeg(blocks, scans):
    """Progressive, of blocks x blocks, and so many scans that say nothing."""
    dqt = segment(0xdb, b'\0' + bytes([1] * 64))
    sof = segment(0xc2, struct.pack('>BHHB', 8, 8 * blocks, 8 * blocks, 1) + b'\1\x11\0')
    dht = segment(0xc4, b'\0' + bytes([1] + [0] * 15) + b'\0' + b'\x10' + bytes([1] + [0] * 15) + b'\xe0')
    runs = -(-blocks * blocks // 32767)
    one = segment(0xda, b'\1\1\0\1\x3f\0') + bits_to_scan(('0' + '1' * 14) * runs)
    dc = segment(0xda, b'\1\1\0\0\0\0') + bits_to_scan('0' * (blocks * blocks))
    return b'\xff\xd8' + dqt + sof + dht + one * scans + dc + b'\xff\xd9'


# ---------------------------------------------------------------- reading them

def write(name, data):
    path = os.path.join(FOLDER, name)
    if os.path.exists(path):
        os.remove(path)  # some file systems flush a file that is cut and written anew: slow
    with open(path, 'wb') as f:
        f.write(data)
    return path


def read(path, *options):
    """-> array, or the error's text"""
    p = subprocess.run(TOOL + [*options, path], capture_output=True)
    if p.returncode == 1 and not p.stdout:
        return p.stderr.decode()
    if p.returncode != 0:
        raise SystemExit(f'{path}: exit status {p.returncode}: {p.stderr.decode()}')
    head, data = p.stdout.split(b'\n', 1)
    width, height = map(int, head.split())
    return np.frombuffer(data, np.uint8).reshape(height, width, 3)


def read_many(paths, *options):
    p = subprocess.run(TOOL + [*options, '-m', *paths], capture_output=True, text=True)
    lines = p.stdout.splitlines()
    if p.returncode != 0 or len(lines) != len(paths) or p.stderr:
        raise SystemExit(f'exit status {p.returncode}, {len(lines)} of {len(paths)} lines: {p.stderr}')
    return lines


def fnv(data):
    h = 0xcbf29ce484222325
    for v in data:
        h = ((h ^ v) * 0x100000001b3) & 0xffffffffffffffff
    return h


def pil(path, transpose=True):
    im = Image.open(path)
    if im.mode in ('I', 'I;16'):  # deliberately not as PIL, which clips it to white: the high byte
        return np.repeat((np.asarray(im).astype(int) >> 8).astype(np.uint8)[:, :, None], 3, 2)
    if transpose and im.format == 'JPEG':
        im = ImageOps.exif_transpose(im)
    return np.asarray(im.convert('RGB'))


def same(got, want):
    return not isinstance(got, str) and got.shape == want.shape and (got == want).all()


# ---------------------------------------------------------------- the tests

def test_png_modes():
    r = random.Random(1)
    for depth, color in PNG_MODES:
        wrong, paths = [], []
        for interlace in (0, 1):
            for transparent in ((False, True) if color in (0, 2, 3) else (False,)):
                for width, height in ((1, 1), (2, 3), (7, 5), (8, 8), (9, 17), (33, 10)):
                    data = random_png(r, width, height, depth, color, interlace, transparent, split=r.choice((0, 11)))
                    paths.append(write(f'm{depth}_{color}_{interlace}{transparent:d}_{width}x{height}.png', data))
        for path, line in zip(paths, read_many(paths)):
            want = pil(path)
            if line != f'ok {want.shape[1]} {want.shape[0]} {fnv(want.tobytes()):016x}':
                wrong.append(f'{os.path.basename(path)}: {line}')
        check(f'PNG of {depth} bits, colour type {color}: {len(paths)} files', not wrong, wrong[:3])


def test_png_memory():
    """Large enough that a decoder's memory that is reckoned too small would show."""
    r = random.Random(22)
    for interlace in (0, 1):
        wrong = []
        for depth, color in PNG_MODES:
            width, height = 301, 257
            rows = b''.join(b'\0' + r.randbytes((w * CHANNELS[color] * depth + 7) // 8)
                            for w, h in (passes(width, height) if interlace else [(width, height)]) for _ in range(h))
            palette = chunk(b'PLTE', r.randbytes(768)) if color == 3 else b''
            path = write('large.png', png(width, height, depth, color, rows, interlace, palette, level=1))
            if not same(read(path), pil(path)):
                wrong.append(f'{depth} bits, type {color}')
        check(f'larger PNGs, {"interlaced" if interlace else "plain"}', not wrong, wrong)


def test_png_oddities():
    r = random.Random(2)
    rows = filtered(r, 5, 4, 8, 3, 256)
    short = png(5, 4, 8, 3, rows, extra=chunk(b'PLTE', bytes(range(30))))
    path = write('short-palette.png', short)
    check('colours beyond the palette', same(read(path), pil(path)))
    path = write('no-text.png', png(3, 3, 8, 2, filtered(r, 3, 3, 8, 2), extra=chunk(b'eXIf', exif(6)[6:]) + chunk(b'PLTE', bytes(9))))
    check('a PNG with eXIf and a suggested palette', same(read(path), pil(path, False)))
    path = write('tail.png', png(3, 3, 8, 2, filtered(r, 3, 3, 8, 2)) + b'trailing bytes')
    check('bytes behind IEND', same(read(path), pil(path)))
    frames = [photo(s, 20, 10) for s in range(3)]
    path = os.path.join(FOLDER, 'animated.png')
    frames[0].save(path, save_all=True, append_images=frames[1:])
    check('the first frame of an animation', same(read(path), np.asarray(frames[0])))
    path = os.path.join(FOLDER, 'photo.png')
    photo(3, 700, 500).save(path)
    check('a photo as PNG', same(read(path), pil(path)))


def difference(path, skip_column=False):
    got, want = read(path), pil(path)
    if isinstance(got, str) or got.shape != want.shape:
        return f'{got if isinstance(got, str) else got.shape}', 999, 999
    d = np.abs(got.astype(int) - want)
    if skip_column:
        d[:, (d.shape[1] - 1) // 2 * 2] = 0
    return f'largest difference {d.max()}, mean {d.mean():.3f}', d.max(), d.mean()


def test_jpeg():
    """stb_image's IDCT and upsampling round otherwise than libjpeg-turbo's; the bounds are measured ones. Two things
    are left out: with 4:2:2 stb_image weighs the chroma of the last even column the wrong way round, and libjpeg
    repeats chroma instead of interpolating it where it is at most two samples wide (pictures of up to 4 columns)."""
    grey = photo(4, 203, 150).convert('L')
    cases = {}
    for sampling, name in ((0, '4:4:4'), (1, '4:2:2'), (2, '4:2:0')):
        for quality in (30, 75, 95):
            for progressive in (False, True):
                label = f'JPEG {name}, quality {quality}' + (', progressive' if progressive else '')
                cases[label] = saved_jpeg(photo(5, 301, 203), quality=quality, subsampling=sampling, progressive=progressive)
    cases['grey JPEG'] = saved_jpeg(grey, quality=90)
    cases['grey progressive JPEG'] = saved_jpeg(grey, quality=90, progressive=True)
    for size in ((1, 1), (2, 1), (5, 3), (15, 17), (16, 16), (17, 33), (9000, 7), (7, 9000)):
        for progressive in (False, True):
            label = f'JPEG of {size[0]} x {size[1]}' + (', progressive' if progressive else '')
            cases[label] = saved_jpeg(photo(6, *size), quality=90, progressive=progressive)
    # The same blocks, laid out otherwise by the frame header: 4:4:0 and 4:1:1.
    cases['JPEG 4:4:0'] = saved_jpeg(photo(7, 64, 64), quality=90, subsampling=1).replace(b'\1\x21\0', b'\1\x12\0', 1)
    cases['JPEG 4:1:1'] = saved_jpeg(photo(7, 64, 64), quality=90, subsampling=2).replace(b'\1\x22\0', b'\1\x41\0', 1)
    full = saved_jpeg(photo(8, 64, 48), quality=95, subsampling=0)
    bare = without(full, 0xe0)
    adobe = b'Adobe\0\x64\0\0\0\0'
    cases['JPEG without a colour mark'] = bare
    cases['Adobe RGB JPEG'] = with_segment(bare, 0xee, adobe + b'\0')
    cases['Adobe YCC JPEG'] = with_segment(bare, 0xee, adobe + b'\1')
    cases['JFIF beside Adobe RGB'] = with_segment(full, 0xee, adobe + b'\0')
    sof, sos = bare.index(b'\xff\xc0'), bare.index(b'\xff\xda')
    named = bytearray(bare)
    for i in range(3):
        named[sof + 10 + 3 * i] = named[sos + 5 + 2 * i] = b'RGB'[i]
    cases['JPEG of components R, G, B'] = bytes(named)
    cases['JFIF beside components R, G, B'] = with_segment(bytes(named), 0xe0, b'JFIF\0\1\1\0\0\1\0\1\0\0')
    r = random.Random(9)
    cases['restart markers'] = dc_jpeg(r, 20, 13, 3)
    cases['restart markers, colour'] = dc_jpeg(r, 20, 13, 7, 3)
    cases['a scan a component'] = dc_jpeg(r, 20, 13, 0, 3, False)
    cases['a scan a component, restart markers'] = dc_jpeg(r, 20, 13, 5, 3, False)
    cases['fill bytes'] = full[:2] + b'\xff\xff' + full[2:]
    cases['bytes behind the end marker'] = full + b'\0' * 100 + full
    largest = total = 0
    for name, data in cases.items():
        text, most, mean = difference(write('case.jpg', data), '4:2:2' in name)
        largest, total = max(largest, most), max(total, mean)
        check(f'{name}: {text}', most <= 5 and mean <= 0.3, 'more than 5, or 0.3 in the mean')
    print(f'of all JPEGs: largest difference {largest}, largest mean {total:.3f}')


def test_exif():
    # Flat grey blocks of 8 x 8 come out the same from every decoder.
    jpeg = dc_jpeg(random.Random(10), 5, 3, 0)
    for order in '<>':
        for kind in (3, 4):
            wrong = [o for o in range(0, 10)
                     if not same(read(p := write('exif.jpg', with_segment(jpeg, 0xe1, exif(o, order, kind)))), pil(p))]
            check(f'orientations 0 to 9, {"little" if order == "<" else "big"}-endian, type {kind}', not wrong, wrong)
    plain = read(write('plain.jpg', jpeg))
    path = write('exif.jpg', with_segment(jpeg, 0xe1, exif(6)))
    check('the released behaviour: EXIF ignored', same(read(path, '-n'), plain) and not same(read(path), plain))
    r, wrong = random.Random(11), []
    for i in range(40):
        block = bytearray(exif(6))
        if i < 20:
            block = block[:r.randrange(6, len(block))]
        else:
            for _ in range(3):
                block[r.randrange(6, 18)] = r.choice((0, 1, 0x7f, 0xff))
        got = read(write('exif.jpg', with_segment(jpeg, 0xe1, bytes(block))))
        if isinstance(got, str):
            wrong.append(got)
    check('malformed EXIF is passed over', not wrong, wrong[:2])


def test_resize():
    r = np.random.RandomState(12)
    sizes = [(1, 1, 1, 1), (1, 1, 7, 5), (1, 1, 1344, 1344), (3000, 17, 1344, 1344), (333, 190, 1344, 1344), (112, 112, 112, 112),
             (17, 3, 2, 65), (640, 480, 112, 112), (20000, 2, 3, 1), (2, 30000, 3, 1), (1344, 20, 1344, 1344), (20, 1344, 1344, 1344),
             (2688, 672, 1344, 1344), (65535, 1, 5, 1), (1, 65535, 1, 5), (9, 9, 65535, 1)]
    if not SLOW:
        sizes += [(1343, 1345, 1344, 1344), (4000, 3000, 1344, 1344), (5000, 4000, 1344, 1344), (2, 12000, 1344, 1344)]
    sizes += [tuple(int(2 ** r.uniform(0, 9)) for _ in range(4)) for _ in range(20 if SLOW else 80)]
    wrong = []
    for i, (w, h, ow, oh) in enumerate(sizes):
        a = r.randint(0, 256, (h, w, 3)) if i % 2 else r.randint(0, 2, (h, w, 3)) * 255
        a = a.astype(np.uint8)
        p = subprocess.run(TOOL + ['-r', *map(str, (w, h, ow, oh))], input=a.tobytes(), capture_output=True)
        want = np.asarray(Image.fromarray(a).resize((ow, oh), Image.BICUBIC))
        if p.returncode or p.stdout != want.tobytes():
            wrong.append(f'{w} x {h} to {ow} x {oh} {p.stderr.decode()}')
    check(f'{len(sizes)} resizes equal PIL\'s to the bit', not wrong, wrong)


def test_normalize():
    n = 40
    a = np.random.RandomState(13).randint(0, 256, (n, n, 3)).astype(np.uint8)
    a.reshape(-1, 3)[:256] = np.arange(256, dtype=np.uint8)[:, None]
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    want = (np.asarray(a, np.float32) / 255.0 - np.array(mean, np.float32)) / np.array(std, np.float32)
    p = subprocess.run(TOOL + ['-f', str(n)], input=a.tobytes(), capture_output=True)
    check('normalized values equal numpy\'s to the bit', p.stdout == want.transpose(2, 0, 1).astype('<f4').tobytes())


def refused(name, data, code, text, *options):
    got = read(write('refused', data), *options)
    check(f'refused: {name}', isinstance(got, str) and got.startswith(code + ':') and text in got, got)


def test_refused():
    for name, data, text in (
            ('WebP', b'RIFF\x10\0\0\0WEBPVP8 ', 'dwebp'), ('HEIC', b'\0\0\0\x18ftypheic\0\0\0\0', 'heif-convert'),
            ('AVIF', b'\0\0\0\x18ftypavif\0\0\0\0', 'avifdec'), ('GIF', b'GIF89a....', 'convert'), ('BMP', b'BM......', 'convert'),
            ('TIFF', b'II*\0....', 'convert'), ('PDF', b'%PDF-1.7\n', 'pdftoppm'), ('JPEG XL', b'\xff\x0a....', 'djxl'),
            ('text', b'hello world', 'neither'), ('SVG', b'<svg xmlns=', 'rsvg-convert'), ('PNM', b'P6\n1 1\n255\n...', 'convert')):
        refused(name, data, 'CVQ_UNSUPPORTED', text)
    refused('an empty file', b'', 'CVQ_FORMAT', 'empty')
    full = saved_jpeg(photo(14, 64, 48), quality=80)
    path = os.path.join(FOLDER, 'cmyk.jpg')
    photo(14, 32, 32).convert('CMYK').save(path, 'JPEG')
    with open(path, 'rb') as f:
        refused('CMYK JPEG', f.read(), 'CVQ_UNSUPPORTED', 'CMYK')
    sof = full.index(b'\xff\xc0')
    for marker, text in ((0xc3, 'lossless'), (0xc9, 'arithmetic'), (0xca, 'arithmetic'), (0xc5, 'hierarchical')):
        refused(f'JPEG of kind {marker:x}', full[:sof + 1] + bytes([marker]) + full[sof + 2:], 'CVQ_UNSUPPORTED', text)
    refused('12-bit JPEG', full[:sof + 4] + b'\x0c' + full[sof + 5:], 'CVQ_UNSUPPORTED', '12-bit')
    refused('a JPEG without Huffman tables', without(full, 0xc4), 'CVQ_UNSUPPORTED', 'Huffman')
    refused('a JPEG without quantization tables', without(full, 0xdb), 'CVQ_FORMAT', 'quantization')
    refused('a JPEG of 65535 x 65535', full[:sof + 5] + b'\xff' * 4 + full[sof + 9:], 'CVQ_UNSUPPORTED', '65535')
    refused('a Huffman table of 4080 codes', with_segment(full, 0xc4, b'\0' + b'\xff' * 16 + bytes(4080)), 'CVQ_FORMAT', 'Huffman')
    good = png(8, 8, 8, 2, filtered(random.Random(15), 8, 8, 8, 2))
    iphone = good[:8] + chunk(b'CgBI', b'\x50\0\x20\2') + good[8:]
    refused('an iPhone PNG', iphone, 'CVQ_UNSUPPORTED', 'CgBI')
    refused('a PNG of 65535 x 65535', png(65535, 65535, 8, 2, b'\0' * 1000), 'CVQ_UNSUPPORTED', '65535')
    refused('a PNG of 70000 x 1', png(70000, 1, 8, 0, b'\0' * 70001), 'CVQ_UNSUPPORTED', '70000')
    refused('more pixels than allowed', good, 'CVQ_UNSUPPORTED', '8 x 8', '-p', '63')
    refused('a PNG that inflates to 100 MB', png(8, 8, 8, 2, bytes(100 << 20)), 'CVQ_FORMAT', 'more data')
    refused('a large PNG of few bytes', png(20000, 9000, 8, 6, bytes(5000)), 'CVQ_FORMAT', 'not enough pixels')
    refused('a PNG of impossible depth', png(8, 8, 4, 2, bytes(500)), 'CVQ_FORMAT', 'colour type')
    refused('a palette PNG without a palette', png(8, 8, 8, 3, bytes(500)), 'CVQ_FORMAT', 'palette')
    refused('a transfer in text mode', good.replace(b'\r\n', b'\n', 1), 'CVQ_FORMAT', 'signature')
    refused('a folder', b'', 'CVQ_FORMAT', 'empty')
    got = read(FOLDER)
    check('a folder is no picture', isinstance(got, str) and got.startswith('CVQ_IO'), got)
    got = read(os.path.join(FOLDER, 'nowhere.png'))
    check('a missing file', isinstance(got, str) and got.startswith('CVQ_NOT_FOUND'), got)


def test_truncated():
    jpegs = {'baseline': saved_jpeg(photo(16, 48, 40), quality=80), 'progressive': saved_jpeg(photo(16, 48, 40), progressive=True),
             'restart': dc_jpeg(random.Random(16), 9, 9, 2), 'png': random_png(random.Random(17), 20, 20, 8, 2, 0, False, split=100)}
    for name, data in jpegs.items():
        cuts = range(2 if name != 'png' else 8, len(data) - 1, 1 if not SLOW else 17)
        paths = [write(f'cut{i}', data[:i]) for i in cuts]
        wrong = [line for line in read_many(paths) if 'runcated' not in line or not line.startswith('CVQ_FORMAT')]
        check(f'{name}, cut off at {len(paths)} places', not wrong, wrong[:3])


def test_damaged():
    """Bit flips: an error or pixels, and never a dead tool (its exit status and a line a file are checked)."""
    r = random.Random(18)
    count = 60 if SLOW else 400
    for name, data in (('baseline', saved_jpeg(photo(19, 60, 44), quality=80)), ('progressive', saved_jpeg(photo(19, 60, 44), progressive=True)),
                       ('restart', dc_jpeg(r, 9, 9, 2, 3)), ('PNG', random_png(r, 20, 20, 8, 6, 1, False))):
        paths = []
        for i in range(count):
            broken = bytearray(data)
            for _ in range(r.randrange(1, 6)):
                broken[r.randrange(2, len(broken))] ^= 1 << r.randrange(8)
            paths.append(write(f'flip{i}', bytes(broken)))
        lines = read_many(paths)
        crashed = sum('crashed' in line for line in lines)
        check(f'{name} with flipped bits: {sum(line.startswith("ok") for line in lines)} of {count} decoded, {crashed} crashed the child', True)
    rows, paths = filtered(r, 20, 20, 8, 2), []
    for i in range(count):  # below the checksum: damage that is signed as good
        z = bytearray(zlib.compress(rows))
        for _ in range(r.randrange(1, 4)):
            z[r.randrange(2, len(z))] ^= 1 << r.randrange(8)
        head = png(20, 20, 8, 2, b'')[:33]
        paths.append(write(f'flip{i}', head + chunk(b'IDAT', bytes(z)) + chunk(b'IEND')))
    lines = read_many(paths)
    check(f'PNG with flipped bits and good checksums: {sum(line.startswith("ok") for line in lines)} of {count} decoded', True)


def test_rights():
    """While the child decodes: it has the filter of system calls, and one file, the pipe."""
    if os.environ.get('CVQ_RUNNER') or os.environ.get('CVQ_CONFIG') == 'asan' or not os.path.exists('/proc/self/status'):
        return skip('the decoder\'s rights', 'they show only in a native build without the address sanitizer, on Linux')
    path = write('endless.jpg', endless_jpeg(1000, 200000))
    with subprocess.Popen(TOOL + ['-s', '1', path], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as tool:
        seen, files = '', None
        while tool.poll() is None and 'Seccomp:\t2' not in seen:
            try:
                with open(f'/proc/{tool.pid}/task/{tool.pid}/children') as f:
                    child = f.read().split()
                if child:
                    with open(f'/proc/{child[0]}/status') as f:
                        seen = f.read()
                    files = os.listdir(f'/proc/{child[0]}/fd')
            except OSError:
                pass
            time.sleep(0.005)
        text = tool.stderr.read().decode()
    check('the decoder may do nothing but decode', 'Seccomp:\t2' in seen and 'NoNewPrivs:\t1' in seen and len(files) == 1,
          f'{files} {seen} {text}')


def test_time_limit():
    path = write('endless.jpg', endless_jpeg(1000, 200000))
    start = time.monotonic()
    got = read(path, '-s', '1')
    seconds = time.monotonic() - start
    check(f'a file made to take long is stopped ({seconds:.1f} s)',
          isinstance(got, str) and got.startswith('CVQ_FORMAT') and 'stopped after 1' in got and seconds < 30, got)


def write_fixtures():
    r = random.Random(20)
    os.makedirs(FIXTURES, exist_ok=True)

    def put(name, data):
        with open(os.path.join(FIXTURES, name), 'wb') as f:
            f.write(data)
    for depth, color in PNG_MODES:
        name = f'type{color}_{depth}bit'
        put(name + '.png', random_png(r, 9, 5, depth, color, int(depth == 8), color in (0, 2, 3)))
        put(name + '.rgb', pil(os.path.join(FIXTURES, name + '.png')).tobytes())
    for name, image, how in (('photo420', photo(21, 67, 45), {'quality': 85}), ('photo_progressive', photo(21, 67, 45), {'progressive': True, 'quality': 85}),
                             ('photo_grey', photo(21, 67, 45).convert('L'), {'quality': 85}), ('cmyk', photo(21, 8, 8).convert('CMYK'), {'quality': 50})):
        put(name + '.jpg', saved_jpeg(image, optimize=True, **how))
        if name != 'cmyk':
            put(name + '.rgb', pil(os.path.join(FIXTURES, name + '.jpg')).tobytes())


if __name__ == '__main__':
    with tempfile.TemporaryDirectory() as FOLDER:
        if sys.argv[1:] == ['--write-fixtures']:
            write_fixtures()
            sys.exit(0)
        for test in [f for name, f in list(globals().items()) if name.startswith('test_')]:
            test()
    sys.exit(summary())
