#!/usr/bin/env python3
"""The source's rules hold, and the check of them can fail.  cvq-test: once"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from check_includes import check, sources

passed = failed = skipped = 0


def expect(name, wrong):
    """wrong: complaints, none if all is well."""
    global passed, failed
    if wrong:
        failed += 1
        print(f'FAIL {name}', *wrong, sep='\n  ')
    else:
        passed += 1
        print(f'ok {name}')


def complaints_about(tree):
    with tempfile.TemporaryDirectory() as root:
        for path, text in tree.items():
            os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
            with open(os.path.join(root, path), 'w', encoding='utf-8') as f:
                f.write(text)
        return check(root)


GOOD = {
    'include/cvq.h': '#include <stdint.h>\n',
    'base/status.h': '#include "cvq.h"\n',
    'base/parallel.c': '#include "base/status.h"\nvoid f(void) { pthread_create(t); }\n',
    'formats/json.h': '#include "base/status.h"\n/* printf("not code") */\n',
    'formats/json.c': '#include <cjson/cJSON.h>\n#include "formats/json.h"\nconst char *s = "exit(1) /*";\n',
    'runtime/model.c': '#include "formats/json.h"\n#include "runtime/model_internal.h"\n',
    'runtime/model_internal.h': 'int snprintf(char *, unsigned long, const char *, ...);\n',
    'cli/cvq_run.c': '#include "cvq.h"\n#include "runtime/session.h"\nint main(void) { printf("x"); }\n',
    'runtime/session.h': '\n',
    'runtime/kernels/kernels_list.inc': 'KERNEL(SCALAR, cvq_add_fn, add, add__scalar)\n'
                                        'KERNEL(SCALAR, cvq_dot_fn, dot[CVQ_TYPE_Q8], dot__scalar)\n',
    'tests/unit/test_kernels.c': 'void f(void) { scalar->add(x); tested->dot[t](x); }\n',
    'tests/unit/kernels_bench.h': 'void g(void) { t->add(x); (t->dot)[0](x); }\n',
}
BAD = [  # what is added to GOOD, and what the complaint must say
    ({'base/up.c': '#include "formats/json.h"\n'}, 'base/ may not include formats/'),
    ({'formats/up.c': '#include "runtime/session.h"\n'}, 'formats/ may not include runtime/'),
    ({'runtime/side.c': '#include "quant/q.h"\n', 'quant/q.h': ''}, 'runtime/ may not include quant/'),
    ({'include/door.h': '#include "base/status.h"\n'}, 'include/ may not include base/'),
    ({'examples/e.c': '#include "base/status.h"\n'}, 'examples/ may not include base/'),
    ({'cli/inside.c': '#include "runtime/model_internal.h"\n'}, 'is read only inside runtime/'),
    ({'formats/near.c': '#include "json.h"\n'}, 'write it from the root'),
    ({'base/gone.c': '#include "base/nowhere.h"\n'}, 'is no file here'),
    ({'cli/z.c': '#include <zstd.h>\n'}, '<zstd.h> belongs to formats'),
    ({'formats/p.c': '#include <pcre2.h>\n'}, '<pcre2.h> belongs to runtime'),
    ({'cli/i.c': '#include <stb_image.h>\n'}, 'belongs to imageio'),
    ({'runtime/t.c': 'void f(void) { pthread_create(t); }\n'}, 'threads are started in'),
    ({'quant/t.c': '  # pragma omp parallel for\n'}, 'threads are started in'),
    ({'base/a.h': '#include "base/b.h"\n', 'base/b.h': '#include "base/a.h"\n'}, 'include each other'),
    ({'quant/json.h': ''}, 'the name is taken by formats/json.h'),
    ({'base/say.c': 'void f(void) { printf("x"); }\n'}, 'printf(): libraries never'),
    ({'base/say.c': 'void f(void) { fputs("x", stderr); }\n'}, 'libraries never print'),
    ({'convert/say.c': '/* a */ char *f(void) { return getenv("A"); } // b\n'}, 'getenv(): libraries never'),
    ({'quant/say.c': 'void f(void) { exit (1); }\n'}, 'exit(): libraries never'),
    ({'tests/unit/test_kernels.c': 'void f(void) { tested->dot[t](x); /* tested->add */ }\n'}, 'no kernel test calls add'),
    ({'tests/unit/kernels_bench.h': 'void g(void) { t->add(x); }\n'}, '--bench does not time dot'),
]


def self_test():
    expect('a good tree passes', complaints_about(GOOD))
    for extra, text in BAD:
        found = complaints_about({**GOOD, **extra})
        wrong = [] if len(found) == 1 and text in found[0] else [f'expected "{text}", got {found}']
        expect(f'is found: {text}', wrong)


def formatting():
    global skipped
    tool = shutil.which('clang-format')
    version = subprocess.run([tool, '--version'], capture_output=True, text=True).stdout if tool else ''
    if 'version 14.' not in version:
        skipped += 1
        print(f'skip formatting: clang-format 14 decides, here is {version.strip() or "none"}')
        return
    files = [f for f in sources('.') if f.endswith(('.c', '.h'))]
    r = subprocess.run([tool, '--dry-run', '-Werror', *files], capture_output=True, text=True)
    expect('formatting (make format)', sorted({line.split(': error')[0] for line in r.stderr.splitlines()
                                               if ': error' in line}))


def documents():
    """What the documents name is there: links, and paths of source files in back quotes."""
    wrong = []
    documents = ['README.md', 'CHANGELOG.md', 'models/cogvlm2-tiny/README.md']
    documents += [os.path.join('docs', f) for f in sorted(os.listdir('docs')) if f.endswith('.md')]
    for name in documents:
        with open(name, encoding='utf-8') as f:
            text = f.read()
        here = os.path.dirname(name)
        for link in re.findall(r'\]\(([^)#\s]+)[^)]*\)', text):
            if not re.match(r'[a-z]+:', link) and not os.path.exists(os.path.join(here, link)):
                wrong.append(f'{name}: the link to {link} leads nowhere')
        for path in re.findall(r'`((?:[a-z0-9_-]+/)+[A-Za-z0-9_.-]+\.(?:c|h|py|sh|md))`', text):
            if 'NAME' not in path and not os.path.exists(path):
                wrong.append(f'{name}: {path} is not there')
    expect('documents name what is there', wrong)


self_test()
expect('the source keeps the rules', check('.'))
formatting()
documents()
print(f'{passed} passed, {failed} failed, {skipped} skipped')
sys.exit(1 if failed else 0)
