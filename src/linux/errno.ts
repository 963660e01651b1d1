// Error numbers of Linux (include/uapi/asm-generic/errno*.h) with their names and the C library's sentences, by way of node:os and node:util.
import { constants } from "node:os";

export const errno = constants.errno;
export type ErrnoName = keyof typeof constants.errno;

const names = new Map<number, string>();
for (const [name, number] of Object.entries(constants.errno)) if (!names.has(number)) names.set(number, name);

/** "ENOENT" for 2. */
export function errnoName(number: number): string {
  return names.get(number) ?? `errno ${number}`;
}

let texts: Map<number, [string, string]> | undefined;

/** Node does not know it. */
const ENOTBLK = 15;

/** "no such file or directory" for 2. */
export function errnoText(number: number): string {
  // Loading node:util is a sixth of what starting a command costs.
  texts ??= process.getBuiltinModule("node:util").getSystemErrorMap();
  if (number === ENOTBLK) return "block device required";
  return texts.get(-number)?.[1] ?? errnoName(number);
}

/** A failed system call: `what` says which call on what, `errno` the kernel's answer. */
export class SystemError extends Error {
  readonly errno: number;
  readonly code: string;
  readonly what: string;
  constructor(what: string, number: number) {
    super(`${what}: ${errnoName(number)} (${errnoText(number)})`);
    this.name = "SystemError";
    this.what = what;
    this.errno = number;
    this.code = errnoName(number);
  }
}

/** The result of a system call, or its SystemError thrown. */
export function check(result: number, what: string): number {
  if (result < 0) throw new SystemError(what, -result);
  return result;
}
