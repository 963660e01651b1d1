// POST /images/{name}/push: one tag, or all of a repository.

import type { Credentials } from "../../distribution/index.ts";
import { openRepository, RegistryError, type Repository } from "../../distribution/index.ts";
import { notFound, unknown } from "../../lib/errors.ts";
import { collecting } from "../../lib/garbage.ts";
import { createLimit } from "../../lib/limit.ts";
import {
  choosePlatform,
  type Descriptor,
  familiarName,
  familiarReference,
  formatPlatform,
  formatReference,
  isForeign,
  MAX_MANIFEST,
  type Manifest,
  nameOf,
  type Platform,
  parseManifest,
  type Reference,
} from "../../oci/index.ts";
import { hasBlob, type Lease, labelBlob, readBlob, streamBlob, withLease } from "./content.ts";
import { type Core, publish, referencesOf, setName } from "./core.ts";
import { packImage } from "./pack.ts";
import { type ProgressSink, shortId } from "./progress.ts";

export interface PushOptions {
  /** Without a tag and a digest: all tags. */
  reference: Reference;
  /** Only this platform's image, under the name. */
  platform: Platform | undefined;
  credentials: Credentials | undefined;
  signal: AbortSignal;
}

interface Document {
  descriptor: Descriptor;
  bytes: Uint8Array;
  manifest: Manifest | undefined;
}

const MAX_DEPTH = 4;
/** After so many bytes of a layer garbage is collected. */
const GARBAGE = 32 << 20;

/** A manifest or an index with all below it, children first; undefined where something of it is not here. */
async function wholeTree(core: Core, descriptor: Descriptor, depth = 0): Promise<Document[] | undefined> {
  const { manager } = core.engine;
  if (depth > MAX_DEPTH || !(await hasBlob(manager, descriptor.digest))) return undefined;
  const bytes = await readBlob(manager, descriptor.digest, MAX_MANIFEST);
  const { manifest, index } = parseManifest(bytes, descriptor.mediaType);
  const out: Document[] = [];
  for (const child of index?.manifests ?? []) {
    const below = await wholeTree(core, child, depth + 1);
    if (!below) return undefined;
    out.push(...below);
  }
  if (manifest)
    for (const blob of [manifest.config, ...manifest.layers])
      if (!isForeign(blob) && !(await hasBlob(manager, blob.digest))) return undefined;
  return [...out, { descriptor, bytes, manifest }];
}

/** What is pushed under the name, the last one being what it names: the index where all of it is here, else the one image that is. */
async function whatToPush(core: Core, reference: Reference, platform: Platform | undefined, lease: Lease): Promise<Document[]> {
  const found = await core.catalogue.byName(formatReference(reference));
  if (!found) throw notFound(`An image does not exist locally with the tag: ${familiarName(reference)}`);
  const { target, manifestDescriptor, config } = found.content;
  const one = async (descriptor: Descriptor) => [await packImage(core, descriptor, lease)];
  if (platform) {
    const bytes = await readBlob(core.engine.manager, target.digest, MAX_MANIFEST);
    const { index } = parseManifest(bytes, target.mediaType);
    const entries = index?.manifests ?? [{ ...target, platform: config }];
    const chosen = choosePlatform(
      entries.filter((entry) => entry.platform),
      platform,
    );
    if (!chosen || !(await wholeTree(core, chosen)))
      throw notFound(
        `image with reference ${familiarReference(reference)} was found but does not provide the specified platform (${formatPlatform(platform)})`,
      );
    return one({ mediaType: chosen.mediaType, digest: chosen.digest, size: chosen.size });
  }
  const whole = target.digest === manifestDescriptor.digest ? undefined : await wholeTree(core, target);
  return whole ?? one(manifestDescriptor);
}

/** Other repositories of the same registry that are known to have a blob. */
async function sourcesOf(core: Core, digest: string, reference: Reference): Promise<{ label: string; paths: string[] }> {
  const { info } = await core.engine.manager.content.info({ digest });
  const label = `containerd.io/distribution.source.${reference.domain}`;
  return { label, paths: info?.labels[label]?.split(",").filter(Boolean) ?? [] };
}

async function pushTag(core: Core, options: PushOptions, sink: ProgressSink): Promise<void> {
  const { reference, signal } = options;
  const { manager } = core.engine;
  await withLease(manager, async (lease) => {
    const documents = await whatToPush(core, reference, options.platform, lease);
    const repository = openRepository(reference, core.registry, options.credentials, "push");
    await pushBlobs(core, repository, documents, sink, signal);
    const top = documents.at(-1)!.descriptor;
    for (const { descriptor, bytes } of documents)
      await repository.pushManifest(descriptor, bytes, descriptor.digest === top.digest ? reference.tag : undefined, signal);
    await setName(core, `${nameOf(reference)}@${top.digest}`, top, lease);
    const tag = reference.tag ?? top.digest;
    sink.line({ status: `${tag}: digest: ${top.digest} size: ${top.size}` });
    sink.line({ progressDetail: {}, aux: { Tag: tag, Digest: top.digest, Size: top.size } });
  });
  publish(core, "push", familiarReference(reference), familiarName(reference));
}

export interface TargetOptions extends Omit<PushOptions, "platform"> {
  /** Hears of both parts of the work. */
  part(what: "layers" | "manifest", work: () => Promise<void>): Promise<void>;
}

/** Pushes what a descriptor leads to, all of which is here, whatever it is called here; without a tag under its digest alone. No names are given to it. */
export async function pushTarget(core: Core, target: Descriptor, options: TargetOptions, sink: ProgressSink): Promise<void> {
  const { reference, credentials, signal, part } = options;
  const documents = await wholeTree(core, target);
  if (!documents) throw notFound(`content of ${target.digest} is missing`);
  const repository = openRepository(reference, core.registry, credentials, "push");
  try {
    await part("layers", () => pushBlobs(core, repository, documents, sink, signal));
    await part("manifest", async () => {
      for (const { descriptor, bytes } of documents)
        await repository.pushManifest(descriptor, bytes, descriptor.digest === target.digest ? reference.tag : undefined, signal);
    });
  } catch (error) {
    if (error instanceof RegistryError) throw unknown(error.message, error);
    throw error;
  }
  publish(core, "push", familiarReference(reference), familiarName(reference));
}

async function pushBlobs(
  core: Core,
  repository: Repository,
  documents: Document[],
  sink: ProgressSink,
  signal: AbortSignal,
): Promise<void> {
  const { manager } = core.engine;
  const { reference } = repository;
  const manifests = documents.flatMap(({ manifest }) => (manifest ? [manifest] : []));
  const layers = [...new Map(manifests.flatMap((manifest) => manifest.layers).map((layer) => [layer.digest, layer])).values()];
  const configs = [...new Map(manifests.map(({ config }) => [config.digest, config])).values()];
  for (const layer of layers) sink.line({ status: "Preparing", progressDetail: {}, id: shortId(layer.digest) });
  const places = Math.max(1, core.engine.config.maxConcurrentUploads || 5);
  for (const layer of layers.slice(places)) sink.line({ status: "Waiting", progressDetail: {}, id: shortId(layer.digest) });
  const limit = createLimit(places);
  // The first failure ends the others, and is the one to tell.
  const stop = new AbortController();
  const both = AbortSignal.any([signal, stop.signal]);
  const pushLayer = async (layer: Descriptor) => {
    both.throwIfAborted();
    const id = shortId(layer.digest);
    if (isForeign(layer)) return sink.line({ status: "Skipped foreign layer", progressDetail: {}, id });
    const { label, paths } = await sourcesOf(core, layer.digest, reference);
    const from = paths.find((path) => path !== reference.path);
    const result = await repository.push(layer, () => collecting(streamBlob(manager, layer.digest), GARBAGE), {
      signal: both,
      onProgress: (bytes) => sink.bar(id, "Pushing", bytes, layer.size),
      ...(from ? { from } : {}),
    });
    const status = { pushed: "Pushed", exists: "Layer already exists", mounted: `Mounted from ${from}` }[result];
    sink.line({ status, progressDetail: {}, id });
    if (!paths.includes(reference.path)) await labelBlob(manager, layer.digest, { [label]: [...paths, reference.path].join(",") });
  };
  const pushConfig = (config: Descriptor) => repository.push(config, () => streamBlob(manager, config.digest), { signal: both });
  const work = [...layers.map((layer) => limit(() => pushLayer(layer))), ...configs.map((config) => limit(() => pushConfig(config)))];
  for (const one of work) one.catch((error: unknown) => stop.abort(error));
  await Promise.allSettled(work);
  signal.throwIfAborted();
  stop.signal.throwIfAborted();
}

export async function push(core: Core, options: PushOptions, sink: ProgressSink): Promise<void> {
  const { reference } = options;
  let tags = [reference];
  if (reference.tag === undefined && reference.digest === undefined) {
    const name = nameOf(reference);
    const all = (await core.catalogue.list()).flatMap(referencesOf).map((one) => one.reference);
    tags = all
      .filter((one) => one.tag !== undefined && one.digest === undefined && nameOf(one) === name)
      .sort((a, b) => (a.tag! < b.tag! ? -1 : 1));
    if (tags.length === 0) throw notFound(`An image does not exist locally with the tag: ${familiarName(reference)}`);
  } else if (!(await core.catalogue.byName(formatReference(reference))))
    throw notFound(`An image does not exist locally with the tag: ${familiarName(reference)}`);
  sink.line({ status: `The push refers to repository [${nameOf(reference)}]` });
  try {
    for (const tag of tags) await pushTag(core, { ...options, reference: tag }, sink);
  } catch (error) {
    // what the registry refuses is no 404 or 403 of the engine
    if (error instanceof RegistryError) throw unknown(error.message, error);
    throw error;
  }
}
