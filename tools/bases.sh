#!/usr/bin/env bash
# Makes archives of root directories of packages of Debian in the directory that is the
# argument, for tests of nex rootfs: one with OpenRC, one with systemd. It installs nothing of them.
set -euo pipefail

temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
# Alpine's way: the init of busybox starts OpenRC.
mmdebstrap --quiet --variant=extract --include=openrc,busybox-static \
	--extract-hook='mkdir -p "$1/sbin" "$1/bin" "$1/etc"; ln -sf /bin/busybox "$1/sbin/init"; ln -sf busybox "$1/bin/sh"; printf "::sysinit:/sbin/openrc sysinit\\n::sysinit:/sbin/openrc boot\\n::wait:/sbin/openrc default\\n" >"$1/etc/inittab"' \
	bookworm "$temp/openrc.tar"
mmdebstrap --quiet --variant=essential --include=systemd-sysv bookworm "$temp/systemd.tar"
mkdir -p "$(dirname "$1")"
rm -rf "$1"
mv "$temp" "$1"
trap - EXIT
