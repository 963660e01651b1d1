// An image's files as a mount (`--mount type=image`): a view of its snapshot, made with the container and removed with it, so that the files stay though the
// image's name goes; mounted below EXEC_ROOT/image-views while the container runs, as a part of it (a subpath) can't be bound from what is mounted nowhere.
import { createHash } from "node:crypto";
import { mkdirSync, rmdirSync } from "node:fs";
import { entriesOf } from "../../lib/entries.ts";
import { isKind } from "../../lib/errors.ts";
import { AT_FDCWD, binding, check, close, SYS } from "../../linux/index.ts";
import { SNAPSHOT_OWNER } from "../containers/create.ts";
import { mountDetached, type SnapshotMount } from "../containers/rootfs.ts";
import type { ContainerRecord, Engine } from "../context.ts";
import { unmountVolume } from "./local.ts";

const MOVE_MOUNT_F_EMPTY_PATH = 4;

/** A container may have one mount a destination. */
const nameOf = (destination: string) => createHash("sha256").update(destination).digest("hex").slice(0, 16);
const keyOf = (id: string, destination: string) => `${id}-image-${nameOf(destination)}`;
const root = (engine: Engine) => `${engine.config.execRoot}/image-views`;

/** Where it is mounted while the container runs. */
export function imageMountPath(engine: Engine, id: string, destination: string): string {
  return `${root(engine)}/${id}/${nameOf(destination)}`;
}

/** Makes the view; answers the image's id. NotFound where the image is not there. */
export async function viewImage(engine: Engine, record: ContainerRecord, source: string, destination: string): Promise<string> {
  const { manager } = engine;
  const image = await engine.images.resolve(source);
  const labels = { "containerd.io/gc.root": record.created, [SNAPSHOT_OWNER]: record.id };
  await manager.snapshots.view({
    snapshotter: manager.snapshotter,
    key: keyOf(record.id, destination),
    parent: image.chainId,
    labels,
  });
  return image.id;
}

export async function removeView(engine: Engine, id: string, destination: string): Promise<void> {
  const { manager } = engine;
  await manager.snapshots.remove({ snapshotter: manager.snapshotter, key: keyOf(id, destination) }).catch((error: unknown) => {
    if (!isKind(error, "NotFound") && !/not found|not exist/i.test(String(error))) throw error;
  });
}

/** Mounts it, in place of what an engine that was killed left there. */
export async function mountImage(engine: Engine, id: string, destination: string): Promise<string> {
  const { manager } = engine;
  const { mounts } = await manager.snapshots.mounts({ snapshotter: manager.snapshotter, key: keyOf(id, destination) });
  const path = imageMountPath(engine, id, destination);
  unmountVolume(path);
  mkdirSync(path, { recursive: true, mode: 0o700 });
  const tree = mountDetached(mounts as unknown as SnapshotMount[]);
  try {
    check(binding.syscall(SYS.move_mount, tree, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH), `mount ${path}`);
  } finally {
    close(tree);
  }
  return path;
}

/** Takes away all mounts of a container; harmless where there are none. */
export function unmountImages(engine: Engine, id: string): void {
  const directory = `${root(engine)}/${id}`;
  for (const name of entriesOf(directory)) {
    unmountVolume(`${directory}/${name}`);
    rmdirSync(`${directory}/${name}`);
  }
  try {
    rmdirSync(directory);
  } catch {
    // there was none
  }
}

/** Takes away what belongs to no running container. */
export function sweepImageMounts(engine: Engine, live: ReadonlySet<string>): void {
  for (const id of entriesOf(root(engine))) if (!live.has(id)) unmountImages(engine, id);
}
