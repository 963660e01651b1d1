// cgroup v2 by a kernel that has it: first the runtime by itself, limits read back from the kernel's files; then the whole engine. Each is one boot
// with one script; the tests read what it said.
import { beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root, sh } from "../support/engine.ts";
import { boot, machineLacks, type Outcome } from "./boot.ts";
import type { Entry } from "./initramfs.ts";

const BOOT_MS = 140_000;

interface Bundle {
  args: string[];
  resources?: object;
  namespaces?: string[];
  cgroupsPath?: string;
}

/** A bundle's config.json on the machine's own busybox, with every capability that a device node needs. */
function bundle({ args, resources = {}, namespaces = ["pid", "mount", "ipc", "uts", "cgroup"], cgroupsPath }: Bundle): Entry {
  const capabilities = ["CAP_MKNOD", "CAP_KILL", "CAP_SYS_ADMIN"];
  return {
    data: JSON.stringify({
      ociVersion: "1.2.0",
      process: {
        user: { uid: 0, gid: 0 },
        args,
        env: ["PATH=/bin"],
        cwd: "/",
        capabilities: { bounding: capabilities, effective: capabilities, permitted: capabilities },
      },
      root: { path: "/rootfs" },
      mounts: [
        { destination: "/proc", type: "proc", source: "proc" },
        { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["mode=755"] },
        { destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup", options: ["nosuid", "noexec", "nodev", "relatime", "ro"] },
      ],
      linux: { namespaces: namespaces.map((type) => ({ type })), resources, ...(cgroupsPath ? { cgroupsPath } : {}) },
    }),
  };
}

/** What the script said under a name, as it is or as lines of "key=value". */
function readers(outcome: () => Outcome) {
  const said = (name: string): string => {
    const text = outcome().sections[name];
    if (text === undefined) throw new Error(`the machine did not come to "${name}":\n${outcome().output}`);
    return text;
  };
  const fields = (name: string): Record<string, string> =>
    Object.fromEntries(
      said(name)
        .split("\n")
        .map((line) => [line.split("=", 1)[0]!, line.slice(line.indexOf("=") + 1)]),
    );
  return { said, fields };
}

const denyAll = { allow: false, access: "rwm" };

const lacking = machineLacks();

describe.skipIf(lacking)("cgroup v2: the runtime", () => {
  let outcome: Outcome;
  const { said, fields } = readers(() => outcome);

  beforeAll(async () => {
    outcome = await boot({
      timeoutMs: BOOT_MS,
      files: {
        "b/limits/config.json": bundle({
          args: ["sleep", "1000"],
          cgroupsPath: "/jubako/limits",
          resources: {
            memory: { limit: 64 << 20, swap: 96 << 20, reservation: 32 << 20 },
            cpu: { shares: 512, quota: 50000, period: 100000, cpus: "0", mems: "0" },
            pids: { limit: 20 },
            devices: [denyAll, { allow: true, type: "c", major: 1, minor: 11, access: "r" }],
            unified: { "memory.high": String(60 << 20) },
          },
        }),
        "b/oom/config.json": bundle({ args: ["tail", "/dev/zero"], resources: { memory: { limit: 16 << 20, swap: 16 << 20 } } }),
        "b/host/config.json": bundle({
          args: ["sh", "-c", "setsid sleep 7777 & setsid sleep 7777 & exec sleep 7777"],
          namespaces: ["mount"],
          cgroupsPath: "/jubako/host",
        }),
        "b/nested/config.json": bundle({
          args: [
            "sh",
            "-c",
            "mount -o remount,rw /sys/fs/cgroup; cd /sys/fs/cgroup; mkdir init; echo 1 >init/cgroup.procs; echo +pids >cgroup.subtree_control; exec sleep 1000",
          ],
          cgroupsPath: "/jubako/nested",
        }),
      },
      script: runtimeScript,
    });
  }, BOOT_MS + 20_000);

  test("ends well", () => {
    expect({ status: outcome.status, output: outcome.output }).toMatchObject({ status: 0 });
  });

  test("limits are in the kernel's files", () => {
    expect(fields("limits")).toEqual({
      "memory.max": String(64 << 20),
      "memory.swap.max": String(32 << 20),
      "memory.low": String(32 << 20),
      "memory.high": String(60 << 20),
      "cpu.weight": "20",
      "cpu.max": "50000 100000",
      "cpuset.cpus": "0",
      "cpuset.mems": "0",
      "cpuset.cpus.effective": "0",
      "pids.max": "20",
    });
  });

  test("the process starts in its cgroup (CLONE_INTO_CGROUP) and sees only that, read-only", () => {
    expect(said("explain")).toContain("CLONE_INTO_CGROUP");
    expect(fields("view")).toEqual({ cgroup: "0::/", "memory.max": String(64 << 20), procs: "1", write: "Read-only file system" });
    expect(said("host view")).toBe("0::/jubako/limits");
  });

  test("without a cgroup namespace the whole hierarchy is seen", () => {
    expect(said("host namespace")).toBe("0::/jubako/host\njubako");
  });

  test("device rules by BPF: what is allowed opens, for what is allowed; the rest is refused", () => {
    expect(fields("devices")).toEqual({
      null: "0",
      "kmsg read": "0",
      "kmsg write": "Operation not permitted",
      screen: "Operation not permitted",
      "screen after update": "Operation not permitted",
    });
  });

  test("update changes limits of a living container", () => {
    expect(fields("update")).toEqual({
      "memory.max": String(48 << 20),
      "memory.swap.max": "0",
      "cpu.max": "20000 100000",
      "cpu.weight": "39",
      "pids.max": "5",
    });
  });

  test("pids.max stops a fork", () => {
    expect(said("forks")).toContain("can't fork");
  });

  test("pause and resume", () => {
    expect(fields("pause")).toEqual({ paused: "paused 1", resumed: "running 0" });
  });

  test("events --stats tells what is used", () => {
    const { data } = JSON.parse(said("stats"));
    expect(data.memory.usage.limit).toBe(48 << 20);
    expect(data.memory.usage.usage).toBeGreaterThan(0);
    expect(data.pids).toMatchObject({ limit: 5 });
    expect(data.cpu.usage.total).toBeGreaterThan(0);
  });

  test("beyond memory.max the process is killed: 137", () => {
    expect(fields("oom").status).toBe("137");
  });

  test("delete --force ends processes of every session and takes the cgroup away", () => {
    expect(fields("delete")).toEqual({ before: "3", after: "0", cgroup: "gone" });
  });

  test("exec goes where init is, where the container has cgroups of its own", () => {
    expect(said("nested")).toBe("0::/init");
  });

  test("nothing is left", () => {
    expect(said("left")).toBe("");
  });
});

const runtimeScript = `
set -u
mkdir -p /rootfs/bin /rootfs/proc /rootfs/dev /rootfs/sys
cp /bin/busybox /rootfs/bin; /bin/busybox --install -s /rootfs/bin
rt() { jubako-runtime "$@"; }
G=/sys/fs/cgroup/jubako
show() { for f in "$@"; do echo "$f=$(cat $G/limits/$f)"; done; }
why() { sed 's/.*: //'; }

rt run -d -b /b/limits limits </dev/null >/dev/null
echo "== limits"; show memory.max memory.swap.max memory.low memory.high cpu.weight cpu.max cpuset.cpus cpuset.mems cpuset.cpus.effective pids.max
echo "== explain"; rt explain /b/limits | grep clone3
echo "== host view"; sed 's/^.*:jubako/jubako/' /proc/$(head -1 $G/limits/cgroup.procs)/cgroup
rt exec limits sh -c '
echo "== view"
echo "cgroup=$(cat /proc/self/cgroup)"
cd /sys/fs/cgroup
echo "memory.max=$(cat memory.max)"
echo "procs=$(head -n 1 cgroup.procs)"
echo "write=$( (echo 1 >pids.max) 2>&1 | sed "s/.*: //")"
echo "== devices"
mknod /dev/kmsg c 1 11; mknod /dev/screen c 7 0
(echo >/dev/null); echo "null=$?"
(: </dev/kmsg); echo "kmsg read=$?"
echo "kmsg write=$( (: >/dev/kmsg) 2>&1 | sed "s/.*: //")"
echo "screen=$( (: </dev/screen) 2>&1 | sed "s/.*: //")"
'
rt update --memory $((48<<20)) --memory-swap $((48<<20)) --cpu-quota 20000 --cpu-share 1000 --pids-limit 5 limits
echo "screen after update=$(rt exec limits sh -c ': </dev/screen' 2>&1 | why)"
echo "== update"; show memory.max memory.swap.max cpu.max cpu.weight pids.max
echo "== forks"; rt exec limits sh -c 'for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait' 2>&1
echo "== pause"
rt pause limits; echo "paused=$(rt state limits | sed -n 's/.*"status": "\\(.*\\)".*/\\1/p') $(cat $G/limits/cgroup.freeze)"
rt resume limits; echo "resumed=$(rt state limits | sed -n 's/.*"status": "\\(.*\\)".*/\\1/p') $(cat $G/limits/cgroup.freeze)"
echo "== stats"; rt events --stats limits
rt delete --force limits
echo "== oom"; rt run -b /b/oom oom; echo "status=$?"
rt run -d -b /b/host host </dev/null >/dev/null 2>&1
echo "== host namespace"; rt exec host sh -c 'cat /proc/self/cgroup; ls -d /sys/fs/cgroup/jubako | sed s,.*/,,'
echo "== delete"
echo "before=$(pidof sleep | wc -w)"
rt delete --force host
echo "after=$(pidof sleep | wc -w)"
[ -e $G/host ] && echo "cgroup=there" || echo "cgroup=gone"
rt run -d -b /b/nested nested </dev/null >/dev/null
for i in 1 2 3 4 5 6 7 8 9 10; do [ -d $G/nested/init ] && break; sleep 0.1; done; sleep 0.2
echo "== nested"; rt exec nested cat /proc/self/cgroup
rt delete --force nested
echo "== left"; find $G -mindepth 1 -type d; ls /run/runc /run/jubako-runtime 2>/dev/null | grep -v :; pidof sleep
exit 0
`;

describe.skipIf(lacking)("cgroup v2: the engine", () => {
  let outcome: Outcome;
  const { said, fields } = readers(() => outcome);

  beforeAll(async () => {
    const dir = mkdtempSync(join(tmpdir(), "jubako-vm-image-"));
    try {
      const archive = join(dir, "busybox.tar");
      const made = sh(`${process.execPath} ${root}scripts/seed-busybox.ts >${archive}`);
      if (made.status !== 0) throw new Error(made.stderr);
      outcome = await boot({ timeoutMs: BOOT_MS, files: { "busybox.tar": { from: archive } }, script: engineScript });
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  }, BOOT_MS + 20_000);

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
      "cpu.weight": "20",
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
cli rm -f limits oom innocent >/dev/null
kill $engine; wait $engine
echo "== left"; find $G -mindepth 1 -type d; pidof sleep jubakod jubako-keeper; grep overlay /proc/mounts
echo "== log"; cat /run/log
exit 0
`;
