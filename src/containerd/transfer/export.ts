// Images into an archive: an OCI layout in a tar, with docker's manifest.json beside it so that `docker load` of every version reads it.
import type { ImageExportStream, ImageStore } from "../../gen/containerd/types/transfer_pb.ts";
import { invalidArgument } from "../../lib/errors.ts";
import {
  type Descriptor,
  digestOf,
  formatReference,
  hexOf,
  hostPlatform,
  type Manifest,
  MEDIA,
  parseTagged,
  TAR_END,
  tarEntry,
  tarHeader,
  tarPadding,
} from "../../oci/index.ts";
import { chosen, descriptorOf, hasBlob, type Place, parsed, platformsOf, streamBlob } from "./image-content.ts";
import { type Stream, sendData } from "./streams.ts";

interface Saved {
  Config: string;
  RepoTags: string[];
  Layers: string[];
}

export async function exportArchive(store: ImageStore, options: ImageExportStream, stream: Stream, place: Place): Promise<void> {
  place.progress("Exporting");
  const names = [...(store.name === "" ? [] : [store.name]), ...store.extraReferences.map((reference) => reference.name)];
  if (names.length === 0) throw invalidArgument("no image to export");
  const platforms = options.allPlatforms ? [] : options.platforms.length > 0 ? platformsOf(options.platforms) : [hostPlatform()];
  const blobs = new Map<string, Descriptor>();
  const top: Descriptor[] = [];
  const saved = new Map<string, Saved>();
  const blobPath = (digest: string) => `blobs/${digest.slice(0, digest.indexOf(":"))}/${hexOf(digest)}`;

  const collect = async (descriptor: Descriptor, depth: number): Promise<Manifest | undefined> => {
    blobs.set(descriptor.digest, descriptor);
    const document = await parsed(place, descriptor);
    if (document.manifest) {
      for (const blob of [document.manifest.config, ...document.manifest.layers]) {
        if (options.skipNonDistributable && /nondistributable|foreign/.test(blob.mediaType)) continue;
        blobs.set(blob.digest, blob);
      }
      return document.manifest;
    }
    let first: Manifest | undefined;
    for (const child of chosen(document.index.manifests, depth === 0 ? platforms : [])) {
      if (options.allPlatforms && !hasBlob(place, child.digest)) continue;
      const manifest = await collect(child, depth + 1);
      first ??= manifest;
    }
    return first;
  };
  for (const name of names) {
    const image = place.images.get(place.namespace, name);
    const descriptor = descriptorOf(image);
    const manifest = await collect(descriptor, 0);
    const reference = parseTagged(name);
    const annotations = { "io.containerd.image.name": name, "org.opencontainers.image.ref.name": reference.tag ?? "latest" };
    top.push({ ...descriptor, annotations });
    if (!manifest) continue;
    const entry = saved.get(manifest.config.digest) ?? {
      Config: blobPath(manifest.config.digest),
      RepoTags: [],
      Layers: manifest.layers.map((layer) => blobPath(layer.digest)),
    };
    if (reference.digest === undefined) entry.RepoTags.push(formatReference(reference));
    saved.set(manifest.config.digest, entry);
  }

  const index = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MEDIA.ociIndex, manifests: top }));
  const files: [name: string, data: Buffer | string][] = [...blobs.keys()].map((digest) => [blobPath(digest), digest]);
  files.push(["index.json", index], ["oci-layout", Buffer.from('{"imageLayoutVersion":"1.0.0"}')]);
  if (!options.skipCompatibilityManifest) files.push(["manifest.json", Buffer.from(JSON.stringify([...saved.values()]))]);
  files.sort(([a], [b]) => (a < b ? -1 : 1));

  async function* archive(): AsyncIterable<Uint8Array> {
    const directories = new Set(["blobs", ...[...blobs.keys()].map((digest) => `blobs/${digest.slice(0, digest.indexOf(":"))}`)]);
    for (const name of [...directories].sort()) yield tarHeader(tarEntry(`${name}/`, "directory"));
    for (const [name, data] of files) {
      place.signal.throwIfAborted();
      const size = typeof data === "string" ? place.content.info(place.namespace, data).size : data.length;
      yield tarHeader(tarEntry(name, "file", { size, mode: 0o444 }));
      if (typeof data === "string") yield* streamBlob(place, data);
      else yield data;
      yield tarPadding(size);
    }
    yield TAR_END;
  }
  await sendData(stream, archive());
  place.progress("Completed export", { name: digestOf(index) });
}
