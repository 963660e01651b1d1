// An archive in cpio's "newc" form, which the kernel unpacks as its first file system (Documentation/driver-api/early-userspace/buffer-format.rst).
import { closeSync, openSync, readFileSync, writeSync } from "node:fs";
import { dirname } from "node:path";

export type Entry = { mode?: number; data: string | Uint8Array } | { mode?: number; from: string } | { link: string } | { directory: true };

const FILE = 0o100000;
const LINK = 0o120000;
const DIRECTORY = 0o040000;

/** Writes `entries` (by path, without a leading slash) with the directories that they are in. */
export function writeInitramfs(path: string, entries: Record<string, Entry>): void {
  const fd = openSync(path, "w", 0o600);
  let inode = 0;
  const pad = (length: number) => new Uint8Array(-length & 3);
  const put = (name: string, mode: number, data: Uint8Array): void => {
    inode++;
    const fields = [inode, mode, 0, 0, 1, 0, data.length, 0, 0, 0, 0, Buffer.byteLength(name) + 1, 0];
    const head = Buffer.from(`070701${fields.map((n) => n.toString(16).padStart(8, "0")).join("")}${name}\0`);
    for (const part of [head, pad(head.length), data, pad(data.length)]) for (let at = 0; at < part.length; ) at += writeSync(fd, part, at);
  };
  const made = new Set([".", ""]);
  const parents = (name: string): void => {
    if (made.has(name)) return;
    made.add(name);
    parents(dirname(name));
    put(name, DIRECTORY | 0o755, new Uint8Array());
  };
  try {
    for (const [name, entry] of Object.entries(entries)) {
      if ("directory" in entry) {
        parents(name);
        continue;
      }
      parents(dirname(name));
      if ("link" in entry) put(name, LINK | 0o777, Buffer.from(entry.link));
      else if ("from" in entry) put(name, FILE | (entry.mode ?? 0o755), readFileSync(entry.from));
      else put(name, FILE | (entry.mode ?? 0o644), Buffer.from(entry.data));
    }
    put("TRAILER!!!", 0, new Uint8Array());
  } finally {
    closeSync(fd);
  }
}
