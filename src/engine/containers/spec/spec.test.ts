import { expect, test } from "bun:test";
import type { HostConfig } from "../../../api/types.ts";
import type { ContainerRecord } from "../../context.ts";
import { capabilitySet } from "./capabilities.ts";
import { devices } from "./devices.ts";
import { mergeEnv, processEnv } from "./env.ts";
import { buildSpec, type SpecInput } from "./index.ts";
import { tmpfsOptions } from "./mounts.ts";
import { cpuResources, rlimits } from "./resources.ts";
import { securityOptions } from "./security.ts";
import { resolveUser } from "./user.ts";

const files = {
  passwd: "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33::/var/www:/bin/sh\nbad line\n",
  group: "root:x:0:\nwww:x:33:\nwheel:x:10:root,www\n",
};

test("users: names, numbers, groups, and what is missing", () => {
  expect(resolveUser("", [], files)).toEqual({ uid: 0, gid: 0, additionalGids: [0, 10], home: "/root" });
  expect(resolveUser("www", ["wheel", "7"], files)).toEqual({ uid: 33, gid: 33, additionalGids: [33, 10, 7], home: "/var/www" });
  expect(resolveUser("1000", [], files)).toEqual({ uid: 1000, gid: 0, additionalGids: [0], home: "/" });
  expect(resolveUser("www:wheel", [], files)).toEqual({ uid: 33, gid: 10, additionalGids: [10], home: "/var/www" });
  expect(() => resolveUser("nobody", [], files)).toThrow("unable to find user nobody: no matching entries in passwd file");
  expect(() => resolveUser("0:nogroup", [], files)).toThrow("unable to find group nogroup: no matching entries in group file");
  expect(() => resolveUser("4294967296", [], files)).toThrow("must be in range");
});

test("capabilities: the default fourteen, added, dropped, all", () => {
  expect(capabilitySet({})).toHaveLength(14);
  expect(capabilitySet({ add: ["net_admin"], drop: ["CAP_CHOWN"] })).toContain("CAP_NET_ADMIN");
  expect(capabilitySet({ drop: ["ALL"], add: ["KILL"] })).toEqual(["CAP_KILL"]);
  expect(capabilitySet({ add: ["ALL"], drop: ["SYS_ADMIN"] })).not.toContain("CAP_SYS_ADMIN");
  expect(() => capabilitySet({ add: ["NONSENSE"] })).toThrow('invalid CapAdd: unknown capability: "CAP_NONSENSE"');
});

test("the environment: defaults, replacing in place, removal", () => {
  expect(mergeEnv(["A=1", "B=2"], ["A=3", "C=4", "B"])).toEqual(["A=3", "C=4"]);
  expect(processEnv({ hostname: "h", tty: true, env: ["PATH=/x"], home: "/root" })).toEqual([
    "PATH=/x",
    "HOSTNAME=h",
    "TERM=xterm",
    "HOME=/root",
  ]);
});

test("limits", () => {
  expect(cpuResources({ NanoCpus: 1.5e9 })).toEqual({ period: 100000, quota: 150000 });
  expect(rlimits({ Ulimits: [{ Name: "nofile", Soft: 1, Hard: 2 }] }, { core: { Name: "core", Soft: 0, Hard: 0 } })).toEqual([
    { type: "RLIMIT_CORE", soft: 0, hard: 0 },
    { type: "RLIMIT_NOFILE", soft: 1, hard: 2 },
  ]);
  expect(() => rlimits({ Ulimits: [{ Name: "x", Soft: 1, Hard: 2 }] }, {})).toThrow("invalid ulimit type: x");
});

test("security options", () => {
  expect(securityOptions({ SecurityOpt: ["no-new-privileges", "seccomp=unconfined"] })).toMatchObject({
    noNewPrivileges: true,
    seccomp: "unconfined",
  });
  expect(() => securityOptions({ SecurityOpt: ["nonsense"] })).toThrow('invalid --security-opt 1: "nonsense"');
});

test("devices: mapped ones are made and allowed", () => {
  const { devices: nodes, rules } = devices({ Devices: [{ PathOnHost: "/dev/null", PathInContainer: "/dev/x", CgroupPermissions: "r" }] });
  expect(nodes).toMatchObject([{ path: "/dev/x", type: "c", major: 1, minor: 3 }]);
  expect(rules.at(-1)).toEqual({ allow: true, type: "c", major: 1, minor: 3, access: "r" });
  expect(() => devices({ Devices: [{ PathOnHost: "/dev/nonsense" }] })).toThrow(
    'error gathering device information while adding custom device "/dev/nonsense": no such file or directory',
  );
});

test("tmpfs options: the later one wins", () => {
  expect(tmpfsOptions(["nosuid", "noexec"], "exec,size=64k,size=1m")).toEqual(["nosuid", "exec", "size=1m"]);
});

function input(hostConfig: HostConfig, mounts: Partial<SpecInput["mounts"]> = {}): SpecInput {
  const record = { id: "c0ffee", path: "sh", args: ["-c", "true"], config: { Env: ["A=1"] }, hostConfig } as unknown as ContainerRecord;
  return {
    record,
    user: { uid: 0, gid: 0, additionalGids: [], home: "/root" },
    security: securityOptions(hostConfig),
    seccomp: undefined,
    attachment: {
      netns: "/run/netns/x",
      mode: "bridge",
      hostsPath: "/d/hosts",
      resolvConfPath: "/d/resolv.conf",
      hostnamePath: "/d/hostname",
    },
    mounts: { points: [], shmSize: 67108864, shmPath: undefined, initPath: undefined, ...mounts },
    pidOf: { pid: undefined, ipc: undefined },
    hostname: "c0ffee",
    cgroupsPath: "/jubako/c0ffee",
    cgroupV2: false,
    defaultUlimits: {},
  };
}

test("a plain container", () => {
  const spec = buildSpec(input({}));
  expect(spec.process?.args).toEqual(["sh", "-c", "true"]);
  expect(spec.linux?.namespaces).toEqual([
    { type: "mount" },
    { type: "network", path: "/run/netns/x" },
    { type: "uts" },
    { type: "pid" },
    { type: "ipc" },
  ]);
  expect(spec.mounts?.map((each) => each.destination)).toEqual([
    "/proc",
    "/dev",
    "/dev/pts",
    "/sys",
    "/sys/fs/cgroup",
    "/dev/mqueue",
    "/dev/shm",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/resolv.conf",
  ]);
  expect(spec.linux?.maskedPaths).toContain("/proc/kcore");
  expect(spec.linux?.resources?.devices?.[0]).toEqual({ allow: false, access: "rwm" });
});

test("a privileged container sees devices and writes to /sys", () => {
  const spec = buildSpec(input({ Privileged: true }));
  expect(spec.linux?.maskedPaths).toBeUndefined();
  expect(spec.linux?.devices?.length).toBeGreaterThan(5);
  expect(spec.mounts?.find((each) => each.destination === "/sys")?.options).not.toContain("ro");
});

test("volumes replace the defaults, parents come first, read-only binds are recursive", () => {
  const points = [
    { point: { Type: "bind" as const, Destination: "/a/b", RW: false }, source: "/host/b" },
    { point: { Type: "volume" as const, Destination: "/dev/shm", RW: true }, source: "/host/shm" },
    { point: { Type: "bind" as const, Destination: "/a", RW: true, Propagation: "rshared" }, source: "/host/a" },
  ];
  const spec = buildSpec(input({ Tmpfs: { "/t": "size=1m" } }, { points }));
  const destinations = spec.mounts!.map((each) => each.destination);
  expect(destinations.filter((each) => each === "/dev/shm")).toHaveLength(1);
  expect(destinations.indexOf("/a")).toBeLessThan(destinations.indexOf("/a/b"));
  expect(spec.mounts!.find((each) => each.destination === "/a/b")?.options).toEqual(["rbind", "ro", "rro", "rprivate"]);
  expect(spec.mounts!.find((each) => each.destination === "/t")?.options).toEqual(["nosuid", "nodev", "noexec", "size=1m"]);
  expect(spec.linux?.rootfsPropagation).toBe("shared");
});
