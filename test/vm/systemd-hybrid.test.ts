// The systemd driver where systemd has v1's controllers, with v2 beside them for itself. One boot, one script; the tests read what it said.
import { beforeAll, describe, expect, test } from "bun:test";
import { BOOT_MS, boot, machineLacks, type Outcome, readers } from "./boot.ts";
import { bundle } from "./bundle.ts";
import { systemdLacks } from "./systemd.ts";

describe.skipIf(systemdLacks() || machineLacks())("systemd's cgroups, v1 and hybrid", () => {
  let outcome: Outcome;
  const { said, fields } = readers(() => outcome);

  beforeAll(async () => {
    outcome = await boot({
      systemd: true,
      hybrid: true,
      files: {
        "b/limits/config.json": bundle({
          args: ["sleep", "1000"],
          namespaces: ["pid", "mount"],
          cgroupsPath: "system.slice:jubako:limits",
          resources: {
            memory: { limit: 64 << 20 },
            cpu: { shares: 512, quota: 50000, period: 100000 },
            pids: { limit: 20 },
            devices: [{ allow: false, access: "rwm" }],
          },
        }),
      },
      script,
    });
  }, BOOT_MS + 10_000);

  test("ends well", () => {
    expect({ status: outcome.status, output: outcome.output }).toMatchObject({ status: 0 });
  });

  test("the unit and the controllers have the limits", () => {
    expect(fields("unit")).toEqual({
      MemoryLimit: String(64 << 20),
      CPUShares: "512",
      CPUQuotaPerSecUSec: "500ms",
      TasksMax: "20",
      Slice: "system.slice",
      Delegate: "yes",
      "memory.limit_in_bytes": String(64 << 20),
      "pids.max": "20",
      "cpu.shares": "512",
      "cpu.cfs_quota_us": "50000",
    });
  });

  test("init and what is executed in it are in the scope everywhere, systemd's own hierarchies included", () => {
    const scope = "/system.slice/jubako-limits.scope";
    for (const name of ["init", "exec"]) {
      const paths = said(name).split("\n");
      for (const controller of ["1:name=systemd", "0:"]) expect(paths).toContain(`${controller}:${scope}`);
      for (const controller of ["memory", "pids", "devices", "freezer", "cpu,cpuacct"])
        expect(paths.some((line) => line.endsWith(`:${controller}:${scope}`))).toBe(true);
    }
  });

  test("update, pause, delete", () => {
    expect(fields("update")).toEqual({ MemoryLimit: String(32 << 20), "pids.max": "7", paused: "FROZEN", LoadState: "not-found" });
    expect(said("left")).toBe("");
  });
});

const script = `
set -u
mkdir -p /rootfs/bin /rootfs/proc /rootfs/dev /rootfs/sys
cp /bin/busybox /rootfs/bin; /bin/busybox --install -s /rootfs/bin
rt() { jubako-runtime "$@"; }
U=jubako-limits.scope
# It asks a terminal for its size.
systemctl() { /bin/systemctl "$@" | cat; }
show() { echo "\${1#*/}=$(cat /sys/fs/cgroup/\${1%/*}/system.slice/$U/\${1#*/})"; }
rt --systemd-cgroup run -d -b /b/limits limits </dev/null >/dev/null
echo "== unit"
for p in MemoryLimit CPUShares CPUQuotaPerSecUSec TasksMax Slice Delegate; do systemctl show -p $p $U; done
for file in memory/memory.limit_in_bytes pids/pids.max cpu/cpu.shares cpu/cpu.cfs_quota_us; do show $file; done
echo "== init"; cat /proc/$(cat /sys/fs/cgroup/pids/system.slice/$U/cgroup.procs)/cgroup
echo "== exec"; rt exec limits cat /proc/self/cgroup
echo "== update"
rt update --memory 32M --pids-limit 7 limits; systemctl show -p MemoryLimit $U; show pids/pids.max
rt pause limits; echo "paused=$(cat /sys/fs/cgroup/freezer/system.slice/$U/freezer.state)"; rt resume limits
rt delete --force limits; systemctl show -p LoadState $U
echo "== left"; find /sys/fs/cgroup -name "$U"; pidof sleep
exit 0
`;
