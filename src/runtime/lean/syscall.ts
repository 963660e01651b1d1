// System calls by the lean host, for what lies below src/linux: that takes the globals (globals.ts) to be there as it is loaded.
import type { Argument } from "../../linux/index.ts";
import { host } from "./host.ts";

/** The numbers of src/linux/sys.ts that are needed here. */
export const SYS = {
  read: 0,
  close: 3,
  poll: 7,
  rt_sigaction: 13,
  getpid: 39,
  fcntl: 72,
  getcwd: 79,
  geteuid: 107,
  getegid: 108,
  openat: 257,
  epoll_pwait: 281,
  epoll_create1: 291,
} as const;

const NUL = "\0";

/** An argument as a register. `keep` holds what the kernel reads while it does. */
function register(argument: Argument, keep: ArrayBuffer[]): number | bigint {
  if (typeof argument === "number" || typeof argument === "bigint") return argument;
  if (argument === null || argument === undefined) return 0;
  if (typeof argument === "boolean") return argument ? 1 : 0;
  if (typeof argument !== "string") return host.address(argument);
  if (argument.includes(NUL)) throw new TypeError("syscall: a string with NUL");
  const bytes = host.encode(argument);
  keep.push(bytes);
  return host.address(bytes);
}

export function syscall(nr: number, a?: Argument, b?: Argument, c?: Argument, d?: Argument, e?: Argument, f?: Argument): number {
  const keep: ArrayBuffer[] = [];
  const result = host.syscall(
    nr,
    register(a, keep),
    register(b, keep),
    register(c, keep),
    register(d, keep),
    register(e, keep),
    register(f, keep),
  );
  // A buffer that nothing refers to is freed at once.
  keep.length = 0;
  return result;
}
