// cgroup v1: a hierarchy per controller (kernel's Documentation/admin-guide/cgroup-v1).
import { Failure, failedPrecondition, invalidArgument } from "../../lib/errors.ts";
import { dirname } from "../../lib/paths.ts";
import {
  binding,
  check,
  close,
  EPOLLIN,
  errno,
  existsSync,
  kernelRelease,
  O_RDONLY,
  O_WRONLY,
  open,
  read,
  SYS,
  utf8,
  watch,
} from "../../linux/index.ts";
import type { Resources } from "../../oci/runtime-spec.ts";
import type { CgroupStats, Counter } from "../face.ts";
import { effectiveRules, ruleText } from "./devices.ts";
import {
  changeLimits,
  codeOf,
  hugePageSizes,
  makeCgroup,
  pidsBelow,
  readAgain,
  readKeyed,
  readNumber,
  readText,
  removeTrees,
  tree,
  write,
} from "./files.ts";
import { type CgroupLocation, type CgroupWrite, type ControlGroups, hierarchies } from "./index.ts";

type Write = (controller: string, name: string, value: string | number, what: string, ignore?: CgroupWrite["ignore"]) => void;

/** Kernels without accounting of swap (swapaccount=0) have no memory.memsw files: the memory's own limit then holds. */
const NOT_THERE = [errno.ENOENT];

/** Every limit as writes, in an order that is right for a cgroup whose memory is not yet limited. */
function limits(resources: Resources, put: Write): void {
  const { memory, cpu, pids, blockIO } = resources;
  if (memory) {
    const limit = memory.limit;
    const swap = memory.swap || (limit === -1 ? -1 : undefined);
    const writes: (() => void)[] = [];
    if (limit) writes.push(() => put("memory", "memory.limit_in_bytes", limit, `limit memory to ${limit} bytes`));
    if (swap) writes.push(() => put("memory", "memory.memsw.limit_in_bytes", swap, `limit memory and swap to ${swap} bytes`, NOT_THERE));
    // Both unlimited: the limit of the sum must never be below that of the memory.
    if (limit === -1) writes.reverse();
    for (const each of writes) each();
    if (memory.reservation) put("memory", "memory.soft_limit_in_bytes", memory.reservation, "set the memory reservation");
    if (memory.kernelTCP) put("memory", "memory.kmem.tcp.limit_in_bytes", memory.kernelTCP, "limit memory of TCP buffers");
    // -1 stands for none (Docker's default); 2^64-1 is the same by a client that has no negative numbers.
    if (memory.swappiness !== undefined && memory.swappiness >= 0 && memory.swappiness < Number.MAX_SAFE_INTEGER) {
      if (memory.swappiness > 100) throw invalidArgument(`invalid value: ${memory.swappiness}. valid memory swappiness range is 0-100`);
      put("memory", "memory.swappiness", memory.swappiness, "set the swappiness");
    }
    if (memory.disableOOMKiller) put("memory", "memory.oom_control", 1, "disable the OOM killer");
  }
  if (cpu) {
    if (cpu.shares) put("cpu", "cpu.shares", cpu.shares, "set cpu shares");
    if (cpu.realtimePeriod) put("cpu", "cpu.rt_period_us", cpu.realtimePeriod, "set the realtime period");
    if (cpu.realtimeRuntime) put("cpu", "cpu.rt_runtime_us", cpu.realtimeRuntime, "set the realtime runtime");
    if (cpu.period) put("cpu", "cpu.cfs_period_us", cpu.period, "set the cpu period");
    if (cpu.quota) put("cpu", "cpu.cfs_quota_us", cpu.quota, "set the cpu quota");
    if (cpu.burst !== undefined) put("cpu", "cpu.cfs_burst_us", cpu.burst, "set the cpu burst", NOT_THERE);
    if (cpu.idle !== undefined) put("cpu", "cpu.idle", cpu.idle, "set cpu idle");
    if (cpu.cpus) put("cpuset", "cpuset.cpus", cpu.cpus, `allow cpus ${cpu.cpus}`);
    if (cpu.mems) put("cpuset", "cpuset.mems", cpu.mems, `allow memory nodes ${cpu.mems}`);
  }
  // 0 stands for the least that there can be (runc 1.4 and later).
  if (pids?.limit !== undefined) put("pids", "pids.max", pids.limit < 0 ? "max" : pids.limit || 1, "limit the number of processes");
  if (blockIO) {
    if (blockIO.weight) put("blkio", weightFile("weight"), blockIO.weight, "set the i/o weight");
    if (blockIO.leafWeight) put("blkio", "blkio.leaf_weight", blockIO.leafWeight, "set the i/o leaf weight");
    for (const d of blockIO.weightDevice ?? []) {
      const device = `${d.major}:${d.minor}`;
      if (d.weight) put("blkio", weightFile("weight_device"), `${device} ${d.weight}`, "set a device's i/o weight");
      if (d.leafWeight) put("blkio", "blkio.leaf_weight_device", `${device} ${d.leafWeight}`, "set a device's i/o leaf weight");
    }
    const throttles = [
      ["blkio.throttle.read_bps_device", blockIO.throttleReadBpsDevice],
      ["blkio.throttle.write_bps_device", blockIO.throttleWriteBpsDevice],
      ["blkio.throttle.read_iops_device", blockIO.throttleReadIOPSDevice],
      ["blkio.throttle.write_iops_device", blockIO.throttleWriteIOPSDevice],
    ] as const;
    for (const [name, devices] of throttles) {
      for (const d of devices ?? []) put("blkio", name, `${d.major}:${d.minor} ${d.rate ?? 0}`, `throttle device ${d.major}:${d.minor}`);
    }
  }
  for (const { pageSize, limit } of resources.hugepageLimits ?? []) {
    put("hugetlb", `hugetlb.${pageSize}.limit_in_bytes`, limit, `limit huge pages of ${pageSize}`);
    put("hugetlb", `hugetlb.${pageSize}.rsvd.limit_in_bytes`, limit, `limit reservations of huge pages of ${pageSize}`, NOT_THERE);
  }
  if (resources.network?.classID) put("net_cls", "net_cls.classid", resources.network.classID, "set the network class");
  for (const { name, priority } of resources.network?.priorities ?? []) {
    put("net_prio", "net_prio.ifpriomap", `${name} ${priority}`, `set the network priority of ${name}`);
  }
  for (const [name, { hcaHandles, hcaObjects }] of Object.entries(resources.rdma ?? {})) {
    put("rdma", "rdma.max", `${name} hca_handle=${hcaHandles ?? "max"} hca_object=${hcaObjects ?? "max"}`, `limit rdma device ${name}`);
  }
  if (resources.unified && Object.keys(resources.unified).length > 0) {
    throw invalidArgument("invalid configuration: cannot use unified on cgroup v1");
  }
}

let bfq: boolean | undefined;
/** CFQ's files went with it in Linux 5.0; neither's are at the hierarchy's root, where one could look. */
function weightFile(name: "weight" | "weight_device"): string {
  bfq ??= Number.parseInt(kernelRelease(), 10) >= 5;
  return bfq ? `blkio.bfq.${name}` : `blkio.${name}`;
}

function deviceWrites(resources: Resources, put: Write, ignore: CgroupWrite["ignore"]): void {
  const { allowAll, rules } = effectiveRules(resources.devices ?? []);
  if (!allowAll) put("devices", "devices.deny", "a", "deny all devices", ignore);
  for (const rule of rules) {
    const text = ruleText(rule);
    put("devices", rule.allow ? "devices.allow" : "devices.deny", text, `${rule.allow ? "allow" : "deny"} device ${text}`, ignore);
  }
}

const prepared = new Set<string>();

/** A cpuset without cpus or memory takes no process: what a parent lacks it gets from its own parent. */
function prepareParent(controller: string, directory: string, top: string): void {
  const parent = dirname(directory);
  if (!parent.startsWith(`${top}/`) || ((prepared.has(parent) || controller !== "cpuset") && existsSync(parent))) return;
  prepareParent(controller, parent, top);
  makeCgroup(parent);
  if (controller === "cpuset") {
    for (const [name, value] of inherited(parent))
      if (!readText(`${parent}/${name}`)?.trim()) write({ file: `${parent}/${name}`, value, why: "prepare a cpuset" });
  }
  prepared.add(parent);
}

function inherited(directory: string): [name: string, value: string][] {
  const parent = dirname(directory);
  return ["cpuset.cpus", "cpuset.mems"].map((name) => [name, (readAgain(`${parent}/${name}`) ?? "").trim()]);
}

export function controlGroupsV1(location: CgroupLocation): ControlGroups {
  const { directories, rootless = false } = location;
  const all: string[] = [];
  for (const controller of Object.keys(directories)) if (!all.includes(directories[controller]!)) all.push(directories[controller]!);
  // The v2 hierarchy of a hybrid machine has no controllers; clone3 puts processes there.
  const into = directories[""] === undefined ? {} : { into: directories[""] };
  const join: string[] = [];
  for (const directory of all) if (directory !== directories[""]) join.push(directory);
  const of = (controller: string, name: string) => `${directories[controller] ?? "/nonexistent"}/${name}`;

  const collect = (writes: CgroupWrite[]): Write => {
    return (controller, name, value, why, ignore) => {
      const directory = directories[controller];
      if (!directory && rootless) throw invalidArgument(`cannot set ${controller} limit: container could not join or create cgroup`);
      if (!directory) throw new Failure("FailedPrecondition", `cannot ${why}: this system has no ${controller} cgroup`);
      writes.push({ file: `${directory}/${name}`, value: String(value), why, ...(ignore ? { ignore } : {}) });
    };
  };

  return {
    plan(resources, rehearsal = false) {
      const writes: CgroupWrite[] = [];
      const put = collect(writes);
      const { mounts: top, own } = hierarchies();
      for (const controller of rehearsal ? [] : Object.keys(directories)) {
        const directory = directories[controller]!;
        prepareParent(controller, directory, top.get(controller) ?? dirname(directory));
      }
      if (directories.cpuset)
        for (const [name, value] of inherited(directories.cpuset)) put("cpuset", name, value, "give the cpuset what its parent has");
      limits(resources, put);
      // Whom the machine does not trust with devices is not asked about them: inside a user namespace none can be made.
      if (directories.devices) deviceWrites(resources, put, rootless ? "all" : undefined);
      const mounts = new Map<string, { name: string; links: string[]; directory: string }>();
      for (const [controller, mountPoint] of top) {
        if (controller === "") continue;
        const directory = directories[controller] ?? (rootless ? `${mountPoint}${own.get(controller) ?? ""}` : undefined);
        if (!directory) continue;
        const name = mountPoint.slice(mountPoint.lastIndexOf("/") + 1);
        const entry = mounts.get(name) ?? { name, links: [], directory };
        if (controller !== name) entry.links.push(controller);
        mounts.set(name, entry);
      }
      return { version: 1, directories: all, writes, join, ...into, mounts: [...mounts.values()] };
    },
    planJoin: () => ({ version: 1, directories: [], writes: [], join, ...into, mounts: [] }),
    pids: () => pidsBelow(directories.pids ?? directories.freezer ?? all[0] ?? "/nonexistent"),
    change(resources) {
      const writes: CgroupWrite[] = [];
      limits(resources, collect(writes));
      try {
        return changeLimits(writes);
      } catch (error) {
        const limit = resources.memory?.limit;
        if (!limit || codeOf((error as Error).cause) !== "EBUSY") throw error;
        // What is used cannot be taken back; in runc's words.
        const used = (name: string) => readNumber(of("memory", name)) ?? 0;
        const usage = `current usage: ${used("memory.usage_in_bytes")}, peak usage: ${used("memory.max_usage_in_bytes")}`;
        throw failedPrecondition(`unable to set memory limit to ${limit} (${usage})`);
      }
    },
    stats: () => stats(of, directories),
    async freeze(on) {
      if (!directories.freezer) throw new Failure("FailedPrecondition", "this system has no freezer cgroup");
      const file = of("freezer", "freezer.state");
      const wanted = on ? "FROZEN" : "THAWED";
      for (let tries = 0; ; tries++) {
        write({ file, value: wanted, why: on ? "freeze the container" : "thaw the container" });
        if (readText(file)?.trim() === wanted) return;
        if (tries >= 1000) {
          write({ file, value: "THAWED", why: "thaw the container", ignore: "all" });
          throw new Failure("Unknown", "the container could not be frozen in time");
        }
        // A process in the middle of a fork keeps the state at FREEZING; thawing for a moment lets it through (as runc found).
        if (on && tries % 50 === 49) write({ file, value: "THAWED", why: "thaw for a moment", ignore: "all" });
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
    },
    frozen: () => /FROZEN|FREEZING/.test(readText(of("freezer", "freezer.state")) ?? ""),
    onOom(callback) {
      if (!directories.memory) return () => {};
      const event = check(binding.syscall(SYS.eventfd2, 0, 0o2000000 | 0o4000), "eventfd2");
      let control = -1;
      try {
        control = open(of("memory", "memory.oom_control"), O_RDONLY);
        const fd = open(of("memory", "cgroup.event_control"), O_WRONLY);
        const line = utf8(`${event} ${control}`);
        try {
          check(binding.syscall(SYS.write, fd, line, line.length), "register for OOM events");
        } finally {
          close(fd);
        }
      } catch (error) {
        close(event);
        close(control);
        throw error;
      }
      const buffer = new Uint8Array(8);
      const look = () => {
        // The removal of the cgroup signals too.
        if (read(event, buffer) && existsSync(of("memory", "memory.oom_control"))) callback();
      };
      const watching = watch(event, EPOLLIN, look, { ref: false });
      let closed = false;
      return () => {
        if (closed) return;
        closed = true;
        watching.close();
        look();
        close(event);
        close(control);
      };
    },
    remove: (force) =>
      removeTrees(all, force, () => {
        for (const cgroup of tree(directories.freezer ?? "/nonexistent"))
          write({ file: `${cgroup}/freezer.state`, value: "THAWED", why: "thaw", ignore: "all" });
      }),
  };
}

const TICK = 10_000_000; // USER_HZ is 100 everywhere; nanoseconds

function stats(of: (controller: string, name: string) => string, directories: Record<string, string>): CgroupStats {
  const result: CgroupStats = { version: 1 };
  const usage = readNumber(of("memory", "memory.usage_in_bytes"));
  if (usage !== undefined) {
    const counter = (name: string) => counterOf((file) => of("memory", `memory.${name}.${file}`));
    const [swap, kernel, kernelTcp] = ["memsw", "kmem", "kmem.tcp"].map(counter);
    result.memory = {
      usage,
      maxUsage: readNumber(of("memory", "memory.max_usage_in_bytes")) ?? 0,
      limit: readNumber(of("memory", "memory.limit_in_bytes")) ?? 0,
      failcnt: readNumber(of("memory", "memory.failcnt")) ?? 0,
      stat: readKeyed(of("memory", "memory.stat")),
      ...(swap ? { swap } : {}),
      ...(kernel ? { kernel } : {}),
      ...(kernelTcp ? { kernelTcp } : {}),
    };
  }
  const cpu = readNumber(of("cpuacct", "cpuacct.usage"));
  if (cpu !== undefined) {
    const ticks = readKeyed(of("cpuacct", "cpuacct.stat"));
    const throttle = readKeyed(of("cpu", "cpu.stat"));
    result.cpu = {
      usage: cpu,
      user: (ticks.user ?? 0) * TICK,
      system: (ticks.system ?? 0) * TICK,
      perCpu: (readText(of("cpuacct", "cpuacct.usage_percpu")) ?? "").trim().split(/\s+/).filter(Boolean).map(Number),
      periods: throttle.nr_periods ?? 0,
      throttledPeriods: throttle.nr_throttled ?? 0,
      throttledTime: throttle.throttled_time ?? 0,
    };
  }
  const current = readNumber(of("pids", "pids.current"));
  if (current !== undefined) result.pids = { current, limit: readNumber(of("pids", "pids.max")) ?? 0 };
  if (directories.blkio) {
    result.blkio = [
      ...blockStats(readText(of("blkio", "blkio.throttle.io_service_bytes_recursive")) ?? "", "serviceBytes"),
      ...blockStats(readText(of("blkio", "blkio.throttle.io_serviced_recursive")) ?? "", "serviced"),
    ];
  }
  if (directories.hugetlb) {
    result.hugetlb = {};
    for (const size of hugePageSizes()) {
      const counter = counterOf((file) => of("hugetlb", `hugetlb.${size}.${file}`));
      if (counter) result.hugetlb[size] = counter;
    }
  }
  return result;
}

function counterOf(file: (name: string) => string): Counter | undefined {
  const usage = readNumber(file("usage_in_bytes"));
  if (usage === undefined) return undefined;
  return {
    usage,
    max: readNumber(file("max_usage_in_bytes")) ?? 0,
    limit: readNumber(file("limit_in_bytes")) ?? 0,
    failcnt: readNumber(file("failcnt")) ?? 0,
  };
}

function blockStats(text: string, kind: "serviceBytes" | "serviced"): NonNullable<CgroupStats["blkio"]> {
  const entries: NonNullable<CgroupStats["blkio"]> = [];
  for (const line of text.split("\n")) {
    const match = /^(\d+):(\d+) (\w+) (\d+)$/.exec(line);
    if (match) entries.push({ major: Number(match[1]), minor: Number(match[2]), op: match[3]!, value: Number(match[4]), kind });
  }
  return entries;
}
