#!/usr/bin/env bash
# A program on a processor that this machine is not: an emulated Ice Lake (AVX-512 with VNNI), by Bochs.
#
#   emulate.sh FOLDER PROGRAM [ARGUMENT...]     run it, print what it prints, exit as it exits
#
# Needs what `setup.sh emulate` installs. FOLDER keeps the kernel and the disk image; PROGRAM travels with its libraries in an
# initramfs, under Debian's kernel for virtual machines, which is unpacked there and not installed. Some 40 million instructions a
# second: the kernel takes about a minute to boot. EMULATE_SECONDS (default 900) ends a run that hangs.
set -eu
if [ $# -lt 2 ]; then
    sed -n '4s/^# *//p' "$0" >&2
    exit 2
fi
folder=$1 program=$2
shift 2
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

if ! [ -s "$folder/linux" ]; then
    package=$(apt-cache show --no-all-versions linux-image-cloud-amd64 | sed -n 's/^Depends: \(linux-image-[^ ]*\).*/\1/p')
    [ -n "$package" ] || { echo "emulate: apt knows no linux-image-cloud-amd64 (apt-get update)" >&2; exit 1; }
    rm -rf "$folder/package" && mkdir "$folder/package"
    (cd "$folder/package" && apt-get -q download "$package" >&2 && dpkg -x ./*.deb .)
    mv "$folder"/package/boot/vmlinuz-* "$folder/linux"
    rm -rf "$folder/package"
fi

# The initramfs: a shell, the program and its libraries.
root=$folder/root disk=$folder/disk
rm -rf "$root" "$disk" && mkdir -p "$root/bin" "$root/dev" "$root/proc" "$root/tmp" "$disk/isolinux"
cp /bin/busybox "$root/bin/"
cp "$program" "$root/bin/program"
ldd "$program" | grep -o '/[^ ]*' | while read -r library; do
    mkdir -p "$root$(dirname "$library")" && cp -L "$library" "$root$library"
done
cat >"$root/init" <<END
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
/bin/program$(for word in "$@"; do printf ' %q' "$word"; done)
echo "program's status: \$?"
/bin/busybox sleep 1 # until the serial line has it all
/bin/busybox poweroff -f
END
chmod 755 "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet) >"$disk/initrd"

# Bochs 2.7 states sizes of the XSAVE area that contradict each other for PKU (515), XSAVEC (321) and XSAVES (323), and breaks
# down under the kernel's own use of some of the others; none of them is what is tested.
cp "$folder/linux" "$disk/linux"
cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$disk/isolinux/"
cat >"$disk/isolinux/isolinux.cfg" <<END
DEFAULT linux
PROMPT 0
LABEL linux
  KERNEL /linux
  INITRD /initrd
  APPEND console=ttyS0 loglevel=4 nosmp noreplace-smp mitigations=off nokaslr clearcpuid=515,321,323,297,580,514 nogbpages nopcid noinvpcid nosmap nosmep no5lvl
END
xorriso -as genisoimage -quiet -o "$folder/boot.iso" -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot \
    -boot-load-size 4 -boot-info-table "$disk" 2>"$folder/xorriso.log" || { cat "$folder/xorriso.log" >&2; exit 1; }

cat >"$folder/bochsrc" <<END
cpu: model=corei7_icelake_u, count=1, ips=50000000, reset_on_triple_fault=0
megs: 128
clock: sync=none
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
boot: cdrom
ata0-master: type=cdrom, path="$folder/boot.iso", status=inserted
com1: enabled=1, mode=file, dev="$folder/serial.txt"
display_library: rfb, options="timeout=0"
sound: driver=dummy
log: "$folder/bochs.log"
panic: action=fatal
error: action=report
END
# Debian's Bochs stops in its debugger first: "c" goes on.
echo c >"$folder/commands"
: >"$folder/serial.txt"
timeout "${EMULATE_SECONDS:-900}" bochs -q -f "$folder/bochsrc" -rc "$folder/commands" </dev/null >"$folder/bochs.out" 2>&1 || true
tr -d '\r' <"$folder/serial.txt" >"$folder/console.txt"
sed "/^program's status: /d" "$folder/console.txt"
status=$(sed -n "s/^program's status: \([0-9]*\)$/\1/p" "$folder/console.txt" | tail -n 1)
if [ -z "$status" ]; then
    echo "emulate: the program did not end; $folder/bochs.log says what the emulator saw" >&2
    exit 1
fi
exit "$status"
