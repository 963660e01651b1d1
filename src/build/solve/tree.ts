// Trees by descriptor: finding what COPY's patterns mean, a digest of what would be copied, and copying. Every path is looked up by the kernel inside its root
// (openat2, RESOLVE_IN_ROOT); below that, by names that are never followed. Names are byte strings.
import { createHash, type Hash } from "node:crypto";
import { constants } from "node:fs";
import { posix } from "node:path";
import { failedPrecondition, notFound, unknown } from "../../lib/errors.ts";
import {
  binding,
  close,
  errno,
  errnoText,
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_NOFOLLOW,
  O_PATH,
  O_RDONLY,
  O_WRONLY,
  RESOLVE_IN_ROOT,
  read,
  SYS,
} from "../../linux/index.ts";
import { type FileStat, files } from "../../oci/index.ts";
import { patternExpression } from "../dockerfile/index.ts";

const DIRECTORY = O_RDONLY | O_DIRECTORY;
const AT_REMOVEDIR = 0x200;
const WILDCARD = /[*?[]/;

export const bytesOf = (text: string): string => Buffer.from(text).toString("latin1");
const kindOf = (stat: FileStat) => stat.mode & constants.S_IFMT;
export const isDirectory = (stat: FileStat) => kindOf(stat) === constants.S_IFDIR;
const isFile = (stat: FileStat) => kindOf(stat) === constants.S_IFREG;
const isLink = (stat: FileStat) => kindOf(stat) === constants.S_IFLNK;

export function must(result: number, what: string, path: string): number {
  if (result < 0) throw unknown(`${what} ${files.shown(path)}: ${errnoText(-result)}`);
  return result;
}

/** Opens a directory below `root`, links followed inside it; -errno where it can't. */
const openDirectory = (root: number, path: string) => files.openIn(root, path === "" ? "." : path, DIRECTORY, RESOLVE_IN_ROOT);

/** One thing to copy. */
export interface Source {
  /** Below the root, without leading "/". */
  path: string;
  directory: boolean;
}

/** What a pattern of COPY means in a tree. NotFound in Docker's words. */
export function findSources(root: number, pattern: string, where: string): Source[] {
  const clean = bytesOf(posix.join("/", pattern).slice(1).replace(/\/$/, ""));
  if (!WILDCARD.test(clean)) {
    const fd = files.openIn(root, clean === "" ? "." : clean, O_PATH, RESOLVE_IN_ROOT);
    if (fd < 0) throw notFound(where.replace("%", files.shown(clean)));
    try {
      return [{ path: clean, directory: isDirectory(files.statOf(fd)) }];
    } finally {
      close(fd);
    }
  }
  let paths = [""];
  for (const part of clean.split("/")) {
    const next: string[] = [];
    const expression = WILDCARD.test(part) ? patternExpression(Buffer.from(part, "latin1").toString().replace(/\*\*+/g, "*")) : undefined;
    for (const path of paths) {
      const fd = openDirectory(root, path);
      if (fd < 0) continue;
      try {
        const names = files.readDirectory(fd).map(({ name }) => name);
        const fitting = expression ? names.filter((name) => expression.test(files.shown(name))) : names.filter((name) => name === part);
        for (const name of fitting.sort()) next.push(path === "" ? name : `${path}/${name}`);
      } finally {
        close(fd);
      }
    }
    paths = next;
  }
  return paths.flatMap((path) => {
    const fd = files.openIn(root, path, O_PATH, RESOLVE_IN_ROOT);
    if (fd < 0) return [];
    const directory = isDirectory(files.statOf(fd));
    close(fd);
    return [{ path, directory }];
  });
}

/** Whether a path, relative to what is copied, is left out. */
export type Excluded = (path: string) => boolean;

const PIECE = 1 << 20;

/** Used between two awaits only. */
const shared = Buffer.allocUnsafeSlow(PIECE);

function hashFile(hash: Hash, fd: number): void {
  for (let n = read(fd, shared); n; n = read(fd, shared)) hash.update(shared.subarray(0, n));
}

/** Gives others a turn in a long walk. */
function breather(): () => Promise<void> | undefined {
  let last = performance.now();
  return () => {
    if (performance.now() - last < 10) return undefined;
    return new Promise((resolve) =>
      setImmediate(() => {
        last = performance.now();
        resolve();
      }),
    );
  };
}

/** Adds what is at a path (names, modes, contents; not times) to a hash. Owners count where they are copied. */
export async function hashSource(hash: Hash, root: number, source: Source, owners: boolean, excluded: Excluded): Promise<void> {
  const breathe = breather();
  const node = async (parent: number, name: string, shown: string): Promise<void> => {
    const stat = files.statAt(parent, name);
    const owner = owners ? ` ${stat.uid}:${stat.gid}` : "";
    if (isFile(stat)) {
      hash.update(`f ${stat.mode & 0o7777}${owner} ${stat.size} ${shown}\0`);
      const fd = must(files.openAt(parent, name, O_RDONLY | O_NOFOLLOW, 0), "open", shown);
      try {
        hashFile(hash, fd);
      } finally {
        close(fd);
      }
    } else if (isDirectory(stat)) {
      hash.update(`d ${stat.mode & 0o7777}${owner} ${shown}\0`);
      const fd = must(files.openAt(parent, name, DIRECTORY | O_NOFOLLOW, 0), "open", shown);
      try {
        await directory(fd, shown);
      } finally {
        close(fd);
      }
    } else if (isLink(stat)) hash.update(`l${owner} ${files.readLink(parent, name)} ${shown}\0`);
    else hash.update(`o ${stat.mode}${owner} ${stat.rdev} ${shown}\0`);
    await breathe();
  };
  const directory = async (fd: number, shown: string): Promise<void> => {
    const names = files.readDirectory(fd).map(({ name }) => name);
    for (const name of names.sort()) {
      const path = shown === "" ? name : `${shown}/${name}`;
      if (!excluded(files.shown(path))) await node(fd, name, path);
    }
  };
  hash.update(`s ${source.directory} ${source.path}\0`);
  if (source.directory) {
    const fd = must(openDirectory(root, source.path), "open", source.path);
    try {
      hash.update(`${files.statOf(fd).mode & 0o7777}\0`);
      await directory(fd, "");
    } finally {
      close(fd);
    }
    return;
  }
  const fd = must(files.openIn(root, source.path, O_RDONLY, RESOLVE_IN_ROOT), "open", source.path);
  try {
    const stat = files.statOf(fd);
    hash.update(`f ${stat.mode & 0o7777}${owners ? ` ${stat.uid}:${stat.gid}` : ""} ${stat.size}\0`);
    if (isFile(stat)) hashFile(hash, fd);
  } finally {
    close(fd);
  }
}

export interface CopyOptions {
  /** Of everything; undefined: as the source's. */
  owner: { uid: number; gid: number } | undefined;
  mode: number | undefined;
  excluded: Excluded;
}

function removeAll(parent: number, name: string): void {
  const direct = files.unlinkAt(parent, name);
  if (direct >= 0 || direct === -errno.ENOENT) return;
  const fd = files.openAt(parent, name, DIRECTORY | O_NOFOLLOW, 0);
  if (fd < 0) must(direct, "remove", name);
  try {
    for (const entry of files.readDirectory(fd)) removeAll(fd, entry.name);
  } finally {
    close(fd);
  }
  must(files.unlinkAt(parent, name, AT_REMOVEDIR), "remove", name);
}

export { removeAll };

/** The directory at a path below `root`, made with its parents where it is not there. */
export function makeDirectories(root: number, path: string, owner: { uid: number; gid: number } | undefined, mode = 0o755): number {
  const clean = posix.join("/", path).slice(1).replace(/\/$/, "");
  const there = openDirectory(root, clean);
  if (there !== -errno.ENOENT || clean === "") return must(there, "open", clean);
  const above = makeDirectories(root, posix.dirname(clean), owner);
  try {
    const name = posix.basename(clean);
    must(files.mkdirAt(above, name, mode), "mkdir", clean);
    const fd = must(files.openAt(above, name, DIRECTORY | O_NOFOLLOW, 0), "open", clean);
    must(files.fchmod(fd, mode), "chmod", clean);
    if (owner) must(files.fchown(fd, owner.uid, owner.gid), "chown", clean);
    return fd;
  } finally {
    close(above);
  }
}

/** Copies data; large files off the event loop. */
async function copyData(from: number, to: number, size: number, path: string): Promise<void> {
  if (size <= PIECE) {
    for (let left = size; left > 0; ) {
      const n = read(from, shared);
      if (!n) return;
      must(files.writeAll(to, shared, 0, n), "write", path);
      left -= n;
    }
    return;
  }
  for (let left = size; left > 0; ) {
    const n = await binding.syscallAsync(SYS.copy_file_range, from, null, to, null, Math.min(left, 64 << 20), 0);
    if (n === 0) return;
    if (n === -errno.EXDEV || n === -errno.EINVAL || n === -errno.EOPNOTSUPP) {
      const buffer = Buffer.allocUnsafe(PIECE);
      for (let got = read(from, buffer); got; got = read(from, buffer)) {
        must(files.writeAll(to, buffer, 0, got), "write", path);
        await new Promise((resolve) => setImmediate(resolve));
      }
      return;
    }
    left -= must(n, "copy", path);
  }
}

const xattrNames = Buffer.allocUnsafeSlow(64 << 10);

/** File capabilities and user attributes go along. */
function copyXattrs(from: number, to: number): void {
  const names = xattrNames;
  const length = binding.syscall(SYS.flistxattr, from, names, names.length);
  if (length <= 0) return;
  const value = Buffer.alloc(64 << 10);
  for (const name of names.toString("latin1", 0, length).split("\0").filter(Boolean)) {
    if (name !== "security.capability" && !name.startsWith("user.")) continue;
    const n = binding.syscall(SYS.fgetxattr, from, name, value, value.length);
    if (n >= 0) files.setXattr(to, name, value.toString("latin1", 0, n));
  }
}

async function copyFile(from: number, stat: FileStat, parent: number, name: string, options: CopyOptions): Promise<void> {
  const at = files.openAt(parent, name, O_PATH | O_NOFOLLOW, 0);
  if (at >= 0) {
    const directory = isDirectory(files.statOf(at));
    close(at);
    if (directory) throw failedPrecondition(`cannot copy to directory, not a file: ${files.shown(name)}`);
    must(files.unlinkAt(parent, name), "remove", name);
  }
  const to = must(files.openAt(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600), "create", name);
  try {
    await copyData(from, to, stat.size, name);
    const owner = options.owner ?? stat;
    must(files.fchown(to, owner.uid, owner.gid), "chown", name);
    must(files.fchmod(to, options.mode ?? stat.mode & 0o7777), "chmod", name);
    copyXattrs(from, to);
    files.timesOf(to, stat.mtimeSec, stat.mtimeNsec);
  } finally {
    close(to);
  }
}

/** Copies one source (below `root`) to `name` in the directory `parent`, or what a directory holds into `parent` itself where `name` is undefined. */
export async function copySource(
  root: number,
  source: Source,
  parent: number,
  name: string | undefined,
  options: CopyOptions,
): Promise<void> {
  const breathe = breather();
  const node = async (fromDir: number, from: string, toDir: number, to: string, path: string): Promise<void> => {
    const stat = files.statAt(fromDir, from);
    if (isDirectory(stat)) {
      const fd = must(files.openAt(fromDir, from, DIRECTORY | O_NOFOLLOW, 0), "open", path);
      try {
        const made = files.mkdirAt(toDir, to, 0o700);
        const target = files.openAt(toDir, to, DIRECTORY | O_NOFOLLOW, 0);
        if (made === -errno.EEXIST && target < 0) throw failedPrecondition(`cannot copy to non-directory: ${files.shown(to)}`);
        must(target, "mkdir", path);
        try {
          const owner = options.owner ?? stat;
          must(files.fchown(target, owner.uid, owner.gid), "chown", path);
          must(files.fchmod(target, options.mode ?? stat.mode & 0o7777), "chmod", path);
          await children(fd, target, path);
          files.timesOf(target, stat.mtimeSec, stat.mtimeNsec);
        } finally {
          close(target);
        }
      } finally {
        close(fd);
      }
    } else if (isFile(stat)) {
      const fd = must(files.openAt(fromDir, from, O_RDONLY | O_NOFOLLOW, 0), "open", path);
      try {
        await copyFile(fd, stat, toDir, to, options);
      } finally {
        close(fd);
      }
    } else {
      removeAll(toDir, to);
      if (isLink(stat)) must(files.symlinkAt(files.readLink(fromDir, from), toDir, to), "symlink", path);
      else must(files.mknodAt(toDir, to, stat.mode, Number(stat.rdev)), "mknod", path);
      const owner = options.owner ?? stat;
      must(files.chownAt(toDir, to, owner.uid, owner.gid), "chown", path);
      files.timesAt(toDir, to, stat.mtimeSec, stat.mtimeNsec);
    }
    await breathe();
  };
  const children = async (fromDir: number, toDir: number, path: string): Promise<void> => {
    for (const { name: child } of files.readDirectory(fromDir)) {
      const below = path === "" ? child : `${path}/${child}`;
      if (!options.excluded(files.shown(below))) await node(fromDir, child, toDir, child, below);
    }
  };
  if (source.directory) {
    const fd = must(openDirectory(root, source.path), "open", source.path);
    try {
      if (name === undefined) await children(fd, parent, "");
      else {
        const stat = files.statOf(fd);
        const made = files.mkdirAt(parent, name, stat.mode & 0o7777);
        const target = must(files.openAt(parent, name, DIRECTORY | O_NOFOLLOW, 0), "mkdir", name);
        try {
          const owner = options.owner ?? stat;
          if (made >= 0) must(files.fchown(target, owner.uid, owner.gid), "chown", name);
          if (made >= 0) must(files.fchmod(target, options.mode ?? stat.mode & 0o7777), "chmod", name);
          await children(fd, target, "");
        } finally {
          close(target);
        }
      }
    } finally {
      close(fd);
    }
    return;
  }
  const fd = must(files.openIn(root, source.path, O_RDONLY, RESOLVE_IN_ROOT), "open", source.path);
  try {
    const stat = files.statOf(fd);
    if (!isFile(stat)) throw failedPrecondition(`can't copy ${files.shown(source.path)}: it is a device, a socket or a pipe`);
    await copyFile(fd, stat, parent, name ?? posix.basename(source.path), options);
  } finally {
    close(fd);
  }
}

/** A small text file below `root`; "" where there is none. */
export function textOf(root: number, path: string, limit = 4 << 20): string {
  const fd = files.openIn(root, path, O_RDONLY, RESOLVE_IN_ROOT);
  if (fd < 0) return "";
  try {
    const stat = files.statOf(fd);
    if (!isFile(stat) || stat.size > limit) return "";
    const buffer = Buffer.alloc(stat.size);
    let at = 0;
    while (at < buffer.length) {
      const n = read(fd, buffer.subarray(at));
      if (!n) break;
      at += n;
    }
    return buffer.toString("utf8", 0, at);
  } finally {
    close(fd);
  }
}

export const newHash = (): Hash => createHash("sha256");
