// cgroup v2 (kernel's Documentation/admin-guide/cgroup-v2).
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { Failure } from "../../lib/errors.ts";
import { binding, check, close, EPOLLIN, errno, read, SYS, watch } from "../../linux/index.ts";
import type { Resources } from "../../oci/runtime-spec.ts";
import type { CgroupStats } from "../face.ts";
import { deviceProgram } from "./devices.ts";
import { codeOf, pidsBelow, readKeyed, readNumber, readText, removeTrees, write } from "./files.ts";
import { type Cgroup, type CgroupLocation, type CgroupPlan, type CgroupWrite, hierarchies } from "./index.ts";

const CONTROLLERS = ["cpu", "cpuset", "io", "memory", "pids", "hugetlb", "rdma"];

/** v1's cpu.shares 2…262144 on v2's cpu.weight 1…10000. */
export function cpuWeight(shares: number): number {
  return shares === 0 ? 0 : 1 + Math.floor(((Math.min(Math.max(shares, 2), 262144) - 2) * 9999) / 262142);
}

/** v1's blkio weight 10…1000 on v2's io.weight 1…10000. */
export function ioWeight(weight: number): number {
  return weight === 0 ? 0 : 1 + Math.floor(((weight - 10) * 9999) / 990);
}

const orMax = (value: number) => (value < 0 ? "max" : String(value));

type Put = (name: string, value: string | number, why: string, ignore?: number[]) => void;

function limits(resources: Resources, put: Put, directory: string): void {
  const { memory, cpu, pids, blockIO } = resources;
  if (memory) {
    const { limit = 0, swap = 0 } = memory;
    if (swap) {
      if (swap > 0 && limit <= 0) throw new Failure("InvalidArgument", "a limit of memory and swap together needs a limit of memory");
      // A kernel that does not count swap has no such file: where nothing is to be limited, nothing is missing.
      const missing = swap < 0 || swap === limit ? [errno.ENOENT] : undefined;
      put("memory.swap.max", swap < 0 ? "max" : swap - limit, "limit swap", missing);
    } else if (limit === -1) put("memory.swap.max", "max", "limit swap", [errno.ENOENT]);
    if (limit) put("memory.max", orMax(limit), `limit memory to ${limit} bytes`);
    if (memory.reservation) put("memory.low", orMax(memory.reservation), "set the memory reservation");
  }
  if (cpu) {
    if (cpu.shares) put("cpu.weight", cpuWeight(cpu.shares), "set the cpu weight");
    if (cpu.idle !== undefined) put("cpu.idle", cpu.idle, "set cpu idle");
    if (cpu.quota || cpu.period)
      put("cpu.max", `${cpu.quota && cpu.quota > 0 ? cpu.quota : "max"} ${cpu.period || 100000}`, "set the cpu quota");
    if (cpu.burst !== undefined) put("cpu.max.burst", cpu.burst, "set the cpu burst");
    if (cpu.cpus) put("cpuset.cpus", cpu.cpus, `allow cpus ${cpu.cpus}`);
    if (cpu.mems) put("cpuset.mems", cpu.mems, `allow memory nodes ${cpu.mems}`);
  }
  if (pids?.limit) put("pids.max", orMax(pids.limit), "limit the number of processes");
  if (blockIO?.weight) {
    if (existsSync(`${directory}/io.bfq.weight`)) put("io.bfq.weight", blockIO.weight, "set the i/o weight");
    else put("io.weight", ioWeight(blockIO.weight), "set the i/o weight");
  }
  const throttles = [
    ["rbps", blockIO?.throttleReadBpsDevice],
    ["wbps", blockIO?.throttleWriteBpsDevice],
    ["riops", blockIO?.throttleReadIOPSDevice],
    ["wiops", blockIO?.throttleWriteIOPSDevice],
  ] as const;
  for (const [key, devices] of throttles) {
    for (const d of devices ?? [])
      put("io.max", `${d.major}:${d.minor} ${key}=${d.rate || "max"}`, `throttle device ${d.major}:${d.minor}`);
  }
  for (const { pageSize, limit } of resources.hugepageLimits ?? [])
    put(`hugetlb.${pageSize}.max`, limit, `limit huge pages of ${pageSize}`);
  for (const [name, { hcaHandles, hcaObjects }] of Object.entries(resources.rdma ?? {})) {
    put("rdma.max", `${name} hca_handle=${hcaHandles ?? "max"} hca_object=${hcaObjects ?? "max"}`, `limit rdma device ${name}`);
  }
  for (const [name, value] of Object.entries(resources.unified ?? {})) {
    if (name.includes("/"))
      throw new Failure("InvalidArgument", `unified resource ${JSON.stringify(name)} must be a file name (no slashes)`);
    put(name, value, `set ${name}`);
  }
}

const prepared = new Set<string>();

/** Makes `directory` and hands its controllers on to its children. */
function prepareParent(directory: string, top: string): void {
  if (prepared.has(directory) && existsSync(directory)) return;
  if (directory !== top) {
    prepareParent(dirname(directory), top);
    try {
      mkdirSync(directory);
    } catch (error) {
      if (codeOf(error) !== "EEXIST") throw new Failure("Unknown", `make cgroup ${directory}: ${(error as Error).message}`);
    }
  }
  const available = (readText(`${directory}/cgroup.controllers`) ?? "").trim().split(" ");
  const on = new Set((readText(`${directory}/cgroup.subtree_control`) ?? "").trim().split(" "));
  for (const controller of CONTROLLERS) {
    if (!available.includes(controller) || on.has(controller)) continue;
    try {
      writeFileSync(`${directory}/cgroup.subtree_control`, `+${controller}`);
    } catch {
      // A cgroup that holds processes itself cannot hand controllers on; limits that need them then fail with their own names.
    }
  }
  prepared.add(directory);
}

export function controlGroupsV2(location: CgroupLocation): Cgroup {
  const directory = location.directories[""] ?? "/nonexistent";
  const file = (name: string) => `${directory}/${name}`;
  const collect = (resources: Resources): CgroupWrite[] => {
    const writes: CgroupWrite[] = [];
    const put: Put = (name, value, why, ignore) =>
      writes.push({ file: file(name), value: String(value), why, ...(ignore ? { ignore } : {}) });
    limits(resources, put, directory);
    return writes;
  };
  const top = () => hierarchies().mounts.get("") ?? "/sys/fs/cgroup";
  return {
    plan(resources, rehearsal = false) {
      if (!rehearsal) prepareParent(dirname(directory), top());
      const plan: CgroupPlan = {
        version: 2,
        directories: [directory],
        writes: collect(resources),
        join: [directory],
        mounts: [{ name: "", links: [], directory, withoutNamespace: top() }],
      };
      const program = deviceProgram(resources.devices ?? []);
      if (program) plan.devices = program;
      return plan;
    },
    planJoin(init) {
      let joined = directory;
      // A cgroup that hands controllers on holds no processes: the container's own manager has moved init below.
      if (readText(file("cgroup.subtree_control"))?.trim()) {
        const own = /^0::(.*)$/m.exec(readText(`/proc/${init}/cgroup`) ?? "")?.[1];
        if (own && `${top()}${own}/`.startsWith(`${directory}/`)) joined = `${top()}${own}`;
      }
      return { version: 2, directories: [], writes: [], join: [joined], mounts: [] };
    },
    pids: () => pidsBelow(directory),
    apply(resources) {
      for (const each of collect(resources)) write(each);
    },
    stats: () => stats(file),
    async freeze(on) {
      write({ file: file("cgroup.freeze"), value: on ? "1" : "0", why: on ? "freeze the container" : "thaw the container" });
      for (let tries = 0; readKeyed(file("cgroup.events")).frozen !== (on ? 1 : 0); tries++) {
        if (tries >= 1000) {
          write({ file: file("cgroup.freeze"), value: "0", why: "thaw the container", ignore: "all" });
          throw new Failure("Unknown", "the container could not be frozen in time");
        }
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
    },
    frozen: () => readText(file("cgroup.freeze"))?.trim() === "1",
    onOom(callback) {
      const notify = check(binding.syscall(SYS.inotify_init1, 0o2000000 | 0o4000), "inotify_init1");
      const kills = () => readKeyed(file("memory.events")).oom_kill ?? 0;
      if (binding.syscall(SYS.inotify_add_watch, notify, file("memory.events"), 2) < 0) {
        close(notify);
        return () => {};
      }
      let seen = kills();
      const look = () => {
        const now = kills();
        if (now > seen) callback();
        seen = now;
      };
      const buffer = new Uint8Array(4096);
      const watching = watch(
        notify,
        EPOLLIN,
        () => {
          read(notify, buffer);
          look();
        },
        { ref: false },
      );
      let closed = false;
      return () => {
        if (closed) return;
        closed = true;
        watching.close();
        close(notify);
        // The kernel tells of changes at most every ten milliseconds (CGROUP_FILE_NOTIFY_MIN_INTV): the killed process may be gone by then.
        look();
      };
    },
    remove: (force) => removeTrees([directory], force, () => write({ file: file("cgroup.kill"), value: "1", why: "kill", ignore: "all" })),
  };
}

function stats(file: (name: string) => string): CgroupStats {
  const result: CgroupStats = { version: 2 };
  const usage = readNumber(file("memory.current"));
  if (usage !== undefined) {
    const events = readKeyed(file("memory.events"));
    result.memory = {
      usage,
      maxUsage: readNumber(file("memory.peak")) ?? 0,
      limit: readNumber(file("memory.max")) ?? Number.MAX_SAFE_INTEGER,
      failcnt: events.max ?? 0,
      stat: readKeyed(file("memory.stat")),
      events,
    };
    const swap = readNumber(file("memory.swap.current"));
    if (swap !== undefined) result.memory.swap = { usage: swap, limit: readNumber(file("memory.swap.max")) ?? Number.MAX_SAFE_INTEGER };
  }
  const cpu = readKeyed(file("cpu.stat"));
  if (cpu.usage_usec !== undefined) {
    result.cpu = {
      usage: cpu.usage_usec * 1000,
      user: (cpu.user_usec ?? 0) * 1000,
      system: (cpu.system_usec ?? 0) * 1000,
      perCpu: [],
      periods: cpu.nr_periods ?? 0,
      throttledPeriods: cpu.nr_throttled ?? 0,
      throttledTime: (cpu.throttled_usec ?? 0) * 1000,
    };
  }
  const current = readNumber(file("pids.current"));
  if (current !== undefined) result.pids = { current, limit: readNumber(file("pids.max")) ?? 0 };
  const io = readText(file("io.stat"));
  if (io !== undefined) result.blkio = blockStats(io);
  return result;
}

const ioKeys: Record<string, [op: string, kind: "serviceBytes" | "serviced"]> = {
  rbytes: ["read", "serviceBytes"],
  wbytes: ["write", "serviceBytes"],
  rios: ["read", "serviced"],
  wios: ["write", "serviced"],
};

function blockStats(text: string): NonNullable<CgroupStats["blkio"]> {
  const entries: NonNullable<CgroupStats["blkio"]> = [];
  for (const line of text.split("\n")) {
    const [device, ...pairs] = line.split(" ");
    const [major, minor] = (device ?? "").split(":").map(Number);
    if (major === undefined || minor === undefined || Number.isNaN(minor)) continue;
    for (const pair of pairs) {
      const [key, value] = pair.split("=");
      const known = ioKeys[key ?? ""];
      if (known) entries.push({ major, minor, op: known[0], value: Number(value), kind: known[1] });
    }
  }
  return entries;
}
