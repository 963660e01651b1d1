// A snapshot's tree as a directory descriptor, mounted nowhere: it is in no mount table, and gone with its last descriptor. For reading or changing a
// snapshot's files from outside.
import { invalidArgument } from "../../lib/errors.ts";
import { binding, check, close, openOverlay, SYS } from "../../linux/index.ts";

const MOUNT_ATTR_RDONLY = 1;
const OPEN_TREE_CLONE = 1;
const OPEN_TREE_CLOEXEC = 0o2000000;
const AT_FDCWD = -100;
const AT_RECURSIVE = 0x8000;
const AT_EMPTY_PATH = 0x1000;

/** As a snapshotter gives it. */
export interface MountInstruction {
  type: string;
  source: string;
  options: readonly string[];
}

export interface Layers {
  /** Directories, topmost first; the writable one, where there is one, included. */
  layers: string[];
  /** The directory that takes changes; undefined where the mount is read-only. */
  upper: string | undefined;
  work: string | undefined;
  /** Other overlay options, as NAME or NAME=VALUE. */
  rest: string[];
}

/** Takes a snapshot's mounts apart. InvalidArgument where they are no bind of a directory and no overlay. */
export function layersOf(mounts: readonly MountInstruction[]): Layers {
  if (mounts.length === 0) return { layers: [], upper: undefined, work: undefined, rest: [] };
  const mount = mounts[0]!;
  if (mounts.length > 1) throw invalidArgument("more than one mount for one tree");
  if (mount.type === "bind" || mount.options.includes("bind") || mount.options.includes("rbind")) {
    const upper = mount.options.includes("ro") ? undefined : mount.source;
    return { layers: [mount.source], upper, work: undefined, rest: [] };
  }
  if (mount.type !== "overlay") throw invalidArgument(`mount type ${JSON.stringify(mount.type)}: only bind and overlay are known`);
  const found: Layers = { layers: [], upper: undefined, work: undefined, rest: [] };
  let lower: string[] = [];
  for (const option of mount.options) {
    if (option.startsWith("lowerdir=")) lower = option.slice(9).split(":");
    else if (option.startsWith("upperdir=")) found.upper = option.slice(9);
    else if (option.startsWith("workdir=")) found.work = option.slice(8);
    else if (option !== "ro" && option !== "rw") found.rest.push(option);
  }
  found.layers = found.upper === undefined ? lower : [found.upper, ...lower];
  return found;
}

/**
 * A descriptor of the tree's root, for close(). `readOnly` leaves the upper directory out of the kernel's writing: safe beside a running container.
 * Throws SystemError.
 */
export function openDetached(mounts: readonly MountInstruction[], options: { readOnly?: boolean } = {}): number {
  const { layers, upper, work, rest } = layersOf(mounts);
  if (layers.length === 0) throw invalidArgument("no mounts");
  if (layers.length === 1 && work === undefined) return bindOf(layers[0]!, options.readOnly ?? upper === undefined);
  const writable = !options.readOnly && upper !== undefined && work !== undefined;
  return writable ? openOverlay({ lower: layers.slice(1), upper, work, rest }) : openOverlay({ lower: layers, rest });
}

function bindOf(source: string, readOnly: boolean): number {
  const fd = check(
    binding.syscall(SYS.open_tree, AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE),
    `open_tree ${source}`,
  );
  if (!readOnly) return fd;
  // struct mount_attr: attr_set, attr_clr, propagation, userns_fd
  const attributes = new BigUint64Array([BigInt(MOUNT_ATTR_RDONLY), 0n, 0n, 0n]);
  const result = binding.syscall(SYS.mount_setattr, fd, "", AT_EMPTY_PATH | AT_RECURSIVE, attributes, 32);
  if (result < 0) {
    close(fd);
    check(result, `mount_setattr ${source}`);
  }
  return fd;
}
