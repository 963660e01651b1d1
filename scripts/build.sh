#!/bin/sh
# Makes dist/jubako, the one executable, and dist/bin/ with a link for each name it answers to. Does nothing where it is newer than the sources.
set -eu
cd "$(dirname "$0")/.."
sh scripts/build-native.sh
if [ -e dist/jubako ] && [ -z "$(find src native api package-lock.json scripts/build* scripts/lean-compiler.c -newer dist/jubako -print -quit)" ]; then exit 0; fi
mkdir -p dist/bin
node_modules/.bin/bun scripts/build.ts
for name in jubakod jubako-containerd jubako-shim containerd-shim-jubako-v1 jubako-registry; do
  ln -sfn ../jubako "dist/bin/$name"
done
# Not links but programs that run it: see there.
node_modules/.bin/bun scripts/build-launcher.ts
echo "jubako: built dist/jubako and dist/bin/"
