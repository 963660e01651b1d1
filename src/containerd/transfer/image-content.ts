// What the transfers have in common: content by descriptor, the labels that keep a tree of content together, names, and snapshots of layers.

import { randomBytes } from "node:crypto";
import { open, readFile } from "node:fs/promises";
import { create } from "@bufbuild/protobuf";
import { type Image, ImageSchema } from "../../gen/containerd/services/images/v1_pb.ts";
import type { ImageStore as ImageStoreMessage } from "../../gen/containerd/types/transfer_pb.ts";
import { failedPrecondition, invalidArgument, isKind, notFound, resourceExhausted } from "../../lib/errors.ts";
import {
  applyLayer,
  chainIds,
  choosePlatform,
  type Descriptor,
  hostPlatform,
  type Index,
  isIndexType,
  isManifestType,
  MAX_CONFIG,
  MAX_MANIFEST,
  type Manifest,
  type Platform,
  parseImageConfig,
  parseManifest,
} from "../../oci/index.ts";
import { childLabels as labelsOf } from "../content/references.ts";
import type { ContentStore } from "../content/store.ts";
import type { ImageStore } from "../images.ts";
import { layersOf } from "../snapshots/detached.ts";
import type { Snapshotter } from "../snapshots/snapshotter.ts";

/** Where a transfer works. */
export interface Place {
  namespace: string;
  lease: string;
  signal: AbortSignal;
  content: ContentStore;
  images: ImageStore;
  snapshotters: Map<string, Snapshotter>;
  progress(event: string, step?: { name?: string; parents?: string[]; progress?: number; total?: number; descriptor?: Descriptor }): void;
}

/** containerd's names for content that is being written, which its clients show: layer-sha256:…, manifest-sha256:… */
export function refOf(descriptor: Descriptor): string {
  const { mediaType, digest } = descriptor;
  if (isIndexType(mediaType)) return `index-${digest}`;
  if (isManifestType(mediaType)) return `manifest-${digest}`;
  if (/layer|rootfs\.(foreign\.)?diff/.test(mediaType)) return `layer-${digest}`;
  return /config|container\.image\.v1/.test(mediaType) ? `config-${digest}` : `unknown-${digest}`;
}

export function hasBlob(place: Place, digest: string): boolean {
  try {
    place.content.info(place.namespace, digest);
    return true;
  } catch (error) {
    if (isKind(error, "NotFound")) return false;
    throw error;
  }
}

/** A small blob as a whole. */
export async function readBlob(place: Place, descriptor: Descriptor, limit = MAX_MANIFEST): Promise<Uint8Array> {
  const { size } = place.content.info(place.namespace, descriptor.digest);
  if (size > limit) throw resourceExhausted(`content ${descriptor.digest} is longer than ${limit} bytes`);
  return await readFile(place.content.path(place.namespace, descriptor.digest));
}

export async function* streamBlob(place: Place, digest: string): AsyncIterable<Uint8Array> {
  const file = await open(place.content.path(place.namespace, digest), "r");
  try {
    for (;;) {
      const buffer = new Uint8Array(1 << 20);
      const { bytesRead } = await file.read(buffer, 0, buffer.length);
      if (bytesRead === 0) return;
      yield buffer.subarray(0, bytesRead);
    }
  } finally {
    await file.close();
  }
}

/** Writes a blob from `open(offset)`, resuming what an earlier attempt left; where another writer is at it, waits for that one. */
export async function writeBlob(
  place: Place,
  descriptor: Descriptor,
  labels: Record<string, string>,
  open: (offset: number) => AsyncIterable<Uint8Array>,
  parents: string[] = [],
): Promise<void> {
  const { namespace, lease, content, signal } = place;
  const { digest, size } = descriptor;
  const name = refOf(descriptor);
  const step = (event: string, progress: number) => place.progress(event, { name, parents, progress, total: size, descriptor });
  for (;;) {
    signal.throwIfAborted();
    try {
      const writer = await content.writer({ namespace, ref: name, expected: digest, total: size, lease });
      try {
        let { offset } = writer.status();
        if (offset > size) {
          await writer.restart();
          offset = 0;
        }
        let told = 0;
        if (offset < size) {
          for await (const piece of open(offset)) {
            signal.throwIfAborted();
            await writer.write(piece);
            offset += piece.length;
            if (performance.now() - told > 100) {
              told = performance.now();
              step("downloading", offset);
            }
          }
        }
        await writer.commit({ size, expected: digest, labels });
        step("complete", size);
        return;
      } finally {
        await writer.close();
      }
    } catch (error) {
      if (isKind(error, "AlreadyExists")) {
        content.setLabels(namespace, digest, (current) => ({ ...current, ...labels }));
        step("already exists", size);
        return;
      }
      if (!isKind(error, "Unavailable") || !String(error).includes("locked by another writer")) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

export function childLabels({ manifest, index }: { manifest?: Manifest; index?: Index }): Record<string, string> {
  return manifest ? labelsOf("manifest", [manifest.config, ...manifest.layers]) : labelsOf("index", index?.manifests ?? []);
}

export async function parsed(place: Place, descriptor: Descriptor) {
  return parseManifest(await readBlob(place, descriptor), descriptor.mediaType);
}

export function platformsOf(wanted: { os: string; architecture: string; variant: string }[]): Platform[] {
  return wanted.map(({ os, architecture, variant }) => ({ os, architecture, ...(variant ? { variant } : {}) }));
}

/** The manifests of an index that are wanted; all of them where no platform is said. NotFound where none fits. */
export function chosen(manifests: readonly Descriptor[], platforms: readonly Platform[]): Descriptor[] {
  if (platforms.length === 0) return [...manifests];
  const found = new Set(platforms.map((platform) => choosePlatform(manifests, platform)).filter((d) => d !== undefined));
  if (found.size === 0) throw notFound("no match for platform in manifest");
  return [...found];
}

/** Makes the snapshots that the destination asks for. */
export async function unpack(place: Place, top: Descriptor, store: ImageStoreMessage): Promise<void> {
  for (const { platform, snapshotter } of store.unpacks) {
    const wanted = platform ? platformsOf([platform])[0]! : hostPlatform();
    const name = snapshotter || "overlayfs";
    const found = place.snapshotters.get(name);
    if (!found) throw invalidArgument(`snapshotter not loaded: ${name}`);
    let descriptor = top;
    let document = await parsed(place, top);
    for (let depth = 0; document.index && depth < 3; depth++) {
      const child = choosePlatform(document.index.manifests, wanted);
      if (!child) break;
      descriptor = child;
      document = await parsed(place, descriptor);
    }
    if (document.manifest) await unpackManifest(place, document.manifest, found, descriptor.digest);
  }
}

async function unpackManifest(place: Place, manifest: Manifest, snapshotter: Snapshotter, parent: string): Promise<void> {
  const { namespace, lease, content } = place;
  const { diffIds } = parseImageConfig(await readBlob(place, manifest.config, MAX_CONFIG));
  if (diffIds.length !== manifest.layers.length) throw failedPrecondition("mismatched image rootfs and manifest layers");
  const chain = chainIds(diffIds);
  const has = (key: string): boolean => {
    try {
      snapshotter.stat(namespace, key);
      return true;
    } catch (error) {
      if (isKind(error, "NotFound")) return false;
      throw error;
    }
  };
  for (let i = 0; i < chain.length; i++) {
    if (has(chain[i]!)) continue;
    place.signal.throwIfAborted();
    const layer = manifest.layers[i]!;
    const step = { name: refOf(layer), parents: [`manifest-${parent}`], progress: layer.size, total: layer.size, descriptor: layer };
    place.progress("extracting", step);
    const key = `extract-${Date.now()}-${randomBytes(3).toString("hex")} ${chain[i]}`;
    const labels = { "containerd.io/snapshot.ref": chain[i]! };
    const mounts = snapshotter.prepare(namespace, key, chain[i - 1] ?? "", labels, lease);
    try {
      const { layers, upper } = layersOf(mounts);
      await applyLayer({
        file: content.path(namespace, layer.digest),
        root: upper!,
        whiteouts: i === 0 ? "remove" : "overlay",
        parents: layers.slice(1),
        diffId: diffIds[i]!,
        signal: place.signal,
      });
      snapshotter.commit(namespace, chain[i]!, key, labels, lease);
    } catch (error) {
      snapshotter.remove(namespace, key);
      if (!isKind(error, "AlreadyExists")) throw error;
    }
    content.setLabels(namespace, layer.digest, (current) => ({ ...current, "containerd.io/uncompressed": diffIds[i]! }));
    place.progress("extracted", step);
  }
  if (chain.length > 0) {
    const label = `containerd.io/gc.ref.snapshot.${snapshotter.name}`;
    content.setLabels(namespace, manifest.config.digest, (current) => ({ ...current, [label]: chain.at(-1)! }));
  }
}

/** Gives an image its name, or changes what the name means. */
export function setImage(place: Place, name: string, target: Descriptor, labels: Record<string, string>): Image {
  const { mediaType, digest, size, annotations } = target;
  const image = create(ImageSchema, {
    name,
    labels,
    target: { mediaType, digest, size: BigInt(size), ...(annotations ? { annotations } : {}) },
  });
  try {
    return place.images.create(place.namespace, image, place.lease);
  } catch (error) {
    if (!isKind(error, "AlreadyExists")) throw error;
    return place.images.update(place.namespace, image, []);
  }
}

export function descriptorOf(image: Image): Descriptor {
  const { mediaType, digest, size } = image.target!;
  return { mediaType, digest, size: Number(size) };
}
