// POST /images/create?fromImage=: a reference becomes content, snapshots and a name. Layers are fetched several at a time and unpacked in their order while
// others still come.
import { type Credentials, noMatchingPlatform, openRepository, pullFailure, type Repository } from "../../distribution/index.ts";
import { failedPrecondition } from "../../lib/errors.ts";
import {
  chainIds,
  choosePlatform,
  type Descriptor,
  familiarName,
  familiarReference,
  formatPlatform,
  formatReference,
  hostPlatform,
  isLayerType,
  MAX_CONFIG,
  type Manifest,
  nameOf,
  type Platform,
  parseImageConfig,
  parseManifest,
  type Reference,
} from "../../oci/index.ts";
import { childLabels, hasBlob, type Lease, readBlob, withLease, writeBlob, writeBytes } from "./content.ts";
import { type Core, publish, setName, tagImage } from "./core.ts";
import { type ProgressSink, shortId } from "./progress.ts";
import { unpackedLayers, unpackLayers } from "./unpack.ts";

export interface PullOptions {
  reference: Reference;
  platform: Platform | undefined;
  credentials: Credentials | undefined;
  signal: AbortSignal;
}

interface Resolved {
  /** What the reference names. */
  top: { descriptor: Descriptor; bytes: Uint8Array };
  /** The image for the platform; the same as `top` where that is no index. */
  image: { descriptor: Descriptor; bytes: Uint8Array; manifest: Manifest };
  /** All entries of the index. */
  children: Descriptor[] | undefined;
}

async function resolve(repository: Repository, options: PullOptions): Promise<Resolved> {
  const { reference, signal } = options;
  const top = await repository.manifest(reference.digest ?? reference.tag!, signal);
  let parsed = parseManifest(top.bytes, top.descriptor.mediaType);
  top.descriptor.mediaType = (parsed.index ?? parsed.manifest).mediaType;
  if (parsed.manifest) return { top, image: { ...top, manifest: parsed.manifest }, children: undefined };
  const children = parsed.index.manifests;
  const wanted = options.platform ?? hostPlatform();
  const chosen = choosePlatform(children, wanted);
  if (!chosen) throw noMatchingPlatform(familiarReference(reference), formatPlatform(wanted));
  let image = await repository.manifest(chosen, signal);
  parsed = parseManifest(image.bytes, chosen.mediaType);
  // an index of indexes: one step down is enough for all that exist
  if (parsed.index) {
    const inner = choosePlatform(parsed.index.manifests, wanted);
    if (!inner) throw noMatchingPlatform(familiarReference(reference), formatPlatform(wanted));
    image = await repository.manifest(inner, signal);
    parsed = parseManifest(image.bytes, inner.mediaType);
    if (parsed.index) throw failedPrecondition("image indexes are nested too deeply");
  }
  return { top, image: { ...image, manifest: parsed.manifest }, children };
}

/** Lets at most `limit` run at a time. */
function createGate(limit: number): <T>(work: () => Promise<T>) => Promise<T> {
  let running = 0;
  const waiting: (() => void)[] = [];
  return async (work) => {
    if (running >= limit) await new Promise<void>((resolve) => waiting.push(resolve));
    else running++;
    try {
      return await work();
    } finally {
      const next = waiting.shift();
      if (next) next();
      else running--;
    }
  };
}

/** Pulls; reports lines. Throws before the first line where the image is not to be had. */
export async function pull(core: Core, options: PullOptions, sink: ProgressSink): Promise<void> {
  const { reference, signal } = options;
  const { manager } = core.engine;
  const repository = openRepository(reference, core.registry, options.credentials);
  let resolved: Resolved;
  try {
    resolved = await resolve(repository, options);
  } catch (error) {
    throw pullFailure(error, reference);
  }
  const { top, image } = resolved;
  sink.line({ status: `Pulling from ${familiarName(reference)}`, id: reference.tag ?? reference.digest! });
  const before = (await core.catalogue.byName(formatReference(reference)))?.content.manifestDescriptor.digest;
  await withLease(manager, async (lease) => {
    await fetchImage(core, repository, resolved, lease, sink, signal);
    // A name for a platform that is not ours leads to that platform's manifest: the index would mean ours.
    const foreign =
      options.platform && resolved.children && choosePlatform(resolved.children, hostPlatform())?.digest !== image.descriptor.digest;
    const target = foreign ? image.descriptor : top.descriptor;
    await tagImage(core, reference, target, lease);
    if (reference.digest === undefined) await setName(core, `${nameOf(reference)}@${top.descriptor.digest}`, top.descriptor, lease);
  });
  const familiar = familiarReference(reference);
  sink.line({ status: `Digest: ${top.descriptor.digest}` });
  sink.line({
    status:
      before === image.descriptor.digest ? `Status: Image is up to date for ${familiar}` : `Status: Downloaded newer image for ${familiar}`,
  });
  publish(core, "pull", familiar, familiarName(reference));
}

async function fetchImage(
  core: Core,
  repository: Repository,
  resolved: Resolved,
  lease: Lease,
  sink: ProgressSink,
  signal: AbortSignal,
): Promise<void> {
  const { manager, config } = core.engine;
  const { top, image, children } = resolved;
  const { manifest } = image;
  const source = { [`containerd.io/distribution.source.${repository.reference.domain}`]: repository.reference.path };
  for (const layer of manifest.layers)
    if (!isLayerType(layer.mediaType) && layer.mediaType !== "")
      throw failedPrecondition(`unsupported layer media type ${layer.mediaType}`);

  let configBytes: Uint8Array;
  if (await hasBlob(manager, manifest.config.digest)) configBytes = await readBlob(manager, manifest.config.digest, MAX_CONFIG);
  else configBytes = await repository.blob(manifest.config, MAX_CONFIG, signal);
  const diffIds = parseImageConfig(configBytes).diffIds;
  const chain = chainIds(diffIds);
  if (diffIds.length !== manifest.layers.length) throw failedPrecondition("layers from manifest don't match image configuration");
  const present = await unpackedLayers(manager, chain);

  const stop = new AbortController();
  const abort = () => stop.abort(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  if (signal.aborted) abort();
  const gate = createGate(Math.max(1, config.maxConcurrentDownloads || 3));
  const fetched = new Map<string, Promise<void>>();
  const fetchLayer = (layer: Descriptor): Promise<void> => {
    const id = shortId(layer.digest);
    let running = fetched.get(layer.digest);
    if (!running) {
      sink.line({ status: "Pulling fs layer", progressDetail: {}, id });
      running = gate(() => download(core, repository, layer, source, lease, sink, stop.signal));
      // whoever waits for it sees the failure; the others stop
      running.catch((error: unknown) => stop.abort(error));
      fetched.set(layer.digest, running);
    }
    return running;
  };
  try {
    manifest.layers.forEach((layer, i) => {
      if (i < present) sink.line({ status: "Already exists", progressDetail: {}, id: shortId(layer.digest) });
    });
    const waiting = manifest.layers.map((layer, i) => (i < present ? undefined : fetchLayer(layer)));
    await unpackLayers(
      manager,
      manifest.layers,
      diffIds,
      lease,
      {
        ready: async (i) => waiting[i],
        onStart: (i) => sink.bar(shortId(manifest.layers[i]!.digest), "Extracting", 0, manifest.layers[i]!.size),
        onDone(i) {
          const id = shortId(manifest.layers[i]!.digest);
          sink.bar(id, "Extracting", manifest.layers[i]!.size, manifest.layers[i]!.size);
          sink.line({ status: "Pull complete", progressDetail: {}, id });
        },
      },
      stop.signal,
    );
    await Promise.all(waiting);
  } catch (error) {
    stop.abort(error);
    await Promise.allSettled(fetched.values());
    throw stop.signal.reason instanceof Error && !signal.aborted ? stop.signal.reason : error;
  } finally {
    signal.removeEventListener("abort", abort);
  }
  const snapshot = chain.length ? { [`containerd.io/gc.ref.snapshot.${manager.snapshotter}`]: chain.at(-1)! } : {};
  await writeBlob(manager, { descriptor: manifest.config, labels: { ...source, ...snapshot }, lease }, async function* (offset) {
    yield configBytes.subarray(offset);
  });
  await writeBytes(
    manager,
    image.bytes,
    image.descriptor.mediaType,
    { ...source, ...childLabels("manifest", [manifest.config, ...manifest.layers]) },
    lease,
  );
  if (children)
    await writeBytes(manager, top.bytes, top.descriptor.mediaType, { ...source, ...childLabels("index", [image.descriptor]) }, lease);
}

/** One layer into the content store. */
async function download(
  core: Core,
  repository: Repository,
  layer: Descriptor,
  labels: Record<string, string>,
  lease: Lease,
  sink: ProgressSink,
  signal: AbortSignal,
): Promise<void> {
  const id = shortId(layer.digest);
  signal.throwIfAborted();
  await writeBlob(
    core.engine.manager,
    { descriptor: layer, labels, lease, signal, onProgress: (bytes) => sink.bar(id, "Downloading", bytes, layer.size) },
    (offset) =>
      repository.stream(layer, {
        offset,
        signal,
        verify: false,
        onRetry: (_, delay) =>
          sink.line({ status: `Retrying in ${Math.max(1, Math.round(delay / 1000))} seconds`, progressDetail: {}, id }),
      }),
  );
  sink.line({ status: "Verifying Checksum", progressDetail: {}, id });
  sink.line({ status: "Download complete", progressDetail: {}, id });
}
