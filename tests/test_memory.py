#!/usr/bin/env python3
"""Memory: the plan that cvq-run tells, what is said where there is too little, answers that do not depend on how much there
is. Control groups are used where this user may make them; else what needs them is skipped.

cvq-test: native
"""
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

CONFIG = os.environ.get('CVQ_CONFIG', 'gcc')
NUMBER = os.path.abspath('models/pictures/number-13.png')
os.environ['XDG_CACHE_HOME'] = '/dev/null'  # no cache of pictures
from harness import BIN, TOOLS, check, skip, summary
sys.path.insert(0, 'scripts')
import measure_memory  # noqa: E402
import memory_group  # noqa: E402



def run(program, *args, before=None):
    return subprocess.run([os.path.join(BIN, program), *args], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          preexec_fn=before, timeout=300)


def plan(*args):
    return json.loads(run('cvq-run', '--memory', '--json', *args).stdout)


def planning(model):
    p = plan(model)
    check('the plan: the file', p['weights_mapped'] == os.path.getsize(model), p)
    check('the plan: phases', p['weights_decode'] < p['weights_prefill'] < p['weights_mapped'], p)
    check('the plan: all stays', p['weights_encode'] + p['weights_prefill'] < p['weights_kept'] < p['weights_mapped'], p)
    f32, f16, q8 = (plan('--kv', kv, model)['kv_cache'] for kv in ('f32', 'f16', 'q8'))
    check('the plan: types of keys and values', f32 > 1.9 * f16 and f16 > 1.8 * q8 and f16 == p['kv_cache'], (f32, f16, q8))
    check('the plan: context', plan('--context', '512', model)['kv_cache'] * 4 == p['kv_cache'], p)
    table = run('cvq-run', '--memory', model)
    check('the plan as a table', table.returncode == 0 and 'keys and values, when full' in table.stdout and not table.stderr,
          table)
    answer = run('cvq-run', '--memory', '--image', NUMBER, '--prompt', 'What number is written in the image?', model)
    check('the plan before an answer', answer.stdout == '13\n' and 'in memory, at most at once' in answer.stderr, answer)
    both = run('cvq-run', '--memory', '--json', '--prompt', 'Hello', '--max-tokens', '1', model)
    check('the plan in the answer', json.loads(both.stdout)['memory']['kv_cache'] == p['kv_cache'], both)


def locking(model):
    locked = run('cvq-run', '--lock', '--prompt', 'Hello', '--max-tokens', '3', model)
    check('--lock', locked.returncode == 0 and not locked.stderr, locked)

    def nothing():
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)

    refused = run('cvq-run', '--lock', '--prompt', 'Hello', '--max-tokens', '3', model, before=nothing)
    check('--lock without the right', refused.returncode == 0 and refused.stdout == locked.stdout and
          'may lock 0.0 MB' in refused.stderr and 'ulimit -l' in refused.stderr, refused)


def too_little(model):
    group = memory_group.make(24 << 20)
    if not group:
        skip('little memory', 'this user cannot make memory control groups')
        return
    with group:
        r = run('cvq-run', '--prompt', 'Hello', model, before=group.enter)
    check('far too little memory', r.returncode == 1 and 'of 25.2 MB are available to this control group' in r.stderr and
          r.stderr.count('\n') == 1, r)


def cut_off(model):
    """The file becomes shorter under an answer: a message with its name, no core."""
    copy = model + '.copy'
    for threads in '1', '3':
        shutil.copy(model, copy)
        p = subprocess.Popen([os.path.join(BIN, 'cvq-run'), '--threads', threads, '--template', 'base', '--prompt', 'And it came to pass',
                              '--temperature', '9', '--max-tokens', '1000000', copy], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
        p.stdout.read(1)
        os.truncate(copy, os.path.getsize(copy) // 16)
        _, err = p.communicate(timeout=60)
        check(f'a file cut off, {threads} threads', p.returncode == 1 and err.startswith(f'cvq-run: {copy}: a part that was there') and
              err.count('\n') == 1, (p.returncode, err))
    cut = run('cvq-run', '--prompt', 'Hello', copy)
    check('a file that is cut off already', cut.returncode == 1 and copy in cut.stderr, cut)
    os.unlink(copy)


def weights_that_do_not_stay(folder):
    """The measurement of scripts/measure_memory.py with a small model: room for decoding alone."""
    model = os.path.join(folder, 'noise.cvq')
    subprocess.run([os.path.join(TOOLS, 'make_model'), '-q', '--scale', '8', '--layers', '8', '--vit-layers', '8', 'cvq', model], check=True)
    p = plan(model)
    command = [os.path.join(BIN, 'cvq-run'), '--json', '--memory', '--image', NUMBER, '--prompt', 'What?', '--max-tokens', '8', model]
    whole, little = measure_memory.measure(command, None), measure_memory.measure(command, p['enough'] + (4 << 20), cold=model)
    check('little memory: an answer', little['code'] == 0 and not little['killed'], little)
    check('little memory: not all stays', little['memory']['weights_kept'] < whole['memory']['weights_kept'], little)
    check('little memory: the same answer', little['completion_ids'] == whole['completion_ids'], (whole, little))
    # How much is read says nothing here: the system reads ahead by more than such a layer has.


def the_last_slot(folder):
    """The released model's 8,192 slots are all of use, with keys and values of any type; one more is an error that says so."""
    model = os.path.join(folder, 'slots.cvq')
    subprocess.run([os.path.join(TOOLS, 'make_model'), '-q', '--scale', '16', '--layers', '1', '--vit-layers', '1', 'cvq', model], check=True)

    def ask(slots, *args):  # bos, and an id for every letter and every end of a line
        return run('cvq-run', '--json', '--template', 'base', '--prompt', ('a\n' * slots)[:slots - 1], *args, model)

    for kv in 'f16', 'q8':
        full = ask(8191, '--kv', kv)
        answer = json.loads(full.stdout) if full.returncode == 0 else {}
        check(f'8,192 slots, {kv}', answer.get('completion_tokens') == 1 and answer['finish_reason'] == 'context', full.stderr or answer)
    full = ask(8192)
    check('a prompt of 8,192 slots', full.returncode == 0 and json.loads(full.stdout)['finish_reason'] == 'context', full.stderr)
    for args, slots, picture in ((), 8193, 0), (('--image', NUMBER), 8204, 11):
        r = ask(8193, *args)
        check(f'a prompt of {slots} slots', r.returncode == 1 and r.stderr == f'cvq-run: prompt: {slots} slots (a picture takes {picture} '
              'of them), the context has 8192, which is the most that the model takes; shorten it\n', r.stderr)
    r = ask(5, '--context', '8193')
    check('a context of 8,193', r.returncode == 2 and "this model's limit is 8192" in r.stderr, r.stderr)


def stops_at_once(model):
    """Ctrl-C in a prompt and in an answer."""
    base = [os.path.join(BIN, 'cvq-run'), '--template', 'base', '--temperature', '9', '--max-tokens', '1000000']
    for phase, args in (('a prompt', ['--prompt', 'word ' * 1500]), ('an answer', ['--prompt', 'And it came to pass'])):
        p = subprocess.Popen([*base, *args, model], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if phase == 'an answer':
            p.stdout.read(1)
        else:
            time.sleep(0.1)
        start = time.monotonic()
        p.send_signal(signal.SIGINT)
        p.communicate(timeout=60)
        seconds = time.monotonic() - start
        check(f'{phase} stops', p.returncode in (130, -signal.SIGINT) and seconds < 5, (p.returncode, seconds))  # 1 on a quiet machine


def main():
    folder = tempfile.mkdtemp(prefix='cvq-memory-')
    os.chmod(folder, 0o755)
    model = os.path.join(folder, 'tiny.cvq')
    try:
        made = run('cvq-convert', '--recipe', 'q4', 'models/cogvlm2-tiny', model)
        if made.returncode:
            sys.exit(made.stderr)
        planning(model)
        cut_off(model)
        stops_at_once(model)
        the_last_slot(folder)
        if CONFIG == 'asan':
            skip('locked memory and little memory', "the address sanitizer's own memory is in the way")
        else:
            locking(model)
            too_little(model)
            if memory_group.make(None) is None:
                skip('weights that do not stay', 'this user cannot make memory control groups')
            else:
                weights_that_do_not_stay(folder)
    finally:
        shutil.rmtree(folder)
    return summary()


sys.exit(main())
