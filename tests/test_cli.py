#!/usr/bin/env python3
"""The commands as a user meets them: messages and exit status, output files that are whole or not there, answers, batches,
conversations, logits.

    test_cli.py [--rewrite]     --rewrite: take the present output for the expected one in tests/cli/usage.txt
cvq-test: native"""
import json
import os
import pty
import re
import resource
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import time

from harness import BIN, RUNNER, argv, check, files, lines, one_line, path, read, run, skip, start, summary, working_folder, write

ROOT = os.getcwd()
CHECKPOINT = os.path.join(ROOT, 'models/cogvlm2-tiny')
PICTURES = os.path.join(ROOT, 'models/pictures')
CASES = 'tests/cli/usage.txt'
NUMBER = os.path.join(PICTURES, 'number-13.png')
WHAT_NUMBER = 'What number is written in the image?'
FIELDS = ['answer', 'completion_ids', 'prompt_tokens', 'completion_tokens', 'finish_reason', 'encode_s', 'prefill_s', 'decode_s',
          'decode_tokens_per_s', 'peak_rss_bytes', 'start_s', 'encode_major_faults', 'encode_read_bytes', 'prefill_major_faults',
          'prefill_read_bytes', 'decode_major_faults', 'decode_read_bytes', 'steady_major_faults', 'steady_read_bytes',
          'steady_tokens_per_s']
os.environ['XDG_CACHE_HOME'] = '/dev/null'  # no cache of pictures: everything is computed; see test_cache.py


# ---------------------------------------------------------------- exact output

def shown(result):
    rows = [f'exit {result.code}']
    for mark, data in (('out', result.out), ('err', result.err)):
        text = re.sub(r'\b[0-9a-f]{64}\b', '<sha256>', data.decode('utf-8', 'replace'))
        rows += [f'{mark}| {line}'.rstrip() for line in text.splitlines()]
    return rows


def parse_cases(text):
    """-> [(lines before, command, expected lines)]"""
    cases, before = [], []
    for line in text.splitlines():
        if line.startswith('$ '):
            cases.append((before, line[2:], []))
            before = []
        elif not line or line.startswith('#') or before:
            before.append(line)
        else:
            cases[-1][2].append(line)
    return cases


def exact(rewrite):
    with open(CASES, encoding='utf-8') as f:
        cases = parse_cases(f.read())
    text = []
    for before, command, expected in cases:
        program, *args = shlex.split(command)
        kept = files()
        result = run(program, *args)
        got = shown(result)
        text += before + [f'$ {command}'] + got
        if not rewrite:
            check(f'$ {command}', got == expected, 'expected\n  ' + '\n  '.join(expected) + '\ngot\n  ' + '\n  '.join(got))
        if result.code:
            check(f'one line of error: {command}', one_line(result.err), result)
        check(f'no file left: {command}', files() == kept, set(files()) ^ set(kept))
    if rewrite:
        with open(CASES, 'w', encoding='utf-8') as f:
            f.write('\n'.join(text) + '\n')
        print(f'{CASES}: {len(cases)} cases written')


# ---------------------------------------------------------------- convert, quantize

def prepare():
    """The folder that the cases describe."""
    os.symlink(CHECKPOINT, path('checkpoint'))
    r = run('cvq-convert', 'checkpoint', 'tiny.cvq')
    check('convert', r.code == 0 and os.path.exists(path('tiny.cvq')), r)
    check('convert says id and size', re.fullmatch(rb'tiny\.cvq: .*\(([0-9,]+) bytes\), id [0-9a-f]{64}\n', r.out) and
          f'{os.path.getsize(path("tiny.cvq")):,}'.encode() in r.out, r)
    check('no note about a licence that is there', r.err == b'', r)
    r = run('cvq-quantize', '--report', 'report.tsv', 'tiny.cvq', 'q4.cvq')
    check('quantize', r.code == 0, r)
    os.symlink('tiny.cvq', path('link.cvq'))
    write('taken', b'taken')


def converting():
    r = run('cvq-convert', '-q', '--recipe', 'q4', 'checkpoint', 'one-step.cvq')
    check('quiet', r.code == 0 and not r.out and not r.err, r)
    check('one step and two steps give the same bytes', read('one-step.cvq') == read('q4.cvq'))
    before = read('one-step.cvq')
    r = run('cvq-convert', '--recipe', 'q8', 'checkpoint', 'one-step.cvq')
    check('an existing output is refused', r.code == 1 and b'--force' in r.err and read('one-step.cvq') == before, r)
    r = run('cvq-convert', '--force', '--recipe=q8', '--source-revision', 'ab12', '--card', 'taken', '--threads', '1',
            'checkpoint', 'one-step.cvq')
    info = json.loads(run('cvq-info', '--json', 'one-step.cvq').out)
    check('--force replaces it', r.code == 0 and info['recipe'] == 'q8', r)
    check('revision and card are in the file', info['source']['revision'] == 'ab12' and info['card'] == 'taken', info)
    r = run('cvq-convert', '-v', '--force', 'checkpoint', 'one-step.cvq')
    check('-v tells the time', r.code == 0 and one_line(r.err) and b'converted in' in r.err, r)
    os.remove(path('one-step.cvq'))

    shutil.copytree(CHECKPOINT, path('bare'))
    os.remove(path('bare/LICENSE'))
    r = run('cvq-convert', 'bare', 'bare.cvq')
    check('no licence: said so', r.code == 0 and one_line(r.err) and b'LICENSE' in r.err, r)
    shutil.rmtree(path('bare'))
    os.remove(path('bare.cvq'))

    r = run('cvq-convert', '--dry-run', 'checkpoint')
    rows = [line.split('\t') for line in r.out.decode().splitlines()]
    tensors = json.loads(run('cvq-info', '--json', '--tensors', 'tiny.cvq').out)['tensors']
    check('dry run: header', r.code == 0 and [c.replace(' ', '_') for c in rows[0]] == ['name', 'shape', 'source_type', 'type', 'bytes'], r)
    check('dry run: a row a tensor, with its bytes', [(x[0], int(x[4])) for x in rows[1:]] == [(t['name'], t['bytes']) for t in tensors])
    mode = os.stat(path('tiny.cvq')).st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    check('usual rights of a file', mode == 0o666 & ~mask, oct(mode))


def quantizing():
    rows = [line.split('\t') for line in read('report.tsv').decode().splitlines()]
    tensors = json.loads(run('cvq-info', '--json', '--tensors', 'q4.cvq').out)['tensors']
    check('report: columns', rows[0] == ['tensor', 'shape', 'type', 'bits', 'relative_rmse', 'max_error'], rows[0])
    check('report: a row a tensor', [(x[0], x[2]) for x in rows[1:]] == [(t['name'], t['type']) for t in tensors])
    check('report: numbers', all(0 <= float(x[4]) < 0.2 and float(x[5]) >= 0 for x in rows[1:]))
    r = run('cvq-quantize', '--type', '*=q8', '--type', '*lm_head*=q6', '--type=*embed_tokens*=bf16', '--report', '-', 'tiny.cvq',
            'typed.cvq')
    if r.code == 2:  # '*' also matches vectors, which cannot be q8
        r = run('cvq-quantize', '--type', '*mlp*proj.weight=q8', '--type', '*lm_head*=q6', '--type=*embed_tokens*=bf16', '--report',
                '-', 'tiny.cvq', 'typed.cvq')
    types = {row.split('\t')[0]: row.split('\t')[2] for row in r.out.decode().splitlines()[1:]}
    check('--type, the last match wins', r.code == 0 and types['lm_head.weight'] == 'q6' and
          types['model.embed_tokens.weight'] == 'bf16' and types['model.layers.0.mlp.language_mlp.up_proj.weight'] == 'q8', r)
    check('report on stdout: the summary goes to stderr', b' id ' in r.err and b' id ' not in r.out, r)
    check('the recipe is then custom', json.loads(run('cvq-info', '--json', 'typed.cvq').out)['recipe'] == 'custom')
    os.remove(path('typed.cvq'))
    r = run('cvq-quantize', 'q4.cvq', 'new.cvq')
    check('a quantized source is refused', r.code == 1 and one_line(r.err) and b'quantized already' in r.err, r)
    r = run('cvq-quantize', '--imatrix', 'taken', 'tiny.cvq', 'new.cvq')
    check('a bad imatrix is named', r.code == 1 and b'taken' in r.err and one_line(r.err), r)


def until(condition, process, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if condition():
            return True
        time.sleep(0.001)
    return False


def interrupted_files():
    """A signal while the output is being written: exit 130, and nothing stays but what --resume goes on from, which is then said."""
    resumable = {'stopped.cvq.partial', 'stopped.cvq.partial.journal'}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        kept, code = set(files()), 0
        for _ in range(20):  # it may be finished before the signal comes
            p = start('cvq-convert', '--recipe', 'q4', '--threads', '1', 'checkpoint', 'stopped.cvq')
            until(lambda: 'stopped.cvq.partial' in files(), p)
            p.send_signal(number)
            out, err = p.communicate(timeout=120)
            code = p.returncode
            if code != 0:
                break
            os.remove(path('stopped.cvq'))
        left = set(files()) - kept
        told = b'--resume' in err and one_line(err) if left else not err
        check(f'{number.name}: exit 130, and either nothing left or what --resume needs', code == 130 and left in (set(), resumable) and told,
              f'exit {code}, {err!r}, {left}')
        for name in left:
            os.remove(path(name))


def full_disk():
    kept = files()

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, 3 << 20))
    for args in (('cvq-convert', 'checkpoint', 'large.cvq'), ('cvq-quantize', 'tiny.cvq', 'large.cvq')):
        r = run(*args, preexec_fn=limit)
        check(f'{args[0]}: a file-size limit is an error, nothing left', r.code == 1 and one_line(r.err) and b'large.cvq' in r.err and
              files() == kept, f'{r}, {set(files()) ^ set(kept)}')
    os.mkdir(path('disk'))
    mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', path('disk')], capture_output=True).returncode == 0
    if not mounted:
        skip('a full disk', 'a small file system cannot be mounted here (needs root)')
    else:
        for name, args in (('convert', ('cvq-convert', 'checkpoint', 'disk/x.cvq')),
                           ('quantize', ('cvq-quantize', 'tiny.cvq', 'disk/x.cvq')),
                           ('logits', ('cvq-run', '--prompt', 'word ' * 300, '--max-tokens', '0', '--logits', 'disk/x.safetensors',
                                       'tiny.cvq'))):
            r = run(*args)
            check(f'a full disk: {name} fails and leaves nothing', r.code == 1 and one_line(r.err) and
                  b'No space left' in r.err and not os.listdir(path('disk')), f'{r}, {os.listdir(path("disk"))}')
        subprocess.run(['umount', path('disk')], check=True)
    os.rmdir(path('disk'))
    with open('/dev/full', 'wb') as full:
        p = subprocess.run(argv('cvq-info', path('tiny.cvq')), stdout=full, stderr=subprocess.PIPE)
    check('a full disk behind stdout', p.returncode == 1 and one_line(p.stderr), p)


# ---------------------------------------------------------------- info

def informing():
    info = json.loads(run('cvq-info', '--json', '--tensors', '--verify', 'q4.cvq').out)
    check('info: fields', all(k in info for k in ('id', 'version', 'file_bytes', 'recipe', 'config', 'tensors', 'source', 'licenses',
                                                  'verify')), sorted(info))
    check('info: values', info['file_bytes'] == os.path.getsize(path('q4.cvq')) and info['recipe'] == 'q4' and
          re.fullmatch('[0-9a-f]{64}', info['id']) and info['verify']['ok'] is True and info['licenses'], info['verify'])
    check('info: no tensors unless asked', 'tensors' not in json.loads(run('cvq-info', '--json', 'q4.cvq').out))
    rows = [line.split('\t') for line in run('cvq-info', '--tensors', 'q4.cvq').out.decode().splitlines()]
    check('info --tensors: TSV', rows[0] == ['name', 'shape', 'type', 'bits', 'offset', 'bytes'] and
          [x[0] for x in rows[1:]] == [t['name'] for t in info['tensors']], rows[:2])
    r = run('cvq-info', '--verify', 'q4.cvq')
    check('verify: well', r.code == 0 and b'verified' in r.out and not r.err, r)
    damaging(info['tensors'])


def damaging(tensors):
    t = max(tensors, key=lambda t: t['bytes'])
    data = bytearray(read('q4.cvq'))
    place = t['offset'] + t['bytes'] // 2
    data[place] ^= 1
    write('bad.cvq', bytes(data))
    r = run('cvq-info', '--verify', 'bad.cvq')
    named = re.search(rb'bytes (\d+) to (\d+)', r.err)
    check('verify: names tensor and bytes', r.code == 1 and one_line(r.err) and t['name'].encode() in r.err and named and
          int(named[1]) <= place <= int(named[2]), r)
    r = run('cvq-info', '--bad-ranges', 'bad.cvq')
    rows = [line.split('\t') for line in r.out.decode().splitlines()]
    check('--bad-ranges', r.code == 1 and rows[0] == ['offset', 'bytes', 'tensor'] and len(rows) == 2 and rows[1][2] == t['name'] and
          int(rows[1][0]) <= place < int(rows[1][0]) + int(rows[1][1]), r)
    r = run('cvq-info', '--json', '--verify', 'bad.cvq')
    verify = json.loads(r.out)['verify']
    check('verify in JSON', r.code == 1 and verify['ok'] is False and verify['bad_ranges'][0]['tensor'] == t['name'], r)
    write('bad.cvq', read('q4.cvq')[:-1])
    r = run('cvq-info', 'bad.cvq')
    check('a truncated file', r.code == 1 and one_line(r.err) and b'bad.cvq' in r.err, r)
    os.remove(path('bad.cvq'))


# ---------------------------------------------------------------- run

def ask(*args, model='tiny.cvq'):
    r = run('cvq-run', '--json', *args, model)
    return json.loads(r.out) if r.code == 0 else {'answer': str(r)}


def answering():
    a = ask('--image', NUMBER, '--prompt', WHAT_NUMBER)
    check('json: exactly these fields', list(a) == FIELDS, list(a))
    check('json: the answer', a['answer'] == '13' and a['finish_reason'] == 'stop', a)
    check('json: counts', a['completion_tokens'] == len(a['completion_ids']) > 0 and a['peak_rss_bytes'] > 1 << 20 and
          a['encode_s'] > 0, a)
    r = run('cvq-run', '--image', NUMBER, '--prompt', WHAT_NUMBER, 'tiny.cvq')
    check('streamed: the same, with a newline', r.code == 0 and r.out == b'13\n' and not r.err, r)
    r = run('cvq-run', '-v', '--image', NUMBER, '--prompt', WHAT_NUMBER, 'tiny.cvq')
    check('-v tells times', r.code == 0 and r.out == b'13\n' and b'peak memory' in r.err, r)
    whole = ask('--prompt', 'And it came to pass', '--template', 'base', '--max-tokens', '12')
    check('length', whole['finish_reason'] == 'length' and whole['completion_tokens'] == 12, whole)
    slots = whole['prompt_tokens']
    full = ask('--prompt', 'And it came to pass', '--template', 'base', '--context', str(slots + 5))
    check('context', full['finish_reason'] == 'context' and full['completion_ids'] == whole['completion_ids'][:5], full)
    r = run('cvq-run', '--context', str(slots - 1), '--template', 'base', '--prompt', 'And it came to pass', 'tiny.cvq')
    check('a prompt too long is a failure', r.code == 1 and one_line(r.err) and not r.out, r)
    none = ask('--max-tokens', '0', '--prompt', 'x')
    check('no tokens', none['completion_ids'] == [] and none['answer'] == '', none)
    args = ('--temperature', '1.5', '--prompt', 'And it came', '--template', 'base', '--max-tokens', '20')
    first = ask(*args, '--seed', '7')
    check('the same seed, the same answer', first['completion_ids'] == ask(*args, '--seed', '7')['completion_ids'])
    check('another seed, another answer', first['completion_ids'] != ask(*args, '--seed', '8')['completion_ids'])
    bare, question = ask('--prompt', 'x', '--max-tokens', '0', '--template', 'base'), 'Question: x Answer:'
    check('templates', ask('--prompt', 'x', '--max-tokens', '0')['prompt_tokens'] ==
          ask('--prompt', question, '--max-tokens', '0', '--template', 'base')['prompt_tokens'] > bare['prompt_tokens'])
    r = run('cvq-run', '--cpu', 'nonsense', '--prompt', 'x', 'tiny.cvq')
    check('--cpu: an unknown level', r.code == 2 and one_line(r.err) and b'nonsense' in r.err, r)
    r = run('cvq-run', '--prompt', 'x', 'tiny.cvq', env={'CVQ_CPU': 'nonsense'})
    check('CVQ_CPU: an unknown level', r.code == 2 and one_line(r.err) and b'CVQ_CPU' in r.err, r)
    r = run('cvq-run', '--prompt', 'x', 'tiny.cvq', env={'CVQ_CPU': 'i8mm' if os.uname().machine == 'x86_64' and not RUNNER else 'avx2'})
    check('CVQ_CPU: a level that the machine has not', r.code == 2 and one_line(r.err), r)
    check('scalar', ask('--cpu', 'scalar', '--image', NUMBER, '--prompt', WHAT_NUMBER)['answer'] == '13')


def tokenizing():
    texts = ['In the beginning', ' two  spaces\n\nand\tlines ', 'naïve 日本 🙂', b'not \xff\xfe utf-8 \x00 nul', '']
    for text in texts:
        data = text if isinstance(text, bytes) else text.encode()
        r = run('cvq-run', '--tokenize', '-', 'tiny.cvq', stdin=data)
        check(f'tokenize {text!r}: one line', r.code == 0 and re.fullmatch(rb'(\d+( \d+)*)?\n', r.out), r)
        if isinstance(text, str):
            check(f'tokenize {text!r}: as from the command line', run('cvq-run', '--tokenize', text, 'tiny.cvq').out == r.out)
        back = run('cvq-run', '--detokenize', r.out.decode().strip(), 'tiny.cvq')
        check(f'detokenize {text!r}', back.code == 0 and back.out == data, back)
        check('detokenize from stdin', run('cvq-run', '--detokenize', '-', 'tiny.cvq', stdin=r.out).out == data)


def histories():
    turns = [['How many shapes are there?', '2'], ['What color is the circle?', ' red']]
    write('history.json', json.dumps(turns))
    a = ask('--history', 'history.json', '--prompt', 'And now?', '--max-tokens', '8')
    text = ''.join(f'Question: {q} Answer: {x}\n' for q, x in turns) + 'Question: And now? Answer:'
    b = ask('--template', 'base', '--prompt', text, '--max-tokens', '8')
    check('history is what stands before the question', a['prompt_tokens'] == b['prompt_tokens'] and
          a['completion_ids'] == b['completion_ids'], (a, b))
    for bad in ('{}', '[["a"]]', '[["a", 1]]', '[["a", "b"]', '["a", "b"]'):
        write('history.json', bad)
        r = run('cvq-run', '--history', 'history.json', '--prompt', 'x', 'tiny.cvq')
        check(f'a bad history: {bad}', r.code == 1 and one_line(r.err) and b'history.json' in r.err, r)
    os.remove(path('history.json'))


def chatting():
    other = os.path.join(PICTURES, 'shapes-two-circles.png')
    question = 'How many shapes are there?'
    talk = f'{question}\n/image {NUMBER}\n{WHAT_NUMBER}\n\n{question}\n/clear\n{question}\n/image\n{question}\n/quit\nnever asked\n'
    r = run('cvq-run', '--max-tokens', '12', '--image', other, 'tiny.cvq', stdin=talk.encode())
    got = r.out.decode().split('\n')

    def once(*args):
        return run('cvq-run', '--max-tokens', '12', *args, 'tiny.cvq').out.decode().rstrip('\n')
    raw = run('cvq-run', '--detokenize', ' '.join(map(str, ask('--image', NUMBER, '--prompt', WHAT_NUMBER)['completion_ids'])),
              'tiny.cvq').out.decode()
    write('history.json', json.dumps([[WHAT_NUMBER, raw]]))
    want = [once('--image', other, '--prompt', question), '13', once('--image', NUMBER, '--history', 'history.json', '--prompt', question),
            once('--image', NUMBER, '--prompt', question), once('--prompt', question), '']
    check('a conversation through a pipe', r.code == 0 and got == want and not r.err, f'{got} not {want}; {r}')
    r = run('cvq-run', '--max-tokens', '12', 'tiny.cvq', stdin=f'/image nothing.png\n/dance\n{question}\n'.encode())
    check('mistakes in a piped conversation', r.code == 1 and r.err.count(b'\n') == 2 and b'nothing.png' in r.err and b'/dance' in r.err and
          r.out.count(b'\n') == 1, r)
    os.remove(path('history.json'))
    folder = os.open(path('.'), os.O_RDONLY)
    p = start('cvq-run', 'tiny.cvq', stdin=folder)
    out, err = p.communicate(timeout=120)
    os.close(folder)
    check('questions that cannot be read', p.returncode == 1 and not out and one_line(err) and b'standard input: cannot read: Is a directory' in err,
          (p.returncode, out, err))


# ---------------------------------------------------------------- batch

# Some of these answers would never end by themselves.
BATCH = ('cvq-run', '--max-tokens', '12', '--batch', 'task/task.jsonl', '--out')


def a_task():
    pictures = ['number-13.png', 'shapes-triangle.png', 'chart-a.png']
    for p in pictures:
        shutil.copy(os.path.join(PICTURES, p), path('task'))
    return [
        {'id': 'a', 'image': pictures[0], 'question': WHAT_NUMBER, 'answers': ['13'], 'kind': 'extra keys do no harm'},
        {'image': pictures[1], 'question': 'How many shapes are there?'},
        {'id': 'b', 'image': pictures[0], 'question': 'How many digits are there?', 'template': 'vqa'},
        {'id': 'missing', 'image': 'nothing.png', 'question': 'What?'},
        {'id': 7, 'question': 'What is it?', 'history': [['q', 'a']]},
        {'id': 'text', 'text': 'only text'},
        {'id': 'a', 'image': pictures[2], 'question': 'Which bar is the tallest?'},
        {'id': 'odd', 'question': 'x', 'template': 'poem'},
        {'id': 'long', 'question': 'word ' * 3000},
        {'id': 'last', 'image': pictures[1], 'question': 'How many shapes are there?'},
    ]


def batches():
    os.mkdir(path('task'))
    task = a_task()
    write('task/task.jsonl', lines(task[:5]) + '\n{"broken\n' + lines(task[5:]))
    r = run(*BATCH, 'whole.jsonl', '--progress', 'tiny.cvq')
    whole = read('whole.jsonl')
    rows = [json.loads(line) for line in whole.splitlines()]
    check('batch: order and ids', r.code == 0 and [x['id'] for x in rows] ==
          ['a', '2', 'b', 'missing', '7', '7', 'text', 'a', 'odd', 'long', 'last'], rows)
    wrong = [x['id'] for x in rows if list(x) == ['id', 'error'] and x['error']]
    check('batch: errors', wrong == ['missing', '7', 'text', 'odd', 'long'], rows)
    check('batch: answers', [list(x) for x in rows if 'answer' in x] == [['id', 'answer']] * 6 and rows[0]['answer'] == '13', rows)
    check('batch: each picture is encoded once', len(re.findall(rb'encoding the picture: 100%', r.err)) == 3, r.err.decode())
    check('batch: the same as alone', rows[2]['answer'] == ask('--image', 'task/number-13.png', '--prompt', task[2]['question'],
                                                               '--template', 'vqa', '--max-tokens', '12')['answer'], rows[2])
    check('batch: counts on stderr', b'11 answered, 5 of them with an error' in r.err, r)
    resuming(whole)
    refusing(whole)
    shutil.rmtree(path('task'))
    for name in ('whole.jsonl', 'whole.jsonl.origin', 'part.jsonl.origin'):
        os.remove(path(name))


def resuming(whole):
    batch = (*BATCH, 'part.jsonl')
    rows = whole.splitlines(keepends=True)
    for name, kept in (('nothing', b''), ('three lines', b''.join(rows[:3])), ('a torn line', b''.join(rows[:6]) + rows[6][:9]),
                       ('the last line without its end', whole[:-1]), ('a byte', b'{'), ('everything', whole)):
        write('part.jsonl', kept)
        r = run(*batch, 'tiny.cvq')
        check(f'resumed from {name}: as if never stopped', r.code == 0 and read('part.jsonl') == whole, f'{r} {read("part.jsonl")!r}')
    for _ in range(10):
        os.remove(path('part.jsonl'))
        p = start(*batch, 'tiny.cvq')
        until(lambda: os.path.exists(path('part.jsonl')) and os.path.getsize(path('part.jsonl')), p)
        p.send_signal(signal.SIGINT)
        p.communicate(timeout=120)
        if p.returncode:
            break
    left = read('part.jsonl')
    check('Ctrl-C: whole lines stay', p.returncode == 130 and whole.startswith(left) and left.endswith(b'\n'), (p.returncode, left))
    run(*batch, 'tiny.cvq')
    check('and the same command goes on', read('part.jsonl') == whole)
    write('part.jsonl', lines([{'id': 'a', 'answer': 'old'}]))
    r = run(*batch, '--force', 'tiny.cvq')
    check('--force answers anew', r.code == 0 and read('part.jsonl') == whole, r)
    os.remove(path('part.jsonl'))


def refusing(whole):
    for name, data in (('another file', b'precious\n'), ('a file without lines', b'precious'), ('lines without id', b'{"x":1}\n')):
        write('part.jsonl', data)
        r = run(*BATCH, 'part.jsonl', 'tiny.cvq')
        check(f'batch into {name}: refused, untouched', r.code == 1 and one_line(r.err) and read('part.jsonl') == data, r)
    os.remove(path('part.jsonl'))
    r = run(*BATCH, 'task/task.jsonl', '--force', 'tiny.cvq')
    check('batch into the task itself: refused', r.code == 1 and one_line(r.err) and b'broken' in read('task/task.jsonl'), r)
    r = run('cvq-run', '--batch', 'nothing.jsonl', '--out', 'part.jsonl', 'tiny.cvq')
    check('a task that is not there', r.code == 1 and one_line(r.err) and not os.path.exists(path('part.jsonl')), r)


# ---------------------------------------------------------------- logits

def tensors_of(name):
    data = read(name)
    n, = struct.unpack('<Q', data[:8])
    return {k: (v['dtype'], v['shape'], data[8 + n + v['data_offsets'][0]:8 + n + v['data_offsets'][1]])
            for k, v in json.loads(data[8:8 + n]).items() if k != '__metadata__'}


def logits():
    config = json.load(open(os.path.join(CHECKPOINT, 'config.json'), encoding='utf-8'))
    vision = config['vision_config']
    args = ('--image', NUMBER, '--prompt', WHAT_NUMBER)
    a = ask(*args, '--logits', 'plain.safetensors')
    check('an answer beside the logits', a['answer'] == '13', a)
    plain = tensors_of('plain.safetensors')
    n = a['prompt_tokens']
    check('ids and logits', {k: v[:2] for k, v in plain.items()} ==
          {'ids': ('I32', [n]), 'logits': ('F32', [n, config['vocab_size']])}, {k: v[:2] for k, v in plain.items()})
    row = struct.unpack(f'<{config["vocab_size"]}f', plain['logits'][2][-4 * config['vocab_size']:])
    check('the likeliest id begins the answer', row.index(max(row)) == a['completion_ids'][0])

    r = run('cvq-run', *args, '--max-tokens', '0', '--taps', '--logits', 'taps.safetensors', 'tiny.cvq')
    check('--max-tokens 0 prints nothing', r.code == 0 and not r.out and not r.err, r)
    taps = tensors_of('taps.safetensors')
    side = vision['image_size'] // vision['patch_size']
    shapes = {'pixels': [3, vision['image_size'], vision['image_size']],
              'vision.patch_embedding': [side * side + 1, vision['hidden_size']],
              'vision.conv': [side * side // 4, vision['hidden_size']], 'vision.out': [side * side // 4 + 2, config['hidden_size']],
              **{f'vision.layer.{i}': [side * side + 1, vision['hidden_size']] for i in range(vision['num_hidden_layers'])},
              **{f'layer.{i}': [n, config['hidden_size']] for i in range(config['num_hidden_layers'])}}
    check('taps: names and shapes', {k: v[1] for k, v in taps.items() if k not in plain} == shapes, {k: v[1] for k, v in taps.items()})
    check('taps change nothing', all(taps[k] == plain[k] for k in plain))
    text = ask('--prompt', 'x', '--taps', '--logits', 'text.safetensors', '--max-tokens', '0')
    check('taps of a text', 'answer' in text and not any(k.startswith('vision') for k in tensors_of('text.safetensors')), text)
    for name in ('plain', 'taps', 'text'):
        os.remove(path(name + '.safetensors'))


# ---------------------------------------------------------------- terminals and pipes

def on_terminal(program, *args):
    """-> (exit status, what a terminal behind stderr got, stdout)"""
    main, side = pty.openpty()
    p = start(program, *args, stdin=subprocess.DEVNULL, stderr=side)
    os.close(side)
    out, screen = p.stdout.read(), b''
    p.wait()
    os.set_blocking(main, False)
    try:
        while block := os.read(main, 65536):
            screen += block
    except OSError:
        pass
    os.close(main)
    return p.returncode, screen, out


def progress():
    args = ('cvq-convert', 'checkpoint', 'new.cvq')
    code, screen, out = on_terminal(*args)
    check('progress on a terminal, erased at the end', code == 0 and b'%' in screen and b'left' in screen and
          screen.endswith(b'\r\x1b[K') and b'new.cvq' in out, (code, screen, out))
    for extra in ('--no-progress', '-q'):
        code, screen, out = on_terminal(*args, '--force', extra)
        check(f'none with {extra}', code == 0 and screen == b'', screen)
    r = run(*args, '--force')
    check('none without a terminal', r.code == 0 and r.err == b'', r)
    r = run(*args, '--force', '--progress')
    check('lines with --progress', r.code == 0 and re.search(rb'^converting: 100% \(.*\n', r.err, re.M) and b'\x1b' not in r.err, r)
    os.remove(path('new.cvq'))
    code, screen, out = on_terminal('cvq-run', '--image', NUMBER, '--prompt', WHAT_NUMBER, 'tiny.cvq')
    check('cvq-run on a terminal', code == 0 and b'encoding the picture' in screen and out == b'13\n', (code, screen, out))


def stopped_answers():
    """Ctrl-C and a closed pipe while an answer is streamed."""
    command = ('cvq-run', '--template', 'base', '--temperature', '3', '--prompt', 'And', '--max-tokens', '1000000', 'tiny.cvq')
    for number in (signal.SIGINT, signal.SIGTERM):
        code = 0
        for _ in range(10):
            p = start(*command)
            p.stdout.read(1)
            p.send_signal(number)
            _, err = p.communicate(timeout=120)
            code = p.returncode
            if code:
                break
        check(f'{number.name} while answering: exit 130, quiet', code == 130 and not err, (code, err))
    code = 0
    for _ in range(10):
        p = start(*command, restore_signals=True)
        p.stdout.read(1)
        p.stdout.close()
        err = p.stderr.read()
        code = p.wait(timeout=120)
        if code:
            break
    check('a closed pipe ends it quietly', code in (-signal.SIGPIPE, 128 + signal.SIGPIPE) and not err, (code, err))


def typed_conversation():
    """On a terminal Ctrl-C stops an answer, and the conversation goes on; at the mark it leaves."""
    main, side = pty.openpty()
    p = start('cvq-run', '--template', 'base', '--temperature', '3', 'tiny.cvq', stdin=side)
    os.close(side)
    screen = b''

    def marks(n):
        nonlocal screen
        while screen.count(b'> ') < n and (block := os.read(p.stderr.fileno(), 4096)):
            screen += block
        return screen.count(b'> ') == n
    good = marks(1)
    for turn in (2, 3):
        os.write(main, b'And\n')
        os.read(p.stdout.fileno(), 1)
        p.send_signal(signal.SIGINT)
        good = good and marks(turn)
        os.read(p.stdout.fileno(), 1 << 20)  # the rest of this answer
    time.sleep(0.5)
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=120)
    os.close(main)
    check('Ctrl-C in a typed conversation', good and p.returncode == 130 and b'/image FILE' in screen, (p.returncode, screen, err))


# ---------------------------------------------------------------- the example

def example():
    with open('include/cvq.h', encoding='utf-8') as f:
        header = f.read()
    with open('examples/ask.c', encoding='utf-8') as f:
        source = f.read()
    block = re.search(r' \* Usage \(examples/ask\.c\)\n \*\n(.*?)\n \*/', header, re.S)
    shown_lines = [re.sub(r'^ \*(     )?', '', line) for line in block[1].split('\n')] if block else []
    check("the header's example is examples/ask.c", '\n'.join(shown_lines) + '\n' == source)
    library = os.path.join(BIN, '../lib/libcvq.a')
    compiler = os.environ.get('CVQ_CC') or shutil.which('cc') or shutil.which('gcc')
    if RUNNER or not compiler or os.environ.get('CVQ_CONFIG') in ('asan', 'ubsan') or not os.path.exists(library):
        skip('the example answers', 'no library for this machine, or no compiler')
        return
    flags = subprocess.run(['pkg-config', '--libs', 'libzstd', 'libcjson', 'libpcre2-8', 'libcrypto'], capture_output=True, text=True)
    built = subprocess.run([compiler, '-std=c11', '-Iinclude', '-o', path('ask'), 'examples/ask.c', library, '-pthread',
                            *flags.stdout.split(), '-lm'], capture_output=True, text=True)
    check('the example compiles', built.returncode == 0, built.stderr)
    try:
        from PIL import Image
        Image.open(NUMBER).convert('RGB').save(path('picture.ppm'))
    except ImportError:
        skip('the example answers', 'Pillow is not installed')
        return
    if built.returncode == 0:
        p = subprocess.run([path('ask'), path('tiny.cvq'), path('picture.ppm'), WHAT_NUMBER], capture_output=True)
        check('the example answers', p.returncode == 0 and p.stdout.strip() == b'13', p)
        p = subprocess.run([path('ask'), path('taken'), path('picture.ppm'), WHAT_NUMBER], capture_output=True)
        check('the example says what is wrong', p.returncode == 1 and b'taken' in p.stderr, p)


def main():
    with working_folder('cvq-cli-'):
        prepare()
        exact('--rewrite' in sys.argv[1:])
        for part in (converting, quantizing, informing, interrupted_files, full_disk, answering, tokenizing, histories, chatting,
                     batches, logits, progress, stopped_answers, typed_conversation, example):
            kept = files()
            try:
                part()
            except Exception as e:  # one part must not hide the others
                check(part.__name__, False, repr(e))
                import traceback
                traceback.print_exc()
            if part is not example:
                check(f'{part.__name__} leaves no file behind', files() == kept, set(files()) ^ set(kept))
    return summary()


if __name__ == '__main__':
    sys.exit(main())
