// A local file or tree as a tar stream.
import { closeSync, constants, lstatSync, openSync, readdirSync, readlinkSync, readSync, type Stats } from "node:fs";
import { join } from "node:path";
import { type Entry, encodeHeader, padding, TRAILER } from "./format.ts";

/** `path` and what is below it; its own name in the archive is `name`. */
export async function* packTree(path: string, name: string): AsyncGenerator<Uint8Array> {
  const links = new Map<string, string>();
  yield* packOne(path, name, links);
  yield TRAILER;
}

/** What is below a directory, without what is ignored, and without the archive's end; owners are left out. A directory that is ignored is looked into all the same. */
export async function* packDirectory(directory: string, ignored: (path: string) => boolean): AsyncGenerator<Uint8Array> {
  const links = new Map<string, string>();
  async function* below(name: string): AsyncGenerator<Uint8Array> {
    for (const child of readdirSync(join(directory, name)).sort()) {
      const path = name === "" ? child : `${name}/${child}`;
      const full = join(directory, path);
      const stats = lstatSync(full);
      const out = ignored(path);
      const found = entryOf(full, path, stats);
      if (!out && found) {
        const entry = { ...found, uid: 0, gid: 0 };
        const key = `${stats.dev}:${stats.ino}`;
        const first = entry.type === "0" && stats.nlink > 1 ? links.get(key) : undefined;
        if (first !== undefined) yield encodeHeader({ ...entry, type: "1", size: 0, link: first });
        else {
          if (entry.type === "0" && stats.nlink > 1) links.set(key, path);
          yield encodeHeader(entry);
          if (entry.type === "0") yield* fileContent(full, entry.size);
        }
      }
      if (stats.isDirectory()) yield* below(path);
    }
  }
  yield* below("");
}

async function* packOne(path: string, name: string, links: Map<string, string>): AsyncGenerator<Uint8Array> {
  const stats = lstatSync(path);
  const entry = entryOf(path, name, stats);
  if (!entry) return;
  if (entry.type === "0" && stats.nlink > 1) {
    const key = `${stats.dev}:${stats.ino}`;
    const first = links.get(key);
    if (first !== undefined) {
      yield encodeHeader({ ...entry, type: "1", size: 0, link: first });
      return;
    }
    links.set(key, name);
  }
  yield encodeHeader(entry);
  if (entry.type === "0") yield* fileContent(path, entry.size);
  if (entry.type === "5") {
    for (const child of readdirSync(path).sort()) yield* packOne(join(path, child), `${name.replace(/\/$/, "")}/${child}`, links);
  }
}

async function* fileContent(path: string, size: number): AsyncGenerator<Uint8Array> {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    let left = size;
    while (left > 0) {
      const buffer = Buffer.allocUnsafe(Math.min(left, 256 * 1024));
      const count = readSync(fd, buffer, 0, buffer.length, null);
      // A file that shrank is filled up: its size is already said.
      if (count === 0) buffer.fill(0);
      const part = count === 0 ? buffer : buffer.subarray(0, count);
      left -= part.length;
      yield part;
    }
  } finally {
    closeSync(fd);
  }
  if (size % 512 !== 0) yield padding(size);
}

function entryOf(path: string, name: string, stats: Stats): Entry | undefined {
  const entry: Entry = {
    name,
    type: "0",
    mode: stats.mode & 0o7777,
    uid: stats.uid,
    gid: stats.gid,
    size: 0,
    mtime: Math.floor(stats.mtimeMs / 1000),
    link: "",
    major: 0,
    minor: 0,
    pax: {},
  };
  const device = () => {
    entry.major = (stats.rdev >> 8) & 0xfff;
    entry.minor = (stats.rdev & 0xff) | ((stats.rdev >> 12) & 0xfff00);
  };
  if (stats.isFile()) entry.size = stats.size;
  else if (stats.isDirectory()) {
    entry.type = "5";
    entry.name = name.endsWith("/") ? name : `${name}/`;
  } else if (stats.isSymbolicLink()) {
    entry.type = "2";
    entry.link = readlinkSync(path);
  } else if (stats.isFIFO()) entry.type = "6";
  else if (stats.isCharacterDevice()) {
    entry.type = "3";
    device();
  } else if (stats.isBlockDevice()) {
    entry.type = "4";
    device();
  } else return undefined; // a socket has no place in an archive
  return entry;
}
