#!/usr/bin/env python3
"""docs/publish.md followed word for word: its command blocks, with the installed commands and the small checkpoint, once as the
publisher and once as the receiver.  cvq-test: once"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

from harness import check, skip, summary

BUILD = os.path.relpath(os.environ.get('CVQ_BUILD', 'build'))
CHECKPOINT = os.path.abspath('models/cogvlm2-tiny')
DOCUMENT = 'docs/publish.md'
PASSWORD = 'correct horse\n'


def sections():
    """{title: [command block]}"""
    with open(DOCUMENT, encoding='utf-8') as f:
        parts = re.split(r'^## (.*)$', f.read(), flags=re.M)
    return {title: re.findall(r'^```\n(.*?)^```$', text, re.M | re.S) for title, text in zip(parts[1::2], parts[2::2])}


class Person:
    """Somebody in a folder of their own, with the installed commands."""

    def __init__(self, work, name):
        self.folder = os.path.join(work, name)
        os.mkdir(self.folder)
        os.symlink(CHECKPOINT, self.path('cogvlm2-llama3-chat-19B'))
        self.environment = {'PATH': os.path.join(work, 'installed/bin') + ':' + os.environ['PATH'], 'HOME': self.folder, 'LC_ALL': 'C.UTF-8',
                            'from': 'file://' + os.path.join(work, 'published'), 'XDG_CACHE_HOME': self.path('cache')}

    def path(self, name):
        return os.path.join(self.folder, name)

    def read(self, name):
        with open(self.path(name), 'rb') as f:
            return f.read()

    def write(self, name, data):
        with open(self.path(name), 'wb') as f:
            f.write(data)

    def follow(self, block):
        p = subprocess.run(['bash', '-e', '-o', 'pipefail', '-c', block], cwd=self.folder, env=self.environment, input=2 * PASSWORD,
                           capture_output=True, text=True, timeout=600)
        check(f'{os.path.basename(self.folder)}: {block.splitlines()[0]}', p.returncode == 0,
               f'exit status {p.returncode}\n{block}{p.stdout}{p.stderr}')
        return p.stdout


def publish(person, blocks, published):
    shutil.copy('tests/data/held-out.txt', person.path('text.txt'))
    for block in blocks:
        person.follow(block)
    manifest = json.loads(person.read('cogvlm2-q4.manifest'))
    check('the manifest tells where the file comes from and how good it is', manifest['source']['revision'] == 'COMMIT' and
           manifest['quality']['kld_mean'] >= 0 and manifest['recipe']['name'] == 'q4', manifest)
    # The next version, which the page says nothing about.
    person.follow('cvq-quantize -q --type "lm_head.*=q8" cogvlm2-bf16.cvq cogvlm2-q4-v2.cvq\n'
                  'cvq-info --manifest cogvlm2-q4-v2.cvq > cogvlm2-q4-v2.manifest\nminisign -S -m cogvlm2-q4-v2.manifest\n')
    person.follow('cvq-pack -d cogvlm2-bf16.cvz.001 again.cvq && cmp again.cvq cogvlm2-bf16.cvq\n')
    os.mkdir(published)
    for name in os.listdir(person.folder):
        if re.match(r'cogvlm2-q4|minisign\.pub', name):
            shutil.copy(person.path(name), published)


def receive(person, blocks, published):
    for name in ('minisign.pub', 'cogvlm2-q4.manifest', 'cogvlm2-q4.manifest.minisig', 'cogvlm2-q4-v2.manifest', 'cogvlm2-q4-v2.manifest.minisig',
                 'cogvlm2-q4.cvq.001'):
        shutil.copy(os.path.join(published, name), person.folder)
    with open(os.path.join(published, 'cogvlm2-q4.cvq'), 'rb') as f:
        whole = f.read()
    with open(os.path.join(published, 'cogvlm2-q4-v2.cvq'), 'rb') as f:
        update = f.read()

    def damaged(*places):
        data = bytearray(whole)
        for place in places:
            data[int(place * len(data))] ^= 1
        return bytes(data)
    said = []
    for block in blocks:
        # What befalls the receiver before.
        if '--bad-ranges' in block:
            person.write('cogvlm2-q4.cvq', damaged(0, 0.3, 0.6)[:int(0.8 * len(whole))])
        if '--repair copy.cvq' in block:
            person.write('cogvlm2-q4.cvq', damaged(0.2, 0.5))
            person.write('copy.cvq', damaged(0, 0.7))
        if '--diff' in block:
            person.write('cogvlm2-q4.cvq', whole)
        said.append(person.follow(block))
        if '--bad-ranges' in block:
            check('what was fetched again makes the file whole', person.read('cogvlm2-q4.cvq') == whole)
        if '--repair copy.cvq' in block:
            check('two damaged copies make a whole one', person.read('whole.cvq') == whole)
        if '--diff' in block:
            ranges = [line.split('\t') for line in person.read('ranges.tsv').decode().splitlines()[1:]]
            check('an update fetches a part of the file only', 0 < sum(int(r[1]) for r in ranges) < len(update) / 2, ranges)
            check('the update is the published file', person.read('cogvlm2-q4-v2.cvq') == update)
    identity = json.loads(person.read('cogvlm2-q4.manifest'))['file']['id']
    check('--check found what the publisher had made', any('exactly what' in text and identity in text for text in said), said)
    check('--verify said so', sum('verified:' in text for text in said) == 2, said)


def main():
    missing = [name for name in ('minisign', 'curl') if not shutil.which(name)]
    if missing:
        skip('docs/publish.md', f'{" and ".join(missing)} not installed (scripts/setup.sh test installs them)')
    else:
        with tempfile.TemporaryDirectory(prefix='cvq-publish-') as work:
            e = {k: v for k, v in os.environ.items() if k not in ('MAKEFLAGS', 'MFLAGS', 'MAKELEVEL')}
            p = subprocess.run(['make', '--no-print-directory', f'B={BUILD}', f'PREFIX={work}/installed', 'install'], capture_output=True, text=True, env=e)
            check('make install', p.returncode == 0, p.stdout + p.stderr)
            blocks = sections()
            published = os.path.join(work, 'published')
            publish(Person(work, 'publisher'), blocks['The publisher'], published)
            receive(Person(work, 'receiver'), blocks['The receiver'], published)
    return summary()


if __name__ == '__main__':
    sys.exit(main())
