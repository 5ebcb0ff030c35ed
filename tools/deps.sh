#!/usr/bin/env bash
# Makes sure that the programs named as arguments (of git, make, gcc, g++, curl, e2fsck, qemu-system-x86_64, ip, busybox, mmdebstrap) are there:
# as root on Debian it installs the missing ones, elsewhere it names them.
set -euo pipefail

if ! command -v go >/dev/null; then
	echo "Go 1.26 or newer is needed and not in PATH: https://go.dev/doc/install" >&2
	exit 1
fi

packages=()
for program in "$@"; do
	command -v "$program" >/dev/null && continue
	case $program in
	gcc) packages+=(gcc libc6-dev) ;;
	e2fsck) packages+=(e2fsprogs) ;;
	qemu-system-x86_64) packages+=(qemu-system-x86) ;;
	ip) packages+=(iproute2) ;;
	busybox) packages+=(busybox-static) ;;
	*) packages+=("$program") ;;
	esac
done
[ ${#packages[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
	echo "please install: ${packages[*]}" >&2
	exit 1
fi
echo "installing ${packages[*]}"
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
