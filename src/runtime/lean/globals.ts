// What the runtime's commands use of the globals of Node and Bun, by the lean host. Whatever is not here throws Lacking, or is missed as a ReferenceError.
import { host, lacking } from "./host.ts";
import { clearTimeout, setTimeout } from "./loop.ts";
import { SYS, syscall } from "./syscall.ts";

// A pipe that nobody reads is an error as any other. Who is started has the signals' defaults again (native/spawn.h).
const SIGPIPE = 13;
const SIG_IGN = 1n;
syscall(SYS.rt_sigaction, SIGPIPE, new BigUint64Array([SIG_IGN, 0n, 0n, 0n]), null, 8);

// A file that is opened must not become somebody's standard output.
const F_GETFD = 1;
for (let fd = 0; fd < 3; fd++) if (syscall(SYS.fcntl, fd, F_GETFD) < 0) syscall(SYS.openat, -100, "/dev/null", 2, 0);

/** The NUL-ended strings of a file of proc. */
function stringsOf(path: string): string[] {
  const fd = syscall(SYS.openat, -100, path, 0o2000000, 0);
  let buffer = new Uint8Array(16384);
  let used = 0;
  for (;;) {
    const n = syscall(SYS.read, fd, buffer.subarray(used), buffer.length - used);
    if (n <= 0) break;
    used += n;
    if (used < buffer.length) continue;
    const grown = new Uint8Array(4 * used);
    grown.set(buffer);
    buffer = grown;
  }
  syscall(SYS.close, fd);
  const strings = host.decode(buffer.subarray(0, used)).split("\0");
  strings.pop();
  return strings;
}

function utf8(text: string): Uint8Array {
  const bytes = host.encode(text);
  return new Uint8Array(bytes, 0, bytes.byteLength - 1);
}

/** What is UTF-8 is the same there and back. */
function decodeStrictly(bytes: Uint8Array): string {
  const text = host.decode(bytes);
  const again = utf8(text);
  // Halves of a pair QuickJS takes as they are.
  if (again.length !== bytes.length || again.some((byte, i) => byte !== bytes[i]) || !text.isWellFormed())
    throw new RangeError("it is not UTF-8");
  return text;
}

let env: Record<string, string> | undefined;

function environment(): Record<string, string> {
  const all: Record<string, string> = {};
  for (const each of stringsOf("/proc/self/environ")) {
    const at = each.indexOf("=");
    if (at > 0) all[each.slice(0, at)] = each.slice(at + 1);
  }
  return all;
}

function workingDirectory(): string {
  const buffer = new Uint8Array(4096);
  const length = syscall(SYS.getcwd, buffer, buffer.length);
  if (length < 0) lacking("a working directory that is gone");
  return host.decode(buffer.subarray(0, length - 1));
}

Object.assign(globalThis, {
  process: {
    argv: ["", "", ...stringsOf("/proc/self/cmdline").slice(1)],
    get env() {
      env ??= environment();
      return env;
    },
    get pid() {
      return syscall(SYS.getpid);
    },
    cwd: workingDirectory,
    geteuid: () => syscall(SYS.geteuid),
    getegid: () => syscall(SYS.getegid),
    getBuiltinModule: (name: string) => lacking(name),
  },
  TextEncoder: class {
    encode = utf8;
    /** Into room for all of it. */
    encodeInto = (text: string, to: Uint8Array) => {
      const bytes = utf8(text);
      to.set(bytes);
      return { read: text.length, written: bytes.length };
    };
  },
  TextDecoder: class {
    decode: (bytes: Uint8Array) => string;
    constructor(_label?: string, options?: { fatal?: boolean }) {
      this.decode = options?.fatal ? decodeStrictly : (bytes) => host.decode(bytes);
    }
  },
  setTimeout,
  clearTimeout,
});
