// Images for the builder: base images by reference, pulled where they are not here, and the image that was built, written and named.

import type { ImageConfig } from "../../api/types.ts";
import type { BaseImage, BuiltImage, Lease } from "../../build/index.ts";
import { type Credentials, noMatchingPlatform, openRepository, pullFailure } from "../../distribution/index.ts";
import { failedPrecondition, isKind, notFound } from "../../lib/errors.ts";
import {
  asImageId,
  choosePlatform,
  familiarReference,
  fitness,
  formatPlatform,
  formatReference,
  hostPlatform,
  MAX_CONFIG,
  MAX_MANIFEST,
  normalise,
  type Platform,
  parseImageConfig,
  parseManifest,
  parsePlatform,
  parseReference,
  type Reference,
  withDefaultTag,
} from "../../oci/index.ts";
import type { CatalogueEntry, Content } from "../images/catalogue.ts";
import { type Lease as ImageLease, readBlob, withLease } from "../images/content.ts";
import { type Core, keepDangling, tagImage } from "../images/core.ts";
import { ensureUnpacked } from "../images/index.ts";
import { makeImage } from "../images/make.ts";
import type { ProgressSink } from "../images/progress.ts";
import type { Resolved } from "../images/pull.ts";
import { hasSnapshot } from "../images/unpack.ts";

export interface PullSettings {
  /** Also where the image is here. */
  always: boolean;
  /** Only what is here: NotFound where it is not. */
  never?: boolean;
  /** By registry, as the client's configuration has them. */
  credentials(domain: string): Credentials | undefined | Promise<Credentials | undefined>;
  sink: ProgressSink;
  signal: AbortSignal;
}

function baseOf(entry: CatalogueEntry): BaseImage {
  const { manifest, config } = entry.content;
  const { os, architecture, variant } = config;
  return {
    id: entry.id,
    digest: entry.content.target.digest,
    config: config.config as ImageConfig,
    layers: manifest.layers.map((descriptor, i) => ({ descriptor, diffId: config.diffIds[i]! })),
    history: config.history,
    platform: { os, architecture, ...(variant ? { variant } : {}) },
    author: config.author ?? "",
  };
}

function fits(entry: CatalogueEntry, platform: string | undefined): boolean {
  if (platform === undefined) return true;
  const { os, architecture, variant } = entry.content.config;
  const have = normalise({ os, architecture, ...(variant ? { variant } : {}) });
  return choosePlatform([{ platform: have }], parsePlatform(platform)) !== undefined || formatPlatform(have) === platform;
}

/** An image that is here, by whatever the text names. */
async function findHere(core: Core, ref: string, platform: string | undefined): Promise<CatalogueEntry | undefined> {
  let entry: CatalogueEntry | undefined;
  try {
    entry = await core.catalogue.find(ref);
  } catch (error) {
    if (!isKind(error, "NotFound")) throw error;
    // "name:tag@digest": whatever image has this digest now
    const { digest } = parseReference(ref);
    entry = digest === undefined ? undefined : (await core.catalogue.list()).find(({ content }) => content.target.digest === digest);
  }
  return entry && !fits(entry, platform) ? otherPlatform(core, entry, parsePlatform(platform!)) : entry;
}

export async function resolveBase(core: Core, ref: string, platform: string | undefined, settings: PullSettings): Promise<BaseImage> {
  let entry = settings.always && asImageId(ref).digest === undefined ? undefined : await findHere(core, ref, platform);
  if (!entry && settings.never) throw notFound(`No such image: ${ref}`);
  entry ??= await fetchBase(
    core,
    withDefaultTag(parseReference(ref)),
    platform === undefined ? undefined : parsePlatform(platform),
    settings,
  );
  await ensureUnpacked(core, entry);
  return baseOf(entry);
}

type FetchBase = (sink: ProgressSink, signal: AbortSignal) => Promise<void>;

/**
 * The same, but of an image that is not here only manifests and config are read; it is lazy then, and `fetch` brings its layers and gives it the names that a pull
 * gives.
 */
export async function lookUpBase(
  core: Core,
  ref: string,
  platform: string | undefined,
  settings: Omit<PullSettings, "sink">,
): Promise<{ image: BaseImage; fetch: FetchBase | undefined }> {
  const entry = settings.always && asImageId(ref).digest === undefined ? undefined : await findHere(core, ref, platform);
  if (entry) {
    await ensureUnpacked(core, entry);
    return { image: baseOf(entry), fetch: undefined };
  }
  if (settings.never) throw notFound(`No such image: ${ref}`);
  const reference = withDefaultTag(parseReference(ref));
  const wanted = platform === undefined ? undefined : parsePlatform(platform);
  const { pull, resolve } = await import("../images/pull.ts");
  const credentials = await settings.credentials(reference.domain);
  const repository = openRepository(reference, core.registry, credentials);
  let found: Resolved;
  let raw: Uint8Array;
  try {
    found = await resolve(repository, { reference, platform: wanted, signal: settings.signal });
    raw = await repository.blob(found.image.manifest.config, MAX_CONFIG, settings.signal);
  } catch (error) {
    throw pullFailure(error, reference);
  }
  const { top, image } = found;
  const { manifest } = image;
  const config = parseImageConfig(raw);
  if (config.diffIds.length !== manifest.layers.length) throw failedPrecondition("layers from manifest don't match image configuration");
  const { tag: _, digest: __, ...place } = reference;
  const foreign = wanted !== undefined && fitness(hostPlatform(), wanted) === 0;
  // It may be here under another name, or be the one that the name has meant before.
  const known = await core.catalogue.open(image.descriptor);
  if (known && (known.chainId === "" || (await hasSnapshot(core.engine.manager, known.chainId)))) {
    const { signal } = settings;
    await pull(
      core,
      { reference: foreign ? { ...place, digest: image.descriptor.digest } : reference, platform: wanted, credentials, signal },
      quiet,
    );
    return { image: { ...baseOf(entryOf(known)), digest: top.descriptor.digest }, fetch: undefined };
  }
  const { os, architecture, variant } = config;
  return {
    image: {
      id: manifest.config.digest,
      digest: top.descriptor.digest,
      config: config.config as ImageConfig,
      layers: manifest.layers.map((descriptor, i) => ({ descriptor, diffId: config.diffIds[i]! })),
      history: config.history,
      platform: { os, architecture, ...(variant ? { variant } : {}) },
      author: config.author ?? "",
      raw,
      lazy: true,
    },
    // By its digest: the tag may mean something else by then.
    async fetch(sink, signal) {
      const digest = foreign ? image.descriptor.digest : top.descriptor.digest;
      const pinned = reference.digest !== undefined && !foreign;
      await pull(core, { reference: pinned ? reference : { ...place, digest }, platform: wanted, credentials, signal }, sink);
      if (!pinned && !foreign) await withLease(core.engine.manager, (lease) => tagImage(core, reference, top.descriptor, lease));
    },
  };
}

const quiet: ProgressSink = { line() {}, bar() {} };

const entryOf = (content: Content): CatalogueEntry => ({ id: content.manifest.config.digest, content, names: [] });

/** The image for a platform among those that a name here leads to. */
async function otherPlatform(core: Core, entry: CatalogueEntry, platform: Platform): Promise<CatalogueEntry | undefined> {
  const { target } = entry.content;
  const { index } = parseManifest(await readBlob(core.engine.manager, target.digest, MAX_MANIFEST), target.mediaType);
  const child = index && choosePlatform(index.manifests, platform);
  const content = child && (await core.catalogue.open(child));
  return content && entryOf(content);
}

/**
 * Pulls. An image for another platform than this machine's gets no name but its digest's: what the tag means to everyone else must not change because a build
 * was for another machine.
 */
async function fetchBase(
  core: Core,
  reference: Reference,
  platform: Platform | undefined,
  settings: PullSettings,
): Promise<CatalogueEntry> {
  const { pull } = await import("../images/pull.ts");
  const { signal, sink } = settings;
  const credentials = await settings.credentials(reference.domain);
  if (!platform || fitness(hostPlatform(), platform) > 0) {
    await pull(core, { reference, platform, credentials, signal }, sink);
    return core.catalogue.find(formatReference(reference));
  }
  const repository = openRepository(reference, core.registry, credentials);
  const top = await repository.manifest(reference.digest ?? reference.tag!, signal).catch((error: unknown) => {
    throw pullFailure(error, reference);
  });
  const { index } = parseManifest(top.bytes, top.descriptor.mediaType);
  const descriptor = index ? choosePlatform(index.manifests, platform) : top.descriptor;
  if (!descriptor) throw noMatchingPlatform(familiarReference(reference), formatPlatform(platform));
  const known = await core.catalogue.open(descriptor);
  if (known) return entryOf(known);
  const { tag: _, ...repositoryOnly } = reference;
  await pull(core, { reference: { ...repositoryOnly, digest: descriptor.digest }, platform, credentials, signal }, sink);
  const content = await core.catalogue.open(descriptor);
  if (!content) throw notFound(`No such image: ${familiarReference(reference)}`);
  return entryOf(content);
}

/** Writes config and manifest and gives the image its names; answers its id. */
export async function storeImage(core: Core, image: BuiltImage, names: readonly Reference[], lease: Lease): Promise<string> {
  const made = await makeImage(
    core,
    {
      config: image.config as Record<string, unknown>,
      diffIds: image.layers.map(({ diffId }) => diffId),
      layers: image.layers.map(({ descriptor }) => descriptor),
      history: image.history,
      author: image.author,
      comment: "",
      platform: image.platform,
      ...(image.extra ? { extra: image.extra } : {}),
    },
    lease as ImageLease,
  );
  for (const reference of names) {
    await tagImage(core, reference, made.target, lease as ImageLease);
    core.engine.events.publish("image", "tag", made.id, { name: familiarReference(reference) });
  }
  if (names.length === 0) await keepDangling(core, made.target);
  return made.id;
}
