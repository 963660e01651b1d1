// What plans must know of this machine, asked once.
import { existsSync, readFileSync, statSync } from "node:fs";
import { notFound } from "../lib/errors.ts";
import type { Facts } from "./plan/create.ts";

let cached: Facts | undefined;

export function facts(): Facts {
  cached ??= {
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
