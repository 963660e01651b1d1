// Typed wrappers for the calls on descriptors that node:fs lacks. All throw SystemError.
import { binding } from "./binding.ts";
import { check, errno, SystemError } from "./errno.ts";
import { SYS } from "./sys.ts";

export const AT_FDCWD = -100;
export const AT_EMPTY_PATH = 0x1000;
export const AT_SYMLINK_NOFOLLOW = 0x100;

export const O_RDONLY = 0;
export const O_WRONLY = 1;
export const O_RDWR = 2;
export const O_CREAT = 0o100;
export const O_EXCL = 0o200;
export const O_NOCTTY = 0o400;
export const O_TRUNC = 0o1000;
export const O_APPEND = 0o2000;
export const O_NONBLOCK = 0o4000;
export const O_DIRECTORY = 0o200000;
export const O_NOFOLLOW = 0o400000;
export const O_CLOEXEC = 0o2000000;
export const O_PATH = 0o10000000;

export const RESOLVE_NO_XDEV = 0x01;
export const RESOLVE_NO_MAGICLINKS = 0x02;
export const RESOLVE_NO_SYMLINKS = 0x04;
export const RESOLVE_BENEATH = 0x08;
export const RESOLVE_IN_ROOT = 0x10;

/** close(2); an error is ignored, as nothing can be done about one. */
export function close(fd: number): void {
  if (fd >= 0) binding.syscall(SYS.close, fd);
}

/** open(2), always with O_CLOEXEC. */
export function open(path: string, flags: number, mode = 0): number {
  return check(binding.syscall(SYS.openat, AT_FDCWD, path, flags | O_CLOEXEC, mode), `open ${path}`);
}

/** openat2(2), always with O_CLOEXEC; retried while the kernel answers EAGAIN (a rename raced with RESOLVE_IN_ROOT). */
export function openat2(dirfd: number, path: string, flags: number, options: { mode?: number; resolve?: number } = {}): number {
  const how = new BigUint64Array([BigInt(flags | O_CLOEXEC), BigInt(options.mode ?? 0), BigInt(options.resolve ?? 0)]);
  for (let tries = 0; ; tries++) {
    const fd = binding.syscall(SYS.openat2, dirfd, path, how, 24);
    if (fd === -errno.EAGAIN && tries < 100) continue;
    return check(fd, `open ${path}`);
  }
}

/** pipe2(2) with O_CLOEXEC and `flags`. */
export function pipe(flags = 0): { read: number; write: number } {
  const out = new Int32Array(2);
  check(binding.syscall(SYS.pipe2, out, flags | O_CLOEXEC), "pipe2");
  return { read: out[0]!, write: out[1]! };
}

/** Reads at most `buffer.length` bytes: the count, 0 at the end, or undefined where a non-blocking read would block. */
export function read(fd: number, buffer: Uint8Array): number | undefined {
  for (;;) {
    const n = binding.syscall(SYS.read, fd, buffer, buffer.length);
    if (n === -errno.EINTR) continue;
    if (n === -errno.EAGAIN) return undefined;
    return check(n, `read ${fd}`);
  }
}

/** Writes at most `buffer.length` bytes: the count, or undefined where a non-blocking write would block. */
export function write(fd: number, buffer: Uint8Array): number | undefined {
  for (;;) {
    const n = binding.syscall(SYS.write, fd, buffer, buffer.length);
    if (n === -errno.EINTR) continue;
    if (n === -errno.EAGAIN) return undefined;
    return check(n, `write ${fd}`);
  }
}

/** pidfd_open(2): ESRCH where no such process exists. */
export function pidfdOpen(pid: number): number {
  return check(binding.syscall(SYS.pidfd_open, pid, 0), `pidfd_open ${pid}`);
}

/** A copy of descriptor `fd` of the process behind `pidfd`. */
export function pidfdGetfd(pidfd: number, fd: number): number {
  return check(binding.syscall(SYS.pidfd_getfd, pidfd, fd, 0), `pidfd_getfd ${fd}`);
}

/** Sends a signal through a pidfd; false where the process is gone. */
export function pidfdSignal(pidfd: number, signal: number): boolean {
  const result = binding.syscall(SYS.pidfd_send_signal, pidfd, signal, null, 0);
  if (result === -errno.ESRCH) return false;
  check(result, "pidfd_send_signal");
  return true;
}

/** kill(2); false where the process is gone. */
export function kill(pid: number, signal: number): boolean {
  const result = binding.syscall(SYS.kill, pid, signal);
  if (result === -errno.ESRCH) return false;
  check(result, `kill ${pid}`);
  return true;
}

export interface Exit {
  pid: number;
  /** Exit code as a shell would give it: the code, or 128 + signal. */
  status: number;
  signal: number | undefined;
}

/** Reaps the exited child behind `pidfd` (waitid(2), P_PIDFD, WNOHANG); undefined where it still runs, ECHILD where it is not ours. */
export function reap(pidfd: number): Exit | undefined {
  const info = new Int32Array(32);
  check(binding.syscall(SYS.waitid, 3, pidfd, info, 4 | 1, null), "waitid");
  const pid = info[4]!;
  if (pid === 0) return undefined;
  const signal = info[2] === 1 ? undefined : info[6]!;
  return { pid, status: signal === undefined ? info[6]! : 128 + signal, signal };
}

/** memfd_create(2) holding `content`, sealed against any change, so that it can be executed or handed out. */
export function sealedMemfd(name: string, content: Uint8Array): number {
  const MFD_CLOEXEC = 1;
  const MFD_ALLOW_SEALING = 2;
  const F_ADD_SEALS = 1033;
  const ALL_SEALS = 0xf;
  const fd = check(binding.syscall(SYS.memfd_create, name, MFD_CLOEXEC | MFD_ALLOW_SEALING), "memfd_create");
  let done = 0;
  while (done < content.length) {
    const n = write(fd, content.subarray(done));
    if (n === undefined) throw new SystemError("write memfd", errno.EAGAIN);
    done += n;
  }
  check(binding.syscall(SYS.fcntl, fd, F_ADD_SEALS, ALL_SEALS), "fcntl F_ADD_SEALS");
  return fd;
}
