#!/bin/sh
# Programs that the tests use as clients and peers and that Debian does not have, built from their Go modules into build/tools: buildx, compose,
# buildctl, crane, registry (the CNCF's 3.x), buildkitd, frontend (test/support/frontend), by name. Go itself, where it is missing or too old, comes from the module proxy as well. One that can't be built is only
# reported: its tests are skipped. Nothing of them enters the product.
set -eu
cd "$(dirname "$0")/.."
tools=$PWD/build/tools
go_version=1.26.8
mkdir -p "$tools"

missing=""
for name in "$@"; do
  case $name in
    buildx) program=docker-buildx ;;
    compose) program=docker-compose-v5 ;;
    frontend) program=test-frontend ;;
    *) program=$name ;;
  esac
  [ -x "$tools/$program" ] || missing="$missing $name"
done
[ -n "$missing" ] || exit 0
log=$tools/build.log
: >"$log"

# A toolchain is a module too (go.dev/doc/toolchain): a zip of files without their executable bits.
toolchain() {
  home=$tools/go
  [ -x "$home/bin/go" ] && return
  case $(uname -m) in
    x86_64) arch=amd64 ;;
    aarch64) arch=arm64 ;;
    *) return 1 ;;
  esac
  echo "jubako: fetching Go $go_version"
  module=golang.org/toolchain@v0.0.1-go$go_version.linux-$arch
  node -e '
    const [url, file] = process.argv.slice(1);
    fetch(url).then(async (answer) => {
      if (!answer.ok) throw new Error(`${url}: ${answer.status}`);
      await require("node:fs/promises").writeFile(file, Buffer.from(await answer.arrayBuffer()));
    }).catch((error) => { console.error(String(error)); process.exit(1); });
  ' "$proxy/golang.org/toolchain/@v/v0.0.1-go$go_version.linux-$arch.zip" "$tools/go.zip" || return 1
  rm -rf "$tools/unpacked" "$home"
  mkdir "$tools/unpacked"
  busybox unzip -q "$tools/go.zip" -d "$tools/unpacked" || return 1
  mv "$tools/unpacked/$module" "$home"
  rm -rf "$tools/unpacked" "$tools/go.zip"
  chmod -R u+x "$home/bin" "$home/pkg/tool"
}

proxy=${GOPROXY:-https://proxy.golang.org}
proxy=${proxy%%,*}
# 1.21 and later fetch a newer toolchain themselves.
if go version 2>/dev/null | grep -qE 'go(1\.(2[1-9]|[3-9][0-9])|[2-9])'; then
  go=go
else
  toolchain >>"$log" 2>&1 || { echo "jubako: no Go toolchain for$missing (see $log)"; exit 0; }
  go=$tools/go/bin/go
  export GOMODCACHE="$tools/cache/modules" GOCACHE="$tools/cache/build" GOFLAGS=-modcacherw
  trap 'rm -rf "$tools/go" "$tools/cache"' EXIT
fi

# name, package, modules, linker flags; the package is a program of a module, or a directory here. Without debug information, which takes a fifth of the time.
build() {
  echo "jubako: building $1"
  work=$tools/module-$1
  rm -rf "$work"
  mkdir "$work"
  case $2 in
    test/*) package=. && cp "$2"/*.go "$work" ;;
    *) package=$2 ;;
  esac
  (
    cd "$work"
    # shellcheck disable=SC2086
    $go mod init jubako.test/tools && $go get $3 &&
      CGO_ENABLED=0 $go build -mod=mod -trimpath -gcflags=all=-dwarf=false -ldflags="-s ${4:-}" -o "$tools/$1" "$package"
  ) >>"$log" 2>&1 || echo "jubako: $1 could not be built (see $log)"
  rm -rf "$work"
}
# One set of modules for both, so that what they share is compiled once.
compose="github.com/docker/compose/v5@v5.0.0 github.com/docker/buildx@v0.30.1"
buildkit=github.com/moby/buildkit@v0.27.0
for name in $missing; do
  case $name in
    # compose asks for its version
    buildx) build docker-buildx github.com/docker/buildx/cmd/buildx "$compose" "-X github.com/docker/buildx/version.Version=v0.30.1" ;;
    compose) build docker-compose-v5 github.com/docker/compose/v5/cmd "$compose" ;;
    buildctl) build buildctl github.com/moby/buildkit/cmd/buildctl $buildkit ;;
    buildkitd) build buildkitd github.com/moby/buildkit/cmd/buildkitd $buildkit ;;
    frontend) build test-frontend test/support/frontend $buildkit ;;
    crane) build crane github.com/google/go-containerregistry/cmd/crane github.com/google/go-containerregistry@v0.20.6 ;;
    registry) build registry test/support/cncf-registry github.com/distribution/distribution/v3@v3.0.0 ;;
    *) echo "jubako: no tool is named $name" >&2; exit 2 ;;
  esac
done
