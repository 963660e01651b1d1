// Images as one tar: an OCI image layout (image-layout.md) that is, by its manifest.json, an archive for every `docker load` too. Where the content comes
// from is the caller's.
import { notFound } from "../lib/errors.ts";
import { algorithmOf, type Digest, digestOf, hexOf } from "./digest.ts";
import { TAR_END, tarEntry, tarHeader, tarPadding } from "./layer/tar-writer.ts";
import { type Descriptor, MAX_MANIFEST, type Manifest, MEDIA, parseManifest } from "./manifest.ts";
import { choosePlatform, type Platform } from "./platform.ts";
import { familiarName, type Reference } from "./reference.ts";

export interface ArchiveSource {
  has(digest: Digest): boolean | Promise<boolean>;
  /** A whole blob of at most `limit` bytes. */
  read(digest: Digest, limit: number): Promise<Uint8Array>;
  open(digest: Digest): AsyncIterable<Uint8Array>;
}

export interface ArchiveImage {
  /** A manifest, or an index: of that what is there goes along. */
  target: Descriptor;
  /** The image that manifest.json shows for it; by default the first one. */
  main?: Digest;
  /** Names with tags; none: the image is known by its digest only. */
  names: { reference: Reference; annotations: Record<string, string>; repoTag: string }[];
}

export interface ArchiveOptions {
  /** Of an index only these platforms; NotFound where none is there. */
  platforms?: readonly Platform[];
  /** Blobs that are left out. */
  skip?: (descriptor: Descriptor) => boolean;
  /** No manifest.json. */
  layoutOnly?: boolean;
  /** Docker's oldest list of names as well. */
  repositories?: boolean;
  signal: AbortSignal;
}

const MAX_DEPTH = 4;

/** Where a blob lies in an image layout. */
export function blobPath(digest: Digest): string {
  return `blobs/${algorithmOf(digest)}/${hexOf(digest)}`;
}

interface SavedImage {
  Config: string;
  RepoTags: string[] | null;
  Layers: string[];
}

/** Looks at what has to go along (NotFound where something is not there), then answers the tar, piece by piece, and the digest of its index. */
export async function imageArchive(
  source: ArchiveSource,
  images: readonly ArchiveImage[],
  options: ArchiveOptions,
): Promise<{ tar: AsyncGenerator<Uint8Array, void>; index: Digest }> {
  const blobs = new Map<Digest, number>();
  const top: Descriptor[] = [];
  const saved = new Map<Digest, SavedImage>();
  const repositories: Record<string, Record<string, string>> = {};

  /** Answers the manifests that were taken. */
  const collect = async (descriptor: Descriptor, depth: number): Promise<{ digest: Digest; manifest: Manifest }[]> => {
    const { manifest, index } = parseManifest(await source.read(descriptor.digest, MAX_MANIFEST), descriptor.mediaType || undefined);
    blobs.set(descriptor.digest, descriptor.size);
    if (manifest) {
      for (const blob of [manifest.config, ...manifest.layers]) {
        if (options.skip?.(blob)) continue;
        if (!blobs.has(blob.digest) && !(await source.has(blob.digest)))
          throw notFound(`unable to save ${descriptor.digest}: its content ${blob.digest} is not there`);
        blobs.set(blob.digest, blob.size);
      }
      return [{ digest: descriptor.digest, manifest }];
    }
    const taken: { digest: Digest; manifest: Manifest }[] = [];
    if (depth > MAX_DEPTH) return taken;
    for (const child of wanted(index.manifests, depth === 0 ? options.platforms : undefined)) {
      if (await complete(child, depth + 1)) taken.push(...(await collect(child, depth + 1)));
    }
    return taken;
  };
  /** Whether all of a manifest is there; of an index that it is there. */
  const complete = async (descriptor: Descriptor, depth: number): Promise<boolean> => {
    if (depth > MAX_DEPTH || !(await source.has(descriptor.digest))) return false;
    const { manifest } = parseManifest(await source.read(descriptor.digest, MAX_MANIFEST), descriptor.mediaType || undefined);
    for (const blob of manifest ? [manifest.config, ...manifest.layers] : [])
      if (!options.skip?.(blob) && !(await source.has(blob.digest))) return false;
    return true;
  };

  for (const { target, main, names } of images) {
    const taken = await collect(target, 0);
    if (taken.length === 0) throw notFound(`unable to save ${target.digest}: nothing of the image is there`);
    const base = { mediaType: target.mediaType, digest: target.digest, size: target.size };
    if (names.length === 0) top.push(base);
    for (const { annotations } of names) top.push({ ...base, annotations });
    const { manifest } = taken.find((one) => one.digest === main) ?? taken[0]!;
    const entry = saved.get(manifest.config.digest) ?? {
      Config: blobPath(manifest.config.digest),
      RepoTags: null,
      Layers: manifest.layers.map((layer) => blobPath(layer.digest)),
    };
    saved.set(manifest.config.digest, entry);
    for (const { reference, repoTag } of names) {
      if (reference.digest !== undefined || reference.tag === undefined) continue;
      entry.RepoTags = [...(entry.RepoTags ?? []), repoTag];
      const name = familiarName(reference);
      repositories[name] ??= {};
      repositories[name][reference.tag] = hexOf(manifest.layers.at(-1)?.digest ?? digestOf(""));
    }
  }

  const json = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value));
  const index = json({ schemaVersion: 2, mediaType: MEDIA.ociIndex, manifests: top });
  const files: [name: string, bytes: Uint8Array][] = [
    ["index.json", index],
    ["oci-layout", json({ imageLayoutVersion: "1.0.0" })],
  ];
  if (!options.layoutOnly) files.splice(1, 0, ["manifest.json", json([...saved.values()])]);
  if (options.repositories && Object.keys(repositories).length > 0) files.push(["repositories", json(repositories)]);

  async function* tar(): AsyncGenerator<Uint8Array, void> {
    const digests = [...blobs.keys()].sort();
    const directories = ["blobs", ...new Set(digests.map((digest) => `blobs/${algorithmOf(digest)}`))];
    for (const name of directories) yield tarHeader(tarEntry(`${name}/`, "directory"));
    for (const digest of digests) {
      options.signal.throwIfAborted();
      const size = blobs.get(digest)!;
      yield tarHeader(tarEntry(blobPath(digest), "file", { size, mode: 0o444 }));
      yield* source.open(digest);
      yield tarPadding(size);
    }
    for (const [name, bytes] of files) {
      yield tarHeader(tarEntry(name, "file", { size: bytes.length, mode: 0o444 }));
      yield bytes;
      yield tarPadding(bytes.length);
    }
    yield TAR_END;
  }
  return { tar: tar(), index: digestOf(index) };
}

function wanted(manifests: readonly Descriptor[], platforms: readonly Platform[] | undefined): Descriptor[] {
  if (!platforms) return [...manifests];
  const found = new Set(platforms.map((platform) => choosePlatform(manifests, platform)).filter((one) => one !== undefined));
  if (found.size === 0) throw notFound("no match for platform in manifest");
  return [...found];
}
