// A tree, or one file, as a tar stream: directories walked by descriptor, file data read in pieces, so that memory stays flat whatever the size.
import { constants, read as readCallback } from "node:fs";
import { unknown } from "../../lib/errors.ts";
import { binding, close, errno, errnoText, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, SYS } from "../../linux/index.ts";
import { type FileStat, files, TAR_END, type TarType, tarEntry, tarHeader, tarPadding } from "../../oci/index.ts";

const RESOLVE_NO_XDEV = 0x01;
const RESOLVE_NO_SYMLINKS = 0x04;
const RESOLVE_BENEATH = 0x08;
const PIECE = 256 * 1024;
/** Headers are sent together up to this size. */
const BATCH = 64 * 1024;

const TYPES: Record<number, TarType> = {
  [constants.S_IFDIR]: "directory",
  [constants.S_IFREG]: "file",
  [constants.S_IFLNK]: "symlink",
  [constants.S_IFCHR]: "char",
  [constants.S_IFBLK]: "block",
  [constants.S_IFIFO]: "fifo",
};

export interface PackOptions {
  /** Stays on the root's own file system: what is mounted into it is shown empty. For export. */
  oneFileSystem: boolean;
  /** The same for these names in the archive only: /proc and its like are the kernel's, not the container's files. */
  apart?: string[];
}

interface Walk {
  options: PackOptions;
  /** "dev:ino" of a file with several names → the name it has in the archive. */
  links: Map<string, string>;
}

function readPiece(fd: number, buffer: Buffer, length: number): Promise<number> {
  return new Promise((resolve, reject) => readCallback(fd, buffer, 0, length, null, (error, n) => (error ? reject(error) : resolve(n))));
}

const major = (device: bigint) => Number(((device >> 8n) & 0xfffn) | ((device >> 32n) & ~0xfffn));
const minor = (device: bigint) => Number((device & 0xffn) | ((device >> 12n) & ~0xffn));

function headerOf(name: string, type: TarType, stat: FileStat, rest: Parameters<typeof tarEntry>[2] = {}): Buffer {
  return tarHeader(
    tarEntry(name, type, {
      mode: stat.mode & 0o7777,
      uid: stat.uid,
      gid: stat.gid,
      mtimeSec: stat.mtimeSec,
      ...(type === "char" || type === "block" ? { major: major(stat.rdev), minor: minor(stat.rdev) } : {}),
      ...rest,
    }),
  );
}

/** The file's capabilities, as the archive carries them. */
function capability(fd: number): [string, string][] | undefined {
  const buffer = Buffer.alloc(64);
  const n = binding.syscall(SYS.fgetxattr, fd, "security.capability", buffer, buffer.length);
  return n > 0 ? [["security.capability", buffer.toString("latin1", 0, n)]] : undefined;
}

function openBelow(walk: Walk, parent: number, name: string, as: string, flags: number): number {
  const { oneFileSystem, apart } = walk.options;
  const resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | (oneFileSystem || apart?.includes(as) ? RESOLVE_NO_XDEV : 0);
  return files.openIn(parent, name, flags | O_NOFOLLOW | O_NONBLOCK, resolve);
}

/** A full piece is valid until the next one is asked for: one buffer serves a file of any size. */
async function* fileData(fd: number, size: number): AsyncGenerator<Buffer> {
  let left = size;
  const buffer = Buffer.allocUnsafe(Math.min(PIECE, left));
  while (left > 0) {
    const n = await readPiece(fd, buffer, Math.min(buffer.length, left));
    if (n === 0) break;
    left -= n;
    yield n === PIECE ? buffer : Buffer.from(buffer.subarray(0, n));
  }
  // It became shorter while we read.
  for (; left > 0; left -= PIECE) yield Buffer.alloc(Math.min(PIECE, left));
  const padding = tarPadding(size);
  if (padding.length > 0) yield padding;
}

async function* packFile(walk: Walk, parent: number, name: string, stat: FileStat, as: string): AsyncGenerator<Buffer> {
  const fd = openBelow(walk, parent, name, as, O_RDONLY);
  if (fd === -errno.ENOENT) return;
  // A file that is mounted over this one (resolv.conf): the one below is empty.
  if (fd === -errno.EXDEV) {
    yield headerOf(as, "file", stat);
    return;
  }
  if (fd < 0) throw unknown(`open ${files.shown(as)}: ${errnoText(-fd)}`);
  try {
    const now = files.statOf(fd);
    const xattrs = capability(fd);
    yield headerOf(as, "file", now, { size: now.size, ...(xattrs ? { xattrs } : {}) });
    yield* fileData(fd, now.size);
  } finally {
    close(fd);
  }
}

/** `as`: the name in the archive, as a byte string. */
async function* packEntry(walk: Walk, parent: number, name: string, as: string): AsyncGenerator<Buffer> {
  let stat: FileStat;
  try {
    stat = files.statAt(parent, name);
  } catch {
    // removed while we looked
    return;
  }
  const type = TYPES[stat.mode & constants.S_IFMT];
  // Sockets have no place in an archive.
  if (!type) return;
  if (type === "directory") {
    yield headerOf(as, type, stat);
    yield* packDirectory(walk, parent, name, as);
    return;
  }
  const key = `${stat.dev}:${stat.ino}`;
  const first = stat.nlink > 1 ? walk.links.get(key) : undefined;
  if (first !== undefined) {
    yield headerOf(as, "link", stat, { linkname: first });
    return;
  }
  if (stat.nlink > 1) walk.links.set(key, as);
  if (type === "file") yield* packFile(walk, parent, name, stat, as);
  else if (type === "symlink") yield headerOf(as, type, stat, { linkname: files.readLink(parent, name) });
  else yield headerOf(as, type, stat);
}

async function* packDirectory(walk: Walk, parent: number, name: string, as: string): AsyncGenerator<Buffer> {
  const fd = openBelow(walk, parent, name, as, O_RDONLY | O_DIRECTORY);
  if (fd === -errno.EXDEV || fd === -errno.ENOENT) return;
  if (fd < 0) throw unknown(`open ${files.shown(as)}: ${errnoText(-fd)}`);
  try {
    const names = files.readDirectory(fd).map((entry) => entry.name);
    names.sort();
    const prefix = as === "" ? "" : as.endsWith("/") ? as : `${as}/`;
    for (const each of names) yield* packEntry(walk, fd, each, prefix + each);
  } finally {
    close(fd);
  }
}

/** Puts small pieces together; large ones pass. */
async function* batched(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let waiting: Uint8Array[] = [];
  let size = 0;
  for await (const piece of pieces) {
    waiting.push(piece);
    size += piece.length;
    if (size < BATCH) continue;
    yield waiting.length === 1 ? piece : Buffer.concat(waiting);
    waiting = [];
    size = 0;
  }
  waiting.push(TAR_END);
  yield Buffer.concat(waiting);
}

/** What the directory `root` holds, without an entry for itself. A piece is valid until the next one is asked for. */
export function packTree(root: number, options: PackOptions): AsyncIterable<Uint8Array> {
  return batched(packDirectory({ options, links: new Map() }, root, ".", ""));
}

/** `name` in the directory `parent` (with what lies below it), called `as` in the archive. */
export function packPath(parent: number, name: string, as: string, options: PackOptions): AsyncIterable<Uint8Array> {
  return batched(packEntry({ options, links: new Map() }, parent, name, as));
}
