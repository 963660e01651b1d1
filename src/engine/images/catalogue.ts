// What images there are: names of the manager's image store, what they lead to, and the image ids (digests of configs) that the API shows. What a digest
// leads to never changes, so it is read once and kept.
import type { Image } from "../../gen/containerd/services/images/v1_pb.ts";
import { Failure, notFound } from "../../lib/errors.ts";
import {
  asImageId,
  chainId,
  chainIds,
  type Descriptor,
  familiarReference,
  fitness,
  formatReference,
  hexOf,
  hostPlatform,
  type ImageConfigFile,
  type Index,
  isDigest,
  MAX_CONFIG,
  MAX_MANIFEST,
  type Manifest,
  parseImageConfig,
  parseManifest,
  parseReference,
  type Reference,
  withDefaultTag,
} from "../../oci/index.ts";
import type { Manager } from "../context.ts";
import { isMissing, readBlob } from "./content.ts";

/** Content that is an image for one platform. */
export interface Content {
  /** What the name leads to: an index or a manifest. */
  target: Descriptor;
  manifest: Manifest;
  manifestDescriptor: Descriptor;
  config: ImageConfigFile;
  /** Chain ids, lowest layer first. */
  chain: string[];
  chainId: string;
}

/** An image id with all that leads to it. */
export interface CatalogueEntry {
  /** Digest of the config. */
  id: string;
  content: Content;
  /** Entries of the image store. */
  names: Image[];
}

/** Names of images without a name, as dockerd writes them: kept only so that they are not garbage. */
export const DANGLING = "moby-dangling@";

export interface Catalogue {
  /** By id, id prefix, name with or without tag or digest. NotFound in Docker's words. */
  find(ref: string): Promise<CatalogueEntry & { matched: Image | undefined }>;
  byName(name: string): Promise<{ image: Image; content: Content } | undefined>;
  list(): Promise<CatalogueEntry[]>;
  /** What a target digest leads to; undefined where it is not (wholly) there, or no image. */
  open(target: Descriptor): Promise<Content | undefined>;
  get(name: string): Promise<Image | undefined>;
}

const MAX_CACHED = 5000;

export function noSuchImage(ref: string): Failure {
  let shown = ref;
  try {
    if (!isDigest(ref)) shown = familiarReference(withDefaultTag(parseReference(ref)));
  } catch {
    // the text itself then
  }
  return notFound(`No such image: ${shown}`);
}

/** The descriptor of a store entry. */
export function targetOf(image: Image): Descriptor {
  const target = image.target!;
  return { mediaType: target.mediaType, digest: target.digest, size: Number(target.size) };
}

export function createCatalogue(manager: Manager): Catalogue {
  const opened = new Map<string, Content>();
  const host = hostPlatform();

  async function readManifest(target: Descriptor, manifestDescriptor: Descriptor, manifest: Manifest): Promise<Content | undefined> {
    try {
      const config = parseImageConfig(await readBlob(manager, manifest.config.digest, MAX_CONFIG));
      return { target, manifest, manifestDescriptor, config, chain: chainIds(config.diffIds), chainId: chainId(config.diffIds) };
    } catch (error) {
      if (error instanceof Failure) return undefined;
      throw error;
    }
  }

  async function openIndex(target: Descriptor, index: Index): Promise<Content | undefined> {
    // The platform of this machine first, then whatever is there: a pull brings one of them only.
    const score = (entry: Descriptor) => (entry.platform ? fitness(host, entry.platform) : 1);
    const entries = index.manifests.filter((entry) => entry.platform?.architecture !== "unknown").sort((a, b) => score(b) - score(a));
    for (const entry of entries) {
      const content = await openTarget(target, entry);
      if (content) return content;
    }
    return undefined;
  }

  async function openTarget(target: Descriptor, descriptor: Descriptor): Promise<Content | undefined> {
    let parsed: ReturnType<typeof parseManifest>;
    try {
      parsed = parseManifest(await readBlob(manager, descriptor.digest, MAX_MANIFEST), descriptor.mediaType);
    } catch (error) {
      if (error instanceof Failure) return undefined;
      throw error;
    }
    return parsed.index ? openIndex(target, parsed.index) : readManifest(target, descriptor, parsed.manifest);
  }

  const open = async (target: Descriptor): Promise<Content | undefined> => {
    const known = opened.get(target.digest);
    if (known) return known;
    const content = await openTarget(target, target);
    if (content) {
      if (opened.size >= MAX_CACHED) opened.clear();
      opened.set(target.digest, content);
    }
    return content;
  };

  const get = async (name: string): Promise<Image | undefined> => {
    try {
      return (await manager.images.get({ name })).image;
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  };

  const byName = async (name: string) => {
    const image = await get(name);
    const content = image && (await open(targetOf(image)));
    return image && content ? { image, content } : undefined;
  };

  const list = async (): Promise<CatalogueEntry[]> => {
    const { images } = await manager.images.list({});
    const entries = new Map<string, CatalogueEntry>();
    for (const image of images) {
      const content = await open(targetOf(image));
      if (!content) continue;
      const id = content.manifest.config.digest;
      const entry = entries.get(id);
      if (entry) entry.names.push(image);
      else entries.set(id, { id, content, names: [image] });
    }
    return [...entries.values()];
  };

  const namesOf = async (id: string): Promise<Image[]> => (await list()).find((entry) => entry.id === id)?.names ?? [];

  const found = async (image: Image, content: Content) => {
    const id = content.manifest.config.digest;
    return { id, content, names: await namesOf(id), matched: image };
  };

  return {
    open,
    get,
    byName,
    list,
    async find(ref) {
      const { digest, prefix } = asImageId(ref);
      let reference: Reference | undefined;
      if (digest === undefined) {
        try {
          reference = withDefaultTag(parseReference(ref));
        } catch (error) {
          if (prefix === undefined) throw error;
        }
      }
      if (reference) {
        const exact = await byName(formatReference(reference));
        if (exact) return found(exact.image, exact.content);
        // "name:tag@digest" means the digest, if the name has it
        if (reference.digest !== undefined && reference.tag !== undefined) {
          const { tag: _, ...rest } = reference;
          const pinned = await byName(formatReference(rest));
          if (pinned) return found(pinned.image, pinned.content);
        }
      }
      if (digest === undefined && prefix === undefined) throw noSuchImage(ref);
      const wanted = digest ? hexOf(digest) : prefix!;
      const matching = (await list()).filter((entry) => hexOf(entry.id).startsWith(wanted));
      if (matching.length !== 1) throw noSuchImage(ref);
      return { ...matching[0]!, matched: undefined };
    },
  };
}

/** What a list shows of an image's names: familiar ones with tag, and with digest. */
export function shownNames(names: readonly Image[]): { tags: string[]; digests: string[] } {
  const tags: string[] = [];
  const digests: string[] = [];
  for (const { name } of names) {
    if (name.startsWith(DANGLING)) continue;
    try {
      const reference = parseReference(name);
      (reference.digest === undefined ? tags : digests).push(familiarReference(reference));
    } catch {
      // a name that another client gave and that is no reference: Docker does not show it either
    }
  }
  return { tags: tags.sort(), digests: digests.sort() };
}
