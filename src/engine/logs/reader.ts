// Reading a log: over its rotated files, from the end where only a tail is wanted, and on as it grows.
import { type FileHandle, open, stat } from "node:fs/promises";
import { pipeline, type Readable } from "node:stream";
import { createGunzip } from "node:zlib";
import type { ContainerStreams } from "../io/streams.ts";
import type { Codec } from "./codec.ts";
import type { LogRecord, ReadOptions } from "./driver.ts";
import { logFiles } from "./file.ts";

const CHUNK = 256 * 1024;
const NEWLINE = 10;
/** An entry is at most 16 KiB of text, each byte six in JSON at worst, and its attributes. Longer lines are not ours. */
const LONGEST = 1024 * 1024;

export interface LogSource {
  path: string;
  codec: Codec;
}

interface Segment {
  file: FileHandle;
  gzip: boolean;
  /** Byte to begin at; of a gzip file: lines to skip. */
  start: number;
  skip: number;
}

async function openSegments(path: string): Promise<Segment[]> {
  for (let tries = 0; ; tries++) {
    const segments: Segment[] = [];
    for (const name of logFiles(path)) {
      const file = await open(name, "r").catch(() => undefined);
      if (file) segments.push({ file, gzip: name.endsWith(".gz"), start: 0, skip: 0 });
    }
    // A rotation in between would show a file twice, or not at all.
    const last = segments.at(-1);
    const [now, opened] = [await stat(path).catch(() => undefined), await last?.file.stat()];
    if (now?.ino === opened?.ino || tries === 10) return segments;
    await Promise.all(segments.map((segment) => segment.file.close()));
  }
}

async function* chunksOf(segment: Segment): AsyncGenerator<Buffer> {
  if (segment.gzip) {
    const plain = segment.file.createReadStream({ autoClose: false, start: 0, highWaterMark: CHUNK });
    yield* pipeline(plain, createGunzip(), () => {}) as unknown as Readable;
    return;
  }
  let position = segment.start;
  const { size } = await segment.file.stat();
  while (position < size) {
    const buffer = Buffer.allocUnsafe(Math.min(CHUNK, size - position));
    const { bytesRead } = await segment.file.read(buffer, 0, buffer.length, position);
    if (bytesRead === 0) break;
    position += bytesRead;
    segment.start = position;
    yield buffer.subarray(0, bytesRead);
  }
}

/** Cuts a run of chunks into lines; keeps what is unfinished for the next. */
function lineCutter(): (chunk: Buffer) => Buffer[] {
  let rest: Buffer | undefined;
  return (chunk) => {
    const bytes = rest ? Buffer.concat([rest, chunk]) : chunk;
    const lines: Buffer[] = [];
    let at = 0;
    for (let newline = bytes.indexOf(NEWLINE); newline >= 0; newline = bytes.indexOf(NEWLINE, at)) {
      lines.push(bytes.subarray(at, newline));
      at = newline + 1;
    }
    rest = at < bytes.length && bytes.length - at <= LONGEST ? bytes.subarray(at) : undefined;
    return lines;
  };
}

/** Where the last `wanted` lines begin; or how many were found where the file has fewer. */
async function tailStart(file: FileHandle, wanted: number): Promise<{ start: number; found: number }> {
  let { size: end } = await file.stat();
  let found = 0;
  let first = true;
  const buffer = Buffer.allocUnsafe(64 * 1024);
  while (end > 0) {
    const from = Math.max(0, end - buffer.length);
    const { bytesRead } = await file.read(buffer, 0, end - from, from);
    for (let i = bytesRead - 1; i >= 0; i--) {
      if (buffer[i] !== NEWLINE) continue;
      // The newline at the very end closes the last line; each one before it ends the line above.
      if (first && from + i + 1 === end) {
        first = false;
        continue;
      }
      if (++found === wanted) return { start: from + i + 1, found };
    }
    first = false;
    end = from;
  }
  const { size } = await file.stat();
  return { start: 0, found: size > 0 ? found + 1 : 0 };
}

async function trimToTail(segments: Segment[], tail: number): Promise<Segment[]> {
  let wanted = tail;
  for (let i = segments.length - 1; i >= 0; i--) {
    const segment = segments[i]!;
    if (wanted <= 0) {
      const { size } = await segment.file.stat();
      if (i === segments.length - 1) {
        segment.start = size;
        continue;
      }
      await Promise.all(segments.splice(0, i + 1).map((old) => old.file.close()));
      break;
    }
    if (segment.gzip) {
      const cut = lineCutter();
      let lines = 0;
      for await (const chunk of chunksOf(segment)) lines += cut(chunk).length;
      segment.skip = Math.max(0, lines - wanted);
      wanted -= lines;
    } else {
      const { start, found } = await tailStart(segment.file, wanted);
      segment.start = start;
      wanted -= found;
    }
  }
  return segments;
}

/** Skips what is surely older than `since`: entries stand in the order of their times. */
async function skipTo(segment: Segment, codec: Codec, since: bigint): Promise<void> {
  let [low, high] = [segment.start, (await segment.file.stat()).size];
  const buffer = Buffer.allocUnsafe(64 * 1024);
  while (high - low > buffer.length) {
    const middle = low + Math.floor((high - low) / 2);
    const { bytesRead } = await segment.file.read(buffer, 0, buffer.length, middle);
    const text = buffer.subarray(0, bytesRead);
    const begin = text.indexOf(NEWLINE) + 1;
    const end = text.indexOf(NEWLINE, begin);
    const time = begin > 0 && end > 0 ? codec.decode(text.subarray(begin, end))?.time : undefined;
    if (time === undefined) return;
    if (time < since) low = segment.start = middle + begin;
    else high = middle;
  }
}

/** The file that was begun after the one with this inode, or the oldest where that one is gone. */
async function successor(path: string, inode: number): Promise<FileHandle | undefined> {
  const files = logFiles(path).filter((name) => !name.endsWith(".gz"));
  const inodes = await Promise.all(files.map(async (name) => (await stat(name).catch(() => undefined))?.ino));
  const next = files[inodes.indexOf(inode) + 1];
  return next === undefined ? undefined : open(next, "r").catch(() => undefined);
}

/**
 * The log's entries, in batches. With `follow` it goes on until the process' output ended and all of it was read, or the signal aborts.
 */
export async function* readLog(
  source: LogSource,
  options: ReadOptions,
  follow?: { streams: ContainerStreams; signal: AbortSignal },
): AsyncGenerator<LogRecord[]> {
  let dirty = false;
  let wake: (() => void) | undefined;
  const changed = () => {
    dirty = true;
    wake?.();
  };
  follow?.streams.logListeners.add(changed);
  follow?.signal.addEventListener("abort", changed);
  let segments: Segment[] = [];
  let passed = false;

  const decode = (lines: Buffer[]): LogRecord[] => {
    const out: LogRecord[] = [];
    for (const line of lines) {
      const entry = source.codec.decode(line);
      if (!entry || !(entry.stream === "stdout" ? options.stdout : options.stderr)) continue;
      if (options.since !== undefined && entry.time < options.since) continue;
      if (options.until !== undefined && entry.time > options.until) {
        passed = true;
        break;
      }
      out.push(entry);
    }
    return out;
  };

  try {
    segments = await openSegments(source.path);
    if (options.tail !== undefined) segments = await trimToTail(segments, options.tail);
    let cut = lineCutter();
    while (segments.length > 0 && !passed) {
      const segment = segments[0]!;
      if (options.since !== undefined && !segment.gzip && segment.start === 0) await skipTo(segment, source.codec, options.since);
      cut = lineCutter();
      for await (const chunk of chunksOf(segment)) {
        let lines = cut(chunk);
        if (segment.skip > 0) {
          const skipped = Math.min(segment.skip, lines.length);
          segment.skip -= skipped;
          lines = lines.slice(skipped);
        }
        const entries = decode(lines);
        if (entries.length > 0) yield entries;
        if (passed || follow?.signal.aborted) return;
      }
      if (segments.length === 1 && follow) break;
      segments.shift();
      await segment.file.close();
    }
    if (!follow || passed) return;

    while (!follow.signal.aborted) {
      const { live } = follow.streams;
      dirty = false;
      let segment = segments[0];
      if (!segment) {
        const file = await open(source.path, "r").catch(() => undefined);
        if (file) segments = [{ file, gzip: false, start: 0, skip: 0 }];
        segment = segments[0];
      }
      if (segment) {
        const [now, own] = [await stat(source.path).catch(() => undefined), await segment.file.stat()];
        if (own.size < segment.start) {
          segment.start = 0;
          cut = lineCutter();
        }
        for await (const chunk of chunksOf(segment)) {
          const entries = decode(cut(chunk));
          if (entries.length > 0) yield entries;
          if (passed || follow.signal.aborted) return;
        }
        if (now && now.ino !== own.ino) {
          const next = await successor(source.path, own.ino);
          if (next) {
            await segment.file.close();
            segments = [{ file: next, gzip: false, start: 0, skip: 0 }];
            cut = lineCutter();
            continue;
          }
        }
      }
      if (dirty) continue;
      if (!live) return;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
      wake = undefined;
    }
  } finally {
    follow?.streams.logListeners.delete(changed);
    follow?.signal.removeEventListener("abort", changed);
    await Promise.all(segments.map((segment) => segment.file.close().catch(() => {})));
  }
}
