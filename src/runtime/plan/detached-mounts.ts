// Mounts by the descriptor-based API (fsopen, fsconfig, fsmount, open_tree, mount_setattr, move_mount): a mount is made detached, gets all its
// attributes, and only then appears, complete, at its place.
import { SYS } from "../../linux/index.ts";
import type { Arg, Block, Word } from "../tape.ts";
import {
  AT,
  FSCONFIG,
  FSMOUNT_CLOEXEC,
  FSOPEN_CLOEXEC,
  flags,
  MOUNT_ATTR,
  MOUNT_ATTR_ATIME,
  MOVE_MOUNT,
  MS,
  named,
  OPEN_TREE,
} from "./constants.ts";
import type { MountOptions } from "./mount-options.ts";
import type { Planner } from "./planner.ts";

export const EMPTY_PATH = flags(AT, "AT_EMPTY_PATH");

const EMPTY_PATH_RECURSIVE = flags(AT, "AT_EMPTY_PATH", "AT_RECURSIVE");
const DETACHED_TO_PLACE = flags(MOVE_MOUNT, "MOVE_MOUNT_F_EMPTY_PATH", "MOVE_MOUNT_T_EMPTY_PATH");

/** struct mount_attr: attr_set, attr_clr, propagation, userns_fd. */
export function setAttributes(p: Planner, fd: Arg, set: number, clear: number, propagation: number, recursive: boolean): void {
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

/** Makes the mount `fd` itself read-only. */
export function planReadonlyMount(p: Planner, fd: Word, why: string): void {
  const attr = p.tape.structure([MOUNT_ATTR.MOUNT_ATTR_RDONLY, 0, 0, 0], "{MOUNT_ATTR_RDONLY}");
  p.tape.step(SYS.mount_setattr, [fd, "", EMPTY_PATH, attr, 32], { why });
}
