// AppArmor, in a virtual machine: this machine's kernel may have none. The runtime writes profiles, the engine loads the default one and reports it. One boot,
// one script; the tests read what it said.
import { beforeAll, describe, expect, test } from "bun:test";
import { busyboxTar, lacks } from "../support/engine.ts";
import { BOOT_MS, boot, machineLacks, type Outcome, readers } from "./boot.ts";
import { programFiles } from "./checkpoint-files.ts";

describe.skipIf(lacks("apparmor_parser") || machineLacks())("AppArmor", () => {
  let outcome: Outcome;
  const { fields } = readers(() => outcome);

  beforeAll(async () => {
    outcome = await boot({ files: { "busybox.tar": { data: busyboxTar() }, ...programFiles("apparmor_parser") }, script });
  }, BOOT_MS + 10_000);

  test("ends well", () => {
    expect({ status: outcome.status, output: outcome.output }).toMatchObject({ status: 0 });
  });

  test("the runtime's process runs under the profile that config.json names, and what that denies is denied", () => {
    expect(fields("runtime")).toEqual({
      enabled: "true",
      profile: "jubako-vm (enforce)",
      denied: "Permission denied",
      exec: "jubako-vm (enforce)",
      "exec denied": "Permission denied",
      "exec other": "jubako-other (enforce)",
      unconfined: "unconfined",
      unknown: expect.stringContaining("set the security label of the program: ENOENT"),
      left: "",
    });
  });

  test("the engine says that it has it, and loads docker-default for containers that ask for nothing", () => {
    expect(fields("default")).toEqual({
      info: "yes",
      before: "docker-default?",
      profile: "docker-default (enforce)",
      exec: "docker-default (enforce)",
      inspect: "docker-default",
      mount: "Permission denied",
      proc: "Permission denied",
      "own proc": "0",
      signals: "0",
      again: "docker-default (enforce)",
    });
  });

  test("--security-opt apparmor= and --privileged", () => {
    expect(fields("options")).toEqual({
      created: "jubako-vm",
      profile: "jubako-vm (enforce)",
      denied: "Permission denied",
      inspect: "jubako-vm",
      unconfined: "unconfined",
      mount: "0",
      privileged: "unconfined",
      "privileged inspect": "unconfined",
      unknown: expect.stringContaining("set the security label of the program: ENOENT"),
    });
  });

  test("without apparmor_parser containers run, and the engine says that they have no profile", () => {
    expect(fields("no parser")).toEqual({
      profile: "unconfined",
      inspect: "",
      asked: expect.stringContaining("needs the program apparmor_parser"),
      log: "1",
    });
  });
});

const script = `
set -u
ln -s /run /var/run; mkdir -p /var/lib/jubako /etc /tmp/d; echo 127.0.0.1 localhost >/etc/hosts; : >/etc/resolv.conf
mount -t securityfs securityfs /sys/kernel/security
for name in vm other; do apparmor_parser -K -r <<END
profile jubako-$name flags=(attach_disconnected) {
  file,
  capability,
  network,
  signal,
  deny /denied r,
}
END
done
echo "== runtime"
B=/tmp/bundle; mkdir -p $B/rootfs/bin; cp /bin/busybox $B/rootfs/bin/; for name in sh cat sleep; do ln -s busybox $B/rootfs/bin/$name; done
echo secret >$B/rootfs/denied
cd $B; jubako-runtime spec
sed -i 's/"terminal": true/"terminal": false/; s|"cwd": "/",|"cwd": "/", "apparmorProfile": "jubako-vm",|' config.json
why() { sed 's/.*: //' | tail -1; }
rt() { sed "s|\\"sh\\"\\$|$1|" config.json >with.json; mkdir -p /tmp/w; sed 's|"path": "rootfs"|"path": "/tmp/bundle/rootfs"|' with.json >/tmp/w/config.json; shift; jubako-runtime run -b /tmp/w "$@" </dev/null; }
echo "enabled=$(jubako-runtime features | tr -d ' \\n' | grep -o '"apparmor":{"enabled":[a-z]*' | sed 's/.*://')"
echo "profile=$(rt '"cat", "/proc/self/attr/current"' one 2>&1)"
echo "denied=$(rt '"cat", "/denied"' one 2>&1 | why)"
rt '"sleep", "1000"' -d two >/dev/null 2>&1
echo "exec=$(jubako-runtime exec two cat /proc/self/attr/current 2>&1)"
echo "exec denied=$(jubako-runtime exec two cat /denied 2>&1 | why)"
echo "exec other=$(jubako-runtime exec --apparmor jubako-other two cat /proc/self/attr/current 2>&1)"
jubako-runtime delete --force two
sed -i 's/jubako-vm/unconfined/' config.json; echo "unconfined=$(rt '"cat", "/proc/self/attr/current"' one 2>&1)"
sed -i 's/"unconfined"/"no-such-profile"/' config.json; echo "unknown=$(rt '"cat", "/proc/self/attr/current"' one 2>&1 | tail -1)"
echo "left=$(jubako-runtime list -q)"

cd /
export DOCKER_HOST=unix:///run/vm.sock
begin() {
  jubakod --data-root /var/lib/jubako --exec-root /run/engine --pidfile /run/engine.pid -H $DOCKER_HOST >/run/log 2>&1 & engine=$!
  for i in $(seq 300); do jubako version >/dev/null 2>&1 && break; sleep 0.2; done
}
begin
jubako load -q -i /busybox.tar >/dev/null || { cat /run/log; exit 1; }
cli() { jubako "$@"; }
profiles=/sys/kernel/security/apparmor/profiles
current() { cli run --rm "$@" busybox cat /proc/self/attr/current 2>&1; }

echo "== default"
echo "info=$(cli info -f '{{.SecurityOptions}}' | grep -q name=apparmor && echo yes)"
echo "before=docker-default$(grep -c docker-default $profiles | tr 0 '?')"
echo "profile=$(current)"
cli run -d --name one busybox sleep 1000 >/dev/null
echo "exec=$(cli exec one cat /proc/self/attr/current)"
echo "inspect=$(cli inspect -f '{{.AppArmorProfile}}' one)"
echo "mount=$(cli run --rm --cap-add SYS_ADMIN --security-opt seccomp=unconfined busybox mount -t tmpfs none /dev/shm 2>&1 | why | sed 's/permission denied/Permission denied/')"
echo "proc=$(cli run --rm --cap-add SYS_ADMIN --security-opt systempaths=unconfined busybox sh -c 'echo 1 >/proc/sys/vm/drop_caches' 2>&1 | why)"
cli run --rm busybox sh -c 'echo 10 >/proc/self/oom_score_adj; echo x >/proc/self/comm'; echo "own proc=$?"
cli run --rm --init busybox sh -c 'sleep 100 & kill $!; wait $!; [ $? = 143 ]' 2>/dev/null; echo "signals=$?"
echo -n docker-default >/sys/kernel/security/apparmor/.remove
echo "again=$(current)"

echo "== options"
echo secret >/tmp/d/denied
echo "created=$(cli create --name two -v /tmp/d/denied:/denied --security-opt apparmor=jubako-vm busybox sh -c 'cat /proc/self/attr/current; cat /denied' >/dev/null; cli inspect -f '{{.AppArmorProfile}}' two)"
cli start -a two >/tmp/two 2>&1
echo "profile=$(head -1 /tmp/two)"
echo "denied=$(why </tmp/two)"
echo "inspect=$(cli inspect -f '{{.AppArmorProfile}}' two)"
echo "unconfined=$(current --security-opt apparmor=unconfined)"
cli run --rm --cap-add SYS_ADMIN --security-opt apparmor=unconfined busybox mount -t tmpfs none /dev/shm; echo "mount=$?"
echo "privileged=$(current --privileged)"
cli run --name three --privileged busybox true; echo "privileged inspect=$(cli inspect -f '{{.AppArmorProfile}}' three)"
echo "unknown=$(current --security-opt apparmor=no-such-profile | tr '\\n' ' ')"
cli rm -f one two three >/dev/null

kill $engine; wait $engine
mv /bin/apparmor_parser /; begin
echo "== no parser"
echo -n docker-default >/sys/kernel/security/apparmor/.remove
echo "profile=$(current)"
cli run --name four busybox true; echo "inspect=$(cli inspect -f '{{.AppArmorProfile}}' four)"
echo "asked=$(current --security-opt apparmor=docker-default | tr '\\n' ' ')"
echo "log=$(grep -c 'containers run without a profile' /run/log)"
cli rm -f four >/dev/null
kill $engine; wait $engine
echo "== log"; cat /run/log
exit 0
`;
