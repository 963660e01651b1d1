// --security-opt, masked and read-only paths.
import type { HostConfig } from "../../../api/types.ts";
import { invalidArgument } from "../../../lib/errors.ts";

export const MASKED_PATHS = [
  "/proc/acpi",
  "/proc/asound",
  "/proc/interrupts",
  "/proc/kcore",
  "/proc/keys",
  "/proc/latency_stats",
  "/proc/sched_debug",
  "/proc/scsi",
  "/proc/timer_list",
  "/proc/timer_stats",
  "/sys/devices/virtual/powercap",
  "/sys/firmware",
];

export const READONLY_PATHS = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

export interface SecurityOptions {
  noNewPrivileges: boolean;
  /** "": the default profile; "unconfined"; else a profile as JSON text. */
  seccomp: string;
  apparmor: string | undefined;
  writableCgroups: boolean;
}

/** `noNewPrivileges`: what holds where the container says nothing. */
export function securityOptions(host: HostConfig, noNewPrivileges = false): SecurityOptions {
  const result: SecurityOptions = {
    noNewPrivileges,
    seccomp: host.Privileged ? "unconfined" : "",
    apparmor: undefined,
    writableCgroups: false,
  };
  for (const option of host.SecurityOpt ?? []) {
    if (option === "no-new-privileges") {
      result.noNewPrivileges = true;
      continue;
    }
    if (option === "disable") continue;
    const at = option.search(/[=:]/);
    if (at < 0) throw invalidArgument(`invalid --security-opt 1: "${option}"`);
    const key = option.slice(0, at);
    const value = option.slice(at + 1);
    if (key === "no-new-privileges" || key === "writable-cgroups") {
      if (!/^(1|0|t|f|true|false)$/i.test(value)) throw invalidArgument(`invalid --security-opt 2: "${option}"`);
      const on = /^(1|t|true)$/i.test(value);
      if (key === "no-new-privileges") result.noNewPrivileges = on;
      else result.writableCgroups = on;
    } else if (key === "seccomp") result.seccomp = value === "builtin" ? "" : value;
    else if (key === "apparmor") result.apparmor = value;
    else if (key !== "label") throw invalidArgument(`invalid --security-opt 2: "${option}"`);
  }
  return result;
}

/** Paths hidden and made read-only: Docker's unless the user gave others, none for privileged containers. */
export function protectedPaths(host: HostConfig): { masked: string[]; readonly: string[] } {
  if (host.Privileged) return { masked: [], readonly: [] };
  return { masked: host.MaskedPaths ?? MASKED_PATHS, readonly: host.ReadonlyPaths ?? READONLY_PATHS };
}
