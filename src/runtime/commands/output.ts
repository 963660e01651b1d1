// What a command prints. Written at once: process.stdout is a stream whose making takes longer than most commands.
import { utf8, writeSync } from "../../linux/index.ts";

/** Writes all of it to a descriptor; waits where that is a full pipe that does not block. */
export function print(fd: number, text: string): void {
  let rest: Uint8Array = utf8(text);
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(fd, rest));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
    }
  }
}
