#!/bin/sh
# npm run bench [build|engine|images|memory|registry|runtime …]: the figures, each against its peer in the same run.
set -eu
cd "$(dirname "$0")/.."
sh scripts/setup.sh gcc libc6-dev libseccomp2 busybox-static docker.io containerd runc crun docker-registry wrk curl iproute2 procps
sh scripts/go-tools.sh buildx buildkitd
export PATH="$PWD/build/tools:$PATH"
sh scripts/build.sh
for name in ${*:-runtime engine memory}; do
  node_modules/.bin/bun "bench/$name.ts"
done
