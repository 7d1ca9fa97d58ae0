"""Commands with what they read and write, for tests that stop them, make their calls fail or get in their way: at least one of each command."""
import os
import shutil
import sys

import harness
import smallest_checkpoint

TINY, PICTURES = (os.path.abspath(p) for p in ('models/cogvlm2-tiny', 'models/pictures'))


class Case:
    """A command and what belongs to it: files it writes; those that may be left of a failed run, which goes on with them or replaces them;
    of these, files that grow line by line, and `early` ones that are complete before; what it is given on standard input; whether what it
    prints is measured, and so another each time."""

    def __init__(self, name, *command, outputs=(), left=(), grows=(), early=(), stdin=b'', measures=False):
        self.name, self.command, self.stdin, self.measures = name, command, stdin, measures
        self.grows, self.early = tuple(grows), tuple(early)
        self.outputs, self.left = tuple(outputs) + self.grows + self.early, tuple(left) + self.grows


def resumable(name):
    return name + '.partial', name + '.partial.journal'


def cases(target, part):
    """target: a size between those that cvq-quantize can reach for the checkpoint; part: a third of its q4 file, or more."""
    return (
        Case('convert', 'cvq-convert', 'checkpoint', 'out.cvq', outputs=['out.cvq'], left=resumable('out.cvq')),
        Case('convert q4', 'cvq-convert', '--recipe', 'q4', 'checkpoint', 'out.cvq', outputs=['out.cvq'], left=resumable('out.cvq')),
        Case('convert --check', 'cvq-convert', '--check', 'calibrated', '--imatrix', 'imatrix', 'checkpoint'),
        Case('convert --dry-run', 'cvq-convert', '--dry-run', 'checkpoint'),
        Case('quantize', 'cvq-quantize', '--report', 'report', 'small.cvq', 'out.cvq', outputs=['out.cvq', 'report'], left=resumable('out.cvq')),
        Case('quantize --feedback', 'cvq-quantize', '--imatrix', 'imatrix', '--feedback', 'moments', 'small.cvq', 'out.cvq', outputs=['out.cvq'],
             left=resumable('out.cvq')),
        Case('quantize --target-size', 'cvq-quantize', '--target-size', target, '--sensitivity', 'sensitivity', 'layer.cvq', 'out.cvq',
             outputs=['out.cvq'], left=resumable('out.cvq')),
        Case('info', 'cvq-info', '--tensors', 'q4.cvq'),
        Case('info --verify', 'cvq-info', '--verify', 'q4.cvq'),
        Case('info --manifest', 'cvq-info', '--manifest', 'q4.cvq'),
        Case('info --verify --manifest', 'cvq-info', '--verify', '--manifest', 'manifest', 'q4.cvq'),
        Case('info --diff', 'cvq-info', '--diff', 'manifest', 'damaged.cvq'),
        Case('info --repair', 'cvq-info', '--repair', 'q4.cvq', 'damaged.cvq', 'out.cvq', outputs=['out.cvq']),
        Case('pack', 'cvq-pack', '-q', 'tiny.cvq', 'out', outputs=['out']),
        Case('pack --split', 'cvq-pack', '-q', '--split', part, 'q4.cvq', 'out', outputs=['out.001', 'out.002', 'out.003']),
        Case('pack -d', 'cvq-pack', '-d', 'packed', 'out.cvq', outputs=['out.cvq']),
        Case('run', 'cvq-run', '--image', 'number.png', '--prompt', 'What?', '--max-tokens', '4', 'q4.cvq'),
        Case('run --json', 'cvq-run', '--json', '--prompt', 'What?', '--max-tokens', '2', 'q4.cvq'),
        Case('run: a conversation', 'cvq-run', '--max-tokens', '2', 'q4.cvq', stdin=b'Which?\n/image number.png\nWhat?\n/clear\n'),
        Case('run --logits', 'cvq-run', '--prompt', 'What?', '--max-tokens', '0', '--logits', 'out', '--taps', 'q4.cvq', outputs=['out']),
        Case('run --batch', 'cvq-run', '--max-tokens', '4', '--batch', 'task.jsonl', '--out', 'out', 'q4.cvq', grows=['out'],
             early=['out.origin']),
        Case('eval', 'cvq-eval', '--metric', 'exact', '--max-tokens', '4', '--out', 'out', 'q4.cvq', 'task.jsonl', grows=['out'],
             early=['out.origin']),
        Case('perplexity', 'cvq-perplexity', '--context', '32', '--save-logits', 'out', 'q4.cvq', 'text', outputs=['out']),
        Case('perplexity --kld', 'cvq-perplexity', '--context', '32', '--kld', 'logits', 'q4.cvq', 'text'),
        Case('calibrate', 'cvq-calibrate', '-o', 'out', '--second-moments', 'out.2', 'small.cvq', 'task.jsonl', outputs=['out', 'out.2']),
        Case('calibrate --merge', 'cvq-calibrate', '-o', 'out', '--merge', 'imatrix', 'imatrix', outputs=['out']),
        Case('compare', 'cvq-compare', '--svg', 'out', 'small.cvq', 'q4.cvq', 'task.jsonl', outputs=['out']),
        Case('sensitivity', 'cvq-sensitivity', '-o', 'out', '--context', '32', 'layer.cvq', 'one.jsonl', grows=['out']),
        Case('bench', 'cvq-bench', '--quick', '--scale', '16', '--only', 'adapter', measures=True),
    )


def environment(folder):
    return {'XDG_CACHE_HOME': os.path.join(folder, 'cache')}


def prepare(folder, checkpoint=None):
    """The files that all cases read, made of a checkpoint or of the smallest one."""
    def must(*command):
        r = harness.run(*command, env=environment(folder), cwd=folder)
        if r.code != 0:
            sys.exit(f'cannot prepare: {command}: {r}')
        return r.out

    def write(name, data):
        with open(os.path.join(folder, name), 'wb') as f:
            f.write(data)

    if checkpoint:
        os.symlink(os.path.abspath(checkpoint), os.path.join(folder, 'checkpoint'))
    else:
        smallest_checkpoint.write(os.path.join(folder, 'checkpoint'))
    must('cvq-convert', 'checkpoint', 'small.cvq')
    if checkpoint:
        os.link(os.path.join(folder, 'small.cvq'), os.path.join(folder, 'layer.cvq'))
    else:  # where every row costs many calls
        smallest_checkpoint.write(os.path.join(folder, 'layer'), layers=1, vocab=300)
        must('cvq-convert', 'layer', 'layer.cvq')
        shutil.rmtree(os.path.join(folder, 'layer'))
    must('cvq-quantize', 'small.cvq', 'q4.cvq')
    if checkpoint:
        must('cvq-convert', TINY, 'tiny.cvq')
    else:  # with fewer words it has more padding than weights, and is not packed
        smallest_checkpoint.write(os.path.join(folder, 'words'), layers=1, vocab=12500)
        must('cvq-convert', 'words', 'tiny.cvq')
        shutil.rmtree(os.path.join(folder, 'words'))
    must('cvq-pack', 'tiny.cvq', 'packed')
    write('manifest', must('cvq-info', '--manifest', 'q4.cvq'))
    with open(os.path.join(folder, 'q4.cvq'), 'rb') as f:
        data = bytearray(f.read())
    data[-3] ^= 1
    write('damaged.cvq', data)
    shutil.copy(os.path.join(PICTURES, 'number-13.png'), os.path.join(folder, 'number.png'))
    write('task.jsonl', b'{"id": "a", "question": "Which?", "answers": ["This."]}\n'
                        b'{"id": "b", "image": "number.png", "question": "What?", "answers": ["13"]}\n')
    write('text', b'The quick brown fox jumps over the lazy dog. ' * 4)
    write('one.jsonl', b'{"question": "Which?", "answers": ["This."]}\n')
    must('cvq-perplexity', '--context', '32', '--save-logits', 'logits', 'small.cvq', 'text')
    must('cvq-calibrate', '-o', 'imatrix', '--second-moments', 'moments', 'small.cvq', 'task.jsonl')
    must('cvq-sensitivity', '-o', 'sensitivity', 'layer.cvq', 'one.jsonl')
    must('cvq-convert', '--recipe', 'q4', '--imatrix', 'imatrix', 'checkpoint', 'calibrated.cvq')
    write('calibrated', must('cvq-info', '--manifest', 'calibrated.cvq'))
    os.unlink(os.path.join(folder, 'calibrated.cvq'))
    shutil.rmtree(os.path.join(folder, 'cache'), ignore_errors=True)
