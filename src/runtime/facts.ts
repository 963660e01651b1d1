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

export function facts(): Facts {
  cached ??= {
    kernel: kernelVersion(release()),
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
