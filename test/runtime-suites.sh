#!/bin/sh
# runc's own integration tests (bats), run against any OCI runtime: test/runtime-suites.sh [RUNTIME…], by default jubako-runtime of dist/ and the runc
# on the PATH, one after the other; prints counts and the failures of each. The tests come with Debian's source package of runc, fetched by apt into a
# directory of its own (no change to the system's sources). Needs root, apt-get, bats, jq, gawk, gcc, script, busybox-static; debootstrap for the hook test.
# Not run here: seccomp notify (needs runc's Go agent), mounts_sshfs. Environment: SUITE_FILES="exec.bats …" for some files only.
set -eu
cd "$(dirname "$0")/.."
here=$PWD
for program in apt-get dpkg-source bats jq gawk gcc script busybox; do
  command -v $program >/dev/null || { echo "runtime-suites: $program is not installed" >&2; exit 77; }
done
[ "$(id -u)" = 0 ] || { echo "runtime-suites: needs root" >&2; exit 77; }

work=$(mktemp -d /tmp/jubako-suites.XXXXXX)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial"

# ---- fetch
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${SUITE_MIRROR:-http://deb.debian.org/debian} $suite main" >"$work/sources.list"
apt="apt-get -qq -o Dir::Etc::sourcelist=$work/sources.list -o Dir::Etc::sourceparts=- -o Dir::State::lists=$work/lists"
(cd "$work" && $apt update && $apt source runc) >"$work/fetch.log" 2>&1 || { tail -5 "$work/fetch.log" >&2; exit 1; }
tests=$(echo "$work"/runc-*/tests/integration)
tools=$(echo "$work"/runc-*/contrib/cmd)

# ---- images, as the tests expect them: no /proc and no /sys in busybox's
mkdir -p "$work/busybox/bin" "$work/busybox/etc" "$work/busybox/dev" "$work/busybox/tmp" "$work/busybox/root" "$work/busybox/usr" "$work/busybox/var" "$work/hello"
cp "$(command -v busybox)" "$work/busybox/bin/busybox"
for applet in $(busybox --list); do [ "$applet" = busybox ] || ln -s busybox "$work/busybox/bin/$applet"; done
chmod 1777 "$work/busybox/tmp"
printf 'root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n' >"$work/busybox/etc/passwd"
printf 'root:x:0:\ndaemon:x:1:\n' >"$work/busybox/etc/group"
tar -C "$work/busybox" -cf "$work/busybox.tar" .
printf '#include <stdio.h>\nint main(void) { puts("Hello"); return 0; }\n' >"$work/hello.c"
gcc -static -o "$work/hello/hello" "$work/hello.c"
tar -C "$work/hello" -cf "$work/hello.tar" .
debian=$work/busybox.tar
if command -v debootstrap >/dev/null && debootstrap --variant=minbase "$suite" "$work/debian" >"$work/debootstrap.log" 2>&1; then
  rm -rf "$work/debian/proc" "$work/debian/sys"
  tar -C "$work/debian" -cf "$work/debian.tar" .
  debian=$work/debian.tar
fi
cat >"$tests/get-images.sh" <<EOF
#!/bin/sh
echo BUSYBOX_IMAGE=$work/busybox.tar
echo HELLO_IMAGE=$work/hello.tar
echo DEBIAN_IMAGE=$debian
EOF
chmod +x "$tests/get-images.sh"
gcc -Wall -o "$tools/recvtty/recvtty" "$here/test/support/recvtty.c"

# ---- run, in a terminal, as runc run and exec expect one
files=${SUITE_FILES:-$(cd "$tests" && ls ./*.bats | grep -v -e seccomp-notify -e sshfs)}
cat >"$work/run" <<'EOF'
#!/bin/sh
cd "$1"
for file in $3; do timeout --foreground -k 5 120 bats -t "$file"; done >"$2" 2>&1
EOF
chmod +x "$work/run"
[ $# -gt 0 ] || set -- "$here/dist/bin/jubako-runtime" $(command -v runc || true)
for runtime; do
  case $runtime in /*) ;; *) runtime=$(command -v "$runtime") ;; esac
  out=$work/out.$(basename "$runtime")
  mkdir -p "$work/tmp"
  RUNC=$runtime TMPDIR=$work/tmp script -qec "$work/run '$tests' '$out' '$(echo $files)'" /dev/null </dev/null >/dev/null || true
  skipped=$(grep -c '^ok .*# skip' "$out" || true)
  echo "$runtime: $(($(grep -c '^ok' "$out") - skipped)) passed, $(grep -c '^not ok' "$out" || true) failed, $skipped skipped"
  grep '^not ok' "$out" || true
  if [ -n "${SUITE_OUTPUT:-}" ]; then cp "$out" "$SUITE_OUTPUT.$(basename "$runtime")"; fi
done
