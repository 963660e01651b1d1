// Who a process is, for those who find it again later.
import { binding, close, readFileSync, SYS } from "../linux/index.ts";

/** A process as /proc/PID/stat names it for all time: numbers are used again, start times are not. */
export interface Identity {
  pid: number;
  /** Clock ticks after boot. */
  start: string;
}

/** Reads "pid (name) state …": the name may hold anything, so fields count from the last parenthesis; the start time is field 22. */
export function parseStat(text: string): Identity | undefined {
  const close = text.lastIndexOf(")");
  const pid = Number.parseInt(text, 10);
  const start = text.slice(close + 2).split(" ")[19];
  return close > 0 && pid > 0 && start ? { pid, start: start } : undefined;
}

export function identityOf(pid: number): Identity | undefined {
  try {
    return parseStat(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return undefined;
  }
}

/** A pidfd of the very process, or undefined where it is gone. */
export function openIdentity(identity: Identity): number | undefined {
  const fd = binding.syscall(SYS.pidfd_open, identity.pid, 0);
  if (fd < 0) return undefined;
  if (identityOf(identity.pid)?.start === identity.start) return fd;
  close(fd);
  return undefined;
}
