// What registries expect: layers compressed. A layer that is kept as a plain tar (built, imported, loaded) is gzipped when it is first pushed; the result is
// kept beside it, by a label of its content, so that the next push costs nothing and the digest stays the same.
import { collecting } from "../../lib/garbage.ts";
import { type Descriptor, type Digest, gzipped, layerType, MAX_MANIFEST, type Manifest, MEDIA, parseManifest } from "../../oci/index.ts";
import { childLabels, hasBlob, type Lease, labelBlob, readBlob, streamBlob, writeBytes, writeStream } from "./content.ts";
import type { Core } from "./core.ts";
import { alone } from "./layers.ts";

const PLAIN: Record<string, "oci" | "docker"> = { [MEDIA.ociLayer]: "oci", [MEDIA.dockerLayer]: "docker" };
/** On the plain layer: what it is when gzipped. The collector keeps that as long as the layer. */
const PACKED = "containerd.io/gc.ref.content.gzip";

/** After so many bytes garbage is collected. */
const GARBAGE = 32 << 20;

export interface PackedImage {
  descriptor: Descriptor;
  bytes: Uint8Array;
  manifest: Manifest;
}

async function packLayer(core: Core, layer: Descriptor, lease: Lease): Promise<Descriptor> {
  const dialect = PLAIN[layer.mediaType];
  if (!dialect) return layer;
  const { manager } = core.engine;
  return alone(layer.digest, async () => {
    const known = (await manager.content.info({ digest: layer.digest })).info?.labels[PACKED] as Digest | undefined;
    const mediaType = layerType("gzip", dialect);
    if (known && (await hasBlob(manager, known))) {
      const { info } = await manager.content.info({ digest: known });
      return { ...layer, mediaType, digest: known, size: Number(info!.size) };
    }
    const labels = { "containerd.io/uncompressed": layer.digest };
    const { digest, size } = await writeStream(manager, gzipped(collecting(streamBlob(manager, layer.digest), GARBAGE)), labels, lease);
    await labelBlob(manager, layer.digest, { [PACKED]: digest });
    return { ...layer, mediaType, digest, size };
  });
}

/** The manifest with compressed layers; the same bytes where it has no others. What is new is written under the lease. */
export async function packImage(core: Core, descriptor: Descriptor, lease: Lease): Promise<PackedImage> {
  const { manager } = core.engine;
  const bytes = await readBlob(manager, descriptor.digest, MAX_MANIFEST);
  const { manifest } = parseManifest(bytes, descriptor.mediaType);
  if (!manifest?.layers.some((layer) => layer.mediaType in PLAIN)) return { descriptor, bytes, manifest: manifest! };
  const layers = await Promise.all(manifest.layers.map((layer) => packLayer(core, layer, lease)));
  const packed = Buffer.from(JSON.stringify({ ...JSON.parse(new TextDecoder().decode(bytes)), layers }));
  const labels = childLabels("manifest", [manifest.config, ...layers]);
  const written = await writeBytes(manager, packed, manifest.mediaType, labels, lease);
  return { descriptor: written, bytes: packed, manifest: { ...manifest, layers } };
}
