// The root file system: a path of the host, or mounts that a snapshotter describes.
import { invalidArgument, unimplemented } from "../../lib/errors.ts";
import { SYS, utf8 } from "../../linux/index.ts";
import type { RootMount } from "../face.ts";
import type { Word } from "../tape.ts";
import { AT_FDCWD, MOUNT_ATTR, MS, named, O } from "./constants.ts";
import { cloneTree, newFileSystem } from "./detached-mounts.ts";
import { splitLayers } from "./layers.ts";
import { parseOptions } from "./mount-options.ts";
import type { Planner } from "./planner.ts";

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
