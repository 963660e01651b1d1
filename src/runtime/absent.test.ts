// What not every machine has: it works where it is there, and where it is not the error names it, and nothing is left.
import { expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import type { Resources, Spec } from "../oci/runtime-spec.ts";
import { hierarchies } from "./cgroups/index.ts";
import { facts } from "./facts.ts";
import { bundles, real } from "./harness.ts";

const { id, work, run, jubako, bundle, detached, cgroups } = bundles("absent");
const { version, mounts } = hierarchies();

interface Case {
  controller: string;
  resources: Resources;
  /** Of v1. */
  file: string;
  holds: string;
}

const cases: Case[] = [
  { controller: "net_cls", resources: { network: { classID: 0x100001 } }, file: "net_cls.classid", holds: String(0x100001) },
  {
    controller: "net_prio",
    resources: { network: { priorities: [{ name: "lo", priority: 5 }] } },
    file: "net_prio.ifpriomap",
    holds: "lo 5",
  },
  {
    controller: "hugetlb",
    resources: { hugepageLimits: [{ pageSize: "2MB", limit: 4 << 20 }] },
    file: "hugetlb.2MB.limit_in_bytes",
    holds: String(4 << 20),
  },
  // No machine of ours has such a device: the kernel refuses its name.
  { controller: "rdma", resources: { rdma: { jubako_none: { hcaHandles: 2 } } }, file: "rdma.max", holds: "" },
];

for (const { controller, resources, file, holds } of cases)
  real.skipIf(version !== 1)(`${controller}: the limit is set, or the error names it`, () => {
    const limit = (spec: Spec) => {
      spec.linux!.resources = { ...spec.linux!.resources, ...resources };
    };
    const mount = mounts.get(controller);
    if (mount !== undefined && holds !== "") {
      bundle(["sleep", "100"], limit);
      detached();
      expect(readFileSync(`${mount}/${id}/${file}`, "utf8")).toContain(holds);
      expect(jubako("delete", "--force", id).status).toBe(0);
    } else {
      const { status, stderr } = run(["true"], limit);
      expect(status).toBe(1);
      expect(stderr).toContain(mount === undefined ? `this system has no ${controller} cgroup` : "jubako_none");
    }
    expect({ cgroups: cgroups(), state: existsSync(`${work}/state/${id}`) }).toEqual({ cgroups: "", state: false });
  });

real("intelRdt, at create and at update", () => {
  const { status, stderr } = run(["true"], (spec) => {
    spec.linux!.intelRdt = { closID: "jubako", l3CacheSchema: "L3:0=ff" };
  });
  expect(status).toBe(1);
  const why = facts().resctrl
    ? "linux.intelRdt is not supported"
    : "intelRdt is specified in config, but Intel RDT is not supported or enabled";
  expect(stderr).toContain(why);
  expect(jubako("update", "--l3-cache-schema", "L3:0=ff", id).stderr).toContain("Intel RDT is not supported");
  expect({ cgroups: cgroups(), state: existsSync(`${work}/state/${id}`) }).toEqual({ cgroups: "", state: false });
});

real("labels of AppArmor and SELinux", () => {
  const told = (change: (spec: Spec) => void) => {
    const { status, stdout, stderr } = run(["cat", "/proc/self/attr/current"], change);
    return status === 0 ? stdout.trim() : stderr;
  };
  // A profile that nobody has loaded, in either case.
  expect(told((spec) => Object.assign(spec.process!, { apparmorProfile: "jubako-none" }))).toMatch(
    facts().apparmor
      ? /set the security label of the program/
      : /apparmor profile .*jubako-none.* is specified in config, but the kernel has no apparmor/,
  );
  if (facts().selinux) return;
  expect(told((spec) => Object.assign(spec.process!, { selinuxLabel: "system_u:system_r:container_t:s0" }))).toContain(
    "selinux label is specified in config, but selinux is disabled or not supported",
  );
  expect(told((spec) => Object.assign(spec.linux!, { mountLabel: "system_u:object_r:container_file_t:s0" }))).toContain(
    "selinux mountLabel is specified in config, but selinux is disabled or not supported",
  );
});

test("what the machine has is told by features", () => {
  const features = JSON.parse(jubako("features").stdout) as { linux: Record<string, { enabled?: boolean }> };
  expect(features.linux.apparmor).toEqual({ enabled: facts().apparmor });
  expect(features.linux.selinux).toEqual({ enabled: facts().selinux });
  expect(features.linux.intelRdt).toEqual({ enabled: false });
});
