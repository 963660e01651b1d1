// The layers of a pull: fetched several at a time, unpacked while they come where the manager is in this process, else one after the other as soon as they
// are here. A layer that another pull is fetching is waited for.
import type { ReceivedLayer } from "../../containerd/index.ts";
import type { Repository } from "../../distribution/index.ts";
import { chainIds, type Descriptor, type Digest } from "../../oci/index.ts";
import { hasBlob, type Lease, streamBlob, writeBlob } from "./content.ts";
import type { Core } from "./core.ts";
import { type ProgressSink, shortId } from "./progress.ts";
import { unpackedLayers, unpackLayers } from "./unpack.ts";

export interface Fetch {
  repository: Repository;
  /** Lowest first. */
  layers: readonly Descriptor[];
  diffIds: readonly Digest[];
  /** Labels of the content. */
  labels: Record<string, string>;
  lease: Lease;
  sink: ProgressSink;
  signal: AbortSignal;
}

/** At most `limit` hold a place at a time, the others are told to wait; the answered function gives the place back. */
function createGate(limit: number): (onWait: () => void) => Promise<() => void> {
  let free = limit;
  const waiting: (() => void)[] = [];
  const release = () => {
    const next = waiting.shift();
    if (next) next();
    else free++;
  };
  return async (onWait) => {
    if (free > 0) free--;
    else {
      onWait();
      await new Promise<void>((resolve) => waiting.push(resolve));
    }
    let held = true;
    return () => {
      if (held) release();
      held = false;
    };
  };
}

/** What is being fetched or packed in this engine, by digest. */
const running = new Map<Digest, Promise<unknown>>();

/** Runs `work` when nobody else works on this digest. */
export async function alone<T>(digest: Digest, work: () => Promise<T>): Promise<T> {
  for (let other = running.get(digest); other; other = running.get(digest)) await other.catch(() => {});
  const own = work();
  running.set(digest, own);
  try {
    return await own;
  } finally {
    running.delete(digest);
  }
}

/** Brings all layers into the content store and their snapshots into being. On failure what was half done is gone. */
export async function fetchLayers(core: Core, fetch: Fetch): Promise<void> {
  const { manager } = core.engine;
  const { layers, diffIds, sink } = fetch;
  const chain = chainIds(diffIds);
  const present = await unpackedLayers(manager, chain);
  const stop = new AbortController();
  const abort = () => stop.abort(fetch.signal.reason);
  fetch.signal.addEventListener("abort", abort, { once: true });
  if (fetch.signal.aborted) abort();
  const jobs: Promise<unknown>[] = [];
  const inner = { ...fetch, signal: stop.signal };
  try {
    const enter = createGate(Math.max(1, core.engine.config.maxConcurrentDownloads || 3));
    const begin = <T>(work: Promise<T>): Promise<T> => {
      work.catch((error: unknown) => stop.abort(error));
      jobs.push(work);
      return work;
    };
    for (const [i, layer] of layers.entries()) {
      if (i >= present) sink.line({ status: "Pulling fs layer", progressDetail: {}, id: shortId(layer.digest) });
      else if (await hasBlob(manager, layer.digest)) sink.line({ status: "Already exists", progressDetail: {}, id: shortId(layer.digest) });
      else begin(download(core, inner, layer, enter));
    }
    if (manager.layers) await receiveAll(core, inner, chain, present, enter, begin);
    else await unpackAll(core, inner, present, enter, begin);
    await Promise.all(jobs);
  } catch (error) {
    stop.abort(error);
    await Promise.allSettled(jobs);
    if (fetch.signal.aborted) throw fetch.signal.reason;
    // the first failure stopped the others: it is the one to tell
    throw stop.signal.reason;
  } finally {
    fetch.signal.removeEventListener("abort", abort);
  }
}

type Enter = ReturnType<typeof createGate>;
type Begin = <T>(work: Promise<T>) => Promise<T>;

const retrying = (sink: ProgressSink, id: string) => (_: unknown, delayMs: number) =>
  sink.line({ status: `Retrying in ${Math.max(1, Math.round(delayMs / 1000))} seconds`, progressDetail: {}, id });

function completed(sink: ProgressSink, id: string): void {
  sink.line({ status: "Verifying Checksum", progressDetail: {}, id });
  sink.line({ status: "Download complete", progressDetail: {}, id });
}

/** One layer into the content store, by the manager's service. */
function download(core: Core, fetch: Fetch, layer: Descriptor, enter: Enter): Promise<void> {
  const { repository, labels, lease, sink, signal } = fetch;
  const id = shortId(layer.digest);
  return alone(layer.digest, async () => {
    if (await hasBlob(core.engine.manager, layer.digest)) return;
    const leave = await enter(() => sink.line({ status: "Waiting", progressDetail: {}, id }));
    try {
      signal.throwIfAborted();
      const onProgress = (bytes: number) => sink.bar(id, "Downloading", bytes, layer.size);
      await writeBlob(core.engine.manager, { descriptor: layer, labels, lease, signal, onProgress }, (offset) =>
        repository.stream(layer, { offset, signal, verify: false, onRetry: retrying(sink, id) }),
      );
    } finally {
      leave();
    }
    completed(sink, id);
  });
}

/** Through any manager: what is here is unpacked in order while more comes. */
async function unpackAll(core: Core, fetch: Fetch, present: number, enter: Enter, begin: Begin): Promise<void> {
  const { layers, sink } = fetch;
  const waiting = layers.map((layer, i) => (i < present ? undefined : begin(download(core, fetch, layer, enter))));
  const id = (i: number) => shortId(layers[i]!.digest);
  await unpackLayers(
    core.engine.manager,
    layers,
    fetch.diffIds,
    fetch.lease,
    {
      ready: async (i) => waiting[i],
      onStart: (i) => sink.bar(id(i), "Extracting", 0, layers[i]!.size),
      onDone(i) {
        sink.bar(id(i), "Extracting", layers[i]!.size, layers[i]!.size);
        sink.line({ status: "Pull complete", progressDetail: {}, id: id(i) });
      },
    },
    fetch.signal,
  );
}

/** Through a manager in this process: each layer in one pass, all side by side, named in order. */
async function receiveAll(core: Core, fetch: Fetch, chain: readonly Digest[], present: number, enter: Enter, begin: Begin): Promise<void> {
  const { layers, diffIds, labels, lease, sink, signal, repository } = fetch;
  const { manager } = core.engine;
  const receiver = manager.layers!;
  const receive = (layer: Descriptor, i: number) =>
    alone(layer.digest, async () => {
      const id = shortId(layer.digest);
      const leave = await enter(() => sink.line({ status: "Waiting", progressDetail: {}, id }));
      try {
        signal.throwIfAborted();
        const here = await hasBlob(manager, layer.digest);
        let received = false;
        return await receiver.receive({
          descriptor: layer,
          diffId: diffIds[i]!,
          lowest: i === 0,
          labels,
          lease: lease.id,
          signal,
          open: (offset) =>
            here
              ? streamBlob(manager, layer.digest, offset)
              : repository.stream(layer, { offset, signal, verify: false, onRetry: retrying(sink, id) }),
          onReceived: (bytes) => sink.bar(id, "Downloading", bytes, layer.size),
          onComplete() {
            received = true;
            leave();
            completed(sink, id);
          },
          onUnpacked: (bytes) => received && sink.bar(id, "Extracting", bytes, layer.size),
        });
      } finally {
        leave();
      }
    });
  const work = layers.map((layer, i) => (i < present ? undefined : begin(receive(layer, i))));
  await commitInOrder(work, chain, (i) => {
    const id = shortId(layers[i]!.digest);
    sink.bar(id, "Extracting", layers[i]!.size, layers[i]!.size);
    sink.line({ status: "Pull complete", progressDetail: {}, id });
  });
}

/** Names layers as they come, lowest first; where one fails, what the others made is taken away. */
export async function commitInOrder(
  work: readonly (Promise<ReceivedLayer> | undefined)[],
  chain: readonly Digest[],
  onDone: (layer: number) => void = () => {},
): Promise<void> {
  try {
    for (const [i, one] of work.entries()) {
      if (!one) continue;
      (await one).commit(chain[i]!, chain[i - 1] ?? "");
      onDone(i);
    }
  } catch (error) {
    for (const settled of await Promise.allSettled(work)) if (settled.status === "fulfilled") settled.value?.discard();
    throw error;
  }
}
