// The native addon's face.
import { addon } from "./addon.ts";

/** What a system call takes: a register, or memory that the kernel reads or writes. A string is passed as a NUL-ended copy. */
export type Argument = number | bigint | boolean | string | Uint8Array | Int32Array | BigUint64Array | ArrayBuffer | null | undefined;

export interface Binding {
  /** The result, or -errno. Blocks the calling thread. */
  syscall(nr: number, ...args: Argument[]): number;
  /** The address of the buffer's first byte; valid as long as the caller holds the buffer. */
  address(buffer: Uint8Array | Int32Array | BigUint64Array | ArrayBuffer): number;
  poller(callback: (data: number, events: number) => void): { fd: number; handle: unknown };
  pollerRef(handle: unknown, on: boolean): void;
  /** native/spawn.h: the pid, or -errno. */
  spawn(block: ArrayBuffer): number;
}

export const binding: Binding = addon;
