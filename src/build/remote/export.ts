// The cache of a build, for other builders: in a registry, in a client's directory, or within the image that was built.
import { Readable } from "node:stream";
import { invalidArgument, unimplemented } from "../../lib/errors.ts";
import { blobPath, type Descriptor, MEDIA, parseReference, withDefaultTag } from "../../oci/index.ts";
import { hasBlob, streamBlob, writeBytes } from "../content.ts";
import type { ExportContext } from "../export/context.ts";
import { layerAs } from "../export/layers.ts";
import { imageOptions, isTrue } from "../export/options.ts";
import { blobTree, sizedFile } from "../export/trees.ts";
import type { BuildHost, Layer } from "../host.ts";
import type { CacheOption, ExportAnswer, ExportSink, Result } from "../session.ts";
import type { Tree } from "../solve/workspace.ts";
import { CONFIG_TYPE, cacheConfig, type Exported, isWithin } from "./config.ts";

/** What the cache knows of the build: all that was solved (max), or what became part of the results (min). */
async function exported(context: ExportContext, result: Result, mode: "min" | "max"): Promise<(Exported & { tree: Tree })[]> {
  const wholes: Tree[] = [];
  for (const ref of result.refs.size > 0 ? result.refs.values() : [result.ref]) wholes.push(await context.treeOf(ref));
  const found: (Exported & { tree: Tree })[] = [];
  for (const { keys, outputs } of (await context.solved()).values()) {
    if (keys.length === 0) continue;
    for (const [output, tree] of outputs) {
      if (mode === "min" && !wholes.some((whole) => isWithin(tree.layers, whole.layers))) continue;
      found.push({ keys, output, layers: tree.layers, tree });
    }
  }
  return found;
}

/** Whether it is an export that can be, before anything is built for it. InvalidArgument, Unimplemented. */
export function checkCacheExport({ type, attrs }: CacheOption): void {
  if (["gha", "s3", "azblob"].includes(type)) throw unimplemented(`cache exports of the type ${type}`);
  if (!["inline", "registry", "local"].includes(type)) throw invalidArgument(`unknown cache exporter: ${JSON.stringify(type)}`);
  if (type === "inline") return;
  const { mode = "min", ref } = attrs;
  if (mode !== "min" && mode !== "max") throw invalidArgument(`invalid cache mode ${mode}`);
  if (type === "registry" && !ref) throw invalidArgument("failed to configure registry cache exporter: ref is required");
  imageOptions(attrs);
}

export async function exportCache(
  context: ExportContext,
  build: BuildHost,
  result: Result,
  { type, attrs }: CacheOption,
  sink: Pick<ExportSink, "tree">,
): Promise<ExportAnswer> {
  checkCacheExport({ type, attrs });
  if (type === "inline") return {};
  const { host, lease, signal, status } = context;
  const { manager } = host;
  const mode = attrs.mode === "max" ? "max" : "min";
  const options = imageOptions(attrs);
  const trees = await exported(context, result, mode);
  // Also what nothing has needed until now.
  for (const { tree } of trees) await tree.fetch?.();
  const compression = options.compression ?? "gzip";
  const { level, force } = options;
  const packed = new Map<string, Layer>();
  for (const { layers } of trees) {
    for (const layer of layers) {
      const { digest } = layer.descriptor;
      if (!packed.has(digest)) packed.set(digest, await layerAs(layer, { host, lease, compression, level, force, ociTypes: true, signal }));
    }
  }
  const final = trees.map((each) => ({ ...each, layers: each.layers.map(({ descriptor }) => packed.get(descriptor.digest)!) }));
  const { config, layers } = cacheConfig(final);
  const written = (value: unknown, mediaType: string) =>
    writeBytes(manager, Buffer.from(JSON.stringify(value)), { mediaType, labels: {}, lease });
  const configured = await written(config, CONFIG_TYPE);
  const blobs = [...new Map(layers.map(({ descriptor }) => [descriptor.digest, descriptor])).values()].map(
    ({ mediaType, digest, size }) => ({
      mediaType,
      digest,
      size,
    }),
  );
  const asImage = isTrue(attrs, "image-manifest", true);
  const document = asImage
    ? { schemaVersion: 2, mediaType: MEDIA.ociManifest, config: configured, layers: blobs }
    : { schemaVersion: 2, mediaType: MEDIA.ociIndex, manifests: [...blobs, configured] };
  const root = await written(document, document.mediaType);
  const answer = { "cache.manifest": JSON.stringify(root) };
  if (type === "local") {
    if (!sink.tree) throw unimplemented("caches in directories of a client, at this door");
    const files = new Map<string, { size: number; open(): Readable }>();
    for (const { digest, size } of [...blobs, configured, root])
      files.set(blobPath(digest), { size, open: () => Readable.from(streamBlob(manager, digest)) });
    const tag = attrs.tag || "latest";
    const entry = { ...root, annotations: { "org.opencontainers.image.ref.name": tag } };
    const json = (value: unknown) => sizedFile(Buffer.from(JSON.stringify(value)));
    files.set("index.json", json({ schemaVersion: 2, mediaType: MEDIA.ociIndex, manifests: [entry] }));
    files.set("oci-layout", json({ imageLayoutVersion: "1.0.0" }));
    await sink.tree(blobTree(files), status);
    return answer;
  }
  const { ref = "" } = attrs;
  if (ref === "") throw invalidArgument("registry cache exporter requires ref");
  if (!build.repository) throw unimplemented("caches in registries, at this door");
  const repository = await build.repository(ref, { insecure: isTrue(attrs, "registry.insecure"), push: true });
  const reference = withDefaultTag(parseReference(ref));
  for (const descriptor of [...blobs, configured]) {
    const name = `writing layer ${descriptor.digest}`;
    const tell = (current: number, completed: boolean) => status({ id: name, name, current, total: descriptor.size, completed });
    if (!(await hasBlob(manager, descriptor.digest))) throw invalidArgument(`content ${descriptor.digest} is not there`);
    await repository.push(descriptor, () => streamBlob(manager, descriptor.digest), { signal, onProgress: (bytes) => tell(bytes, false) });
    tell(descriptor.size, true);
  }
  const { tag } = reference;
  const bytes = Buffer.from(JSON.stringify(document));
  await repository.pushManifest(root satisfies Descriptor, bytes, tag, signal);
  return answer;
}
