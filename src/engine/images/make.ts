// A new image from a layer that is in the content store: a config, a manifest, and what they need. For import and commit.
import {
  chainIds,
  type Descriptor,
  type HistoryEntry,
  hostPlatform,
  type Manifest,
  MEDIA,
  normalise,
  type Platform,
} from "../../oci/index.ts";
import type { Config } from "./changes.ts";
import { childLabels, type Lease, writeBytes } from "./content.ts";
import type { Core } from "./core.ts";

export interface NewImage {
  config: Config;
  diffIds: string[];
  layers: Descriptor[];
  history: HistoryEntry[];
  author: string;
  comment: string;
  platform: Platform | undefined;
  /** Further fields of the configuration (Docker's `container`, `parent`). */
  extra?: Record<string, unknown>;
}

/** Writes config and manifest; answers the image id and the descriptor a name can lead to. */
export async function makeImage(core: Core, image: NewImage, lease: Lease): Promise<{ id: string; target: Descriptor }> {
  const { manager } = core.engine;
  const platform = normalise(image.platform ?? hostPlatform());
  const document = {
    architecture: platform.architecture,
    ...(platform.variant ? { variant: platform.variant } : {}),
    os: platform.os,
    ...(image.author ? { author: image.author } : {}),
    ...(image.comment ? { comment: image.comment } : {}),
    config: image.config,
    created: image.history.at(-1)?.created ?? new Date().toISOString(),
    history: image.history,
    rootfs: { type: "layers", diff_ids: image.diffIds },
    ...image.extra,
  };
  const top = chainIds(image.diffIds).at(-1);
  const labels = top ? { [`containerd.io/gc.ref.snapshot.${manager.snapshotter}`]: top } : {};
  const config = await writeBytes(manager, Buffer.from(JSON.stringify(document)), MEDIA.ociConfig, labels, lease);
  const manifest: Manifest = { mediaType: MEDIA.ociManifest, config, layers: image.layers };
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: manifest.mediaType, config, layers: image.layers }));
  const target = await writeBytes(manager, bytes, manifest.mediaType, childLabels("manifest", [config, ...image.layers]), lease);
  return { id: config.digest, target };
}
