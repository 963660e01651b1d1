// Parts of a tree as mounts for a container. A directory of a tree that is a stack of directories is the stack of what they have at that path: it needs no mount
// of the whole tree on the host, so that there is none to be left behind.
import { chmodSync, chownSync, mkdirSync, mkdtempSync, statSync } from "node:fs";
import { lstat } from "node:fs/promises";
import { join } from "node:path";
import { openDetached } from "../../containerd/index.ts";
import { invalidArgument, notFound } from "../../lib/errors.ts";
import { binding, close, O_DIRECTORY, O_PATH, O_RDONLY, open, openat2, RESOLVE_IN_ROOT, SYS } from "../../linux/index.ts";
import { files } from "../../oci/index.ts";
import type { StepRequest } from "../host.ts";
import { copySource } from "./copy.ts";
import { bytesOf, findSources, isDirectory, makeDirectories } from "./tree.ts";
import type { SnapshotMount } from "./workspace.ts";

type StepMount = StepRequest["mounts"][number];

export interface Layers {
  /** Directories, topmost first, without the one that takes changes. */
  lower: string[];
  upper: string | undefined;
  work: string | undefined;
}

/** A snapshot's mounts taken apart; none are the empty tree. */
export function layersOf(mounts: readonly SnapshotMount[]): Layers {
  const [mount] = mounts;
  if (!mount) return { lower: [], upper: undefined, work: undefined };
  if (mount.type !== "overlay") {
    const readonly = mount.options.includes("ro");
    return { lower: readonly ? [mount.source] : [], upper: readonly ? undefined : mount.source, work: undefined };
  }
  const option = (name: string) => mount.options.find((each) => each.startsWith(`${name}=`))?.slice(name.length + 1);
  return { lower: option("lowerdir")?.split(":") ?? [], upper: option("upperdir"), work: option("workdir") };
}

const value = Buffer.alloc(16);
const isOpaque = (path: string): boolean => {
  for (const name of ["trusted.overlay.opaque", "user.overlay.opaque"])
    if (binding.syscall(SYS.lgetxattr, path, name, value, value.length) === 1 && value[0] === 0x79) return true;
  return false;
};

/** What directories (topmost first) together have at a path without links: directories, or one file. Nothing: an empty list. */
async function partOf(layers: readonly string[], path: string): Promise<{ directories: string[]; file?: string }> {
  const parts = path.split("/").filter(Boolean);
  const directories: string[] = [];
  for (const layer of layers) {
    let at = layer;
    let covered = false;
    let found = true;
    for (const [i, part] of parts.entries()) {
      at = `${at}/${part}`;
      const stat = await lstat(at).catch(() => undefined);
      if (!stat) {
        found = false;
        break;
      }
      if (!stat.isDirectory()) {
        const whiteout = stat.isCharacterDevice() && stat.rdev === 0;
        return !whiteout && i === parts.length - 1 && directories.length === 0 ? { directories, file: at } : { directories };
      }
      covered ||= isOpaque(at);
    }
    if (found) directories.push(at);
    if (covered) break;
  }
  return { directories };
}

/** A path of a tree with its links resolved, without leading "/". NotFound. */
export function straightPath(root: number, path: string): { path: string; directory: boolean } {
  const clean = path.replace(/^\/+/, "") || ".";
  const fd = files.openIn(root, bytesOf(clean), O_PATH, RESOLVE_IN_ROOT);
  if (fd < 0) throw notFound(`failed to compute cache key: "${path.startsWith("/") ? path : `/${path}`}": not found`);
  try {
    const place = files.readLink(-100, `/proc/self/fd/${fd}`);
    const above = files.readLink(-100, `/proc/self/fd/${root}`);
    const below = above === "/" ? place : place.slice(above.length);
    return { path: files.shown(below.replace(/^\/+/, "")), directory: isDirectory(files.statOf(fd)) };
  } finally {
    close(fd);
  }
}

const HOW = ["rbind", "rprivate"];
const bind = (source: string, destination: string, readonly: boolean): StepMount => ({
  type: "bind",
  source,
  destination,
  options: [...HOW, ...(readonly ? ["ro"] : [])],
});
const joined = (directories: readonly string[]) => directories.map((each) => each.replace(/([\\:])/g, "\\$1")).join(":");

/** The directory that takes changes looks as the one it lies upon. */
function likeBelow(directory: string, below: string | undefined): void {
  const stat = below === undefined ? { uid: 0, gid: 0, mode: 0o755 } : statSync(below);
  chownSync(directory, stat.uid, stat.gid);
  chmodSync(directory, stat.mode & 0o7777);
}

/** What of a tree is at `selector`, read-only, or with changes that are lost with `scratch`. */
export async function borrowed(
  tree: { layers: readonly string[]; root: number },
  selector: string,
  destination: string,
  readonly: boolean,
  scratch: () => string,
): Promise<StepMount> {
  const { path, directory } = straightPath(tree.root, selector);
  const part = await partOf(tree.layers, path);
  const plain = !part.directories.some((each) => /[,\n]/.test(each));
  if (!directory || !plain) {
    if (part.file !== undefined && readonly) return bind(part.file, destination, true);
    const place = mkdtempSync(join(scratch(), "copy-"));
    const into = open(place, O_RDONLY | O_DIRECTORY);
    try {
      const [source] = findSources(tree.root, path, "%: not found", { wildcard: false });
      await copySource(tree.root, source!, into, "it", {});
    } finally {
      close(into);
    }
    return bind(join(place, "it"), destination, readonly);
  }
  const [first, ...rest] = part.directories;
  if (readonly && first !== undefined && rest.length === 0) return bind(first, destination, true);
  if (readonly && first === undefined) return bind(mkdtempSync(join(scratch(), "empty-")), destination, true);
  if (readonly) return { type: "overlay", source: "overlay", destination, options: [`lowerdir=${joined(part.directories)}`, "ro"] };
  const place = mkdtempSync(join(scratch(), "upper-"));
  const [upper, work] = [join(place, "upper"), join(place, "work")];
  mkdirSync(upper);
  mkdirSync(work);
  likeBelow(upper, first);
  if (first === undefined) return bind(upper, destination, false);
  const options = [`lowerdir=${joined(part.directories)}`, `upperdir=${upper}`, `workdir=${work}`];
  return { type: "overlay", source: "overlay", destination, options };
}

/** What of a new snapshot is at `selector`: changes become the snapshot's. */
export async function owned(mounts: readonly SnapshotMount[], selector: string, destination: string): Promise<StepMount> {
  const { lower, upper, work } = layersOf(mounts);
  if (upper === undefined) throw invalidArgument("a snapshot that can't be written to");
  const clean = selector.replace(/^\/+|\/+$/g, "");
  if (clean === "") {
    const [mount] = mounts;
    return mount!.type === "overlay" ? { ...mount!, destination, options: [...mount!.options] } : bind(upper, destination, false);
  }
  const tree = openDetached(mounts);
  let path: string;
  try {
    const root = openat2(tree, ".", O_RDONLY | O_DIRECTORY, { resolve: RESOLVE_IN_ROOT });
    try {
      const directory = makeDirectories(root, bytesOf(clean), { uid: 0, gid: 0 });
      const stat = files.statOf(directory);
      // a change of owner to what it is has the kernel copy the directory up
      files.fchown(directory, stat.uid, stat.gid);
      close(directory);
      path = straightPath(root, clean).path;
    } finally {
      close(root);
    }
  } finally {
    close(tree);
  }
  const part = await partOf(lower, path);
  const place = `${upper}/${path}`;
  if (part.directories.length === 0 || work === undefined || isOpaque(place)) return bind(place, destination, false);
  const options = [`lowerdir=${joined(part.directories)}`, `upperdir=${place}`, `workdir=${work}`];
  return { type: "overlay", source: "overlay", destination, options };
}
