// An overlay that is mounted nowhere: in no mount table, and gone with its last descriptor (fsopen(2), kernel's filesystems/overlayfs).
import { binding } from "./binding.ts";
import { check } from "./errno.ts";
import { close, O_DIRECTORY, O_PATH, open } from "./fd.ts";
import { kernelRelease, rmdirSync } from "./files.ts";
import { SYS } from "./sys.ts";

export interface OverlayLayers {
  /** Directories, topmost first. */
  lower: readonly string[];
  /** Both or none: then it is read-only. */
  upper?: string | undefined;
  work?: string | undefined;
  /** Other options, as NAME or NAME=VALUE. */
  rest?: readonly string[];
}

const FSOPEN_CLOEXEC = 1;
const FSMOUNT_CLOEXEC = 1;
const FSCONFIG_SET_FLAG = 0;
const FSCONFIG_SET_STRING = 1;
const FSCONFIG_CMD_CREATE = 6;
const MOUNT_ATTR_RDONLY = 1;
const MS_RDONLY = 1;
const MNT_DETACH = 2;
const AT_FDCWD = -100;
const OPEN_TREE_CLONE = 1;
const OPEN_TREE_CLOEXEC = 0o2000000;

/** Whether fsconfig(2) takes layers one by one ("lowerdir+", Linux 6.8). Before, it takes any key and fails at the end, so that it can't be tried. */
function takesLayersApart(): boolean {
  const [major = 0, minor = 0] = kernelRelease().split(/[.-]/).map(Number);
  return major > 6 || (major === 6 && minor >= 8);
}

/** A descriptor of its root, for close(). Throws SystemError. */
export function openOverlay(layers: OverlayLayers): number {
  // A value of fsconfig(2) has at most 256 bytes: enough for one directory.
  return layers.lower.length === 1 || takesLayersApart() ? byFsconfig(layers) : byMount(layers);
}

function byFsconfig({ lower, upper, work, rest = [] }: OverlayLayers): number {
  const context = check(binding.syscall(SYS.fsopen, "overlay", FSOPEN_CLOEXEC), "fsopen overlay");
  try {
    const set = (key: string, value: string) =>
      check(binding.syscall(SYS.fsconfig, context, FSCONFIG_SET_STRING, key, value, 0), `overlay ${key} ${value}`);
    if (lower.length === 1) set("lowerdir", lower[0]!);
    else for (const layer of lower) set("lowerdir+", layer);
    if (upper !== undefined && work !== undefined) {
      set("upperdir", upper);
      set("workdir", work);
    }
    for (const option of rest) {
      const equals = option.indexOf("=");
      if (equals >= 0) set(option.slice(0, equals), option.slice(equals + 1));
      else check(binding.syscall(SYS.fsconfig, context, FSCONFIG_SET_FLAG, option, null, 0), `overlay ${option}`);
    }
    check(binding.syscall(SYS.fsconfig, context, FSCONFIG_CMD_CREATE, null, null, 0), "mount overlay");
    const attributes = upper === undefined ? MOUNT_ATTR_RDONLY : 0;
    return check(binding.syscall(SYS.fsmount, context, FSMOUNT_CLOEXEC, attributes), "fsmount overlay");
  } finally {
    close(context);
  }
}

/** On a directory of its own, from which it is taken at once. Directories are named by descriptor: many fit in mount(2)'s page, and none needs escaping. */
function byMount({ lower, upper, work, rest = [] }: OverlayLayers): number {
  const held: number[] = [];
  const node = process.getBuiltinModule;
  const place = node("node:fs").mkdtempSync(`${node("node:os").tmpdir()}/jubako-overlay-`);
  try {
    const named = (path: string) => {
      const fd = open(path, O_PATH | O_DIRECTORY);
      held.push(fd);
      return `/proc/self/fd/${fd}`;
    };
    const options = [`lowerdir=${lower.map(named).join(":")}`];
    if (upper !== undefined && work !== undefined) options.push(`upperdir=${named(upper)}`, `workdir=${named(work)}`);
    const flags = upper === undefined ? MS_RDONLY : 0;
    check(binding.syscall(SYS.mount, "overlay", place, "overlay", flags, [...options, ...rest].join(",")), "mount overlay");
    try {
      return check(binding.syscall(SYS.open_tree, AT_FDCWD, place, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC), "open_tree overlay");
    } finally {
      binding.syscall(SYS.umount2, place, MNT_DETACH);
    }
  } finally {
    for (const fd of held) close(fd);
    rmdirSync(place);
  }
}
