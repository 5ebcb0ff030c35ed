#!/usr/bin/env bash
# Unpacks Debian's kernel for virtual machines into the directory that is the argument. It
# installs nothing, and needs no root unless apt's lists are missing.
set -euo pipefail

if ! command -v apt-get >/dev/null; then
	echo "tests of microVMs need a kernel: unpack a linux-image-*-cloud-amd64 package of Debian to $1" >&2
	exit 1
fi
package() { apt-cache depends --important linux-image-cloud-amd64:amd64 2>/dev/null | awk '$1 == "Depends:" && $2 ~ /^linux-image-/ {print $2; exit}'; }

if [ -z "$(package)" ] && [ "$(id -u)" -eq 0 ]; then
	apt-get update -qq
fi
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
cd "$temp"
apt-get download -qq -o APT::Sandbox::User= "$(package)" || {
	[ "$(id -u)" -eq 0 ] && apt-get update -qq && apt-get download -qq -o APT::Sandbox::User= "$(package)"
}
dpkg -x ./*.deb unpacked
cd - >/dev/null
mkdir -p "$(dirname "$1")"
rm -rf "$1"
mv "$temp/unpacked" "$1"
