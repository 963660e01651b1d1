// What a client says of an export, parsed: names, compression, annotations (BuildKit's attributes of exporters).
import { invalidArgument } from "../../lib/errors.ts";
import { parseBool } from "../../lib/parse-bool.ts";
import { type Compression, formatPlatform, parsePlatform } from "../../oci/index.ts";

export interface ImageOptions {
  /** "*" stands for what the frontend says. */
  names: string[];
  push: boolean;
  /** Undefined: the type's default. */
  compression: Extract<Compression, "gzip" | "zstd" | "none"> | undefined;
  /** Undefined: the compressor's default. */
  level: number | undefined;
  /** Layers that are compressed otherwise are compressed again. */
  force: boolean;
  ociTypes: boolean;
  /** Attestation manifests say what they are and whom they are about as OCI artifacts do. */
  ociArtifact: boolean;
  inlineCache: boolean;
  /** Attestations that are for images only are part of it; undefined: the type's default. */
  inlineAttestations: boolean | undefined;
  /** With SOURCE_DATE_EPOCH no file of a layer that was built is later. BuildKit does it when asked to; here it is so unless it is refused. */
  rewriteTimes: boolean;
  /** SOURCE_DATE_EPOCH for this export; undefined: the build's. */
  epoch: number | undefined;
  annotations: Annotation[];
}

export interface Annotation {
  on: "manifest" | "index" | "manifest-descriptor" | "index-descriptor";
  /** Undefined: all. */
  platform: string | undefined;
  key: string;
  value: string;
}

/** Whether an attribute means yes; a name without a value is one. */
export const isTrue = (attrs: Readonly<Record<string, string>>, name: string, absent = false): boolean => {
  const text = attrs[name];
  if (text === undefined) return absent;
  const value = text === "" || parseBool(text);
  if (value === undefined)
    throw invalidArgument(`non-bool value specified for ${name}: strconv.ParseBool: parsing ${JSON.stringify(text)}: invalid syntax`);
  return value;
};

const ANNOTATION = /^annotation(?:-([a-z-]+))?(?:\[([A-Za-z0-9_./-]+)\])?\.(\S+)$/;
const PLACES: readonly string[] = ["manifest", "index", "manifest-descriptor", "index-descriptor"] satisfies Annotation["on"][];

function annotationsOf(attrs: Record<string, string>): Annotation[] {
  return Object.entries(attrs).flatMap(([name, value]) => {
    const match = ANNOTATION.exec(name);
    if (!match) return [];
    const [, on = "manifest", platform, key = ""] = match;
    if (!PLACES.includes(on)) throw invalidArgument(`unrecognized annotation type ${on}`);
    return [{ on: on as Annotation["on"], platform: platform && formatPlatform(parsePlatform(platform)), key, value }];
  });
}

const COMPRESSIONS: Record<string, ImageOptions["compression"]> = { gzip: "gzip", zstd: "zstd", uncompressed: "none" };

function compressionOf({ compression = "" }: Record<string, string>): ImageOptions["compression"] {
  if (compression === "estargz") throw invalidArgument("compression type estargz is not supported: use gzip, zstd or uncompressed");
  if (compression !== "" && !Object.hasOwn(COMPRESSIONS, compression)) throw invalidArgument(`unsupported compression type ${compression}`);
  return COMPRESSIONS[compression];
}

function levelOf(text: string | undefined, compression: ImageOptions["compression"]): number | undefined {
  if (text === undefined) return undefined;
  if (!/^-?\d{1,9}$/.test(text))
    throw invalidArgument(
      `non-integer value ${text} specified for compression-level: strconv.ParseInt: parsing ${JSON.stringify(text)}: invalid syntax`,
    );
  const level = Number(text);
  // zstd's levels go further, and a higher one means the highest.
  if (compression === "zstd") return level < 1 ? 3 : Math.min(level, 22);
  if (level < -1 || level > 9) throw invalidArgument(`gzip: invalid compression level: ${level}`);
  return level;
}

export function imageOptions(attrs: Record<string, string>): ImageOptions {
  const compression = compressionOf(attrs);
  const annotations = annotationsOf(attrs);
  const epoch = attrs["source-date-epoch"] ?? "";
  if (epoch !== "" && !/^\d{1,12}$/.test(epoch)) throw invalidArgument(`invalid source-date-epoch: ${epoch}`);
  const ociArtifact = isTrue(attrs, "oci-artifact");
  if (isTrue(attrs, "unpack") && attrs["rewrite-timestamp"] !== undefined && isTrue(attrs, "rewrite-timestamp"))
    throw invalidArgument('exporter option "rewrite-timestamp" conflicts with "unpack"');
  return {
    names: (attrs.name ?? "").split(",").filter(Boolean),
    push: isTrue(attrs, "push"),
    compression,
    level: levelOf(attrs["compression-level"], compression),
    force: isTrue(attrs, "force-compression"),
    // What only OCI's types have needs them.
    ociTypes: isTrue(attrs, "oci-mediatypes", true) || ociArtifact || annotations.some(({ on }) => on !== "manifest"),
    ociArtifact,
    inlineCache: isTrue(attrs, "inline-cache"),
    inlineAttestations: attrs["attestation-inline"] === undefined ? undefined : isTrue(attrs, "attestation-inline"),
    rewriteTimes: isTrue(attrs, "rewrite-timestamp", true),
    epoch: epoch === "" ? undefined : Number(epoch),
    annotations,
  };
}

export const annotationsFor = (
  list: readonly Annotation[],
  on: Annotation["on"],
  platform?: string,
): Record<string, string> | undefined => {
  const found = list.filter((each) => each.on === on && (each.platform === undefined || each.platform === platform));
  return found.length > 0 ? Object.fromEntries(found.map(({ key, value }) => [key, value])) : undefined;
};
