#!/usr/bin/env bash
# Fuzzes every target for some minutes, as many at once as there are cores (or CVQ_FUZZ_JOBS).
#   scripts/fuzz.sh FOLDER MINUTES [TARGET...]    FOLDER: of the built targets; TARGET: picture, task, ...
# A line "fuzz-max-len: N" in a target's source bounds its inputs (65536 bytes otherwise).
# Starts from tests/fuzz/corpus; what is new goes to FOLDER/../corpus, what fails to FOLDER/../found. Prints executions,
# coverage (edges) and new inputs of each target; exits 1 if anything was found. CVQ_FUZZ_KEEP=1 merges what is new into the
# corpora of the project, as few inputs as have the same coverage.
set -eu
cd "$(dirname "$0")/.."
folder=${1:?usage: scripts/fuzz.sh FOLDER MINUTES [TARGET...]}
minutes=${2:?usage: scripts/fuzz.sh FOLDER MINUTES [TARGET...]}
shift 2
[[ $minutes =~ ^[1-9][0-9]{0,4}$ ]] || { echo "fuzz: MINUTES is \"$minutes\", not a whole number from 1 on" >&2; exit 2; }
targets=("$@")
[ $# -gt 0 ] || for program in "$folder"/fuzz_*; do targets+=("$(basename "$program" | sed 's/^fuzz_//')"); done
base=$(dirname "$folder")
mkdir -p "$base/found"
# Most targets read a file: in memory where that is possible.
if [ -d /dev/shm ] && [ -w /dev/shm ]; then export TMPDIR=${TMPDIR:-/dev/shm}; fi

fuzz_one() { # TARGET
    local new=$base/corpus/$1 seeds=tests/fuzz/corpus/$1 log=$base/$1.log status=0 longest
    longest=$(sed -n 's/.*fuzz-max-len: \([0-9]*\).*/\1/p' "tests/fuzz/fuzz_$1.c")
    mkdir -p "$new" "$seeds"
    "$folder/fuzz_$1" -max_total_time=$((minutes * 60)) -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 -max_len="${longest:-65536}" \
        -artifact_prefix="$base/found/$1-" "$new" "$seeds" >"$log" 2>&1 || status=$?
    awk -v target="$1" -v status=$status '
        /cov: [0-9]+/ { for (i = 1; i < NF; i++) { if ($i == "cov:") cov = $(i + 1); if ($i == "corp:") corp = $(i + 1) } }
        /stat::number_of_executed_units/ { runs = $2 }
        END { printf "%-18s %12d runs %7d edges  corpus %-12s %s\n", target, runs, cov, corp, status ? "FAILED" : "nothing found" }
    ' "$log"
    return $status
}
export -f fuzz_one
export folder minutes base
printf '%s\n' "${targets[@]}" | xargs -P "${CVQ_FUZZ_JOBS:-$(nproc)}" -I{} bash -c 'fuzz_one {}' || failed=1
if [ "${CVQ_FUZZ_KEEP-0}" = 1 ]; then
    for t in "${targets[@]}"; do
        "$folder/fuzz_$t" -merge=1 -max_len=16384 "tests/fuzz/corpus/$t" "$base/corpus/$t" >/dev/null 2>&1 || true
    done
fi
if [ -n "${failed-}" ]; then
    echo "fuzz: something was found; inputs are in $base/found, the last words of each target in $base/TARGET.log" >&2
    exit 1
fi
