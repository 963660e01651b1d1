// POST /images/load: an archive of `docker save` (any version since 1.10), or an OCI image layout as a tar. Docker's newer archives are both: the layout then
// counts, as it has all platforms and the digests, and manifest.json gives further names.
import type { Readable } from "node:stream";
import { invalidArgument, notFound } from "../../lib/errors.ts";
import { createLimit } from "../../lib/limit.ts";
import {
  blobPath,
  type Compression,
  chainIds,
  choosePlatform,
  createDigester,
  type Descriptor,
  type Digest,
  detectCompression,
  digestOf,
  familiarReference,
  formatPlatform,
  hostPlatform,
  layerType,
  MAX_CONFIG,
  MAX_MANIFEST,
  type Manifest,
  MEDIA,
  type Platform,
  parseDescriptor,
  parseImageConfig,
  parseManifest,
  parseTagged,
} from "../../oci/index.ts";
import { type Archive, openArchive } from "./archive.ts";
import { childLabels, type Lease, withLease, writeBlob, writeBytes } from "./content.ts";
import { type Core, keepDangling, publish, tagImage } from "./core.ts";
import { alone, commitInOrder } from "./layers.ts";
import { type ProgressSink, shortId } from "./progress.ts";
import { createSpool } from "./spool.ts";
import { unpackedLayers, unpackLayers } from "./unpack.ts";

const MAX_IMAGES = 1000;
const MAX_DEPTH = 4;
/** Layers that are unpacked side by side. */
const AT_ONCE = 3;

export interface LoadOptions {
  quiet: boolean;
  /** Of an index only this one. */
  platform: Platform | undefined;
  signal: AbortSignal;
}

/** A manifest, the names of its files in the archive, and what the collector needs to know of it. */
interface FoundManifest {
  descriptor: Descriptor;
  manifest: Manifest;
  config: string;
  layers: string[];
}

/** A document to keep as it is. */
interface Document {
  mediaType: string;
  labels: Record<string, string>;
  bytes(): Promise<Uint8Array>;
}

interface Found {
  /** What a name shall lead to. */
  target: Descriptor;
  /** The image that is unpacked, and others that are kept. */
  main: FoundManifest;
  others: FoundManifest[];
  tags: string[];
  /** Manifests and indexes. */
  documents: Document[];
}

const json = (bytes: Uint8Array, name: string): unknown => {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw invalidArgument(`${name}: ${error instanceof Error ? error.message : String(error)}`);
  }
};

async function digestFile(archive: Archive, name: string): Promise<{ digest: Digest; size: number; mediaType: string }> {
  let compression: Compression = "none";
  for await (const piece of archive.pieces(archive.find(name))) {
    compression = detectCompression(piece);
    break;
  }
  // Images have no such layers; Docker takes them in archives, and keeps what is in them.
  if (compression === "bzip2" || compression === "xz") {
    await archive.expand(name);
    compression = "none";
  }
  const file = archive.find(name);
  const digester = createDigester();
  for await (const piece of archive.pieces(file)) digester.update(piece);
  return { digest: digester.digest(), size: file.size, mediaType: layerType(compression) };
}

interface SavedImage {
  config: string;
  configBytes: Uint8Array;
  tags: string[];
  layers: string[];
}

/** manifest.json of `docker save`. */
async function savedImages(archive: Archive): Promise<SavedImage[]> {
  const entries = json(await archive.read("manifest.json", MAX_MANIFEST), "manifest.json");
  if (!Array.isArray(entries) || entries.length > MAX_IMAGES) throw invalidArgument("manifest.json is not a list of images");
  const out: SavedImage[] = [];
  for (const entry of entries as { Config?: unknown; RepoTags?: unknown; Layers?: unknown }[]) {
    const layers = entry?.Layers ?? [];
    if (typeof entry?.Config !== "string" || !Array.isArray(layers) || layers.some((file) => typeof file !== "string"))
      throw invalidArgument("manifest.json: an image lacks Config or Layers");
    const tags = Array.isArray(entry.RepoTags) ? entry.RepoTags.filter((tag): tag is string => typeof tag === "string") : [];
    out.push({ config: entry.Config, configBytes: await archive.read(entry.Config, MAX_CONFIG), tags, layers: layers as string[] });
  }
  return out;
}

/** Configs and layers by file name: the manifest is made here. */
async function dockerImages(archive: Archive): Promise<Found[]> {
  const out: Found[] = [];
  const digests = new Map<string, { digest: Digest; size: number; mediaType: string }>();
  for (const saved of await savedImages(archive)) {
    const { diffIds } = parseImageConfig(saved.configBytes);
    if (diffIds.length !== saved.layers.length)
      throw invalidArgument(`invalid manifest, layers length mismatch: expected ${diffIds.length}, got ${saved.layers.length}`);
    const layers: Descriptor[] = [];
    for (const file of saved.layers) {
      const known = digests.get(file) ?? (await digestFile(archive, file));
      digests.set(file, known);
      layers.push(known);
    }
    const mediaType = MEDIA.ociManifest;
    const config = { mediaType: MEDIA.ociConfig, digest: digestOf(saved.configBytes), size: saved.configBytes.length };
    const manifest: Manifest = { mediaType, config, layers };
    const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, config, layers }));
    const target = { mediaType, digest: digestOf(bytes), size: bytes.length };
    out.push({
      target,
      main: { descriptor: target, manifest, config: saved.config, layers: saved.layers },
      others: [],
      tags: saved.tags,
      documents: [{ mediaType, labels: childLabels("manifest", [config, ...layers]), bytes: async () => bytes }],
    });
  }
  return out;
}

const readDocument = async (archive: Archive, descriptor: Descriptor): Promise<Uint8Array> => {
  const bytes = await archive.read(blobPath(descriptor.digest), MAX_MANIFEST);
  if (digestOf(bytes) !== descriptor.digest) throw invalidArgument(`${blobPath(descriptor.digest)} has another digest than its name says`);
  return bytes;
};

/** A manifest or an index with what is there of it. */
async function layoutTree(
  archive: Archive,
  top: Descriptor,
  found: Pick<Found, "documents"> & { manifests: FoundManifest[] },
  depth = 0,
): Promise<string> {
  if (depth > MAX_DEPTH) throw invalidArgument("image indexes are nested too deeply");
  if (found.documents.length > MAX_IMAGES) throw invalidArgument(`archive has more than ${MAX_IMAGES} images`);
  const { manifest, index } = parseManifest(await readDocument(archive, top), top.mediaType || undefined);
  const { mediaType } = manifest ?? index;
  let labels: Record<string, string>;
  if (manifest) {
    const layers = manifest.layers.map((layer) => blobPath(layer.digest));
    found.manifests.push({ descriptor: top, manifest, config: blobPath(manifest.config.digest), layers });
    labels = childLabels("manifest", [manifest.config, ...manifest.layers]);
  } else {
    const present = index.manifests.filter((child) => archive.has(blobPath(child.digest)));
    for (const child of present) await layoutTree(archive, child, found, depth + 1);
    labels = childLabels("index", present);
  }
  found.documents.push({ mediaType, labels, bytes: () => readDocument(archive, top) });
  return mediaType;
}

/** Whether a manifest is an image's, rather than what tells about one (attestations). */
const isImage = ({ descriptor }: FoundManifest) => descriptor.platform?.architecture !== "unknown";

/** index.json of an OCI image layout. */
async function layoutImages(archive: Archive, platform: Platform | undefined): Promise<Found[]> {
  const { manifests } = json(await archive.read("index.json", MAX_MANIFEST), "index.json") as { manifests?: unknown };
  if (!Array.isArray(manifests) || manifests.length > MAX_IMAGES) throw invalidArgument("index.json has no manifests");
  const names = new Map<Digest, string[]>();
  if (archive.has("manifest.json")) for (const { configBytes, tags } of await savedImages(archive)) names.set(digestOf(configBytes), tags);
  const out = new Map<string, Found>();
  for (const [i, item] of manifests.entries()) {
    const target = parseDescriptor(item, `index.json manifests[${i}]`);
    const name = target.annotations?.["io.containerd.image.name"] ?? target.annotations?.["org.opencontainers.image.ref.name"] ?? "";
    // a bare tag ("latest") is no name
    const tags = /[/:]/.test(name) ? [name] : [];
    const known = out.get(target.digest);
    if (known) {
      known.tags.push(...tags);
      continue;
    }
    const tree = { documents: [] as Document[], manifests: [] as FoundManifest[] };
    const mediaType = await layoutTree(archive, target, tree);
    const withPlatform = await Promise.all(
      tree.manifests.filter(isImage).map(async (found) => ({ found, platform: await platformOf(archive, found) })),
    );
    const main = (choosePlatform(withPlatform, platform ?? hostPlatform()) ?? (platform ? undefined : withPlatform[0]))?.found;
    if (!main) {
      throw platform
        ? notFound(`the archive has no image for the platform ${formatPlatform(platform)}`)
        : invalidArgument("archive has no image of its index");
    }
    out.set(target.digest, {
      target: { mediaType, digest: target.digest, size: target.size },
      main,
      others: platform ? [] : tree.manifests.filter((one) => one !== main),
      tags,
      documents: tree.documents,
    });
  }
  for (const { main, tags } of out.values())
    for (const tag of names.get(main.manifest.config.digest) ?? [])
      if (!tags.some((one) => familiarReference(parseTagged(one)) === familiarReference(parseTagged(tag)))) tags.push(tag);
  return [...out.values()];
}

async function platformOf(archive: Archive, { descriptor, config }: FoundManifest): Promise<Platform> {
  if (descriptor.platform) return descriptor.platform;
  const { os, architecture, variant } = parseImageConfig(await archive.read(config, MAX_CONFIG));
  return { os, architecture, ...(variant ? { variant } : {}) };
}

async function store(core: Core, archive: Archive, found: Found, lease: Lease, options: LoadOptions, sink: ProgressSink): Promise<void> {
  const { manager } = core.engine;
  const { quiet, signal } = options;
  const { manifest, config, layers } = found.main;
  const configBytes = await archive.read(config, MAX_CONFIG);
  const { diffIds } = parseImageConfig(configBytes);
  const chain = chainIds(diffIds);
  const present = await unpackedLayers(manager, chain);
  const fileOf = (name: string, blob: Descriptor) => {
    const file = archive.find(name);
    if (file.size !== blob.size) throw invalidArgument(`${name} is ${file.size} bytes long, its manifest says ${blob.size}`);
    return file;
  };
  const told = (blob: Descriptor, id: string) => (bytes: number) => quiet || sink.bar(id, "Loading layer", bytes, blob.size);
  const writeFile = async (name: string, blob: Descriptor, id: string) => {
    const file = fileOf(name, blob);
    const options = { descriptor: blob, labels: {}, lease, signal, onProgress: told(blob, id) };
    await writeBlob(manager, options, (offset) => archive.pieces(file, offset));
  };
  const idOf = (i: number) => shortId(diffIds[i] ?? manifest.layers[i]!.digest);
  for (const [i, layer] of manifest.layers.slice(0, present).entries()) await writeFile(layers[i]!, layer, idOf(i));
  const { layers: receiver } = manager;
  if (receiver && diffIds.length === manifest.layers.length) {
    // in one pass each, several at a time
    const limit = createLimit(AT_ONCE);
    const stop = new AbortController();
    const both = AbortSignal.any([signal, stop.signal]);
    const receive = (layer: Descriptor, i: number) =>
      limit(() => {
        both.throwIfAborted();
        const file = fileOf(layers[i]!, layer);
        const open = (offset: number) => archive.pieces(file, offset);
        const options = { descriptor: layer, diffId: diffIds[i]!, lowest: i === 0, labels: {}, lease: lease.id, signal: both, open };
        return alone(layer.digest, () => receiver.receive({ ...options, onReceived: told(layer, idOf(i)) }));
      });
    const work = manifest.layers.map((layer, i) => (i < present ? undefined : receive(layer, i)));
    for (const one of work) one?.catch((error: unknown) => stop.abort(error));
    await commitInOrder(work, chain).catch((error: unknown) => {
      signal.throwIfAborted();
      // the first failure ended the others: it is the one to tell
      throw stop.signal.aborted ? stop.signal.reason : error;
    });
  } else {
    const ready = (i: number) => writeFile(layers[i]!, manifest.layers[i]!, idOf(i));
    await unpackLayers(manager, manifest.layers, diffIds, lease, { ready }, signal);
  }
  const snapshot = chain.length ? { [`containerd.io/gc.ref.snapshot.${manager.snapshotter}`]: chain.at(-1)! } : {};
  await writeBlob(manager, { descriptor: manifest.config, labels: snapshot, lease }, async function* (offset) {
    yield configBytes.subarray(offset);
  });
  for (const other of found.others) {
    const blobs: [string, Descriptor][] = [[other.config, other.manifest.config]];
    for (const [i, layer] of other.manifest.layers.entries()) blobs.push([other.layers[i]!, layer]);
    for (const [name, blob] of blobs) if (archive.has(name)) await writeFile(name, blob, shortId(blob.digest));
  }
  for (const { bytes, mediaType, labels } of found.documents) await writeBytes(manager, await bytes(), mediaType, labels, lease);
}

export async function load(core: Core, body: Readable, options: LoadOptions, sink: ProgressSink): Promise<void> {
  await using spool = createSpool(core.engine);
  const archive = await openArchive(body, spool, options.signal);
  let images: Found[];
  if (archive.has("index.json") && (archive.has("oci-layout") || !archive.has("manifest.json")))
    images = await layoutImages(archive, options.platform);
  else if (archive.has("manifest.json")) images = await dockerImages(archive);
  else if (archive.has("repositories"))
    throw invalidArgument("archives of Docker before 1.10 (with only a repositories file) are not supported");
  else throw invalidArgument("open manifest.json: no such file or directory: the archive holds neither a manifest.json nor an index.json");
  for (const image of images) {
    const id = image.main.manifest.config.digest;
    await withLease(core.engine.manager, async (lease) => {
      await store(core, archive, image, lease, options, sink);
      for (const tag of image.tags) await tagImage(core, parseTagged(tag), image.target, lease);
      if (image.tags.length === 0) await keepDangling(core, image.target);
    });
    for (const tag of image.tags) sink.line({ stream: `Loaded image: ${familiarReference(parseTagged(tag))}\n` });
    if (image.tags.length === 0) sink.line({ stream: `Loaded image ID: ${id}\n` });
    publish(core, "load", id, id);
  }
}
