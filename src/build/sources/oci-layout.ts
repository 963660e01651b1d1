// oci-layout:// sources: an image in an OCI layout that the client has (image-spec, image-layout.md). Its layers are taken into the content store.
import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import type { ImageConfig } from "../../api/types.ts";
import { failedPrecondition, invalidArgument, notFound, unimplemented } from "../../lib/errors.ts";
import {
  algorithmOf,
  choosePlatform,
  type Descriptor,
  digestOf,
  formatPlatform,
  hexOf,
  hostPlatform,
  MAX_CONFIG,
  MAX_MANIFEST,
  type Platform,
  parseDigest,
  parseImageConfig,
  parseManifest,
} from "../../oci/index.ts";
import { hasBlob, writeBlob } from "../content.ts";
import type { BaseImage, BuilderHost, BuildHost, Lease } from "../host.ts";

/** A directory with blobs by digest; all that is read is verified. */
export function layoutBlobs(directory: string) {
  const pathOf = (digest: string) => join(directory, "blobs", algorithmOf(parseDigest(digest)), hexOf(digest));
  return {
    pathOf,
    async read(digest: string, limit: number): Promise<Uint8Array> {
      const path = pathOf(digest);
      const info = await stat(path).catch(() => undefined);
      if (!info?.isFile()) throw notFound(`the OCI layout has no blob ${digest}`);
      if (info.size > limit) throw invalidArgument(`blob ${digest} is longer than ${limit} bytes`);
      const bytes = await readFile(path);
      if (digestOf(bytes) !== digest && algorithmOf(digest) === "sha256")
        throw failedPrecondition(`blob ${digest} of the OCI layout is damaged`);
      return bytes;
    },
  };
}

interface LayoutOptions {
  host: BuilderHost;
  build: BuildHost;
  lease: Lease;
  signal: AbortSignal;
}

/** The image that "oci-layout://NAME@DIGEST" names. NotFound, InvalidArgument. */
export async function layoutImage(
  identifier: string,
  platform: Platform | undefined,
  attrs: Record<string, string>,
  { host, build, lease, signal }: LayoutOptions,
): Promise<BaseImage> {
  if (!build.ociLayout) throw unimplemented("OCI layouts of a client, at this door");
  const name = identifier.slice("oci-layout://".length);
  const at = name.indexOf("@");
  if (at < 0) throw invalidArgument(`${identifier}: a digest is needed`);
  const root = parseDigest(name.slice(at + 1));
  const { directory, release } = await build.ociLayout(attrs["oci.store"] || name.slice(0, at), root, signal);
  try {
    const blobs = layoutBlobs(directory);
    let digest = root;
    let parsed = parseManifest(await blobs.read(digest, MAX_MANIFEST));
    for (let depth = 0; parsed.index; depth++) {
      if (depth > 4) throw invalidArgument(`${identifier}: indexes within indexes`);
      const chosen: Descriptor | undefined = choosePlatform(parsed.index.manifests, platform ?? hostPlatform());
      if (!chosen) throw notFound(`${identifier}: no match for platform ${formatPlatform(platform ?? hostPlatform())}`);
      digest = chosen.digest;
      parsed = parseManifest(await blobs.read(digest, MAX_MANIFEST), chosen.mediaType);
    }
    const { manifest } = parsed;
    const config = parseImageConfig(await blobs.read(manifest.config.digest, MAX_CONFIG));
    if (config.diffIds.length !== manifest.layers.length) throw invalidArgument(`${identifier}: layers and diff ids don't fit each other`);
    for (const layer of manifest.layers) {
      if (await hasBlob(host.manager, layer.digest)) continue;
      const { mediaType } = layer;
      await writeBlob(host.manager, createReadStream(blobs.pathOf(layer.digest)), {
        mediaType,
        labels: {},
        lease,
        signal,
        expected: layer,
      });
    }
    const { os, architecture, variant } = config;
    return {
      id: manifest.config.digest,
      digest: root,
      config: config.config as ImageConfig,
      layers: manifest.layers.map((descriptor, i) => ({ descriptor, diffId: config.diffIds[i]! })),
      history: config.history,
      platform: { os, architecture, ...(variant ? { variant } : {}) },
      author: config.author ?? "",
    };
  } finally {
    await release();
  }
}
