// A container's files from outside: the root of a running one, a detached mount of the snapshot of another; and its /etc/passwd and /etc/group.
import { lstatSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { invalidArgument, messageOf, unknown } from "../../lib/errors.ts";
import {
  binding,
  check,
  close,
  O_DIRECTORY,
  O_PATH,
  O_RDONLY,
  open,
  openat2,
  openOverlay,
  RESOLVE_IN_ROOT,
  read,
  SYS,
} from "../../linux/index.ts";

const OPEN_TREE_CLONE = 1;
const OPEN_TREE_CLOEXEC = 0o2000000;
const AT_RECURSIVE = 0x8000;
const MAX_FILE = 4 * 1024 * 1024;

/** A mount as the snapshotter gives it. */
export interface SnapshotMount {
  type: string;
  source: string;
  options: string[];
}

/** Data root → the directory that lies under every container's own changes. */
const common = new Map<string, string>();

function commonLayer(dataRoot: string): string {
  let layer = common.get(dataRoot);
  if (layer === undefined) {
    layer = join(dataRoot, "common-layer");
    mkdirSync(layer, { recursive: true, mode: 0o755 });
    // By this file programs tell that they are in a container of Docker's.
    writeFileSync(join(layer, ".dockerenv"), "", { mode: 0o755 });
    common.set(dataRoot, layer);
  }
  return layer;
}

/** A container's snapshot with a layer in it that is neither its image's nor its own: it is in no diff and no commit. A snapshot without layers stays as it is. */
export function withCommonLayer(dataRoot: string, mounts: SnapshotMount[]): SnapshotMount[] {
  const layer = commonLayer(dataRoot);
  return mounts.map((mount) =>
    mount.type === "overlay"
      ? { ...mount, options: mount.options.map((option) => option.replace(/^lowerdir=/, `lowerdir=${layer}:`)) }
      : mount,
  );
}

function overlayParts(options: string[]): { lower: string[]; upper: string | undefined; work: string | undefined; rest: string[] } {
  const parts = {
    lower: [] as string[],
    upper: undefined as string | undefined,
    work: undefined as string | undefined,
    rest: [] as string[],
  };
  for (const option of options) {
    const equals = option.indexOf("=");
    const name = equals < 0 ? option : option.slice(0, equals);
    const value = equals < 0 ? undefined : option.slice(equals + 1);
    if (name === "lowerdir") parts.lower = (value ?? "").split(":");
    else if (name === "upperdir") parts.upper = value;
    else if (name === "workdir") parts.work = value;
    else if (name !== "ro" && name !== "rw") parts.rest.push(option);
  }
  return parts;
}

/** Mounts a snapshot, detached. */
export function mountDetached(mounts: SnapshotMount[]): number {
  const mount = mounts[0];
  if (!mount || mounts.length !== 1) throw unknown(`can't open a root file system of ${mounts.length} mounts`);
  try {
    if (mount.type === "bind") {
      return check(
        binding.syscall(SYS.open_tree, -100, mount.source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE),
        `open ${mount.source}`,
      );
    }
    if (mount.type !== "overlay") throw unknown(`can't open a root file system of type ${mount.type}`);
    return openOverlay(overlayParts(mount.options));
  } catch (error) {
    throw unknown(`can't open the container's root file system: ${messageOf(error)}`, error);
  }
}

/** Opens the same files for reading only; never disturbs a mount that writes to them. */
function openReadOnly(mounts: SnapshotMount[]): number {
  const mount = mounts[0]!;
  if (mount.type === "bind") return open(mount.source, O_PATH | O_DIRECTORY);
  const { lower, upper, rest } = overlayParts(mount.options);
  const layers = upper ? [upper, ...lower] : lower;
  if (layers.length === 1) return open(layers[0]!, O_PATH | O_DIRECTORY);
  return openOverlay({ lower: layers, rest: rest.filter((option) => option === "userxattr") });
}

/** A file's text below `root`; "" where there is none. */
function textBelow(root: number, path: string): string {
  let fd: number;
  try {
    fd = openat2(root, path, O_RDONLY, { resolve: RESOLVE_IN_ROOT });
  } catch {
    return "";
  }
  try {
    const chunks: Buffer[] = [];
    let total = 0;
    for (;;) {
      const buffer = Buffer.allocUnsafe(64 * 1024);
      const n = read(fd, buffer);
      if (!n) break;
      total += n;
      if (total > MAX_FILE) throw invalidArgument(`${path} of the container is larger than ${MAX_FILE} bytes`);
      chunks.push(buffer.subarray(0, n));
    }
    return Buffer.concat(chunks).toString("utf8");
  } finally {
    close(fd);
  }
}

export interface AccountFiles {
  passwd: string;
  group: string;
}

/** passwd and group below an open root directory, as they are now. */
export function accountsBelow(root: number): AccountFiles {
  return { passwd: textBelow(root, "/etc/passwd"), group: textBelow(root, "/etc/group") };
}

const cache = new Map<string, AccountFiles>();
const MAX_CACHED = 64;

function changed(upper: string | undefined): boolean {
  if (!upper) return true;
  const etc = lstatSync(`${upper}/etc`, { throwIfNoEntry: false });
  if (!etc) return false;
  if (!etc.isDirectory()) return true;
  return ["passwd", "group"].some((name) => lstatSync(`${upper}/etc/${name}`, { throwIfNoEntry: false }) !== undefined);
}

/** passwd and group of a container. As long as it did not change them, they are its image's, which is read once. */
export function accountFiles(chainId: string, mounts: SnapshotMount[]): AccountFiles {
  const mount = mounts[0]!;
  const upper = mount.type === "overlay" ? overlayParts(mount.options).upper : undefined;
  const own = chainId === "" || changed(upper);
  const known = own ? undefined : cache.get(chainId);
  if (known) return known;
  const root = openReadOnly(mounts);
  try {
    const files = accountsBelow(root);
    if (!own) {
      if (cache.size >= MAX_CACHED) cache.delete(cache.keys().next().value!);
      cache.set(chainId, files);
    }
    return files;
  } finally {
    close(root);
  }
}
