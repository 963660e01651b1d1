// From a container's FIFOs into its log, exactly once, also when the engine is killed at any instruction.
//
//   FIFO ──splice──▶ spool file ──format──▶ log file, then the journal: (log's inode and length, bytes of each spool that are in it)
//
// A splice into a file is one step to everyone who looks from outside, so that a byte is either in the FIFO or in the spool. A byte of the spool is
// in the log if the journal says so; what stands in the log beyond the journal's length is cut off at the next start and written again. Spool
// and journal lie beside the FIFOs, in memory (tmpfs) on usual machines, and are punched out behind what has been logged.
import { closeSync, constants, fstatSync, openSync, readFileSync, readSync, writeSync } from "node:fs";
import { binding, read, SYS } from "../../linux/index.ts";
import type { Entry, LogWriter, Position, Stream } from "../logs/driver.ts";
import { openLogFile } from "../logs/file.ts";
import type { LogSettings } from "../logs/options.ts";
import { nanoNow } from "../logs/time.ts";
import { moveToFile } from "./fifo.ts";

/** A longer line is logged in pieces of this size, as dockerd does. */
const PIECE = 16 * 1024;
const CHUNK = 64 * 1024;
const PUNCH_AFTER = 256 * 1024;
const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;
const NEWLINE = 10;
const STREAMS: Stream[] = ["stdout", "stderr"];

// One for all containers: nothing of it outlives a call. A chunk, behind at most one unfinished piece.
const scratch = Buffer.alloc(CHUNK + PIECE);

interface Spool {
  fd: number;
  /** Bytes that came so far (the file's size), that are in the log, and that were given back to the file system. */
  size: number;
  logged: number;
  punched: number;
  /** Time of the first piece of the line that is being logged in pieces. */
  pieceTime: bigint | undefined;
}

export interface Capture {
  /** Takes from the FIFO what is there: the count, 0 at its end, undefined where it is empty. */
  take(stream: Stream, fifo: number): number | undefined;
  /** The stream is over: an unfinished last line is logged too. */
  finish(stream: Stream): void;
  close(): void;
}

export interface CaptureOptions {
  /** Directory of spool and journal. */
  dir: string;
  settings: LogSettings;
  /** Continue after an engine that was killed. */
  resume: boolean;
  /** Output as it comes; valid during the call only. */
  emit(stream: Stream, bytes: Uint8Array): void;
  /** The log grew. */
  logged(): void;
  failed(error: unknown): void;
}

/** Cuts `bytes` into entries; answers how many bytes they are. What is left is an unfinished line. */
export function splitLines(
  bytes: Uint8Array,
  stream: Stream,
  atEnd: boolean,
  pieceTime: bigint | undefined,
  into: Entry[],
): { used: number; pieceTime: bigint | undefined } {
  let used = 0;
  let began = pieceTime;
  while (used < bytes.length) {
    const newline = bytes.indexOf(NEWLINE, used);
    let end: number;
    let partial = false;
    if (newline >= 0 && newline - used < PIECE) end = newline + 1;
    else if (bytes.length - used >= PIECE) {
      end = used + PIECE;
      partial = true;
    } else if (atEnd) end = bytes.length;
    else break;
    const time = began ?? nanoNow();
    into.push({ stream, line: bytes.subarray(used, end), time, partial });
    began = partial ? time : undefined;
    used = end;
  }
  return { used, pieceTime: began };
}

const journal = new BigUint64Array(4);
const journalBytes = new Uint8Array(journal.buffer);

function readJournal(path: string): { position: Position; logged: Record<Stream, number> } | undefined {
  try {
    const bytes = readFileSync(path);
    if (bytes.length < 32) return undefined;
    const [inode, length, stdout, stderr] = [0, 8, 16, 24].map((at) => bytes.readBigUInt64LE(at)) as [bigint, bigint, bigint, bigint];
    return { position: { inode, length: Number(length) }, logged: { stdout: Number(stdout), stderr: Number(stderr) } };
  } catch {
    return undefined;
  }
}

export function openCapture(options: CaptureOptions): Capture {
  const journalPath = `${options.dir}/journal`;
  const earlier = options.resume ? readJournal(journalPath) : undefined;
  const log: LogWriter = openLogFile(options.settings.path, options.settings.codec, options.settings.rotation, earlier?.position);
  let journalFd = -1;
  const spools = new Map<Stream, Spool>();

  function openSpool(stream: Stream, resume: boolean): Spool {
    // Not O_APPEND: splice(2) refuses it.
    const fd = openSync(`${options.dir}/${stream}.spool`, constants.O_RDWR | constants.O_CREAT | (resume ? 0 : constants.O_TRUNC), 0o600);
    const size = fstatSync(fd).size;
    const logged = resume ? Math.min(earlier?.logged[stream] ?? 0, size) : 0;
    const spool: Spool = { fd, size, logged, punched: 0, pieceTime: undefined };
    spools.set(stream, spool);
    return spool;
  }

  function keepJournal(): void {
    const { inode, length } = log.position();
    journal[0] = inode;
    journal[1] = BigInt(length);
    journal[2] = BigInt(spools.get("stdout")?.logged ?? 0);
    journal[3] = BigInt(spools.get("stderr")?.logged ?? 0);
    writeSync(journalFd, journalBytes, 0, 32, 0);
  }

  function write(spool: Spool, entries: Entry[]): void {
    for (let i = 0; i < entries.length; ) {
      let taken: number;
      try {
        taken = log.write(entries, i);
      } catch (error) {
        options.failed(error);
        taken = entries.length - i;
      }
      for (let n = 0; n < taken; n++) spool.logged += entries[i + n]!.line.length;
      i += taken;
      keepJournal();
    }
    if (entries.length > 0) options.logged();
    if (spool.logged - spool.punched < PUNCH_AFTER) return;
    const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    binding.syscall(SYS.fallocate, spool.fd, mode, spool.punched, spool.logged - spool.punched);
    spool.punched = spool.logged;
  }

  /** Logs what the spool holds and the log does not; emits the bytes from `fresh` on. */
  function digest(stream: Stream, spool: Spool, from: number, atEnd: boolean): void {
    let fresh = from;
    let next = spool.logged;
    while (next < spool.size) {
      const n = readSync(spool.fd, scratch, 0, Math.min(scratch.length, spool.size - next), next);
      if (n === 0) break;
      const bytes = scratch.subarray(0, n);
      if (next + n > fresh) options.emit(stream, bytes.subarray(Math.max(0, fresh - next)));
      fresh = next + n;
      const entries: Entry[] = [];
      const split = splitLines(bytes, stream, atEnd && next + n === spool.size, spool.pieceTime, entries);
      spool.pieceTime = split.pieceTime;
      write(spool, entries);
      if (next + n === spool.size) break;
      next += split.used;
    }
  }

  /** Without the spool, which has no room: not safe against a kill, but the container must not hang. */
  function takeDirectly(stream: Stream, spool: Spool, fifo: number): number | undefined {
    digest(stream, spool, spool.size, true);
    const n = read(fifo, scratch.subarray(0, CHUNK));
    if (n === undefined || n === 0) return n;
    const bytes = scratch.subarray(0, n);
    options.emit(stream, bytes);
    const entries: Entry[] = [];
    spool.pieceTime = splitLines(bytes, stream, true, spool.pieceTime, entries).pieceTime;
    const { logged } = spool;
    write(spool, entries);
    spool.logged = logged;
    return n;
  }

  function closeAll(): void {
    for (const spool of spools.values()) closeSync(spool.fd);
    if (journalFd >= 0) closeSync(journalFd);
    log.close();
  }

  try {
    journalFd = openSync(journalPath, earlier ? "r+" : "w+", 0o600);
    if (earlier) for (const stream of STREAMS) digest(stream, openSpool(stream, true), Number.POSITIVE_INFINITY, false);
    else keepJournal();
  } catch (error) {
    closeAll();
    throw error;
  }

  return {
    take(stream, fifo) {
      const spool = spools.get(stream) ?? openSpool(stream, false);
      let n: number | undefined;
      try {
        n = moveToFile(fifo, spool.fd, spool.size, CHUNK);
      } catch (error) {
        options.failed(error);
        return takeDirectly(stream, spool, fifo);
      }
      if (n === undefined || n === 0) return n;
      const fresh = spool.size;
      spool.size += n;
      digest(stream, spool, fresh, false);
      return n;
    },
    finish(stream) {
      const spool = spools.get(stream);
      if (spool) digest(stream, spool, spool.size, true);
    },
    close: closeAll,
  };
}
