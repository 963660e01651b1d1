// Caches of other builders: from a registry (a cache of its own, or what an image has within), or from a client's directory.
import { createReadStream } from "node:fs";
import { failedPrecondition, invalidArgument, notFound, unimplemented } from "../../lib/errors.ts";
import {
  type Descriptor,
  MAX_CONFIG,
  MAX_MANIFEST,
  MEDIA,
  parseDigest,
  parseImageConfig,
  parseManifest,
  parseReference,
  withDefaultTag,
} from "../../oci/index.ts";
import { hasBlob, readBlob, writeBlob } from "../content.ts";
import type { BaseImage, BuilderHost, BuildHost, Layer, Lease, Status } from "../host.ts";
import type { CacheOption } from "../session.ts";
import type { CacheSource } from "../solve/vertex.ts";
import { EMPTY, type Tree, treeOf } from "../solve/workspace.ts";
import { layoutBlobs } from "../sources/oci-layout.ts";
import { type CacheConfig, CONFIG_TYPE, MAX_CACHE_CONFIG, outputKey, parseCacheConfig, stackOf } from "./config.ts";

export interface ImportOptions {
  host: BuilderHost;
  build: BuildHost;
  lease: Lease;
  signal: AbortSignal;
}

/** Where blobs come from. */
interface Store {
  read(descriptor: Descriptor, limit: number): Promise<Uint8Array>;
  stream(descriptor: Descriptor): AsyncIterable<Uint8Array>;
}

type FetchLayers = (layers: readonly Layer[], status?: (status: Status) => void) => Promise<void>;

function sourceOf(config: CacheConfig, layers: readonly (Layer | undefined)[], fetch: FetchLayers): CacheSource {
  const records = new Map(config.records.map(({ digest, results }) => [digest, results]));
  const treeAt = (key: string): Tree | undefined => {
    const results = records.get(key);
    if (results?.length === 0) return EMPTY;
    for (const { layer } of results ?? []) {
      const stack = stackOf(config, layer)?.map((at) => layers[at]);
      if (stack?.every((each) => each !== undefined)) return treeOf(stack, (status) => fetch(stack, status));
    }
    return undefined;
  };
  return {
    async find(key, outputs) {
      const found = new Map<number, Tree>();
      for (const output of outputs) {
        const tree = treeAt(outputKey(key, output));
        if (!tree) return undefined;
        found.set(output, tree);
      }
      return found;
    },
  };
}

function fetcher({ host, lease, signal }: ImportOptions, store: Store): FetchLayers {
  const running = new Map<string, Promise<void>>();
  const one = async ({ descriptor, diffId }: Layer, status: (status: Status) => void): Promise<void> => {
    const { mediaType, digest, size } = descriptor;
    if (await hasBlob(host.manager, digest)) return;
    let current = 0;
    const tell = (completed: boolean) => status({ id: digest, name: digest, current, total: size, completed });
    async function* counted() {
      for await (const piece of store.stream(descriptor)) {
        current += piece.length;
        tell(false);
        yield piece;
      }
    }
    const labels = { "containerd.io/uncompressed": diffId };
    await writeBlob(host.manager, counted(), { mediaType, labels, lease, signal, expected: descriptor });
    tell(true);
  };
  return async (layers, status = () => {}) => {
    await Promise.all(
      layers.map((layer) => {
        const { digest } = layer.descriptor;
        const work = running.get(digest) ?? one(layer, status);
        running.set(digest, work);
        work.catch(() => running.delete(digest));
        return work;
      }),
    );
  };
}

/** The layers of a cache of its own: the config says all, and each must be among the manifest's blobs. */
function ownLayers(config: CacheConfig, blobs: readonly Descriptor[]): (Layer | undefined)[] {
  const there = new Map(blobs.map((blob) => [blob.digest, blob]));
  return config.layers.map(({ blob, annotations }) => {
    const descriptor = there.get(blob);
    if (!descriptor || !annotations) return undefined;
    return { descriptor: { mediaType: annotations.mediaType, digest: blob, size: descriptor.size }, diffId: annotations.diffID };
  });
}

/** What an image's config has of a cache; undefined where it has none. Layers are the image's, by digest or diff id. */
export function inlineSource(configBytes: Uint8Array, descriptors: readonly Descriptor[], fetch: FetchLayers): CacheSource | undefined {
  const image = parseImageConfig(configBytes);
  const text = image.raw["moby.buildkit.cache.v0"];
  if (typeof text !== "string" || descriptors.length !== image.diffIds.length) return undefined;
  const config = parseCacheConfig(Buffer.from(text, "base64"));
  const own = descriptors.map(
    ({ mediaType, digest, size }, i): Layer => ({ descriptor: { mediaType, digest, size }, diffId: image.diffIds[i]! }),
  );
  const layers = config.layers.map(
    ({ blob }, i) => own.find(({ descriptor, diffId }) => descriptor.digest === blob || diffId === blob) ?? own[i],
  );
  return sourceOf(config, layers, fetch);
}

async function fromStore(options: ImportOptions, store: Store, root: Descriptor, bytes: Uint8Array): Promise<CacheSource[]> {
  const fetch = fetcher(options, store);
  const { manifest, index } = parseManifest(bytes, root.mediaType || undefined);
  if (manifest) {
    const configBytes = await store.read(manifest.config, MAX_CACHE_CONFIG);
    if (manifest.config.mediaType === CONFIG_TYPE) {
      const config = parseCacheConfig(configBytes);
      return [sourceOf(config, ownLayers(config, manifest.layers), fetch)];
    }
    const inline = inlineSource(configBytes, manifest.layers, fetch);
    return inline ? [inline] : [];
  }
  const own = index.manifests.find(({ mediaType }) => mediaType === CONFIG_TYPE);
  if (own) {
    const config = parseCacheConfig(await store.read(own, MAX_CACHE_CONFIG));
    return [sourceOf(config, ownLayers(config, index.manifests), fetch)];
  }
  const found: CacheSource[] = [];
  for (const child of index.manifests.slice(0, 32)) {
    const attestation = child.annotations?.["vnd.docker.reference.type"] !== undefined;
    if (attestation || !(child.mediaType === MEDIA.ociManifest || child.mediaType === MEDIA.dockerManifest)) continue;
    found.push(...(await fromStore(options, store, child, await store.read(child, MAX_MANIFEST))));
  }
  return found;
}

export async function importCache(
  { type, attrs }: CacheOption,
  options: ImportOptions,
): Promise<{ name: string; sources: CacheSource[]; release?: () => Promise<void> }> {
  const { build, signal } = options;
  if (type === "registry") {
    const ref = attrs.ref ?? "";
    if (ref === "") throw invalidArgument("registry cache importer requires ref");
    if (!build.repository) throw unimplemented("caches in registries, at this door");
    const insecure = attrs["registry.insecure"] === "true";
    const reference = withDefaultTag(parseReference(ref));
    const repository = await build.repository(ref, { insecure, push: false });
    const { descriptor, bytes } = await repository.manifest(reference.digest ?? reference.tag!, signal);
    const store: Store = {
      read: async (wanted, limit) =>
        wanted.mediaType === MEDIA.ociManifest || wanted.mediaType === MEDIA.dockerManifest
          ? (await repository.manifest(wanted, signal)).bytes
          : repository.blob(wanted, limit, signal),
      stream: (wanted) => repository.stream(wanted, { signal }),
    };
    return { name: ref, sources: await fromStore(options, store, descriptor, bytes) };
  }
  if (type === "local") {
    const { src = "", digest = "" } = attrs;
    if (src === "") throw invalidArgument("local cache importer requires src");
    if (digest === "") throw invalidArgument("local cache importer requires explicit digest");
    if (!build.ociLayout) throw unimplemented("caches in directories of a client, at this door");
    const { directory, release } = await build.ociLayout(`local:${src}`, parseDigest(digest), signal);
    const blobs = layoutBlobs(directory);
    const store: Store = {
      read: ({ digest: wanted }, limit) => blobs.read(wanted, limit),
      stream: ({ digest: wanted }) => createReadStream(blobs.pathOf(wanted)),
    };
    try {
      const root: Descriptor = { mediaType: "", digest, size: 0 };
      return { name: src, sources: await fromStore(options, store, root, await blobs.read(digest, MAX_MANIFEST)), release };
    } catch (error) {
      await release();
      throw error;
    }
  }
  if (type === "inline") return { name: "inline", sources: [] };
  throw unimplemented(`cache imports of the type ${type}`);
}

/** An image that is here, as a cache: by what its config has of one. */
export async function imageCache(image: BaseImage, host: BuilderHost): Promise<CacheSource | undefined> {
  if (image.layers.length === 0) throw failedPrecondition("the image has no layers");
  if (!(await hasBlob(host.manager, image.id))) throw notFound(`content ${image.id} is not there`);
  const descriptors = image.layers.map(({ descriptor }) => descriptor);
  return inlineSource(await readBlob(host.manager, image.id, MAX_CONFIG), descriptors, async () => {});
}
