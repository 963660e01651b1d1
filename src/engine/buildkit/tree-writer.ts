// Makes a directory what a stream of file descriptions says it is, and changes nothing that is so already. The descriptions are a client's, thus hostile: they
// must come in the order of a walk, each below a directory that came before, so that every file is made by one name in a directory that is ours.
import { constants, readSync } from "node:fs";
import { posix } from "node:path";
import type { Stat } from "../../gen/fsutil/types_pb.ts";
import { invalidArgument, resourceExhausted, unknown } from "../../lib/errors.ts";
import { fromGoMode } from "../../lib/go-mode.ts";
import {
  close,
  errno,
  errnoText,
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_NOFOLLOW,
  O_RDONLY,
  O_WRONLY,
  RESOLVE_BENEATH,
  RESOLVE_NO_SYMLINKS,
} from "../../linux/index.ts";
import { files } from "../../oci/index.ts";

const DIRECTORY = O_RDONLY | O_DIRECTORY | O_NOFOLLOW;
const INSIDE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
const AT_REMOVEDIR = 0x200;
const MAX_ENTRIES = 4 << 20;
/** A file that is described as before and not trusted is compared, up to this size, instead of being made again. */
const MAX_COMPARED = 1 << 20;

/** What a directory holds: descriptions by path (byte strings), in the order of a walk. */
export type TreeIndex = Map<string, Stat>;

export const bytesOf = (text: string): string => Buffer.from(text).toString("latin1");

export interface TreeWriter {
  /** The next description; true where the file's contents are wanted. */
  put(stat: Stat): boolean;
  /** Some bytes of the file that put() was told of as number `id` (counted from 0); none: its end. */
  data(id: number, bytes: Uint8Array): void;
  /** All descriptions came: what was there before and was not described goes. */
  described(): void;
  /** All contents came. Answers what the directory is now. */
  finish(): TreeIndex;
  /** Whether anything was changed, or is about to be. */
  readonly changed: boolean;
  /** Files whose contents are still to come. */
  readonly pending: number;
  close(): void;
}

function must(result: number, what: string, path: string): number {
  if (result < 0) throw unknown(`${what} ${files.shown(path)}: ${errnoText(-result)}`);
  return result;
}

export function removeTree(parent: number, name: string): void {
  const direct = files.unlinkAt(parent, name);
  if (direct >= 0 || direct === -errno.ENOENT || direct === -errno.ENOTDIR) return;
  const fd = files.openAt(parent, name, DIRECTORY, 0);
  if (fd < 0) {
    must(direct, "remove", name);
    return;
  }
  try {
    for (const entry of files.readDirectory(fd)) removeTree(fd, entry.name);
  } finally {
    close(fd);
  }
  must(files.unlinkAt(parent, name, AT_REMOVEDIR), "remove", name);
}

const isKind = (mode: number, kind: number) => (mode & constants.S_IFMT) === kind;
const times = (stat: Stat): [number, number] => {
  const nanos = ((stat.modTime % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n;
  return [Number((stat.modTime - nanos) / 1_000_000_000n), Number(nanos)];
};

function sameXattrs(a: Stat, b: Stat): boolean {
  const names = Object.keys(a.xattrs);
  return (
    names.length === Object.keys(b.xattrs).length &&
    names.every((name) => b.xattrs[name] !== undefined && Buffer.compare(a.xattrs[name]!, b.xattrs[name]) === 0)
  );
}

const same = (a: Stat, b: Stat): boolean =>
  a.mode === b.mode &&
  a.uid === b.uid &&
  a.gid === b.gid &&
  a.size === b.size &&
  a.modTime === b.modTime &&
  a.linkname === b.linkname &&
  a.devmajor === b.devmajor &&
  a.devminor === b.devminor &&
  sameXattrs(a, b);

/**
 * `before` is what the directory holds; `trust` lets a file that is described as before stay without its contents being sent again. `changing` is called before the
 * first change.
 */
export function createTreeWriter(root: number, before: TreeIndex, trust: boolean, changing: () => void = () => {}): TreeWriter {
  const after: TreeIndex = new Map();
  const wanted = new Map<number, { path: string; stat: Stat; fd: number; compared: Uint8Array[] | undefined }>();
  const links: { path: string; target: string }[] = [];
  /** Directories whose times are to be set at the end. */
  const touched = new Set<string>();
  const stack: { path: string; fd: number; last: string }[] = [{ path: "", fd: root, last: "" }];
  let count = 0;
  let complete = false;
  let changed = false;
  const change = () => {
    if (!changed) changing();
    changed = true;
  };

  const attributes = (fd: number, stat: Stat, mode: number, path: string) => {
    must(files.fchown(fd, stat.uid, stat.gid), "chown", path);
    must(files.fchmod(fd, mode & 0o7777), "chmod", path);
    for (const [name, value] of Object.entries(stat.xattrs))
      if (name.startsWith("user.") || name === "security.capability") files.setXattr(fd, name, Buffer.from(value).toString("latin1"));
    files.timesOf(fd, ...times(stat));
  };
  const openFile = (path: string) => must(files.openIn(root, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, INSIDE), "create", path);

  /** Whether a file holds these bytes. */
  function holds(path: string, bytes: Uint8Array): boolean {
    const fd = files.openIn(root, path, O_RDONLY | O_NOFOLLOW, INSIDE);
    if (fd < 0) return false;
    try {
      const there = Buffer.alloc(bytes.length + 1);
      return readSync(fd, there) === bytes.length && there.subarray(0, bytes.length).equals(bytes);
    } finally {
      close(fd);
    }
  }
  /** Takes a file away that is to be made again. */
  function removeFile(path: string): void {
    const slash = path.lastIndexOf("/");
    const fd = must(files.openIn(root, slash < 0 ? "." : path.slice(0, slash), DIRECTORY, INSIDE), "open", path);
    try {
      change();
      removeTree(fd, path.slice(slash + 1));
      touched.add(slash < 0 ? "" : path.slice(0, slash));
    } finally {
      close(fd);
    }
  }

  function parentOf(path: string): { parent: { path: string; fd: number }; name: string } {
    const clean =
      path !== "" && path.length < 4096 && !path.startsWith("/") && !path.includes("\0") && posix.normalize(path) === path && path !== ".";
    if (!clean || path === ".." || path.startsWith("../") || path.endsWith("/"))
      throw invalidArgument(`the client sent a path that is not allowed: ${JSON.stringify(files.shown(path.slice(0, 200)))}`);
    const slash = path.lastIndexOf("/");
    const directory = slash < 0 ? "" : path.slice(0, slash);
    const name = path.slice(slash + 1);
    while (stack.length > 1 && stack.at(-1)!.path !== directory) close(stack.pop()!.fd);
    const parent = stack.at(-1)!;
    if (parent.path !== directory || name <= parent.last) throw invalidArgument(`the client sent files out of order: ${files.shown(path)}`);
    parent.last = name;
    return { parent, name };
  }

  return {
    get pending() {
      return wanted.size;
    },
    get changed() {
      return changed;
    },
    put(stat) {
      const path = bytesOf(stat.path);
      const { parent, name } = parentOf(path);
      const id = count++;
      if (count > MAX_ENTRIES) throw resourceExhausted(`the client sent more than ${MAX_ENTRIES} files`);
      const mode = fromGoMode(stat.mode);
      if (mode === undefined || isKind(mode, constants.S_IFSOCK)) return false;
      const old = before.get(path);
      after.set(path, stat);
      if (isKind(mode, constants.S_IFDIR)) {
        if (!old || fromGoMode(old.mode) === undefined || !isKind(fromGoMode(old.mode)!, constants.S_IFDIR)) {
          change();
          if (old) removeTree(parent.fd, name);
          must(files.mkdirAt(parent.fd, name, 0o700), "mkdir", path);
          touched.add(parent.path).add(path);
        } else if (old.mode !== stat.mode || old.uid !== stat.uid || old.gid !== stat.gid || old.modTime !== stat.modTime) {
          change();
          touched.add(path);
        }
        stack.push({ path, fd: must(files.openAt(parent.fd, name, DIRECTORY, 0), "open", path), last: "" });
        return false;
      }
      if (old && same(old, stat) && !trust && isKind(mode, constants.S_IFREG) && stat.linkname === "" && stat.size <= MAX_COMPARED) {
        if (stat.size === 0n) return false;
        wanted.set(id, { path, stat, fd: -1, compared: [] });
        return true;
      }
      if (old && same(old, stat) && (trust || !isKind(mode, constants.S_IFREG)) && stat.linkname === "") return false;
      const link = isKind(mode, constants.S_IFREG) && stat.linkname !== "";
      if (link) {
        const target = bytesOf(stat.linkname);
        const linked = after.get(target);
        if (!linked || !isKind(fromGoMode(linked.mode)!, constants.S_IFREG) || linked.linkname !== "")
          throw invalidArgument(`invalid link ${stat.path} to unknown path: ${JSON.stringify(stat.linkname)}`);
      }
      change();
      if (old) removeTree(parent.fd, name);
      touched.add(parent.path);
      if (link) {
        links.push({ path, target: bytesOf(stat.linkname) });
        return false;
      }
      if (isKind(mode, constants.S_IFREG)) {
        if (stat.size > 0n) {
          wanted.set(id, { path, stat, fd: -1, compared: undefined });
          return true;
        }
        const fd = openFile(path);
        try {
          attributes(fd, stat, mode, path);
        } finally {
          close(fd);
        }
        return false;
      }
      if (isKind(mode, constants.S_IFLNK)) {
        must(files.symlinkAt(bytesOf(stat.linkname), parent.fd, name), "symlink", path);
      } else {
        const device =
          (Number(stat.devmajor & 0xfffn) << 8) | Number(stat.devminor & 0xffn) | (Number((stat.devminor >> 8n) & 0xfffn) << 20);
        must(files.mknodAt(parent.fd, name, mode, device >>> 0), "mknod", path);
      }
      must(files.chownAt(parent.fd, name, stat.uid, stat.gid), "chown", path);
      files.timesAt(parent.fd, name, ...times(stat));
      return false;
    },
    data(id, bytes) {
      const file = wanted.get(id);
      if (!file) throw invalidArgument(`the client sent contents of a file that it was not asked for (${id})`);
      if (file.compared) {
        if (bytes.length > 0) {
          file.compared.push(bytes);
          // A file may have grown since it was described.
          if (file.compared.reduce((sum, piece) => sum + piece.length, 0) <= MAX_COMPARED) return;
        }
        const all = Buffer.concat(file.compared);
        file.compared = undefined;
        if (bytes.length === 0 && holds(file.path, all)) {
          wanted.delete(id);
          return;
        }
        removeFile(file.path);
        file.fd = openFile(file.path);
        must(files.writeAll(file.fd, all, 0, all.length), "write", file.path);
        if (bytes.length > 0) return;
      }
      if (file.fd < 0) file.fd = openFile(file.path);
      if (bytes.length > 0) {
        must(files.writeAll(file.fd, bytes, 0, bytes.length), "write", file.path);
        return;
      }
      wanted.delete(id);
      try {
        attributes(file.fd, file.stat, fromGoMode(file.stat.mode)!, file.path);
      } finally {
        close(file.fd);
      }
    },
    described() {
      if (complete) return;
      complete = true;
      let gone = "\0";
      for (const path of before.keys()) {
        if (after.has(path) || path.startsWith(gone)) continue;
        const slash = path.lastIndexOf("/");
        const directory = slash < 0 ? "" : path.slice(0, slash);
        const fd = files.openIn(root, directory === "" ? "." : directory, DIRECTORY, INSIDE);
        // replaced by a file, or gone with a directory above
        if (fd < 0) continue;
        change();
        try {
          removeTree(fd, path.slice(slash + 1));
        } finally {
          close(fd);
        }
        touched.add(directory);
        gone = `${path}/`;
      }
    },
    finish() {
      for (const { path, target } of links) {
        const slash = path.lastIndexOf("/");
        const fd = must(files.openIn(root, slash < 0 ? "." : path.slice(0, slash), DIRECTORY, INSIDE), "open", path);
        try {
          // Each part of the target was made by us, and is no symbolic link.
          must(files.linkAt(root, target, fd, path.slice(slash + 1)), "link", path);
        } finally {
          close(fd);
        }
      }
      for (const path of touched) {
        const stat = path === "" ? undefined : after.get(path);
        if (!stat) continue;
        const fd = files.openIn(root, path, DIRECTORY, INSIDE);
        if (fd < 0) continue;
        try {
          attributes(fd, stat, fromGoMode(stat.mode)!, path);
        } finally {
          close(fd);
        }
      }
      return after;
    },
    close() {
      for (const { fd } of stack.slice(1)) close(fd);
      for (const { fd } of wanted.values()) close(fd);
      wanted.clear();
    },
  };
}
