// Checkpoints through the layers, in a virtual machine (see checkpoint.test.ts): the command line, the engine, the manager and the shim.
// One boot, one script; the tests read what it said.
import { beforeAll, describe, expect, test } from "bun:test";
import { busyboxTar } from "../support/engine.ts";
import { BOOT_MS, boot, machineLacks, type Outcome, readers } from "./boot.ts";
import { CRIU_MODULES, criuFiles, criuLacks } from "./checkpoint-files.ts";

describe.skipIf(criuLacks() || machineLacks())("checkpoints through the layers", () => {
  let outcome: Outcome;
  const { said, fields } = readers(() => outcome);

  beforeAll(async () => {
    const files = { "busybox.tar": { data: busyboxTar() }, ...criuFiles() };
    outcome = await boot({ files, modules: CRIU_MODULES, script });
  }, BOOT_MS + 10_000);

  test("ends well", () => {
    expect({ status: outcome.status, output: outcome.output }).toMatchObject({ status: 0 });
  });

  test("checkpoint create ends the container or leaves it running; ls and rm", () => {
    expect(fields("create")).toEqual({
      experimental: "true",
      left: "left running",
      ended: "cp exited 137",
      again: expect.stringMatching(/checkpoint with name left already exists for container c1$/),
      list: "CHECKPOINT NAME cp left ",
      removed: "CHECKPOINT NAME cp ",
      elsewhere: "CHECKPOINT NAME one ",
      event: "3",
    });
  });

  test("start --checkpoint goes on: counter, output, address, exit status", () => {
    expect(fields("start")).toEqual({ status: "0", state: "running", counts: "yes", logs: "yes", address: "1", exec: "0", ended: "7" });
  });

  test("a restored container outlives its shim, whose successor hears of the end", () => {
    expect(fields("shim")).toEqual({ counts: "yes", ended: "7" });
  });

  test("a terminal goes on", () => {
    expect(fields("terminal")).toEqual({ output: "yes", ended: "7" });
  });

  test("what cannot be is refused, and leaves nothing", () => {
    expect(fields("refused")).toEqual({
      missing: expect.stringMatching(/checkpoint none does not exist for container \/c1$/),
      stopped: expect.stringMatching(/container \w+ is not running$/),
      name: expect.stringMatching(/Invalid checkpoint ID \(a\/b\)/),
      broken: expect.stringMatching(/OCI runtime restore failed: .*descriptors.json/),
      images: expect.stringMatching(/OCI runtime restore failed: criu failed/),
      state: "exited",
      anew: "yes",
    });
  });

  test("nothing is left", () => {
    expect(said("left")).toBe("");
  });
});

const script = `
set -u
ln -s /run /var/run; mkdir -p /var/lib/jubako /etc /tmp/d; echo 127.0.0.1 localhost >/etc/hosts; : >/etc/resolv.conf
export DOCKER_HOST=unix:///run/vm.sock
jubakod --experimental --data-root /var/lib/jubako --exec-root /run/engine --pidfile /run/engine.pid -H $DOCKER_HOST >/run/log 2>&1 &
engine=$!
for i in $(seq 300); do jubako version >/dev/null 2>&1 && break; sleep 0.2; done
jubako load -q -i /busybox.tar >/dev/null || { cat /run/log; exit 1; }
cat > /tmp/d/count <<'END'
cd /data; n=0
while :; do n=$((n+1)); echo $n >n; echo tick $n; [ -e stop ] && { rm stop; exit 7; }; sleep 0.1; done
END
cli() { jubako "$@"; }
begun() { for i in $(seq 50); do [ -s /tmp/d/n ] && return; sleep 0.1; done; }
run() { cli run -d -v /tmp/d:/data "$@" sh /data/count >/dev/null; begun; }
counts() { a=$(cat /tmp/d/n); for i in $(seq 30); do [ "$(cat /tmp/d/n)" -gt "$a" ] 2>/dev/null && { echo yes; return; }; sleep 0.1; done; echo no; }
ends() { touch /tmp/d/stop; cli wait $1; rm -f /tmp/d/n; }
state() { cli inspect -f '{{.State.Status}}' $1; }
line() { tr '\\n' ' '; }

echo "== create"
echo "experimental=$(cli info -f '{{.ExperimentalBuild}}')"
run --name c1 busybox
echo "left=$(cli checkpoint create --leave-running c1 left) $(state c1)"
echo "elsewhere=$(cli checkpoint create --leave-running --checkpoint-dir /tmp/cps c1 one >/dev/null; cli checkpoint ls --checkpoint-dir /tmp/cps c1 | line)"
echo "again=$(cli checkpoint create c1 left 2>&1)"
echo "ended=$(cli checkpoint create c1 cp) $(cli wait c1 >/dev/null; cli inspect -f '{{.State.Status}} {{.State.ExitCode}}' c1)"
echo "list=$(cli checkpoint ls c1 | line)"
cli checkpoint rm c1 left
echo "removed=$(cli checkpoint list c1 | line)"
echo "event=$(cli events --since 10m --until 0s --filter event=checkpoint --format '{{.Action}}' | wc -l)"

echo "== start"
before=$(cat /tmp/d/n)
cli start --checkpoint cp c1; echo "status=$?"
echo "state=$(state c1)"
echo "counts=$(counts)"
last=$(cli logs c1 | tail -1); echo "logs=$([ "\${last#tick }" -gt "$before" ] && echo yes)"
echo "address=$(cli exec c1 ip -o -4 addr show eth0 | grep -c "$(cli inspect -f '{{.NetworkSettings.IPAddress}}' c1)")"
cli exec c1 true; echo "exec=$?"
echo "ended=$(ends c1)"

echo "== shim"
cli start --checkpoint one --checkpoint-dir /tmp/cps c1
kill -9 $(ps -o pid,args | grep '[c]ontainerd-shim-jubako-v1 -namespace moby' | awk '{print $1}'); sleep 1
echo "counts=$(counts)"
echo "ended=$(ends c1)"

echo "== terminal"
run --name t1 -t busybox
cli checkpoint create t1 cp >/dev/null; cli wait t1 >/dev/null
before=$(cat /tmp/d/n)
cli start --checkpoint cp t1
echo "output=$(for i in $(seq 50); do last=$(cli logs t1 | tail -1 | tr -d '\\r'); [ "\${last#tick }" -gt "$((before+3))" ] && { echo yes; break; }; sleep 0.1; done)"
echo "ended=$(ends t1)"

echo "== refused"
echo "missing=$(cli start --checkpoint none c1 2>&1)"
echo "stopped=$(cli checkpoint create c1 x 2>&1)"
run --name u1 busybox
echo "name=$(cli checkpoint create --leave-running u1 a/b 2>&1)"
ends u1 >/dev/null
mkdir -p /tmp/cps/broken /tmp/cps/images; echo '["","",""]' >/tmp/cps/images/descriptors.json
echo "broken=$(cli start --checkpoint broken --checkpoint-dir /tmp/cps c1 2>&1 | line)"
echo "images=$(cli start --checkpoint images --checkpoint-dir /tmp/cps c1 2>&1 | line)"
echo "state=$(state c1)"
cli start c1 >/dev/null; echo "anew=$(counts)"; ends c1 >/dev/null

cli rm -f c1 t1 u1 >/dev/null
kill $engine; wait $engine

echo "== left"
ls /var/lib/jubako/containerd/checkpoints 2>/dev/null
find /sys/fs/cgroup/jubako /sys/fs/cgroup/moby -mindepth 1 -type d 2>/dev/null; pidof sleep criu jubako-keeper; grep -e overlay -e /tmp/d /proc/mounts
echo "== log"; cat /run/log
exit 0
`;
