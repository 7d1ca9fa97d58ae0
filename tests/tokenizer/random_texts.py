"""Random texts, one a line, their UTF-8 in hexadecimal: random_texts.py COUNT SEED.

Characters are those assigned in Python's Unicode (14.0 in Python 3.11; engines of another version
may disagree about newer ones). Five ways in turn: anything; short and dense in what the tokenizer's
pattern treats differently; one script at a time; words with contractions and numbers; runs.
"""
import random
import sys
import unicodedata

SPACES = [chr(c) for c in [9, 10, 11, 12, 13, 32, 0x85, 0xa0, 0x1680, *range(0x2000, 0x200b), 0x2028,
                           0x2029, 0x202f, 0x205f, 0x3000]]
MIXED = SPACES + [' '] * 20 + ['\n'] * 6 + ['\r'] * 3 + list(
    "''''sStTrReEvVmMlLdD\u017f\u212a\u2019019ab\u00b2\u0661\u0967\uff11\u2163,.;:!?()[]{}-_=+*/\\#$%&@\""
    "\u0301\u0300\u093f\u094d\u0e48\u200d\ufe0f\u200b\u180e\ufeff\u00ad\x00\x1c\x1f\x7f"
    "\u00e9\u00df\u0130\u0131\u4e2d\u6587\u3002\u3042\ud55c\u0627\u0928\u0e01\u05d0\u03bb\u0436"
    "\U0001f600\U0001f44d\U0001f3fd\U0001f1e8\U0001f468\u2764\U00020000\U0001d7d9")
SCRIPTS = [(0x41, 0x7a), (0xa1, 0x17f), (0x370, 0x3ff), (0x400, 0x4ff), (0x531, 0x586), (0x5d0, 0x5ea),
           (0x600, 0x6ff), (0x900, 0x97f), (0x980, 0x9fe), (0xb80, 0xbfa), (0xe01, 0xe5b), (0xf00, 0xfda),
           (0x1000, 0x109f), (0x10a0, 0x10ff), (0x1100, 0x11ff), (0x1200, 0x137c), (0x1780, 0x17f9),
           (0x1e00, 0x1fff), (0x2010, 0x2fff), (0x3001, 0x30ff), (0x4e00, 0x5fff), (0xac00, 0xb5ff),
           (0xff01, 0xffee), (0x1d400, 0x1d7ff), (0x1f300, 0x1f6ff), (0x20000, 0x200ff)]
WORDS = ("it he they don can't I'm WE'VE you'll she'd the of receipt total 12 345 6789 2024 $ % # picture "
         "What's O'Neil x = y + 1; if( } // /* */ <div> http:// \u4f60\u597d \u56fe\u7247 \u0645\u0631\u062d\u0628\u0627 "
         "\u043f\u0440\u0438\u0432\u0435\u0442 \U0001f600 caf\u00e9 \u0928\u092e\u0938\u094d\u0924\u0947 "
         "'s 't 're 've 'm 'll 'd <|eot_id|>").split()

assigned = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) not in ('Cn', 'Cs')]
by_script = [[c for c in map(chr, range(a, b + 1)) if unicodedata.category(c) != 'Cn'] for a, b in SCRIPTS]


def text(rng, way):
    if way == 0:
        return ''.join(rng.choices(assigned, k=rng.randint(1, 30)))
    if way == 1:
        return ''.join(rng.choices(MIXED, k=rng.randint(1, 40)))
    if way == 2:
        letters = rng.choice(by_script)
        return ''.join(rng.choice(SPACES if rng.random() < .12 else letters) for _ in range(rng.randint(1, 60)))
    if way == 3:
        return ''.join(rng.choice(WORDS) + rng.choice(['', ' ', ' ', ' ', '\n', '  ', "'", ', '])
                       for _ in range(rng.randint(1, 25)))
    return ''.join(rng.choice(MIXED) * rng.choice([1, 2, 3, 7, 60]) for _ in range(rng.randint(1, 8)))


if __name__ == '__main__':
    generator = random.Random(int(sys.argv[2]))
    for i in range(int(sys.argv[1])):
        print(text(generator, i % 5).encode().hex())
