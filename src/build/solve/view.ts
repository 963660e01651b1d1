// Looking into a tree that is open: a file, a directory's entries, everything. Paths are looked up by the kernel inside the tree.
import { createReadStream } from "node:fs";
import type { Readable } from "node:stream";
import { breather } from "../../lib/breather.ts";
import { invalidArgument, notFound, resourceExhausted } from "../../lib/errors.ts";
import { binding, close, O_DIRECTORY, O_NOFOLLOW, O_PATH, O_RDONLY, RESOLVE_IN_ROOT, SYS } from "../../linux/index.ts";
import { type FileStat, files } from "../../oci/index.ts";
import { patternExpression } from "../dockerfile/index.ts";
import type { FileInfo, FileTree } from "../session.ts";
import { bytesOf, DIRECTORY, isDirectory, isFile, isLink, must } from "./tree.ts";

const MAX_READ = 128 << 20;
const MAX_ENTRIES = 100_000;
const names = Buffer.allocUnsafeSlow(64 << 10);
const value = Buffer.allocUnsafeSlow(64 << 10);

/** All extended attributes of a file in an open directory, but those of the machinery below. */
function xattrsOf(parent: number, name: string, link: boolean): Record<string, Uint8Array> {
  if (link) return {};
  const found: Record<string, Uint8Array> = {};
  const fd = files.openIn(parent, name, O_PATH | O_NOFOLLOW, 0);
  if (fd < 0) return found;
  const path = `/proc/self/fd/${fd}`;
  const length = binding.syscall(SYS.listxattr, path, names, names.length);
  for (const each of length > 0 ? names.toString("latin1", 0, length).split("\0").filter(Boolean) : []) {
    if (/^(trusted|user)\.overlay\.|^security\.selinux$|^system\./.test(each)) continue;
    const n = binding.syscall(SYS.getxattr, path, each, value, value.length);
    if (n >= 0) found[each] = Uint8Array.prototype.slice.call(value, 0, n);
  }
  close(fd);
  return found;
}

const major = (dev: bigint) => Number(((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn));
const minor = (dev: bigint) => Number((dev & 0xffn) | ((dev >> 12n) & ~0xffn));

function infoOf(parent: number, name: string, path: string, stat: FileStat, linkname: string): FileInfo {
  const device = (stat.mode & 0o170000) === 0o020000 || (stat.mode & 0o170000) === 0o060000;
  return {
    path: files.shown(path),
    mode: stat.mode,
    uid: stat.uid,
    gid: stat.gid,
    size: isFile(stat) ? stat.size : isLink(stat) ? linkname.length : 0,
    mtime: BigInt(stat.mtimeSec) * 1_000_000_000n + BigInt(stat.mtimeNsec),
    linkname: files.shown(linkname),
    devmajor: device ? major(stat.rdev) : 0,
    devminor: device ? minor(stat.rdev) : 0,
    xattrs: xattrsOf(parent, name, isLink(stat)),
  };
}

const cleanPath = (path: string): string => {
  if (path.includes("\0") || path.length > 65536) throw invalidArgument("invalid path");
  return bytesOf(path.replace(/^\/+/, "") || ".");
};
const absent = (what: string, path: string) => notFound(`failed to ${what} ${path}: no such file or directory`);

export function readFile(root: number, path: string, range?: { offset: number; length: number }): Uint8Array {
  const fd = files.openIn(root, cleanPath(path), O_RDONLY, RESOLVE_IN_ROOT);
  if (fd < 0) throw absent("open", path);
  try {
    const stat = files.statOf(fd);
    if (!isFile(stat)) throw invalidArgument(`${path} is no regular file`);
    const offset = Math.max(0, range?.offset ?? 0);
    const length = Math.max(0, Math.min(range && range.length > 0 ? range.length : stat.size, stat.size - offset));
    if (length > MAX_READ) throw resourceExhausted(`${path} is longer than ${MAX_READ} bytes`);
    const bytes = Buffer.alloc(length);
    let at = 0;
    while (at < length) {
      const n = must(binding.syscall(SYS.pread64, fd, bytes.subarray(at), length - at, offset + at), "read", path);
      if (n === 0) break;
      at += n;
    }
    return bytes.subarray(0, at);
  } finally {
    close(fd);
  }
}

export function readDir(root: number, path: string, pattern: string | undefined): FileInfo[] {
  const fd = files.openIn(root, cleanPath(path), O_RDONLY | O_DIRECTORY, RESOLVE_IN_ROOT);
  if (fd < 0) throw absent("open", path);
  try {
    const expression = pattern ? patternExpression(pattern) : undefined;
    const found = files.readDirectory(fd).map(({ name }) => name);
    if (found.length > MAX_ENTRIES) throw resourceExhausted(`${path} has more than ${MAX_ENTRIES} entries`);
    return found
      .filter((name) => !expression || expression.test(files.shown(name)))
      .sort()
      .map((name) => {
        const stat = files.statAt(fd, name);
        return infoOf(fd, name, name, stat, isLink(stat) ? files.readLink(fd, name) : "");
      });
  } finally {
    close(fd);
  }
}

/** Links are followed, as BuildKit does. */
export function statPath(root: number, path: string): FileInfo {
  const fd = files.openIn(root, cleanPath(path), O_PATH, RESOLVE_IN_ROOT);
  if (fd < 0) throw absent("lstat", path);
  try {
    const name = path.split("/").filter(Boolean).at(-1) ?? "/";
    return { ...infoOf(fd, ".", bytesOf(name), files.statOf(fd), ""), path: name };
  } finally {
    close(fd);
  }
}

/** Everything below `root`. It must stay open as long as the tree is used. */
export function fileTree(root: number): FileTree {
  async function* walk(
    fd: number,
    above: string,
    links: Map<string, string>,
    breathe: () => Promise<void> | undefined,
  ): AsyncGenerator<FileInfo> {
    const found = files.readDirectory(files.rewound(fd)).map(({ name }) => name);
    for (const name of found.sort()) {
      const path = above === "" ? name : `${above}/${name}`;
      const stat = files.statAt(fd, name);
      const several = isFile(stat) && stat.nlink > 1 ? `${stat.dev}:${stat.ino}` : undefined;
      const first = several === undefined ? undefined : links.get(several);
      if (several !== undefined && first === undefined) links.set(several, path);
      yield infoOf(fd, name, path, stat, isLink(stat) ? files.readLink(fd, name) : (first ?? ""));
      if (isDirectory(stat)) {
        const inner = must(files.openAt(fd, name, DIRECTORY | O_NOFOLLOW, 0), "open", path);
        try {
          yield* walk(inner, path, links, breathe);
        } finally {
          close(inner);
        }
      }
      await breathe();
    }
  }
  return {
    entries: () => ({
      async *[Symbol.asyncIterator]() {
        const fd = must(files.openIn(root, ".", DIRECTORY, RESOLVE_IN_ROOT), "open", "/");
        try {
          yield* walk(fd, "", new Map(), breather());
        } finally {
          close(fd);
        }
      },
    }),
    async open(path): Promise<Readable> {
      const fd = files.openIn(root, cleanPath(path), O_RDONLY | O_NOFOLLOW, RESOLVE_IN_ROOT);
      if (fd < 0) throw absent("open", path);
      return createReadStream("", { fd });
    },
  };
}
