// Reads the cgroup of a container that another runtime made (our own runtime reads its own). Version 1, hybrid, and version 2.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { binding, check, close, EPOLLIN, O_CLOEXEC, O_RDONLY, open, read, SYS, watch } from "../linux/index.ts";
import type { CgroupStats } from "../runtime/face.ts";

export interface Cgroup {
  version: 1 | 2;
  /** Directory by controller name (version 1), or under "" (version 2). */
  dirs: Map<string, string>;
}

/** The cgroup that process is in; empty where it can't be seen. */
export function cgroupOf(pid: number): Cgroup {
  const mounts = new Map<string, string>();
  let unified: string | undefined;
  for (const line of text("/proc/self/mounts").split("\n")) {
    const [, where, type, options] = line.split(" ");
    if (type === "cgroup") for (const option of options!.split(",")) mounts.set(option, where!);
    else if (type === "cgroup2") unified = where;
  }
  const dirs = new Map<string, string>();
  for (const line of text(`/proc/${pid}/cgroup`).split("\n")) {
    const [hierarchy, names, ...rest] = line.split(":");
    const path = rest.join(":");
    if (hierarchy === "0" && unified) dirs.set("", `${unified}${path}`);
    else for (const name of names?.split(",") ?? []) if (mounts.has(name)) dirs.set(name, `${mounts.get(name)}${path}`);
  }
  const version = dirs.has("memory") || dirs.has("pids") || dirs.has("freezer") ? 1 : 2;
  return { version, dirs };
}

function text(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function main(cgroup: Cgroup): string | undefined {
  if (cgroup.version === 2) return cgroup.dirs.get("");
  // The deepest: a controller that the runtime left alone still shows the parent's.
  return ["pids", "freezer", "devices", "memory"].map((name) => cgroup.dirs.get(name)).find((dir) => dir !== undefined);
}

/** Every process in it and below. */
export function cgroupPids(cgroup: Cgroup): number[] {
  const pids: number[] = [];
  const visit = (dir: string): void => {
    for (const line of text(`${dir}/cgroup.procs`).split("\n")) if (line) pids.push(Number(line));
    let entries: string[] = [];
    try {
      entries = readdirSync(dir, { withFileTypes: true }).flatMap((entry) => (entry.isDirectory() ? [entry.name] : []));
    } catch {
      // it went away meanwhile
    }
    for (const entry of entries) visit(`${dir}/${entry}`);
  };
  const dir = main(cgroup);
  if (dir && existsSync(dir)) visit(dir);
  return pids;
}

function number(path: string): number {
  const value = text(path).trim();
  return value === "max" ? 2 ** 64 : Number(value || 0);
}

function table(path: string): Record<string, number> {
  const out: Record<string, number> = {};
  for (const line of text(path).split("\n")) {
    const [key, value] = line.split(" ");
    if (key && value !== undefined) out[key] = Number(value);
  }
  return out;
}

export function readStats(cgroup: Cgroup): CgroupStats {
  return cgroup.version === 1 ? readVersion1(cgroup) : readVersion2(cgroup.dirs.get("") ?? "/nonexistent");
}

function readVersion1({ dirs }: Cgroup): CgroupStats {
  const stats: CgroupStats = { version: 1 };
  const memory = dirs.get("memory");
  if (memory)
    stats.memory = {
      usage: number(`${memory}/memory.usage_in_bytes`),
      maxUsage: number(`${memory}/memory.max_usage_in_bytes`),
      limit: number(`${memory}/memory.limit_in_bytes`),
      failcnt: number(`${memory}/memory.failcnt`),
      stat: table(`${memory}/memory.stat`),
    };
  const cpuacct = dirs.get("cpuacct");
  if (cpuacct) {
    const split = table(`${cpuacct}/cpuacct.stat`);
    const throttled = table(`${dirs.get("cpu") ?? cpuacct}/cpu.stat`);
    // cpuacct.stat counts in USER_HZ, which is 100 in the kernel's interface to user space.
    const tick = 1e7;
    stats.cpu = {
      usage: number(`${cpuacct}/cpuacct.usage`),
      user: (split.user ?? 0) * tick,
      system: (split.system ?? 0) * tick,
      perCpu: text(`${cpuacct}/cpuacct.usage_percpu`).trim().split(" ").filter(Boolean).map(Number),
      periods: throttled.nr_periods ?? 0,
      throttledPeriods: throttled.nr_throttled ?? 0,
      throttledTime: throttled.throttled_time ?? 0,
    };
  }
  const pids = dirs.get("pids");
  if (pids) stats.pids = { current: number(`${pids}/pids.current`), limit: number(`${pids}/pids.max`) };
  const blkio = dirs.get("blkio");
  if (blkio)
    stats.blkio = [
      ...version1Blkio(`${blkio}/blkio.throttle.io_service_bytes_recursive`, "serviceBytes"),
      ...version1Blkio(`${blkio}/blkio.throttle.io_serviced_recursive`, "serviced"),
    ];
  return stats;
}

function version1Blkio(path: string, kind: "serviceBytes" | "serviced"): NonNullable<CgroupStats["blkio"]> {
  return text(path)
    .split("\n")
    .flatMap((line) => {
      const match = /^(\d+):(\d+) (\w+) (\d+)$/.exec(line);
      return match ? [{ major: Number(match[1]), minor: Number(match[2]), op: match[3]!, value: Number(match[4]), kind }] : [];
    });
}

function readVersion2(dir: string): CgroupStats {
  const stats: CgroupStats = { version: 2 };
  if (existsSync(`${dir}/memory.current`)) {
    const events = table(`${dir}/memory.events`);
    stats.memory = {
      usage: number(`${dir}/memory.current`),
      maxUsage: number(`${dir}/memory.peak`),
      limit: number(`${dir}/memory.max`),
      failcnt: events.max ?? 0,
      stat: table(`${dir}/memory.stat`),
      events,
    };
    if (existsSync(`${dir}/memory.swap.current`))
      stats.memory.swap = { usage: number(`${dir}/memory.swap.current`), limit: number(`${dir}/memory.swap.max`) };
  }
  const cpu = table(`${dir}/cpu.stat`);
  if (cpu.usage_usec !== undefined)
    stats.cpu = {
      usage: cpu.usage_usec * 1000,
      user: (cpu.user_usec ?? 0) * 1000,
      system: (cpu.system_usec ?? 0) * 1000,
      perCpu: [],
      periods: cpu.nr_periods ?? 0,
      throttledPeriods: cpu.nr_throttled ?? 0,
      throttledTime: (cpu.throttled_usec ?? 0) * 1000,
    };
  if (existsSync(`${dir}/pids.current`)) stats.pids = { current: number(`${dir}/pids.current`), limit: number(`${dir}/pids.max`) };
  return stats;
}

/** Version 1 tells by an eventfd, version 2 by a change of memory.events. Ends with the returned function, which tells what is not told yet. */
export function watchOom(cgroup: Cgroup, callback: () => void): () => void {
  try {
    return cgroup.version === 1 ? watchVersion1(cgroup.dirs.get("memory"), callback) : watchVersion2(cgroup.dirs.get(""), callback);
  } catch {
    // no memory controller here: nothing to hear
    return () => {};
  }
}

function watchVersion1(dir: string | undefined, callback: () => void): () => void {
  if (!dir) return () => {};
  const control = open(`${dir}/memory.oom_control`, O_RDONLY);
  const event = check(binding.syscall(SYS.eventfd2, 0, O_CLOEXEC | 0o4000), "eventfd2");
  const end = (): void => {
    close(event);
    close(control);
  };
  try {
    const fd = open(`${dir}/cgroup.event_control`, 1);
    const line = Buffer.from(`${event} ${control}`);
    const written = binding.syscall(SYS.write, fd, line, line.length);
    close(fd);
    check(written, "write cgroup.event_control");
  } catch (error) {
    end();
    throw error;
  }
  const counter = new Uint8Array(8);
  const look = (): void => {
    // The removal of the cgroup makes an event too.
    if (read(event, counter) && existsSync(dir)) callback();
  };
  const watching = watch(event, EPOLLIN, look, { ref: false });
  return once(() => {
    watching.close();
    look();
    end();
  });
}

function watchVersion2(dir: string | undefined, callback: () => void): () => void {
  if (!dir || !existsSync(`${dir}/memory.events`)) return () => {};
  const IN_MODIFY = 2;
  const fd = check(binding.syscall(SYS.inotify_init1, O_CLOEXEC | 0o4000), "inotify_init1");
  check(binding.syscall(SYS.inotify_add_watch, fd, `${dir}/memory.events`, IN_MODIFY), "inotify_add_watch");
  const buffer = new Uint8Array(4096);
  const kills = () => table(`${dir}/memory.events`).oom_kill ?? 0;
  let seen = kills();
  const look = (): void => {
    const now = kills();
    if (now > seen) callback();
    seen = now;
  };
  const watching = watch(
    fd,
    EPOLLIN,
    () => {
      read(fd, buffer);
      look();
    },
    { ref: false },
  );
  return once(() => {
    watching.close();
    close(fd);
    look();
  });
}

function once(end: () => void): () => void {
  let ended = false;
  return () => {
    if (ended) return;
    ended = true;
    end();
  };
}
