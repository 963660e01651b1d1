// Error numbers of Linux (include/uapi/asm-generic/errno*.h) with their names and, by way of node:util, the C library's sentences. The numbers are
// written down here because node:os takes a third of a millisecond to load, which is noticeable in a command's start.
import { errnoTexts } from "./errno-texts.ts";

export const errno = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  ENOEXEC: 8,
  EBADF: 9,
  ECHILD: 10,
  EAGAIN: 11,
  EWOULDBLOCK: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  EXDEV: 18,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOTTY: 25,
  ETXTBSY: 26,
  EFBIG: 27,
  ENOSPC: 28,
  ESPIPE: 29,
  EROFS: 30,
  EMLINK: 31,
  EPIPE: 32,
  EDOM: 33,
  ERANGE: 34,
  EDEADLK: 35,
  ENAMETOOLONG: 36,
  ENOLCK: 37,
  ENOSYS: 38,
  ENOTEMPTY: 39,
  ELOOP: 40,
  ENOMSG: 42,
  EIDRM: 43,
  ENOSTR: 60,
  ENODATA: 61,
  ETIME: 62,
  ENOSR: 63,
  ENOLINK: 67,
  EPROTO: 71,
  EMULTIHOP: 72,
  EBADMSG: 74,
  EOVERFLOW: 75,
  EILSEQ: 84,
  ENOTSOCK: 88,
  EDESTADDRREQ: 89,
  EMSGSIZE: 90,
  EPROTOTYPE: 91,
  ENOPROTOOPT: 92,
  EPROTONOSUPPORT: 93,
  ENOTSUP: 95,
  EOPNOTSUPP: 95,
  EAFNOSUPPORT: 97,
  EADDRINUSE: 98,
  EADDRNOTAVAIL: 99,
  ENETDOWN: 100,
  ENETUNREACH: 101,
  ENETRESET: 102,
  ECONNABORTED: 103,
  ECONNRESET: 104,
  ENOBUFS: 105,
  EISCONN: 106,
  ENOTCONN: 107,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EHOSTUNREACH: 113,
  EALREADY: 114,
  EINPROGRESS: 115,
  ESTALE: 116,
  EDQUOT: 122,
  ECANCELED: 125,
} as const;
export type ErrnoName = keyof typeof errno;

let names: Map<number, string> | undefined;

function namesByNumber(): Map<number, string> {
  const all = new Map<number, string>();
  for (const [name, number] of Object.entries(errno)) if (!all.has(number)) all.set(number, name);
  return all;
}

/** "ENOENT" for 2. */
export function errnoName(number: number): string {
  names ??= namesByNumber();
  return names.get(number) ?? `errno ${number}`;
}

let texts: Map<number, string> | undefined;

/** Node does not know it. */
const ENOTBLK = 15;

/** "no such file or directory" for 2. */
export function errnoText(number: number): string {
  texts ??= errnoTexts();
  if (number === ENOTBLK) return "block device required";
  return texts.get(number) ?? errnoName(number);
}

/** A failed system call: `what` says which call on what, `errno` the kernel's answer. */
export class SystemError extends Error {
  readonly errno: number;
  readonly code: string;
  readonly what: string;
  constructor(what: string, number: number) {
    super();
    this.name = "SystemError";
    this.what = what;
    this.errno = number;
    this.code = errnoName(number);
  }
}

// Made when it is asked for: most failures are looked at by their code alone, and the sentence costs more than the call that failed.
Object.defineProperty(SystemError.prototype, "message", {
  configurable: true,
  get(this: SystemError) {
    return `${this.what}: ${this.code} (${errnoText(this.errno)})`;
  },
});

/** The result of a system call, or its SystemError thrown. */
export function check(result: number, what: string): number {
  if (result < 0) throw new SystemError(what, -result);
  return result;
}
