// POST /images/{name}/push
import { type Credentials, openRepository, RegistryError } from "../../distribution/index.ts";
import { notFound } from "../../lib/errors.ts";
import {
  type Descriptor,
  familiarName,
  familiarReference,
  formatReference,
  MAX_MANIFEST,
  nameOf,
  parseManifest,
  type Reference,
} from "../../oci/index.ts";
import { hasBlob, labelBlob, readBlob, streamBlob } from "./content.ts";
import { type Core, publish } from "./core.ts";
import { type ProgressSink, shortId } from "./progress.ts";

/** Repositories of a registry that are remembered as having a layer; a label is at most 4096 bytes long. */
const SOURCES = 10;

/** What is pushed under the name: the index where all of it is here, else the one image that is. */
async function whatToPush(core: Core, reference: Reference): Promise<{ top: Descriptor; manifests: Descriptor[] }> {
  const found = await core.catalogue.byName(formatReference(reference));
  if (!found) throw notFound(`An image does not exist locally with the tag: ${familiarName(reference)}`);
  const { manager } = core.engine;
  const { target, manifestDescriptor } = found.content;
  const parsed = parseManifest(await readBlob(manager, target.digest, MAX_MANIFEST), target.mediaType);
  if (!parsed.index) return { top: target, manifests: [target] };
  for (const child of parsed.index.manifests) {
    const complete = (await hasBlob(manager, child.digest)) && (await childrenThere(core, child));
    if (!complete) return { top: manifestDescriptor, manifests: [manifestDescriptor] };
  }
  return { top: target, manifests: [...parsed.index.manifests, target] };
}

async function childrenThere(core: Core, manifest: Descriptor): Promise<boolean> {
  const { manager } = core.engine;
  const parsed = parseManifest(await readBlob(manager, manifest.digest, MAX_MANIFEST), manifest.mediaType);
  if (!parsed.manifest) return false;
  for (const child of [parsed.manifest.config, ...parsed.manifest.layers]) if (!(await hasBlob(manager, child.digest))) return false;
  return true;
}

export async function push(
  core: Core,
  reference: Reference,
  credentials: Credentials | undefined,
  sink: ProgressSink,
  signal: AbortSignal,
): Promise<void> {
  const { manager } = core.engine;
  const { top, manifests } = await whatToPush(core, reference);
  sink.line({ status: `The push refers to repository [${nameOf(reference)}]` });
  const repository = openRepository(reference, core.registry, credentials, "push");
  const source = `containerd.io/distribution.source.${reference.domain}`;
  try {
    for (const descriptor of manifests) {
      const bytes = await readBlob(manager, descriptor.digest, MAX_MANIFEST);
      const { manifest } = parseManifest(bytes, descriptor.mediaType);
      const layers = manifest?.layers ?? [];
      for (const layer of layers) sink.line({ status: "Preparing", progressDetail: {}, id: shortId(layer.digest) });
      await Promise.all(
        layers.map(async (layer) => {
          const id = shortId(layer.digest);
          const { info } = await manager.content.info({ digest: layer.digest });
          const known = info?.labels[source]?.split(",").filter(Boolean) ?? [];
          const from = known.find((path) => path !== reference.path);
          const result = await repository.push(layer, () => streamBlob(manager, layer.digest), {
            signal,
            onProgress: (bytes) => sink.bar(id, "Pushing", bytes, layer.size),
            ...(from ? { from } : {}),
          });
          // The next push to that registry may mount it from here.
          if (!known.includes(reference.path))
            await labelBlob(manager, layer.digest, { [source]: [reference.path, ...known].slice(0, SOURCES).join(",") });
          const status = { pushed: "Pushed", exists: "Layer already exists", mounted: `Mounted from ${from}` }[result];
          sink.line({ status, progressDetail: {}, id });
        }),
      );
      if (manifest) await repository.push(manifest.config, () => streamBlob(manager, manifest.config.digest), { signal });
      const last = descriptor.digest === top.digest;
      await repository.pushManifest(descriptor, bytes, last ? (reference.tag ?? undefined) : undefined, signal);
    }
  } catch (error) {
    if (error instanceof RegistryError && error.code === "DENIED") throw new Error(error.message, { cause: error });
    throw error;
  }
  const tag = reference.tag ?? top.digest;
  sink.line({ status: `${tag}: digest: ${top.digest} size: ${top.size}` });
  sink.line({ progressDetail: {}, aux: { Tag: tag, Digest: top.digest, Size: top.size } });
  publish(core, "push", familiarReference(reference), familiarName(reference));
}
