#!/bin/sh
# fetch-quickjs.sh DIRECTORY: QuickJS' library and headers from Debian 13's package (Debian 12 has none), unpacked there; nothing is installed. The version
# that this was written for, known by its checksum; where Debian has a newer one in its place, that one, known by the archive's signature.
set -eu
target=$1
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
name=libquickjs_2025.04.26-1_amd64.deb
sum=2081ab739beb2070d02633a8e44329fd345dd6dfb49d5d30f8298347c5b04af5
work=$target.$$.tmp
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial"
cd "$work"
limits="-o Acquire::http::Timeout=15 -o Acquire::Retries=1"
# shellcheck disable=SC2086
if ! /usr/lib/apt/apt-helper $limits download-file "$mirror/pool/main/q/quickjs/$name" "$PWD/$name" "SHA256:$sum" >/dev/null 2>&1; then
  rm -f -- *.deb*
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >sources.list
  apt="apt-get -qq $limits -o Dir::Etc::sourcelist=$PWD/sources.list -o Dir::Etc::sourceparts=- -o Dir::State::lists=$PWD/lists"
  $apt update >/dev/null 2>&1 && $apt download libquickjs >/dev/null 2>&1 || exit 1
fi
dpkg-deb -x ./*.deb root
cd - >/dev/null
rm -rf "$target"
mv "$work/root" "$target"
