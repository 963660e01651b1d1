// A cache that leaves the builder: which key led to which stack of layers, as BuildKit writes it (application/vnd.buildkit.cacheconfig.v0). Layers are
// listed with the layer below them; a record has a key and the top layer of what it made. Our keys are made of contents, so that records need no inputs.
import { invalidArgument } from "../../lib/errors.ts";
import { digestOf, isDigest } from "../../oci/index.ts";
import type { Layer } from "../host.ts";
import type { Solved } from "../solve/vertex.ts";

export const CONFIG_TYPE = "application/vnd.buildkit.cacheconfig.v0";
export const MAX_CACHE_CONFIG = 64 << 20;
const MAX_LAYERS = 20_000;
const MAX_RECORDS = 200_000;

export interface CacheConfig {
  layers: { blob: string; parent: number; annotations?: { mediaType: string; diffID: string; size: number; createdAt?: string } }[];
  records: { digest: string; results: { layer: number; createdAt?: string }[] }[];
}

/** The key of an output; the first has the vertex' own. */
export const outputKey = (key: string, output: number): string => (output === 0 ? key : digestOf(`${key}#${output}`));

export interface Exported {
  /** Keys that lead to the tree. */
  keys: string[];
  output: number;
  layers: Layer[];
}

/** The config of these trees, and their layers in the order of the config. */
export function cacheConfig(trees: readonly Exported[]): { config: CacheConfig; layers: Layer[] } {
  const config: CacheConfig = { layers: [], records: [] };
  const layers: Layer[] = [];
  const known = new Map<string, number>();
  const place = (stack: readonly Layer[]): number => {
    let parent = -1;
    for (const layer of stack) {
      const name = `${parent} ${layer.diffId}`;
      let at = known.get(name);
      if (at === undefined) {
        const { mediaType, digest, size } = layer.descriptor;
        at = config.layers.push({ blob: digest, parent, annotations: { mediaType, diffID: layer.diffId, size } }) - 1;
        layers.push(layer);
        known.set(name, at);
      }
      parent = at;
    }
    return parent;
  };
  const records = new Map<string, number>();
  for (const { keys, output, layers: stack } of trees) {
    const layer = place(stack);
    for (const key of keys) records.set(outputKey(key, output), layer);
  }
  // The empty tree is a record without results.
  config.records = [...records].map(([digest, layer]) => ({ digest, results: layer < 0 ? [] : [{ layer }] }));
  return { config, layers };
}

/** Whether all layers of a stack are among those of another: it is a part of it, or was merged into it. */
export const isWithin = (stack: readonly Layer[], whole: readonly Layer[]): boolean =>
  stack.every(({ diffId }) => whole.some((each) => each.diffId === diffId));

/** For an image's config: records of what its own layers are. Layers are named by what they hold, as they may be compressed later. */
export function inlineConfig(solved: Iterable<Pick<Solved, "keys" | "outputs">>, whole: readonly Layer[]): CacheConfig | undefined {
  const trees: Exported[] = [];
  for (const { keys, outputs } of solved)
    for (const [output, tree] of outputs)
      if (keys.length > 0 && isWithin(tree.layers, whole)) trees.push({ keys, output, layers: tree.layers });
  const { config, layers } = cacheConfig(trees);
  if (config.records.length === 0) return undefined;
  return { layers: config.layers.map(({ parent }, i) => ({ blob: layers[i]!.diffId, parent })), records: config.records };
}

/** What came from outside. InvalidArgument. */
export function parseCacheConfig(bytes: Uint8Array): CacheConfig {
  const bad = (what: string) => invalidArgument(`invalid cache config: ${what}`);
  let json: unknown;
  try {
    json = JSON.parse(Buffer.from(bytes).toString("utf8"));
  } catch {
    throw bad("no JSON");
  }
  const listOf = (value: unknown, what: string, limit: number): Record<string, unknown>[] => {
    if (value === undefined || value === null) return [];
    if (!Array.isArray(value) || value.length > limit) throw bad(what);
    return value.map((each: unknown) => {
      if (typeof each !== "object" || each === null) throw bad(what);
      return each as Record<string, unknown>;
    });
  };
  const document = json as Record<string, unknown> | null;
  if (typeof document !== "object" || document === null) throw bad("no object");
  const layers = listOf(document.layers, "layers", MAX_LAYERS).map(({ blob, parent = 0, annotations }) => {
    if (typeof blob !== "string" || (blob !== "" && !isDigest(blob)) || !Number.isInteger(parent)) throw bad("a layer");
    const said = annotations as Record<string, unknown> | undefined | null;
    if (!said) return { blob, parent: parent as number };
    const { mediaType, diffID, size } = said;
    if (
      typeof mediaType !== "string" ||
      typeof diffID !== "string" ||
      !isDigest(diffID) ||
      !Number.isSafeInteger(size) ||
      (size as number) < 0
    )
      throw bad("a layer's annotations");
    return { blob, parent: parent as number, annotations: { mediaType, diffID, size: size as number } };
  });
  const records = listOf(document.records, "records", MAX_RECORDS).map(({ digest, results }) => {
    if (typeof digest !== "string" || !isDigest(digest)) throw bad("a record's digest");
    const found = listOf(results, "a record's results", MAX_RECORDS).map(({ layer }) => ({ layer: Number(layer ?? 0) }));
    return { digest, results: found };
  });
  return { layers, records };
}

/** The stack of layers that a record leads to; undefined where the config does not hold together. */
export function stackOf(config: CacheConfig, top: number): number[] | undefined {
  const stack: number[] = [];
  for (let at = top; at !== -1; at = config.layers[at]!.parent) {
    // parents come first, so that there are no cycles
    if (!Number.isInteger(at) || at < 0 || at >= config.layers.length || (stack[0] !== undefined && at >= stack[0])) return undefined;
    stack.unshift(at);
  }
  return stack;
}
