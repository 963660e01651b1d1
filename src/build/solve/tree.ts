// Trees by descriptor: finding what COPY's patterns mean, and a digest of what would be copied. Every path is looked up by the kernel inside its root
// (openat2, RESOLVE_IN_ROOT); below that, by names that are never followed. Names are byte strings.
import { createHash, type Hash } from "node:crypto";
import { constants } from "node:fs";
import { posix } from "node:path";
import { breather } from "../../lib/breather.ts";
import { notFound, unknown } from "../../lib/errors.ts";
import {
  binding,
  close,
  errno,
  errnoText,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_PATH,
  O_RDONLY,
  RESOLVE_IN_ROOT,
  read,
  SYS,
} from "../../linux/index.ts";
import { type FileStat, files } from "../../oci/index.ts";
import { patternExpression } from "../dockerfile/index.ts";

export const DIRECTORY = O_RDONLY | O_DIRECTORY;
const AT_REMOVEDIR = 0x200;
const WILDCARD = /[*?[]/;

export const bytesOf = (text: string): string => Buffer.from(text).toString("latin1");
const kindOf = (stat: FileStat) => stat.mode & constants.S_IFMT;
export const isDirectory = (stat: FileStat) => kindOf(stat) === constants.S_IFDIR;
export const isFile = (stat: FileStat) => kindOf(stat) === constants.S_IFREG;
export const isLink = (stat: FileStat) => kindOf(stat) === constants.S_IFLNK;

export function must(result: number, what: string, path: string): number {
  if (result < 0) throw unknown(`${what} ${files.shown(path)}: ${errnoText(-result)}`);
  return result;
}

/** Opens a directory below `root`, links followed inside it; -errno where it can't. */
export const openDirectory = (root: number, path: string) => files.openIn(root, path === "" ? "." : path, DIRECTORY, RESOLVE_IN_ROOT);

/** One thing to copy. */
export interface Source {
  /** Below the root, without leading "/". */
  path: string;
  directory: boolean;
  /** It is a symbolic link that is not to be followed. */
  link?: boolean;
}

/** Which files of a source are meant; paths are relative to it. */
export interface Selection {
  excluded: (path: string) => boolean;
  /** Undefined: all. A directory that is not meant itself is there where something in it is. */
  included: ((path: string) => boolean) | undefined;
}

export const ALL: Selection = { excluded: () => false, included: undefined };

/** What is at a path; undefined where nothing is. */
function sourceAt(root: number, path: string, follow: boolean): Source | undefined {
  const fd = files.openIn(root, path === "" ? "." : path, O_PATH | (follow ? 0 : O_NOFOLLOW), RESOLVE_IN_ROOT);
  if (fd < 0) return undefined;
  try {
    const stat = files.statOf(fd);
    return { path, directory: isDirectory(stat), ...(isLink(stat) ? { link: true } : {}) };
  } finally {
    close(fd);
  }
}

/** What a pattern of COPY means in a tree. NotFound in the words of `where`, "%" being the path, where there is nothing. */
export function findSources(root: number, pattern: string, where: string, { wildcard = true, follow = true } = {}): Source[] {
  const clean = bytesOf(posix.join("/", pattern).slice(1).replace(/\/$/, ""));
  if (!wildcard || !WILDCARD.test(clean)) {
    const found = sourceAt(root, clean, follow);
    if (!found) throw notFound(where.replace("%", files.shown(clean)));
    return [found];
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
  return paths.flatMap((path) => sourceAt(root, path, follow) ?? []);
}

export const PIECE = 1 << 20;

/** Used between two awaits only. */
export const shared = Buffer.allocUnsafeSlow(PIECE);

function hashFile(hash: Hash, fd: number): void {
  for (let n = read(fd, shared); n; n = read(fd, shared)) hash.update(shared.subarray(0, n));
}

const attributeNames = Buffer.allocUnsafeSlow(64 << 10);

/** Extended attributes that are part of a file's content: capabilities and the user's. Values are byte strings. */
export function attributesOf(fd: number): [name: string, value: string][] {
  const length = binding.syscall(SYS.flistxattr, fd, attributeNames, attributeNames.length);
  if (length <= 0) return [];
  const found: [string, string][] = [];
  for (const name of attributeNames.toString("latin1", 0, length).split("\0").sort()) {
    if (name !== "security.capability" && !name.startsWith("user.")) continue;
    const n = binding.syscall(SYS.fgetxattr, fd, name, shared, shared.length);
    if (n >= 0) found.push([name, shared.toString("latin1", 0, n)]);
  }
  return found;
}

/**
 * Digests of files of this host that were read before, by what can't stay the same when a file changes: a build with the same large context need not read it again.
 * A file that was changed just now may be changed again within the clock's tick, and is not remembered.
 */
const remembered = new Map<string, string>();
const MAX_REMEMBERED = 100_000;
const TICK_NS = 100_000_000n;

function remember(identity: string, digest: string, stat: FileStat): void {
  if (BigInt(Date.now()) * 1_000_000n - stat.ctime < TICK_NS) return;
  if (remembered.size >= MAX_REMEMBERED) for (const key of [...remembered.keys()].slice(0, MAX_REMEMBERED / 10)) remembered.delete(key);
  remembered.set(identity, digest);
}

/** Adds what is at a path (names, modes, contents, capabilities; not times) to a hash. Owners count where they are copied. */
export async function hashSource(
  hash: Hash,
  root: number,
  source: Source,
  owners: boolean,
  { excluded, included }: Selection,
  options: { onFile?: (path: string, digest: string) => void; remembering?: boolean } = {},
): Promise<void> {
  const { onFile, remembering = false } = options;
  const breathe = breather();
  // Directories that are there only if something in them is.
  const waiting: string[] = [];
  const say = (text: string) => {
    for (const each of waiting.splice(0)) hash.update(each);
    hash.update(text);
  };
  /** `line` is what counts beside the content. */
  const contents = (stat: FileStat, path: string, line: string, open: () => number) => {
    const identity = remembering ? `${stat.dev}:${stat.ino}:${stat.ctime}:${stat.size}:${line}` : "";
    let digest = remembering ? remembered.get(identity) : undefined;
    if (digest === undefined) {
      const fd = must(open(), "open", path);
      try {
        const own = newHash();
        own.update(line);
        for (const [name, value] of attributesOf(fd)) own.update(`x ${name}=${value.length} ${value}\0`);
        if (isFile(stat)) hashFile(own, fd);
        digest = own.digest("hex");
      } finally {
        close(fd);
      }
      if (remembering) remember(identity, digest, stat);
    }
    say(digest);
    onFile?.(files.shown(path), digest);
  };
  const node = async (parent: number, name: string, shown: string): Promise<void> => {
    const stat = files.statAt(parent, name);
    const owner = owners ? ` ${stat.uid}:${stat.gid}` : "";
    const wanted = !included || included(files.shown(shown));
    if (isDirectory(stat)) {
      const line = `d ${stat.mode & 0o7777}${owner} ${shown}\0`;
      if (wanted) say(line);
      else waiting.push(line);
      const fd = must(files.openAt(parent, name, DIRECTORY | O_NOFOLLOW, 0), "open", shown);
      try {
        await directory(fd, shown);
      } finally {
        close(fd);
      }
      const at = waiting.indexOf(line);
      if (at >= 0) waiting.splice(at, 1);
    } else if (wanted) {
      if (isFile(stat)) {
        const line = `f ${stat.mode & 0o7777}${owner} ${stat.size} ${shown}\0`;
        contents(stat, shown, line, () => files.openAt(parent, name, O_RDONLY | O_NOFOLLOW, 0));
      } else if (isLink(stat)) say(`l${owner} ${files.readLink(parent, name)} ${shown}\0`);
      else say(`o ${stat.mode}${owner} ${stat.rdev} ${shown}\0`);
    }
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
  const fd = must(files.openIn(root, source.path, source.link ? O_PATH | O_NOFOLLOW : O_PATH, RESOLVE_IN_ROOT), "open", source.path);
  try {
    const stat = files.statOf(fd);
    const line = `f ${stat.mode & 0o7777}${owners ? ` ${stat.uid}:${stat.gid}` : ""} ${stat.size}\0`;
    hash.update(line);
    if (source.link) hash.update(`l ${files.readLink(fd, "")}\0`);
    else if (isFile(stat)) contents(stat, source.path, line, () => files.openIn(root, source.path, O_RDONLY, RESOLVE_IN_ROOT));
    else hash.update(`o ${stat.mode} ${stat.rdev}\0`);
  } finally {
    close(fd);
  }
}

/** Removes what has a name in a directory, with all below; nothing there is fine. */
export function removeAll(parent: number, name: string): void {
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

export interface Times {
  sec: number;
  nsec: number;
}

/** The directory at a path below `root`, made with its parents where it is not there. */
export function makeDirectories(
  root: number,
  path: string,
  owner: { uid: number; gid: number } | undefined,
  mode = 0o755,
  times?: Times,
): number {
  const clean = posix.join("/", path).slice(1).replace(/\/$/, "");
  const there = openDirectory(root, clean);
  if (there !== -errno.ENOENT || clean === "") return must(there, "mkdir", `/${clean}`);
  const above = makeDirectories(root, posix.dirname(clean), owner, mode, times);
  try {
    const name = posix.basename(clean);
    must(files.mkdirAt(above, name, mode), "mkdir", clean);
    const fd = must(files.openAt(above, name, DIRECTORY | O_NOFOLLOW, 0), "open", clean);
    must(files.fchmod(fd, mode), "chmod", clean);
    if (owner) must(files.fchown(fd, owner.uid, owner.gid), "chown", clean);
    // a change of owner takes set-id bits away
    if (owner && mode > 0o777) must(files.fchmod(fd, mode), "chmod", clean);
    if (times) files.timesOf(fd, times.sec, times.nsec);
    return fd;
  } finally {
    close(above);
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
