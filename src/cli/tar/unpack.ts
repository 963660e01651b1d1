// Unpacks a container's archive below a local directory. The archive is hostile: no name leads out of the directory, and nothing is written
// through a symbolic link.
import {
  chmodSync,
  closeSync,
  constants,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { readTar } from "./format.ts";

/** The name in the archive becomes one below `dir`; undefined leaves the entry out. */
export type Rename = (name: string) => string;

export async function unpack(source: AsyncIterable<Uint8Array>, dir: string, rename: Rename = (name) => name): Promise<void> {
  const times: [path: string, mtime: number][] = [];
  for await (const { entry, content } of readTar(source)) {
    const name = inside(rename(entry.name));
    const path = name === "" ? dir : join(dir, name);
    if (name !== "") makeParents(dir, name);
    const existing = statOf(path);
    if (entry.type === "5") {
      if (existing && !existing.isDirectory()) {
        if (existing.isSymbolicLink() && name === "") continue;
        throw new Error(`cannot overwrite non-directory ${JSON.stringify(path)} with directory ${JSON.stringify(dir)}`);
      }
      if (!existing) mkdirSync(path, { mode: 0o700 });
      chmodSync(path, entry.mode & 0o7777);
      times.push([path, entry.mtime]);
      continue;
    }
    if (existing?.isDirectory())
      throw new Error(`cannot overwrite directory ${JSON.stringify(path)} with non-directory ${JSON.stringify(dir)}`);
    if (existing) unlinkSync(path);
    switch (entry.type) {
      case "0":
      case "7": {
        const fd = openSync(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o600);
        try {
          for await (const chunk of content()) for (let at = 0; at < chunk.length; ) at += writeSync(fd, chunk, at);
        } finally {
          closeSync(fd);
        }
        chmodSync(path, entry.mode & 0o7777);
        utimesSync(path, entry.mtime, entry.mtime);
        break;
      }
      case "1": {
        const target = inside(rename(entry.link));
        makeParents(dir, target);
        linkSync(join(dir, target), path);
        break;
      }
      case "2":
        symlinkSync(entry.link, path);
        lutimesSync(path, entry.mtime, entry.mtime);
        break;
      default:
        await makeNode(path, entry.type, entry.mode, entry.major, entry.minor);
    }
  }
  // Last, as writing below a directory changes its time.
  for (const [path, mtime] of times.reverse()) utimesSync(path, mtime, mtime);
}

/** Without a way out: "a/../../b" is refused. */
function inside(name: string): string {
  const parts: string[] = [];
  for (const part of name.split("/")) {
    if (part === "" || part === ".") continue;
    if (part === "..") throw new Error(`archive entry ${JSON.stringify(name)} leads out of its directory`);
    parts.push(part);
  }
  return parts.join("/");
}

function statOf(path: string) {
  try {
    return lstatSync(path);
  } catch {
    return undefined;
  }
}

function makeParents(dir: string, name: string): void {
  const parent = dirname(name);
  if (parent === ".") return;
  let at = dir;
  for (const part of parent.split("/")) {
    at = join(at, part);
    const stats = statOf(at);
    if (!stats) mkdirSync(at, { mode: 0o755 });
    else if (!stats.isDirectory())
      throw new Error(`archive entry ${JSON.stringify(name)} would be written through ${JSON.stringify(at)}, which is no directory`);
  }
}

async function makeNode(path: string, type: string, mode: number, major: number, minor: number): Promise<void> {
  const { AT_FDCWD, binding, check, SYS } = await import("../../linux/index.ts");
  const kind = { "3": 0o020000, "4": 0o060000, "6": 0o010000 }[type];
  if (kind === undefined) throw new Error(`unknown type ${JSON.stringify(type)} of an archive entry`);
  const device = (minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12);
  check(binding.syscall(SYS.mknodat, AT_FDCWD, path, kind | (mode & 0o7777), type === "6" ? 0 : device), `mknod ${path}`);
}
