// Containers as units of systemd's, in a machine whose first process it is: by the system's bus, by the manager's own socket, and by a user's manager.
// One boot, one script; what systemd and the kernel hold is read back. The tests read what it said.
import { beforeAll, describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { busyboxTar, root } from "../support/engine.ts";
import { BOOT_MS, boot, machineLacks, type Outcome, readers } from "./boot.ts";
import { bundle } from "./bundle.ts";
import { CRIU_MODULES, criuFiles, criuLacks } from "./checkpoint-files.ts";
import { systemdLacks } from "./systemd.ts";

const withoutCriu = criuLacks();
const sleeps = { args: ["sleep", "1000"] };

describe.skipIf(systemdLacks() || machineLacks())("systemd's cgroups", () => {
  let outcome: Outcome;
  const { said, fields } = readers(() => outcome);

  beforeAll(async () => {
    outcome = await boot({
      systemd: true,
      modules: withoutCriu ? [] : CRIU_MODULES,
      files: {
        ...(withoutCriu ? {} : criuFiles()),
        "busybox.tar": { data: busyboxTar() },
        "b/limits/config.json": bundle({
          ...sleeps,
          cgroupsPath: "system.slice:jubako:limits",
          annotations: { "org.systemd.property.TimeoutStopSec": "7", "org.systemd.property.CollectMode": "'inactive-or-failed'" },
          resources: {
            memory: { limit: 64 << 20, swap: 96 << 20, reservation: 32 << 20 },
            cpu: { shares: 512, quota: 50500, period: 100000, cpus: "0" },
            pids: { limit: 20 },
            devices: [
              { allow: false, access: "rwm" },
              { allow: true, type: "c", major: 1, minor: 11, access: "r" },
            ],
            unified: { "memory.high": String(60 << 20) },
          },
        }),
        "b/again/config.json": bundle({
          ...sleeps,
          cgroupsPath: "system.slice:jubako:again",
          resources: { memory: { limit: 64 << 20 }, pids: { limit: 20 } },
        }),
        "b/killed/config.json": bundle({
          ...sleeps,
          cgroupsPath: "system.slice:jubako:killed",
          hook: "echo $$ >/tmp/hook; exec sleep 1000",
        }),
        "b/slice/config.json": bundle({ args: ["cat", "/proc/self/cgroup"], namespaces: ["mount"], cgroupsPath: "machine-deep.slice:x:y" }),
        "b/given/config.json": bundle({
          args: ["stat", "-c", "%u", "/sys/fs/cgroup", "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/pids.max"],
          cgroupsPath: "system.slice:jubako:given",
          user: 1000,
          writable: true,
        }),
        "b/frozen/config.json": bundle({ ...sleeps, cgroupsPath: "system.slice:jubako:frozen" }),
        "b/plain/config.json": bundle({ args: ["cat", "/proc/self/cgroup"], namespaces: ["mount"] }),
        "b/broken/config.json": bundle({ args: ["/missing"], cgroupsPath: "system.slice:jubako:broken" }),
        "b/path/config.json": bundle({ ...sleeps, cgroupsPath: "/not/a/unit" }),
        "b/annotation/config.json": bundle({ ...sleeps, annotations: { "org.systemd.property.TimeoutStopSec": "soon" } }),
        "b/unknown/config.json": bundle({ ...sleeps, annotations: { "org.systemd.property.NoSuchThing": "true" } }),
        "b/user/config.json": bundle({ ...sleeps, user: 1000, resources: { pids: { limit: 9 }, memory: { limit: 48 << 20 } } }),
        "b/free/config.json": bundle({ args: ["cat", "/proc/self/cgroup"], namespaces: ["pid", "mount"], user: 1000 }),
      },
      script,
    });
  }, BOOT_MS + 10_000);

  test("ends well", () => {
    expect({ status: outcome.status, output: outcome.output }).toMatchObject({ status: 0 });
  });

  test("the unit has the limits and the annotations' properties", () => {
    expect(fields("unit")).toEqual({
      MemoryMax: String(64 << 20),
      MemorySwapMax: String(32 << 20),
      MemoryLow: String(32 << 20),
      MemoryHigh: String(60 << 20),
      CPUWeight: "59",
      // 50.5 %, rounded up to whole percents
      CPUQuotaPerSecUSec: "510ms",
      CPUQuotaPeriodUSec: "100ms",
      TasksMax: "20",
      AllowedCPUs: "0",
      Delegate: "yes",
      Slice: "system.slice",
      DevicePolicy: "strict",
      CollectMode: "inactive-or-failed",
      TimeoutStopUSec: "7s",
    });
    expect(said("devices")).toContain("/dev/char/1:11 r");
  });

  test("so have the kernel's files, where the exact numbers are, also after systemd wrote its own anew", () => {
    const files = {
      "memory.max": String(64 << 20),
      "memory.swap.max": String(32 << 20),
      "cpu.weight": "59",
      "pids.max": "20",
      "cpuset.cpus": "0",
    };
    expect(fields("files")).toMatchObject({ ...files, "cpu.max": "50500 100000" });
    expect(fields("reloaded")).toMatchObject(files);
  });

  test("the container's process is alone in the scope, and what is executed in it joins it", () => {
    expect(fields("processes")).toEqual({
      init: "0::/system.slice/jubako-limits.scope",
      count: "1",
      exec: "0::/",
      waiting: "0",
    });
  });

  test("update, pause and resume", () => {
    expect(fields("update")).toEqual({
      MemoryMax: String(48 << 20),
      TasksMax: "7",
      CPUWeight: "99",
      "memory.max": String(48 << 20),
      "pids.max": "7",
      paused: "1",
      resumed: "0",
    });
  });

  test("an update that the kernel refuses changes neither files nor the unit", () => {
    expect(fields("refused")).toEqual({ status: "1", TasksMax: "7", CPUWeight: expect.any(String), "pids.max": "7" });
    expect(fields("refused").CPUWeight).toBe(fields("update").CPUWeight!);
  });

  test.skipIf(withoutCriu)("a checkpoint ends the unit, restore makes it again with its limits", () => {
    expect(fields("restore")).toEqual({
      status: "0",
      ended: "LoadState=not-found",
      restored: "0",
      MemoryMax: String(64 << 20),
      TasksMax: "20",
      ActiveState: "active",
      "memory.max": String(64 << 20),
      "pids.max": "20",
      init: "0::/system.slice/jubako-again.scope",
      count: "1",
      exec: "0::/",
    });
  });

  test("delete ends the unit", () => {
    expect(fields("deleted")).toEqual({ LoadState: "not-found", ActiveState: "inactive", directory: "gone" });
  });

  test("a maker that is killed leaves no unit", () => {
    expect(fields("killed")).toEqual({ waiting: "0", state: "LoadState=not-found" });
  });

  test("slices, the default's name, and systemd without a bus", () => {
    expect(said("slice")).toBe("0::/machine.slice/machine-deep.slice/x-y.scope");
    expect(said("plain")).toBe("0::/system.slice/runc-plain.scope");
    expect(said("alone")).toBe("0::/system.slice/runc-alone.scope");
    expect(said("private")).toBe("0::/system.slice/runc-private.scope");
  });

  test("a cgroup that may be written belongs to the container's user, but for its limits", () => {
    expect(said("given").split("\n")).toEqual(["0", "0", "65534"]);
  });

  test("a cgroup that is frozen already is refused, and not waited for", () => {
    expect(said("frozen")).toBe("runc run failed: container's cgroup unexpectedly frozen");
  });

  test("what fails says why and leaves nothing", () => {
    expect(said("broken")).toContain("/missing");
    expect(said("path")).toContain(
      'expected cgroupsPath to be of format \\"slice:prefix:name\\" for systemd cgroups, got \\"/not/a/unit\\" instead',
    );
    expect(said("annotation")).toContain("org.systemd.property.TimeoutStopSec=soon value parse error");
    expect(said("unknown")).toContain("unable to start unit");
    expect(said("unreachable")).toContain("systemd cgroup flag passed, but systemd can't be reached");
    expect(said("left")).toBe("");
  });

  test("a user's manager: a scope of his own, with limits", () => {
    const manager = "/user.slice/user-1000.slice/manager.service/user.slice/runc-mine.scope";
    expect(fields("user")).toEqual({
      cgroup: `0::${manager}`,
      "pids.max": "9",
      "memory.max": String(48 << 20),
      TasksMax: "9",
      alone: `0::${manager.replace("mine", "alone")}`,
      exec: "0",
      deleted: "gone",
    });
  });

  test("the engine's containers", () => {
    expect(fields("engine")).toEqual({
      driver: "systemd",
      "memory.max": String(64 << 20),
      TasksMax: "30",
      updated: "TasksMax=20 20",
      exec: "0::/",
      removed: "LoadState=not-found",
      parent: "0::/deep.slice/deep-er.slice/docker",
      refused: 'cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"',
    });
  });

  test("a user without a manager: no cgroup, as long as no limits are asked for", () => {
    expect(fields("free")).toEqual({
      cgroup: "0::/system.slice/script.service",
      limits: "rootless needs no limits + no cgrouppath when no permission is granted for cgroups",
    });
  });
});

const script = `
engine() {
  ln -sfn /run /var/run; mkdir -p /var/lib/jubako; echo 127.0.0.1 localhost >/etc/hosts; : >/etc/resolv.conf
  export DOCKER_HOST=unix:///run/vm.sock
  jubakod --data-root /var/lib/jubako --exec-root /run/engine --pidfile /run/engine.pid -H $DOCKER_HOST --bridge none --exec-opt native.cgroupdriver=systemd >/run/log 2>&1 &
  for i in $(seq 300); do jubako version >/dev/null 2>&1 && break; sleep 0.2; done
  jubako load -q -i /busybox.tar >/dev/null || cat /run/log
  id=$(jubako run -d --network none --name one -m 64m --pids-limit 30 busybox sleep 1000)
  G=/sys/fs/cgroup/system.slice/docker-$id.scope
  echo "== engine"
  echo "driver=$(jubako info -f '{{.CgroupDriver}}')"
  echo "memory.max=$(cat $G/memory.max)"
  systemctl show -p TasksMax docker-$id.scope
  jubako update --pids-limit 20 one >/dev/null
  echo "updated=$(systemctl show -p TasksMax docker-$id.scope) $(cat $G/pids.max)"
  echo "exec=$(jubako exec one cat /proc/self/cgroup)"
  jubako rm -f one >/dev/null
  echo "removed=$(systemctl show -p LoadState docker-$id.scope)"
  echo "parent=$(jubako run --rm --network none --cgroupns host --cgroup-parent deep-er.slice busybox cat /proc/self/cgroup | sed 's/docker-.*/docker/')"
  echo "refused=$(jubako run --rm --network none --cgroup-parent /path busybox true 2>&1 | grep -o 'cgroup-parent for .*')"
  kill %1; wait %1
}

set -u
mkdir -p /rootfs/bin /rootfs/proc /rootfs/dev /rootfs/sys
cp /bin/busybox /rootfs/bin; /bin/busybox --install -s /rootfs/bin
rt() { jubako-runtime "$@"; }
sd() { jubako-runtime --systemd-cgroup "$@"; }
U=jubako-limits.scope
G=/sys/fs/cgroup/system.slice/$U
show() { for f in "$@"; do echo "$f=$(cat $G/$f)"; done; }
show_unit() { for p in "$@"; do systemctl show -p $p $U; done; }
# It asks a terminal for its size.
systemctl() { /bin/systemctl "$@" | cat; }
log() { sed -n 's/.*level=error msg="\\(.*\\)"$/\\1/p'; }

sd run -d -b /b/limits limits </dev/null >/dev/null
echo "== unit"; show_unit MemoryMax MemorySwapMax MemoryLow MemoryHigh CPUWeight CPUQuotaPerSecUSec CPUQuotaPeriodUSec TasksMax AllowedCPUs Delegate Slice DevicePolicy CollectMode TimeoutStopUSec
echo "== devices"; show_unit DeviceAllow
echo "== files"; show memory.max memory.swap.max cpu.weight cpu.max pids.max cpuset.cpus
systemctl daemon-reload
echo "== reloaded"; show memory.max memory.swap.max cpu.weight cpu.max pids.max cpuset.cpus
echo "== processes"
echo "init=$(cat /proc/$(head -n 1 $G/cgroup.procs)/cgroup)"
echo "count=$(wc -l <$G/cgroup.procs)"
echo "exec=$(rt exec limits cat /proc/self/cgroup)"
echo "waiting=$(grep -l jubako-uni[t] /proc/[0-9]*/cmdline | wc -l)"
rt update --memory $((48<<20)) --memory-swap $((64<<20)) --cpu-share 1000 --pids-limit 7 limits
echo "== update"; show_unit MemoryMax TasksMax CPUWeight; show memory.max pids.max
rt pause limits; echo "paused=$(cat $G/cgroup.freeze)"
rt resume limits; echo "resumed=$(cat $G/cgroup.freeze)"
echo "== refused"; rt update --pids-limit 9 --cpu-share 2000 --cpuset-cpus 77 limits 2>/dev/null; echo "status=$?"; show_unit TasksMax CPUWeight; show pids.max
rt delete --force limits
echo "== deleted"; show_unit LoadState ActiveState; [ -e $G ] && echo directory=there || echo directory=gone
echo "== restore"
(
  U=jubako-again.scope; G=/sys/fs/cgroup/system.slice/$U
  sd run -d -b /b/again again </dev/null >/dev/null 2>&1
  rt checkpoint --image-path /tmp/images again; echo "status=$?"
  echo "ended=$(systemctl show -p LoadState $U)"
  sd restore -d -b /b/again --image-path /tmp/images again </dev/null >/dev/null 2>&1; echo "restored=$?"
  show_unit MemoryMax TasksMax ActiveState; show memory.max pids.max
  echo "init=$(cat /proc/$(head -n 1 $G/cgroup.procs)/cgroup)"
  echo "count=$(wc -l <$G/cgroup.procs)"
  echo "exec=$(rt exec again cat /proc/self/cgroup)"
  rt delete --force again
)
# A hook holds the creation while its maker is killed.
sd run -d -b /b/killed killed </dev/null >/dev/null 2>&1 &
for i in $(seq 100); do [ -e /tmp/hook ] && break; sleep 0.1; done
kill -9 $!; kill -9 $(cat /tmp/hook); sleep 0.5
echo "== killed"; echo "waiting=$(grep -l jubako-uni[t] /proc/[0-9]*/cmdline | wc -l)"
rt delete --force killed
echo "state=$(systemctl show -p LoadState jubako-killed.scope)"
echo "== slice"; sd run -b /b/slice slice
echo "== plain"; sd run -b /b/plain plain
# The lean host with no program beside it that could do it instead.
mkdir -p /alone/bin; cp /jubako/bin/jubako-runtime /alone/bin; ${existsSync(join(root, "build/lean")) ? "" : "ln -s /jubako/jubako /alone/jubako"}
echo "== alone"; /alone/bin/jubako-runtime --systemd-cgroup run -b /b/plain alone
echo "== private"; DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nowhere sd run -b /b/plain private
echo "== given"; sd run -b /b/given given
F=/sys/fs/cgroup/system.slice/jubako-frozen.scope; mkdir $F; echo 1 >$F/cgroup.freeze
echo "== frozen"; sd run -d -b /b/frozen frozen 2>&1 </dev/null | log
rmdir $F
echo "== broken"; sd run -b /b/broken broken 2>&1 | log
echo "== path"; sd run -b /b/path path 2>&1 | log
echo "== annotation"; sd run -b /b/annotation annotation 2>&1 | log
echo "== unknown"; sd run -b /b/unknown unknown 2>&1 | log
mount --bind /mnt /run/systemd
echo "== unreachable"; DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nowhere sd run -b /b/plain unreachable 2>&1 | log
umount /run/systemd
echo "== left"; systemctl list-units --all --plain --no-legend 'jubako-*' 'runc-*' 'x-*'; ls /run/jubako/runtime; pidof sleep

M=/sys/fs/cgroup/user.slice/user-1000.slice/manager.service
user() { /usr/bin/setpriv --reuid=1000 --regid=1000 --clear-groups env XDG_RUNTIME_DIR=/run/user/1000 "$@"; }
echo "== user"
(
  # Whom systemd has logged in is in his manager's part of the tree.
  sh -c 'echo $PPID' >$M/init.scope/cgroup.procs
  user jubako-runtime --systemd-cgroup run -d -b /b/user mine </dev/null >/dev/null
  echo "cgroup=$(cat /proc/$(head -n 1 $M/user.slice/runc-mine.scope/cgroup.procs)/cgroup)"
  G=$M/user.slice/runc-mine.scope
  show pids.max memory.max
  user /bin/systemctl --user show -p TasksMax runc-mine.scope | cat
  echo "alone=$(user /alone/bin/jubako-runtime --systemd-cgroup run -b /b/free alone)"
  echo "exec=$(user jubako-runtime exec mine id -u)"
  user jubako-runtime delete --force mine
  [ -e $G ] && echo deleted=there || echo deleted=gone
)
engine
echo "== free"
echo "cgroup=$(user jubako-runtime run -b /b/free free)"
echo "limits=$(user jubako-runtime run -b /b/user limited 2>&1 | log | sed 's/.*failed: //')"
exit 0
`;
