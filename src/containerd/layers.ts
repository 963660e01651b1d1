// A layer in one pass, for an engine in the same process: its bytes go into a file of the content store while a worker hashes, decompresses and extracts the
// same file as it grows. Layers unpack side by side, each into a snapshot without a parent; they are put upon each other as they are committed. The same
// could be done by the services one after the other (Content.Write, Snapshots.Prepare, Diff.Apply, Snapshots.Commit), with each byte read twice.
import { randomBytes } from "node:crypto";
import { mkdirSync } from "node:fs";
import { type FileHandle, open, rm } from "node:fs/promises";
import { join } from "node:path";
import { SnapshotCommitSchema, SnapshotPrepareSchema } from "../gen/containerd/events_pb.ts";
import { failedPrecondition, isKind } from "../lib/errors.ts";
import { createRoom } from "../lib/room.ts";
import { adoptParents, applyLayer, createProgress, type Descriptor, type Unpacked } from "../oci/index.ts";
import type { Manager } from "./manager.ts";
import { layersOf, type MountInstruction } from "./snapshots/detached.ts";

export interface ReceiveOptions {
  /** What it must be; undefined where it is only known when all of it is here. */
  descriptor: Pick<Descriptor, "digest" | "size"> | undefined;
  /** The digest that it must have uncompressed; undefined where nobody knows. */
  diffId: string | undefined;
  /** No layer lies below: a deletion in it means nothing. */
  lowest: boolean;
  /** Labels of the content. */
  labels: Record<string, string>;
  lease: string;
  /** The layer's bytes from a place on, as an earlier attempt may have left those before; not verified yet. */
  open(offset: number): AsyncIterable<Uint8Array>;
  /** Bytes that are here. */
  onReceived?: (bytes: number) => void;
  /** All bytes are here. */
  onComplete?: () => void;
  /** Bytes of the layer that are unpacked; about ten times a second. */
  onUnpacked?: (bytes: number) => void;
  signal: AbortSignal;
}

/** A layer that is unpacked and in the content store, but no snapshot with a name yet. */
export interface ReceivedLayer {
  digest: string;
  size: number;
  diffId: string;
  /** Names it, upon the committed snapshot `parent` ("": none). Harmless where somebody else made the same one meanwhile. */
  commit(name: string, parent: string): void;
  /** Takes the unpacked files away; harmless after commit. */
  discard(): void;
}

export interface LayerReceiver {
  /**
   * InvalidArgument or FailedPrecondition where size, digest or diff id are wrong; ResourceExhausted where the disk is full; whatever `open` throws. Nothing is
   * left behind then but, where it broke off, what had come: as an ingest, with which the next attempt goes on.
   */
  receive(options: ReceiveOptions): Promise<ReceivedLayer>;
  /** The tar of what one tree has and another has not, both as a snapshotter's mounts, for `open`: the layer is then written and unpacked as it is made. */
  changes(left: readonly MountInstruction[], right: readonly MountInstruction[], signal: AbortSignal): AsyncIterable<Uint8Array>;
}

const SNAPSHOTTER = "overlayfs";
const PIECE = 256 << 10;
/** A part that is smaller is not worth keeping. */
const WORTH = 1 << 20;
let count = 0;

export function createLayerReceiver(manager: Manager, namespace: string): LayerReceiver {
  const snapshotter = manager.snapshotters.get(SNAPSHOTTER)!;
  // The store empties this directory of what it does not know when it starts: nothing survives a kill.
  const incoming = join(manager.root, "content/ingest");

  return {
    async *changes(left, right, signal) {
      const { layerTar } = await import("./diff/layer-tar.ts");
      yield* layerTar(layersOf(left).layers, layersOf(right).layers, { epoch: undefined, signal });
    },
    async receive(options) {
      const { descriptor, lease, labels, signal } = options;
      mkdirSync(incoming, { recursive: true });
      const key = `extract-${Date.now()}-${randomBytes(3).toString("hex")} ${options.diffId ?? "layer"}`;
      const file = join(incoming, `layer-${process.pid}-${++count}`);
      const mounts = snapshotter.prepare(namespace, key, "", {}, lease);
      manager.events.publish(namespace, "/snapshot/prepare", SnapshotPrepareSchema, { key, parent: "", snapshotter: SNAPSHOTTER });
      const root = layersOf(mounts).upper!;
      let open = true;
      const discard = () => {
        if (!open) return;
        open = false;
        try {
          snapshotter.remove(namespace, key);
        } catch (error) {
          if (!isKind(error, "NotFound")) throw error;
        }
      };
      const ref = `layer-${descriptor?.digest}`;
      const receipt: Receipt = { have: descriptor ? await manager.content.takeUp(namespace, ref, file) : 0, brokeOff: false };
      let unpacked: Unpacked;
      try {
        unpacked = await receiveInto(file, root, options, receipt);
        await manager.content.adopt(namespace, file, {
          digest: unpacked.digest,
          size: unpacked.size,
          labels: { ...labels, "containerd.io/uncompressed": unpacked.diffId },
          lease,
        });
        signal.throwIfAborted();
      } catch (error) {
        if (descriptor && receipt.brokeOff && receipt.have >= WORTH && receipt.have < descriptor.size) {
          await manager.content.setAside(namespace, file, { ref, expected: descriptor.digest, total: descriptor.size });
        } else await rm(file, { force: true });
        discard();
        throw error;
      }
      const { digest, size, diffId } = unpacked;
      return {
        digest,
        size,
        diffId,
        discard,
        commit(name, parent) {
          if (!open) throw failedPrecondition(`layer ${diffId} was discarded`);
          if (parent !== "" && unpacked.implied.length > 0) {
            const view = `view-${key}`;
            const below = layersOf(snapshotter.view(namespace, view, parent, {}, lease)).layers;
            try {
              adoptParents(root, below, unpacked.implied);
            } finally {
              snapshotter.remove(namespace, view);
            }
          }
          try {
            snapshotter.commit(namespace, name, key, { "containerd.io/snapshot.ref": name }, lease, parent);
          } catch (error) {
            if (!isKind(error, "AlreadyExists")) throw error;
            discard();
            return;
          }
          open = false;
          manager.events.publish(namespace, "/snapshot/commit", SnapshotCommitSchema, { key, name, snapshotter: SNAPSHOTTER });
        },
      };
    },
  };
}

/** How far a layer has come. */
interface Receipt {
  /** Bytes that are in its file. */
  have: number;
  /** It ended because no more came, not because of what came. */
  brokeOff: boolean;
}

async function receiveInto(path: string, root: string, options: ReceiveOptions, receipt: Receipt): Promise<Unpacked> {
  const { descriptor, diffId, lowest, signal } = options;
  const progress = createProgress();
  const stop = new AbortController();
  const abort = () => stop.abort(signal.reason);
  signal.throwIfAborted();
  signal.addEventListener("abort", abort, { once: true });
  // what an earlier attempt left is longer than it may be: it was something else
  if (descriptor && receipt.have > descriptor.size) {
    await rm(path, { force: true });
    receipt.have = 0;
  }
  const file = await open(path, receipt.have > 0 ? "r+" : "wx", 0o444);
  const ticking = setInterval(() => options.onUnpacked?.(progress.read()), 100);
  try {
    const applying = applyLayer({
      file: path,
      root,
      whiteouts: lowest ? "ignore" : "overlay",
      ...(descriptor ? { digest: descriptor.digest, size: descriptor.size } : {}),
      ...(diffId ? { diffId } : {}),
      progress,
      signal: stop.signal,
    });
    // A layer that can't be unpacked need not be fetched to its end.
    let bad = false;
    applying.catch((error: unknown) => {
      bad = true;
      stop.abort(error);
    });
    try {
      await write(file, options, receipt, progress, createRoom(root), stop.signal);
    } catch (error) {
      const full = (error as NodeJS.ErrnoException).code === "ENOSPC" || isKind(error, "ResourceExhausted");
      receipt.brokeOff = !bad && !full && !isKind(error, "InvalidArgument");
      stop.abort(error);
      await applying.catch(() => {});
      throw error;
    }
    options.onComplete?.();
    return await applying;
  } catch (error) {
    throw signal.aborted ? signal.reason : error;
  } finally {
    clearInterval(ticking);
    signal.removeEventListener("abort", abort);
    await file.close();
  }
}

async function write(
  file: FileHandle,
  options: ReceiveOptions,
  receipt: Receipt,
  progress: ReturnType<typeof createProgress>,
  room: (bytes: number) => void,
  signal: AbortSignal,
): Promise<void> {
  let held: Uint8Array[] = [];
  let length = 0;
  const flush = async () => {
    room(length);
    for (let n = 0; n < length; ) {
      // one call for many small pieces; what a short write left is joined and written again
      const parts: Uint8Array[] = n === 0 ? held : [Buffer.concat(held).subarray(n)];
      n += (await file.writev(parts, receipt.have + n)).bytesWritten;
    }
    receipt.have += length;
    held = [];
    length = 0;
    progress.available(receipt.have);
    options.onReceived?.(receipt.have);
  };
  if (receipt.have > 0) progress.available(receipt.have);
  for await (const piece of options.open(receipt.have)) {
    signal.throwIfAborted();
    held.push(piece);
    length += piece.length;
    if (length >= PIECE) await flush();
  }
  if (length > 0) await flush();
  progress.end();
}
