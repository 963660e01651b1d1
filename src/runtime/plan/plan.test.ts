// Plans without root: what a tape says, in which order.
import { expect, test } from "bun:test";
import type { Spec } from "../../oci/runtime-spec.ts";
import { deviceProgram, effectiveRules, ruleText } from "../cgroups/devices.ts";
import { locateCgroup, readHierarchies } from "../cgroups/index.ts";
import { cpuWeight } from "../cgroups/v2.ts";
import { resolveDockerSeccomp } from "../seccomp-profile.ts";
import { exampleSpec } from "../spec.ts";
import { stepText } from "../tape.ts";
import { MOUNT_ATTR, MS } from "./constants.ts";
import { type CreateInput, planCreate } from "./create.ts";
import { planExec } from "./exec.ts";
import { facts } from "./harness.ts";
import { splitLayers } from "./layers.ts";
import { parseOptions } from "./mount-options.ts";

function input(spec: Spec, change: Partial<CreateInput> = {}): CreateInput {
  return {
    id: "one",
    bundle: "/bundle",
    spec,
    rootfs: [],
    cgroup: undefined,
    seccomp: undefined,
    keeper: true,
    holds: 0,
    holdStdin: false,
    ownStdio: [true, true, true],
    preserved: 0,
    noPivot: false,
    keyring: true,
    pauseForHooks: false,
    ...change,
  };
}

const lines = (spec: Spec, change: Partial<CreateInput> = {}) => planCreate(input(spec, change), facts).tape.steps.map(stepText);
const reasons = (spec: Spec, change: Partial<CreateInput> = {}) =>
  planCreate(input(spec, change), facts).tape.steps.map((step) => step.why);

test("the steps come in the order that security asks for", () => {
  const why = reasons(exampleSpec());
  const order = [
    "close this process to the container's eyes",
    "start the process in its namespaces",
    "keep mounts from reaching the host",
    "put the root file system on /",
    "mount proc on /proc",
    "make device /dev/null",
    "make /proc/sys read-only",
    "mask /proc/kcore",
    "make it the root",
    "drop capabilities from the bounding set",
    "become user 0:0",
    "set the capabilities",
    "let no descriptor through",
    "wait at the gate",
    "run sh",
  ].map((reason) => why.indexOf(reason));
  expect(order).not.toContain(-1);
  expect([...order].sort((a, b) => a - b)).toEqual(order);
});

test("every path below the root is opened by openat2", () => {
  const spec = exampleSpec();
  spec.mounts!.push({ destination: "/a/../b", type: "tmpfs", source: "tmpfs" });
  const child = lines(spec);
  const from = child.findIndex((line) => line.includes('"/", MOVE_MOUNT'));
  const to = child.findIndex((line) => line.startsWith("pivot_root"));
  expect(child.slice(from + 1, to).filter((line) => /^(\w+ = )?(openat|mount|open)\(/.test(line))).toEqual([]);
  expect(child.some((line) => line.includes('openat2(root, "/a/../b"'))).toBe(true);
});

test("seccomp comes last; without no_new_privs CAP_SYS_ADMIN goes right after it", () => {
  const spec = exampleSpec();
  const seccomp = { program: new Uint8Array(16), flags: 0 };
  expect(
    lines(spec, { seccomp })
      .slice(-3)
      .map((line) => line.split("(")[0]),
  ).toEqual(["read", "seccomp", "execve"]);
  spec.process!.noNewPrivileges = false;
  const without = lines(spec, { seccomp });
  expect(without.slice(-4).map((line) => line.split("(")[0])).toEqual(["read", "seccomp", "capset", "execve"]);
  expect(without.at(-2)).toContain("effective=0x020000420");
});

test("layers of an overlay go one a call, and may hold colons", () => {
  expect(splitLayers("/a:/b\\:c:/d")).toEqual(["/a", "/b:c", "/d"]);
  const text = lines(exampleSpec(), {
    rootfs: [{ type: "overlay", source: "overlay", options: ["lowerdir=/l2:/l1", "upperdir=/u", "workdir=/w", "index=off"] }],
  });
  expect(text.filter((line) => line.includes('"lowerdir+"')).map((line) => line.split(", ")[3])).toEqual(['"/l2"', '"/l1"']);
  expect(text.some((line) => line.includes('"upperdir", "/u"'))).toBe(true);
});

test("mount options", () => {
  const bind = parseOptions(["rbind", "ro", "nosuid", "rprivate"]);
  expect(bind).toMatchObject({ bind: true, recursive: true, propagation: MS.MS_PRIVATE, propagationRecursive: true });
  expect(bind.set).toBe(MOUNT_ATTR.MOUNT_ATTR_RDONLY | MOUNT_ATTR.MOUNT_ATTR_NOSUID);
  expect(parseOptions(["ro", "rw"]).set).toBe(0);
  expect(parseOptions(["rro"]).recursiveSet).toBe(MOUNT_ATTR.MOUNT_ATTR_RDONLY);
  expect(parseOptions(["noatime"])).toMatchObject({ set: MOUNT_ATTR.MOUNT_ATTR_NOATIME, clear: 0x70 });
  expect(parseOptions(["mode=755", "size=1m", "noswap"]).data).toEqual([
    ["mode", "755"],
    ["size", "1m"],
    ["noswap", undefined],
  ]);
});

test("what cannot be done is said at once", () => {
  const change = (edit: (spec: Spec) => void) => {
    const spec = exampleSpec();
    edit(spec);
    return () => lines(spec);
  };
  expect(change((spec) => spec.linux!.namespaces!.push({ type: "pid" }))).toThrow("duplicated ns");
  expect(change((spec) => Object.assign(spec.linux!, { netDevices: { "a/b": {} } }))).toThrow('invalid network device name "a/b"');
  expect(change((spec) => Object.assign(spec.linux!, { intelRdt: { closID: "x" } }))).toThrow("intelRdt");
  expect(change((spec) => Object.assign(spec.linux!, { personality: { domain: "LINUX", flags: ["X"] } }))).toThrow("personality flags");
  expect(change((spec) => Object.assign(spec.linux!, { timeOffsets: { boottime: { secs: 1 } } }))).toThrow("time namespace");
  expect(change((spec) => Object.assign(spec.linux!, { mountLabel: "system_u:object_r:x" }))).toThrow("selinux");
  expect(change((spec) => Object.assign(spec.linux!, { sysctl: { "vm.swappiness": "1" } }))).toThrow(
    "is not in a separate kernel namespace",
  );
  expect(change((spec) => Object.assign(spec.linux!, { sysctl: { "kernel.hostname": "x" } }))).toThrow("is not allowed as it conflicts");
  expect(change((spec) => spec.process!.args!.splice(0))).toThrow("args must not be empty");
  expect(change((spec) => spec.process!.rlimits!.push({ type: "RLIMIT_X", soft: 1, hard: 1 }))).toThrow("RLIMIT_X");
  expect(
    change((spec) => {
      spec.process!.apparmorProfile = "docker-default";
    }),
  ).toThrow("apparmor");
  expect(
    change((spec) => {
      spec.process!.selinuxLabel = "system_u:object_r:x";
    }),
  ).toThrow("selinux");
  expect(
    change((spec) => {
      spec.process!.args = ["a\0b"];
    }),
  ).toThrow("NUL");
});

test("a user namespace: ids are mapped by the parent, devices are bound", () => {
  const spec = exampleSpec();
  spec.linux!.namespaces!.push({ type: "user" });
  spec.linux!.uidMappings = [{ containerID: 0, hostID: 100000, size: 65536 }];
  spec.linux!.gidMappings = spec.linux!.uidMappings;
  const text = lines(spec);
  expect(text.some((line) => line.includes('"0 100000 65536\\n"'))).toBe(true);
  expect(text.filter((line) => line.startsWith("mknodat") && line.includes("makedev"))).toEqual([]);
});

test("an exec joins all namespaces in one call", () => {
  const spec = exampleSpec();
  const plan = planExec(
    {
      id: "one",
      spec,
      process: { cwd: "/", args: ["ls"], env: ["PATH=/bin:/usr/bin"] },
      cgroup: undefined,
      seccomp: undefined,
      keeper: true,
      holds: 0,
      holdStdin: false,
      ownStdio: [],
      preserved: 0,
    },
    facts,
  );
  const text = plan.tape.steps.map(stepText);
  expect(text.filter((line) => line.startsWith("setns"))).toEqual([
    "setns(init, CLONE_NEWPID)",
    "setns(init, CLONE_NEWNS|CLONE_NEWNET|CLONE_NEWUTS|CLONE_NEWIPC)",
  ]);
});

test("device rules: what comes before a rule for all is void, the harmless devices stay allowed", () => {
  expect(
    effectiveRules([
      { allow: false, access: "rwm" },
      { allow: true, type: "c", major: 10, minor: 229, access: "rwm" },
    ]),
  ).toMatchObject({ allowAll: false });
  expect(effectiveRules([{ allow: true, access: "rwm" }])).toEqual({ allowAll: true, rules: [] });
  expect(effectiveRules([]).allowAll).toBe(false);
  expect(ruleText({ allow: true, type: "c", major: 1, minor: -1 })).toBe("c 1:* rwm");
});

test("where cgroups are", () => {
  const v1 = readHierarchies(
    "30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n31 25 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
    "2:memory:/here\n1:cpu,cpuacct:/\n0::/\n",
  );
  expect(locateCgroup({ ociVersion: "1.0.2", linux: { cgroupsPath: "/docker/x" } }, "x", false, v1).directories.memory).toBe(
    "/sys/fs/cgroup/memory/docker/x",
  );
  expect(locateCgroup({ ociVersion: "1.0.2" }, "x", false, v1).directories).toEqual({
    cpu: "/sys/fs/cgroup/cpu,cpuacct/x",
    cpuacct: "/sys/fs/cgroup/cpu,cpuacct/x",
    memory: "/sys/fs/cgroup/memory/here/x",
  });
  const v2 = readHierarchies("30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/user.slice\n");
  expect(locateCgroup({ ociVersion: "1.0.2", linux: { cgroupsPath: "/../../etc" } }, "x", false, v2)).toEqual({
    version: 2,
    directories: { "": "/sys/fs/cgroup/etc" },
  });
  expect([0, 2, 100, 1024, 262_143, 262_144].map(cpuWeight)).toEqual([0, 1, 17, 100, 10_000, 10_000]);
});

test("Docker's seccomp profile depends on capabilities, architecture and kernel", () => {
  const names = (capabilities: string[], kernel = "6.1.0") => {
    return new Set(
      resolveDockerSeccomp(undefined, { capabilities, arch: "amd64", kernel })
        .syscalls!.filter((s) => s.action === "SCMP_ACT_ALLOW")
        .flatMap((s) => s.names),
    );
  };
  expect(names([]).has("mount")).toBe(false);
  expect(names(["CAP_SYS_ADMIN"]).has("mount")).toBe(true);
  expect(names([], "4.4.0").has("ptrace")).toBe(false);
  expect(names([]).has("ptrace")).toBe(true);
  expect(names([]).has("arch_prctl")).toBe(true);
  expect(resolveDockerSeccomp(undefined, { capabilities: [], arch: "amd64" }).architectures).toContain("SCMP_ARCH_X86");
  expect(() => resolveDockerSeccomp({ syscalls: [] }, { capabilities: [] })).toThrow("defaultAction");
});

test("device rules as a program: its jumps stay inside, it ends in a verdict", () => {
  const program = deviceProgram([
    { allow: false, access: "rwm" },
    { allow: true, type: "b", major: 254, minor: 0, access: "r" },
  ])!;
  const view = new DataView(program.buffer);
  const count = program.length / 8;
  for (let i = 0; i < count; i++) {
    const opcode = view.getUint8(8 * i);
    if ([0x55, 0x5d, 0x15].includes(opcode)) expect(i + 1 + view.getInt16(8 * i + 2, true)).toBeLessThan(count);
  }
  expect(view.getUint8(8 * (count - 1))).toBe(0x95);
  expect(deviceProgram([{ allow: true, access: "rwm" }])).toBeUndefined();
});
