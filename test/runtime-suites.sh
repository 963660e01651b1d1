#!/bin/sh
# Tests of OCI runtimes that others wrote, run against any runtime: test/runtime-suites.sh [RUNTIME…], by default jubako-runtime of dist/ and the runc
# on the PATH, one after the other; prints counts, and each failure with what is known of it.
#
#   bats         runc's own integration tests, from Debian's source package of runc, fetched by apt (no change to the system's sources); with
#                SUITE_RUNC=1.5.2 (or latest) those of that version, from its Go module, which is built and stands for runc where none is named
#   checkpoint   of them those of checkpoint and restore, in a virtual machine whose kernel CRIU knows (test/vm/bats.ts); three minutes
#   v2           of them those that have to do with cgroups, in that machine, which has cgroup v2; a quarter of an hour
#   systemd      the same where cgroups are units of systemd's; a quarter of an hour
#   rootless     the same by an ordinary user, who exists in a mount namespace only: as tests/rootless.sh does, without sub-ids and cgroups, and with both
#   validation   the programs of github.com/opencontainers/runtime-tools, built by Go
#
# Needs root, apt-get, dpkg-source, jq, gcc, script, busybox-static; for bats gawk and bats, for some of its files debootstrap (hooks), Go and
# libseccomp-dev (seccomp-notify), fuse (sshfs), criu (checkpoint); for rootless uidmap; for validation Go. What is missing is left out and said.
# Environment: SUITES="bats checkpoint rootless validation" (the default), v2, systemd; SUITE_RUNC=VERSION; SUITE_FILES="exec.bats …" and SUITE_PROGRAMS="mounts …" for some only; SUITE_WORK=DIR keeps what was
# fetched and built there for the next time; SUITE_OUTPUT=PREFIX keeps the outputs.
set -eu
cd "$(dirname "$0")/.."
here=$PWD
suites=${SUITES:-bats checkpoint rootless validation}
has() { command -v "$1" >/dev/null; }
for program in apt-get dpkg-source jq gcc script busybox; do
  has $program || { echo "runtime-suites: $program is not installed" >&2; exit 77; }
done
[ "$(id -u)" = 0 ] || { echo "runtime-suites: needs root" >&2; exit 77; }

work=${SUITE_WORK:-$(mktemp -d /tmp/jubako-suites.XXXXXX)}
mkdir -p "$work/lists/partial" "$work/tmp"
clean() {
  # What a runtime left mounted (one without a mount namespace of its container's) would be removed with the directory, and shows all of /proc to others.
  grep -o " $work/[^ ]*" /proc/self/mountinfo | sort -r | while read -r mounted; do umount -l "$mounted" 2>/dev/null || true; done
  rm -rf "$work/tmp" "$work"/state.*
  [ -n "${SUITE_WORK:-}" ] || rm -rf "$work"
}
trap clean EXIT
left_out() { echo "runtime-suites: left out: $*"; }

# ---- fetch and prepare runc's tests
prepare_bats() {
  [ -n "${tests:-}" ] && return
  suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
  without="-e nothing"
  if [ -n "${SUITE_RUNC:-}" ]; then fetch_module; else fetch_package; fi
  if ! prepare_sshfs >"$work/sshfs.log" 2>&1; then
    left_out "mounts_sshfs.bats: needs sshfs and sftp-server"
    without="$without -e sshfs"
  fi
  # Two runs at once must not share their cgroups.
  cgroups=jubako-suites-$(echo "$work" | cksum | cut -d ' ' -f 1)
  # With systemd the same name is in two parts, of a unit's.
  sed -i "s/runc-cgroups-integration-test/$cgroups/g; s/runc-cgroups:integration-test/${cgroups%-*}:${cgroups##*-}/g" "$tests"/*.bash "$tests"/*.bats
  [ -e "$work/busybox.tar" ] || make_images
  [ -e "$work/debian.tar" ] && debian=$work/debian.tar || debian=$work/busybox.tar
  printf '#!/bin/sh\necho BUSYBOX_IMAGE=%s\necho HELLO_IMAGE=%s\necho DEBIAN_IMAGE=%s\n' "$work/busybox.tar" "$work/hello.tar" "$debian" >"$tests/get-images.sh"
  chmod +x "$tests/get-images.sh"
}

make_images() {
  # Images as the tests expect them: no /proc and no /sys in busybox's.
  mkdir -p "$work/busybox/bin" "$work/busybox/etc" "$work/busybox/dev" "$work/busybox/tmp" "$work/busybox/root" "$work/busybox/usr" "$work/busybox/var" "$work/hello"
  cp "$(command -v busybox)" "$work/busybox/bin/busybox"
  for applet in $(busybox --list); do [ "$applet" = busybox ] || ln -sf busybox "$work/busybox/bin/$applet"; done
  chmod 1777 "$work/busybox/tmp"
  printf 'root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$work/busybox/etc/passwd"
  printf 'root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n' >"$work/busybox/etc/group"
  printf '#include <stdio.h>\nint main(void) { puts("Hello"); return 0; }\n' >"$work/hello.c"
  gcc -static -o "$work/hello/hello" "$work/hello.c"
  tar -C "$work/hello" -cf "$work/hello.tar" .
  if has debootstrap && debootstrap --variant=minbase "$suite" "$work/debian" >"$work/debootstrap.log" 2>&1; then
    # What nobody reads is unpacked by each test.
    (cd "$work/debian" && rm -rf proc sys var/cache/apt var/lib/apt usr/share/doc usr/share/man usr/share/locale usr/share/perl* usr/lib/*/perl* usr/lib/*/gconv)
    tar -C "$work/debian" -cf "$work/debian.tar" .
  fi
  tar -C "$work/busybox" -cf "$work/busybox.tar" .
}

# Debian's package: its test programs are the tests' own, but for the one that answers for a terminal.
fetch_package() {
  if ! ls -d "$work"/runc-*/tests/integration >/dev/null 2>&1; then
    echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${SUITE_MIRROR:-http://deb.debian.org/debian} $suite main" >"$work/sources.list"
    apt="apt-get -qq -o Dir::Etc::sourcelist=$work/sources.list -o Dir::Etc::sourceparts=- -o Dir::State::lists=$work/lists"
    (cd "$work" && $apt update && $apt source runc) >"$work/fetch.log" 2>&1 || { tail -5 "$work/fetch.log" >&2; exit 1; }
  fi
  tests=$(echo "$work"/runc-*/tests/integration)
  tools=$(echo "$work"/runc-*/contrib/cmd)
  runc=$(command -v runc || true)
  # A slice needs no file: it is there once it is started.
  printf '#!/bin/sh\nexec systemctl "$3" "$4"\n' >"$tools/sd-helper/sd-helper" && chmod +x "$tools/sd-helper/sd-helper"
  [ -x "$tools/recvtty/recvtty" ] || gcc -Wall -o "$tools/recvtty/recvtty" "$here/test/support/recvtty.c"
  if [ ! -x "$tools/seccompagent/seccompagent" ] && ! build_agent >"$work/agent.log" 2>&1; then
    left_out "seccomp-notify.bats: its agent needs Go and libseccomp-dev: $(tail -1 "$work/agent.log")"
    without="$without -e seccomp-notify"
  fi
}

# A version that Debian does not have: the module has the tests with all of their programs, and is built as runc itself.
fetch_module() {
  has go || { echo "runtime-suites: SUITE_RUNC needs go and libseccomp-dev" >&2; exit 77; }
  version=${SUITE_RUNC#v}
  if [ ! -e "$work/module-runc-$version/built" ]; then
    (
      mkdir -p "$work/module" && cd "$work/module" && { [ -e go.mod ] || go mod init fetch; } &&
        source=$(go mod download -json "github.com/opencontainers/runc@$(echo "$version" | sed 's/^[0-9]/v&/')" | jq -r .Dir) &&
        rm -rf "$work/module-runc-$version" && cp -r "$source" "$work/module-runc-$version" && chmod -R u+w "$work/module-runc-$version" &&
        cd "$work/module-runc-$version" && find tests -name '*.sh' -exec chmod +x {} + && export CGO_ENABLED=1 && mkdir -p tests/cmd/_bin &&
        go build -trimpath -tags "seccomp urfave_cli_no_docs" -ldflags "-X main.gitCommit=module" -o runc . &&
        for program in tests/cmd/*/; do
          case $program in */_bin/) continue ;; esac
          go build -trimpath -tags seccomp -o tests/cmd/_bin "./$program" || exit 1
        done && touch built
    ) >"$work/module.log" 2>&1 || { tail -5 "$work/module.log" >&2; exit 1; }
  fi
  tests=$work/module-runc-$version/tests/integration
  runc=$work/module-runc-$version/runc
}

# The agent's source is in runc's package; what it imports comes by Go's proxy, in the versions that runc names.
build_agent() {
  (
    rm -rf "$work/agent" && mkdir "$work/agent" && cd "$work/agent" && cp "$tools/seccompagent/seccompagent.go" . &&
      go mod init agent &&
      go get github.com/cyphar/filepath-securejoin@v0.2.3 github.com/opencontainers/runtime-spec@v1.0.3-0.20210326190908-1c3f411f0417 \
        github.com/seccomp/libseccomp-golang@v0.10.0 github.com/sirupsen/logrus@v1.8.1 golang.org/x/sys@latest &&
      go build -tags seccomp -o "$tools/seccompagent/seccompagent" .
  )
}

# An sshfs that talks to a server of its own instead of one behind sshd. Programs that are not installed are unpacked here only.
prepare_sshfs() {
  [ -x "$work/sshfs/sshfs" ] && return
  mkdir -p "$work/sshfs/root" && [ -c /dev/fuse ] || return 1
  for package in sshfs:sshfs libfuse3-3:fusermount3 fuse3:fusermount3 openssh-sftp-server:sftp-server; do
    has "${package#*:}" && continue
    (cd "$work/sshfs" && apt-get -qq download "${package%:*}" && dpkg-deb -x "${package%:*}"_*.deb root) || return 1
  done
  server=$(ls /usr/lib/openssh/sftp-server "$work/sshfs/root/usr/lib/openssh/sftp-server" 2>/dev/null | head -1)
  client=$(ls /usr/bin/sshfs "$work/sshfs/root/usr/bin/sshfs" 2>/dev/null | head -1)
  [ -n "$server" ] && [ -n "$client" ] || return 1
  printf '#!/bin/sh\ncd / && exec %s\n' "$server" >"$work/sshfs/ssh"
  printf '#!/bin/sh\nexport LD_LIBRARY_PATH=%s PATH=%s:$PATH\nexec %s -o ssh_command=%s "$@"\n' \
    "$work/sshfs/root/lib/x86_64-linux-gnu:$work/sshfs/root/usr/lib/x86_64-linux-gnu" "$work/sshfs/root/usr/bin:$work/sshfs/root/bin" "$client" "$work/sshfs/ssh" >"$work/sshfs/sshfs"
  chmod +x "$work/sshfs/ssh" "$work/sshfs/sshfs"
}

# ---- fetch and build the validation programs
prepare_validation() {
  [ -e "$work/runtime-tools/bin/built" ] && return
  (
    mkdir -p "$work/module" && cd "$work/module" && { [ -e go.mod ] || go mod init fetch; } &&
      source=$(go mod download -json github.com/opencontainers/runtime-tools@v0.9.0 | jq -r .Dir) &&
      rm -rf "$work/runtime-tools" && cp -r "$source" "$work/runtime-tools" && chmod -R u+w "$work/runtime-tools" && cd "$work/runtime-tools" &&
      rm -rf Godeps vendor && export GOFLAGS=-mod=mod && go mod init github.com/opencontainers/runtime-tools &&
      # Of the time of that version, as its code needs them; it names none itself.
      go get github.com/opencontainers/runtime-spec@v1.0.2 github.com/opencontainers/selinux@v1.10.0 github.com/mrunalp/fileutils@v0.5.0 \
        github.com/hashicorp/go-multierror@v1.0.0 github.com/satori/go.uuid@v1.2.0 github.com/urfave/cli@v1.20.0 github.com/mndrix/tap-go@latest \
        github.com/syndtr/gocapability@latest github.com/xeipuuv/gojsonschema@v1.1.0 github.com/blang/semver@v3.5.1 github.com/sirupsen/logrus@v1.4.0 &&
      go mod tidy && CGO_ENABLED=0 go build -o runtimetest ./cmd/runtimetest && mkdir -p bin &&
      for program in validation/*/; do
        name=$(basename "$program")
        [ "$name" = util ] || go build -o "bin/$name" "./validation/$name" || exit 1
      done && touch bin/built
  ) >"$work/validation.log" 2>&1
}

# ---- what is known of failures: a pattern of their line, and the reason
reasons() {
  cat <<'END'
^[^v]*idmap: idmap mount (idmap flag, implied mapping, userns join)|the host's root here may not mount proc for a user namespace, as with runc
netdev: |this machine's kernel has no dummy devices; in the machine of v2 they are there
userns with network interface|the same
rlimits: |this machine holds CAP_SYS_RESOURCE back from everyone, as with runc
host pidns|this machine's first process takes two seconds to reap, as long as the test waits
should error for a non-empty cgroup|told of in a warning, as runc 1.1 does
r.atime mounts|looks for more mount options than this kernel shows, as with runc
update cgroup cpu limits|cpu.shares become cpu.weight by the curve of newer versions
update cgroup v2 resources via unified|the same
pod cgroup with pod limit|an ordinary user makes no cgroup in hierarchies that were not given to him, as with runc
update rt period|an ordinary user may not write there, as with runc
hugetlb limits|this machine has no hugetlb in v1
run: runc run .execve error|here the caller is told (127 from dockerd), where runc's process says it on the container's stderr
/proc/self/exe clone|the debug log tells of no overlay: the player is a sealed memory file
runc run/create should warn about a non-empty cgroup|refused, as runc does since 1.2
per-device iops|there is no disk in the machine
^[^v]*checkpoint: |CRIU 3.17 cannot read the vdso of this kernel ("criu check" fails); test/vm/checkpoint.test.ts runs it on Debian's kernel
spec validator|clones a repository from github.com and asks for schemas there
etc-shared|what is to be shared with the host is bound before the others, so that mountinfo, which lists by age, has it first
etc-rshared|as /mnt/etc-shared
delete.*not .stopped. MUST|a container that was created can be deleted, as with runc
hooks_stdin|expects a state without a pid, and "created" before the container is
memory kernel|Linux has no limit on kernel memory any more
root propagation|counts a missing CAP_SYS_RESOURCE, which this machine holds back; the propagation is as asked
process_capabilities_fail|expects an unknown capability to be refused; a runtime may meet names that are newer than its kernel
linux_cgroups_.*blkio|writes a weight that this kernel has no file for
ro /sys/fs/cgroup|the hybrid machine's own mounts of cgroups are bound with the rest of /sys, as with runc
pidfile|kills a container whose program, true, has ended by then
MUST NOT generate an error if they encounter an unknown annotation|its bundle has no /runtimetest to run
start.*exit status|expects an error where the program cannot be run only at start; it is looked for at creation, as runc does
CAP_SYS_RESOURCE|this machine holds the capability back from everyone
RLIMIT_NOFILE|runtimetest itself raises the limit (Go's runtime)
linux_cgroups_.*network|this machine has no net_cls and net_prio
linux_cgroups_.*hugetlb|this machine has no hugetlb in v1
linux_mount_label|this machine has no SELinux
linux_process_apparmor_profile|this machine has no AppArmor
END
}
explain_failure() {
  reasons | while IFS='|' read -r pattern reason; do
    if echo "$1" | grep -q -e "$pattern"; then echo "      ($reason)"; break; fi
  done
}

# ---- run, in a terminal, as runc run and exec expect one
write_runner() {
  # Where nothing is typed and nothing ends: the end of its input is a character to a terminal, which would be passed on and echoed.
  [ -p "$work/typed" ] || mkfifo "$work/typed"
  exec 3<>"$work/typed"
  cat >"$work/run" <<'END'
#!/bin/sh
cd "$1"
for file in $3; do
  ended=
  timeout --foreground -k 5 400 bats -t "$file" >"$2.part" 2>&1 || ended=$?
  name=$(basename "$file" .bats)
  sed "s|^\(not \)\?ok [0-9]* |&$name: |" "$2.part"
  # What a file that was ended left running would hold its terminal and its cgroups.
  if [ "$ended" = 124 ]; then
    echo "not ok 0 $name: was ended after 400 s"
    for running in $(grep -lz "^BATS_RUN_TMPDIR=$TMPDIR/" /proc/[0-9]*/environ 2>/dev/null | cut -d / -f 3); do kill -9 "$running"; done 2>/dev/null
  fi
done >"$2" 2>&1
END
  chmod +x "$work/run"
}

run_bats() {
  out=$work/out.bats.$(basename "$1")
  files=${SUITE_FILES:-$(cd "$tests" && ls ./*.bats | grep -v $without)}
  PATH=$work/sshfs:$PATH RUNC=$1 TMPDIR=$work/tmp script -qec "$work/run '$tests' '$out' '$(echo $files)'" /dev/null <&3 >/dev/null || true
  report "$1" bats "$out"
}

# As root, in a mount namespace: a user, with `idmap` sub-ids and with `cgroup` cgroups of his own, then the tests.
as_user() {
  uid=54324
  for file in passwd group subuid subgid; do cp "/etc/$file" "$work/user/$file" 2>/dev/null || : >"$work/user/$file"; done
  echo "rootless:x:$uid:$uid::$work/user/home:/bin/sh" >>"$work/user/passwd"
  echo "rootless:x:$uid:" >>"$work/user/group"
  echo "rootless:100000:65536" >>"$work/user/subuid"
  echo "rootless:200000:65536" >>"$work/user/subgid"
  for file in passwd group subuid subgid; do touch "/etc/$file" && mount --bind "$work/user/$file" "/etc/$file"; done
  chown $uid:$uid "$work/user/tmp" "$work/user/run" "$work/user/home"
  export AUX_UID=1024 AUX_DIR="$work/user/aux"
  chown $((100000 - 1000 + AUX_UID)) "$AUX_DIR"
  case $2 in *cgroup*)
    for cgroup in /sys/fs/cgroup/*/"$cgroups"; do
      for file in "$cgroup" "$cgroup/cgroup.procs" "$cgroup/tasks" "$cgroup/cpuset.cpus" "$cgroup/cpuset.mems"; do
        [ ! -e "$file" ] || { chown root:$uid "$file" && chmod g+rwX "$file"; }
      done
    done ;;
  esac
  case $2 in *idmap*) export ROOTLESS_UIDMAP_START=100000 ROOTLESS_UIDMAP_LENGTH=65536 ROOTLESS_GIDMAP_START=200000 ROOTLESS_GIDMAP_LENGTH=65536 ;; esac
  export ROOTLESS_FEATURES="$2" HOME="$work/user/home" XDG_RUNTIME_DIR="$work/user/run" TMPDIR="$work/user/tmp" RUNC="$1"
  exec setpriv --reuid=$uid --regid=$uid --clear-groups script -qec "$work/run '$tests' '$work/user/tmp/out' '$3'" /dev/null <&3 >/dev/null
}

run_rootless() {
  files=${SUITE_FILES:-$(cd "$tests" && ls ./*.bats | grep -v $without)}
  chmod 755 "$work"
  for features in "" idmap+cgroup; do
    rm -rf "$work/user" && mkdir -p "$work/user/tmp" "$work/user/run" "$work/user/home" "$work/user/aux"
    case $features in *cgroup*) for cgroup in /sys/fs/cgroup/*/cgroup.procs; do mkdir -p "${cgroup%/*}/$cgroups"; done ;; esac
    export work tests cgroups
    unshare -m --propagation private sh -c "$(sed -n '/^as_user() {/,/^}/p' "$here/test/runtime-suites.sh")
as_user \"\$@\"" sh "$1" "$features" "$(echo $files)" || true
    out=$work/out.rootless.$(basename "$1")${features:+.$features}
    cp "$work/user/tmp/out" "$out"
    find /sys/fs/cgroup/*/"$cgroups" -depth -type d -exec rmdir {} \; 2>/dev/null || true
    report "$1" "rootless${features:+ $features}" "$out"
  done
}

run_checkpoint() {
  out=$work/out.checkpoint.$(basename "$1")
  in_machine "$1" checkpoint "$out" checkpoint.bats
}

# In a virtual machine with Linux 6.1: Debian's CRIU knows that, and there is one hierarchy of cgroups, v2, with all controllers.
in_machine() {
  [ -x node_modules/.bin/bun ] || { left_out "$2: npm ci has not run"; return; }
  node_modules/.bin/bun test/vm/bats.ts "$1" "$(dirname "$(dirname "$tests")")" "$work" $4 >"$work/tmp.machine" 2>&1 || true
  awk '/^== /{ name = $2 } /^(not )?ok [0-9]/{ sub(/ok [0-9]+ /, "&vm " name ": ") } { print }' "$work/tmp.machine" >"$3"
  if grep -aq '^1\.\.' "$3"; then report "$1" "$2" "$3"; else left_out "$2: $(tail -1 "$3")"; fi
}

# What has to do with cgroups and with what this machine holds back (network devices, limits), and a container's life.
run_v2() {
  files=${SUITE_FILES:-cgroups.bats cgroup_delegation.bats update.bats events.bats pause.bats delete.bats kill.bats create.bats start.bats exec.bats run.bats dev.bats netdev.bats rlimits.bats timens.bats userns.bats}
  present=$(cd "$tests" && ls $files 2>/dev/null || true)
  BATS_SYSTEMD=${2:-} BATS_MINUTES=${SUITE_MINUTES:-45} in_machine "$1" "${3:-v2}" "$work/out.${3:-v2}.$(basename "$1")" "$(echo $present)"
}

# The same where cgroups are systemd's units.
run_systemd() { run_v2 "$1" 1 systemd; }

run_validation() {
  out=$work/out.validation.$(basename "$1")
  wrapper=$work/wrapper.$(basename "$1")
  state=$work/state.$(basename "$1")
  printf '#!/bin/sh\nexec %s --root %s "$@"\n' "$1" "$state" >"$wrapper"
  chmod +x "$wrapper"
  : >"$out"
  for program in ${SUITE_PROGRAMS:-$(cd "$work/runtime-tools/bin" && ls | grep -v '^built$')}; do
    status=0
    (cd "$work/runtime-tools" && RUNTIME=$wrapper TMPDIR=$work/tmp timeout -k 5 120 "bin/$program") >"$work/tmp/tap" 2>"$work/tmp/errors" || status=$?
    grep -E '^(not )?ok' "$work/tmp/tap" | sed "s|^\(not \)\?ok [0-9]* |&$program: |" >>"$out" || true
    # A program that gives up says nothing in TAP.
    [ $status = 0 ] || echo "not ok 0 $program: ended with $status: $(tail -1 "$work/tmp/errors")" >>"$out"
  done
  for id in $("$wrapper" list -q 2>/dev/null); do "$wrapper" delete --force "$id" >/dev/null 2>&1 || true; done
  report "$1" validation "$out"
}

report() {
  skipped=$(grep -aci '^ok .*# skip' "$3" || true)
  echo "$1, $2: $(($(grep -ac '^ok' "$3") - skipped)) passed, $(grep -ac '^not ok' "$3" || true) failed, $skipped skipped"
  grep -a '^not ok' "$3" | sed 's/^not ok [0-9]* *-* */   /' | while IFS= read -r line; do
    echo "   $line"
    explain_failure "$line"
  done
  [ -z "${SUITE_OUTPUT:-}" ] || cp "$3" "$SUITE_OUTPUT.$2.$(basename "$1")"
}

for suite_name in $suites; do
  case $suite_name in
    rootless)
      for program in bats gawk setpriv unshare newuidmap; do has $program || { left_out "rootless: $program is not installed"; continue 2; }; done
      prepare_bats
      write_runner
      ;;
    bats | checkpoint | v2 | systemd)
      for program in bats gawk; do has $program || { left_out "$suite_name: $program is not installed"; continue 2; }; done
      prepare_bats
      write_runner
      ;;
    validation) if ! has go || ! prepare_validation; then left_out "validation: not built: $(tail -1 "$work/validation.log" 2>/dev/null)"; continue; fi ;;
    *) echo "runtime-suites: no suite $suite_name" >&2; exit 2 ;;
  esac
  if [ $# -gt 0 ]; then runtimes=$*; else runtimes="$here/dist/bin/jubako-runtime ${runc-$(command -v runc || true)}"; fi
  for runtime in $runtimes; do
    case $runtime in /*) ;; *) runtime=$(command -v "$runtime") ;; esac
    "run_$suite_name" "$runtime"
  done
done
