// System calls that may take the kernel long, off the event loop: on the threads of node:fs, which is loaded with the first of them.
import { binding } from "./binding.ts";
import { check } from "./errno.ts";
import { SYS } from "./sys.ts";

const FICLONE = 0x40049409;
const PIECE = 1 << 20;
const small = new Uint8Array(64 * 1024);

const fs = () => process.getBuiltinModule("node:fs");

/** read(2): the count, or -errno. */
export function readApart(fd: number, buffer: Uint8Array): Promise<number> {
  return new Promise((resolve) => {
    fs().read(fd, buffer, 0, buffer.length, null, (error, n) => resolve(error ? error.errno! : n));
  });
}

/** write(2): the count, or -errno. */
export function writeApart(fd: number, bytes: Uint8Array): Promise<number> {
  return new Promise((resolve) => {
    fs().write(fd, bytes, 0, bytes.length, null, (error, n) => resolve(error ? error.errno! : n));
  });
}

/** close(2); an error is ignored, as close() does. */
export function closeApart(fd: number): void {
  fs().close(fd, () => {});
}

/**
 * Copies what the file `from` holds to the empty file `to`: shared where the file system can do that, otherwise piece by piece, so that a large file
 * takes no thread from others for long. A small one is copied sooner than a thread hears of it. `what` says in an error what was tried.
 */
export async function copyApart(from: number, to: number, what: string): Promise<void> {
  if (binding.syscall(SYS.ioctl, to, FICLONE, from) === 0) return;
  for (let copied = 0; copied < small.length; ) {
    const n = check(binding.syscall(SYS.read, from, small, small.length), `read ${what}`);
    if (n === 0) return;
    for (let at = 0; at < n; ) at += check(binding.syscall(SYS.write, to, small.subarray(at, n), n - at), `write ${what}`);
    copied += n;
  }
  const piece = new Uint8Array(PIECE);
  for (let n = PIECE; n > 0; ) {
    n = check(await readApart(from, piece), `read ${what}`);
    for (let at = 0; at < n; ) at += check(await writeApart(to, piece.subarray(at, n)), `write ${what}`);
  }
}
