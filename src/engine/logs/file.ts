// A log file that rotates: NAME is written, NAME.1 is the one before, up to NAME.(max-file − 1); with `compress` those are gzip (NAME.1.gz).
// Writes are synchronous and whole: a write(2) to the page cache takes microseconds, and what is accounted for must have been written.
import {
  closeSync,
  createReadStream,
  createWriteStream,
  fstatSync,
  ftruncateSync,
  openSync,
  readdirSync,
  renameSync,
  statSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { basename, dirname } from "node:path";
import { pipeline } from "node:stream/promises";
import { createGzip } from "node:zlib";
import type { Codec } from "./codec.ts";
import type { Entry, LogWriter, Position } from "./driver.ts";

const NEWLINE = 10;

export interface RotationOptions {
  /** Bytes after which a file is full; Infinity: never. */
  maxSize: number;
  maxFiles: number;
  compress: boolean;
}

function inodeOf(path: string): bigint | undefined {
  return statSync(path, { bigint: true, throwIfNoEntry: false })?.ino;
}

function moveIfThere(from: string, to: string): void {
  try {
    renameSync(from, to);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}

function removeIfThere(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}

/**
 * Compresses the file that is NAME.1 now. The log rotates on meanwhile, so that the file may have moved up when its compressed form is whole: its inode
 * says where it is then.
 */
async function compressRotated(path: string): Promise<void> {
  const inode = inodeOf(`${path}.1`);
  if (inode === undefined) return;
  const temporary = `${path}.${inode}.tmp`;
  try {
    await pipeline(createReadStream(`${path}.1`), createGzip(), createWriteStream(temporary, { mode: 0o640 }));
    const place = rotated(path).find((file) => inodeOf(file.name) === inode);
    if (place) {
      renameSync(temporary, `${path}.${place.number}.gz`);
      unlinkSync(place.name);
    } else unlinkSync(temporary);
  } catch {
    removeIfThere(temporary);
  }
}

/**
 * Opens the log for appending. `from` is where an earlier writer stood when it was killed: what stands behind it in the file was written but not
 * accounted for, will come again, and is cut off.
 */
export function openLogFile(path: string, codec: Codec, options: RotationOptions, from?: Position): LogWriter {
  for (const name of leftovers(path)) removeIfThere(name);
  if (from) {
    if (inodeOf(path) !== from.inode) {
      // Killed in the middle of a rotation: the file it had written is NAME.1 by now, or the new one has not been begun.
      const before = inodeOf(`${path}.1`) === from.inode ? openSync(`${path}.1`, "r+") : undefined;
      if (before !== undefined) {
        if (fstatSync(before).size > from.length) ftruncateSync(before, from.length);
        closeSync(before);
        removeIfThere(path);
      }
    }
  }
  let fd = openSync(path, "a", 0o640);
  let stat = fstatSync(fd, { bigint: true });
  let inode = stat.ino;
  let length = Number(stat.size);
  if (from && from.inode === inode && length > from.length) {
    ftruncateSync(fd, from.length);
    length = from.length;
  }

  function rotate(): void {
    const last = options.maxFiles - 1;
    if (last < 1) {
      ftruncateSync(fd, 0);
      length = 0;
      return;
    }
    // A gap, from a kill in the middle of this, is closed by the next rotation.
    const numbers = new Set(rotated(path).map((file) => file.number));
    let free = 1;
    while (free < last && numbers.has(free)) free++;
    removeIfThere(`${path}.${free}`);
    removeIfThere(`${path}.${free}.gz`);
    for (let n = free - 1; n >= 1; n--) {
      moveIfThere(`${path}.${n}`, `${path}.${n + 1}`);
      if (options.compress) moveIfThere(`${path}.${n}.gz`, `${path}.${n + 1}.gz`);
    }
    renameSync(path, `${path}.1`);
    const next = openSync(path, "a", 0o640);
    closeSync(fd);
    fd = next;
    stat = fstatSync(fd, { bigint: true });
    inode = stat.ino;
    length = 0;
    if (options.compress) void compressRotated(path);
  }

  return {
    write(entries, start) {
      if (length >= options.maxSize) rotate();
      const parts: (Uint8Array | string)[] = [];
      let strings = true;
      let size = length;
      let taken = 0;
      for (let i = start; i < entries.length && size < options.maxSize; i++) {
        const part = codec.encode(entries[i] as Entry);
        if (typeof part !== "string") strings = false;
        size += part.length;
        parts.push(part);
        taken++;
      }
      const bytes = strings ? Buffer.from(parts.join("")) : Buffer.concat(parts as Uint8Array[]);
      let done = 0;
      try {
        while (done < bytes.length) done += writeSync(fd, bytes, done);
      } catch (error) {
        // A full disk may have taken a part: a torn line must not stay in front of the next entry.
        if (done > 0) {
          length += bytes.lastIndexOf(NEWLINE, done - 1) + 1;
          ftruncateSync(fd, length);
        }
        throw error;
      }
      length += bytes.length;
      return taken;
    },
    position: () => ({ inode, length }),
    close() {
      closeSync(fd);
    },
  };
}

/** NAME.1, NAME.2.gz, …: newest first. A file that is being compressed is there twice; the whole one counts. */
function rotated(path: string): { name: string; number: number }[] {
  const base = `${basename(path)}.`;
  const found = new Map<number, string>();
  let names: string[];
  try {
    names = readdirSync(dirname(path));
  } catch {
    return [];
  }
  for (const name of names) {
    const match = name.startsWith(base) ? /^(\d+)(\.gz)?$/.exec(name.slice(base.length)) : null;
    if (!match) continue;
    const number = Number(match[1]);
    if (!match[2] || !found.has(number)) found.set(number, `${dirname(path)}/${name}`);
  }
  return [...found].map(([number, name]) => ({ name, number })).sort((a, b) => a.number - b.number);
}

/** What a kill left of a compression. */
function leftovers(path: string): string[] {
  const base = `${basename(path)}.`;
  return readdirSync(dirname(path))
    .filter((name) => name.startsWith(base) && /^\d+\.tmp$/.test(name.slice(base.length)))
    .map((name) => `${dirname(path)}/${name}`);
}

/** The files that make up the log, oldest first. */
export function logFiles(path: string): string[] {
  const files = rotated(path).map((file) => file.name);
  files.reverse();
  if (statSync(path, { throwIfNoEntry: false })) files.push(path);
  return files;
}
