// What systemd is told of a container: names, limits, annotations. Without systemd; test/vm/systemd.test.ts has one.
import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Spec } from "../../oci/runtime-spec.ts";
import { cgroupOwner, giveCgroup } from "./delegation.ts";
import { expandSlice, unitOf } from "./systemd.ts";
import { annotatedProperties, cpuMask, limitProperties } from "./unit-properties.ts";
import { parseVariant } from "./variant-text.ts";

test("slices are paths", () => {
  expect(expandSlice("system.slice")).toBe("/system.slice");
  expect(expandSlice("a-b-c.slice")).toBe("/a.slice/a-b.slice/a-b-c.slice");
  expect(expandSlice("-.slice")).toBe("");
  for (const wrong of ["system", ".slice", "a/b.slice", "a--b.slice", "-a.slice", "../x.slice"])
    expect(() => expandSlice(wrong)).toThrow("invalid slice name");
});

test("cgroupsPath is slice, prefix and name", () => {
  expect(unitOf("a.slice:docker:1234", "id", false)).toEqual({ unit: "docker-1234.scope", slice: "a.slice", user: false });
  expect(unitOf("a.slice:docker:pod.slice", "id", false)).toEqual({ unit: "pod.slice", slice: "a.slice", user: false });
  expect(unitOf(undefined, "id", true)).toEqual({ unit: "runc-id.scope", slice: "user.slice", user: true });
  expect(unitOf("::n", "id", false).slice).toBe("system.slice");
  for (const wrong of ["/docker/x", "a:b", "a:b:c:d", "a.slice:b:", "a.slice:b:../c"])
    expect(() => unitOf(wrong, "id", false)).toThrow("cgroupsPath");
});

const plain = (properties: ReturnType<typeof limitProperties>) => Object.fromEntries(properties.map(([name, { value }]) => [name, value]));
const MAX = 0xffff_ffff_ffff_ffffn;

test("limits as properties of v2", () => {
  const resources = {
    memory: { limit: 100, swap: 150, reservation: 50 },
    cpu: { shares: 1024, quota: 12345, period: 100000, cpus: "0-1,9", mems: "0" },
    pids: { limit: -1 },
  };
  expect(plain(limitProperties(resources, 2, 252))).toEqual({
    MemoryMax: 100n,
    MemoryLow: 50n,
    MemorySwapMax: 50n,
    CPUWeight: 100n,
    CPUQuotaPeriodUSec: 100000n,
    CPUQuotaPerSecUSec: 130000n,
    TasksMax: MAX,
    AllowedCPUs: [3, 2],
    AllowedMemoryNodes: [1],
  });
  // An old systemd is not told of what it does not know.
  expect(Object.keys(plain(limitProperties(resources, 2, 240)))).not.toContain("AllowedCPUs");
  expect(plain(limitProperties({ memory: { limit: -1 }, cpu: { quota: -1, idle: 1 } }, 2, 252))).toEqual({
    MemoryMax: MAX,
    MemorySwapMax: MAX,
    CPUWeight: 0n,
    CPUQuotaPerSecUSec: MAX,
  });
  const unified = { "memory.high": "7", "pids.max": "max", "cpu.max": "50000 100000", "cpuset.cpus": "1", "hugetlb.2MB.max": "1" };
  expect(plain(limitProperties({ unified }, 2, 252))).toEqual({
    MemoryHigh: 7n,
    TasksMax: MAX,
    CPUQuotaPeriodUSec: 100000n,
    CPUQuotaPerSecUSec: 500000n,
    AllowedCPUs: [2],
  });
  expect(() => limitProperties({ memory: { swap: 5 } }, 2, 252)).toThrow("without memory limit");
});

test("limits as properties of v1, devices", () => {
  const devices = [
    { allow: false, access: "rwm" },
    { allow: true, type: "c" as const, major: 1, minor: 3, access: "rw" },
    { allow: true, type: "c" as const, major: 136, access: "rwm" },
    { allow: true, type: "b" as const, access: "m" },
  ];
  const limits = { memory: { limit: 5 }, cpu: { shares: 7 }, blockIO: { weight: 100 }, pids: { limit: 3 } };
  expect(plain(limitProperties(limits, 1, 252))).toEqual({ MemoryLimit: 5n, CPUShares: 7n, BlockIOWeight: 100n, TasksMax: 3n });
  const properties = limitProperties({ devices }, 2, 252);
  expect(properties[0]).toEqual(["DevicePolicy", { signature: "s", value: "strict" }]);
  expect(properties[1]).toEqual(["DeviceAllow", { signature: "a(ss)", value: [] }]);
  const allowed = properties[2]![1].value as string[][];
  expect(allowed).toContainEqual(["/dev/char/1:3", "rw"]);
  expect(allowed).toContainEqual(["block-*", "m"]);
  expect(allowed).toContainEqual(["char-pts", "rwm"]);
  expect(limitProperties({ devices: [{ allow: true, access: "rwm" }] }, 2, 252)[0]).toEqual([
    "DevicePolicy",
    { signature: "s", value: "auto" },
  ]);
});

test("lists of cpus", () => {
  expect(cpuMask("0,8-10,3").value).toEqual([9, 7]);
  for (const wrong of ["", "a", "3-1", "1-", "999999", "-1"]) expect(() => cpuMask(wrong)).toThrow("not a list");
});

test("annotations are properties, seconds are microseconds", () => {
  const annotations = { "org.systemd.property.TimeoutStopSec": "1.5", "org.systemd.property.After": "['a', \"b\"]", "other.thing": "x" };
  expect(annotatedProperties(annotations)).toEqual([
    ["TimeoutStopUSec", { signature: "t", value: 1500000n }],
    ["After", { signature: "as", value: ["a", "b"] }],
  ]);
  expect(() => annotatedProperties({ "org.systemd.property.a b": "1" })).toThrow("name incorrect");
  expect(() => annotatedProperties({ "org.systemd.property.TimeoutStopSec": "'x'" })).toThrow("number of seconds");
});

test("values in GVariant's text", () => {
  const parsed = (text: string) => {
    const { signature, value } = parseVariant(text);
    return [signature, value];
  };
  expect(parsed("true")).toEqual(["b", true]);
  expect(parsed(" -5 ")).toEqual(["i", -5]);
  expect(parsed("uint64 18446744073709551615")).toEqual(["t", MAX]);
  expect(parsed("uint32 0x10")).toEqual(["u", 16]);
  expect(parsed("1.5e3")).toEqual(["d", 1500]);
  expect(parsed("'it\\'s'")).toEqual(["s", "it's"]);
  expect(parsed("@as []")).toEqual(["as", []]);
  expect(parsed("@au [1, 2]")).toEqual(["au", [1, 2]]);
  expect(parsed("[[1], [2, 3]]")).toEqual(["aai", [[1], [2, 3]]]);
  for (const wrong of ["", "[", "[]", "[1, 'a']", "byte 256", "5 5", "tru", "uint32 -1", "'open", "@as [1]", "[1 2]", "[".repeat(50)])
    expect(() => parseVariant(wrong)).toThrow();
});

const writable = { source: "cgroup", destination: "/sys/fs//cgroup/", type: "cgroup", options: ["nosuid", "ro", "rw"] };
const inUserNamespace = (spec: Partial<Spec> & { types?: string[] }): Spec => ({
  ociVersion: "1.2.0",
  mounts: [writable],
  linux: {
    namespaces: (spec.types ?? ["cgroup", "user"]).map((type) => ({ type: type as "cgroup" })),
    uidMappings: [
      { containerID: 0, hostID: 100000, size: 10 },
      { containerID: 10, hostID: 300000, size: 10 },
    ],
  },
  ...spec,
});

test("a cgroup belongs to the process' user where it may be written and has a namespace", () => {
  expect(cgroupOwner(inUserNamespace({}))).toBe(100000);
  expect(cgroupOwner(inUserNamespace({ process: { cwd: "/", user: { uid: 12, gid: 0 } } }))).toBe(300002);
  expect(cgroupOwner(inUserNamespace({ process: { cwd: "/", user: { uid: 12, gid: 0 } }, types: ["cgroup"] }))).toBe(12);
  expect(cgroupOwner(inUserNamespace({ process: { cwd: "/", user: { uid: 20, gid: 0 } } }))).toBeUndefined();
  expect(cgroupOwner(inUserNamespace({ types: ["user"] }))).toBeUndefined();
  expect(cgroupOwner(inUserNamespace({ mounts: [{ ...writable, options: ["ro"] }] }))).toBeUndefined();
  expect(cgroupOwner(inUserNamespace({ mounts: [] }))).toBeUndefined();
});

test.skipIf(process.geteuid?.() !== 0)("what is given are the directory and the files made for it", () => {
  const directory = mkdtempSync(join(tmpdir(), "jubako-delegation-"));
  try {
    for (const name of ["cgroup.procs", "memory.max"]) writeFileSync(join(directory, name), "");
    giveCgroup(directory, 100000);
    const owners = ["", "cgroup.procs", "memory.max"].map((name) => statSync(join(directory, name)).uid);
    expect(owners).toEqual([100000, 100000, 0]);
  } finally {
    rmSync(directory, { recursive: true });
  }
});
