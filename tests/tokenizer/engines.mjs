// Asks independent implementations for the ids of texts, special tokens in them being plain text.
//
//   node engines.mjs rust|js TOKENIZER.json < texts.hex > ids.txt
//
// In: one text a line, its UTF-8 in hexadecimal. Out: a JSON array of ids a line. "rust" is Hugging Face's own library
// (the one the released CogVLM2 runs on) through @anush008/tokenizers; "js" is
// @huggingface/tokenizers, which shares no code with it. Both are found through the current folder.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { createRequire } from 'node:module';

const [engine, file] = process.argv.slice(2);
const require = createRequire(path.join(process.cwd(), 'package.json'));

// Without its added tokens a tokenizer has nothing to find in a text.
const json = JSON.parse(fs.readFileSync(file, 'utf8'));
json.added_tokens = [];
json.post_processor = null;

let encode;
if (engine === 'rust') {
    const { Tokenizer } = require('@anush008/tokenizers');
    const plain = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'cvq-engines-')), 'plain.json');
    fs.writeFileSync(plain, JSON.stringify(json));
    const tokenizer = Tokenizer.fromFile(plain);
    fs.rmSync(path.dirname(plain), { recursive: true });
    encode = async text =>
        (await tokenizer.encode(text, null, { addSpecialTokens: false })).getIds();
} else if (engine === 'js') {
    const { Tokenizer } = require('@huggingface/tokenizers');
    const tokenizer = new Tokenizer(json, {});
    encode = async text => tokenizer.encode(text, { add_special_tokens: false }).ids;
} else {
    console.error('usage: engines.mjs rust|js TOKENIZER.json < texts.hex > ids.txt');
    process.exit(2);
}

const lines = fs.readFileSync(0, 'latin1').split('\n').slice(0, -1);
const out = [];
for (const line of lines)
    out.push(JSON.stringify(await encode(Buffer.from(line, 'hex').toString('utf8'))) + '\n');
fs.writeFileSync(1, out.join(''));
