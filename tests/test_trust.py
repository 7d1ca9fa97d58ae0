#!/usr/bin/env python3
"""Files that are handed out: manifests and their signatures, damage that is named and mended, updates.
cvq-test: native formats"""
import functools
import hashlib
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys

import harness
from harness import check, files, path, read, remove, skip, summary, working_folder, write

run = functools.partial(harness.run, text=True)
CHECKPOINT = os.path.abspath('models/cogvlm2-tiny')
# Damaged places tried for each type of file; a sanitizer's build tries fewer.
PLACES = 200 if os.environ.get('CVQ_CONFIG', 'gcc') == 'gcc' else 20


def identity(name):
    return json.loads(run('cvq-info', '--json', name).out)['id']


# ---------------------------------------------------------------- manifests

def manifests():
    write('quality.json', '{"kld_text": 0.01, "questions": {"n": 3000, "exact": 95.1}}')
    r = run('cvq-info', '--manifest', 'q4.cvq', '--quality', 'quality.json')
    m = json.loads(r.out)
    data, info = read('q4.cvq'), json.loads(run('cvq-info', '--json', '--tensors', 'q4.cvq').out)
    write('q4.manifest', r.out)
    check('manifest: file', m['file'] == {'name': 'q4.cvq', 'bytes': len(data), 'id': info['id'], 'format_version': info['version']},
          m['file'])
    check('manifest: source and recipe as in the file', m['source'] == info['source'] and m['recipe']['name'] == 'q4' and
          m['recipe']['types'] == info['types'], m['recipe'])
    check('manifest: quality as given', m['quality'] == {'kld_text': 0.01, 'questions': {'n': 3000, 'exact': 95.1}}, m.get('quality'))
    with open(os.path.join(CHECKPOINT, 'LICENSE'), 'rb') as f:
        check('manifest: licences by hash', m['licenses'] == [{'name': 'LICENSE', 'sha256': hashlib.sha256(f.read()).hexdigest()}],
              m['licenses'])
    parts = [(0, m['head'])] + [(t['offset'], t) for t in m['tensors']]
    hashes = all(h == hashlib.sha256(data[at + i * 2**20:at + min((i + 1) * 2**20, p['bytes'])]).hexdigest()
                 for at, p in parts for i, h in enumerate(p['sha256']))
    count = all(len(p['sha256']) == -(-p['bytes'] // 2**20) for _, p in parts)
    check('manifest: every hash is that of its bytes', hashes and count)
    check('manifest: all tensors', [t['name'] for t in m['tensors']] == [t['name'] for t in info['tensors']])
    for name, text, says in (
            ('no JSON', 'x', 'line 1'), ('another format', '{"format": "other"}', 'cvq-manifest'),
            ('another version', '{"format": "cvq-manifest", "version": 2}', 'get a newer cvq'),
            ('a hash too few', cut(m, lambda x: x['tensors'][3]['sha256'].pop()), 'hashes'),
            ('a hash that is none', cut(m, lambda x: x['head']['sha256'].__setitem__(0, 'A' * 64)), 'SHA-256'),
            ('a tensor past the end', cut(m, lambda x: x['tensors'][-1].__setitem__('offset', 2**52)), 'more than the'),
            ('tensors out of order', cut(m, lambda x: x['tensors'].insert(3, x['tensors'].pop(2))), 'a gap'),
            ('a tensor twice', cut(m, lambda x: x['tensors'].insert(3, x['tensors'][2])), 'lies before'),
            ('a gap', cut(m, lambda x: x['tensors'].pop(3)), 'a gap'),
            ('a line of its own for a name', cut(m, lambda x: x['tensors'][3].__setitem__('name', 'a\nb')), 'no name of a tensor'),
            ('a folder in the name', cut(m, lambda x: x['file'].__setitem__('name', '../q4.cvq')), 'without folders'),
            ('no tensors', cut(m, lambda x: x.__setitem__('tensors', [])), '0 tensors')):
        r = run('cvq-info', '--verify', '--manifest', write('bad.manifest', text), 'q4.cvq')
        check(f'manifest with {name} is refused', r.code == 1 and says in r.err.splitlines()[-1], r)
    r = run('cvq-info', '--verify', '--manifest', write('bad.manifest', cut(m, lambda x: x['file'].__setitem__('id', '0' * 64))), 'q4.cvq')
    check('manifest with another id is refused', r.code == 1 and 'its id' in r.err, r)
    r = run('cvq-info', '--verify', '--manifest', 'q4.manifest', 'q4-small.cvq')
    check('another file than the manifest names is found', r.code == 1 and 'head: bytes 0' in r.err, r)
    write('longer.cvq', data + b'\0')
    r = run('cvq-info', '--verify', '--manifest', 'q4.manifest', 'longer.cvq')
    check('a byte too many is found', r.code == 1 and '1 more than its manifest' in r.err, r)
    for args in (('--manifest', 'q4.manifest', 'q4.cvq'), ('--pubkey', 'k', 'q4.cvq'), ('--quality', 'quality.json', 'q4.cvq'),
                 ('--repair', 'q4.cvq', 'q4.cvq'), ('q4.cvq', 'out.cvq'), ('--diff', 'q4.manifest', '--verify', 'q4.cvq'), ()):
        r = run('cvq-info', *args)
        check(f'wrong usage: {args}', r.code == 2 and 'see cvq-info --help' in r.err, r)


def cut(manifest, change):
    m = json.loads(json.dumps(manifest))
    change(m)
    return json.dumps(m)


def move(tensor):
    """To a place that is as possible, within the padding in front of it."""
    tensor['offset'] -= 1


def signatures():
    if not shutil.which('minisign'):
        return skip('signatures', 'minisign is not installed (scripts/setup.sh test installs it)')
    for name in ('k', 'other'):
        subprocess.run(['minisign', '-G', '-W', '-p', path(name + '.pub'), '-s', path(name + '.key')], check=True, stdout=subprocess.DEVNULL)

    def sign(*args):
        subprocess.run(['minisign', '-S', '-s', path('k.key'), '-m', path('q4.manifest'), '-t', 'of a test', *args], check=True,
                       stdout=subprocess.DEVNULL)
    for kind, args in (('prehashed', []), ('legacy', ['-l'])):
        sign(*args)
        r = run('cvq-info', '--verify', '--manifest', 'q4.manifest', '--pubkey', 'k.pub')
        check(f'{kind} signature, file beside the manifest', r.code == 0 and 'of a test' in r.err and 'verified:' in r.out, r)
    sign()
    key = read('k.pub').decode().splitlines()[1]
    r = run('cvq-info', '--verify', '--manifest', 'q4.manifest', '--pubkey', key, 'q4.cvq')
    check('the key itself', r.code == 0, r)
    r = run('cvq-info', '--verify', '--manifest', 'q4.manifest', '--pubkey', 'other.pub', 'q4.cvq')
    check("another's key", r.code == 1 and 'another key' in r.err, r)
    r = run('cvq-info', '--verify', '--manifest', 'q4.manifest', 'q4.cvq')
    check('without a key a note says so', r.code == 0 and 'not checked' in r.err, r)
    flipped_manifests()
    write('cut.cvq', read('q4.cvq')[:99999])
    for name in ('q4.cvq', 'cut.cvq', 'q4.manifest', 'q4.manifest.minisig', 'k.pub'):
        before = read(name)
        r = run('cvq-info', '--force', '--repair', 'q4.cvq', '--manifest', 'q4.manifest', '--pubkey', 'k.pub', 'cut.cvq', name)
        check(f'{name} is never overwritten', r.code == 1 and 'is read as input' in r.err and read(name) == before, r)
    whole, signature = read('q4.manifest'), read('q4.manifest.minisig')
    write('q4.manifest', whole.replace(b'"q4"', b'"q5"'))
    r = run('cvq-info', '--verify', '--manifest', 'q4.manifest', '--pubkey', 'k.pub', 'q4.cvq')
    check('a changed manifest', r.code == 1 and 'does not fit its signature' in r.err, r)
    write('q4.manifest', whole)
    lines = signature.splitlines(True)
    for name, changed in (('a changed comment', signature.replace(b'of a test', b'of a text')),
                          ('a changed signature', lines[0] + flip_digit(lines[1], 50) + b''.join(lines[2:])),
                          ('a changed second signature', b''.join(lines[:3]) + flip_digit(lines[3], 50))):
        write('q4.manifest.minisig', changed)
        r = run('cvq-info', '--verify', '--manifest', 'q4.manifest', '--pubkey', 'k.pub', 'q4.cvq')
        check(name, r.code == 1 and 'does not fit its signature' in r.err, r)
    for name, changed in (('a line too few', b''.join(lines[:3])), ('text behind', signature + b'x\n'), ('nothing', b''),
                          ('no base64', lines[0] + b'!' * 100 + b'\n' + b''.join(lines[2:]))):
        write('q4.manifest.minisig', changed)
        r = run('cvq-info', '--verify', '--manifest', 'q4.manifest', '--pubkey', 'k.pub', 'q4.cvq')
        check(f'signature with {name}', r.code == 1 and 'not a signature of minisign' in r.err, r)
    remove('q4.manifest.minisig')
    r = run('cvq-info', '--verify', '--manifest', 'q4.manifest', '--pubkey', 'k.pub', 'q4.cvq')
    check('no signature', r.code == 1 and 'q4.manifest.minisig' in r.err, r)
    r = run('cvq-info', '--verify', '--manifest', 'q4.manifest', '--pubkey', 'quality.json', 'q4.cvq')
    check('no key', r.code == 1, r)


def flipped_manifests():
    """A bit anywhere in a signed manifest is found before anything in it is believed."""
    rng = random.Random('manifest')
    whole, missed = read('q4.manifest'), []
    for _ in range(PLACES):
        at, bit = rng.randrange(len(whole)), rng.randrange(8)
        write('q4.manifest', flip(whole, at, bit))
        r = run('cvq-info', '--verify', '--manifest', 'q4.manifest', '--pubkey', 'k.pub', 'q4.cvq')
        if r.code != 1 or r.out or 'q4.manifest' not in r.err or 'does not fit its signature' not in r.err:
            missed.append((at, bit, str(r)))
    write('q4.manifest', whole)
    check(f'{PLACES} flipped bits of a signed manifest are found', not missed, missed[:3])
    r = run('cvq-info', '--verify', '--manifest', 'q4.manifest', '--pubkey', 'k.pub', 'q4.cvq')
    check('and the second copy of it is right', r.code == 0, r)


def flip_digit(line, at):
    return line[:at] + (b'A' if line[at:at + 1] != b'A' else b'B') + line[at + 1:]


# ---------------------------------------------------------------- damage

def flip(data, at, bit):
    out = bytearray(data)
    out[at] ^= 1 << bit
    return bytes(out)


def flips(kind):
    """A bit anywhere is found, named, and mended from a second copy."""
    name = kind + '.cvq'
    data = read(name)
    write(kind + '.manifest', run('cvq-info', '--manifest', name).out)
    manifest = json.loads(read(kind + '.manifest'))
    rng = random.Random(kind)
    missed, misnamed, unmended = [], [], []
    for place in range(PLACES):
        at, bit = rng.randrange(len(data)), rng.randrange(8)
        write('bad.cvq', flip(data, at, bit))
        owner = next((t['name'] for t in manifest['tensors'] if t['offset'] <= at < t['offset'] + t['bytes']),
                     'head' if at < manifest['head']['bytes'] else '(padding)')
        # The head vouches for itself only with a manifest.
        by_manifest = ['--manifest', kind + '.manifest'] if owner == 'head' or place % 2 else []
        r = run('cvq-info', '-q', '--json', '--verify', *by_manifest, 'bad.cvq')
        ranges = json.loads(r.out)['verify']['bad_ranges'] if r.out else []
        if r.code != 1 or len(ranges) != 1 or not ranges[0]['offset'] <= at < ranges[0]['offset'] + ranges[0]['bytes']:
            missed.append((at, bit, str(r)))
        elif ranges[0]['tensor'] != owner or owner not in r.err:
            misnamed.append((at, owner, ranges))
        r = run('cvq-info', '-q', '--force', '--repair', name, *by_manifest, 'bad.cvq', 'mended.cvq')
        if r.code != 0 or read('mended.cvq') != data:
            unmended.append((at, bit, str(r)))
    check(f'{kind}: {PLACES} flipped bits are found', not missed, missed[:3])
    check(f'{kind}: the right part is named', not misnamed, misnamed[:3])
    check(f'{kind}: and mended', not unmended, unmended[:3])


def repairs():
    data = read('q4.cvq')
    write('short.cvq', data[:len(data) // 2])
    write('holes.cvq', flip(data, 2 * len(data) // 3, 1))
    r = run('cvq-info', '--repair', 'holes.cvq', '--manifest', 'q4.manifest', 'short.cvq', 'out.cvq')
    check('two damaged halves of which each part is whole in neither', r.code == 1 and 'damaged in both' in r.err and
          not os.path.exists(path('out.cvq')), r)
    write('end.cvq', b'\0' * (len(data) // 2) + data[len(data) // 2:])
    write('begin.cvq', data[:len(data) // 2 + 2**20] + b'\1' * (len(data) - len(data) // 2 - 2**20))
    r = run('cvq-info', '--repair', 'end.cvq', '--manifest', 'q4.manifest', 'begin.cvq', 'out.cvq')
    check('two halves make a whole', r.code == 0 and read('out.cvq') == data and identity('out.cvq') in r.out, r)
    remove('out.cvq')
    r = run('cvq-info', '--repair', 'end.cvq', 'begin.cvq', 'out.cvq')
    check('without a manifest by the head that is whole', r.code == 0 and read('out.cvq') == data and not r.err, r)
    remove('out.cvq')
    r = run('cvq-info', '--repair', 'begin.cvq', 'end.cvq', 'out.cvq')
    check('even if it is the copy\'s, which is said', r.code == 0 and read('out.cvq') == data and 'the head of end.cvq is damaged' in r.err, r)
    whole = run('cvq-info', '--force', '--repair', 'q4.cvq', 'end.cvq', 'out.cvq')
    check('and counted among what was taken', 'taken from q4.cvq: 0 bytes' not in whole.out and 'taken from q4.cvq: ' in whole.out, whole)
    r = run('cvq-info', '--repair', 'end.cvq', 'end.cvq', 'none.cvq')
    check('without any head', r.code == 1 and 'give the manifest' in r.err and not os.path.exists(path('none.cvq')), r)
    r = run('cvq-info', '--repair', 'end.cvq', 'nowhere.cvq', 'none.cvq')
    check('no such file', r.code == 1 and 'nowhere.cvq: no such file' in r.err, r)
    r = run('cvq-info', '--repair', 'q4.cvq', 'short.cvq', 'out.cvq')
    check('an existing output is refused', r.code == 1 and 'exists already' in r.err, r)
    r = run('cvq-info', '--force', '--repair', 'q4.cvq', 'short.cvq', 'short.cvq')
    check('an input is never overwritten', r.code == 1 and 'is read as input' in r.err and len(read('short.cvq')) == len(data) // 2, r)
    remove('out.cvq')
    r = run('cvq-info', '--bad-ranges', '--manifest', 'q4.manifest', 'short.cvq')
    rows = [line.split('\t') for line in r.out.splitlines()[1:]]
    fetched = bytearray(len(data))
    fetched[:len(data) // 2] = data[:len(data) // 2]
    for offset, size, _ in rows:
        fetched[int(offset):int(offset) + int(size)] = data[int(offset):int(offset) + int(size)]
    check('fetching the bad ranges makes a truncated file whole', bytes(fetched) == data, rows)


def updates():
    r = run('cvq-info', '--diff', 'q4.manifest', 'q8.cvq')
    rows = [line.split('\t') for line in r.out.splitlines()[1:]]
    data = read('q4.cvq')
    check('update: what is new', r.code == 0 and rows and 'to be fetched' in r.err and
          sum(int(x[1]) for x in rows) < len(data), r)
    part = bytearray(len(data))
    for offset, size, _ in rows:
        part[int(offset):int(offset) + int(size)] = data[int(offset):int(offset) + int(size)]
    write('part.cvq', bytes(part))
    remove('out.cvq')
    r = run('cvq-info', '--repair', 'q8.cvq', '--manifest', 'q4.manifest', 'part.cvq', 'out.cvq')
    check('update: the ranges and the old file give the new one', r.code == 0 and read('out.cvq') == data, r)
    r = run('cvq-info', '--diff', 'q4.manifest', 'q4.cvq')
    check('update: nothing is new in the same file', r.code == 0 and len(r.out.splitlines()) == 1, r)
    for args in (('--diff', 'q4.cvq', 'q8.cvq'), ('--verify', '--manifest', 'q4.cvq', 'q4.cvq')):
        r = run('cvq-info', *args)
        check(f'{args[0]}: a model is no manifest', r.code == 1 and 'q4.cvq: is a .cvq file and no manifest; cvq-info --manifest' in r.err, r)


# ---------------------------------------------------------------- what a file claims, checked

def reproducing():
    """cvq-convert --check: the bytes that checkpoint and recipe give, and everything that can differ."""
    data = os.path.abspath('tests/data/calibration.jsonl')
    run('cvq-calibrate', '-q', '-o', 'imatrix', '--second-moments', 'moments', 'bf16.cvq', data)
    write('card.md', '# A card\n')
    run('cvq-convert', '-q', '--recipe', 'q4', '--source-revision', 'abc', '--card', 'card.md', CHECKPOINT, 'told.cvq')
    run('cvq-quantize', '-q', '--recipe', 'q4', '--type', 'lm_head.*=q4', '--imatrix', 'imatrix', '--feedback', 'moments', 'bf16.cvq',
        'calibrated.cvq')
    write('told.manifest', run('cvq-info', '--manifest', 'told.cvq').out)
    write('calibrated.manifest', run('cvq-info', '--manifest', 'calibrated.cvq').out)
    calibration = ('--imatrix', 'imatrix', '--feedback', 'moments')

    def check_by(name, *args, checkpoint=CHECKPOINT):
        return run('cvq-convert', '--check', name, *args, checkpoint)
    before = files()
    for name, args, of in (('bf16.cvq', (), 'bf16'), ('q4-small.cvq', (), 'q4-small'), ('told.cvq', (), 'told'), ('told.manifest', (), 'told'),
                           ('calibrated.cvq', calibration, 'calibrated'), ('calibrated.manifest', calibration, 'calibrated')):
        r = check_by(name, *args)
        check(f'check: {name} is what the checkpoint gives', r.code == 0 and identity(of + '.cvq') in r.out, r)
    check('check: nothing was written', files() == before, files())
    m = json.loads(read('told.manifest'))
    m['quality'] = {'anything': 1}
    r = check_by(write('quality.manifest', json.dumps(m)))
    check('check: what quality was measured it does not say', r.code == 0 and 'says nothing of its "quality"' in r.err, r)
    r = check_by(write('rules.manifest', cut(m, lambda x: x['recipe']['types'].update({str(i): 'q4' for i in range(65536)}))))
    check('check: a recipe of more rules than any', r.code == 1 and 'rules.manifest: the recipe has 655' in r.err, r)
    sha256 = hashlib.sha256(read('imatrix')).hexdigest()
    for name, args, says in (('calibrated.manifest', calibration[2:], sha256), ('calibrated.manifest', calibration[:2], '--feedback'),
                             ('calibrated.manifest', ('--imatrix', 'moments', '--feedback', 'moments'), ''),
                             ('told.manifest', calibration[:2], 'leave --imatrix out')):
        r = check_by(name, *args)
        check(f'check: {name} with {args}', r.code == 1 and says in r.err and not r.out, r)

    # The very last MiB of a tensor, by a file whose hashes all fit.
    tensors = json.loads(run('cvq-info', '--json', '--tensors', 'told.cvq').out)['tensors']
    number = max(range(len(tensors)), key=lambda i: tensors[i]['bytes'])
    t = tensors[number]
    write('forged.cvq', mended(flip(read('told.cvq'), t['offset'] + t['bytes'] - 1, 0), number))
    check('check: a forged file verifies', run('cvq-info', '--verify', 'forged.cvq').code == 0)
    r = check_by('forged.cvq')
    last = (t['bytes'] - 1) // 2**20 * 2**20
    check('check: a forged file is not what the checkpoint gives', r.code == 1 and
          f"tensor {t['name']}: bytes {last} to {t['bytes'] - 1} of it" in r.err, r)
    write('damaged.cvq', flip(read('told.cvq'), t['offset'], 0))
    r = check_by('damaged.cvq')
    check('check: a damaged file is not even compared', r.code == 1 and t['name'] in r.err and 'damaged' in r.err, r)
    m = json.loads(read('told.manifest'))
    for name, change, says in (
            ('another card', lambda x: x.__setitem__('card', '# A cart\n'), 'every weight'),
            ('another type', lambda x: x['recipe']['types'].__setitem__('*', 'q6'), 'its recipe gives'),
            ('an unknown type', lambda x: x['recipe']['types'].__setitem__('*', 'q3'), 'does not know'),
            ('a source file more', lambda x: x['source']['files'].append({'name': 'x', 'size': 1, 'sha256': '0' * 64}), 'with a x, which'),
            ('a source file less', lambda x: x['source']['files'].pop(0), 'without a LICENSE'),
            ('no source', lambda x: x.pop('source'), '"source" must be'),
            ('another hash of a shard', lambda x: [f.__setitem__('sha256', '1' * 64) for f in x['source']['files']
                                                  if f['name'].endswith('.safetensors')], 'was made from another model'),
            ('another tensor', lambda x: x['tensors'][0].__setitem__('name', 'x'), 'has the tensor x where'),
            ('another id', lambda x: x['file'].__setitem__('id', '0' * 64), 'every weight'),
            ('another format version', lambda x: x['file'].__setitem__('format_version', 2), 'is of format version 2'),
            ('a larger head', lambda x: x['head'].__setitem__('bytes', x['head']['bytes'] - 1), 'has a head of'),
            ('another hash of the head', lambda x: x['head']['sha256'].__setitem__(-1, '1' * 64), 'of the head what is not so'),
            ('another place of a tensor', lambda x: move(x['tensors'][3]), 'begins at byte'),
            ('another licence text', lambda x: x['licenses'][0].__setitem__('sha256', '1' * 64), 'tells of a licence LICENSE'),
            ('another licence name', lambda x: x['licenses'][0].__setitem__('name', 'MIT'), 'tells of a licence MIT'),
            ('a licence more', lambda x: x['licenses'].append(x['licenses'][0]), 'that its checkpoint does not have'),
            ('no licence', lambda x: x['licenses'].pop(), 'does not tell of the licence LICENSE'),
            ('no list of licences', lambda x: x.pop('licenses'), 'does not tell of the licence LICENSE'),
            ('a licence that is a number', lambda x: x['licenses'].__setitem__(0, 1), 'not a JSON object')):
        r = check_by(write('changed.manifest', cut(m, change)))
        check(f'check: a manifest with {name}', r.code == 1 and says in r.err and not r.out, r)

    # Another checkpoint: of the same sizes, its files' times do not matter.
    shutil.copytree(CHECKPOINT, path('other'))
    shard = next(n for n in sorted(os.listdir(path('other'))) if n.endswith('.safetensors'))
    write('other/' + shard, flip(read('other/' + shard), -1, 0))
    r = check_by('told.manifest', checkpoint='other')
    check('check: a weight that was changed is named', r.code == 1 and re.search(r'told.manifest: tensor \S+: bytes', r.err), r)
    write('other/config.json', read('other/config.json') + b'\n')
    r = check_by('told.manifest', checkpoint='other')
    check('check: another source file is named', r.code == 1 and 'another config.json' in r.err, r)
    for args in (('--recipe', 'q4'), ('--card', 'card.md'), ('--source-revision', 'a'), ('--resume',), ('--dry-run',)):
        r = check_by('told.cvq', *args)
        check(f'check: wrong usage: {args}', r.code == 2, r)
    r = run('cvq-convert', '--check', 'told.cvq', CHECKPOINT, 'out.cvq')
    check('check: takes no output', r.code == 2, r)


# ---------------------------------------------------------------- trust on use

def mended(data, tensor):
    """The file with the hashes of one tensor's chunks, and that of the head, made to fit."""
    out = bytearray(data)
    chunks = struct.unpack_from('<QQ', data, 72 + 24 * 4 + 8)[0]
    index = struct.unpack_from('<QQ', data, 72 + 24 * 1 + 8)[0] + 200 * tensor
    offset, size, first = struct.unpack_from('<QQQ', data, index + 152)
    for i in range(-(-size // 2**20)):
        part = out[offset + i * 2**20:offset + min(size, (i + 1) * 2**20)]
        out[chunks + 32 * (first + i):chunks + 32 * (first + i + 1)] = hashlib.sha256(part).digest()
    head = struct.unpack_from('<Q', data, 24)[0]
    out[32:64] = bytes(32)
    out[32:64] = hashlib.sha256(out[:head]).digest()
    return bytes(out)


def using():
    picture = os.path.abspath('models/pictures/number-13.png')
    data = read('q4.cvq')
    tensors = json.loads(run('cvq-info', '--json', '--tensors', 'q4.cvq').out)['tensors']
    number = {t['name']: i for i, t in enumerate(tensors)}

    def damaged(name, at=5):
        t = tensors[number[name]]
        return t, flip(data, t['offset'] + at, 2)

    def ask(name, *args, image=True):
        return run('cvq-run', *(['--image', picture] if image else []), '--prompt', 'What number is written in the image?',
                   '--max-tokens', '4', *args, name)
    right = ask('q4.cvq').out
    layer, vit = 'model.layers.2.mlp.language_mlp.up_proj.weight', 'model.vision.transformer.layers.1.mlp.fc1.weight'
    for name in (layer, vit, 'lm_head.weight', 'model.vision.patch_embedding.proj.weight', 'model.layers.1.input_layernorm.weight'):
        t, bad = damaged(name)
        write('bad.cvq', bad)
        r = ask('bad.cvq', '--no-cache')
        check(f'use: damage in {name} stops the answer', r.code == 1 and name in r.err and f"bytes {t['offset']} to" in r.err and not r.out, r)
        check('use: unless nobody is to look', ask('bad.cvq', '--verify', 'never').code == 0)
    t, bad = damaged(vit)
    write('bad.cvq', bad)
    check('use: what is not needed is not looked at', ask('bad.cvq', image=False).code == 0)
    t = tensors[number['model.embed_tokens.weight']]
    write('bad.cvq', flip(data, t['offset'] + t['bytes'] - 1, 1))
    r = ask('bad.cvq', '--verify', 'always')
    check('use: an embedding is looked at by the MiB', r.code == (1 if t['bytes'] < 2**20 else 0), r)
    records = lambda: sorted(n for n in os.listdir(path('cache/cvq')) if n.endswith('.verified'))
    for n in records():
        os.unlink(path('cache/cvq/' + n))
    check('use: the record is written', ask('q4.cvq', '-v').out == right and len(records()) == 1)
    r = ask('q4.cvq', '-v')
    check('use: and trusted', r.out == right and 'verified before' in r.err, r)
    record = 'cache/cvq/' + records()[0]
    write(record, flip(read(record), 1, 3))
    r = ask('q4.cvq', '-v')
    check('use: a damaged record is not', r.out == right and 'verified before' not in r.err, r)
    stamp = os.stat(path('q4.cvq'))
    with open(path('q4.cvq'), 'r+b') as f:
        f.write(damaged(layer)[1])
    os.utime(path('q4.cvq'), ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    r = ask('q4.cvq')
    check('use: a file that was changed is verified again', r.code == 1 and layer in r.err, r)
    write('q4.cvq', data)
    r = ask('q4.cvq', '--no-cache', '-v')
    check('use: without a cache nothing is remembered', r.out == right and 'verified before' not in r.err, r)
    for name, value in (('lm_head.weight', b'\x00\x7e'), (vit, b'\x00\xfc')):  # q6 and q8: an f16 that is no number, and minus infinity
        t = tensors[number[name]]
        bad = bytearray(data)
        bad[t['offset'] + 2:t['offset'] + 4] = value
        write('bad.cvq', mended(bad, number[name]))
        r = ask('bad.cvq', '--no-cache')
        check(f'use: a scale of {name} that is not finite', r.code == 1 and name in r.err and 'not a number' in r.err, r)
        r = run('cvq-info', '--verify', 'bad.cvq')
        check('info --verify: too', r.code == 1 and name in r.err and 'not a number' in r.err, r)


# ---------------------------------------------------------------- what a file says of itself

def words():
    """It neither drives a terminal nor looks like a line of cvq's own."""
    run('cvq-convert', '-q', '--source-revision', 'a' * 60, CHECKPOINT, 'words.cvq')
    data = bytearray(read('words.cvq'))
    said = rb'1\nid: 2\u001b[2J\u009b31m\u007f3'
    at = data.index(b'"revision":"' + b'a' * 60) + 12
    data[at:at + 60] = said.ljust(60, b'a')
    head_size, = struct.unpack_from('<Q', data, 24)
    data[32:64] = bytes(32)
    data[32:64] = hashlib.sha256(data[:head_size]).digest()
    write('words.cvq', bytes(data))
    r = run('cvq-info', 'words.cvq')
    check('info: control characters of a file are not printed', r.code == 0 and 'revision 1?id: 2?[2J?31m?3aaa' in r.out, r)
    check('info: JSON has them as they are', json.loads(run('cvq-info', '--json', 'words.cvq').out)['source']['revision'].startswith(
        '1\nid: 2\x1b[2J\x9b31m\x7f3aaa'))
    remove('words.cvq')


def long_pieces():
    """A model whose answers take more memory than there is."""
    ask = 'cvq-run', '--prompt', 'hello', '--max-tokens', '8', '--no-cache'
    shutil.copytree(CHECKPOINT, path('long'))
    run('cvq-convert', '-q', 'long', 'long.cvq')
    answer = json.loads(run(*ask, '--json', 'long.cvq').out)
    with open(path('long/tokenizer.json'), encoding='utf-8') as f:
        tokenizer = json.load(f)
    model, token = tokenizer['model'], answer['completion_ids'][1]
    piece, = (k for k, v in model['vocab'].items() if v == token)
    del model['vocab'][piece]
    model['vocab'][piece + 'x' * (17 << 20)] = token
    model['merges'] = [m for m in model['merges'] if piece not in (*m.split(' '), m.replace(' ', ''))]
    write('long/tokenizer.json', json.dumps(tokenizer))
    run('cvq-convert', '-q', '--force', 'long', 'long.cvq')
    r = run(*ask, 'long.cvq')
    check('a piece of 17 MiB in an answer', r.code == 1 and 'answer: it is longer than 16 MiB' in r.err and len(r.out) < 100, (r.code, r.err, r.out[:100]))
    shutil.rmtree(path('long'))
    remove('long.cvq')


def main():
    with working_folder('cvq-trust-'):
        os.environ['XDG_CACHE_HOME'] = path('cache')
        for recipe in ('bf16', 'q8', 'q4', 'q4-small'):
            r = run('cvq-convert', '-q', '--recipe', recipe, CHECKPOINT, recipe + '.cvq')
            if r.code != 0:
                sys.exit(f'cannot convert: {r}')
        manifests()
        words()
        long_pieces()
        signatures()
        for kind in ('bf16', 'q8', 'q4', 'q4-small'):
            flips(kind)
        repairs()
        updates()
        reproducing()
        using()
    return summary()


if __name__ == '__main__':
    sys.exit(main())
