// What `docker info` says about the host, read from the kernel.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { release } from "node:os";
import { hasApparmor } from "../../linux/index.ts";

function text(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

export const kernelVersion = release;

/** PRETTY_NAME of os-release(5). */
export function operatingSystem(): { name: string; version: string } {
  const release = text("/etc/os-release") || text("/usr/lib/os-release");
  const value = (key: string) => new RegExp(`^${key}="?([^"\n]*)"?$`, "m").exec(release)?.[1] ?? "";
  return { name: value("PRETTY_NAME") || "Linux", version: value("VERSION_ID") };
}

export const ARCHITECTURES: Record<string, string> = { x64: "x86_64", arm64: "aarch64", arm: "armv7l", ia32: "i686" };

export interface CgroupAbilities {
  version: "1" | "2";
  memoryLimit: boolean;
  swapLimit: boolean;
  oomKillDisable: boolean;
  cpuCfs: boolean;
  cpuShares: boolean;
  cpuset: boolean;
  pidsLimit: boolean;
}

/** Which limits this host's control groups can set. */
export function cgroupAbilities(root = "/sys/fs/cgroup"): CgroupAbilities {
  const controllers = existsSync(`${root}/cgroup.controllers`) ? text(`${root}/cgroup.controllers`).trim().split(" ") : undefined;
  if (controllers) {
    const has = (name: string) => controllers.includes(name);
    return {
      version: "2",
      memoryLimit: has("memory"),
      swapLimit: has("memory"),
      oomKillDisable: false,
      cpuCfs: has("cpu"),
      cpuShares: has("cpu"),
      cpuset: has("cpuset"),
      pidsLimit: has("pids"),
    };
  }
  const has = (path: string) => existsSync(`${root}/${path}`);
  return {
    version: "1",
    memoryLimit: has("memory/memory.limit_in_bytes"),
    swapLimit: has("memory/memory.memsw.limit_in_bytes"),
    oomKillDisable: has("memory/memory.oom_control"),
    cpuCfs: has("cpu/cpu.cfs_quota_us"),
    cpuShares: has("cpu/cpu.shares"),
    cpuset: has("cpuset/cpuset.cpus"),
    pidsLimit: has("pids/cgroup.procs"),
  };
}

export function ipv4Forwarding(): boolean {
  return text("/proc/sys/net/ipv4/ip_forward").trim() === "1";
}

/** As dockerd lists them: "name=seccomp,profile=builtin", … */
export function securityOptions(): string[] {
  const options: string[] = [];
  if (hasApparmor()) options.push("name=apparmor");
  options.push("name=seccomp,profile=builtin");
  if (existsSync("/proc/self/ns/cgroup")) options.push("name=cgroupns");
  return options;
}

/** Descriptors that this process has open. */
export function openDescriptors(): number {
  try {
    return readdirSync("/proc/self/fd").length;
  } catch {
    return -1;
  }
}
