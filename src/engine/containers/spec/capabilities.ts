// Capabilities of a container: Docker's default set, changed by --cap-add, --cap-drop and --privileged.
import { readFileSync } from "node:fs";
import { invalidArgument } from "../../../lib/errors.ts";
import type { Capabilities } from "../../../oci/runtime-spec.ts";

/** By number (capabilities(7)). */
const ALL = [
  "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW",
  "IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD",
  "LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE",
]
  .join(" ")
  .split(" ")
  .map((name) => `CAP_${name}`);

const DEFAULT = "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE"
  .split(" ")
  .map((name) => `CAP_${name}`);

let known: string[] | undefined;

/** The capabilities that this kernel has, and that this process may give: those of its own bounding set. */
function ofKernel(): string[] {
  if (!known) {
    const bounding = BigInt(`0x${/^CapBnd:\s*([0-9a-f]+)$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? "0"}`);
    known = ALL.filter((_, number) => (bounding >> BigInt(number)) & 1n);
  }
  return known;
}

function normalize(list: string[] | null | undefined, field: string): string[] {
  return (list ?? []).map((each) => {
    const name = each.trim().toUpperCase();
    if (name === "ALL") return name;
    const full = name.startsWith("CAP_") ? name : `CAP_${name}`;
    if (!ALL.includes(full)) throw invalidArgument(`invalid ${field}: unknown capability: "${full}"`);
    return full;
  });
}

/** The bounding set; InvalidArgument for unknown names. */
export function capabilitySet(options: {
  add?: string[] | null | undefined;
  drop?: string[] | null | undefined;
  privileged?: boolean | undefined;
}): string[] {
  const add = normalize(options.add, "CapAdd");
  const drop = normalize(options.drop, "CapDrop");
  if (options.privileged) return ofKernel();
  if (add.length === 0 && drop.length === 0) return DEFAULT;
  if (drop.includes("ALL")) return add.includes("ALL") ? ofKernel() : ofKernel().filter((name) => add.includes(name));
  const base = add.includes("ALL") ? ofKernel() : [...DEFAULT, ...add.filter((name) => !DEFAULT.includes(name))];
  return base.filter((name) => !drop.includes(name));
}

/** As execve(2) leaves them: a user other than root has them in the bounding set only. */
export function processCapabilities(set: string[], uid: number): Capabilities {
  return uid === 0 ? { bounding: set, effective: set, permitted: set } : { bounding: set };
}
