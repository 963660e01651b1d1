// Layers become snapshots, named by chain id, by the manager's services alone: Prepare, Diff.Apply, Commit, as containerd's client does it.
import { randomBytes } from "node:crypto";
import { failedPrecondition } from "../../lib/errors.ts";
import { chainIds, type Descriptor, type Digest } from "../../oci/index.ts";
import type { Manager } from "../context.ts";
import { isMissing, isThere, type Lease, labelBlob } from "./content.ts";

export async function hasSnapshot(manager: Manager, key: string): Promise<boolean> {
  return manager.snapshots.stat({ snapshotter: manager.snapshotter, key }).then(
    () => true,
    (error: unknown) => {
      if (isMissing(error)) return false;
      throw error;
    },
  );
}

/** How many of the lowest layers have their snapshot already. */
export async function unpackedLayers(manager: Manager, chain: readonly Digest[]): Promise<number> {
  for (let count = chain.length; count > 0; count--) if (await hasSnapshot(manager, chain[count - 1]!)) return count;
  return 0;
}

export interface UnpackStep {
  /** Waits until the layer's content is there. */
  ready?: (layer: number) => Promise<void>;
  onStart?: (layer: number) => void;
  onDone?: (layer: number) => void;
}

/** Makes the snapshots that are missing; harmless where all are there. `layers` and `diffIds` lowest first. */
export async function unpackLayers(
  manager: Manager,
  layers: readonly Descriptor[],
  diffIds: readonly Digest[],
  lease: Lease,
  step: UnpackStep = {},
  signal?: AbortSignal,
): Promise<void> {
  if (layers.length !== diffIds.length) throw failedPrecondition("mismatched image rootfs and manifest layers");
  const chain = chainIds(diffIds);
  const from = await unpackedLayers(manager, chain);
  for (let i = from; i < layers.length; i++) {
    signal?.throwIfAborted();
    await step.ready?.(i);
    step.onStart?.(i);
    await unpackLayer(manager, layers[i]!, diffIds[i]!, chain[i]!, chain[i - 1] ?? "", lease, signal);
    step.onDone?.(i);
  }
}

async function unpackLayer(
  manager: Manager,
  layer: Descriptor,
  diffId: Digest,
  name: Digest,
  parent: string,
  lease: Lease,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { snapshotter } = manager;
  const call = { headers: lease.headers, ...(signal ? { signal } : {}) };
  const key = `extract-${Date.now()}-${randomBytes(3).toString("hex")} ${name}`;
  const labels = { "containerd.io/snapshot.ref": name };
  const { mounts } = await manager.snapshots.prepare({ snapshotter, key, parent, labels }, { headers: lease.headers });
  try {
    const diff = { mediaType: layer.mediaType, digest: layer.digest, size: BigInt(layer.size), annotations: layer.annotations ?? {} };
    const { applied } = await manager.diff.apply({ diff, mounts }, call);
    if (applied?.digest !== diffId) throw failedPrecondition(`wrong diff id calculated on extraction "${applied?.digest}"`);
    try {
      await manager.snapshots.commit({ snapshotter, name, key, labels }, { headers: lease.headers });
    } catch (error) {
      // another pull of the same layers was faster
      if (!isThere(error)) throw error;
      await manager.snapshots.remove({ snapshotter, key });
    }
  } catch (error) {
    await manager.snapshots.remove({ snapshotter, key }).catch(() => {});
    throw error;
  }
  await labelBlob(manager, layer.digest, { "containerd.io/uncompressed": diffId });
}

/** Unpacks a lowest layer whose diff id is not known before; answers it. */
export async function applyFirstLayer(manager: Manager, layer: Descriptor, lease: Lease, signal?: AbortSignal): Promise<Digest> {
  const { snapshotter } = manager;
  const key = `extract-${Date.now()}-${randomBytes(3).toString("hex")} ${layer.digest}`;
  const { mounts } = await manager.snapshots.prepare({ snapshotter, key, parent: "", labels: {} }, { headers: lease.headers });
  try {
    const diff = { mediaType: layer.mediaType, digest: layer.digest, size: BigInt(layer.size), annotations: {} };
    const { applied } = await manager.diff.apply({ diff, mounts }, { headers: lease.headers, ...(signal ? { signal } : {}) });
    const diffId = applied?.digest ?? "";
    const labels = { "containerd.io/snapshot.ref": diffId };
    await manager.snapshots.commit({ snapshotter, name: diffId, key, labels }, { headers: lease.headers }).catch(async (error: unknown) => {
      if (!isThere(error)) throw error;
      await manager.snapshots.remove({ snapshotter, key });
    });
    await labelBlob(manager, layer.digest, { "containerd.io/uncompressed": diffId });
    return diffId;
  } catch (error) {
    await manager.snapshots.remove({ snapshotter, key }).catch(() => {});
    throw error;
  }
}
