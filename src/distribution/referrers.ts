// Referrers in registries that have no referrers API: the client keeps their list, as an index under the tag that the subject's digest makes (distribution-spec,
// "Pushing Manifests with Subject" and "Referrers Tag Schema").
import { invalidArgument } from "../lib/errors.ts";
import { algorithmOf, type Descriptor, type Digest, hexOf, isIndexType, MAX_MANIFEST, MEDIA, parseDescriptor } from "../oci/index.ts";

export interface Referrer {
  subject: Digest;
  /** As the list has it: with its artifact type and annotations. */
  entry: Descriptor;
}

/** What a manifest or index refers to by its `subject`; undefined where it has none. */
export function referrerOf(descriptor: Descriptor, bytes: Uint8Array): Referrer | undefined {
  const json = JSON.parse(new TextDecoder().decode(bytes)) as Record<string, unknown>;
  if (json.subject === undefined || json.subject === null) return undefined;
  const { digest: subject } = parseDescriptor(json.subject, "manifest subject");
  const config = json.config as { mediaType?: unknown } | undefined;
  const type = json.artifactType || (isIndexType(descriptor.mediaType) ? undefined : config?.mediaType);
  const { mediaType, digest, size } = descriptor;
  const entry = {
    mediaType,
    digest,
    size,
    ...(type ? { artifactType: type } : {}),
    ...(json.annotations ? { annotations: json.annotations } : {}),
  };
  return { subject, entry: parseDescriptor(entry, "referrer") };
}

export function referrersTag(subject: Digest): string {
  return `${algorithmOf(subject)}-${hexOf(subject).slice(0, 64)}`;
}

/** The list with one more entry; undefined where that is in it. `known`: what is under the tag. InvalidArgument where that is no index, or has no room. */
export function withReferrer(known: Uint8Array | undefined, entry: Descriptor): Uint8Array | undefined {
  const list = known ? (JSON.parse(new TextDecoder().decode(known)) as { mediaType?: unknown; manifests?: unknown }) : {};
  if (known && (list.mediaType !== MEDIA.ociIndex || !Array.isArray(list.manifests)))
    throw invalidArgument("the tag for the list of referrers names something else");
  const manifests = (list.manifests ?? []) as { digest?: unknown }[];
  if (manifests.some(({ digest }) => digest === entry.digest)) return undefined;
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MEDIA.ociIndex, ...list, manifests: [...manifests, entry] }));
  if (bytes.length > MAX_MANIFEST) throw invalidArgument("the list of referrers has no room for another one");
  return bytes;
}
