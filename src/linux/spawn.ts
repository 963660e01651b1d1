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
  /** This side goes on while the child gets to its exec: that it failed is seen by its end, and spawnError() tells why. */
  ahead?: boolean;
}

/** struct spawn (native/spawn.h), in words: argv and envp, then these. */
const EXE = 4;
const FLAGS = 5;
const PIDFD = 6;
const ERROR = 7;
const COUNT = 8;
const ALIVE = 9;
/** The stack's address in 10 and 11. */
const MAP = 12;
const MAX_FDS = 64;
const BLOCK = MAP + MAX_FDS;
const SETSID = 1;
const CLONE_PARENT = 2;
const AHEAD = 4;
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

/** What a child that is not waited for may still read; used again once it reads no more. */
interface Ahead {
  block: Int32Array;
  vectors: ReturnType<typeof stringVector>[];
  pid: number;
}
const ahead: Ahead[] = [];
/** For those that are waited for. */
const waited = new Int32Array(BLOCK);

function roomAhead(): Ahead {
  let room = ahead.find(({ block }) => Atomics.load(block, ALIVE) === 0);
  if (!room) {
    room = { block: new Int32Array(BLOCK), vectors: [], pid: 0 };
    ahead.push(room);
  }
  return room;
}

/**
 * Starts the program; returns its pid and a pidfd (O_CLOEXEC), which is the caller's to close. The child is not reaped for the caller:
 * `waitid(P_PIDFD)` does, once the pidfd is readable. Throws SystemError, also where the exec itself failed.
 */
export function spawn(options: Spawn): { pid: number; pidfd: number } {
  const vectors = [stringVector(options.argv), stringVector(options.env ?? [])];
  const room = options.ahead ? roomAhead() : undefined;
  if (room) room.vectors = vectors;
  const block = room?.block ?? waited;
  for (const [i, { pointers }] of vectors.entries()) {
    const at = binding.address(pointers);
    block[2 * i] = at;
    block[2 * i + 1] = at / 0x100000000;
  }
  block[EXE] = options.exe;
  block[FLAGS] = (options.setsid ? SETSID : 0) | (options.sibling ? CLONE_PARENT : 0) | (room ? AHEAD : 0);
  block[COUNT] = options.fds.length;
  if (options.fds.length > MAX_FDS) throw new SystemError("spawn", errno.EINVAL);
  block.set(options.fds, MAP);
  const pid = check(binding.spawn(block.buffer as ArrayBuffer), `spawn ${options.argv[0] ?? ""}`);
  if (room) room.pid = pid;
  void vectors;
  return { pid, pidfd: block[PIDFD]! };
}

/** Why a child that was spawned `ahead` and has ended could not execute: an errno, as long as no other one is spawned; 0 where that was not so. */
export function spawnError(pid: number): number {
  return ahead.find((room) => room.pid === pid)?.block[ERROR] ?? 0;
}
