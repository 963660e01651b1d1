// Mounts by the descriptor-based API (fsopen, fsconfig, fsmount, open_tree, mount_setattr, move_mount): a mount is made detached, gets all its
// attributes, and only then appears, complete, at its place, which was opened below the root by openat2.

import { invalidArgument, unimplemented } from "../../lib/errors.ts";
import { dirname, resolve } from "../../lib/paths.ts";
import { errno, SYS, utf8 } from "../../linux/index.ts";
import type { IdMapping, Mount } from "../../oci/runtime-spec.ts";
import type { RootMount } from "../face.ts";
import type { Arg, Block, Label, Word } from "../tape.ts";
import {
  AT,
  AT_FDCWD,
  CLONE,
  FSCONFIG,
  FSMOUNT_CLOEXEC,
  FSOPEN_CLOEXEC,
  flags,
  MOUNT_ATTR,
  MOUNT_ATTR_ATIME,
  MOVE_MOUNT,
  MS,
  named,
  O,
  OPEN_TREE,
  S,
} from "./constants.ts";
import { type Entry, planCopyUp } from "./copyup.ts";
import { askForIdmap, planIdmap, planMapping } from "./idmap.ts";
import { splitLayers } from "./layers.ts";
import { bindAttributes, changedFlags, type MountOptions, parseOptions, ST_TIMES } from "./mount-options.ts";
import type { Planner } from "./planner.ts";
import { directoryName, insideRoot } from "./root-path.ts";

const EMPTY_PATH = flags(AT, "AT_EMPTY_PATH");
const EMPTY_PATH_RECURSIVE = flags(AT, "AT_EMPTY_PATH", "AT_RECURSIVE");
const COPY = flags(OPEN_TREE, "OPEN_TREE_CLONE", "OPEN_TREE_CLOEXEC", "AT_EMPTY_PATH");
const COPY_RECURSIVE = flags(OPEN_TREE, "OPEN_TREE_CLONE", "OPEN_TREE_CLOEXEC", "AT_EMPTY_PATH", "AT_RECURSIVE");
const DETACHED_TO_PLACE = flags(MOVE_MOUNT, "MOVE_MOUNT_F_EMPTY_PATH", "MOVE_MOUNT_T_EMPTY_PATH");
const ABSENT = [errno.ENOENT, errno.ENOTDIR];

/** struct mount_attr: attr_set, attr_clr, propagation, userns_fd. */
function setAttributes(p: Planner, fd: Arg, set: number, clear: number, propagation: number, recursive: boolean): void {
  if (!set && !clear && !propagation) return;
  const what = [
    named(MOUNT_ATTR, set).name,
    clear ? `clear ${named(MOUNT_ATTR, clear).name}` : "",
    propagation ? named(MS, propagation).name : "",
  ];
  const attr = p.tape.structure([set, clear, propagation, 0], `{${what.filter(Boolean).join(", ")}}`);
  p.tape.step(SYS.mount_setattr, [fd, "", recursive ? EMPTY_PATH_RECURSIVE : EMPTY_PATH, attr, 32]);
}

/** What to clear beside what is set. The mode of access times is one field: it is cleared as a whole or not at all (mount_setattr(2)). */
const cleared = (clear: number, set: number) => (clear & ~set) | (clear & MOUNT_ATTR_ATIME);

/** A detached mount of a file system, in `store`. Data are key and value as fsconfig takes them. */
export function newFileSystem(
  p: Planner,
  type: string,
  source: string | undefined,
  data: readonly (readonly [string, string | Block | undefined])[],
  attr: number,
  store: Word,
  why: string,
): void {
  const { tape } = p;
  const context = tape.word("fs");
  tape.step(SYS.fsopen, [type, FSOPEN_CLOEXEC], { why, store: context });
  if (source) tape.step(SYS.fsconfig, [context, FSCONFIG.FSCONFIG_SET_STRING, "source", source, 0]);
  for (const [key, value] of data) {
    if (value === undefined) tape.step(SYS.fsconfig, [context, FSCONFIG.FSCONFIG_SET_FLAG, key, 0, 0]);
    else tape.step(SYS.fsconfig, [context, FSCONFIG.FSCONFIG_SET_STRING, key, value, 0]);
  }
  tape.step(SYS.fsconfig, [context, FSCONFIG.FSCONFIG_CMD_CREATE, 0, 0, 0]);
  tape.step(SYS.fsmount, [context, FSMOUNT_CLOEXEC, named(MOUNT_ATTR, attr)], { store });
  p.close(context);
}

/** A detached copy of a tree of the host, in `store`, that receives mounts from the host unless `propagation` says otherwise. */
export function cloneTree(p: Planner, at: Arg, path: Arg, options: MountOptions, store: Word, why: string, slave = false): void {
  const how = { ...OPEN_TREE };
  const set: (keyof typeof OPEN_TREE)[] = ["OPEN_TREE_CLONE", "OPEN_TREE_CLOEXEC"];
  if (options.recursive) set.push("AT_RECURSIVE");
  if (path === "") set.push("AT_EMPTY_PATH");
  p.tape.step(SYS.open_tree, [at, path, flags(how, ...set)], { why, store });
  // A copy is a peer of its source, or a slave where that is one: without this, a mount made inside the container would appear on the host.
  const propagation = options.propagation !== MS.MS_SHARED && !slave ? MS.MS_SLAVE : 0;
  if (options.recursive) setAttributes(p, store, 0, 0, propagation, true);
  setAttributes(p, store, options.set, cleared(options.clear, options.set), options.recursive ? 0 : propagation, false);
  setAttributes(p, store, options.recursiveSet, cleared(options.recursiveClear, options.recursiveSet), 0, true);
  if (options.propagation && options.propagation !== MS.MS_SLAVE)
    setAttributes(p, store, 0, 0, options.propagation, options.propagationRecursive);
}

/** Puts the detached mount `fd` on the opened place `to`. */
export function attach(p: Planner, fd: Word, to: Word): void {
  p.tape.step(SYS.move_mount, [fd, "", to, "", DETACHED_TO_PLACE]);
}

const isTop = ({ target }: RootMount) => !target || /^\/+$/.test(target);

/** The mount that is the root: the last of those that are not made somewhere inside it, as it hides the others. */
function topOf(mounts: readonly RootMount[]): RootMount {
  const top = mounts.findLast(isTop);
  if (!top) throw invalidArgument("none of the root file system's mounts is its root");
  return top;
}

/** A detached mount of the root file system, in `store`. */
export function planRoot(p: Planner, rootPath: string, mounts: readonly RootMount[], store: Word): void {
  if (mounts.length === 0) cloneTree(p, AT_FDCWD, rootPath, parseOptions(["rbind"]), store, `take the root file system ${rootPath}`);
  else planRootMount(p, topOf(mounts), store, "the root file system");
}

/** Detached mounts of what belongs somewhere inside the root file system. */
export function planFurtherRoots(p: Planner, mounts: readonly RootMount[]): { fd: Word; target: string }[] {
  if (mounts.length < 2) return [];
  const top = mounts.indexOf(topOf(mounts));
  return mounts.slice(top + 1).map((mount) => {
    const fd = p.tape.word("root_part");
    planRootMount(p, mount, fd, `${mount.target} of the root file system`);
    return { fd, target: mount.target! };
  });
}

function planRootMount(p: Planner, mount: RootMount, store: Word, what: string): void {
  const options = parseOptions(mount.options);
  if (mount.options.some((option) => option === "loop" || option.startsWith("loop=")))
    throw unimplemented(`a loop device for ${what} (${mount.source}) is not supported`);
  if (options.bind || mount.type === "bind") {
    cloneTree(p, AT_FDCWD, mount.source, { ...options, propagation: 0 }, store, `take ${what} ${mount.source}`);
    return;
  }
  const data: [string, string | undefined][] = [];
  for (const [key, value] of options.data) {
    if (mount.type === "overlay" && key === "lowerdir" && value !== undefined) {
      // One layer a call: no limit on the length of the whole, no separators to escape (Linux 6.8).
      for (const layer of splitLayers(value)) data.push(["lowerdir+", layer]);
    } else data.push([key, value]);
  }
  newFileSystem(p, mount.type, mount.source || mount.type, data, options.set, store, `mount ${what} (${mount.type})`);
}

/** An overlay by mount(2) on `place`, its layers named from their common directory, as they must fit into a page; its root opened in `store`. */
export function planOldOverlay(p: Planner, mounts: readonly RootMount[], place: string, store: Word): void {
  const { tape } = p;
  if (mounts.length > 1) throw unimplemented("a root file system of more than one mount needs Linux 6.8 or later");
  const mount = topOf(mounts);
  const options = parseOptions(mount.options);
  let layers = splitLayers(options.data.find(([key]) => key === "lowerdir")?.[1] ?? "");
  const common = commonDirectory(layers);
  const why = "mount the root file system (overlay)";
  if (layers.length > 1 && common !== "/") {
    tape.step(SYS.chdir, [common], { why });
    layers = layers.map((layer) => layer.slice(common.length + 1));
  }
  const escaped = layers.map((layer) => layer.replace(/[\\:,]/g, "\\$&")).join(":");
  const rest = options.data
    .filter(([key]) => key !== "lowerdir")
    .map(([key, value]) => (value === undefined ? key : `${key}=${value.replaceAll(",", "\\,")}`));
  const data = [`lowerdir=${escaped}`, ...rest].join(",");
  if (utf8(data).length > 4095) throw unimplemented(`a root file system of ${layers.length} layers needs Linux 6.8 or later`);
  const readonly = options.set & MOUNT_ATTR.MOUNT_ATTR_RDONLY ? MS.MS_RDONLY : 0;
  tape.step(SYS.mount, ["overlay", place, "overlay", named(MS, readonly), data], { why });
  p.open(place, O.O_PATH | O.O_DIRECTORY, store);
}

function commonDirectory(paths: readonly string[]): string {
  const split = paths.map((path) => path.split("/").slice(0, -1));
  const first = split[0] ?? [];
  let n = first.length;
  for (const parts of split) {
    let i = 0;
    while (i < n && parts[i] === first[i]) i++;
    n = i;
  }
  return first.slice(0, n).join("/") || "/";
}

/** The mount namespace of the one who makes the container, and his root in it. */
export interface HostMounts {
  namespace: Word;
  root: Word;
}

export interface PlannedMount {
  mount: Mount;
  options: MountOptions;
  /** Of a bind: the detached copy of its source. */
  source?: Word;
  /** Of a bind: its source, of which the process itself makes the copy when its turn comes. */
  path?: string;
  /** Of such a bind that is shared with the host: where the copy is to be made. */
  host?: HostMounts;
  /** Of a bind: its source below the root, which an earlier mount makes or changes. */
  inside?: string;
  /** Of such a bind: the user namespace that maps its ids. */
  mapping?: Word;
  /** Only who has rights over its file system maps a mount's ids, and in a user namespace nobody has: the process asks its maker. */
  asks?: boolean;
  /** What a bind's source is, as far as that can be known before. */
  kind: "directory" | "file";
  /** Of a tmpfs: what it begins with. */
  copy?: Entry[];
}

/**
 * Copies the sources of binds while the host's paths can still be walked with the host's rights. `ownMounts`: the process has these rights and a
 * mount namespace of its own, and will make the copies itself, each in its turn, as mount tables list mounts by age; `visits`: it may enter
 * another one as well. What is to be shared with the host is copied in the host's: in its own it would be a peer of its likes there only.
 */
export function planSources(
  p: Planner,
  mounts: readonly Mount[],
  kindOf: (path: string) => "directory" | "file",
  bundle: string,
  /** The container's own, for mounts that ask for a mapping and name none. */
  ownIds: { uids: IdMapping[]; gids: IdMapping[] },
  /** What lies below a place of the root file system. */
  entriesOf: (destination: string) => Entry[],
  ownMounts: boolean,
  /** SELinux' context of files that have none of their own. */
  mountLabel: string | undefined,
  /** The container has a user namespace. */
  inUser: boolean,
  /** The root file system's path on the host, where the container has mounts of its own. */
  rootPlace: string | undefined,
  visits: boolean,
): PlannedMount[] {
  let host: HostMounts | undefined;
  return mounts.map((mount, index) => {
    let options = parseOptions(mount.options ?? []);
    if (options.copyUp && mount.type !== "tmpfs") throw invalidArgument(`option tmpcopyup is for tmpfs: ${mount.destination}`);
    const mapped = options.idmap || mount.uidMappings?.length || mount.gidMappings?.length;
    if (!options.bind && mount.type !== "bind") {
      if (mapped) throw invalidArgument(`the mount on ${mount.destination} is not a bind mount: its ids cannot be mapped`);
      if (mountLabel && labelled.has(mount.type ?? "")) options.data.push(["context", mountLabel]);
      const copy = options.copyUp ? entriesOf(mount.destination) : undefined;
      return { mount, options, kind: "directory", ...(copy ? { copy } : {}) };
    }
    if (!mount.source) throw invalidArgument(`the bind mount on ${mount.destination} has no source`);
    const path = mount.source.startsWith("/") ? mount.source : `${bundle}/${mount.source}`;
    options = bindAttributes(options, inUser);
    const uids = mount.uidMappings ?? ownIds.uids;
    const gids = mount.gidMappings ?? ownIds.gids;
    const inside = rootPlace === undefined ? undefined : insideRoot(rootPlace, path);
    if (inside !== undefined && mounts.slice(0, index).some((earlier) => changes(earlier.destination, inside, options.recursive))) {
      if (!mapped) return { mount, options, inside, kind: "directory" };
      const mapping = p.tape.word("user_ns");
      planMapping(p, uids, gids, mapping, `map the ids of ${mount.destination}`);
      return { mount, options, inside, mapping, asks: inUser, kind: "directory" };
    }
    if (inUser) planLocked(p, path, options, `error mounting ${JSON.stringify(path)} to rootfs at ${JSON.stringify(mount.destination)}`);
    if (ownMounts && !mapped && options.propagation !== MS.MS_SHARED) return { mount, options, path, kind: kindOf(path) };
    if (ownMounts && !mapped && visits) {
      host ??= openHostMounts(p);
      return { mount, options, path, host, kind: kindOf(path) };
    }
    const source = p.tape.word("source");
    cloneTree(p, AT_FDCWD, path, options, source, `bind ${path} on ${mount.destination}`);
    if (mapped) {
      const why = `map the ids of ${mount.destination}`;
      const mapping = p.tape.word("user_ns");
      planMapping(p, uids, gids, mapping, why);
      planIdmap(p, source, mapping, options.idmap === "ridmap", why);
    }
    return { mount, options, source, kind: kindOf(path) };
  });
}

const NEW_MOUNTS = flags(CLONE, "CLONE_NEWNS");

function openHostMounts(p: Planner): HostMounts {
  const host = { namespace: p.tape.word("host_mounts"), root: p.tape.word("host_root") };
  const why = "keep the way to the host's mounts, for what is shared with it";
  p.open("/proc/self/ns/mnt", 0, host.namespace, { why });
  p.open("/", O.O_PATH | O.O_DIRECTORY, host.root);
  return host;
}

/** A copy that is made in the host's mount namespace. To enter one puts root and working directory elsewhere (setns(2)). */
function cloneShared(p: Planner, host: HostMounts, path: string, options: MountOptions, store: Word, why: string): void {
  const { tape } = p;
  const own = { namespace: tape.word("own_mounts"), root: tape.word("own_root") };
  p.open("/proc/self/ns/mnt", 0, own.namespace, { why });
  p.open("/", O.O_PATH | O.O_DIRECTORY, own.root);
  const enter = ({ namespace, root }: HostMounts) => {
    tape.step(SYS.setns, [namespace, NEW_MOUNTS]);
    tape.step(SYS.fchdir, [root]);
    tape.step(SYS.chroot, ["."]);
  };
  enter(host);
  cloneTree(p, AT_FDCWD, path, options, store, why);
  enter(own);
  p.close(own.namespace);
  p.close(own.root);
}

/** Whether a mount on `destination` is seen by who takes what is at `path`. */
function changes(destination: string, path: string, recursive: boolean): boolean {
  const there = directoryName(destination);
  const taken = directoryName(path);
  return taken.startsWith(there) || (recursive && there.startsWith(taken));
}

/** What the host has locked for user namespaces is not changed in a copy (mount_namespaces(7)). struct statfs has f_flags at 80. */
function planLocked(p: Planner, path: string, options: MountOptions, why: string): void {
  const { taken, times } = changedFlags(options);
  if (!taken && times === undefined) return;
  const { tape } = p;
  const fine = tape.label();
  const locked = tape.label();
  const room = tape.room(120, "statfs");
  const flags = tape.wordAt(room, 80, 8, "statfs.f_flags");
  const reason = `unable to start container process: error during container init: ${why}`;
  tape.step(SYS.statfs, [path, room], { why: reason });
  if (taken) tape.when(flags, "BITS", taken, locked);
  if (times !== undefined) {
    const now = tape.word("times");
    tape.compute("AND", flags, ST_TIMES, now);
    tape.when(now, "NE", times, locked);
  }
  tape.jump(fine);
  tape.place(locked);
  tape.fail(errno.EPERM, reason);
  tape.place(fine);
}

const freshTypes = new Set(["tmpfs", "proc", "sysfs", "devpts", "mqueue"]);
const labelled = new Set(["tmpfs", "devpts", "overlay"]);
const kernelFileSystems = new Set(["proc", "sysfs"]);

/** Mounts one entry of config.json's `mounts` below `root`; writable where it is `filledLater`. */
export function planMount(p: Planner, planned: PlannedMount, root: Word, filledLater = false): void {
  const { mount, options } = planned;
  const { tape } = p;
  const to = tape.word("place");
  const type = mount.type ?? "none";
  if (planned.inside !== undefined) {
    planMountInside(p, planned, planned.inside, root);
    return;
  }
  const bind = planned.source !== undefined || planned.path !== undefined;
  const why = bind ? `bind ${mount.source} on ${mount.destination}` : `mount ${type} on ${mount.destination}`;
  let fd = planned.source;
  if (planned.path !== undefined) {
    fd = tape.word("mount");
    if (planned.host) cloneShared(p, planned.host, planned.path, options, fd, why);
    else cloneTree(p, AT_FDCWD, planned.path, options, fd, why, true);
  } else if (!fd) {
    fd = tape.word("mount");
    const data = options.data;
    const source = mount.source ?? type;
    // As runc: a tmpfs has the mode of the directory that it covers.
    const bare = type === "tmpfs" && !planned.copy && !data.some(([key]) => key === "mode");
    const inherited = bare && !p.fresh.some((place) => mount.destination.startsWith(place));
    const mode = inherited ? planModeText(p, root, mount.destination, why) : undefined;
    const attr = filledLater || planned.copy ? options.set & ~MOUNT_ATTR.MOUNT_ATTR_RDONLY : options.set;
    // The read-only flag goes to the mount, never to the super block, which proc, sysfs and mqueue share.
    newFileSystem(p, type, source, mode ? [...data, ["mode", mode]] : data, attr, fd, why);
    const propagation = options.propagation;
    if (propagation) setAttributes(p, fd, 0, 0, propagation, options.propagationRecursive);
  }
  p.ensure(root, mount.destination, planned.kind, to, why, kernelFileSystems.has(type) ? { noSymlinks: true } : {});
  // A file system on top of proc would be asked and told what only the kernel should be (CVE-2019-16884, CVE-2025-52881).
  if (type !== "proc" && !coverable.has(mount.destination)) planProcCheck(p, to, false, `${why}: it is inside /proc`);
  if (planned.copy) {
    planCopyUp(p, planned.copy, to, fd, mount.destination);
    if (options.set & MOUNT_ATTR.MOUNT_ATTR_RDONLY && !filledLater) planReadonlyMount(p, fd, why);
  }
  attach(p, fd, to);
  if (!bind && !planned.copy && freshTypes.has(type)) p.fresh.push(`${mount.destination}/`);
  p.close(to);
  p.close(fd);
}

/** Binds what earlier mounts have put at `source` below the root, and looks for it nowhere else: links of the image lead out of it nowhere. */
function planMountInside(p: Planner, { mount, options, mapping, asks }: PlannedMount, source: string, root: Word): void {
  const { tape } = p;
  const why = `bind ${mount.source} on ${mount.destination}`;
  const [from, fd, parent, to] = [tape.word("source"), tape.word("mount"), tape.word("parent"), tape.word("place")];
  const file = tape.label();
  const ready = tape.label();
  p.openInRoot(root, source, O.O_PATH, from, { why });
  cloneTree(p, from, "", options, fd, why);
  if (mapping) (asks ? askForIdmap : planIdmap)(p, fd, mapping, options.idmap === "ridmap", `map the ids of ${mount.destination}`);
  const place = resolve(`/${mount.destination}`);
  // What is made for both kinds, before one of them is.
  p.ensure(root, dirname(place), "directory", parent, why);
  p.close(parent);
  const stat = tape.room(144, "stat");
  const type = tape.word("type");
  tape.step(SYS.fstat, [from, stat]);
  p.close(from);
  tape.compute("AND", tape.wordAt(stat, 24, 4, "stat.st_mode"), S_IFMT, type);
  tape.when(type, "NE", S_IFDIR, file);
  p.ensure(root, place, "directory", to, why);
  tape.jump(ready);
  tape.place(file);
  p.ensure(root, place, "file", to, why);
  tape.place(ready);
  if (!coverable.has(place)) planProcCheck(p, to, false, `${why}: it is inside /proc`);
  attach(p, fd, to);
  for (const each of [to, fd]) p.close(each);
}

/** The mode of what is at `path`, in octal digits; tmpfs' own default where nothing is. */
function planModeText(p: Planner, root: Word, path: string, why: string): Block {
  const { tape } = p;
  const text = tape.bytes(utf8("1777\0\0\0\0"), "mode");
  const absent = tape.label();
  const place = tape.word("place");
  const stat = tape.room(144, "stat");
  const digit = tape.word("digit");
  const digits = tape.word("digits");
  p.openInRoot(root, path, O.O_PATH, place, { why, jump: { to: absent } });
  tape.step(SYS.fstat, [place, stat]);
  p.close(place);
  tape.compute("ADD", 0x30303030, 0, digits);
  [9, 6, 3, 0].forEach((shift, i) => {
    tape.compute("SHR", tape.wordAt(stat, 24, 4, "stat.st_mode"), shift, digit);
    tape.compute("AND", digit, 7, digit);
    tape.compute("SHL", digit, 8 * i, digit);
    tape.compute("ADD", digits, digit, digits);
  });
  tape.compute("ADD", digits, 0, tape.wordAt(text, 0, 4, "mode"));
  tape.place(absent);
  return text;
}

const S_IFMT = { value: S.S_IFMT, name: "S_IFMT" };
const S_IFDIR = { value: S.S_IFDIR, name: "S_IFDIR" };
const PROC_SUPER_MAGIC = 0x9fa0;

/** Ends the tape unless the opened file is (or is not) procfs' own, whatever was mounted or linked there: struct statfs begins with the type. */
export function planProcCheck(p: Planner, fd: Word, inside: boolean, why: string): void {
  const { tape } = p;
  const room = tape.room(120, "statfs");
  const fine = tape.label();
  tape.step(SYS.fstatfs, [fd, room], { why });
  tape.when(tape.wordAt(room, 0, 8, "statfs.f_type"), inside ? "EQ" : "NE", { value: PROC_SUPER_MAGIC, name: "PROC_SUPER_MAGIC" }, fine);
  tape.fail(errno.EPERM, why);
  tape.place(fine);
}

/** Jumps to `real` where the opened file is the null device. struct stat: st_mode at 24, st_rdev at 40. */
export function planNullCheck({ tape }: Planner, fd: Word, why: string, real: Label): void {
  const fake = tape.label();
  const stat = tape.room(144, "stat");
  const type = tape.word("type");
  tape.step(SYS.fstat, [fd, stat], { why });
  tape.compute("AND", tape.wordAt(stat, 24, 4, "stat.st_mode"), S_IFMT, type);
  tape.when(type, "NE", { value: S.S_IFCHR, name: "S_IFCHR" }, fake);
  tape.when(tape.wordAt(stat, 40, 8, "stat.st_rdev"), "EQ", { value: 0x103, name: "makedev(1, 3)" }, real);
  tape.place(fake);
}

/** What of procfs may be covered: numbers that people read, by files of lxcfs and the like; the list is runc's. */
const coverable = new Set(
  [
    ["cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo"],
    ["net/dev", "sys/kernel/ns_last_pid", "sys/crypto/fips_enabled"],
  ]
    .flat()
    .map((name) => `/proc/${name}`),
);

/** Covers paths: a directory by an empty read-only file system, anything else by /dev/null; what does not exist is left alone. */
export function planMasked(p: Planner, paths: readonly string[], root: Word): void {
  if (paths.length === 0) return;
  const { tape } = p;
  const empty = tape.word("empty");
  const attached = tape.word("attached");
  const nothing = tape.word("null");
  const place = tape.word("place");
  const copy = tape.word("copy");
  newFileSystem(p, "tmpfs", "tmpfs", [["nr_inodes", "2"]], MOUNT_ATTR.MOUNT_ATTR_RDONLY, empty, "make an empty directory for masked paths");
  p.openInRoot(root, "/dev/null", O.O_PATH, nothing, { why: "open /dev/null for masked paths", noSymlinks: true });
  // The image's own, or one that was exchanged, would be shown instead (CVE-2025-31133).
  const real = tape.label();
  const isNull = "see that /dev/null is the null device";
  planNullCheck(p, nothing, isNull, real);
  tape.fail(errno.ENODEV, isNull);
  tape.place(real);
  const stat = tape.room(144, "stat");
  const type = tape.word("type");
  for (const path of new Set(paths)) {
    const next = tape.label();
    const notDirectory = tape.label();
    const further = tape.label();
    const covered = tape.label();
    const put = tape.label();
    p.openInRoot(root, path, O.O_PATH, place, { why: `mask ${path}`, jump: { to: next, on: ABSENT } });
    tape.step(SYS.fstat, [place, stat]);
    tape.compute("AND", tape.wordAt(stat, 24, 4, "stat.st_mode"), S_IFMT, type);
    tape.when(type, "NE", S_IFDIR, notDirectory);
    // The first directory gets the mount itself, others a copy of it: before Linux 6.15 what is attached nowhere can't be copied, and a mount
    // that ends unattached makes its last closer wait for an RCU grace period.
    tape.when(attached, "NE", 0, further);
    attach(p, empty, place);
    tape.compute("ADD", 1, 0, attached);
    tape.jump(covered);
    tape.place(further);
    tape.step(SYS.open_tree, [empty, "", COPY], { store: copy });
    tape.jump(put);
    tape.place(notDirectory);
    tape.step(SYS.open_tree, [nothing, "", COPY], { store: copy });
    tape.place(put);
    attach(p, copy, place);
    p.close(copy);
    tape.place(covered);
    p.close(place);
    tape.place(next);
  }
  p.close(empty);
  p.close(nothing);
}

/** Makes paths read-only, by a read-only copy of each on top of itself. */
export function planReadonly(p: Planner, paths: readonly string[], root: Word): void {
  const { tape } = p;
  const place = tape.word("place");
  const copy = tape.word("copy");
  const attr: Block = tape.structure([MOUNT_ATTR.MOUNT_ATTR_RDONLY, 0, 0, 0], "{MOUNT_ATTR_RDONLY}");
  for (const path of paths) {
    const next = tape.label();
    p.openInRoot(root, path, O.O_PATH, place, { why: `make ${path} read-only`, jump: { to: next, on: ABSENT } });
    tape.step(SYS.open_tree, [place, "", COPY_RECURSIVE], { store: copy });
    tape.step(SYS.mount_setattr, [copy, "", EMPTY_PATH, attr, 32]);
    attach(p, copy, place);
    p.close(copy);
    p.close(place);
    tape.place(next);
  }
}

/** Makes the mount `fd` itself read-only. */
export function planReadonlyMount(p: Planner, fd: Word, why: string): void {
  const attr = p.tape.structure([MOUNT_ATTR.MOUNT_ATTR_RDONLY, 0, 0, 0], "{MOUNT_ATTR_RDONLY}");
  p.tape.step(SYS.mount_setattr, [fd, "", EMPTY_PATH, attr, 32], { why });
}
