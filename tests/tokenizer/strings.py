"""strings.json, the texts with their ids: what compare_llama3.sh reads and writes of it.

  strings.py texts                    the texts, one a line in hexadecimal
  strings.py check NAME IDS.txt       whether the stored ids of NAME (llama3, small) are these
  strings.py rewrite NAME IDS.txt     store them
"""
import json
import pathlib
import sys

PATH = pathlib.Path(__file__).with_name('strings.json')


def data(entry):
    """A text is a string, or hexadecimal where a string could not hold it in every reader (U+0000)."""
    return bytes.fromhex(entry['hex']) if 'hex' in entry else entry['text'].encode()


def main(what, name=None, path=None):
    entries = json.loads(PATH.read_text())
    if what == 'texts':
        for entry in entries:
            print(data(entry).hex())
        return
    ids = [json.loads(line) for line in open(path)]
    if len(ids) != len(entries):
        sys.exit(f'{path} has {len(ids)} lines, strings.json {len(entries)} texts')
    if what == 'rewrite':
        for entry, new in zip(entries, ids):
            entry[name] = new
        lines = ',\n'.join(json.dumps(entry) for entry in entries)
        PATH.write_text(f'[\n{lines}\n]\n')
        return
    wrong = [data(entry) for entry, new in zip(entries, ids) if entry.get(name) != new]
    for text in wrong:
        print(f'  other ids than stored: {text!r}')
    print(f'strings.json, {name}: {len(entries) - len(wrong)} of {len(entries)} as stored')
    sys.exit(1 if wrong else 0)


if __name__ == '__main__':
    main(*sys.argv[1:])
