// What a log driver is. A driver turns entries into bytes of its file and back; io/capture.ts decides when, and keeps the position that
// makes a kill at any moment harmless.

export type Stream = "stdout" | "stderr";

export interface Entry {
  stream: Stream;
  /** One line with its "\n", or a piece of a line longer than 16 KiB, or a last line without "\n". */
  line: Uint8Array;
  /** Nanoseconds since 1970. */
  time: bigint;
  /** A piece of a longer line that goes on in the next entry of the stream. */
  partial: boolean;
}

/** Where a writer stands: enough to cut off, after a kill, what was written but not yet accounted for. */
export interface Position {
  /** Inode number of the current file. */
  inode: bigint;
  length: number;
}

export interface LogWriter {
  /** Writes entries from `from` on in one write, until the file is full; answers how many it took (0 only after a rotation made room). */
  write(entries: Entry[], from: number): number;
  position(): Position;
  close(): void;
}

export interface ReadOptions {
  stdout: boolean;
  stderr: boolean;
  /** Inclusive; nanoseconds. */
  since: bigint | undefined;
  /** Exclusive of later entries; nanoseconds. */
  until: bigint | undefined;
  /** The last so many entries; undefined: all. */
  tail: number | undefined;
}

/** An entry read back. */
export interface LogRecord extends Entry {
  attrs: Record<string, string> | undefined;
}
