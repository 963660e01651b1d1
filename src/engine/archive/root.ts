// A container's root file system for copying: with its volumes in place, also where it does not run.
import { posix } from "node:path";
import type { MountPoint } from "../../api/types.ts";
import { binding, close, O_CLOEXEC, O_PATH, openat2, RESOLVE_IN_ROOT, SYS } from "../../linux/index.ts";
import type { ContainerRecord, Engine } from "../context.ts";

const OPEN_TREE_CLONE = 1;
const AT_RECURSIVE = 0x8000;
const MOVE_MOUNT_F_EMPTY_PATH = 4;
const MOVE_MOUNT_T_EMPTY_PATH = 0x40;

export interface Root {
  fd: number;
  /** The path to look up below `fd`. */
  path: string;
  close(): Promise<void>;
}

/** Hangs a volume into the detached tree; false where the kernel can't (before 6.15) or the place is missing. */
function hangIn(root: number, source: string, destination: string): boolean {
  const tree = binding.syscall(SYS.open_tree, -100, source, OPEN_TREE_CLONE | O_CLOEXEC | AT_RECURSIVE);
  if (tree < 0) return false;
  try {
    const place = openat2(root, destination, O_PATH, { resolve: RESOLVE_IN_ROOT });
    try {
      return binding.syscall(SYS.move_mount, tree, "", place, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) === 0;
    } finally {
      close(place);
    }
  } catch {
    return false;
  } finally {
    close(tree);
  }
}

/** The mount that a path lies in: the longest destination that leads to it. */
export function mountOf(mounts: MountPoint[], path: string): MountPoint | undefined {
  const clean = posix.join("/", path);
  return mounts
    .filter(({ Destination }) => Destination !== undefined && (clean === Destination || clean.startsWith(`${Destination}/`)))
    .sort((a, b) => b.Destination!.length - a.Destination!.length)[0];
}

export async function openForCopy(engine: Engine, record: ContainerRecord, path: string): Promise<Root> {
  const root = await engine.containers.openRoot(record.id);
  const stored = record.mounts.filter((mount) => mount.Type === "volume" || mount.Type === "bind");
  if ((record.state.Running && !record.state.Restarting) || stored.length === 0) return { ...root, path };
  try {
    const sorted = [...stored].sort((a, b) => a.Destination!.length - b.Destination!.length);
    let all = true;
    for (const mount of sorted) all = hangIn(root.fd, await engine.volumes.source(mount, record), mount.Destination!) && all;
    const mount = mountOf(stored, path);
    if (all || !mount) return { ...root, path };
    const source = await engine.volumes.source(mount, record);
    const fd = openat2(-100, source, O_PATH);
    await root.close();
    return { fd, path: posix.join("/", path).slice(mount.Destination!.length) || "/", close: async () => close(fd) };
  } catch (error) {
    await root.close();
    throw error;
  }
}
