// Mount options of config.json as the kernel's mount_setattr(2) and fsconfig(2) want them (runtime-spec config.md, "Linux mount options").
import { MOUNT_ATTR, MOUNT_ATTR_ATIME, MS } from "./constants.ts";

export interface MountOptions {
  /** Mount attributes to set and to clear on the mount itself. */
  set: number;
  clear: number;
  /** The same on everything beneath (rro, rnosuid, …). */
  recursiveSet: number;
  recursiveClear: number;
  bind: boolean;
  /** rbind. */
  recursive: boolean;
  /** MS_PRIVATE, …; 0 where none is asked for. */
  propagation: number;
  propagationRecursive: boolean;
  /** Options of the file system: key, and value where it has one. */
  data: [key: string, value: string | undefined][];
  copyUp: boolean;
  idmap: false | "idmap" | "ridmap";
  /** Attributes are named, which for a bind makes those that aren't the default's; the same of access times. */
  named: boolean;
  timesNamed: boolean;
}

type Change = { set?: number; clear?: number };

const { MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOATIME, MOUNT_ATTR_STRICTATIME } =
  MOUNT_ATTR;
const { MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOSYMFOLLOW } = MOUNT_ATTR;

const attributes: Record<string, Change> = {
  ro: { set: MOUNT_ATTR_RDONLY },
  rw: { clear: MOUNT_ATTR_RDONLY },
  nosuid: { set: MOUNT_ATTR_NOSUID },
  suid: { clear: MOUNT_ATTR_NOSUID },
  nodev: { set: MOUNT_ATTR_NODEV },
  dev: { clear: MOUNT_ATTR_NODEV },
  noexec: { set: MOUNT_ATTR_NOEXEC },
  exec: { clear: MOUNT_ATTR_NOEXEC },
  nodiratime: { set: MOUNT_ATTR_NODIRATIME },
  diratime: { clear: MOUNT_ATTR_NODIRATIME },
  nosymfollow: { set: MOUNT_ATTR_NOSYMFOLLOW },
  symfollow: { clear: MOUNT_ATTR_NOSYMFOLLOW },
  // The three modes of access times share one field, which is cleared as a whole before it is set.
  relatime: { clear: MOUNT_ATTR_ATIME },
  norelatime: { clear: MOUNT_ATTR_ATIME },
  atime: { clear: MOUNT_ATTR_ATIME },
  noatime: { set: MOUNT_ATTR_NOATIME, clear: MOUNT_ATTR_ATIME },
  strictatime: { set: MOUNT_ATTR_STRICTATIME, clear: MOUNT_ATTR_ATIME },
  nostrictatime: { clear: MOUNT_ATTR_ATIME },
};

/** Of the names about access times those that say how they are to be; the others leave them, as mount(8) does on a bind. */
const timesNames = new Set(["relatime", "noatime", "strictatime", "nodiratime"]);

/** Of what a bind's source may have, all that is not about access times. */
const PLAIN = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOSYMFOLLOW;

/**
 * The attributes of a bind's copy: its source's where none is named, else those that are named (mount(2), "Remounting an existing mount").
 * `locked`: to a user namespace the source's are locked (mount_namespaces(7)), what is not named stays, but for `nosymfollow`.
 */
export function bindAttributes(options: MountOptions, locked: boolean): MountOptions {
  const times = options.timesNamed ? MOUNT_ATTR_ATIME | MOUNT_ATTR_NODIRATIME : 0;
  const unnamed = options.named ? (locked ? MOUNT_ATTR_NOSYMFOLLOW : PLAIN) : 0;
  const others = ((options.clear & PLAIN) | unnamed) & ~options.set;
  return { ...options, clear: others | (times & ~(options.set & MOUNT_ATTR_NODIRATIME)) };
}

/** What the options take from the source's attributes that can be locked, and what they make of its access times, as statfs(2) tells them in f_flags. */
export function changedFlags({ clear, set, timesNamed }: MountOptions): { taken: number; times: number | undefined } {
  const flags: [number, number][] = [
    [MOUNT_ATTR_RDONLY, 1],
    [MOUNT_ATTR_NOSUID, 2],
    [MOUNT_ATTR_NODEV, 4],
    [MOUNT_ATTR_NOEXEC, 8],
  ];
  const taken = flags.reduce((all, [attribute, flag]) => (clear & attribute ? all | flag : all), 0);
  const mode = set & MOUNT_ATTR_NOATIME ? ST_NOATIME : set & MOUNT_ATTR_STRICTATIME ? 0 : ST_RELATIME;
  return { taken, times: timesNamed ? mode | (set & MOUNT_ATTR_NODIRATIME ? ST_NODIRATIME : 0) : undefined };
}

const [ST_NOATIME, ST_NODIRATIME, ST_RELATIME] = [0x400, 0x800, 0x1000];
export const ST_TIMES = ST_NOATIME | ST_NODIRATIME | ST_RELATIME;

const propagations: Record<string, number> = {
  private: MS.MS_PRIVATE,
  slave: MS.MS_SLAVE,
  shared: MS.MS_SHARED,
  unbindable: MS.MS_UNBINDABLE,
};

/** Names that fsconfig(2) takes as flags of any super block. */
const superBlockFlags = ["sync", "async", "dirsync", "lazytime", "nolazytime"];

/** Names that mean the default, or nothing to kernels of today. */
const ignored = new Set([
  "defaults",
  "nomand",
  "mand",
  "acl",
  "noacl",
  "iversion",
  "noiversion",
  "silent",
  "loud",
  "remount",
  "_netdev",
  "noauto",
  "auto",
  "nofail",
]);

/** Every name parseOptions knows; `features` prints them. */
export const knownOptions: string[] = [
  ...Object.keys(attributes),
  ...Object.keys(attributes).map((name) => `r${name}`),
  ...Object.keys(propagations),
  ...Object.keys(propagations).map((name) => `r${name}`),
  "bind",
  "rbind",
  "idmap",
  "ridmap",
  "tmpcopyup",
  ...superBlockFlags,
  ...ignored,
].sort();

/** "rslave" as the flags of mount(2); undefined where it is no propagation. */
export function propagationOf(name: string): { flag: number; recursive: boolean } | undefined {
  if (name in propagations) return { flag: propagations[name]!, recursive: false };
  if (name.startsWith("r") && name.slice(1) in propagations) return { flag: propagations[name.slice(1)]!, recursive: true };
  return undefined;
}

export function parseOptions(options: readonly string[]): MountOptions {
  const parsed: MountOptions = {
    set: 0,
    clear: 0,
    recursiveSet: 0,
    recursiveClear: 0,
    bind: false,
    recursive: false,
    propagation: 0,
    propagationRecursive: false,
    data: [],
    copyUp: false,
    idmap: false,
    named: false,
    timesNamed: false,
  };
  for (const option of options) {
    if (option === "" || ignored.has(option)) continue;
    const change = attributes[option];
    if (change) {
      parsed.set = (parsed.set & ~(change.clear ?? 0)) | (change.set ?? 0);
      parsed.clear |= change.clear ?? 0;
      parsed.named = true;
      if (timesNames.has(option)) parsed.timesNamed = true;
      continue;
    }
    const propagation = propagationOf(option);
    if (propagation) {
      parsed.propagation = propagation.flag;
      parsed.propagationRecursive = propagation.recursive;
      continue;
    }
    const recursive = option.startsWith("r") ? attributes[option.slice(1)] : undefined;
    if (recursive) {
      parsed.recursiveSet = (parsed.recursiveSet & ~(recursive.clear ?? 0)) | (recursive.set ?? 0);
      parsed.recursiveClear |= recursive.clear ?? 0;
      continue;
    }
    switch (option) {
      case "bind":
        parsed.bind = true;
        break;
      case "rbind":
        parsed.bind = true;
        parsed.recursive = true;
        break;
      case "tmpcopyup":
        parsed.copyUp = true;
        break;
      case "idmap":
      case "ridmap":
        parsed.idmap = option;
        break;
      default: {
        const equals = option.indexOf("=");
        parsed.data.push(equals < 0 ? [option, undefined] : [option.slice(0, equals), option.slice(equals + 1)]);
      }
    }
  }
  // What is set last wins over what an earlier option cleared: the kernel clears first, then sets.
  parsed.clear |= parsed.set & MOUNT_ATTR_ATIME ? MOUNT_ATTR_ATIME : 0;
  parsed.recursiveClear |= parsed.recursiveSet & MOUNT_ATTR_ATIME ? MOUNT_ATTR_ATIME : 0;
  return parsed;
}
