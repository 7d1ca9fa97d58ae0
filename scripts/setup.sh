#!/usr/bin/env bash
# What building, testing and cross-building need, and how it comes onto this machine.
#
#   setup.sh build|test|cross|emulate|package|fuzz|analyze   install what is missing (apt, as root or with sudo that asks
#                                       nothing); else print the command that does, and exit 1
#   setup.sh --check WHAT               install nothing
#   setup.sh --python                   print the python3 that the tests use
#
# Says nothing when nothing is missing. "cross" adds Debian's arm64 architecture: only CI asks for it.
set -eu

modules="libzstd libcjson libpcre2-8 libcrypto"
declare -A package=([libzstd]=libzstd-dev [libcjson]=libcjson-dev [libpcre2-8]=libpcre2-dev
    [libcrypto]=libssl-dev [stb]=libstb-dev)
arm64_dir=/usr/lib/aarch64-linux-gnu
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
missing=() # Debian packages
wanted=()  # the same in words, for other systems

need() { # PACKAGE WORDS
    case " ${missing[*]-} " in *" $1 "*) ;; *)
        missing+=("$1")
        wanted+=("$2")
        ;;
    esac
}
has() { command -v "$1" >/dev/null 2>&1; }
find_python() { # one with numpy and Pillow, which another python3 that comes first in PATH may lack
    local p
    for p in /usr/bin/python3 python3; do
        if "$p" -c 'import numpy, PIL' >/dev/null 2>&1; then
            echo "$p"
            return
        fi
    done
    return 1
}
compiles() { # COMPILER
    printf '#include <stdio.h>\nint main(void) { return puts("") < 0; }\n' |
        "$1" -x c -o "$scratch/program" - >/dev/null 2>&1
}

look_build() {
    has make || need make "make"
    # Whoever names a compiler knows what it needs.
    [ -n "${CC-}" ] || compiles gcc || { need gcc "gcc 12 or newer"; need libc6-dev "the C library's headers"; }
    has pkg-config || need pkg-config pkg-config
    local m
    for m in $modules stb; do
        pkg-config --exists "$m" 2>/dev/null || need "${package[$m]}" "$m (with headers and pkg-config file)"
    done
}
look_test() {
    look_build
    find_python >/dev/null || { need python3 "python3"; need python3-numpy "numpy"; need python3-pil "Pillow"; }
    has clang || need clang "clang 14 or newer"
    has g++ || need g++ "g++ (the public header is tried as C++)"
    has clang-format || need clang-format "clang-format"
    has minisign || need minisign "minisign"
    has curl || need curl "curl"
}
look_package() {
    look_build
    has dh || need debhelper "debhelper"
    has lintian || need lintian "lintian"
}
look_fuzz() {
    look_build
    has clang || need clang "clang 14 or newer"
    printf 'int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return d && n == ~0ul; }\n' |
        clang -fsanitize=fuzzer,address -x c -o "$scratch/fuzzer" - >/dev/null 2>&1 ||
        need "libclang-rt-$(clang -dumpversion 2>/dev/null | cut -d. -f1)-dev" "libFuzzer"
}
look_analyze() {
    look_build
    has clang-tidy || need clang-tidy "clang-tidy 14"
    has cppcheck || need cppcheck cppcheck
    has valgrind || need valgrind valgrind
}
look_cross() {
    local m
    has aarch64-linux-gnu-gcc || need gcc-aarch64-linux-gnu "a cross compiler for aarch64"
    [ -e /usr/aarch64-linux-gnu/include/stdio.h ] || need libc6-dev-arm64-cross "its C library"
    has s390x-linux-gnu-gcc || need gcc-s390x-linux-gnu "a cross compiler for s390x (that it refuses is tested)"
    [ -e /usr/s390x-linux-gnu/include/stdio.h ] || need libc6-dev-s390x-cross "its C library"
    has qemu-aarch64 || need qemu-user "qemu-aarch64"
    for m in $modules; do
        [ -e "$arm64_dir/pkgconfig/$m.pc" ] || need "${package[$m]}:arm64" "$m for arm64"
    done
}

look_emulate() {
    look_build
    has bochs || { need bochs "the emulator Bochs"; need bochs-term "one of its displays"; }
    [ -e /usr/share/bochs/BIOS-bochs-latest ] || need bochsbios "its BIOS"
    [ -e /usr/share/bochs/VGABIOS-lgpl-latest ] || need vgabios "its video BIOS"
    [ -e /usr/lib/ISOLINUX/isolinux.bin ] || need isolinux "isolinux"
    [ -e /usr/lib/syslinux/modules/bios/ldlinux.c32 ] || need syslinux-common "isolinux's modules"
    has xorriso || need xorriso xorriso
    has cpio || need cpio cpio
    [ -e /bin/busybox ] || need busybox-static "busybox, linked statically"
}

install() {
    local sudo="" log
    if [ "$(id -u)" != 0 ]; then
        { has sudo && sudo -n true 2>/dev/null; } || return 1
        sudo="sudo -n"
    fi
    echo "setup: installing ${missing[*]}"
    log=$scratch/log
    if [ "$what" = cross ]; then $sudo dpkg --add-architecture arm64; fi
    try() { $sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120 "$@" >>"$log" 2>&1; }
    if { [ "$what" != cross ] && try install --no-install-recommends "${missing[@]}"; } ||
        { try update && try install --no-install-recommends "${missing[@]}"; }; then
        return 0
    fi
    echo "setup: apt-get did not succeed; its last lines:" >&2
    tail -n 15 "$log" >&2
    return 1
}
explain() {
    {
        echo "cvq needs what is not on this machine:"
        printf '  %s\n' "${wanted[@]}"
        if has apt-get; then
            local sudo="sudo "
            if [ "$(id -u)" = 0 ]; then sudo=""; fi
            echo "Install it with:"
            if [ "$what" = cross ]; then echo "  ${sudo}dpkg --add-architecture arm64"; fi
            echo "  ${sudo}apt-get update && ${sudo}apt-get install -y --no-install-recommends ${missing[*]}"
        else
            echo "(On Debian the packages are: ${missing[*]})"
        fi
    } >&2
}

usage() {
    echo "usage: scripts/setup.sh [--check] build|test|cross|emulate|package|fuzz|analyze | --python" >&2
    exit 2
}
check=no
case "${1-}" in
--python)
    find_python || echo python3
    exit 0
    ;;
--check)
    check=yes
    shift
    ;;
esac
what=${1-}
look() {
    missing=() wanted=()
    "look_$what"
    [ ${#missing[@]} -eq 0 ]
}
case "$what" in build | test | cross | emulate | package | fuzz | analyze) ;; *) usage ;; esac
if look; then exit 0; fi
if [ "$check" = no ] && has apt-get && install && look; then exit 0; fi
explain
exit 1
