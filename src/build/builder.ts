// One build, from a context to an image that only needs to be written.
import { rm, statfs } from "node:fs/promises";
import { join } from "node:path";
import type { Readable } from "node:stream";
import type { ImageConfig } from "../api/types.ts";
import { entriesOf } from "../lib/entries.ts";
import { messageOf } from "../lib/errors.ts";
import { digestOf, type HistoryEntry, type Platform } from "../oci/index.ts";
import { type Context, receiveContext } from "./context.ts";
import { DockerfileError, excerpt, parseDockerfile, type Range } from "./dockerfile/index.ts";
import { layersUntil } from "./export/rewrite.ts";
import { convertClassic, type Step } from "./frontend/classic.ts";
import type { BuilderHost, BuildHost, Layer, Lease } from "./host.ts";
import { inlineConfig } from "./remote/config.ts";
import { imageCache } from "./remote/import.ts";
import type { BuildSession, SessionOptions } from "./session.ts";
import { type CacheRecord, openCache } from "./solve/cache.ts";
import { openMountCaches } from "./solve/caches.ts";
import { BUILD_LABEL, ExitError } from "./solve/exec.ts";
import { type PruneOptions, type PruneResult, pruneCache, type UsageRecord, usageOf } from "./solve/prune.ts";
import { createSolver } from "./solve/solver.ts";
import type { CacheSource } from "./solve/vertex.ts";
import { EMPTY, type Tree, treeOf } from "./solve/workspace.ts";

export interface BuildRequest {
  /** Tar of the context. */
  context: Readable;
  /** Path of the Dockerfile in the context; "" for the usual one. */
  dockerfile: string;
  target: string;
  buildArgs: ReadonlyMap<string, string>;
  labels: Record<string, string>;
  platform: Platform | undefined;
  network: string;
  /** What steps may have beyond a sandbox: "security.insecure", "network.host". */
  entitlements: ReadonlySet<string>;
  noCache: boolean;
  /** Images, by reference, whose steps may be taken instead of made: those that are here. */
  cacheFrom?: readonly string[];
}

/** An image that is built: its layers are in the content store and unpacked. */
export interface BuiltImage {
  config: ImageConfig;
  layers: Layer[];
  history: HistoryEntry[];
  author: string;
  platform: Platform;
  /** Further fields of its config: what --cache-from finds in it. */
  extra?: Record<string, unknown>;
}

/** Hears how a build goes, in the Dockerfile's order. */
export interface BuildProgress {
  step(number: number, total: number, text: string): void;
  triggers(count: number): void;
  cached(): void;
  running(containerId: string): void;
  output(bytes: Uint8Array): void;
  /** The step is done; `id` names what the stage is now (64 hex digits). */
  done(id: string, containerId: string | undefined): void;
  warning(text: string): void;
}

/** Why a build failed. */
export interface BuildFailure {
  message: string;
  /** Exit status of the command; undefined where none failed. */
  status: number | undefined;
  /** The guilty lines with a caret; "" where none is. */
  excerpt: string;
}

export interface Builder {
  /** Builds and gives the image to `finish`, while all of it is kept from garbage collection. */
  build<T>(
    request: BuildRequest,
    host: BuildHost,
    progress: BuildProgress,
    signal: AbortSignal,
    finish: (image: BuiltImage, lease: Lease) => Promise<T>,
  ): Promise<T>;
  /** A build of LLB (session.ts). */
  open(options: SessionOptions, host: BuildHost): Promise<BuildSession>;
  /** What an error that build() threw says. */
  explain(error: unknown): BuildFailure;
  cache(): CacheRecord[];
  /** All that the cache keeps, mount caches included (their sizes cost a walk). */
  usage(): Promise<UsageRecord[]>;
  /** Forgets what the options name, the longest unused first; what a build uses now stays. */
  reclaim(options: PruneOptions): Promise<PruneResult>;
  /** Forgets all records of steps but those that are to be kept, or that a build uses now; without any left, the mount caches, too. */
  prune(keep: (record: CacheRecord) => boolean): Promise<{ keys: string[]; bytes: number }>;
  /** Takes away what builds of a killed engine left. */
  recover(): Promise<void>;
}

/** The cache is looked at so long after a build, and not again within this time. */
const COLLECT_MS = 60_000;
const DAY_MS = 24 * 3600_000;

/** As BuildKit's policy by default: sources and mount caches go after two days without use, above 512 MB; everything above a share of the disk. */
async function policies(directory: string, reservedSpace: number | undefined): Promise<PruneOptions[]> {
  const disk = await statfs(directory).catch(() => undefined);
  if (!disk) return [];
  const whole = disk.blocks * disk.bsize;
  const limits =
    reservedSpace === undefined
      ? { reservedSpace: whole / 10, maxUsedSpace: whole * 0.6, minFreeSpace: whole / 5, directory }
      : { reservedSpace, directory };
  return [
    { filter: ({ kind }) => kind !== "regular", keepDurationMs: 2 * DAY_MS, maxUsedSpace: 512e6 },
    { ...limits, keepDurationMs: 60 * DAY_MS },
    limits,
  ];
}

/** Bytes of a step's output that are held until its turn comes. */
const MAX_HELD = 4 << 20;

interface Failed {
  vertex?: string;
  range?: Range;
  excerpt?: string;
}

const idOf = (step: Step, tree: Tree): string => {
  if (step.image) return step.image.id.replace(/^sha256:/, "");
  return digestOf(JSON.stringify([tree.chainId, step.said])).slice("sha256:".length);
};

export function createBuilder(host: BuilderHost): Builder {
  const cache = openCache(host.db, () => host.manager);
  const caches = openMountCaches(host.db, join(host.dataDir, "mounts"));

  /** Caches within images. One that is not here, or has none, is no mistake. */
  async function cacheImages(refs: readonly string[], build: BuildHost): Promise<CacheSource[]> {
    const found: CacheSource[] = [];
    for (const ref of refs) {
      try {
        const source = await imageCache(await build.resolveImage(ref, undefined, "local"), host);
        if (source) found.push(source);
      } catch (error) {
        host.log("debug", `cache from ${ref}: ${messageOf(error)}`);
      }
    }
    return found;
  }

  let collecting: NodeJS.Timeout | undefined;
  /** Has the cache shrink to what it may have, some time after a build. */
  function collectLater(): void {
    if (collecting || host.collect?.enabled === false) return;
    collecting = setTimeout(async () => {
      try {
        for (const policy of await policies(host.dataDir, host.collect?.reservedSpace)) {
          const { records, bytes } = await pruneCache(cache, caches, policy);
          if (records.length > 0) host.log("info", `build cache: ${records.length} records with ${bytes} bytes were let go`);
        }
      } catch (error) {
        host.log("debug", `build cache: ${messageOf(error)}`);
      }
      collecting = undefined;
    }, COLLECT_MS);
    collecting.unref();
  }

  async function run(
    request: BuildRequest,
    build: BuildHost,
    progress: BuildProgress,
    lease: Lease,
    context: { directory: string; dockerfile: string; name: string },
    signal: AbortSignal,
  ): Promise<BuiltImage> {
    const file = parseDockerfile(context.dockerfile);
    const { buildArgs, labels, target, platform, entitlements } = request;
    const resolveImage = (ref: string, wanted: string | undefined) => build.resolveImage(ref, wanted);
    const conversion = await convertClassic(file, { buildArgs, labels, target, platform, entitlements, resolveImage });
    const given = request.buildArgs.get("SOURCE_DATE_EPOCH") ?? "";
    const epoch = /^\d{1,12}$/.test(given) ? Number(given) : undefined;

    // What steps say before their turn came is held back, as far as it fits.
    let current = "";
    const held = new Map<string, { tell: (() => void)[]; bytes: number }>();
    const turn = (vertex: string, bytes: number, tell: () => void) => {
      if (vertex === current) {
        tell();
        return;
      }
      const waiting = held.get(vertex) ?? { tell: [], bytes: 0 };
      held.set(vertex, waiting);
      if (waiting.bytes > MAX_HELD) return;
      waiting.bytes += bytes;
      const clipped = Buffer.from(`\n[output clipped, ${MAX_HELD >> 20} MiB reached]\n`);
      waiting.tell.push(waiting.bytes > MAX_HELD ? () => progress.output(clipped) : tell);
    };
    const containers = new Map<string, string>();
    const failing = new AbortController();
    const both = AbortSignal.any([signal, failing.signal]);
    try {
      const own: BuildHost = {
        ...build,
        resolveImage: build.resolveImage,
        // The classic protocol says for the whole build which network it has.
        prepareStep: (step) => build.prepareStep(step.network === "default" ? { ...step, network: request.network } : step),
        localSource: async () => ({ directory: context.directory, release: async () => {} }),
      };
      await using solver = createSolver({
        host,
        build: own,
        cache,
        caches,
        graph: conversion.graph,
        images: conversion.images,
        lease,
        useCache: !request.noCache,
        entitlements: new Set([...request.entitlements, ...(request.network === "host" ? ["network.host"] : [])]),
        imports: await cacheImages(request.cacheFrom ?? [], build),
        keepFailed: false,
        explain: false,
        describe: (vertex) => conversion.origins.get(vertex)?.text ?? "",
        onEvent(event) {
          if (event.kind === "log") turn(event.vertex, event.bytes.length, () => progress.output(event.bytes));
        },
        onContainer(vertex, id) {
          containers.set(vertex, id);
          turn(vertex, 0, () => progress.running(id));
        },
        signal: both,
      });
      try {
        const solve = async (vertex: string): Promise<{ tree: Tree; cached: boolean; grew: boolean }> => {
          if (vertex === "") return { tree: EMPTY, cached: true, grew: false };
          const { outputs, cached, added } = await solver.vertex(vertex);
          return { tree: outputs.get(0) ?? EMPTY, cached, grew: added.length > 0 };
        };
        const whole = solve(conversion.result.vertex);
        // The first failure ends the others at once.
        whole.catch((error: unknown) => failing.abort(error));
        const shown = new Set<string>();
        for (const [i, step] of conversion.steps.entries()) {
          progress.step(i + 1, conversion.steps.length, step.text);
          current = step.vertex;
          for (const tell of held.get(step.vertex)?.tell ?? []) tell();
          held.delete(step.vertex);
          const { tree, cached } = await solve(step.vertex);
          const fresh = step.kind !== "from" && step.vertex !== "" && !shown.has(step.vertex);
          if (fresh && cached && step.kind !== "config") progress.cached();
          shown.add(step.vertex);
          const container = step.kind === "run" && fresh ? containers.get(step.vertex) : undefined;
          progress.done(idOf(step, tree), container);
          if (step.triggers > 0) progress.triggers(step.triggers);
        }
        for (const warning of conversion.warnings) progress.warning(warning);
        const { tree: built } = await whole;
        const done = [...(await solver.solved()).values()];
        const tree =
          epoch === undefined ? built : treeOf(await layersUntil(built.layers, epoch, done, { host, lease, signal: both }), built.fetch);
        const history: HistoryEntry[] = [];
        for (const { entry, vertex } of conversion.result.history) {
          const grew = vertex === undefined || (await solve(vertex)).grew;
          history.push(grew ? entry : { ...entry, empty_layer: true });
        }
        // The same content keeps the time of its first build, and so its id.
        const { config, author } = conversion.result;
        const what = digestOf(JSON.stringify(["image", tree.chainId, config, history, author, conversion.result.platform]));
        const now = new Date(epoch === undefined ? Date.now() : epoch * 1000).toISOString();
        const created = request.noCache || epoch !== undefined ? now : cache.first(what, now);
        await solver.workspace.ready(tree);
        const records = inlineConfig(done, tree.layers);
        return {
          ...(records ? { extra: { "moby.buildkit.cache.v0": Buffer.from(JSON.stringify(records)).toString("base64") } } : {}),
          config,
          layers: tree.layers,
          history: history.map((entry) => (entry.created === undefined ? { created, ...entry } : entry)),
          author,
          platform: conversion.result.platform,
        };
      } catch (error) {
        failing.abort(error);
        throw failing.signal.aborted && !signal.aborted ? failing.signal.reason : error;
      }
    } catch (error) {
      if (error instanceof Error) {
        const failed = error as Failed;
        const range = failed.range ?? (failed.vertex === undefined ? undefined : conversion.origins.get(failed.vertex)?.range);
        if (range) failed.excerpt = excerpt(context.dockerfile, context.name, range);
      }
      throw error;
    }
  }

  return {
    async build(request, build, progress, signal, finish) {
      let context: Context | undefined;
      try {
        const received = await receiveContext(host, request.context, request.dockerfile);
        context = received;
        return await host.withLease(async (lease) => {
          try {
            return await finish(await run(request, build, progress, lease, received, signal), lease);
          } catch (error) {
            if (error instanceof DockerfileError) (error as Failed).excerpt ??= excerpt(received.dockerfile, received.name, error.range);
            throw error;
          }
        });
      } finally {
        collectLater();
        await context?.remove();
      }
    },
    async open(options, build) {
      const { openSession } = await import("./open.ts");
      const opened = Promise.withResolvers<BuildSession>();
      const over = Promise.withResolvers<void>();
      // The lease lasts as long as the session.
      const leased = host.withLease(async (lease) => {
        const session = await openSession({ host, build, cache, caches, lease, options });
        opened.resolve(session);
        await over.promise;
        await session[Symbol.asyncDispose]();
      });
      leased.catch(opened.reject);
      const done = leased;
      done.catch(() => {});
      const session = await opened.promise;
      return {
        ...session,
        async [Symbol.asyncDispose]() {
          over.resolve();
          collectLater();
          await done;
        },
      };
    },
    explain: (error) => ({
      message: messageOf(error),
      status: error instanceof ExitError ? error.status : undefined,
      excerpt: (error instanceof Error && (error as Failed).excerpt) || "",
    }),
    cache: () => cache.list(),
    usage: () => usageOf(cache, caches),
    async prune(keep) {
      const gone = cache.list().filter((record) => !keep(record));
      const { records, bytes } = await cache.remove(new Set(gone.map(({ key }) => key)));
      if (cache.list().length === 0) for (const { key } of await caches.list()) await caches.remove(key);
      await host.withLease(async () => {});
      return { keys: records.map(({ key }) => key), bytes };
    },
    async reclaim(options) {
      const pruned = await pruneCache(cache, caches, options);
      // The end of a lease has the manager look for garbage.
      await host.withLease(async () => {});
      return pruned;
    },
    async recover() {
      const { containers, tasks, snapshots, snapshotter } = host.manager;
      for (const { id } of (await containers.list({ filters: [`labels."${BUILD_LABEL}"==step`] })).containers) {
        await tasks.kill({ containerId: id, signal: 9, all: true }).catch(() => {});
        await tasks.wait({ containerId: id }, { timeoutMs: 10_000 }).catch(() => {});
        await tasks.delete({ containerId: id }).catch(() => {});
        await containers.delete({ id }).catch(() => {});
      }
      const left: string[] = [];
      for await (const { info } of snapshots.list({ snapshotter }))
        for (const each of info) if (each.name.startsWith("build-")) left.push(each.name);
      // What was kept of a failed step may be what others stand upon.
      left.sort((a, b) => Number(a.endsWith("-kept")) - Number(b.endsWith("-kept")));
      for (const key of left) await snapshots.remove({ snapshotter, key }).catch(() => {});
      for (const name of entriesOf(host.dataDir))
        if (name !== "mounts") await rm(join(host.dataDir, name), { recursive: true, force: true });
      for (const name of entriesOf(host.runDir)) await rm(join(host.runDir, name), { recursive: true, force: true });
    },
  };
}
