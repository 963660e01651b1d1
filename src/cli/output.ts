// The CLI's terminal. Written with plain write(2): process.stdout costs 7 ms to set up, and loses output at process.exit where it is a pipe.
import { fstatSync, writeSync } from "node:fs";

/** Where a command writes; replaced in tests. */
export interface Output {
  out(data: string | Uint8Array): void;
  err(data: string | Uint8Array): void;
}

export const output: Output = {
  out: (data) => writeAll(1, data),
  err: (data) => writeAll(2, data),
};

const sleeper = new Int32Array(new SharedArrayBuffer(4));
const encoder = new TextEncoder();

/** Writes all of it; waits where the other end is slow, ends the program with a shell's status for SIGPIPE where no one reads any more. */
export function writeAll(fd: number, data: string | Uint8Array): void {
  let rest = typeof data === "string" ? encoder.encode(data) : data;
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(fd, rest));
    } catch (error) {
      const { code } = error as { code?: string };
      if (code === "EAGAIN") Atomics.wait(sleeper, 0, 0, 1);
      else if (code === "EPIPE") process.exit(141);
      else if (code === "EINTR") continue;
      else return;
    }
  }
}

/** Device numbers of terminals (Documentation/admin-guide/devices.txt): consoles, tty and console, pseudo-terminals, USB, ARM and virtual serial lines. */
const TERMINALS = new Set([4, 5, 136, 137, 138, 139, 140, 141, 142, 143, 166, 188, 204, 229]);

/** isatty(3), told from the device's number: node:tty costs 4 ms to load. */
export function isTerminal(fd: number): boolean {
  try {
    const stats = fstatSync(fd);
    return stats.isCharacterDevice() && TERMINALS.has((stats.rdev >> 8) & 0xfff);
  } catch {
    return false;
  }
}
