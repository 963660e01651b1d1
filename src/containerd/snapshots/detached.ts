// A snapshot's tree as a directory descriptor, mounted nowhere: it is in no mount table, and gone with its last descriptor. For reading or changing a
// snapshot's files from outside.
import { invalidArgument } from "../../lib/errors.ts";
import { binding, check, close, errno, O_DIRECTORY, O_PATH, open, SYS } from "../../linux/index.ts";

const CLOEXEC = 1;
const FSCONFIG_SET_FLAG = 0;
const FSCONFIG_SET_STRING = 1;
const FSCONFIG_CMD_CREATE = 6;
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
  const lower = writable ? layers.slice(1) : layers;
  const context = check(binding.syscall(SYS.fsopen, "overlay", CLOEXEC), "fsopen overlay");
  const held: number[] = [];
  try {
    const set = (key: string, value: string) => binding.syscall(SYS.fsconfig, context, FSCONFIG_SET_STRING, key, value, 0);
    // a value has at most 256 bytes (fsconfig(2)): one layer a call, which "lowerdir+" takes since Linux 6.8
    if (lower.length === 1) check(set("lowerdir", lower[0]!), `overlay lowerdir ${lower[0]}`);
    else {
      const first = set("lowerdir+", lower[0]!);
      if (first >= 0) for (const layer of lower.slice(1)) check(set("lowerdir+", layer), `overlay lowerdir ${layer}`);
      else if (first !== -errno.EINVAL) check(first, `overlay lowerdir ${lower[0]}`);
      else {
        for (const layer of lower) held.push(open(layer, O_PATH | O_DIRECTORY));
        check(set("lowerdir", held.map((fd) => `/proc/self/fd/${fd}`).join(":")), "overlay lowerdir");
      }
    }
    if (writable) {
      check(set("upperdir", upper), `overlay upperdir ${upper}`);
      check(set("workdir", work), `overlay workdir ${work}`);
    }
    for (const option of rest) {
      const equals = option.indexOf("=");
      if (equals >= 0) check(set(option.slice(0, equals), option.slice(equals + 1)), `overlay ${option}`);
      else check(binding.syscall(SYS.fsconfig, context, FSCONFIG_SET_FLAG, option, null, 0), `overlay ${option}`);
    }
    check(binding.syscall(SYS.fsconfig, context, FSCONFIG_CMD_CREATE, null, null, 0), "mount overlay");
    return check(binding.syscall(SYS.fsmount, context, CLOEXEC, writable ? 0 : MOUNT_ATTR_RDONLY), "fsmount overlay");
  } finally {
    for (const fd of held) close(fd);
    close(context);
  }
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
