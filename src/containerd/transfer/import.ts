// An archive into the image store: an OCI layout in a tar, or what `docker save` writes; plain or compressed. It is kept in a file while it is read,
// because its index may be its last entry.
import { createHash, randomBytes } from "node:crypto";
import { type FileHandle, open, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { ImageReference, ImageStore } from "../../gen/containerd/types/transfer_pb.ts";
import { invalidArgument, notFound, resourceExhausted } from "../../lib/errors.ts";
import { createRoom } from "../../lib/room.ts";
import {
  type Compression,
  type Descriptor,
  decompressed,
  detectCompression,
  digestOf,
  formatReference,
  layerType,
  MAX_CONFIG,
  MAX_MANIFEST,
  MEDIA,
  parseImageConfig,
  parseManifest,
  parseTagged,
  scanTar,
} from "../../oci/index.ts";
import { childLabels, chosen, hasBlob, type Place, parsed, platformsOf, setImage, unpack, writeBlob } from "./image-content.ts";
import { readData, type Stream } from "./streams.ts";

interface Entry {
  offset: number;
  size: number;
}

const IMAGE_NAME = "io.containerd.image.name";
const REF_NAME = "org.opencontainers.image.ref.name";
const MAX_FILES = 1_000_000;

interface Archive {
  file: FileHandle;
  path: string;
  entries: Map<string, Entry>;
}

export async function importArchive(stream: Stream, store: ImageStore, place: Place, root: string): Promise<void> {
  place.progress("Importing");
  // beside the ingests: what a kill -9 leaves here is removed at the next start
  const path = join(root, "content/ingest", `import-${Date.now()}-${randomBytes(4).toString("hex")}`);
  try {
    const file = await receive(stream, path);
    try {
      const archive: Archive = { file, path, entries: await listOf(file) };
      const { index, manifests } = archive.entries.has("index.json") ? await fromLayout(archive, place) : await fromDocker(archive, place);
      await storeImages(index, manifests, store, place);
    } finally {
      await file.close();
    }
  } finally {
    await rm(path, { force: true });
  }
  place.progress("Completed import");
}

/** The archive, uncompressed, as a file. */
async function receive(stream: Stream, path: string): Promise<FileHandle> {
  const file = await open(path, "w+", 0o600);
  try {
    await append(file, decompressed(readData(stream)), path);
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Writes to the end of the archive's file; answers where it is. ResourceExhausted before the disk is full. */
async function append(file: FileHandle, pieces: AsyncIterable<Uint8Array>, path: string): Promise<Entry> {
  const room = createRoom(dirname(path));
  const offset = (await file.stat()).size;
  let size = 0;
  for await (const piece of pieces) {
    room(piece.length);
    for (let done = 0; done < piece.length; )
      done += (await file.write(piece, done, piece.length - done, offset + size + done)).bytesWritten;
    size += piece.length;
  }
  return { offset, size };
}

async function listOf(file: FileHandle): Promise<Map<string, Entry>> {
  const entries = new Map<string, Entry>();
  const links: [string, string][] = [];
  await scanTar(file, (entry, offset) => {
    const name = clean(entry.name);
    if (entry.type === "file") entries.set(name, { offset, size: entry.size });
    else if (entry.type === "symlink") links.push([name, clean(join(name, "..", entry.linkname))]);
    else if (entry.type === "link") links.push([name, clean(entry.linkname)]);
    if (entries.size + links.length > MAX_FILES) throw resourceExhausted(`the archive has more than ${MAX_FILES} files`);
  });
  // docker save of older versions links a layer that two images share
  for (const [name, target] of links) {
    const entry = entries.get(target);
    if (entry) entries.set(name, entry);
  }
  if (entries.size === 0) throw invalidArgument("the archive is empty");
  return entries;
}

const clean = (name: string): string => name.replace(/^(\.?\/)+/, "").replace(/\/+$/, "");

async function bytesOf({ file, entries }: Archive, name: string, limit: number): Promise<Uint8Array> {
  const entry = entries.get(name);
  if (!entry) throw notFound(`${name} in the archive`);
  if (entry.size > limit) throw resourceExhausted(`${name} in the archive is longer than ${limit} bytes`);
  const buffer = Buffer.alloc(entry.size);
  await file.read(buffer, 0, entry.size, entry.offset);
  return buffer;
}

const reader = ({ file }: Archive, entry: Entry) =>
  async function* (from: number): AsyncIterable<Uint8Array> {
    for (let at = from; at < entry.size; ) {
      const buffer = new Uint8Array(Math.min(1 << 20, entry.size - at));
      const { bytesRead } = await file.read(buffer, 0, buffer.length, entry.offset + at);
      if (bytesRead === 0) throw invalidArgument("the archive is truncated");
      yield buffer.subarray(0, bytesRead);
      at += bytesRead;
    }
  };

interface Imported {
  /** What holds all manifests, itself in the content store. */
  index: Descriptor;
  manifests: Descriptor[];
}

async function fromLayout(archive: Archive, place: Place): Promise<Imported> {
  for (const [name, entry] of archive.entries) {
    const match = /^blobs\/([a-z0-9]+)\/([a-f0-9]+)$/.exec(name);
    if (!match) continue;
    const digest = `${match[1]}:${match[2]}`;
    await writeBlob(place, { mediaType: "", digest, size: entry.size }, {}, reader(archive, entry));
  }
  const bytes = await bytesOf(archive, "index.json", MAX_MANIFEST);
  const { index } = parseManifest(bytes, MEDIA.ociIndex);
  if (!index) throw invalidArgument("index.json of the archive is no index");
  const descriptor: Descriptor = { mediaType: MEDIA.ociIndex, digest: digestOf(bytes), size: bytes.length };
  await writeBlob(place, descriptor, childLabels({ index }), async function* () {
    yield bytes;
  });
  return { index: descriptor, manifests: index.manifests };
}

interface SavedImage {
  Config: string;
  RepoTags: string[] | null;
  Layers: string[];
}

async function fromDocker(archive: Archive, place: Place): Promise<Imported> {
  if (!archive.entries.has("manifest.json")) throw invalidArgument("the archive has neither index.json nor manifest.json");
  const saved = JSON.parse(Buffer.from(await bytesOf(archive, "manifest.json", MAX_MANIFEST)).toString()) as unknown;
  if (!Array.isArray(saved)) throw invalidArgument("manifest.json of the archive is no list");
  const manifests: Descriptor[] = [];
  for (const image of saved as Partial<SavedImage>[]) {
    if (typeof image.Config !== "string" || !Array.isArray(image.Layers))
      throw invalidArgument("manifest.json of the archive lacks Config or Layers");
    const configBytes = await bytesOf(archive, clean(image.Config), MAX_CONFIG);
    const { architecture, os } = parseImageConfig(configBytes) as { architecture?: string; os?: string };
    const config: Descriptor = { mediaType: MEDIA.dockerConfig, digest: digestOf(configBytes), size: configBytes.length };
    await writeBlob(place, config, {}, async function* () {
      yield configBytes;
    });
    const layers: Descriptor[] = [];
    for (const name of image.Layers) layers.push(await layerOf(archive, clean(String(name)), place));
    const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MEDIA.dockerManifest, config, layers }));
    const platform = { os: os ?? "linux", architecture: architecture ?? "amd64" };
    const descriptor: Descriptor = { mediaType: MEDIA.dockerManifest, digest: digestOf(bytes), size: bytes.length, platform };
    const document = parseManifest(bytes, MEDIA.dockerManifest);
    await writeBlob(place, descriptor, childLabels(document), async function* () {
      yield bytes;
    });
    const tags = image.RepoTags?.length ? image.RepoTags : [undefined];
    for (const tag of tags) {
      const reference = tag === undefined ? undefined : parseTagged(tag);
      const annotations = reference ? { [IMAGE_NAME]: formatReference(reference), [REF_NAME]: reference.tag ?? "latest" } : undefined;
      manifests.push({ ...descriptor, ...(annotations ? { annotations } : {}) });
    }
  }
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MEDIA.ociIndex, manifests }));
  const index: Descriptor = { mediaType: MEDIA.ociIndex, digest: digestOf(bytes), size: bytes.length };
  await writeBlob(place, index, childLabels({ index: { mediaType: MEDIA.ociIndex, manifests } }), async function* () {
    yield bytes;
  });
  return { index, manifests };
}

async function layerOf(archive: Archive, name: string, place: Place): Promise<Descriptor> {
  let entry = archive.entries.get(name);
  if (!entry) throw notFound(`${name} in the archive`);
  let compression: Compression = "none";
  for await (const piece of reader(archive, entry)(0)) {
    compression = detectCompression(piece);
    break;
  }
  // Images have no such layers: what is in them is kept.
  if (compression === "bzip2" || compression === "xz") {
    entry = await append(archive.file, decompressed(reader(archive, entry)(0)), archive.path);
    archive.entries.set(name, entry);
    compression = "none";
  }
  const hash = createHash("sha256");
  for await (const piece of reader(archive, entry)(0)) hash.update(piece);
  const mediaType = layerType(compression, "docker");
  const descriptor: Descriptor = { mediaType, digest: `sha256:${hash.digest("hex")}`, size: entry.size };
  await writeBlob(place, descriptor, {}, reader(archive, entry));
  return descriptor;
}

/** Labels what belongs together, names the images as the destination says, unpacks. */
async function storeImages(index: Descriptor, manifests: Descriptor[], store: ImageStore, place: Place): Promise<void> {
  const platforms = platformsOf(store.platforms);
  const label = async (descriptor: Descriptor, depth: number): Promise<void> => {
    if (depth > 4 || !hasBlob(place, descriptor.digest)) return;
    const document = await parsed(place, descriptor);
    place.content.setLabels(place.namespace, descriptor.digest, (current) => ({ ...current, ...childLabels(document) }));
    for (const child of document.index?.manifests ?? []) await label(child, depth + 1);
  };
  let named = 0;
  const save = (name: string, target: Descriptor) => {
    setImage(place, name, target, store.labels);
    named++;
    place.progress("saved", { name, descriptor: target });
  };
  const wanted = platforms.length > 0 && manifests.some((m) => m.platform) ? chosen(manifests, platforms) : manifests;
  for (const manifest of manifests) await label(manifest, 0);
  if (store.name !== "") save(store.name, index);
  for (const manifest of wanted) {
    const names = store.extraReferences.flatMap((reference) => namesFor(manifest, reference));
    const { annotations: _, ...target } = manifest;
    for (const name of names) save(name, target);
    if (names.length > 0 || store.name !== "") await unpack(place, target, store);
  }
  if (named === 0) throw notFound("no image name found");
}

/** The names a manifest gets by its annotations and one reference of the destination (containerd's rules for imports). */
function namesFor(manifest: Descriptor, reference: ImageReference): string[] {
  if (!reference.isPrefix) return [];
  const full = manifest.annotations?.[IMAGE_NAME];
  const short = manifest.annotations?.[REF_NAME];
  const digested = `${reference.name}@${manifest.digest}`;
  let name = full ?? "";
  if (name === "" && short !== undefined && short !== "" && reference.name !== "") {
    if (!/[/:@]/.test(short)) name = `${reference.name}:${short}`;
    else if (reference.allowOverwrite || isBelow(short, reference.name)) name = short;
  }
  if (name === "") return reference.addDigest ? [digested] : [];
  return reference.addDigest && !reference.skipNamedDigest ? [name, digested] : [name];
}

const isBelow = (name: string, prefix: string): boolean =>
  name.startsWith(prefix) && (name.length === prefix.length || /[/:@]/.test(name[prefix.length]!));
