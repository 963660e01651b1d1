// Solves a graph: each vertex once, as soon as its inputs are there, side by side with others; what was made before is taken from the cache. A key is the digest
// of an operation and of the contents it works on (chain ids; for files that are copied, their contents), never of how those came to be: two ways to the
// same content share what follows.
import { randomBytes } from "node:crypto";
import { mkdirSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { openDetached } from "../../containerd/index.ts";
import { failedPrecondition, unimplemented } from "../../lib/errors.ts";
import { createLimit } from "../../lib/limit.ts";
import { binding, close, O_DIRECTORY, O_PATH, O_RDONLY, open, openat2, RESOLVE_IN_ROOT, SYS } from "../../linux/index.ts";
import { chainIds, digestOf } from "../../oci/index.ts";
import type { ExecMount, Graph, Vertex } from "../graph/llb.ts";
import type { BaseImage, BuilderHost, BuildHost, Layer, Lease } from "../host.ts";
import { type Cache, type CacheEntry, ROOT_LABEL } from "./cache.ts";
import { execute, type SnapshotMount } from "./exec.ts";
import { type CopyTree, copyDigest, performActions } from "./files.ts";
import { fetchSource } from "./http.ts";
import { copySource } from "./tree.ts";

const TAR = "application/vnd.oci.image.layer.v1.tar";
/** A tar that holds nothing. */
const EMPTY_TAR = 1024n;

/** What a vertex has become. */
export interface Tree {
  layers: Layer[];
  chainId: string;
  /** The vertex' own layer; undefined where it changed nothing. */
  added: Layer | undefined;
  cached: boolean;
  /** Host directory: the build context, or a file that was fetched. Then there are no layers. */
  directory: string | undefined;
  /** Digest of what was fetched. */
  digest: string;
}

export interface SolveEvents {
  started(vertex: string): void;
  container(vertex: string, id: string): void;
  output(vertex: string, bytes: Uint8Array): void;
  finished(vertex: string, tree: Tree): void;
}

export interface SolveOptions {
  host: BuilderHost;
  build: BuildHost;
  cache: Cache;
  graph: Graph;
  images: ReadonlyMap<string, BaseImage>;
  /** Directory of the build context; undefined where there is none. */
  context: string | undefined;
  lease: Lease;
  useCache: boolean;
  /** SOURCE_DATE_EPOCH: no file is later. */
  epoch: number | undefined;
  events: SolveEvents;
  /** Words for the cache's list. */
  describe(vertex: string): string;
  signal: AbortSignal;
}

export interface Solver extends AsyncDisposable {
  /** Answers what a vertex has become; "" is the empty tree. An error has the vertex' digest in `vertex`. */
  solve(vertex: string): Promise<Tree>;
}

const EMPTY: Tree = { layers: [], chainId: "", added: undefined, cached: true, directory: undefined, digest: "" };

export function createSolver(options: SolveOptions): Solver {
  const { host, graph, cache, lease, signal, events } = options;
  const { snapshots, diff, content, snapshotter } = host.manager;
  const solved = new Map<string, Promise<Tree>>();
  const headers = { headers: lease.headers };
  const limited = createLimit(Math.max(2, availableParallelism()));

  const keyOf = (parts: unknown): string => digestOf(JSON.stringify([parts, options.epoch ?? null]));
  const grown = (parent: Tree, entry: CacheEntry, cached: boolean): Tree => ({
    layers: entry.layer ? [...parent.layers, entry.layer] : parent.layers,
    chainId: entry.chainId,
    added: entry.layer,
    cached,
    directory: undefined,
    digest: "",
  });

  /** Gives a tree as a descriptor, for reading, while `work` lasts. */
  async function reading<T>(tree: Tree, work: (copy: CopyTree) => Promise<T>): Promise<T> {
    if (tree.directory !== undefined) {
      const root = open(tree.directory, O_RDONLY | O_DIRECTORY);
      try {
        return await work({ root, context: tree.directory === options.context });
      } finally {
        close(root);
      }
    }
    if (tree.chainId === "") {
      mkdirSync(host.dataDir, { recursive: true, mode: 0o700 });
      const empty = await mkdtemp(join(host.dataDir, "empty-"));
      try {
        return await reading({ ...EMPTY, directory: empty }, work);
      } finally {
        await rm(empty, { recursive: true, force: true });
      }
    }
    const key = `build-${randomBytes(8).toString("hex")}`;
    const { mounts } = await snapshots.view({ snapshotter, key, parent: tree.chainId }, headers);
    try {
      const mount = openDetached(mounts, { readOnly: true });
      try {
        const root = openat2(mount, ".", O_RDONLY | O_DIRECTORY, { resolve: RESOLVE_IN_ROOT });
        try {
          return await work({ root, context: false });
        } finally {
          close(root);
        }
      } finally {
        close(mount);
      }
    } finally {
      await snapshots.remove({ snapshotter, key });
    }
  }

  async function readingAll<T>(trees: readonly Tree[], work: (copies: CopyTree[]) => Promise<T>, done: CopyTree[] = []): Promise<T> {
    const [first, ...rest] = trees;
    return first ? reading(first, (copy) => readingAll(rest, work, [...done, copy])) : work(done);
  }

  /** Changes a tree: `work` gets the mounts of a new snapshot upon it; what it changed becomes a layer. All or nothing. */
  async function changing(parent: Tree, text: string, work: (key: string, mounts: SnapshotMount[]) => Promise<void>): Promise<CacheEntry> {
    const key = `build-${randomBytes(8).toString("hex")}`;
    const created = new Date().toISOString();
    const { mounts } = await snapshots.prepare({ snapshotter, key, parent: parent.chainId }, headers);
    let present = true;
    const view = `${key}-below`;
    let viewed = false;
    try {
      await work(key, mounts as unknown as SnapshotMount[]);
      signal.throwIfAborted();
      const left = parent.chainId === "" ? [] : (await snapshots.view({ snapshotter, key: view, parent: parent.chainId }, headers)).mounts;
      viewed = left.length > 0;
      const made = await diff.diff(
        {
          left,
          right: mounts,
          mediaType: TAR,
          ref: key,
          labels: { [ROOT_LABEL]: created },
          ...(options.epoch === undefined ? {} : { sourceDateEpoch: { seconds: BigInt(options.epoch), nanos: 0 } }),
        },
        { ...headers, signal },
      );
      if (!made.diff) throw failedPrecondition("the manager made no layer");
      const { digest, size } = made.diff;
      if (size === EMPTY_TAR) {
        await content
          .update({ info: { digest, labels: { [ROOT_LABEL]: "" } }, updateMask: { paths: [`labels.${ROOT_LABEL}`] } })
          .catch(() => {});
        return { chainId: parent.chainId, layer: undefined };
      }
      const layer: Layer = { descriptor: { mediaType: TAR, digest, size: Number(size) }, diffId: digest };
      const chainId = chainIds([...parent.layers.map(({ diffId }) => diffId), digest]).at(-1)!;
      const labels = { [ROOT_LABEL]: created, "containerd.io/snapshot.ref": chainId, "jubako.io/build": text.slice(0, 200) };
      if (viewed) await snapshots.remove({ snapshotter, key: view });
      viewed = false;
      try {
        await snapshots.commit({ snapshotter, name: chainId, key, labels }, headers);
        present = false;
      } catch (error) {
        if (!/exist/i.test(String(error))) throw error;
        const paths = [`labels.${ROOT_LABEL}`];
        await snapshots.update({ snapshotter, info: { name: chainId, labels: { [ROOT_LABEL]: created } }, updateMask: { paths } });
      }
      return { chainId, layer };
    } finally {
      if (viewed) await snapshots.remove({ snapshotter, key: view }).catch(() => {});
      if (present) await snapshots.remove({ snapshotter, key }).catch(() => {});
    }
  }

  async function cachedOr(
    parent: Tree,
    keys: (() => Promise<string> | string)[],
    vertex: Vertex,
    make: () => Promise<CacheEntry>,
  ): Promise<Tree> {
    const tried: string[] = [];
    if (options.useCache) {
      for (const each of keys) {
        const key = await each();
        tried.push(key);
        const found = await cache.find(key);
        if (!found) continue;
        // also under the cheaper keys, for the next time
        for (const other of tried) if (other !== key) cache.store(other, found, options.describe(vertex.digest));
        return grown(parent, found, true);
      }
    }
    const key = tried.at(-1);
    // another build makes it now; where that fails, its reasons (a client that went away) need not be ours
    const elsewhere = key === undefined ? undefined : await cache.running.get(key)?.catch(() => undefined);
    if (elsewhere) return grown(parent, elsewhere, true);
    const making = limited(make);
    if (key !== undefined) {
      const forget = () => void cache.running.delete(key);
      cache.running.set(key, making);
      making.then(forget, forget);
    }
    const entry = await making;
    const all = options.useCache ? tried : await Promise.all(keys.map((each) => each()));
    for (const key of all) cache.store(key, entry, options.describe(vertex.digest));
    return grown(parent, entry, false);
  }

  async function bindOf(tree: Tree, mount: ExecMount, scratch: string[]): Promise<{ type: string; source: string; options: string[] }> {
    const how = ["rbind", "rprivate"];
    return reading(tree, async ({ root }) => {
      const path = mount.selector === "/" ? "." : mount.selector;
      const fd = openat2(root, path, O_PATH, { resolve: RESOLVE_IN_ROOT });
      try {
        // What a step writes into a bind is lost with the step: it gets a copy.
        if (tree.directory !== undefined && mount.readonly) {
          const name = Buffer.alloc(4096);
          const n = binding.syscall(SYS.readlinkat, -100, `/proc/self/fd/${fd}`, name, name.length);
          return { type: "bind", source: name.toString("utf8", 0, n), options: how };
        }
      } finally {
        close(fd);
      }
      const directory = await mkdtemp(join(host.dataDir, "bind-"));
      scratch.push(directory);
      const into = open(directory, O_RDONLY | O_DIRECTORY);
      try {
        const [source] = (await import("./tree.ts")).findSources(root, mount.selector, "stat %: file does not exist");
        await copySource(root, source!, into, "it", { owner: undefined, mode: undefined, excluded: () => false });
      } finally {
        close(into);
      }
      return { type: "bind", source: join(directory, "it"), options: how };
    });
  }

  async function run(vertex: Vertex): Promise<Tree> {
    const { op } = vertex;
    const text = options.describe(vertex.digest);
    if ("source" in op) {
      const { identifier, attrs } = op.source;
      const image = options.images.get(identifier);
      if (image) {
        const chainId = chainIds(image.layers.map(({ diffId }) => diffId)).at(-1) ?? "";
        return { layers: image.layers, chainId, added: undefined, cached: true, directory: undefined, digest: "" };
      }
      if (identifier === "local://context") {
        if (options.context === undefined) throw failedPrecondition("there is no build context");
        return { ...EMPTY, directory: options.context };
      }
      if (/^https?:/i.test(identifier)) {
        const { directory, digest } = await fetchSource(host.dataDir, identifier, attrs.checksum, signal);
        fetched.push(directory);
        return { ...EMPTY, cached: false, directory, digest };
      }
      throw unimplemented(`sources of the kind ${identifier.split(":")[0]}`);
    }
    const inputs = await Promise.all(vertex.inputs.map(solve));
    signal.throwIfAborted();
    const parent = inputs[0] ?? EMPTY;
    if ("exec" in op) {
      const { proxyEnv: _, ...counted } = op.exec;
      const key = async () => {
        const ids: string[] = [];
        for (const [i, tree] of inputs.entries()) {
          if (tree.directory === undefined) {
            ids.push(tree.chainId);
            continue;
          }
          for (const mount of op.exec.mounts.filter(({ input }) => input === i)) ids.push(await digestOfFiles(tree, mount.selector));
        }
        return keyOf(["exec", counted, ids]);
      };
      return cachedOr(parent, [key], vertex, async () => {
        const scratch: string[] = [];
        events.started(vertex.digest);
        try {
          return await changing(parent, text, (snapshotKey, mounts) =>
            execute({
              host,
              build: options.build,
              op: op.exec,
              snapshotKey,
              mounts,
              bindOf: (mount) => bindOf(inputs[mount.input]!, mount, scratch),
              onOutput: (bytes) => events.output(vertex.digest, bytes),
              onStart: (id) => events.container(vertex.digest, id),
              signal,
            }),
          );
        } finally {
          await Promise.all(scratch.map((each) => rm(each, { recursive: true, force: true })));
        }
      });
    }
    if ("file" in op) {
      const { actions } = op.file;
      const copies = actions.filter((action) => action.kind === "copy");
      const stagesOnly = copies.length > 0 && copies.every(({ input }) => inputs[input]!.directory === undefined);
      const byChain = () => keyOf(["file", actions, parent.chainId, inputs.slice(1).map(({ chainId }) => chainId)]);
      const byContent = async () => {
        const digests: string[] = [];
        for (const action of copies) digests.push(await reading(inputs[action.input]!, (tree) => copyDigest(action, tree)));
        return keyOf([
          "file",
          actions.map((action) => (action.kind === "copy" ? { ...action, input: 0 } : action)),
          parent.chainId,
          digests,
        ]);
      };
      const keys = stagesOnly ? [byChain, byContent] : [byContent];
      return cachedOr(parent, keys, vertex, async () => {
        events.started(vertex.digest);
        return changing(parent, text, (_, mounts) =>
          readingAll(inputs.slice(1), async (trees) => {
            const mount = openDetached(mounts);
            try {
              await performActions(host, mount, actions, (input) => trees[input - 1]!);
            } finally {
              close(mount);
            }
          }),
        );
      });
    }
    throw unimplemented("merge and diff operations of the build graph");
  }

  const digestOfFiles = (tree: Tree, selector: string): Promise<string> =>
    reading(tree, (copy) =>
      copyDigest(
        {
          kind: "copy",
          input: 0,
          sources: [selector],
          destination: "/",
          owner: "",
          keepOwner: false,
          mode: undefined,
          exclude: [],
          parents: false,
          unpack: false,
        },
        copy,
      ),
    );

  const fetched: string[] = [];

  function solve(digest: string): Promise<Tree> {
    if (digest === "") return Promise.resolve(EMPTY);
    let result = solved.get(digest);
    if (!result) {
      const vertex = graph.vertices.get(digest);
      if (!vertex) return Promise.reject(failedPrecondition(`the build graph has no vertex ${digest}`));
      result = run(vertex).then(
        (tree) => {
          events.finished(digest, tree);
          return tree;
        },
        (error: unknown) => {
          if (error instanceof Error && !("vertex" in error)) Object.assign(error, { vertex: digest });
          throw error;
        },
      );
      result.catch(() => {});
      solved.set(digest, result);
    }
    return result;
  }
  return {
    solve,
    /** Waits until nothing runs any more and takes away what was fetched. */
    async [Symbol.asyncDispose]() {
      await Promise.allSettled(solved.values());
      await Promise.all(fetched.map((each) => rm(each, { recursive: true, force: true })));
    },
  };
}
