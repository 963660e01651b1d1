// Places in a container's tree, looked up by descriptor: nothing in the container can lead out of it.
import { constants } from "node:fs";
import { posix } from "node:path";
import { type Failure, notFound } from "../../lib/errors.ts";
import {
  binding,
  close,
  errno,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_PATH,
  O_RDONLY,
  openat2,
  RESOLVE_IN_ROOT,
  SYS,
  SystemError,
} from "../../linux/index.ts";
import { type FileStat, files } from "../../oci/index.ts";

/** The header X-Docker-Container-Path-Stat. */
export interface PathStat {
  name: string;
  size: number;
  /** Go's os.FileMode. */
  mode: number;
  mtime: string;
  linkTarget: string;
}

const GO_BITS: [mask: number, kind: number, go: number][] = [
  [constants.S_IFMT, constants.S_IFDIR, 2 ** 31],
  [constants.S_IFMT, constants.S_IFLNK, 2 ** 27],
  [constants.S_IFMT, constants.S_IFBLK, 2 ** 26],
  [constants.S_IFMT, constants.S_IFCHR, 2 ** 26 + 2 ** 21],
  [constants.S_IFMT, constants.S_IFIFO, 2 ** 25],
  [constants.S_IFMT, constants.S_IFSOCK, 2 ** 24],
  [0o4000, 0o4000, 2 ** 23],
  [0o2000, 0o2000, 2 ** 22],
  [0o1000, 0o1000, 2 ** 20],
];

/** Permission bits and kind as Go's os.FileMode has them. */
export function goMode(mode: number): number {
  let out = mode & 0o777;
  for (const [mask, kind, go] of GO_BITS) if ((mode & mask) === kind) out += go;
  return out;
}

export const isDirectory = (stat: FileStat) => (stat.mode & constants.S_IFMT) === constants.S_IFDIR;
export const isLink = (stat: FileStat) => (stat.mode & constants.S_IFMT) === constants.S_IFLNK;

/** The path made absolute and clean; a "/" or "/." at its end stays, for it asks for what a link leads to. */
export function cleanPath(path: string): string {
  const clean = posix.join("/", path);
  if (/\/\.$/.test(path) && clean !== "/") return `${clean.replace(/\/$/, "")}/.`;
  return path.endsWith("/") && !clean.endsWith("/") ? `${clean}/` : clean;
}

export function missing(path: string, container: string): Failure {
  return notFound(`Could not find the file ${path} in container ${container}`);
}

/** Opens as openat2 inside `root`; NotFound where there is no such file. */
export function openInside(root: number, path: string, flags: number, container: string, asked = path): number {
  try {
    return openat2(root, path, flags, { resolve: RESOLVE_IN_ROOT });
  } catch (error) {
    if (error instanceof SystemError && [errno.ENOENT, errno.ENOTDIR, errno.ELOOP].includes(error.errno as 2))
      throw missing(asked, container);
    throw error;
  }
}

/** Where a descriptor lies below `root`, which is what a link was followed to. */
function pathBelow(root: number, fd: number): string {
  const read = (each: number) => {
    const buffer = Buffer.alloc(4096);
    const n = binding.syscall(SYS.readlinkat, -100, `/proc/self/fd/${each}`, buffer, buffer.length);
    return n > 0 ? buffer.toString("utf8", 0, n) : "";
  };
  const [top, path] = [read(root), read(fd)];
  if (top === "/" || top === "") return path;
  return path.startsWith(`${top}/`) ? path.slice(top.length) : path;
}

/** The target that a link leads to in the end, as a path in the container; its text as it stands where the end is missing. */
function linkTarget(root: number, path: string, link: number): string {
  try {
    const fd = openat2(root, path, O_PATH, { resolve: RESOLVE_IN_ROOT });
    try {
      return pathBelow(root, fd);
    } finally {
      close(fd);
    }
  } catch {
    return posix.resolve(posix.dirname(path), files.readLink(link, ""));
  }
}

/** lstat of a path in the container. */
export function statPath(root: number, path: string, container: string): { stat: FileStat; answer: PathStat } {
  const clean = cleanPath(path);
  const fd = openInside(root, clean, clean.endsWith("/") || clean.endsWith("/.") ? O_PATH : O_PATH | O_NOFOLLOW, container, path);
  try {
    const stat = files.statOf(fd);
    if ((clean.endsWith("/") || clean.endsWith("/.")) && !isDirectory(stat)) throw missing(path, container);
    const answer = {
      name: posix.basename(clean) || "/",
      size: stat.size,
      mode: goMode(stat.mode),
      mtime: new Date(stat.mtimeSec * 1000).toISOString().replace(".000Z", "Z"),
      linkTarget: isLink(stat) ? linkTarget(root, clean, fd) : "",
    };
    return { stat, answer };
  } finally {
    close(fd);
  }
}

export const DIRECTORY = O_RDONLY | O_DIRECTORY;
