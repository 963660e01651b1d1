// Descriptors, manifests and indexes (image-spec descriptor.md, manifest.md, image-index.md) in OCI's and Docker's media types.
import { invalidArgument } from "../lib/errors.ts";
import { type Digest, isDigest } from "./digest.ts";
import { type Json, list, object, optionalList, optionalText, parseObject, size, text, textMap, texts } from "./json.ts";
import type { Compression } from "./layer/decode.ts";
import type { Platform } from "./platform.ts";

export const MEDIA = {
  ociManifest: "application/vnd.oci.image.manifest.v1+json",
  ociIndex: "application/vnd.oci.image.index.v1+json",
  ociConfig: "application/vnd.oci.image.config.v1+json",
  ociLayer: "application/vnd.oci.image.layer.v1.tar",
  ociLayerGzip: "application/vnd.oci.image.layer.v1.tar+gzip",
  ociLayerZstd: "application/vnd.oci.image.layer.v1.tar+zstd",
  dockerManifest: "application/vnd.docker.distribution.manifest.v2+json",
  dockerList: "application/vnd.docker.distribution.manifest.list.v2+json",
  dockerConfig: "application/vnd.docker.container.image.v1+json",
  dockerLayer: "application/vnd.docker.image.rootfs.diff.tar",
  dockerLayerGzip: "application/vnd.docker.image.rootfs.diff.tar.gzip",
  dockerLayerZstd: "application/vnd.docker.image.rootfs.diff.tar.zstd",
  dockerForeignLayerGzip: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
  dockerSchema1: "application/vnd.docker.distribution.manifest.v1+json",
  dockerSchema1Signed: "application/vnd.docker.distribution.manifest.v1+prettyjws",
} as const;

/** A manifest or an index may not be longer (the distribution spec's and containerd's limit). */
export const MAX_MANIFEST = 4 << 20;
const MAX_ENTRIES = 1024;

export interface Descriptor {
  mediaType: string;
  digest: Digest;
  size: number;
  annotations?: Record<string, string>;
  platform?: Platform;
  artifactType?: string;
  urls?: string[];
}

export interface Manifest {
  mediaType: string;
  config: Descriptor;
  layers: Descriptor[];
  annotations?: Record<string, string>;
  artifactType?: string;
  subject?: Descriptor;
}

export interface Index {
  mediaType: string;
  manifests: Descriptor[];
  annotations?: Record<string, string>;
}

function parsePlatform(value: unknown, what: string): Platform | undefined {
  if (value === undefined || value === null) return undefined;
  const json = object(value, what);
  const platform: Platform = {
    os: optionalText(json.os, `${what}.os`) ?? "",
    architecture: optionalText(json.architecture, `${what}.architecture`) ?? "",
  };
  const variant = optionalText(json.variant, `${what}.variant`);
  if (variant) platform.variant = variant;
  const osVersion = optionalText(json["os.version"], `${what}.os.version`);
  if (osVersion) platform["os.version"] = osVersion;
  const features = texts(json["os.features"], `${what}.os.features`, MAX_ENTRIES);
  if (features.length) platform["os.features"] = features;
  return platform;
}

export function parseDescriptor(value: unknown, what: string): Descriptor {
  const json = object(value, what);
  const digest = text(json.digest, `${what}.digest`);
  if (!isDigest(digest)) throw invalidArgument(`${what}.digest is not a digest`);
  const descriptor: Descriptor = {
    mediaType: optionalText(json.mediaType, `${what}.mediaType`) ?? "",
    digest,
    size: size(json.size, `${what}.size`),
  };
  const annotations = textMap(json.annotations, `${what}.annotations`);
  if (annotations) descriptor.annotations = annotations;
  const platform = parsePlatform(json.platform, `${what}.platform`);
  if (platform) descriptor.platform = platform;
  const artifactType = optionalText(json.artifactType, `${what}.artifactType`);
  if (artifactType) descriptor.artifactType = artifactType;
  const urls = texts(json.urls, `${what}.urls`, MAX_ENTRIES);
  if (urls.length) descriptor.urls = urls;
  return descriptor;
}

export function isManifestType(mediaType: string): boolean {
  return mediaType === MEDIA.ociManifest || mediaType === MEDIA.dockerManifest;
}

export function isIndexType(mediaType: string): boolean {
  return mediaType === MEDIA.ociIndex || mediaType === MEDIA.dockerList;
}

const LAYERS: Record<"oci" | "docker", Partial<Record<Compression, string>>> = {
  oci: { gzip: MEDIA.ociLayerGzip, zstd: MEDIA.ociLayerZstd, none: MEDIA.ociLayer },
  docker: { gzip: MEDIA.dockerLayerGzip, zstd: MEDIA.dockerLayerZstd, none: MEDIA.dockerLayer },
};

/** Media type of a layer; InvalidArgument for a compression that has none. */
export function layerType(compression: Compression, dialect: "oci" | "docker" = "oci"): string {
  const type = LAYERS[dialect][compression];
  if (type === undefined) throw invalidArgument(`a layer of an image can't be compressed with ${compression}`);
  return type;
}

/** Whether a layer may not be in registries: it is to be had at the `urls` of its descriptor (image-spec, "Non-Distributable Layers"). */
export function isForeign({ mediaType }: Pick<Descriptor, "mediaType">): boolean {
  return /nondistributable|foreign/.test(mediaType);
}

/** Whether a media type names a layer that is a tar (compressed or not). */
export function isLayerType(mediaType: string): boolean {
  return /^application\/vnd\.(oci\.image\.layer\.(nondistributable\.)?v1\.tar|docker\.image\.rootfs\.(foreign\.)?diff\.tar)([+.](gzip|zstd))?$/.test(
    mediaType,
  );
}

/**
 * A manifest or an index, told apart by `mediaType` (the descriptor's or the registry's), then by the document's own, then by its fields. A document
 * that is both (CVE-2021-41190) or says another type than it was announced as is refused.
 */
export function parseManifest(
  bytes: Uint8Array,
  mediaType?: string,
): { manifest: Manifest; index?: never } | { index: Index; manifest?: never } {
  const json = parseObject(bytes, "manifest", MAX_MANIFEST);
  const own = optionalText(json.mediaType, "manifest mediaType");
  if (json.schemaVersion === 1 || own === MEDIA.dockerSchema1 || mediaType?.startsWith(MEDIA.dockerSchema1.slice(0, -5)))
    throw invalidArgument("Docker Image Format v1 and Docker Image manifest version 2, schema 1 are not supported");
  const known = (type: string | undefined) => (type !== undefined && (isManifestType(type) || isIndexType(type)) ? type : undefined);
  const announced = known(mediaType);
  if (announced && own && known(own) && own !== announced)
    throw invalidArgument(`manifest says it is ${own}, but was announced as ${announced}`);
  const hasManifests = json.manifests !== undefined && json.manifests !== null;
  const hasLayers = json.layers !== undefined || json.config !== undefined;
  const type = announced ?? known(own) ?? (hasManifests ? MEDIA.ociIndex : MEDIA.ociManifest);
  if (hasManifests && hasLayers) throw invalidArgument("manifest has both the fields of a manifest and of an index");
  return isIndexType(type) ? { index: parseIndex(json, type) } : { manifest: parseImage(json, type) };
}

function parseIndex(json: Json, mediaType: string): Index {
  const manifests = list(json.manifests, "index manifests", MAX_ENTRIES).map((item, i) => parseDescriptor(item, `index manifests[${i}]`));
  const annotations = textMap(json.annotations, "index annotations");
  return { mediaType, manifests, ...(annotations ? { annotations } : {}) };
}

function parseImage(json: Json, mediaType: string): Manifest {
  const manifest: Manifest = {
    mediaType,
    config: parseDescriptor(json.config, "manifest config"),
    layers: optionalList(json.layers, "manifest layers", MAX_ENTRIES).map((item, i) => parseDescriptor(item, `manifest layers[${i}]`)),
  };
  const annotations = textMap(json.annotations, "manifest annotations");
  if (annotations) manifest.annotations = annotations;
  const artifactType = optionalText(json.artifactType, "manifest artifactType");
  if (artifactType) manifest.artifactType = artifactType;
  if (json.subject !== undefined && json.subject !== null) manifest.subject = parseDescriptor(json.subject, "manifest subject");
  return manifest;
}
