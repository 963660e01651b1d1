// What the host can: looked up once.
import { existsSync } from "node:fs";

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
