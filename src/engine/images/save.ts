// GET /images/get: images as one tar that is an OCI image layout and, by its manifest.json, an archive for every `docker load`.
import { notFound } from "../../lib/errors.ts";
import {
  type Descriptor,
  digestOf,
  familiarReference,
  hexOf,
  MEDIA,
  type Reference,
  TAR_END,
  tarEntry,
  tarHeader,
  tarPadding,
} from "../../oci/index.ts";
import type { CatalogueEntry } from "./catalogue.ts";
import { hasBlob, streamBlob } from "./content.ts";
import { type Core, publish, referencesOf } from "./core.ts";

interface Saved {
  entry: CatalogueEntry;
  tags: Reference[];
}

const blobName = (digest: string) => `blobs/${digest.replace(":", "/")}`;

async function collect(core: Core, names: readonly string[]): Promise<Saved[]> {
  const saved = new Map<string, Saved>();
  for (const name of names) {
    // A name without a tag means all tags of the repository; an id none of them.
    const entry = await core.catalogue.find(name);
    const one = saved.get(entry.id) ?? { entry, tags: [] };
    saved.set(entry.id, one);
    const matched = entry.matched && referencesOf(entry).find((reference) => reference.name === entry.matched!.name);
    if (matched && matched.reference.digest === undefined) one.tags.push(matched.reference);
  }
  return [...saved.values()];
}

/** The tar, piece by piece. NotFound before the first piece where an image or a part of one is not there. */
export async function save(
  core: Core,
  names: readonly string[],
  _platform: string,
  signal: AbortSignal,
): Promise<AsyncIterable<Uint8Array>> {
  const images = await collect(core, names);
  const { manager } = core.engine;
  const blobs = new Map<string, Descriptor>();
  const documents: Descriptor[] = [];
  const index: Descriptor[] = [];
  for (const { entry, tags } of images) {
    const { manifest, manifestDescriptor } = entry.content;
    for (const descriptor of [manifestDescriptor, manifest.config, ...manifest.layers]) {
      if (!blobs.has(descriptor.digest) && !(await hasBlob(manager, descriptor.digest)))
        throw notFound(`unable to save ${entry.id}: its content ${descriptor.digest} is not there`);
      blobs.set(descriptor.digest, descriptor);
    }
    documents.push(manifestDescriptor);
    const base = { mediaType: manifest.mediaType, digest: manifestDescriptor.digest, size: manifestDescriptor.size };
    if (tags.length === 0) index.push(base);
    for (const tag of tags) {
      const annotations = {
        "io.containerd.image.name": `${tag.domain}/${tag.path}:${tag.tag}`,
        "org.opencontainers.image.ref.name": tag.tag!,
      };
      index.push({ ...base, annotations });
    }
  }
  const file = (name: string, value: unknown): [string, Uint8Array] => [name, Buffer.from(JSON.stringify(value))];
  const manifestJson = images.map(({ entry, tags }) => ({
    Config: blobName(entry.id),
    RepoTags: tags.length ? tags.map(familiarReference) : null,
    Layers: entry.content.manifest.layers.map((layer) => blobName(layer.digest)),
  }));
  const repositories: Record<string, Record<string, string>> = {};
  for (const { entry, tags } of images)
    for (const tag of tags) {
      const name = familiarReference({ domain: tag.domain, path: tag.path });
      const last = entry.content.manifest.layers.at(-1);
      repositories[name] ??= {};
      repositories[name][tag.tag!] = hexOf(last?.digest ?? digestOf(""));
    }
  const tail: [string, Uint8Array][] = [
    file("index.json", { schemaVersion: 2, mediaType: MEDIA.ociIndex, manifests: index }),
    file("manifest.json", manifestJson),
    file("oci-layout", { imageLayoutVersion: "1.0.0" }),
  ];
  if (Object.keys(repositories).length) tail.push(file("repositories", repositories));

  async function* pieces(): AsyncGenerator<Uint8Array, void> {
    yield tarHeader(tarEntry("blobs/", "directory"));
    yield tarHeader(tarEntry("blobs/sha256/", "directory"));
    for (const { digest, size } of [...blobs.values()].sort((a, b) => (a.digest < b.digest ? -1 : 1))) {
      signal.throwIfAborted();
      yield tarHeader(tarEntry(blobName(digest), "file", { size }));
      for await (const piece of streamBlob(manager, digest)) yield piece;
      yield tarPadding(size);
    }
    for (const [name, bytes] of tail) {
      yield tarHeader(tarEntry(name, "file", { size: bytes.length }));
      yield bytes;
      yield tarPadding(bytes.length);
    }
    yield TAR_END;
    for (const { entry } of images) publish(core, "save", entry.id, entry.id);
  }
  return pieces();
}
