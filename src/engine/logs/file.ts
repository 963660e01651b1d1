// A log file that rotates: NAME is written, NAME.1 is the one before, up to NAME.(max-file − 1); with `compress` those are gzip (NAME.1.gz).
// Writes are synchronous and whole: a write(2) to the page cache takes microseconds, and what is accounted for must have been written.
import {
  closeSync,
  createReadStream,
  createWriteStream,
  fstatSync,
  ftruncateSync,
  openSync,
  renameSync,
  statSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { rename, unlink } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { createGzip } from "node:zlib";
import type { Codec } from "./codec.ts";
import type { Entry, LogWriter, Position } from "./driver.ts";

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

async function compressFile(path: string): Promise<void> {
  const temporary = `${path}.gz.tmp`;
  try {
    await pipeline(createReadStream(path), createGzip(), createWriteStream(temporary, { mode: 0o640 }));
    await rename(temporary, `${path}.gz`);
    await unlink(path);
  } catch {
    await unlink(temporary).catch(() => {});
  }
}

/**
 * Opens the log for appending. `from` is where an earlier writer stood when it was killed: what stands behind it in the file was written but not
 * accounted for, will come again, and is cut off.
 */
export function openLogFile(path: string, codec: Codec, options: RotationOptions, from?: Position): LogWriter {
  let compressing = Promise.resolve();
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
    removeIfThere(`${path}.${last}`);
    removeIfThere(`${path}.${last}.gz`);
    for (let n = last - 1; n >= 1; n--) {
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
    if (options.compress) compressing = compressing.then(() => compressFile(`${path}.1`));
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
        if (done > 0) ftruncateSync(fd, length);
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

/** The files that make up the log, oldest first. */
export function logFiles(path: string): string[] {
  const files: string[] = [];
  for (let n = 1; ; n++) {
    if (statSync(`${path}.${n}`, { throwIfNoEntry: false })) files.unshift(`${path}.${n}`);
    else if (statSync(`${path}.${n}.gz`, { throwIfNoEntry: false })) files.unshift(`${path}.${n}.gz`);
    else break;
  }
  if (statSync(path, { throwIfNoEntry: false })) files.push(path);
  return files;
}
