#!/bin/sh
# npm test: installs what the tests need, builds, runs every test and closes with "N passed, N failed, N skipped".
# Arguments name test files or folders to run instead of all.
set -eu
cd "$(dirname "$0")/.."
sh scripts/setup.sh gcc libc6-dev libseccomp2 busybox-static docker.io containerd runc crun skopeo umoci docker-registry podman conmon criu \
  nftables iptables iproute2 procps tmux openssl curl git attr uidmap util-linux xz-utils bzip2 zstd systemd dbus apparmor secilc qemu-system-x86 \
  debootstrap slirp4netns
sh scripts/build.sh
# What scripts/test.ts has made there beside the first tests.
export PATH="$PWD/build/tools:$PATH"
exec node_modules/.bin/bun scripts/test.ts "$@"
