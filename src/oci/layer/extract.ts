// A layer's entries become files below a directory: the upper directory of an overlay snapshot, or any other. Every path is resolved by the
// kernel inside that directory (openat2 with RESOLVE_IN_ROOT): neither "..", nor an absolute name, nor a symbolic link leads out of it. The last
// component is never followed. Deletions become what overlayfs understands: a character device 0:0, or the xattr trusted.overlay.opaque
// (https://docs.kernel.org/filesystems/overlayfs.html, "whiteouts and opaque directories").
import { Failure, invalidArgument, messageOf, resourceExhausted } from "../../lib/errors.ts";
import { createRoom } from "../../lib/room.ts";
import {
  close,
  errno,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_PATH,
  O_RDONLY,
  open,
  RESOLVE_IN_ROOT,
  RESOLVE_NO_MAGICLINKS,
  SystemError,
} from "../../linux/index.ts";
import * as kernel from "./kernel.ts";
import { shown } from "./kernel.ts";
import type { TarEntry, TarSink } from "./tar-reader.ts";
import { removeTree } from "./tree.ts";

const IN_ROOT = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
const CREATE = 0o1 | 0o100 | 0o200 | O_NOFOLLOW;
const DIRECTORY = O_RDONLY | O_DIRECTORY;
const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const S_IFLNK = 0o120000;
const S_IFCHR = 0o020000;
const S_IFBLK = 0o060000;
const S_IFIFO = 0o010000;
const MAX_PATH = 4096;
const MAX_DIRFDS = 400;
const WHITEOUT = ".wh.";
const OPAQUE = ".wh..wh..opq";

export type Whiteouts = "overlay" | "remove" | "ignore";

export interface ExtractOptions {
  /** Directory to fill. */
  root: string;
  /** "overlay": deletions become overlayfs whiteouts; "remove": they remove what lies in `root` from before this layer; "ignore": nothing lies below. */
  whiteouts: Whiteouts;
  /** Where a parent directory is missing in the archive, its mode and owner are taken from the same path in one of these, topmost first. */
  parents?: readonly string[];
  /** ResourceExhausted above this many bytes of file data; undefined: above what the file system has to spare. */
  maxBytes: number | undefined;
  maxEntries: number;
}

export interface Extractor extends TarSink {
  /** Sets what must come last (times of directories). */
  complete(): void;
  /** Closes all descriptors; on failure the half-made files stay for the owner of `root` to remove. */
  close(): void;
  readonly bytes: number;
  readonly entries: number;
  /** Directories that the archive does not name but needs, found in none of `parents`: they look as made (0755, root). Byte strings. */
  readonly implied: string[];
}

/** "./a//b/" → ["a","b"]; a name that leads above the root is refused. */
function components(name: string): string[] {
  const out: string[] = [];
  for (const part of name.split("/")) {
    if (part === "" || part === ".") continue;
    if (part === "..") {
      if (out.length === 0) throw invalidArgument(`layer entry ${JSON.stringify(shown(name))} lies outside of the layer`);
      out.pop();
    } else out.push(part);
  }
  return out;
}

/** Number of a device as the system calls take it (glibc's makedev). */
function makedev(major: number, minor: number): number {
  return (minor & 0xff) + (major & 0xfff) * 0x100 + Math.floor(minor / 0x100) * 0x100000 + Math.floor(major / 0x1000) * 2 ** 32;
}

export function createExtractor(options: ExtractOptions): Extractor {
  const root = open(options.root, DIRECTORY);
  const lower = (options.parents ?? []).map((path) => open(path, DIRECTORY));
  /** Open directories by cleaned path. */
  const dirs = new Map<string, number>();
  const dirTimes = new Map<string, [sec: number, nsec: number]>();
  /** What this layer made; only kept where a whiteout must tell it from what was there. */
  const made = options.whiteouts === "remove" ? new Set<string>() : undefined;
  const implied: string[] = [];
  let setgidSeen = false;
  let file = -1;
  let current: TarEntry | undefined;
  let currentPath = "";
  let bytes = 0;
  let entries = 0;

  const room = options.maxBytes === undefined ? createRoom(options.root) : undefined;
  /** To be called before the bytes are written. */
  const count = (length: number) => {
    bytes += length;
    try {
      room?.(length);
    } catch (error) {
      throw resourceExhausted(`failed to extract layer: ${messageOf(error)}`, error);
    }
    if (options.maxBytes !== undefined && bytes > options.maxBytes)
      throw resourceExhausted(`layer is larger than ${options.maxBytes} bytes when unpacked`);
  };

  const fail = (what: string, path: string, result: number): never => {
    const error = new SystemError(`${what} ${shown(path)}`, -result);
    if (-result === errno.ENOSPC || -result === errno.EDQUOT) {
      throw new Failure(
        "ResourceExhausted",
        `failed to extract layer: write /${shown(path)}: ${-result === errno.ENOSPC ? "no space left on device" : "disk quota exceeded"}`,
        {
          cause: error,
        },
      );
    }
    throw error;
  };
  const must = (result: number, what: string, path: string): number => (result < 0 ? fail(what, path, result) : result);

  const forget = () => {
    for (const fd of dirs.values()) kernel.closeFd(fd);
    dirs.clear();
  };
  const remember = (path: string, fd: number): number => {
    if (dirs.size >= MAX_DIRFDS) forget();
    dirs.set(path, fd);
    return fd;
  };

  /** Mode, owner and times for a directory that the archive does not name. */
  const adopt = (path: string, fd: number) => {
    for (const top of lower) {
      const from = kernel.openIn(top, path, DIRECTORY, IN_ROOT);
      if (from < 0) continue;
      const stat = kernel.statOf(from);
      if (stat.uid || stat.gid) kernel.fchown(fd, stat.uid, stat.gid);
      kernel.fchmod(fd, stat.mode & 0o7777);
      kernel.copyXattrs(from, fd);
      kernel.closeFd(from);
      dirTimes.set(path, [stat.mtimeSec, stat.mtimeNsec]);
      return;
    }
    implied.push(path);
    if (setgidSeen) kernel.fchown(fd, 0, 0);
  };

  /** Descriptor of the directory at these components, made where missing. Valid until the next call. */
  const directory = (parts: string[], count: number): number => {
    if (count === 0) return root;
    const path = count === parts.length ? parts.join("/") : parts.slice(0, count).join("/");
    const known = dirs.get(path);
    if (known !== undefined) return known;
    const fd = kernel.openIn(root, path, DIRECTORY, IN_ROOT);
    if (fd >= 0) {
      // what changes in a directory of before is no change of the directory, unless the layer says so
      if (made && !dirTimes.has(path)) {
        const { mtimeSec, mtimeNsec } = kernel.statOf(fd);
        dirTimes.set(path, [mtimeSec, mtimeNsec]);
      }
      return remember(path, fd);
    }
    if (-fd !== errno.ENOENT) fail("open", path, fd);
    const name = parts[count - 1]!;
    const parent = directory(parts, count - 1);
    must(kernel.mkdirAt(parent, name, 0o755), "mkdir", path);
    const fresh = must(kernel.openAt(parent, name, DIRECTORY | O_NOFOLLOW, 0), "open", path);
    adopt(path, fresh);
    return remember(path, fresh);
  };

  const notDirectory = (path: string): boolean => {
    if (dirs.has(path)) return false;
    const fd = kernel.openIn(root, path, O_PATH | O_NOFOLLOW, IN_ROOT);
    if (fd < 0) return -fd === errno.ENOTDIR;
    const { mode } = kernel.statOf(fd);
    kernel.closeFd(fd);
    return (mode & S_IFMT) !== S_IFDIR && (mode & S_IFMT) !== S_IFLNK;
  };

  /** Takes away whatever is at this name, so that it can be made anew. */
  const clear = (parent: number, name: string, path: string) => {
    const result = kernel.unlinkAt(parent, name);
    if (result >= 0 || -result === errno.ENOENT) return;
    if (-result !== errno.EISDIR && -result !== errno.EPERM) fail("unlink", path, result);
    removeTree(parent, name);
    forget();
    for (const key of dirTimes.keys()) if (key === path || key.startsWith(`${path}/`)) dirTimes.delete(key);
  };

  /** Runs `make`; where the name is taken, clears it and runs `make` again on a parent that is still open. */
  const create = (parts: string[], path: string, what: string, make: (parent: number, name: string) => number): number => {
    const name = parts.at(-1)!;
    const result = make(directory(parts, parts.length - 1), name);
    if (result !== -errno.EEXIST) return must(result, what, path);
    clear(directory(parts, parts.length - 1), name, path);
    return must(make(directory(parts, parts.length - 1), name), what, path);
  };

  const xattrs = (entry: TarEntry, path: string, set: (name: string, value: string) => number) => {
    for (const [name, value] of entry.xattrs!) {
      // overlayfs' own attributes in a layer would redirect lookups: only a whiteout may set one
      if (name.startsWith("trusted.overlay.") || name.startsWith("user.overlay.")) continue;
      const result = set(name, value);
      if (result < 0 && -result !== errno.ENOTSUP && !(-result === errno.EPERM && name.startsWith("user.")))
        fail(`setxattr ${shown(name)}`, path, result);
    }
  };

  const makeDirectory = (entry: TarEntry, parts: string[], path: string) => {
    if (entry.mode & 0o2000) setgidSeen = true;
    let fd = root;
    let existed = true;
    if (parts.length > 0) {
      const name = parts.at(-1)!;
      const parent = directory(parts, parts.length - 1);
      const result = kernel.mkdirAt(parent, name, entry.mode);
      if (result < 0 && -result !== errno.EEXIST) fail("mkdir", path, result);
      existed = result < 0;
      fd = existed ? (dirs.get(path) ?? -1) : -1;
      if (fd < 0 || existed) {
        let opened = kernel.openAt(parent, name, DIRECTORY | O_NOFOLLOW, 0);
        if (existed && (-opened === errno.ENOTDIR || -opened === errno.ELOOP)) {
          clear(parent, name, path);
          must(kernel.mkdirAt(directory(parts, parts.length - 1), name, entry.mode), "mkdir", path);
          opened = kernel.openAt(directory(parts, parts.length - 1), name, DIRECTORY | O_NOFOLLOW, 0);
        }
        must(opened, "open", path);
        const old = dirs.get(path);
        if (old !== undefined) {
          kernel.closeFd(old);
          dirs.delete(path);
        }
        fd = remember(path, opened);
      }
    }
    if (existed || setgidSeen || entry.uid || entry.gid) must(kernel.fchown(fd, entry.uid, entry.gid), "chown", path);
    if (existed || entry.mode & 0o6000 || entry.uid || entry.gid) must(kernel.fchmod(fd, entry.mode), "chmod", path);
    if (entry.xattrs) xattrs(entry, path, (name, value) => kernel.setXattr(fd, name, value));
    dirTimes.set(path, [entry.mtimeSec, entry.mtimeNsec]);
  };

  const makeFile = (entry: TarEntry, parts: string[], path: string) => {
    file = create(parts, path, "create", (parent, name) => kernel.openAt(parent, name, CREATE, entry.mode));
  };

  const finishFile = (entry: TarEntry) => {
    const fd = file;
    file = -1;
    if (entry.uid || entry.gid || setgidSeen) {
      must(kernel.fchown(fd, entry.uid, entry.gid), "chown", currentPath);
      if (entry.mode & 0o6000) must(kernel.fchmod(fd, entry.mode), "chmod", currentPath);
    }
    if (entry.xattrs) xattrs(entry, currentPath, (name, value) => kernel.setXattr(fd, name, value));
    kernel.timesOf(fd, entry.mtimeSec, entry.mtimeNsec);
    kernel.closeFd(fd);
  };

  /** Owner, attributes and times of what is not opened (symbolic links, devices, pipes). */
  const dress = (entry: TarEntry, parts: string[], path: string) => {
    const parent = directory(parts, parts.length - 1);
    const name = parts.at(-1)!;
    if (entry.uid || entry.gid || setgidSeen) must(kernel.chownAt(parent, name, entry.uid, entry.gid), "chown", path);
    if (entry.xattrs) xattrs(entry, path, (key, value) => kernel.setXattrAt(parent, name, key, value));
    kernel.timesAt(parent, name, entry.mtimeSec, entry.mtimeNsec);
  };

  const makeNode = (entry: TarEntry, parts: string[], path: string) => {
    const kind = entry.type === "char" ? S_IFCHR : entry.type === "block" ? S_IFBLK : S_IFIFO;
    const dev = entry.type === "fifo" ? 0 : makedev(entry.major, entry.minor);
    create(parts, path, "mknod", (parent, name) => kernel.mknodAt(parent, name, kind | entry.mode, dev));
    dress(entry, parts, path);
  };

  const makeLink = (entry: TarEntry, parts: string[], path: string) => {
    const target = components(entry.linkname);
    if (target.length === 0 || entry.linkname.length > MAX_PATH) throw invalidArgument(`layer entry ${shown(path)}: bad hard link target`);
    if (target.join("/") === path) return;
    create(parts, path, `link ${shown(entry.linkname)} to`, (parent, name) => {
      const from = kernel.openIn(root, target.slice(0, -1).join("/") || ".", DIRECTORY, IN_ROOT);
      if (from < 0) return from;
      const result = kernel.linkAt(from, target.at(-1)!, parent, name);
      kernel.closeFd(from);
      return result;
    });
  };

  /** Removes what was at `path` before this layer, keeping what the layer itself made below it. */
  const removeOld = (parent: number, name: string, path: string) => {
    const fd = kernel.openAt(parent, name, DIRECTORY | O_NOFOLLOW, 0);
    if (fd < 0) {
      if (!made!.has(path)) kernel.unlinkAt(parent, name);
      return;
    }
    for (const entry of kernel.readDirectory(fd)) removeOld(fd, entry.name, `${path}/${entry.name}`);
    kernel.closeFd(fd);
    if (!made!.has(path)) kernel.unlinkAt(parent, name, 0x200);
  };

  const whiteout = (parts: string[], base: string) => {
    if (options.whiteouts === "ignore") return;
    const count = parts.length - 1;
    const path = parts.slice(0, count).join("/");
    // Below what is no directory any more nothing is left to delete (umoci says both, the file that replaces a directory and the deletions in it).
    if (count > 0 && notDirectory(path)) return;
    if (base === OPAQUE) {
      const fd = directory(parts, count);
      if (!made) must(kernel.setXattr(fd, "trusted.overlay.opaque", "y"), "setxattr trusted.overlay.opaque", path);
      else
        for (const entry of kernel.readDirectory(kernel.rewound(fd)))
          removeOld(fd, entry.name, path ? `${path}/${entry.name}` : entry.name);
      if (made) forget();
      return;
    }
    // other names of this kind are aufs' own bookkeeping
    if (base.startsWith(".wh..wh.")) return;
    const name = base.slice(WHITEOUT.length);
    if (name === "" || name === "." || name === "..") throw invalidArgument(`layer entry ${shown(path)}/${shown(base)}: bad whiteout name`);
    const parent = directory(parts, count);
    if (made) {
      removeOld(parent, name, path ? `${path}/${name}` : name);
      forget();
      return;
    }
    const result = kernel.mknodAt(parent, name, S_IFCHR, 0);
    if (result < 0 && -result !== errno.EEXIST) fail("mknod whiteout", `${path}/${name}`, result);
  };

  return {
    implied,
    get bytes() {
      return bytes;
    },
    get entries() {
      return entries;
    },
    entry(entry) {
      if (++entries > options.maxEntries) throw resourceExhausted(`layer has more than ${options.maxEntries} entries`);
      // the holes of a sparse file take no room
      if (!entry.sparse) count(entry.size);
      if (entry.name.length > MAX_PATH || entry.linkname.length > MAX_PATH) throw invalidArgument("layer entry's name is too long");
      if (entry.uid < 0 || entry.gid < 0 || entry.uid > 0xfffffffe || entry.gid > 0xfffffffe)
        throw invalidArgument("layer entry's owner is out of range");
      current = entry;
      const parts = components(entry.name);
      const path = parts.join("/");
      currentPath = path;
      const base = parts.at(-1) ?? "";
      if (base.startsWith(WHITEOUT)) return whiteout(parts, base);
      if (parts.length === 0 && entry.type !== "directory")
        throw invalidArgument(`layer entry ${JSON.stringify(shown(entry.name))} is the root itself`);
      if (made) for (let i = 1; i <= parts.length; i++) made.add(parts.slice(0, i).join("/"));
      if (entry.type === "file") makeFile(entry, parts, path);
      else if (entry.type === "directory") makeDirectory(entry, parts, path);
      else if (entry.type === "symlink") {
        create(parts, path, "symlink", (parent, name) => kernel.symlinkAt(entry.linkname, parent, name));
        dress(entry, parts, path);
      } else if (entry.type === "link") makeLink(entry, parts, path);
      else makeNode(entry, parts, path);
    },
    data(buffer, offset, length) {
      if (current?.sparse) count(length);
      if (file < 0) return;
      const result = kernel.writeAll(file, buffer, offset, length);
      if (result < 0) fail("write", currentPath, result);
    },
    hole(length) {
      if (file >= 0) must(kernel.skip(file, length), "lseek", currentPath);
    },
    finish() {
      if (file < 0) return;
      if (current!.sparse) must(kernel.setSize(file, current!.size), "truncate", currentPath);
      finishFile(current!);
    },
    complete() {
      for (const [path, [sec, nsec]] of dirTimes) {
        if (path === "") {
          kernel.timesOf(root, sec, nsec);
          continue;
        }
        const slash = path.lastIndexOf("/");
        const parts = path.split("/");
        const parent = directory(parts, parts.length - 1);
        kernel.timesAt(parent, path.slice(slash + 1), sec, nsec);
      }
    },
    close() {
      if (file >= 0) kernel.closeFd(file);
      file = -1;
      forget();
      close(root);
      for (const fd of lower) close(fd);
    },
  };
}
