// A change of limits is made as a whole, or not at all.
import { expect } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { hierarchies } from "./cgroups/index.ts";
import { bundles, real } from "./harness.ts";

const { id, bundle, jubako, detached } = bundles("update");
const v1 = hierarchies().version === 1 && hierarchies().mounts.has("memory");

real.skipIf(!v1)("update: where the kernel refuses one limit, the others are as they were", async () => {
  const MiB = 1 << 20;
  bundle(["sh", "-c", "busybox dd if=/dev/zero of=/dev/shm/filled bs=1M count=24; exec sleep 100"], (spec) => {
    spec.linux!.resources = {
      ...spec.linux!.resources,
      memory: { limit: 64 * MiB },
      pids: { limit: 50 },
      cpu: { shares: 512, quota: 50_000, period: 100_000 },
    };
  });
  const file = (controller: string, name: string) => `${hierarchies().mounts.get(controller)}/${id}/${name}`;
  const limits = () =>
    [
      ["memory", "memory.limit_in_bytes"],
      ["pids", "pids.max"],
      ["cpu", "cpu.shares"],
      ["cpu", "cpu.cfs_quota_us"],
      ["cpu", "cpu.cfs_period_us"],
    ].map(([controller, name]) => readFileSync(file(controller!, name!), "utf8").trim());
  detached();
  try {
    const usage = () => Number(readFileSync(file("memory", "memory.usage_in_bytes"), "utf8"));
    for (let tries = 0; tries < 200 && usage() < 24 * MiB; tries++) await Bun.sleep(10);
    const old = limits();
    expect(old).toEqual([String(64 * MiB), "50", "512", "50000", "100000"]);
    const refused = jubako("update", "--pids-limit", "7", "--cpu-share", "300", "--cpu-quota", "20000", "--memory", "8M", id);
    expect(refused.status).toBe(1);
    expect(refused.stderr).toContain(`unable to set memory limit to ${8 * MiB} (current usage: `);
    expect(limits()).toEqual(old);
    expect(jubako("update", "--pids-limit", "7", "--cpu-share", "300", "--memory", "48M", id).status).toBe(0);
    expect(limits()).toEqual([String(48 * MiB), "7", "300", "50000", "100000"]);
  } finally {
    jubako("delete", "--force", id);
  }
  expect(existsSync(file("pids", "pids.max"))).toBe(false);
});
