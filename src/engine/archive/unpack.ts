// A tar stream into a directory of a container, as tar(1) does as root: what is in the way is replaced, owners and modes are the archive's. Each name
// is resolved by the kernel inside the container's root, and the last component is never followed.
import { constants } from "node:fs";
import type { Readable } from "node:stream";
import { invalidArgument, resourceExhausted, unknown } from "../../lib/errors.ts";
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
  SYS,
} from "../../linux/index.ts";
import { createTarReader, decompressed, files, type TarEntry } from "../../oci/index.ts";

export interface UnpackOptions {
  /** Refuse to replace a directory by something else, and the other way round. */
  noOverwriteDirNonDir: boolean;
  /** Owner of everything instead of the archive's. */
  owner: { uid: number; gid: number } | undefined;
}

const AT_REMOVEDIR = 0x200;
const CREATE = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW;

/** "./a/../b//c" → ["b","c"]; leading out of the top stays at the top, as in a root. */
function components(name: string): string[] {
  const out: string[] = [];
  for (const part of name.split("/")) {
    if (part === "" || part === ".") continue;
    if (part === "..") out.pop();
    else out.push(part);
  }
  return out;
}

function makedev(major: number, minor: number): number {
  return (minor & 0xff) + (major & 0xfff) * 0x100 + Math.floor(minor / 0x100) * 0x100000 + Math.floor(major / 0x1000) * 2 ** 32;
}

function fail(what: string, path: string, result: number): never {
  const text = `Error processing tar file(${what} /${files.shown(path)}: ${errnoText(-result)})`;
  throw result === -errno.ENOSPC || result === -errno.EDQUOT ? resourceExhausted(text) : unknown(text);
}

function must(result: number, what: string, path: string): number {
  return result < 0 ? fail(what, path, result) : result;
}

function removeAll(parent: number, name: string, path: string): void {
  const direct = files.unlinkAt(parent, name);
  if (direct >= 0 || direct === -errno.ENOENT) return;
  const fd = files.openAt(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
  if (fd < 0) fail("remove", path, direct);
  try {
    for (const entry of files.readDirectory(fd)) removeAll(fd, entry.name, `${path}/${entry.name}`);
  } finally {
    close(fd);
  }
  must(files.unlinkAt(parent, name, AT_REMOVEDIR), "remove", path);
}

/** Takes entries one after another; `root` is the directory's descriptor. */
function extractor(root: number, options: UnpackOptions) {
  const times = new Map<string, [seconds: number, nanoseconds: number]>();
  /** The directory that the last entry was in, for the next one is mostly in the same. */
  let parentPath = "";
  let parentFd = -1;
  let file = -1;
  let entry: TarEntry;
  let path = "";

  function forget(): void {
    close(parentFd);
    parentFd = -1;
  }

  function parentOf(parts: string[]): number {
    if (parts.length === 1) return root;
    const wanted = parts.slice(0, -1).join("/");
    if (parentFd >= 0 && parentPath === wanted) return parentFd;
    forget();
    let fd = files.openIn(root, wanted, O_RDONLY | O_DIRECTORY, RESOLVE_IN_ROOT);
    if (fd === -errno.ENOENT) {
      const above = parentOf(parts.slice(0, -1));
      must(files.mkdirAt(above, parts.at(-2)!, 0o755), "mkdir", wanted);
      fd = files.openAt(above, parts.at(-2)!, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
      must(fd, "open", wanted);
      must(files.fchmod(fd, 0o755), "chmod", wanted);
      if (options.owner) must(files.fchown(fd, options.owner.uid, options.owner.gid), "chown", wanted);
      forget();
    }
    must(fd, "open", wanted);
    parentPath = wanted;
    parentFd = fd;
    return fd;
  }

  const owner = () => options.owner ?? { uid: entry.uid, gid: entry.gid };

  function setAttributes(set: (name: string, value: string) => number): void {
    for (const [name, value] of entry.xattrs ?? []) {
      if (name.startsWith("trusted.overlay.")) continue;
      const result = set(name, value);
      if (result < 0 && result !== -errno.EOPNOTSUPP && result !== -errno.EPERM) fail(`setxattr ${files.shown(name)}`, path, result);
    }
  }

  /** Owner, mode, attributes of what is open; in this order, for a change of owner takes the setuid bit away. */
  function dress(fd: number): void {
    const { uid, gid } = owner();
    must(files.fchown(fd, uid, gid), "chown", path);
    must(files.fchmod(fd, entry.mode), "chmod", path);
    setAttributes((name, value) => files.setXattr(fd, name, value));
  }

  function makeWay(parent: number, name: string): void {
    const directory = entry.type === "directory";
    const fd = files.openAt(parent, name, O_PATH | O_NOFOLLOW, 0);
    if (fd === -errno.ENOENT) return;
    must(fd, "open", path);
    const existing = (files.statOf(fd).mode & constants.S_IFMT) === constants.S_IFDIR;
    close(fd);
    if (existing && directory) return;
    if (options.noOverwriteDirNonDir && existing !== directory) {
      const shown = files.shown(path);
      throw invalidArgument(
        directory
          ? `cannot overwrite non-directory "/${shown}" with directory "${shown}"`
          : `cannot overwrite directory "/${shown}" with non-directory "${shown}"`,
      );
    }
    removeAll(parent, name, path);
  }

  function makeNode(parent: number, name: string): void {
    if (entry.type === "symlink") must(files.symlinkAt(entry.linkname, parent, name), "symlink", path);
    else {
      const kind = entry.type === "char" ? constants.S_IFCHR : entry.type === "block" ? constants.S_IFBLK : constants.S_IFIFO;
      const device = entry.type === "fifo" ? 0 : makedev(entry.major, entry.minor);
      must(files.mknodAt(parent, name, kind | entry.mode, device), "mknod", path);
    }
    const { uid, gid } = owner();
    must(files.chownAt(parent, name, uid, gid), "chown", path);
    if (entry.type !== "symlink")
      must(binding.syscall(SYS.fchmodat, parent, Buffer.from(`${name}\0`, "latin1"), entry.mode), "chmod", path);
    setAttributes((key, value) => files.setXattrAt(parent, name, key, value));
    files.timesAt(parent, name, entry.mtimeSec, entry.mtimeNsec);
  }

  function makeLink(parent: number, name: string): void {
    const target = components(entry.linkname);
    const from = files.openIn(root, target.slice(0, -1).join("/") || ".", O_RDONLY | O_DIRECTORY, RESOLVE_IN_ROOT);
    must(from, "link", path);
    const result = files.linkAt(from, target.at(-1) ?? ".", parent, name);
    close(from);
    must(result, "link", path);
  }

  return {
    entry(next: TarEntry) {
      entry = next;
      const parts = components(entry.name);
      path = parts.join("/");
      const name = parts.at(-1);
      // The directory itself keeps its owner and mode.
      if (name === undefined) return;
      const parent = parentOf(parts);
      if (entry.type === "link" && components(entry.linkname).join("/") === path) return;
      makeWay(parent, name);
      if (entry.type === "file") file = must(files.openAt(parent, name, CREATE, 0o600), "open", path);
      else if (entry.type === "directory") {
        const made = files.mkdirAt(parent, name, 0o700);
        if (made !== -errno.EEXIST) must(made, "mkdir", path);
        const fd = must(files.openAt(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0), "open", path);
        try {
          dress(fd);
        } finally {
          close(fd);
        }
        times.set(path, [entry.mtimeSec, entry.mtimeNsec]);
      } else if (entry.type === "link") makeLink(parent, name);
      else makeNode(parent, name);
    },
    data(buffer: Uint8Array, offset: number, length: number) {
      if (file >= 0) must(files.writeAll(file, buffer, offset, length), "write", path);
    },
    hole(length: number) {
      if (file >= 0) must(files.skip(file, length), "write", path);
    },
    finish() {
      if (file < 0) return;
      const fd = file;
      file = -1;
      try {
        if (entry.sparse) must(files.setSize(fd, entry.size), "write", path);
        dress(fd);
        files.timesOf(fd, entry.mtimeSec, entry.mtimeNsec);
      } finally {
        close(fd);
      }
    },
    complete() {
      for (const [name, [seconds, nanoseconds]] of times) {
        const fd = files.openIn(root, name, O_RDONLY | O_DIRECTORY, RESOLVE_IN_ROOT);
        if (fd < 0) continue;
        files.timesOf(fd, seconds, nanoseconds);
        close(fd);
      }
    },
    close() {
      close(file);
      forget();
    },
  };
}

/** `root`: descriptor of the directory. */
export async function unpackInto(root: number, body: Readable, options: UnpackOptions): Promise<void> {
  const into = extractor(root, options);
  const reader = createTarReader(into);
  try {
    for await (const chunk of decompressed(body)) reader.push(chunk, 0, chunk.length);
    reader.end();
    into.complete();
  } finally {
    into.close();
  }
}
