// What the registry needs to know of a manifest or an index: its media type, what it names, what it refers to. The bytes are kept as they came.
import { Failure, messageOf } from "../lib/errors.ts";
import { type Descriptor, type Digest, isForeign, isIndexType, isManifestType, parseDescriptor, parseManifest } from "../oci/index.ts";
import { refuse } from "./errors.ts";

export interface Document {
  mediaType: string;
  /** Config and layers; `optional` ones may lie elsewhere (image-spec layer.md, "Non-Distributable Layers"). */
  blobs: { digest: Digest; optional: boolean }[];
  /** The manifests of an index. */
  manifests: Digest[];
  subject?: Descriptor;
  artifactType?: string;
  annotations?: Record<string, string>;
}

const known = new WeakMap<Uint8Array, Document>();

function parse(bytes: Uint8Array, mediaType: string | undefined): Document {
  const parsed = parseManifest(bytes, mediaType);
  if (parsed.manifest) {
    const { manifest } = parsed;
    const artifactType = manifest.artifactType ?? manifest.config.mediaType;
    return {
      mediaType: manifest.mediaType,
      blobs: [
        { digest: manifest.config.digest, optional: false },
        ...manifest.layers.map((layer) => ({
          digest: layer.digest,
          optional: isForeign(layer) || layer.urls !== undefined,
        })),
      ],
      manifests: [],
      ...(manifest.subject ? { subject: manifest.subject } : {}),
      ...(artifactType ? { artifactType } : {}),
      ...(manifest.annotations ? { annotations: manifest.annotations } : {}),
    };
  }
  const { index } = parsed;
  const json = JSON.parse(Buffer.from(bytes).toString()) as { subject?: unknown; artifactType?: unknown };
  return {
    mediaType: index.mediaType,
    blobs: [],
    manifests: index.manifests.map((manifest) => manifest.digest),
    ...(json.subject === undefined || json.subject === null ? {} : { subject: parseDescriptor(json.subject, "index subject") }),
    ...(typeof json.artifactType === "string" ? { artifactType: json.artifactType } : {}),
    ...(index.annotations ? { annotations: index.annotations } : {}),
  };
}

/** A stored manifest's facts; remembered as long as its bytes are. */
export function documentOf(bytes: Uint8Array): Document {
  let document = known.get(bytes);
  if (!document) {
    document = parse(bytes, undefined);
    known.set(bytes, document);
  }
  return document;
}

const GENERIC = new Set(["", "application/json", "application/octet-stream", "application/x-www-form-urlencoded"]);

/** A manifest that someone brings, announced as `contentType`. MANIFEST_INVALID with the reason. */
export function acceptDocument(bytes: Uint8Array, contentType: string): Document {
  const announced = contentType.split(";")[0]!.trim().toLowerCase();
  if (!GENERIC.has(announced) && !isManifestType(announced) && !isIndexType(announced))
    throw refuse("MANIFEST_INVALID", { message: `manifests of type ${announced.slice(0, 200)} are not supported` });
  try {
    const type = GENERIC.has(announced) ? undefined : announced;
    parse(bytes, type);
    const document = parse(bytes, undefined);
    // The type is told from the bytes when the manifest is asked for: what they don't say would be lost.
    if (type !== undefined && document.mediaType !== type)
      throw refuse("MANIFEST_INVALID", { message: `the manifest was announced as ${type}, but its mediaType is ${document.mediaType}` });
    known.set(bytes, document);
    return document;
  } catch (error) {
    if (error instanceof Failure && error.kind === "InvalidArgument" && !("code" in error))
      throw refuse("MANIFEST_INVALID", { detail: messageOf(error), message: `manifest invalid: ${messageOf(error)}` });
    throw error;
  }
}
