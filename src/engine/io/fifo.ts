// FIFOs between the engine and a container's process, and the calls on them that node:fs lacks.
import { binding, check, close, errno, O_NONBLOCK, O_RDONLY, O_RDWR, open, SYS } from "../../linux/index.ts";

const S_IFIFO = 0o010000;
const F_SETPIPE_SZ = 1031;
const SPLICE_F_MOVE = 1;
const SPLICE_F_NONBLOCK = 2;

/** Bytes that a FIFO may hold: what a container can write while no engine runs. The kernel's limit for the unprivileged is 1 MiB for each pipe. */
export const CAPACITY = 256 * 1024;

/** mkfifo(3) for root only; an existing one stays as it is. */
export function makeFifo(path: string): void {
  const result = binding.syscall(SYS.mknod, path, S_IFIFO | 0o600, 0);
  if (result !== -errno.EEXIST) check(result, `mkfifo ${path}`);
}

/** The read end, non-blocking. Until a first writer came, it is neither readable nor at its end. */
export function openReader(path: string): number {
  const fd = open(path, O_RDONLY | O_NONBLOCK);
  binding.syscall(SYS.fcntl, fd, F_SETPIPE_SZ, CAPACITY);
  return fd;
}

/** A write end that needs no reader yet (it is a reader itself, which the process at the other side never notices). */
export function openWriter(path: string): number {
  return open(path, O_RDWR | O_NONBLOCK);
}

const offset = new BigUint64Array(1);

/**
 * Moves at most `length` bytes from a pipe into a file at `position`, in one step: a kill before or after it loses and doubles nothing
 * (splice(2): the kernel takes from the pipe what the file received, before it looks at signals). The count, 0 at the end of the pipe,
 * undefined where the pipe is empty. Throws SystemError (ENOSPC).
 */
export function moveToFile(pipe: number, file: number, position: number, length: number): number | undefined {
  for (;;) {
    offset[0] = BigInt(position);
    const n = binding.syscall(SYS.splice, pipe, null, file, offset, length, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    if (n === -errno.EINTR) continue;
    if (n === -errno.EAGAIN) return undefined;
    return check(n, "splice");
  }
}

export { close };
