// POST /images/create?fromImage=: a reference becomes content, snapshots and a name. Layers are fetched several at a time and unpacked in their order while
// others still come.
import { type Credentials, noMatchingPlatform, openRepository, pullFailure, type Repository } from "../../distribution/index.ts";
import { failedPrecondition, messageOf } from "../../lib/errors.ts";
import {
  chainIds,
  choosePlatform,
  type Descriptor,
  familiarName,
  familiarReference,
  fitness,
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
import { fetchLayers } from "./layers.ts";
import type { ProgressSink } from "./progress.ts";
import { hasSnapshot } from "./unpack.ts";

export interface PullOptions {
  reference: Reference;
  platform: Platform | undefined;
  credentials: Credentials | undefined;
  signal: AbortSignal;
}

export interface Resolved {
  /** What the reference names. */
  top: { descriptor: Descriptor; bytes: Uint8Array };
  /** The image for the platform; the same as `top` where that is no index. */
  image: { descriptor: Descriptor; bytes: Uint8Array; manifest: Manifest };
  /** All entries of the index. */
  children: Descriptor[] | undefined;
}

/** What a reference leads to in its registry, by manifests alone. */
export async function resolve(repository: Repository, options: Pick<PullOptions, "reference" | "platform" | "signal">): Promise<Resolved> {
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

/** The digest that a tag has here and in the registry, where the image is here as a whole: a question that no registry counts. */
async function unchanged(core: Core, repository: Repository, signal: AbortSignal): Promise<string | undefined> {
  const { reference } = repository;
  if (reference.tag === undefined || reference.digest !== undefined) return undefined;
  const here = await core.catalogue.byName(formatReference(reference));
  if (!here) return undefined;
  const { target, manifest, chainId } = here.content;
  const { manager } = core.engine;
  // Another platform than ours may have been asked for the last time.
  if (fitness(hostPlatform(), here.content.config) === 0 || (chainId !== "" && !(await hasSnapshot(manager, chainId)))) return undefined;
  for (const blob of [manifest.config, ...manifest.layers]) if (!(await hasBlob(manager, blob.digest))) return undefined;
  if (!(await core.catalogue.get(`${nameOf(reference)}@${target.digest}`))) return undefined;
  // whatever goes wrong with the question, the pull proper says
  const there = await repository.resolve(reference.tag, signal).catch(() => undefined);
  signal.throwIfAborted();
  return there === target.digest ? there : undefined;
}

/** Pulls; reports lines. Throws before the first line where the image is not to be had. */
export async function pull(core: Core, options: PullOptions, sink: ProgressSink): Promise<void> {
  const { reference, signal } = options;
  const { manager } = core.engine;
  const repository = openRepository(reference, core.registry, options.credentials);
  const pulling = () => sink.line({ status: `Pulling from ${reference.path}`, id: reference.tag ?? reference.digest! });
  const same = options.platform ? undefined : await unchanged(core, repository, signal);
  if (same) {
    pulling();
    sink.line({ status: `Digest: ${same}` });
    sink.line({ status: `Status: Image is up to date for ${familiarReference(reference)}` });
    publish(core, "pull", familiarReference(reference), familiarName(reference));
    return;
  }
  let resolved: Resolved;
  try {
    resolved = await resolve(repository, options);
  } catch (error) {
    throw pullFailure(error, reference);
  }
  const { top, image } = resolved;
  pulling();
  const before = (await core.catalogue.byName(formatReference(reference)))?.content.manifestDescriptor.digest;
  const actual = await withLease(manager, async (lease) => {
    const platform = await fetchImage(core, repository, resolved, options.platform, lease, sink, signal);
    // A name for a platform that is not ours leads to that platform's manifest: the index would mean ours.
    const foreign =
      options.platform && resolved.children && choosePlatform(resolved.children, hostPlatform())?.digest !== image.descriptor.digest;
    const target = foreign ? image.descriptor : top.descriptor;
    await tagImage(core, reference, target, lease);
    if (reference.digest === undefined) await setName(core, `${nameOf(reference)}@${top.descriptor.digest}`, top.descriptor, lease);
    return platform;
  });
  const familiar = familiarReference(reference);
  // An image that is no index is taken whatever it was made for, as Docker does.
  if (options.platform && fitness(options.platform, actual) === 0)
    sink.line({
      status: `WARNING: image with reference ${familiar} was found but its platform (${formatPlatform(actual)}) does not match the specified platform (${formatPlatform(options.platform)})`,
    });
  sink.line({ status: `Digest: ${top.descriptor.digest}` });
  sink.line({
    status:
      before === image.descriptor.digest ? `Status: Image is up to date for ${familiar}` : `Status: Downloaded newer image for ${familiar}`,
  });
  publish(core, "pull", familiar, familiarName(reference));
}

/** Pulls every tag of a repository. */
export async function pullAll(core: Core, options: PullOptions, sink: ProgressSink): Promise<void> {
  const { digest: _, tag: __, ...repository } = options.reference;
  let tags: string[];
  try {
    tags = await openRepository(options.reference, core.registry, options.credentials).tags(options.signal);
  } catch (error) {
    throw pullFailure(error, options.reference);
  }
  for (const tag of tags) await pull(core, { ...options, reference: { ...repository, tag } }, sink);
}

async function fetchImage(
  core: Core,
  repository: Repository,
  resolved: Resolved,
  wanted: Platform | undefined,
  lease: Lease,
  sink: ProgressSink,
  signal: AbortSignal,
): Promise<Platform> {
  const { manager } = core.engine;
  const { top, image, children } = resolved;
  const { manifest } = image;
  const source = { [`containerd.io/distribution.source.${repository.reference.domain}`]: repository.reference.path };
  for (const layer of manifest.layers)
    if (!isLayerType(layer.mediaType) && layer.mediaType !== "")
      throw failedPrecondition(`unsupported layer media type ${layer.mediaType}`);

  let configBytes: Uint8Array;
  if (await hasBlob(manager, manifest.config.digest)) configBytes = await readBlob(manager, manifest.config.digest, MAX_CONFIG);
  else configBytes = await repository.blob(manifest.config, MAX_CONFIG, signal);
  const { diffIds, os, architecture, variant } = parseImageConfig(configBytes);
  if (wanted && os !== wanted.os)
    throw failedPrecondition(
      `cannot download image with operating system ${JSON.stringify(os)} when requesting ${JSON.stringify(wanted.os)}`,
    );
  if (diffIds.length !== manifest.layers.length) throw failedPrecondition("layers from manifest don't match image configuration");

  await fetchLayers(core, { repository, layers: manifest.layers, diffIds, labels: source, lease, sink, signal });

  const chain = chainIds(diffIds);
  const snapshot = chain.length ? { [`containerd.io/gc.ref.snapshot.${manager.snapshotter}`]: chain.at(-1)! } : {};
  await writeBlob(manager, { descriptor: manifest.config, labels: { ...source, ...snapshot }, lease }, async function* (offset) {
    yield configBytes.subarray(offset);
  });
  const labels = { ...source, ...childLabels("manifest", [manifest.config, ...manifest.layers]) };
  await writeBytes(manager, image.bytes, image.descriptor.mediaType, labels, lease);
  if (children) {
    const about = await fetchAttestations(core, repository, children, image.descriptor, source, lease, signal);
    const labels = { ...source, ...childLabels("index", [image.descriptor, ...about]) };
    await writeBytes(manager, top.bytes, top.descriptor.mediaType, labels, lease);
  }
  return { os, architecture, ...(variant ? { variant } : {}) };
}

const MAX_ATTESTATIONS = 64 << 20;

/**
 * What an index says about the image (BuildKit's attestation manifests: provenance, SBOM): kept, so that an image of one platform can be pushed and saved as it
 * was. None of it is needed: what can't be had is left out.
 */
async function fetchAttestations(
  core: Core,
  repository: Repository,
  children: readonly Descriptor[],
  image: Descriptor,
  source: Record<string, string>,
  lease: Lease,
  signal: AbortSignal,
): Promise<Descriptor[]> {
  const { manager } = core.engine;
  const kept: Descriptor[] = [];
  for (const child of children) {
    if (child.annotations?.["vnd.docker.reference.digest"] !== image.digest) continue;
    try {
      const { bytes } = await repository.manifest(child, signal);
      const { manifest } = parseManifest(bytes, child.mediaType);
      if (!manifest) continue;
      const blobs = [manifest.config, ...manifest.layers];
      if (blobs.reduce((sum, { size }) => sum + size, 0) > MAX_ATTESTATIONS) continue;
      for (const descriptor of blobs)
        if (!(await hasBlob(manager, descriptor.digest)))
          await writeBlob(manager, { descriptor, labels: source, lease, signal }, (offset) =>
            repository.stream(descriptor, { offset, signal, verify: false }),
          );
      await writeBytes(manager, bytes, manifest.mediaType, { ...source, ...childLabels("manifest", blobs) }, lease);
      kept.push(child);
    } catch (error) {
      signal.throwIfAborted();
      core.engine.log("warn", "attestations of the image are left out", { digest: child.digest, error: messageOf(error) });
    }
  }
  return kept;
}
