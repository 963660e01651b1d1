// Starting a program without the cost and the inheritance of a fork: vfork, a descriptor map, exec by descriptor.
import { binding } from "./binding.ts";
import { check, errno, SystemError } from "./errno.ts";

export interface Spawn {
  /** Descriptor of the executable (O_PATH is enough; a sealed memfd works). */
  exe: number;
  argv: string[];
  /** "NAME=value" strings; empty by default: nothing is inherited. */
  env?: string[];
  /** The n-th descriptor becomes descriptor n of the child; -1 leaves it closed; all others are closed. At most 64. */
  fds: number[];
  /** Starts a new session. */
  setsid?: boolean;
  /** It becomes a child of this process' parent (CLONE_PARENT), who has to reap it. */
  sibling?: boolean;
}

/** struct spawn (native/spawn.h), in words: argv and envp, then these. */
const EXE = 4;
const FLAGS = 5;
const PIDFD = 6;
const COUNT = 8;
const MAP = 9;
const MAX_FDS = 64;
/** Its size is a multiple of eight bytes. */
const BLOCK = MAP + MAX_FDS + 1;
const SETSID = 1;
const CLONE_PARENT = 2;
const encoder = new TextEncoder();

/** A NULL-ended array of C strings; the returned buffers must be kept while the kernel reads them. */
export function stringVector(strings: string[]): { pointers: BigUint64Array; keep: Uint8Array } {
  const parts: Uint8Array[] = [];
  let size = 1;
  for (const each of strings) {
    const part = encoder.encode(`${each}\0`);
    parts.push(part);
    size += part.length;
  }
  const keep = new Uint8Array(size);
  const pointers = new BigUint64Array(strings.length + 1);
  const words = new Uint32Array(pointers.buffer);
  let at = binding.address(keep);
  let offset = 0;
  for (let i = 0; i < strings.length; i++) {
    words[2 * i] = at;
    words[2 * i + 1] = at / 0x100000000;
    keep.set(parts[i]!, offset);
    offset += parts[i]!.length;
    at += parts[i]!.length;
  }
  return { pointers, keep };
}

/**
 * Starts the program; returns its pid and a pidfd (O_CLOEXEC), which is the caller's to close. The child is not reaped for the caller:
 * `waitid(P_PIDFD)` does, once the pidfd is readable. Throws SystemError, also where the exec itself failed.
 */
export function spawn(options: Spawn): { pid: number; pidfd: number } {
  const argv = stringVector(options.argv);
  const env = stringVector(options.env ?? []);
  const block = new Int32Array(BLOCK);
  for (const [i, { pointers }] of [argv, env].entries()) {
    const at = binding.address(pointers);
    block[2 * i] = at;
    block[2 * i + 1] = at / 0x100000000;
  }
  block[EXE] = options.exe;
  block[FLAGS] = (options.setsid ? SETSID : 0) | (options.sibling ? CLONE_PARENT : 0);
  block[COUNT] = options.fds.length;
  if (options.fds.length > MAX_FDS) throw new SystemError("spawn", errno.EINVAL);
  block.set(options.fds, MAP);
  const pid = check(binding.spawn(block.buffer as ArrayBuffer), `spawn ${options.argv[0] ?? ""}`);
  void [argv, env];
  return { pid, pidfd: block[PIDFD]! };
}
