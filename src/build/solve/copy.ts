// Copying from one tree into another, both by descriptor: what is copied is never followed, hard links stay hard links, holes in time and mode are the options'.
import { posix } from "node:path";
import { breather } from "../../lib/breather.ts";
import { failedPrecondition } from "../../lib/errors.ts";
import {
  close,
  copyApart,
  errno,
  O_CREAT,
  O_EXCL,
  O_NOFOLLOW,
  O_PATH,
  O_RDONLY,
  O_WRONLY,
  RESOLVE_IN_ROOT,
  read,
} from "../../linux/index.ts";
import { type FileStat, files } from "../../oci/index.ts";
import {
  ALL,
  attributesOf,
  DIRECTORY,
  isDirectory,
  isFile,
  isLink,
  must,
  openDirectory,
  PIECE,
  removeAll,
  type Selection,
  type Source,
  shared,
  type Times,
} from "./tree.ts";

export interface CopyOptions {
  /** Of everything; undefined: as the source's. */
  owner?: { uid: number; gid: number } | undefined;
  /** What becomes of a mode; undefined: it stays. */
  mode?: ((mode: number, directory: boolean) => number) | undefined;
  selection?: Selection | undefined;
  /** Undefined: as the source's. */
  times?: Times | undefined;
  /** What is in the way goes, of whatever kind it is; otherwise a directory and a file in each other's place are an error. */
  replace?: boolean | undefined;
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
  await copyApart(from, to, path);
}

/** Copies one source (below `root`) to `name` in the directory `parent`, or what a directory holds into `parent` itself where `name` is undefined. */
export async function copySource(
  root: number,
  source: Source,
  parent: number,
  name: string | undefined,
  options: CopyOptions,
): Promise<void> {
  const { excluded, included } = options.selection ?? ALL;
  const breathe = breather();
  /** Where a file with several names was first copied to, below `parent`. */
  const linked = new Map<string, string>();

  const modeOf = (stat: FileStat) => {
    const mode = stat.mode & 0o7777;
    return options.mode ? options.mode(mode, isDirectory(stat)) : mode;
  };
  const ownerOf = (stat: FileStat) => options.owner ?? stat;
  const stampOf = (fd: number, stat: FileStat) =>
    options.times ? files.timesOf(fd, options.times.sec, options.times.nsec) : files.timesOf(fd, stat.mtimeSec, stat.mtimeNsec);

  /** Makes a name free for something that is no directory. */
  function clear(toDir: number, to: string): void {
    const at = files.openAt(toDir, to, O_PATH | O_NOFOLLOW, 0);
    if (at < 0) return;
    const directory = isDirectory(files.statOf(at));
    close(at);
    if (directory && !options.replace) throw failedPrecondition(`cannot copy to directory, not a file: ${files.shown(to)}`);
    removeAll(toDir, to);
  }

  async function copyFile(from: number, stat: FileStat, toDir: number, to: string, path: string): Promise<void> {
    clear(toDir, to);
    const several = stat.nlink > 1 ? `${stat.dev}:${stat.ino}` : undefined;
    const first = several === undefined ? undefined : linked.get(several);
    if (first !== undefined && files.linkAt(parent, first, toDir, to) >= 0) return;
    if (several !== undefined) linked.set(several, path);
    const fd = must(files.openAt(toDir, to, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600), "create", to);
    try {
      await copyData(from, fd, stat.size, to);
      const owner = ownerOf(stat);
      must(files.fchown(fd, owner.uid, owner.gid), "chown", to);
      must(files.fchmod(fd, modeOf(stat)), "chmod", to);
      for (const [attribute, value] of attributesOf(from)) files.setXattr(fd, attribute, value);
      stampOf(fd, stat);
    } finally {
      close(fd);
    }
  }

  /** The directory `to`, made or found, like the one that `stat` is of. */
  function makeDirectory(stat: FileStat, toDir: number, to: string): number {
    let made = files.mkdirAt(toDir, to, 0o700);
    let target = files.openAt(toDir, to, DIRECTORY | O_NOFOLLOW, 0);
    if (made === -errno.EEXIST && target < 0 && options.replace) {
      removeAll(toDir, to);
      made = files.mkdirAt(toDir, to, 0o700);
      target = files.openAt(toDir, to, DIRECTORY | O_NOFOLLOW, 0);
    }
    if (made === -errno.EEXIST && target < 0) throw failedPrecondition(`cannot copy to non-directory: ${files.shown(to)}`);
    must(target, "mkdir", to);
    const owner = ownerOf(stat);
    must(files.fchown(target, owner.uid, owner.gid), "chown", to);
    must(files.fchmod(target, modeOf(stat)), "chmod", to);
    return target;
  }

  /** `into` gives the directory that is copied to, made when it is first asked for. `path` is relative to the source, `below` to `parent`. */
  const node = async (fromDir: number, from: string, into: () => number, path: string, below: string): Promise<void> => {
    const stat = files.statAt(fromDir, from);
    const wanted = !included || included(files.shown(path));
    if (isDirectory(stat)) {
      const fd = must(files.openAt(fromDir, from, DIRECTORY | O_NOFOLLOW, 0), "open", path);
      let target = -1;
      const made = () => {
        if (target < 0) target = makeDirectory(stat, into(), from);
        return target;
      };
      try {
        if (wanted) made();
        await children(fd, made, path, below);
        // one that is only on the way to what was asked for is of now
        if (wanted) stampOf(target, stat);
      } finally {
        close(fd);
        if (target >= 0) close(target);
      }
    } else if (wanted && isFile(stat)) {
      const fd = must(files.openAt(fromDir, from, O_RDONLY | O_NOFOLLOW, 0), "open", path);
      try {
        await copyFile(fd, stat, into(), from, below);
      } finally {
        close(fd);
      }
    } else if (wanted) {
      const toDir = into();
      clear(toDir, from);
      if (isLink(stat)) must(files.symlinkAt(files.readLink(fromDir, from), toDir, from), "symlink", path);
      else must(files.mknodAt(toDir, from, stat.mode, Number(stat.rdev)), "mknod", path);
      finishNode(toDir, from, stat, path);
    }
    await breathe();
  };
  function finishNode(toDir: number, to: string, stat: FileStat, path: string): void {
    const owner = ownerOf(stat);
    must(files.chownAt(toDir, to, owner.uid, owner.gid), "chown", path);
    const { sec, nsec } = options.times ?? { sec: stat.mtimeSec, nsec: stat.mtimeNsec };
    files.timesAt(toDir, to, sec, nsec);
  }
  const children = async (fromDir: number, into: () => number, path: string, below: string): Promise<void> => {
    for (const { name: child } of files.readDirectory(fromDir)) {
      const inner = path === "" ? child : `${path}/${child}`;
      if (!excluded(files.shown(inner))) await node(fromDir, child, into, inner, below === "" ? child : `${below}/${child}`);
    }
  };

  if (source.directory) {
    const fd = must(openDirectory(root, source.path), "open", source.path);
    try {
      const stat = files.statOf(fd);
      if (name === undefined) {
        await children(fd, () => parent, "", "");
        // as BuildKit: the directory is dated as the one whose content it has, also where it was there before
        stampOf(parent, stat);
        return;
      }
      const made = files.mkdirAt(parent, name, 0o755);
      const target = must(files.openAt(parent, name, DIRECTORY | O_NOFOLLOW, 0), "mkdir", name);
      try {
        const owner = ownerOf(stat);
        if (made >= 0) must(files.fchown(target, owner.uid, owner.gid), "chown", name);
        if (made >= 0) must(files.fchmod(target, modeOf(stat)), "chmod", name);
        await children(fd, () => target, "", name);
        if (made >= 0) stampOf(target, stat);
      } finally {
        close(target);
      }
    } finally {
      close(fd);
    }
    return;
  }
  const to = name ?? posix.basename(source.path);
  const fd = must(files.openIn(root, source.path, source.link ? O_PATH | O_NOFOLLOW : O_RDONLY, RESOLVE_IN_ROOT), "open", source.path);
  try {
    const stat = files.statOf(fd);
    if (source.link) {
      clear(parent, to);
      must(files.symlinkAt(files.readLink(fd, ""), parent, to), "symlink", to);
      finishNode(parent, to, stat, to);
    } else if (isFile(stat)) await copyFile(fd, stat, parent, to, to);
    else throw failedPrecondition(`can't copy ${files.shown(source.path)}: it is a device, a socket or a pipe`);
  } finally {
    close(fd);
  }
}
