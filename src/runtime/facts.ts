// What plans must know of this machine, asked once.
import { existsSync, readFileSync, statSync } from "node:fs";
import { release } from "node:os";
import { notFound } from "../lib/errors.ts";
import type { Facts } from "./plan/facts.ts";

let cached: Facts | undefined;

/** "6.1.0-18-cloud-amd64" as 6.01, so that versions compare as numbers. */
export function kernelVersion(text: string): number {
  const [major = 0, minor = 0] = text.split(/[.-]/).map(Number);
  return major + minor / 100;
}

/** CapPrm of /proc/PID/status. */
export function permittedCapabilities(status: string): [low: number, high: number] {
  const hex = /^CapPrm:\t([0-9a-f]{16})$/m.exec(status)?.[1] ?? "ffffffffffffffff";
  return [Number.parseInt(hex.slice(8), 16) | 0, Number.parseInt(hex.slice(0, 8), 16) | 0];
}

export function facts(): Facts {
  cached ??= {
    kernel: kernelVersion(release()),
    capabilities: permittedCapabilities(readFileSync("/proc/self/status", "latin1")),
    lastCapability: Number(readFileSync("/proc/sys/kernel/cap_last_cap", "utf8")),
    apparmor: existsSync("/sys/kernel/security/apparmor"),
    selinux: existsSync("/sys/fs/selinux/enforce"),
    kindOf(path) {
      const stat = statSync(path, { throwIfNoEntry: false });
      if (!stat) throw notFound(`the bind mount's source ${path} does not exist: no such file or directory`);
      return stat.isDirectory() ? "directory" : "file";
    },
  };
  return cached;
}
