// Files that are either there whole or not there, also after a power cut: written aside, synced, renamed, and the directory synced.
import { randomUUID } from "node:crypto";
import { type FileHandle, mkdir, open, readdir, readFile, rename, rm, stat, unlink } from "node:fs/promises";
import { dirname } from "node:path";

export function codeOf(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === "string" ? code : undefined;
}

/** Absent: the file, or a directory on the way to it, is not there. */
export function isAbsent(error: unknown): boolean {
  const code = codeOf(error);
  return code === "ENOENT" || code === "ENOTDIR";
}

/** The promise's value, or undefined where the file is absent. */
export async function orAbsent<T>(promise: Promise<T>): Promise<T | undefined> {
  try {
    return await promise;
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw error;
  }
}

export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Makes the directory and those above it, and lets their names reach the disk. */
export async function makeDirectory(path: string): Promise<void> {
  const first = await mkdir(path, { recursive: true });
  if (first === undefined) return;
  const above = dirname(first);
  for (let at = path; ; at = dirname(at)) {
    if (at !== path) await syncDirectory(at);
    if (at === above || at === "/") break;
  }
}

/** Puts a file that is whole and synced in its place. */
export async function place(file: string, path: string): Promise<void> {
  const dir = dirname(path);
  await makeDirectory(dir);
  await rename(file, path);
  await syncDirectory(dir);
}

/** Writes a whole file under `path` by way of `temporary`. */
export async function writeWhole(temporary: string, path: string, bytes: Uint8Array | string): Promise<void> {
  const aside = `${temporary}/${randomUUID()}`;
  const handle = await open(aside, "wx", 0o644);
  try {
    await handle.writeFile(bytes);
    await handle.sync();
  } catch (error) {
    await handle.close();
    await unlink(aside).catch(() => {});
    throw error;
  }
  await handle.close();
  try {
    await place(aside, path);
  } catch (error) {
    await unlink(aside).catch(() => {});
    throw error;
  }
}

/** Writes all the pieces at an offset. */
export async function writeAll(handle: FileHandle, pieces: Uint8Array[], offset: number): Promise<void> {
  let at = offset;
  let rest = pieces;
  while (rest.length > 0) {
    let { bytesWritten } = await handle.writev(rest, at);
    at += bytesWritten;
    const next: Uint8Array[] = [];
    for (const piece of rest) {
      if (bytesWritten >= piece.length) bytesWritten -= piece.length;
      else {
        next.push(bytesWritten ? piece.subarray(bytesWritten) : piece);
        bytesWritten = 0;
      }
    }
    rest = next;
  }
}

/** Names in a directory; none where it is absent. */
export async function namesIn(path: string): Promise<string[]> {
  return (await orAbsent(readdir(path))) ?? [];
}

export const read = (path: string): Promise<Buffer | undefined> => orAbsent(readFile(path));
export const sizeOf = async (path: string): Promise<number | undefined> => (await orAbsent(stat(path)))?.size;
export const remove = (path: string): Promise<void> => rm(path, { recursive: true, force: true });
