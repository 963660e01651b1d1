// What the host can: looked up once.
import { existsSync, readFileSync } from "node:fs";

let cgroupV2: boolean | undefined;
/** Whether /sys/fs/cgroup is the pure version 2 hierarchy. */
export function isCgroupV2(): boolean {
  cgroupV2 ??= existsSync("/sys/fs/cgroup/cgroup.controllers");
  return cgroupV2;
}

let swap: boolean | undefined;
/** Whether memory and swap can be limited together. */
export function swapLimit(): boolean {
  swap ??= isCgroupV2() ? existsSync("/proc/swaps") : existsSync("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes");
  return swap;
}

const INIT_NAMES = ["docker-init", "tini-static", "tini"];

/** The program for --init: as configured, or the first one on the PATH; undefined where there is none. */
export function findInit(configured: string | undefined): string | undefined {
  const candidates = configured ? [configured] : INIT_NAMES;
  for (const name of candidates) {
    if (name.startsWith("/")) {
      if (existsSync(name)) return name;
      continue;
    }
    for (const directory of (process.env.PATH || "/usr/local/bin:/usr/bin:/bin").split(":")) {
      if (existsSync(`${directory}/${name}`)) return `${directory}/${name}`;
    }
  }
  return undefined;
}

/** Whether the kernel confines by AppArmor. */
export function hasApparmor(): boolean {
  try {
    return readFileSync("/sys/module/apparmor/parameters/enabled", "utf8").startsWith("Y");
  } catch {
    return false;
  }
}
