// GET /images/get: images as one tar that is an OCI image layout and, by its manifest.json, an archive for every `docker load`.
import { notFound } from "../../lib/errors.ts";
import {
  type ArchiveImage,
  choosePlatform,
  type Descriptor,
  familiarReference,
  formatPlatform,
  imageArchive,
  MAX_MANIFEST,
  type Platform,
  parseManifest,
} from "../../oci/index.ts";
import type { CatalogueEntry } from "./catalogue.ts";
import { hasBlob, readBlob, streamBlob } from "./content.ts";
import { type Core, publish, referencesOf } from "./core.ts";

/** The one image of a platform; NotFound in Docker's words. */
export async function imageFor(core: Core, entry: CatalogueEntry, name: string, platform: Platform): Promise<Descriptor> {
  const { target, config } = entry.content;
  const { index } = parseManifest(await readBlob(core.engine.manager, target.digest, MAX_MANIFEST), target.mediaType);
  const chosen = index
    ? choosePlatform(
        index.manifests.filter((child) => child.platform),
        platform,
      )
    : choosePlatform([{ ...target, platform: config }], platform);
  if (chosen && (await hasBlob(core.engine.manager, chosen.digest)))
    return { mediaType: chosen.mediaType, digest: chosen.digest, size: chosen.size };
  const actual = formatPlatform({
    os: config.os,
    architecture: config.architecture,
    ...(config.variant ? { variant: config.variant } : {}),
  });
  throw notFound(
    `image with reference ${name} was found but its platform (${actual}) does not match the specified platform (${formatPlatform(platform)})`,
  );
}

async function collect(
  core: Core,
  names: readonly string[],
  platform: Platform | undefined,
): Promise<{ images: ArchiveImage[]; ids: string[] }> {
  const images = new Map<string, ArchiveImage>();
  const ids = new Set<string>();
  for (const name of names) {
    // A name without a tag means the tag "latest"; an id none of them.
    const entry = await core.catalogue.find(name);
    const { content } = entry;
    const target = platform ? await imageFor(core, entry, name, platform) : content.target;
    const image = images.get(target.digest) ?? { target, main: content.manifestDescriptor.digest, names: [] };
    images.set(target.digest, image);
    ids.add(entry.id);
    const matched = entry.matched && referencesOf(entry).find((one) => one.name === entry.matched!.name)?.reference;
    if (matched?.tag === undefined || matched.digest !== undefined) continue;
    const annotations = {
      "io.containerd.image.name": `${matched.domain}/${matched.path}:${matched.tag}`,
      "org.opencontainers.image.ref.name": matched.tag,
    };
    if (
      !image.names.some(
        (one) => one.reference.tag === matched.tag && one.reference.path === matched.path && one.reference.domain === matched.domain,
      )
    )
      image.names.push({ reference: matched, annotations, repoTag: familiarReference(matched) });
  }
  return { images: [...images.values()], ids: [...ids] };
}

/** The tar, piece by piece. NotFound before the first piece where an image or a part of one is not there. */
export async function save(
  core: Core,
  names: readonly string[],
  platform: Platform | undefined,
  signal: AbortSignal,
): Promise<AsyncIterable<Uint8Array>> {
  const { images, ids } = await collect(core, names, platform);
  const { manager } = core.engine;
  const source = {
    has: (digest: string) => hasBlob(manager, digest),
    read: (digest: string, limit: number) => readBlob(manager, digest, limit),
    open: (digest: string) => streamBlob(manager, digest),
  };
  const { tar } = await imageArchive(source, images, { repositories: true, signal });
  return (async function* () {
    yield* tar;
    for (const id of ids) publish(core, "save", id, id);
  })();
}
