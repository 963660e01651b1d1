// The binding, in the place of the Node-API addon (src/linux/addon.ts).
import type { Argument, Binding } from "../../linux/index.ts";
import { host } from "./host.ts";
import { poller, pollerRef } from "./loop.ts";

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

function syscall(nr: number, a?: Argument, b?: Argument, c?: Argument, d?: Argument, e?: Argument, f?: Argument): number {
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

export const addon: Binding = {
  syscall,
  address: host.address,
  spawn: host.spawn,
  poller,
  pollerRef,
};
