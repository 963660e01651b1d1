// GET /containers/{id}/changes: what a container's own directory holds, compared with the layers below it.
import type { Stats } from "node:fs";
import { lstat, readdir } from "node:fs/promises";
import type { FilesystemChange } from "../../api/types.ts";
import { unimplemented } from "../../lib/errors.ts";
import type { Core } from "./core.ts";

const MODIFIED = 0;
const ADDED = 1;
const DELETED = 2;

/** What the runtime makes to mount upon; Docker has it in a layer of its own, which is not shown. */
const MOUNT_POINTS = new Set(["/.dockerenv", "/dev", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/proc", "/sys"]);

const isWhiteout = (stat: Stats) => stat.isCharacterDevice() && stat.rdev === 0;

const at = (dir: string, parts: readonly string[]) => [dir, ...parts].join("/");

/** Whether the layers below (directories, topmost first) show something at this path. No symbolic link is followed. */
async function isBelow(layers: readonly string[], parts: readonly string[]): Promise<boolean> {
  for (const layer of layers) {
    for (let depth = 1; ; depth++) {
      const stat = await lstat(at(layer, parts.slice(0, depth))).catch(() => undefined);
      if (!stat) break;
      if (isWhiteout(stat)) return false;
      if (depth === parts.length) return true;
      if (!stat.isDirectory()) return false;
    }
  }
  return false;
}

/** NotFound where there is no such container. Names in order; a directory before what it holds. */
export async function containerChanges(core: Core, ref: string): Promise<FilesystemChange[] | null> {
  const record = core.engine.containers.get(ref);
  const { snapshots, snapshotter } = core.engine.manager;
  const { mounts } = await snapshots.mounts({ snapshotter, key: record.snapshotKey });
  const [mount] = mounts;
  if (!mount || mounts.length !== 1) throw unimplemented("changes of a container whose root is not a single mount");
  const option = (name: string) => mount.options.find((one) => one.startsWith(`${name}=`))?.slice(name.length + 1);
  const upper = mount.type === "overlay" ? option("upperdir") : mount.source;
  if (!upper) throw unimplemented(`changes of a container on a mount of type ${mount.type}`);
  const lower = option("lowerdir")?.split(":") ?? [];
  const out: FilesystemChange[] = [];
  /** Answers whether all it found are the runtime's own mount points. */
  const walk = async (parts: readonly string[]): Promise<boolean> => {
    let own = true;
    const names = (await readdir(at(upper, parts))).sort();
    for (const name of names) {
      const path = [...parts, name];
      const stat = await lstat(at(upper, path)).catch(() => undefined);
      if (!stat) continue;
      const Path = `/${path.join("/")}`;
      if (isWhiteout(stat)) {
        out.push({ Path, Kind: DELETED });
        own = false;
        continue;
      }
      const below = await isBelow(lower, path);
      if (!below && MOUNT_POINTS.has(Path) && (stat.isDirectory() ? (await readdir(at(upper, path))).length === 0 : stat.size === 0))
        continue;
      const index = out.push({ Path, Kind: below ? MODIFIED : ADDED }) - 1;
      if (stat.isDirectory() && (await walk(path)) && below) out.splice(index, 1);
      else own = false;
    }
    return own && names.length > 0;
  };
  await walk([]);
  return out.length ? out : null;
}
