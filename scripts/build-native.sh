#!/bin/sh
# Compiles the C: the static player and the Node-API binding, into build/. Does nothing where they are newer than their sources.
set -eu
cd "$(dirname "$0")/.."
mkdir -p build
CC=${CC:-gcc}
WARN="-std=gnu11 -O2 -Wall -Wextra -Werror -Wshadow -Wvla -fstack-protector-strong -D_FORTIFY_SOURCE=2"

# The last step of scripts/build-lean.ts: the lean host with what lies behind it.
quickjs="-isystem build/quickjs/usr/include/quickjs"
engine="build/quickjs/usr/lib/x86_64-linux-gnu/quickjs/libquickjs.a -lm"
if [ "${1:-}" = lean ]; then
  # shellcheck disable=SC2086
  exec $CC $WARN -DFILES="\"$2\"" $quickjs -static -Wl,-z,relro,-z,now,-z,noexecstack,-e,begin native/lean.c build/first.o -o "$3" $engine
fi
# Without a C library: a keeper's private memory is a few pages.
ALONE="-U_FORTIFY_SOURCE -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables"

newer() { [ -e "$1" ] && [ "$1" -nt "$2" ] && [ "$1" -nt scripts/build-native.sh ]; }

if ! newer build/jubako.node native/syscall.c || ! newer build/jubako.node native/spawn.h; then
  $CC $WARN -fPIC -shared -Wl,-z,relro,-z,now -I node_modules/node-api-headers/include native/syscall.c -o build/jubako.node.tmp
  mv build/jubako.node.tmp build/jubako.node
fi
if [ ! -e build/quickjs ]; then sh scripts/fetch-quickjs.sh build/quickjs || echo "jubako: no QuickJS: the runtime's commands are run by Bun alone"; fi
if [ -e build/quickjs ] && ! newer build/lean-compiler scripts/lean-compiler.c; then
  # shellcheck disable=SC2086
  $CC $WARN $quickjs scripts/lean-compiler.c -o build/lean-compiler.tmp $engine
  mv build/lean-compiler.tmp build/lean-compiler
fi
if [ -e native/player.c ] && ! newer build/player native/player.c; then
  # shellcheck disable=SC2086
  $CC $WARN $ALONE -nostdlib -static -Wl,-z,norelro,--build-id=none native/player.c -o build/player.tmp
  strip build/player.tmp
  mv build/player.tmp build/player
  # The same, to be linked before the lean host.
  # shellcheck disable=SC2086
  $CC $WARN $ALONE -DENTRY='"begin"' -DNEXT='"_start"' -c native/player.c -o build/first.o
fi
# As text it is a part of the program: an embedded file takes node:fs to be read, which takes longer to load than all the rest.
if [ -e build/player ] && ! newer build/player.b64 build/player; then
  base64 -w 0 build/player > build/player.b64.tmp
  mv build/player.b64.tmp build/player.b64
fi
