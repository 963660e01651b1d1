#!/bin/sh
# npm test: installs what the tests need, builds, runs every test and closes with "N passed, N failed, N skipped".
# Arguments name test files or folders to run instead of all.
set -eu
cd "$(dirname "$0")/.."
sh scripts/setup.sh gcc libc6-dev libseccomp2 busybox-static docker.io containerd runc skopeo umoci docker-registry nftables iproute2 procps tmux openssl qemu-system-x86
sh scripts/go-tools.sh buildx compose buildctl crane registry
export PATH="$PWD/build/tools:$PATH"
sh scripts/build.sh
exec node_modules/.bin/bun scripts/test.ts "$@"
