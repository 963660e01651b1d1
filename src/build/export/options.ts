// What a client says of an export, parsed: names, compression, annotations (BuildKit's attributes of exporters).
import { invalidArgument } from "../../lib/errors.ts";
import type { Compression } from "../../oci/index.ts";

export interface ImageOptions {
  names: string[];
  push: boolean;
  /** Undefined: the type's default. */
  compression: Extract<Compression, "gzip" | "zstd" | "none"> | undefined;
  /** Undefined: the compressor's default. */
  level: number | undefined;
  /** Layers that are compressed otherwise are compressed again. */
  force: boolean;
  ociTypes: boolean;
  inlineCache: boolean;
  /** With SOURCE_DATE_EPOCH no file of a layer that was built is later. BuildKit does it when asked to; here it is so unless it is refused. */
  rewriteTimes: boolean;
  annotations: Annotation[];
}

export interface Annotation {
  on: "manifest" | "index" | "manifest-descriptor" | "index-descriptor";
  /** Undefined: all. */
  platform: string | undefined;
  key: string;
  value: string;
}

export const isTrue = (text: string | undefined, absent = false): boolean => {
  if (text === undefined) return absent;
  // A name without a value is a yes.
  if (text === "" || /^(1|t|true)$/i.test(text)) return true;
  if (/^(0|f|false)$/i.test(text)) return false;
  throw invalidArgument(`${JSON.stringify(text)} is neither true nor false`);
};

const ANNOTATION = /^annotation(?:-(manifest-descriptor|index-descriptor|manifest|index))?(?:\[([^\]]*)\])?\.(.+)$/;

export function imageOptions(attrs: Record<string, string>): ImageOptions {
  const compressions: Record<string, ImageOptions["compression"]> = { gzip: "gzip", zstd: "zstd", uncompressed: "none" };
  const { compression } = attrs;
  if (compression !== undefined && compression !== "" && !(compression in compressions)) {
    if (compression === "estargz") throw invalidArgument("compression type estargz is not supported: use gzip, zstd or uncompressed");
    throw invalidArgument(`unsupported layer compression type ${compression}`);
  }
  const level = attrs["compression-level"];
  if (level !== undefined && !/^-?\d{1,2}$/.test(level)) throw invalidArgument(`invalid compression-level ${level}`);
  const annotations: Annotation[] = [];
  for (const [name, value] of Object.entries(attrs)) {
    const match = ANNOTATION.exec(name);
    if (!match) continue;
    const [, on = "manifest", platform, key = ""] = match;
    annotations.push({ on: on as Annotation["on"], platform: platform || undefined, key, value });
  }
  return {
    names: (attrs.name ?? "").split(",").filter(Boolean),
    push: isTrue(attrs.push),
    compression: compression ? compressions[compression] : undefined,
    level: level === undefined ? undefined : Number(level),
    force: isTrue(attrs["force-compression"]),
    ociTypes: isTrue(attrs["oci-mediatypes"], true),
    inlineCache: isTrue(attrs["inline-cache"]),
    rewriteTimes: isTrue(attrs["rewrite-timestamp"], true),
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
