// The whole engine on cgroup v2, and on a kernel before 6.8, in a machine of its own: jubakod and our CLI in one script. The tests read what it said.
import { beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root, sh } from "../support/engine.ts";
import { BOOT_MS, boot, machineLacks, type Outcome, readers } from "./boot.ts";

describe.skipIf(machineLacks())("cgroup v2: the engine", () => {
  let outcome: Outcome;
  const { said, fields } = readers(() => outcome);

  beforeAll(async () => {
    const dir = mkdtempSync(join(tmpdir(), "jubako-vm-image-"));
    try {
      const archive = join(dir, "busybox.tar");
      const made = sh(`${process.execPath} ${root}scripts/seed-busybox.ts >${archive}`);
      if (made.status !== 0) throw new Error(made.stderr);
      outcome = await boot({
        files: { "busybox.tar": { from: archive } },
        modules: ["dummy", "macvlan", "ipvlan", "8021q"],
        script: engineScript,
      });
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  }, BOOT_MS + 10_000);

  test("ends well", () => {
    expect({ status: outcome.status, output: outcome.output }).toMatchObject({ status: 0 });
  });

  test("info tells version and driver", () => {
    expect(said("info")).toBe("2 cgroupfs");
  });

  test("limits of run are in the kernel's files", () => {
    expect(fields("limits")).toEqual({
      "memory.max": String(64 << 20),
      "memory.swap.max": String(64 << 20),
      "memory.low": String(32 << 20),
      "cpu.weight": "59",
      "cpu.max": "50000 100000",
      "cpuset.cpus": "0",
      "pids.max": "50",
    });
  });

  test("a container sees its own cgroup, with --cgroupns host the machine's", () => {
    expect(fields("views")).toEqual({ mode: "private", private: "0::/", "memory.max": String(64 << 20), host: "yes yes" });
  });

  test("--privileged may make cgroups below its own", () => {
    expect(said("privileged")).toBe("0::/init");
  });

  test("stats reads v2's numbers", () => {
    const { MemUsage, PIDs, CPUPerc } = JSON.parse(said("stats"));
    expect(MemUsage).toMatch(/^[\d.]+[KM]iB \/ 64MiB$/);
    expect(PIDs).toBe("1");
    expect(CPUPerc).toMatch(/^[\d.]+%$/);
  });

  test("update, pause and unpause of a running container", () => {
    expect(fields("update")).toEqual({
      "memory.max": String(48 << 20),
      "memory.swap.max": "0",
      "pids.max": "30",
      "cpu.max": "20000 100000",
    });
    expect(fields("pause")).toEqual({ paused: "paused 1", running: "running 0" });
  });

  test("out of memory: 137, OOMKilled, an event", () => {
    expect(fields("oom")).toEqual({ status: "137", state: "137 true", event: "1", innocent: "0 false" });
  });

  test("--pids-limit stops a fork", () => {
    expect(said("forks")).toContain("can't fork");
  });

  test("devices: what is not given is refused, --device and its permissions hold", () => {
    expect(fields("devices")).toEqual({ unknown: "Operation not permitted", read: "0", write: "Operation not permitted", rule: "0" });
  });

  test("the default network carries packets", () => {
    expect(said("network")).toContain("1 packets received");
  });

  test("macvlan and ipvlan: on a link, on one of the network's own, on a VLAN; ipvlan on layer 3", () => {
    const neighbours = "default via 10.77.0.1 dev eth0,1 packets received,";
    expect(fields("parents")).toEqual({
      macvlan: neighbours,
      ipvlan: neighbours,
      "own macvlan": "1 packets received,",
      "own ipvlan": "1 packets received,",
      l3: "default dev eth0 scope link",
      vlan: "par0.42@par0 10.80.0.2/24",
      left: "lo dummy0 jubako0 par0",
    });
  });

  test("nothing is left after rm and a graceful end", () => {
    expect(said("left")).toBe("");
  });
});

const engineScript = `
set -u
ln -s /run /var/run; mkdir -p /var/lib/jubako /etc; echo 127.0.0.1 localhost >/etc/hosts; : >/etc/resolv.conf
export DOCKER_HOST=unix:///run/vm.sock
jubakod --data-root /var/lib/jubako --exec-root /run/engine --pidfile /run/engine.pid -H $DOCKER_HOST >/run/log 2>&1 &
engine=$!
for i in $(seq 300); do jubako version >/dev/null 2>&1 && break; sleep 0.2; done
jubako load -q -i /busybox.tar >/dev/null || { cat /run/log; exit 1; }
G=/sys/fs/cgroup/jubako
cli() { jubako "$@"; }
show() { for f in "$@"; do echo "$f=$(cat $G/$id/$f)"; done; }
why() { sed 's/.*: //'; }

echo "== info"; cli info -f '{{.CgroupVersion}} {{.CgroupDriver}}'
id=$(cli run -d --name limits -m 64m --memory-swap 128m --memory-reservation 32m --cpus 0.5 --cpu-shares 512 --cpuset-cpus 0 --pids-limit 50 busybox sleep 1000)
echo "== limits"; show memory.max memory.swap.max memory.low cpu.weight cpu.max cpuset.cpus pids.max
echo "== views"
echo "mode=$(cli inspect -f '{{.HostConfig.CgroupnsMode}}' limits)"
cli exec limits sh -c 'echo "private=$(cat /proc/self/cgroup)"; echo "memory.max=$(cat /sys/fs/cgroup/memory.max)"'
echo "host=$(cli run --rm --cgroupns host busybox sh -c 'own=$(cut -d: -f3 /proc/self/cgroup); case $own in /jubako/*) echo yes;; esac; [ -e /sys/fs/cgroup$own/pids.max ] && echo yes' | tr '\\n' ' ' | sed 's/ $//')"
echo "== privileged"
cli run --rm --privileged busybox sh -c 'cd /sys/fs/cgroup; mkdir init; echo 1 >init/cgroup.procs; echo +memory >cgroup.subtree_control; cat /proc/self/cgroup'
echo "== stats"; cli stats --no-stream --format '{{json .}}' limits
cli update -m 48m --memory-swap 48m --pids-limit 30 --cpus 0.2 limits >/dev/null
echo "== update"; show memory.max memory.swap.max pids.max cpu.max
echo "== pause"
cli pause limits >/dev/null; echo "paused=$(cli inspect -f '{{.State.Status}}' limits) $(cat $G/$id/cgroup.freeze)"
cli unpause limits >/dev/null; echo "running=$(cli inspect -f '{{.State.Status}}' limits) $(cat $G/$id/cgroup.freeze)"
echo "== oom"
cli run --name oom -m 16m --memory-swap 16m busybox tail /dev/zero; echo "status=$?"
echo "state=$(cli inspect -f '{{.State.ExitCode}} {{.State.OOMKilled}}' oom)"
echo "event=$(cli events --since 10m --until 0s --filter event=oom --format '{{.Action}}' | wc -l)"
cli run --name innocent -m 16m busybox true; echo "innocent=$(cli inspect -f '{{.State.ExitCode}} {{.State.OOMKilled}}' innocent)"
echo "== forks"; cli run --rm --pids-limit 3 busybox sh -c 'for i in 1 2 3 4 5 6; do sleep 1 & done; wait' 2>&1
echo "== devices"
cli run --rm --cap-add SYSLOG --device /dev/kmsg:/dev/kmsg:r --device-cgroup-rule 'c 7:0 r' busybox sh -c '
mknod /dev/screen c 7 0; mknod /dev/screen1 c 7 1
echo "unknown=$( (: </dev/screen1) 2>&1 | sed "s/.*: //")"
(: </dev/kmsg); echo "read=$?"
echo "write=$( (: >/dev/kmsg) 2>&1 | sed "s/.*: //")"
e=$( (: </dev/screen) 2>&1); case "$e" in *permitted*) echo "rule=1";; *) echo "rule=0";; esac'
echo "== network"; cli run --rm busybox sh -c 'ping -c 1 $(ip route | sed -n "s/default via \\([^ ]*\\).*/\\1/p")'
echo "== parents"
ip link add par0 type dummy; ip link set par0 up
# What a container on the network sees: its default route, and another one by its name.
on() {
  cli run -d --name other --network $1 busybox sleep 1000 >/dev/null
  cli run --rm --network $1 busybox sh -c 'ip route | grep default | sed "s/ *$//"; ping -c 1 other | grep -o "1 packets received"' | tr '\\n' ,
  cli rm -f other >/dev/null; cli network rm $1 >/dev/null
}
for kind in macvlan ipvlan; do
  cli network create -d $kind --subnet 10.77.0.0/24 -o parent=par0 lan >/dev/null; echo "$kind=$(on lan)"
  cli network create -d $kind --subnet 10.79.0.0/24 alone >/dev/null; echo "own $kind=$(on alone)"
done
cli network create -d ipvlan --subnet 10.78.0.0/24 -o parent=par0 -o ipvlan_mode=l3 routed >/dev/null
echo "l3=$(cli run --rm --network routed busybox ip route | grep default | sed 's/ *$//')"; cli network rm routed >/dev/null
cli network create -d macvlan --subnet 10.80.0.0/24 -o parent=par0.42 tagged >/dev/null
echo "vlan=$(ip -o link show par0.42 | cut -d' ' -f2 | tr -d :) $(cli run --rm --network tagged busybox ip -o -4 addr show eth0 | sed 's/.*inet \\([^ ]*\\).*/\\1/')"
cli network rm tagged >/dev/null; sleep 0.5
echo "left=$(ip -o link | cut -d: -f2 | grep -v veth | tr -d ' ' | tr '\\n' ' ' | sed 's/ $//')"
cli rm -f limits oom innocent >/dev/null
kill $engine; wait $engine
echo "== left"; find $G -mindepth 1 -type d; pidof sleep jubakod jubako-keeper; grep overlay /proc/mounts
echo "== log"; cat /run/log
exit 0
`;
