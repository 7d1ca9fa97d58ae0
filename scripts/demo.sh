#!/usr/bin/env bash
# The demo: converts the small checkpoint of models/, quantizes it, and asks it about pictures.
#   scripts/demo.sh COMMANDS     COMMANDS: the folder of the built commands
# Exits 1 if an answer is not the expected one.
set -eu
bin=${1:?usage: scripts/demo.sh COMMANDS}
checkpoint=models/cogvlm2-tiny
pictures=models/pictures
out=$(dirname "$bin")/demo
mkdir -p "$out"
export XDG_CACHE_HOME="$PWD/$out/cache" # pictures are encoded here and now, not found in a cache
rm -rf "$XDG_CACHE_HOME"

now() { echo "${EPOCHREALTIME/[.,]/}"; } # microseconds
since() { awk -v us=$(($(now) - $1)) 'BEGIN { printf "%.2f s", us / 1e6 }'; }
size() { awk -v n="$(wc -c <"$1")" 'BEGIN { printf "%.1f MB", n / 1e6 }'; }
# A member's value in a JSON object that stands on one line, or nothing.
text_of() { sed -nE 's/.*"'"$1"'": *"(([^"\\]|\\.)*)".*/\1/p' <<<"$2"; }
number_of() { sed -nE 's/.*"'"$1"'": *([0-9.eE+-]+).*/\1/p' <<<"$2"; }
step() { # WHAT RESULT COMMAND...: runs it, says how long it took and how large the result is
    local what=$1 result=$2 start
    shift 2
    start=$(now)
    "$@"
    printf '%-52s %8s, %s\n' "$what" "$(since "$start")" "$(size "$result")"
}

begin=$(now)
step "convert $checkpoint to 16 bits (lossless)" "$out/tiny-bf16.cvq" \
    "$bin/cvq-convert" -q --force "$checkpoint" "$out/tiny-bf16.cvq"
step "quantize to 4 bits (recipe q4)" "$out/tiny-q4.cvq" \
    "$bin/cvq-quantize" -q --force --recipe q4 "$out/tiny-bf16.cvq" "$out/tiny-q4.cvq"
start=$(now)
"$bin/cvq-info" -q --verify "$out/tiny-q4.cvq" >"$out/info.txt"
printf '%-52s %8s\n\n' "verify every hash of the file" "$(since "$start")"

row='%-23s %-36s %-39s %-39s %s\n'
# shellcheck disable=SC2059 # the format is the line above
row() { printf "$row" "$@"; }
row picture question expected answer time
peak=0 asked=0 right=0
while IFS= read -r line; do
    image=$(text_of image "$line") question=$(text_of question "$line")
    expected=$(sed -nE 's/.*"answers": *\["([^"]*)"\].*/\1/p' <<<"$line")
    start=$(now)
    result=$("$bin/cvq-run" -q --json --image "$pictures/$image" --prompt "$question" "$out/tiny-q4.cvq")
    took=$(since "$start")
    answer=$(text_of answer "$result") bytes=$(number_of peak_rss_bytes "$result")
    asked=$((asked + 1))
    if [ "$answer" = "$expected" ]; then right=$((right + 1)) mark=""; else mark="  <- not as expected"; fi
    row "$image" "$question" "$expected" "$answer$mark" "$took"
    if [ "${bytes:-0}" -gt "$peak" ]; then peak=$bytes; fi
done <"$pictures/questions.jsonl"

printf '\n%d of %d answers as expected; %s in all, at most %s MB of memory\n' "$right" "$asked" \
    "$(since "$begin")" "$(awk -v n="$peak" 'BEGIN { printf "%.0f", n / 1e6 }')"
[ "$right" = "$asked" ] && [ "$asked" -gt 0 ]
