// cgroup v2 (kernel's Documentation/admin-guide/cgroup-v2).
import { Failure, failedPrecondition, invalidArgument } from "../../lib/errors.ts";
import { dirname } from "../../lib/paths.ts";
import { binding, check, close, EPOLLIN, errno, existsSync, read, SYS, watch, writeFileSync } from "../../linux/index.ts";
import type { Resources } from "../../oci/runtime-spec.ts";
import type { CgroupStats } from "../face.ts";
import { deviceProgram } from "./devices.ts";
import { changeLimits, hugePageSizes, makeCgroup, pidsBelow, readKeyed, readNumber, readText, removeTrees, write } from "./files.ts";
import { type CgroupLocation, type CgroupPlan, type CgroupWrite, type ControlGroups, hierarchies } from "./index.ts";

/** v1's cpu.shares 2…262144 on v2's cpu.weight 1…10000, so that the default 1024 becomes the default 100: as runc since 1.3.2 and crun since 1.23. */
export function cpuWeight(shares: number): number {
  if (shares === 0) return 0;
  if (shares <= 2) return 1;
  if (shares >= 262_144) return 10_000;
  const l = Math.log2(shares);
  return Math.ceil(10 ** ((l * l + 125 * l) / 612 - 7 / 34));
}

/** v1's blkio weight 10…1000 on v2's io.weight 1…10000. */
export function ioWeight(weight: number): number {
  return weight === 0 ? 0 : 1 + Math.floor(((weight - 10) * 9999) / 990);
}

const orMax = (value: number) => (value < 0 ? "max" : String(value));

type Put = (name: string, value: string | number, why: string, ignore?: number[]) => void;

const MISSING = [errno.ENOENT];

/** What of memory and swap together is swap; 0: not to be set (v1 counts them together, v2 apart). */
export function swapOf(limit: number, swap: number): number | "none" {
  if (limit === -1 && swap === 0) return -1;
  if (swap === -1 || swap === 0) return swap;
  if (limit <= 0) throw invalidArgument("unable to set swap limit without memory limit");
  if (swap < limit) throw invalidArgument("memory+swap limit should be >= memory limit");
  return swap === limit ? "none" : swap - limit;
}

function limits(resources: Resources, put: Put, top: string): void {
  const { memory, cpu, pids, blockIO } = resources;
  if (memory) {
    const { limit = 0, reservation } = memory;
    const swap = swapOf(limit, memory.swap ?? 0);
    // A kernel that does not count swap has no such file: where nothing is to be limited, nothing is missing.
    if (swap !== 0)
      put("memory.swap.max", swap === "none" ? 0 : orMax(swap), "limit swap", swap === "none" || swap < 0 ? MISSING : undefined);
    if (limit) put("memory.max", orMax(limit), `limit memory to ${limit} bytes`);
    if (reservation) put("memory.low", orMax(reservation), "set the memory reservation");
  }
  if (cpu) {
    if (cpu.shares) put("cpu.weight", cpuWeight(cpu.shares), "set the cpu weight");
    if (cpu.idle !== undefined) put("cpu.idle", cpu.idle, "set cpu idle");
    if (cpu.quota || cpu.period)
      put("cpu.max", `${cpu.quota && cpu.quota > 0 ? cpu.quota : "max"} ${cpu.period || DEFAULT_PERIOD}`, "set the cpu quota");
    if (cpu.burst !== undefined) put("cpu.max.burst", cpu.burst, "set the cpu burst", MISSING);
    if (cpu.cpus) put("cpuset.cpus", cpu.cpus, `allow cpus ${cpu.cpus}`);
    if (cpu.mems) put("cpuset.mems", cpu.mems, `allow memory nodes ${cpu.mems}`);
  }
  // 0 stands for the least that there can be (runc 1.4 and later).
  if (pids?.limit !== undefined) put("pids.max", orMax(pids.limit || 1), "limit the number of processes");
  if (blockIO) ioLimits(blockIO, put, top);
  for (const { pageSize, limit } of resources.hugepageLimits ?? []) {
    put(`hugetlb.${pageSize}.max`, limit, `limit huge pages of ${pageSize}`);
    put(`hugetlb.${pageSize}.rsvd.max`, limit, `limit reservations of huge pages of ${pageSize}`, MISSING);
  }
  for (const [name, { hcaHandles, hcaObjects }] of Object.entries(resources.rdma ?? {})) {
    put("rdma.max", `${name} hca_handle=${hcaHandles ?? "max"} hca_object=${hcaObjects ?? "max"}`, `limit rdma device ${name}`);
  }
  for (const [name, value] of Object.entries(resources.unified ?? {})) {
    if (name.includes("/")) throw invalidArgument(`unified resource ${JSON.stringify(name)} must be a file name (no slashes)`);
    if (!/.\../.test(name)) throw invalidArgument(`unified resource ${JSON.stringify(name)} must be in the form CONTROLLER.PARAMETER`);
    for (const line of value.split("\n")) if (line) put(name, line, `set ${name}`);
  }
}

const DEFAULT_PERIOD = 100_000;

/** Two schedulers can weigh: BFQ (its files are there once its module is) by v1's numbers, iocost by v2's. */
function ioLimits(io: NonNullable<Resources["blockIO"]>, put: Put, top: string): void {
  const iocost = existsSync(`${top}/io.cost.qos`);
  const bfqOnly = iocost ? MISSING : undefined;
  if (io.weight) {
    put("io.bfq.weight", io.weight, "set the i/o weight", bfqOnly);
    if (iocost) put("io.weight", ioWeight(io.weight), "set the i/o weight");
  }
  for (const { major, minor, weight } of io.weightDevice ?? [])
    if (weight) put("io.bfq.weight", `${major}:${minor} ${weight}`, "set a device's i/o weight", bfqOnly);
  const throttles = [
    ["rbps", io.throttleReadBpsDevice],
    ["wbps", io.throttleWriteBpsDevice],
    ["riops", io.throttleReadIOPSDevice],
    ["wiops", io.throttleWriteIOPSDevice],
  ] as const;
  for (const [key, devices] of throttles) {
    for (const d of devices ?? [])
      put("io.max", `${d.major}:${d.minor} ${key}=${d.rate || "max"}`, `throttle device ${d.major}:${d.minor}`);
  }
}

/** Whether something is asked for that needs a controller. */
function wantsLimits({ devices: _, ...resources }: Resources): boolean {
  const asked = (value: unknown): boolean =>
    typeof value === "object" && value !== null ? Object.values(value).some(asked) : Boolean(value);
  return asked(resources);
}

/** runc refuses as v1's kernel does: here it would kill at once. */
function checkUsage({ memory }: Resources, file: (name: string) => string): void {
  if (!memory?.checkBeforeUpdate) return;
  const usage = readNumber(file("memory.current"));
  if (usage === undefined) return;
  const { limit = 0, swap = 0 } = memory;
  if (swap > 0 && swap <= usage) throw failedPrecondition(`rejecting memory+swap limit ${swap} <= usage ${usage}`);
  if (limit > 0 && limit <= usage) throw failedPrecondition(`rejecting memory limit ${limit} <= usage ${usage}`);
}

/** Of quota and period, what is not asked for stays as it is. */
function withQuota({ cpu, ...rest }: Resources, file: (name: string) => string): Resources {
  if (!cpu || Boolean(cpu.quota) === Boolean(cpu.period)) return cpu ? { cpu, ...rest } : rest;
  const [quota, period] = (readText(file("cpu.max")) ?? "").trim().split(" ").map(Number);
  return { ...rest, cpu: { ...cpu, quota: cpu.quota || (quota ? quota : -1), period: cpu.period || period || DEFAULT_PERIOD } };
}

const prepared = new Set<string>();

/** Makes `directory` and hands its controllers on to its children. */
function prepareParent(directory: string, top: string): void {
  if (prepared.has(directory) && existsSync(directory)) return;
  if (directory !== top) {
    prepareParent(dirname(directory), top);
    makeCgroup(directory);
  }
  const available = (readText(`${directory}/cgroup.controllers`) ?? "").trim().split(" ");
  const on = new Set((readText(`${directory}/cgroup.subtree_control`) ?? "").trim().split(" "));
  for (const controller of available) {
    if (!controller || on.has(controller)) continue;
    try {
      writeFileSync(`${directory}/cgroup.subtree_control`, `+${controller}`);
    } catch {
      // A cgroup that holds processes itself cannot hand controllers on; limits that need them then fail with their own names.
    }
  }
  prepared.add(directory);
}

/** A unified limit whose controller is not handed down gives a sentence that says so. */
function checkUnified({ unified }: Resources, parent: string): void {
  const available = (readText(`${parent}/cgroup.subtree_control`) ?? "").trim().split(" ");
  for (const name of Object.keys(unified ?? {})) {
    const controller = name.slice(0, name.indexOf("."));
    if (controller !== "cgroup" && !available.includes(controller))
      throw failedPrecondition(
        `unified resource ${JSON.stringify(name)} can't be set: controller ${JSON.stringify(controller)} not available`,
      );
  }
}

export function controlGroupsV2(location: CgroupLocation): ControlGroups {
  const { rootless = false } = location;
  const made = location.directories[""];
  const directory = made ?? "/nonexistent";
  const file = (name: string) => `${directory}/${name}`;
  const collect = (resources: Resources): CgroupWrite[] => {
    const writes: CgroupWrite[] = [];
    const put: Put = (name, value, why, ignore) =>
      writes.push({ file: file(name), value: String(value), why, ...(ignore ? { ignore } : {}) });
    limits(resources, put, top());
    return writes;
  };
  const top = () => hierarchies().mounts.get("") ?? "/sys/fs/cgroup";
  return {
    plan(resources, rehearsal = false) {
      if (made === undefined) {
        // In runc's words.
        if (wantsLimits(resources))
          throw failedPrecondition("rootless needs no limits + no cgrouppath when no permission is granted for cgroups");
        const own = `${top()}${hierarchies().own.get("") ?? ""}`;
        return {
          version: 2,
          directories: [],
          writes: [],
          join: [],
          mounts: [{ name: "", links: [], directory: own, withoutNamespace: top() }],
        };
      }
      const writes = collect(resources);
      if (!rehearsal) {
        prepareParent(dirname(directory), top());
        checkUnified(resources, dirname(directory));
      }
      const plan: CgroupPlan = {
        version: 2,
        directories: [directory],
        writes,
        join: [directory],
        into: directory,
        mounts: [{ name: "", links: [], directory, withoutNamespace: top() }],
      };
      const program = deviceProgram(resources.devices ?? []);
      // Only who may load programs can attach rules; without a right to devices there is nothing to rule.
      if (program && !(rootless && process.geteuid?.() !== 0)) plan.devices = program;
      return plan;
    },
    planJoin(init) {
      if (made === undefined) return { version: 2, directories: [], writes: [], join: [], mounts: [] };
      let joined = directory;
      // Its init may have left it, and then anybody may have removed it.
      const gone = !existsSync(directory);
      // A cgroup that hands controllers on holds no processes: the container's own manager has moved init below.
      if (gone || readText(file("cgroup.subtree_control"))?.trim()) {
        const own = /^0::(.*)$/m.exec(readText(`/proc/${init}/cgroup`) ?? "")?.[1];
        if (own && (gone || `${top()}${own}/`.startsWith(`${directory}/`))) joined = `${top()}${own}`;
      }
      return { version: 2, directories: [], writes: [], join: [joined], into: joined, mounts: [] };
    },
    pids: () => pidsBelow(directory),
    change(resources) {
      checkUsage(resources, file);
      return changeLimits(collect(withQuota(resources, file)));
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
    if (swap !== undefined)
      result.memory.swap = {
        usage: swap,
        max: readNumber(file("memory.swap.peak")) ?? 0,
        limit: readNumber(file("memory.swap.max")) ?? Number.MAX_SAFE_INTEGER,
        failcnt: readKeyed(file("memory.swap.events")).max ?? 0,
      };
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
  for (const size of hugePageSizes()) {
    const usage = readNumber(file(`hugetlb.${size}.current`));
    if (usage === undefined) continue;
    result.hugetlb ??= {};
    result.hugetlb[size] = {
      usage,
      max: 0,
      limit: readNumber(file(`hugetlb.${size}.max`)) ?? Number.MAX_SAFE_INTEGER,
      failcnt: readKeyed(file(`hugetlb.${size}.events`)).max ?? 0,
    };
  }
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
