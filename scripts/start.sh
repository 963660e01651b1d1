#!/bin/sh
# npm start: installs, builds, starts the engine in the background, brings in a first image, runs a first container and says how to go on.
set -eu
cd "$(dirname "$0")/.."
if [ "$(id -u)" != 0 ]; then
  echo "jubako: npm start needs root: it makes namespaces, mounts and network interfaces" >&2
  exit 1
fi
sh scripts/setup.sh gcc libc6-dev libseccomp2 busybox-static
sh scripts/build.sh
exec node_modules/.bin/bun scripts/start.ts
