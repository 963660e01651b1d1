// The image configuration (image-spec config.md), which is also Docker's: what its digest names is the image id.
import { invalidArgument } from "../lib/errors.ts";
import { type Digest, isDigest } from "./digest.ts";
import { type Json, object, optionalList, optionalText, parseObject, texts } from "./json.ts";

/** A configuration may not be longer. */
export const MAX_CONFIG = 8 << 20;
const MAX_LAYERS = 1024;

export interface HistoryEntry {
  created?: string;
  created_by?: string;
  author?: string;
  comment?: string;
  empty_layer?: boolean;
}

export interface ImageConfigFile {
  os: string;
  architecture: string;
  variant?: string;
  "os.version"?: string;
  created?: string;
  author?: string;
  /** Docker's own: the comment of a commit or an import. */
  comment?: string;
  /** What containers inherit (Env, Cmd, …): kept as it is. */
  config: Json;
  diffIds: Digest[];
  history: HistoryEntry[];
  /** The whole document. */
  raw: Json;
}

export function parseImageConfig(bytes: Uint8Array): ImageConfigFile {
  const raw = parseObject(bytes, "image configuration", MAX_CONFIG);
  const rootfs = object(raw.rootfs ?? {}, "image configuration rootfs");
  const diffIds = texts(rootfs.diff_ids, "image configuration rootfs.diff_ids", MAX_LAYERS);
  for (const diffId of diffIds) if (!isDigest(diffId)) throw invalidArgument(`image configuration: ${diffId} is not a digest`);
  const out: ImageConfigFile = {
    os: optionalText(raw.os, "image configuration os") || "linux",
    architecture: optionalText(raw.architecture, "image configuration architecture") ?? "",
    config: raw.config === undefined || raw.config === null ? {} : object(raw.config, "image configuration config"),
    diffIds,
    history: optionalList(raw.history, "image configuration history", 8 * MAX_LAYERS).map(parseHistory),
    raw,
  };
  for (const key of ["variant", "os.version", "created", "author", "comment"] as const) {
    const value = optionalText(raw[key], `image configuration ${key}`);
    if (value) out[key] = value;
  }
  return out;
}

function parseHistory(value: unknown, i: number): HistoryEntry {
  const what = `image configuration history[${i}]`;
  const json = object(value, what);
  const out: HistoryEntry = {};
  for (const key of ["created", "created_by", "author", "comment"] as const) {
    const entry = optionalText(json[key], `${what}.${key}`);
    if (entry !== undefined) out[key] = entry;
  }
  if (json.empty_layer === true) out.empty_layer = true;
  return out;
}
