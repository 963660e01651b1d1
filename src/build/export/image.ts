// An image from a build's result: configs, manifests, where needed an index, written to the content store under the build's lease.
import { invalidArgument } from "../../lib/errors.ts";
import {
  chainIds,
  type Descriptor,
  digestOf,
  formatPlatform,
  type HistoryEntry,
  hostPlatform,
  MEDIA,
  normalise,
  type Platform,
} from "../../oci/index.ts";
import { childLabels, writeBytes } from "../content.ts";
import type { Edge } from "../graph/llb.ts";
import type { Layer } from "../host.ts";
import type { Attestation, Ref, Result } from "../session.ts";
import type { Tree } from "../solve/workspace.ts";
import { attestationManifest, type Statement, statementsOf } from "./attestations.ts";
import type { ExportContext } from "./context.ts";
import { contributions, fitHistory } from "./history.ts";
import { layerAs } from "./layers.ts";
import { annotationsFor, type ImageOptions } from "./options.ts";
import { type ProvenanceOptions, provenance, provenanceOptions } from "./provenance.ts";
import { layersUntil } from "./rewrite.ts";
import { withLayers } from "./spdx.ts";

export interface Part {
  /** "linux/amd64", as the result names it. */
  name: string;
  platform: Platform;
  edge: Edge | undefined;
  tree: Tree;
}

export interface MadeImage {
  target: Descriptor;
  /** The target as clients are told of it, with its platform and annotations. */
  descriptor: Descriptor;
  configDigest: string | undefined;
  platforms: Platform[];
}

interface Named {
  ID: string;
  Platform: Record<string, unknown>;
}

/** What a result's metadata say that it was made for; undefined where they say nothing. */
function listedPlatforms({ metadata }: Result): Named[] | undefined {
  const listed = metadata.get("refs.platforms");
  if (!listed) return undefined;
  try {
    const { Platforms } = JSON.parse(Buffer.from(listed).toString("utf8")) as { Platforms?: Named[] };
    if (Array.isArray(Platforms) && Platforms.length > 0) return Platforms;
  } catch (error) {
    throw invalidArgument("failed to parse platforms of the result (refs.platforms)", error);
  }
  throw invalidArgument("invalid empty platforms index for exporter");
}

/** The trees of a result, solved, with their platforms. */
export async function partsOf(context: ExportContext, result: Result): Promise<Part[]> {
  const listed = listedPlatforms(result);
  const part = async ({ ID, Platform: said }: Named, ref: Ref | undefined): Promise<Part> => {
    const platform = platformIn(said) ?? platformIn(configOf(result, ID)) ?? hostPlatform();
    return { name: ID || formatPlatform(platform), platform, edge: ref?.edge, tree: await context.treeOf(ref) };
  };
  if (result.refs.size === 0) {
    if (listed && listed.length > 1) throw invalidArgument("cannot export multiple platforms without multi-platform enabled");
    return [await part(listed?.[0] ?? { ID: "", Platform: {} }, result.ref)];
  }
  const [only] = result.refs.keys();
  const platforms = listed ?? (result.refs.size === 1 ? [{ ID: only!, Platform: {} }] : undefined);
  if (!platforms) throw invalidArgument("unable to export multiple refs, missing platforms mapping");
  return Promise.all(
    platforms.map((each) => {
      if (!result.refs.has(each.ID)) throw invalidArgument(`failed to find ref for ID ${each.ID}`);
      return part(each, result.refs.get(each.ID));
    }),
  );
}

function platformIn(json: Record<string, unknown>): Platform | undefined {
  const { os, architecture, variant } = json;
  if (typeof os !== "string" || typeof architecture !== "string" || os === "" || architecture === "") return undefined;
  const version = json["os.version"];
  return {
    ...normalise({ os, architecture, ...(typeof variant === "string" && variant ? { variant } : {}) }),
    ...(typeof version === "string" && version ? { "os.version": version } : {}),
  };
}

function configOf(result: Result, name: string): Record<string, unknown> {
  const bytes = result.metadata.get(`containerimage.config/${name}`) ?? result.metadata.get("containerimage.config");
  if (!bytes) return {};
  try {
    const value: unknown = JSON.parse(Buffer.from(bytes).toString("utf8"));
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  } catch {
    // the same answer as for what is no object
  }
  throw invalidArgument("the result's image config is no JSON object");
}

/** Says that a document is written. */
function told(context: ExportContext, what: string, descriptor: Descriptor): void {
  const name = `exporting ${what} ${descriptor.digest}`;
  context.status({ id: name, name, current: 0, total: 0, completed: true });
}

async function makeManifest(
  context: ExportContext,
  result: Result,
  part: Part,
  options: ImageOptions,
): Promise<{ manifest: Descriptor; config: Descriptor; layers: Layer[] }> {
  const { host, lease, cache } = context;
  const epoch = options.epoch ?? context.epoch;
  const { manager } = host;
  // Also the layers of a base image that nothing has needed until now.
  await part.tree.fetch?.();
  const { compression, level, force, ociTypes } = options;
  const layers: Layer[] = [];
  const whole = [...(await context.solved()).values()];
  const kept = epoch === undefined || !options.rewriteTimes ? part.tree.layers : await layersUntil(part.tree.layers, epoch, whole, context);
  for (const layer of kept) {
    layers.push(await layerAs(layer, { host, lease, compression, level, force, ociTypes, signal: context.signal }));
    context.status({
      id: "exporting layers",
      name: "exporting layers",
      current: 0,
      total: 0,
      completed: layers.length === kept.length,
    });
  }
  const given = configOf(result, part.name);
  const said = Array.isArray(given.history) ? (given.history as HistoryEntry[]) : [];
  const diffIds = layers.map(({ diffId }) => diffId);
  // The same content keeps the time of its first build, and so its id.
  const now = new Date(epoch === undefined ? Date.now() : epoch * 1000).toISOString();
  const what = digestOf(JSON.stringify(["export", diffIds, given, formatPlatform(part.platform)]));
  const created = epoch !== undefined || context.noCache ? now : cache.first(what, now);
  const clamp = (entry: HistoryEntry): HistoryEntry =>
    epoch !== undefined && (entry.created ?? "") > now ? { ...entry, created: now } : entry;
  const history = fitHistory(said, layers.length, contributions(context.graph, await context.solved(), part.edge), created).map(clamp);
  const document: Record<string, unknown> = {
    architecture: part.platform.architecture,
    os: part.platform.os,
    ...(part.platform.variant ? { variant: part.platform.variant } : {}),
    ...given,
    config: given.config ?? {},
    created: typeof given.created === "string" && epoch === undefined ? given.created : created,
    rootfs: { type: "layers", diff_ids: diffIds },
    history,
  };
  if (options.inlineCache) {
    const cacheConfig = await context.inlineCache(layers);
    if (cacheConfig) document["moby.buildkit.cache.v0"] = Buffer.from(JSON.stringify(cacheConfig)).toString("base64");
  }
  const top = chainIds(diffIds).at(-1);
  const labels = top && (await context.hasSnapshot(top)) ? { [`containerd.io/gc.ref.snapshot.${manager.snapshotter}`]: top } : {};
  const config = await writeBytes(manager, Buffer.from(JSON.stringify(document)), {
    mediaType: ociTypes ? MEDIA.ociConfig : MEDIA.dockerConfig,
    labels,
    lease,
  });
  const mediaType = ociTypes ? MEDIA.ociManifest : MEDIA.dockerManifest;
  const annotations = annotationsFor(options.annotations, "manifest", formatPlatform(part.platform));
  const descriptors = layers.map(({ descriptor: { mediaType: type, digest, size } }) => ({ mediaType: type, digest, size }));
  const manifest = { schemaVersion: 2, mediaType, config, layers: descriptors, ...(annotations ? { annotations } : {}) };
  const written = await writeBytes(manager, Buffer.from(JSON.stringify(manifest)), {
    mediaType,
    labels: childLabels("manifest", [config, ...descriptors]),
    lease,
  });
  told(context, "manifest", written);
  told(context, "config", config);
  return { manifest: written, config, layers };
}

/**
 * What is said of one part: by the frontend and scanners, and our own provenance. `inline` is whether what is for images only counts; where there is anything
 * else, it comes along in an image.
 */
export async function attestationsOf(
  context: ExportContext,
  result: Result,
  part: Part,
  { image, inline }: { image: boolean; inline: boolean },
): Promise<Statement[]> {
  const given = result.attestations.get(part.name) ?? [];
  const inlineOnly = ({ metadata }: Attestation) => Buffer.from(metadata.get("inline-only") ?? []).toString() === "true";
  const wanted = provenanceOptions(context.request?.attrs ?? {});
  const counts = inline || (wanted && !wanted.inlineOnly) || given.some((each) => !inlineOnly(each));
  if (!counts) return [];
  const statements = await statementsOf(inline || image ? given : given.filter((each) => !inlineOnly(each)));
  if (!wanted || (wanted.inlineOnly && !inline && !image)) return statements;
  return [...statements, await provenanceOf(context, part, wanted)];
}

/** What went into one part. */
export async function provenanceOf(context: ExportContext, part: Part, wanted: ProvenanceOptions): Promise<Statement> {
  return provenance(wanted, {
    graph: context.graph,
    solved: await context.solved(),
    result: part.edge,
    platform: part.platform,
    request: context.request ?? { frontend: "", attrs: {} },
    source: context.source(),
    id: context.id,
    started: context.started,
    finished: new Date(),
  });
}

export async function makeImage(context: ExportContext, result: Result, given: ImageOptions): Promise<MadeImage> {
  const { host, lease } = context;
  const parts = await partsOf(context, result);
  const several = result.refs.size > 0;
  for (const { platform } of several ? given.annotations : [])
    if (platform !== undefined && !result.refs.has(platform))
      throw invalidArgument(`invalid annotation: no platform ${platform} found in source`);
  const said: Statement[][] = [];
  for (const part of parts)
    said.push(await attestationsOf(context, result, part, { image: true, inline: several || given.inlineAttestations === true }));
  const attested = said.some((statements) => statements.length > 0);
  const options = { ...given, ociTypes: given.ociTypes || attested };
  const made: { part: Part; manifest: Descriptor; config: Descriptor; statements: Statement[] }[] = [];
  for (const [i, part] of parts.entries()) {
    const { manifest, config, layers } = await makeManifest(context, result, part, options);
    const statements: Statement[] = [];
    for (const each of said[i]!) statements.push(each.core === undefined ? each : await withLayers(each, layers, context));
    made.push({ part, manifest, config, statements });
  }
  const platforms = parts.map(({ platform }) => platform);
  const described = ({ part, manifest }: { part: Part; manifest: Descriptor }): Descriptor => {
    const annotations = annotationsFor(options.annotations, "manifest-descriptor", formatPlatform(part.platform));
    return { ...manifest, ...(annotations ? { annotations } : {}), platform: part.platform };
  };
  const first = made[0]!;
  if (!attested && !several) {
    if (options.annotations.some(({ on }) => on === "index" || on === "index-descriptor"))
      throw invalidArgument("index annotations not supported for single platform export");
    return { target: first.manifest, descriptor: described(first), configDigest: first.config.digest, platforms };
  }
  const entries: Descriptor[] = made.map(described);
  for (const { part, manifest, statements } of made) {
    if (statements.length === 0) continue;
    const image = { manifest, names: options.names, platform: part.platform };
    const attestation = await attestationManifest(host, lease, image, statements, options.ociArtifact);
    told(context, "attestation manifest", attestation);
    entries.push(attestation);
  }
  const mediaType = options.ociTypes ? MEDIA.ociIndex : MEDIA.dockerList;
  const annotations = annotationsFor(options.annotations, "index");
  const index = { schemaVersion: 2, mediaType, manifests: entries, ...(annotations ? { annotations } : {}) };
  const target = await writeBytes(host.manager, Buffer.from(JSON.stringify(index)), {
    mediaType,
    labels: childLabels("index", entries),
    lease,
  });
  told(context, "manifest list", target);
  const own = annotationsFor(options.annotations, "index-descriptor");
  const descriptor = { ...target, ...(own ? { annotations: own } : {}) };
  return { target, descriptor, configDigest: made.length === 1 ? first.config.digest : undefined, platforms };
}
