// What a runtime leaves in a root file system: empty files and directories that were made to mount upon.
import { lstatSync, readdirSync, rmdirSync, unlinkSync, utimesSync } from "node:fs";
import { posix } from "node:path";
import { layersOf } from "./stack.ts";
import type { SnapshotMount } from "./workspace.ts";

const lstat = (path: string) => lstatSync(path, { throwIfNoEntry: false });
const isWhiteout = (stat: { isCharacterDevice(): boolean; rdev: number }) => stat.isCharacterDevice() && stat.rdev === 0;

/** Whether directories (topmost first) show something at a path; no link is followed. */
function shows(layers: readonly string[], parts: readonly string[]): boolean {
  for (const layer of layers) {
    for (let depth = 1; ; depth++) {
      const stat = lstat([layer, ...parts.slice(0, depth)].join("/"));
      if (!stat) break;
      if (isWhiteout(stat)) return false;
      if (depth === parts.length) return true;
      if (!stat.isDirectory()) return false;
    }
  }
  return false;
}

/** Whether every component on the way to a path is a real directory, so that working on it can't lead elsewhere. */
function isStraight(root: string, parts: readonly string[]): boolean {
  return parts.slice(0, -1).every((_, i) => lstat([root, ...parts.slice(0, i + 1)].join("/"))?.isDirectory() === true);
}

/**
 * What the runtime makes to mount upon is no change of the command's: empty files and directories that were not there before go away again, and with them the
 * parents that hold nothing else.
 */
export function removeMountPoints(mounts: readonly SnapshotMount[], destinations: readonly string[]): void {
  const { upper, lower } = layersOf(mounts);
  if (upper === undefined) return;
  const deepest = destinations.map((path) => posix.join("/", path).slice(1).split("/").filter(Boolean)).sort((a, b) => b.length - a.length);
  for (const parts of deepest) {
    if (parts.length === 0 || !isStraight(upper, parts)) continue;
    const path = [upper, ...parts].join("/");
    const stat = lstat(path);
    if (!stat || stat.isSymbolicLink()) continue;
    const empty = stat.isDirectory() ? readdirSync(path).length === 0 : stat.isFile() && stat.size === 0;
    if (!empty) continue;
    if (shows(lower, parts) && !stat.isDirectory()) continue;
    if (shows(lower, parts) && !sameAsBelow(lower, parts, stat)) continue;
    const times = parts.map((_, depth) => lstat([upper, ...parts.slice(0, depth)].join("/"))!);
    if (stat.isDirectory()) rmdirSync(path);
    else unlinkSync(path);
    for (let depth = parts.length - 1; depth > 0; depth--) {
      const above = parts.slice(0, depth);
      const directory = [upper, ...above].join("/");
      if (readdirSync(directory).length > 0) {
        // The command's own changes stay dated, ours is none.
        utimesSync(directory, times[depth]!.atime, times[depth]!.mtime);
        break;
      }
      const own = lstat(directory);
      if (shows(lower, above) && !(own && sameAsBelow(lower, above, own))) break;
      rmdirSync(directory);
    }
  }
}

/** Whether a directory differs from the one below in nothing but its times. */
function sameAsBelow(lower: readonly string[], parts: readonly string[], stat: { mode: number; uid: number; gid: number }): boolean {
  const below = lower.map((layer) => lstat([layer, ...parts].join("/"))).find(Boolean);
  return below?.isDirectory() === true && below.mode === stat.mode && below.uid === stat.uid && below.gid === stat.gid;
}
