// POST /images/load: an archive of `docker save` (any version), or an OCI image layout as a tar.
import type { Readable } from "node:stream";
import { invalidArgument } from "../../lib/errors.ts";
import {
  chainIds,
  choosePlatform,
  createDigester,
  type Descriptor,
  type Digest,
  detectCompression,
  digestOf,
  familiarReference,
  hostPlatform,
  layerType,
  MAX_CONFIG,
  MAX_MANIFEST,
  type Manifest,
  MEDIA,
  parseDescriptor,
  parseImageConfig,
  parseManifest,
  parseTagged,
} from "../../oci/index.ts";
import { type Archive, openArchive } from "./archive.ts";
import { childLabels, type Lease, withLease, writeBlob, writeBytes } from "./content.ts";
import { type Core, keepDangling, publish, tagImage } from "./core.ts";
import { type ProgressSink, shortId } from "./progress.ts";
import { createSpool } from "./spool.ts";
import { unpackedLayers, unpackLayers } from "./unpack.ts";

const MAX_IMAGES = 1000;

interface Found {
  /** What a name shall lead to, and the image in it. */
  target: Descriptor;
  manifest: Manifest;
  configBytes: Uint8Array;
  /** Name in the archive of each layer. */
  files: string[];
  tags: string[];
  /** Further documents to keep: the manifest, the index. */
  documents: { bytes: Uint8Array; mediaType: string; labels: Record<string, string> }[];
}

const json = (bytes: Uint8Array, name: string): unknown => {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw invalidArgument(`${name}: ${error instanceof Error ? error.message : String(error)}`);
  }
};

async function digestFile(archive: Archive, name: string): Promise<{ digest: Digest; size: number; mediaType: string }> {
  const file = archive.find(name);
  const digester = createDigester();
  let head: Uint8Array | undefined;
  for await (const piece of archive.pieces(file)) {
    head ??= piece.slice(0, 8);
    digester.update(piece);
  }
  return { digest: digester.digest(), size: file.size, mediaType: layerType(detectCompression(head ?? new Uint8Array(8))) };
}

/** manifest.json of `docker save`: configs and layers by file name. */
async function dockerImages(archive: Archive): Promise<Found[]> {
  const entries = json(await archive.read("manifest.json", MAX_MANIFEST), "manifest.json");
  if (!Array.isArray(entries) || entries.length > MAX_IMAGES) throw invalidArgument("manifest.json is not a list of images");
  const out: Found[] = [];
  const digests = new Map<string, { digest: Digest; size: number; mediaType: string }>();
  for (const entry of entries as { Config?: unknown; RepoTags?: unknown; Layers?: unknown }[]) {
    const files = entry?.Layers ?? [];
    if (typeof entry?.Config !== "string" || !Array.isArray(files) || files.some((file) => typeof file !== "string"))
      throw invalidArgument("manifest.json: an image lacks Config or Layers");
    const configBytes = await archive.read(entry.Config, MAX_CONFIG);
    const config = parseImageConfig(configBytes);
    if (config.diffIds.length !== files.length)
      throw invalidArgument(`invalid manifest, layers length mismatch: expected ${config.diffIds.length}, got ${files.length}`);
    const layers: Descriptor[] = [];
    for (const file of files as string[]) {
      const known = digests.get(file) ?? (await digestFile(archive, file));
      digests.set(file, known);
      layers.push(known);
    }
    const manifest: Manifest = {
      mediaType: MEDIA.ociManifest,
      config: { mediaType: MEDIA.ociConfig, digest: digestOf(configBytes), size: configBytes.length },
      layers,
    };
    const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: manifest.mediaType, config: manifest.config, layers }));
    const tags = Array.isArray(entry.RepoTags) ? entry.RepoTags.filter((tag): tag is string => typeof tag === "string") : [];
    out.push({
      target: { mediaType: manifest.mediaType, digest: digestOf(bytes), size: bytes.length },
      manifest,
      configBytes,
      files: files as string[],
      tags,
      documents: [{ bytes, mediaType: manifest.mediaType, labels: childLabels("manifest", [manifest.config, ...layers]) }],
    });
  }
  return out;
}

const blobName = (digest: Digest) => `blobs/${digest.replace(":", "/")}`;

/** index.json of an OCI image layout; the image for this machine's platform where an entry is an index. */
async function layoutImages(archive: Archive): Promise<Found[]> {
  const { manifests } = json(await archive.read("index.json", MAX_MANIFEST), "index.json") as { manifests?: unknown };
  if (!Array.isArray(manifests) || manifests.length > MAX_IMAGES) throw invalidArgument("index.json has no manifests");
  const out: Found[] = [];
  for (const [i, item] of manifests.entries()) {
    const target = parseDescriptor(item, `index.json manifests[${i}]`);
    const documents: Found["documents"] = [];
    const readDocument = async (descriptor: Descriptor) => {
      const bytes = await archive.read(blobName(descriptor.digest), MAX_MANIFEST);
      if (digestOf(bytes) !== descriptor.digest)
        throw invalidArgument(`${blobName(descriptor.digest)} has another digest than its name says`);
      return bytes;
    };
    let descriptor = target;
    let bytes = await readDocument(descriptor);
    let parsed = parseManifest(bytes, descriptor.mediaType || undefined);
    for (let depth = 0; parsed.index && depth < 3; depth++) {
      const present = parsed.index.manifests.filter((child) => archive.has(blobName(child.digest)));
      const chosen: Descriptor | undefined = choosePlatform(present, hostPlatform()) ?? present[0];
      if (!chosen) throw invalidArgument("archive has no image of its index");
      documents.unshift({ bytes, mediaType: parsed.index.mediaType, labels: childLabels("index", [chosen]) });
      descriptor = chosen;
      bytes = await readDocument(descriptor);
      parsed = parseManifest(bytes, descriptor.mediaType || undefined);
    }
    if (!parsed.manifest) throw invalidArgument("image indexes are nested too deeply");
    const { manifest } = parsed;
    target.mediaType = documents.at(-1)?.mediaType ?? manifest.mediaType;
    documents.unshift({ bytes, mediaType: manifest.mediaType, labels: childLabels("manifest", [manifest.config, ...manifest.layers]) });
    const name = target.annotations?.["io.containerd.image.name"] ?? target.annotations?.["org.opencontainers.image.ref.name"] ?? "";
    out.push({
      target: { mediaType: target.mediaType, digest: target.digest, size: target.size },
      manifest,
      configBytes: await archive.read(blobName(manifest.config.digest), MAX_CONFIG),
      files: manifest.layers.map((layer) => blobName(layer.digest)),
      // a bare tag ("latest") is no name
      tags: /[/:]/.test(name) ? [name] : [],
      documents,
    });
  }
  return out;
}

async function store(
  core: Core,
  archive: Archive,
  found: Found,
  lease: Lease,
  quiet: boolean,
  sink: ProgressSink,
  signal: AbortSignal,
): Promise<void> {
  const { manager } = core.engine;
  const { manifest } = found;
  const { diffIds } = parseImageConfig(found.configBytes);
  const chain = chainIds(diffIds);
  const present = await unpackedLayers(manager, chain);
  const begun = new Map<number, () => Promise<void>>();
  for (const [i, layer] of manifest.layers.entries()) {
    const file = archive.find(found.files[i]!);
    if (file.size !== layer.size) throw invalidArgument(`${found.files[i]} is ${file.size} bytes long, its manifest says ${layer.size}`);
    const write = async () => {
      const id = shortId(diffIds[i] ?? layer.digest);
      const onProgress = quiet ? undefined : (bytes: number) => sink.bar(id, "Loading layer", bytes, layer.size);
      await writeBlob(manager, { descriptor: layer, labels: {}, lease, signal, onProgress }, (offset) => archive.pieces(file, offset));
    };
    if (i < present) await write();
    else begun.set(i, write);
  }
  await unpackLayers(manager, manifest.layers, diffIds, lease, { ready: async (i) => begun.get(i)?.() }, signal);
  const snapshot = chain.length ? { [`containerd.io/gc.ref.snapshot.${manager.snapshotter}`]: chain.at(-1)! } : {};
  await writeBlob(manager, { descriptor: manifest.config, labels: snapshot, lease }, async function* (offset) {
    yield found.configBytes.subarray(offset);
  });
  for (const { bytes, mediaType, labels } of found.documents) await writeBytes(manager, bytes, mediaType, labels, lease);
}

export async function load(core: Core, body: Readable, quiet: boolean, sink: ProgressSink, signal: AbortSignal): Promise<void> {
  await using spool = createSpool(core.engine);
  const archive = await openArchive(body, spool, signal);
  let images: Found[];
  if (archive.has("manifest.json")) images = await dockerImages(archive);
  else if (archive.has("index.json")) images = await layoutImages(archive);
  else if (archive.has("repositories"))
    throw invalidArgument("archives of Docker before 1.10 (with only a repositories file) are not supported");
  else throw invalidArgument("open manifest.json: no such file or directory: the archive holds neither a manifest.json nor an index.json");
  for (const image of images) {
    const id = image.manifest.config.digest;
    await withLease(core.engine.manager, async (lease) => {
      await store(core, archive, image, lease, quiet, sink, signal);
      for (const tag of image.tags) await tagImage(core, parseTagged(tag), image.target, lease);
      if (image.tags.length === 0) await keepDangling(core, image.target);
    });
    for (const tag of image.tags) sink.line({ stream: `Loaded image: ${familiarReference(parseTagged(tag))}\n` });
    if (image.tags.length === 0) sink.line({ stream: `Loaded image ID: ${id}\n` });
    publish(core, "load", id, id);
  }
}
