#!/bin/sh
# Compiles the C: the static player and the Node-API binding, into build/. Does nothing where they are newer than their sources.
set -eu
cd "$(dirname "$0")/.."
mkdir -p build
CC=${CC:-gcc}
WARN="-std=gnu11 -O2 -Wall -Wextra -Werror -Wshadow -Wvla -fstack-protector-strong -D_FORTIFY_SOURCE=2"

newer() { [ -e "$1" ] && [ "$1" -nt "$2" ] && [ "$1" -nt scripts/build-native.sh ]; }

if ! newer build/jubako.node native/syscall.c; then
  $CC $WARN -fPIC -shared -Wl,-z,relro,-z,now -I node_modules/node-api-headers/include native/syscall.c -o build/jubako.node.tmp
  mv build/jubako.node.tmp build/jubako.node
fi
if [ -e native/player.c ] && ! newer build/player native/player.c; then
  # Without a C library: a keeper's private memory is a few pages.
  $CC $WARN -U_FORTIFY_SOURCE -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables -nostdlib -static -Wl,-z,norelro,--build-id=none native/player.c -o build/player.tmp
  strip build/player.tmp
  mv build/player.tmp build/player
fi
# As text it is a part of the program: an embedded file takes node:fs to be read, which takes longer to load than all the rest.
if [ -e build/player ] && ! newer build/player.b64 build/player; then
  base64 -w 0 build/player > build/player.b64.tmp
  mv build/player.b64.tmp build/player.b64
fi
