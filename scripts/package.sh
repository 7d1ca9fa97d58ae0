#!/usr/bin/env bash
# Debian packages of what is checked in, and lintian's opinion of them (warnings are errors).
#   scripts/package.sh FOLDER     FOLDER: where they go; emptied first
set -eu
cd "$(dirname "$0")/.."
out=${1:?usage: scripts/package.sh FOLDER}
rm -rf "$out"
mkdir -p "$out/cvq"
# The files of the project, wherever it came from: build folders stay behind.
tar -c --exclude=./build --exclude=./.git --exclude='__pycache__' . | tar -x -C "$out/cvq"
out=$(cd "$out" && pwd)
cd "$out/cvq"
if ! dpkg-buildpackage --unsigned-source --unsigned-changes --build=binary >"$out/log" 2>&1; then
    tail -40 "$out/log" >&2
    echo "package: dpkg-buildpackage failed; all it said is in $out/log" >&2
    exit 1
fi
lintian --allow-root --fail-on error,warning "$out"/*.changes
rm -rf "$out/cvq"
ls "$out"/*.deb
