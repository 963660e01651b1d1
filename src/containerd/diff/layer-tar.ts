// A layer's tar from what one tree has and another has not. Where the right tree is the left one with an overlay's upper directory on top, the changes
// are exactly that directory, and its whiteouts are the deletions; any other pair of trees is compared file by file. Entries come in the order of their
// names, so that the same change gives the same bytes.
import { type BigIntStats, constants } from "node:fs";
import { lstat, open, readdir, readlink } from "node:fs/promises";
import { binding, close, SYS } from "../../linux/index.ts";
import { TAR_END, tarEntry, tarHeader, tarPadding } from "../../oci/index.ts";
import { openDetached } from "../snapshots/detached.ts";

export interface LayerTarOptions {
  /** Seconds since 1970: no time in the layer is later (SOURCE_DATE_EPOCH). */
  epoch: number | undefined;
  signal: AbortSignal;
}

const CHUNK = 1 << 20;
const SECOND = 1_000_000_000n;
const WHITEOUT = ".wh.";
const OPAQUE = ".wh..wh..opq";

/** `left` and `right` are directories of layers, topmost first; an empty list is the empty tree. */
export async function* layerTar(left: string[], right: string[], options: LayerTarOptions): AsyncIterable<Uint8Array> {
  const upper = right.length > 0 && right.length === left.length + 1 && left.every((layer, i) => right[i + 1] === layer);
  if (upper) {
    yield* write(Buffer.from(right[0]!), upperChanges, options);
    return;
  }
  const trees = [left, right].map((layers) => (layers.length === 0 ? undefined : openDetached(overlayOf(layers), { readOnly: true })));
  try {
    const path = (fd: number | undefined) => (fd === undefined ? undefined : Buffer.from(`/proc/self/fd/${fd}`));
    const from = path(trees[0]);
    yield* write(path(trees[1]) ?? Buffer.from("/proc/self/fdinfo/none"), (root, at) => comparedChanges(root, from, at), options);
  } finally {
    for (const fd of trees) if (fd !== undefined) close(fd);
  }
}

function overlayOf(layers: string[]) {
  if (layers.length === 1) return [{ type: "bind", source: layers[0]!, options: ["ro"] }];
  return [{ type: "overlay", source: "overlay", options: [`lowerdir=${layers.join(":")}`] }];
}

/** One change: a name (a byte string) in a directory, with what is there now; undefined where it was deleted. */
interface Change {
  name: string;
  stat: BigIntStats | undefined;
  /** Only what lies below a directory has changed, or nothing, or a file is as it was: no entry for itself. */
  silent?: boolean;
  opaque?: boolean;
}
type Changes = (root: Buffer, at: string) => Promise<Change[]>;

const pathOf = (root: Buffer, at: string): Buffer => (at === "" ? root : Buffer.concat([root, Buffer.from(`/${at}`, "latin1")]));
const join = (at: string, name: string): string => (at === "" ? name : `${at}/${name}`);

async function namesIn(path: Buffer): Promise<string[]> {
  const names = (await readdir(path, { encoding: "buffer" })) as unknown as Buffer[];
  return names.map((name) => name.toString("latin1")).sort();
}

const isWhiteout = (stat: BigIntStats): boolean => stat.isCharacterDevice() && stat.rdev === 0n;

/** The upper directory of an overlay (kernel: filesystems/overlayfs.rst, "whiteouts and opaque directories"). */
async function upperChanges(root: Buffer, at: string): Promise<Change[]> {
  const changes: Change[] = [];
  for (const name of await namesIn(pathOf(root, at))) {
    const path = pathOf(root, join(at, name));
    const stat = await lstat(path, { bigint: true });
    if (isWhiteout(stat)) changes.push({ name, stat: undefined });
    else changes.push({ name, stat, opaque: stat.isDirectory() && xattr(path, "trusted.overlay.opaque") === "y" });
  }
  return changes;
}

async function comparedChanges(root: Buffer, from: Buffer | undefined, at: string): Promise<Change[]> {
  const here = await namesIn(pathOf(root, at)).catch(() => [] as string[]);
  const before = from ? await namesIn(pathOf(from, at)).catch(() => [] as string[]) : [];
  const now = new Set(here);
  const changes: Change[] = before.filter((name) => !now.has(name)).map((name) => ({ name, stat: undefined }));
  const old = new Set(before);
  for (const name of here) {
    const path = join(at, name);
    const stat = await lstat(pathOf(root, path), { bigint: true });
    const was = from && old.has(name) ? await lstat(pathOf(from, path), { bigint: true }) : undefined;
    const same = was !== undefined && sameFile(stat, was) && xattrsAre(pathOf(root, path), pathOf(from!, path));
    // an unchanged file may be what a new name is a link to
    if (same && !stat.isDirectory() && stat.nlink < 2n) continue;
    changes.push({ name, stat, silent: same });
  }
  return changes.sort((a, b) => (a.name < b.name ? -1 : 1));
}

function sameFile(a: BigIntStats, b: BigIntStats): boolean {
  if (a.mode !== b.mode || a.uid !== b.uid || a.gid !== b.gid || a.rdev !== b.rdev) return false;
  return a.isDirectory() || (a.size === b.size && a.mtimeNs === b.mtimeNs);
}

function xattrsAre(a: Buffer, b: Buffer): boolean {
  return JSON.stringify(xattrsOf(a)) === JSON.stringify(xattrsOf(b));
}

async function* write(root: Buffer, changes: Changes, { epoch, signal }: LayerTarOptions): AsyncIterable<Uint8Array> {
  const linked = new Map<string, string>();
  // directories that hold changes have an entry, so that their attributes survive
  async function* directory(at: string, pending: Uint8Array[]): AsyncIterable<Uint8Array> {
    for (const { name, stat, silent, opaque } of await changes(root, at)) {
      signal.throwIfAborted();
      const path = join(at, name);
      if (!stat) {
        yield* pending.splice(0);
        yield tarHeader(tarEntry(join(at, WHITEOUT + name), "file", { mode: 0, ...times(undefined, epoch) }));
      } else if (stat.isDirectory()) {
        const own: Uint8Array[] = [await header(path, stat)];
        if (opaque) own.push(tarHeader(tarEntry(join(path, OPAQUE), "file", { mode: 0, ...times(undefined, epoch) })));
        if (silent) {
          const depth = pending.length;
          pending.push(...own);
          yield* directory(path, pending);
          if (pending.length > depth) pending.length = depth;
        } else {
          yield* pending.splice(0);
          yield* own;
          yield* directory(path, []);
        }
      } else if (silent) {
        const link = unchanged(path, stat);
        if (link) yield* [...pending.splice(0), link];
      } else if (!stat.isSocket()) {
        yield* pending.splice(0);
        yield* file(path, stat);
      }
    }
  }
  const identityOf = (stat: BigIntStats) => `${stat.dev}:${stat.ino}`;
  const linkTo = (target: string, path: string, stat: BigIntStats): Buffer => {
    // containerd changes the owner again for each link, by which the kernel takes capabilities away: they must be said again.
    const xattrs = xattrsOf(pathOf(root, path));
    return tarHeader(tarEntry(path, "link", { ...attributes(stat, epoch), linkname: target, ...(xattrs.length > 0 ? { xattrs } : {}) }));
  };
  /** Names that were there before, of files that may get new ones: they become links where that is so. */
  const before = new Map<string, string[]>();
  const unchanged = (path: string, stat: BigIntStats): Buffer | undefined => {
    const identity = identityOf(stat);
    const first = linked.get(identity);
    if (first !== undefined) return linkTo(first, path, stat);
    const names = before.get(identity);
    if (names) names.push(path);
    else before.set(identity, [path]);
    return undefined;
  };
  async function* file(path: string, stat: BigIntStats): AsyncIterable<Uint8Array> {
    const identity = identityOf(stat);
    if (stat.nlink > 1n) {
      const first = linked.get(identity);
      if (first !== undefined) {
        yield linkTo(first, path, stat);
        return;
      }
      linked.set(identity, path);
    }
    yield await header(path, stat);
    if (stat.isFile() && stat.size > 0n) yield* contents(pathOf(root, path), Number(stat.size));
    for (const name of before.get(identity) ?? []) yield linkTo(path, name, stat);
  }
  async function header(path: string, stat: BigIntStats): Promise<Buffer> {
    const full = pathOf(root, path);
    const type = typeOf(stat);
    const linkname = type === "symlink" ? ((await readlink(full, { encoding: "buffer" })) as unknown as Buffer).toString("latin1") : "";
    const size = type === "file" ? Number(stat.size) : 0;
    const xattrs = xattrsOf(full);
    return tarHeader(tarEntry(path, type, { ...attributes(stat, epoch), linkname, size, ...(xattrs.length > 0 ? { xattrs } : {}) }));
  }
  yield* directory("", []);
  yield TAR_END;
}

function typeOf(stat: BigIntStats) {
  if (stat.isDirectory()) return "directory" as const;
  if (stat.isSymbolicLink()) return "symlink" as const;
  if (stat.isCharacterDevice()) return "char" as const;
  if (stat.isBlockDevice()) return "block" as const;
  return stat.isFIFO() ? ("fifo" as const) : ("file" as const);
}

function times(stat: BigIntStats | undefined, epoch: number | undefined) {
  // counted up from the second before, also before 1970
  const part = stat ? Number(((stat.mtimeNs % SECOND) + SECOND) % SECOND) : 0;
  const seconds = stat ? Number((stat.mtimeNs - BigInt(part)) / SECOND) : 0;
  if (epoch !== undefined && seconds >= epoch) return { mtimeSec: epoch, mtimeNsec: 0 };
  return { mtimeSec: seconds, mtimeNsec: part };
}

function attributes(stat: BigIntStats, epoch: number | undefined) {
  const device = Number(stat.rdev);
  return {
    mode: Number(stat.mode) & 0o7777,
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    major: (device >>> 8) & 0xfff,
    minor: (device & 0xff) | ((device >>> 12) & 0xfff00),
    ...times(stat, epoch),
  };
}

/** Exactly `size` bytes and the padding, whatever a program that still writes does to the file. */
async function* contents(path: Buffer, size: number): AsyncIterable<Uint8Array> {
  const handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    for (let at = 0; at < size; ) {
      const buffer = new Uint8Array(Math.min(CHUNK, size - at));
      const { bytesRead } = await handle.read(buffer, 0, buffer.length, at);
      // it became shorter: the rest is zeros, as the header has promised a length
      yield bytesRead === 0 ? buffer : buffer.subarray(0, bytesRead);
      at += bytesRead === 0 ? buffer.length : bytesRead;
    }
  } finally {
    await handle.close();
  }
  yield tarPadding(size);
}

const space = new Uint8Array(64 << 10);

function xattr(path: Buffer, name: string): string | undefined {
  const length = binding.syscall(SYS.lgetxattr, cString(path), name, space, space.length);
  return length < 0 ? undefined : Buffer.from(space.subarray(0, length)).toString("latin1");
}

/** What belongs into a layer: not overlayfs' own marks, nor security.selinux, which is the host's. */
function xattrsOf(path: Buffer): [string, string][] {
  const length = binding.syscall(SYS.llistxattr, cString(path), space, space.length);
  // a file system without attributes has none
  if (length <= 0) return [];
  const names = Buffer.from(space.subarray(0, length)).toString("latin1").split("\0").filter(Boolean).sort();
  const found: [string, string][] = [];
  for (const name of names) {
    if (/^(trusted|user)\.overlay\./.test(name) || name === "security.selinux") continue;
    const value = xattr(path, name);
    if (value !== undefined) found.push([name, value]);
  }
  return found;
}

const cString = (path: Buffer): Uint8Array => Buffer.concat([path, Buffer.alloc(1)]);
