// What the lean host (native/lean.c) gives its programs.
export interface Host {
  /** The result, or -errno. */
  syscall(nr: number, ...registers: (number | bigint)[]): number;
  /** Where its bytes are, as long as it is kept. */
  address(buffer: ArrayBufferView | ArrayBuffer): number;
  /** native/spawn.h. */
  spawn(block: ArrayBuffer): number;
  /** Its UTF-8 with a NUL behind it. */
  encode(text: string): ArrayBuffer;
  decode(bytes: Uint8Array): string;
  /** The bytes of a file that lies behind the program; of a module, a promise of what it exports. */
  load(name: string): unknown;
  /** Called where there is nothing to do; false ends the program. */
  turn(): boolean;
}

export const { host } = globalThis as unknown as { host: Host };

/** That the lean host lacks what this takes: Bun does it from the beginning (program.ts). */
export class Lacking extends Error {}

export function lacking(what: string): never {
  throw new Lacking(what);
}
