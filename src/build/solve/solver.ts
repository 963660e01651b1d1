// Solves a graph: each vertex once, as soon as its inputs are there, side by side with others; what was made before is taken from the cache.
import { availableParallelism } from "node:os";
import type { Op } from "../../gen/pb_pb.ts";
import { failedPrecondition, invalidArgument, messageOf } from "../../lib/errors.ts";
import { createLimit } from "../../lib/limit.ts";
import { outputsOf } from "../graph/definition.ts";
import { type Edge, edgeName, type Vertex } from "../graph/llb.ts";
import type { Status } from "../host.ts";
import type { KeyPart } from "../progress.ts";
import type { Cache, Outputs, RecordKind } from "./cache.ts";
import { execVertex } from "./exec-vertex.ts";
import { fileVertex } from "./file-vertex.ts";
import { describeOp, keyOf } from "./keys.ts";
import { createNested } from "./nested.ts";
import { solveSource } from "./sources.ts";
import type { Kept, Solved, SolveOptions, VertexTools } from "./vertex.ts";
import { createWorkspace, EMPTY, grown, once, type Tree, treeOf, type Workspace } from "./workspace.ts";

export interface Solver extends AsyncDisposable {
  readonly workspace: Workspace;
  /** What an edge has become; undefined is the empty tree. An error has the vertex' digest in `vertex`. */
  solve(edge: Edge | undefined): Promise<Tree>;
  vertex(digest: string): Promise<Solved>;
  /** What was solved so far. */
  solved(): Promise<Map<string, Solved>>;
  kept(error: unknown): Kept | undefined;
}

export function createSolver(options: SolveOptions): Solver {
  const { host, build, graph, cache, lease, signal } = options;
  const workspace = createWorkspace(options);
  const vertices = new Map<string, Promise<Solved>>();
  const limited = createLimit(Math.max(2, availableParallelism()));
  const atEnd: (() => unknown)[] = [];
  const failures = new WeakMap<object, Kept>();
  const told = new Set<string>();

  const nameOf = (vertex: Vertex): string =>
    graph.metadata.get(vertex.digest)?.description["llb.customname"] || options.describe(vertex.digest) || describeOp(vertex.op);

  /** The same whatever values its variables have: a step is compared with its last run by this. */
  const titleOf = (vertex: Vertex): string => {
    const command = graph.metadata.get(vertex.digest)?.description["com.docker.dockerfile.v1.command"];
    const name = nameOf(vertex);
    return (command === undefined ? name : `${/^\[[^\]]*\] /.exec(name)?.[0] ?? ""}${command}`).slice(0, 500);
  };

  function tell(vertex: Vertex, state: { started?: number; completed?: number; cached?: boolean; error?: string }): void {
    const group = graph.metadata.get(vertex.digest)?.progressGroup;
    told.add(vertex.digest);
    options.onEvent({
      kind: "vertex",
      digest: vertex.digest,
      inputs: vertex.inputs.map(({ digest }) => digest),
      name: nameOf(vertex),
      group: group && { id: group.id, name: group.name, weak: group.weak },
      started: state.started,
      completed: state.completed,
      cached: state.cached ?? false,
      error: state.error,
    });
  }
  const now = () => performance.timeOrigin + performance.now();

  /** Says what a vertex does while it does it. */
  function watched(vertex: Vertex) {
    const begun = new Map<string, number>();
    return {
      status({ id, name, current, total, completed }: Status): void {
        const time = now();
        const started = begun.get(id) ?? time;
        begun.set(id, started);
        const state = { current, total, time, started, completed: completed ? time : undefined };
        options.onEvent({ kind: "status", vertex: vertex.digest, id, name, ...state });
      },
      log: (stream: 1 | 2, bytes: Uint8Array) => options.onEvent({ kind: "log", vertex: vertex.digest, stream, bytes, time: now() }),
    };
  }

  const inputsOf = async (vertex: Vertex): Promise<Tree[]> => Promise.all(vertex.inputs.map(solve));

  /** From the cache, or from another build that makes it now, or made. `parentOf` gives the tree that an output grows from. */
  async function cachedOr(
    vertex: Vertex,
    kind: RecordKind,
    keys: (() => Promise<KeyPart[]> | KeyPart[])[],
    indexes: readonly number[],
    parentOf: (output: number) => Tree,
    make: () => Promise<Outputs>,
  ): Promise<Solved> {
    const grow = (outputs: Outputs, cached: boolean, key: string, all: string[]): Solved => {
      if (!cached) atEnd.push(cache.hold(key));
      const trees = new Map([...outputs].map(([index, change]) => [index, grown(parentOf(index), change)]));
      if (cached) tell(vertex, { started: now(), completed: now(), cached: true });
      return { outputs: trees, cached, added: outputs.get(0)?.layers ?? [], key, keys: all };
    };
    const parents = [...new Set((await Promise.all(vertex.inputs.map(({ digest }) => solveVertex(digest)))).map(({ key }) => key))];
    const about = (parts: KeyPart[]) => ({ text: titleOf(vertex), kind, parents: parents.filter(Boolean), parts });
    const useCache = options.useCache && graph.metadata.get(vertex.digest)?.ignoreCache !== true;
    const tried: { key: string; parts: KeyPart[] }[] = [];
    const store = (outputs: Outputs, except = "") => {
      for (const { key, parts } of tried) if (key !== except) cache.store(key, outputs, about(parts));
      return tried.map(({ key }) => key);
    };
    for (const each of keys) {
      const parts = await each();
      const key = keyOf(kind, parts);
      tried.push({ key, parts });
      if (!useCache) continue;
      // Held before it is looked at: what is pruned meanwhile is not this.
      const release = cache.hold(key);
      const found = await cache.find(key);
      if (found) {
        atEnd.push(release);
        // also under the cheaper keys, for the next time
        return grow(found, true, key, store(found, key));
      }
      release();
      // Before the next key: to make that, files may have to be fetched and read.
      for (const source of options.imports) {
        const trees = await source.find(key, indexes);
        if (!trees) continue;
        tell(vertex, { started: now(), completed: now(), cached: true });
        return imported(vertex, trees, parentOf, key, tried, about);
      }
    }
    const { key, parts } = tried.at(-1)!;
    if (options.explain && useCache) explainMiss(vertex, kind, parts);
    // Another build makes it now; where that fails, its reasons (a client that went away) need not be ours. Between the last look and our own entry is no await.
    for (let running = cache.running.get(key); useCache && running; running = cache.running.get(key)) {
      const elsewhere = await running.catch(() => undefined);
      signal.throwIfAborted();
      if (elsewhere) {
        atEnd.push(cache.hold(key));
        return grow(elsewhere, true, key, store(elsewhere));
      }
    }
    const started = now();
    const making = limited(async () => {
      signal.throwIfAborted();
      tell(vertex, { started: now() });
      return make();
    });
    if (!cache.running.has(key)) {
      cache.running.set(key, making);
      const forget = () => {
        if (cache.running.get(key) === making) cache.running.delete(key);
      };
      making.then(forget, forget);
    }
    const outputs = await making;
    tell(vertex, { started, completed: now() });
    return grow(outputs, false, key, store(outputs));
  }

  /** What another builder made. Once its layers are here, it is a record like our own. */
  function imported(
    vertex: Vertex,
    trees: ReadonlyMap<number, Tree>,
    parentOf: (output: number) => Tree,
    key: string,
    tried: readonly { key: string; parts: KeyPart[] }[],
    about: (parts: KeyPart[]) => Parameters<Cache["store"]>[2],
  ): Solved {
    const changes: Outputs = new Map(
      [...trees].map(([index, { layers, chainId }]) => [index, { chainId, layers: layers.slice(parentOf(index).layers.length) }]),
    );
    const wanted = watched(vertex);
    const keep = once(async () => {
      const started = now();
      tell(vertex, { started });
      // What it grew from becomes a record, too.
      for (const index of trees.keys()) await parentOf(index).fetch?.();
      for (const tree of trees.values()) await tree.fetch?.(wanted.status);
      await cache.adopt(changes);
      for (const one of tried) cache.store(one.key, changes, about(one.parts));
      tell(vertex, { started, completed: now(), cached: true });
    });
    const outputs = new Map([...trees].map(([index, tree]) => [index, { ...tree, fetch: keep }]));
    return { outputs, cached: true, added: changes.get(0)?.layers ?? [], key, keys: tried.map((one) => one.key) };
  }

  function explainMiss(vertex: Vertex, kind: RecordKind, parts: KeyPart[]): void {
    const name = nameOf(vertex);
    const before = cache.earlier(titleOf(vertex), kind);
    const names = [...new Set([...parts, ...(before?.parts ?? [])].map((part) => part.name))];
    const partOf = (list: KeyPart[] | undefined, wanted: string) => list?.find((part) => part.name === wanted)?.value;
    const changed = names
      .map((each) => ({ name: each, before: partOf(before?.parts, each), now: partOf(parts, each) }))
      .filter((each) => each.before !== each.now);
    const earlier = before && { created: before.created, changed };
    options.onEvent({ kind: "miss", vertex: vertex.digest, name, parts, earlier });
  }

  const nested = createNested(options.load, workspace);
  const tools: VertexTools = {
    options,
    workspace,
    inputsOf,
    cachedOr,
    nameOf,
    watched,
    later: (work) => void atEnd.push(() => work),
    failed: (error, kept) => void failures.set(error, kept),
  };

  const alone = (tree: Tree, cached = true): Solved => ({ outputs: new Map([[0, tree]]), cached, added: [], key: "", keys: [] });

  async function merge(vertex: Vertex, inputs: Tree[]): Promise<Solved> {
    const trees: Tree[] = [];
    for (const tree of inputs) trees.push(await workspace.layered(tree, nameOf(vertex)));
    const fetches = trees.flatMap(({ fetch }) => fetch ?? []);
    const fetch = async () => void (await Promise.all(fetches.map((each) => each())));
    return alone(
      treeOf(
        trees.flatMap(({ layers }) => layers),
        fetches.length > 0 ? fetch : undefined,
      ),
    );
  }

  async function diff(vertex: Vertex, lower: Tree, upper: Tree): Promise<Solved> {
    const [from, to] = [await workspace.layered(lower, nameOf(vertex)), await workspace.layered(upper, nameOf(vertex))];
    if (from.layers.every(({ diffId }, i) => to.layers[i]?.diffId === diffId))
      return alone(treeOf(to.layers.slice(from.layers.length), to.fetch));
    const parts = [
      { name: "lower", value: from.chainId },
      { name: "upper", value: to.chainId },
    ];
    return cachedOr(
      vertex,
      "regular",
      [() => parts],
      [0],
      () => EMPTY,
      async () => new Map([[0, await workspace.difference(from, to, nameOf(vertex))]]),
    );
  }

  async function source(vertex: Vertex, op: Op): Promise<Solved> {
    const watch = watched(vertex);
    const begun = now();
    tell(vertex, { started: begun });
    const { tree, cached, image, material } = await solveSource(op, vertex.digest, {
      host,
      build,
      images: options.images,
      status: watch.status,
      log: (bytes) => watch.log(2, bytes),
      async fetching(work) {
        const started = now();
        tell(vertex, { started });
        const result = await work();
        tell(vertex, { started, completed: now() });
        return result;
      },
      memory: cache.memory,
      later: (work) => void atEnd.push(work),
      lease,
      signal,
    });
    tell(vertex, { started: begun, completed: now(), cached: cached && tree.fetch === undefined });
    return { ...alone(tree, cached), ...(image ? { image } : {}), ...(material ? { material } : {}) };
  }

  async function run(vertex: Vertex): Promise<Solved> {
    const { op } = vertex.op;
    switch (op.case) {
      case "source":
        return source(vertex, vertex.op);
      case "exec":
        return execVertex(tools, vertex, op.value);
      case "file":
        return fileVertex(tools, vertex, op.value);
    }
    const inputs = await inputsOf(vertex);
    const at = (index: bigint | undefined): Tree => (index === undefined || index < 0n ? EMPTY : inputs[Number(index)]!);
    switch (op.case) {
      case "merge":
        return merge(
          vertex,
          op.value.inputs.map(({ input }) => at(input)),
        );
      case "diff":
        return diff(vertex, at(op.value.lower?.input), at(op.value.upper?.input));
      case "passthrough":
        return { ...alone(EMPTY), outputs: new Map(op.value.outputs.map((input, i) => [i, at(input)])) };
      case "build": {
        const edge = await nested(op.value, inputs);
        return alone(await solve(edge));
      }
      default:
        throw invalidArgument(`operation ${vertex.digest} says nothing`);
    }
  }

  function solveVertex(digest: string): Promise<Solved> {
    let result = vertices.get(digest);
    if (!result) {
      const vertex = graph.vertices.get(digest);
      if (!vertex) return Promise.reject(failedPrecondition(`the build graph has no vertex ${digest}`));
      if (!told.has(digest)) tell(vertex, {});
      // A turn of its own: graphs may be thousands of vertices deep.
      result = Promise.resolve()
        .then(() => run(vertex))
        .catch((error: unknown) => {
          if (error instanceof Error && !("vertex" in error)) {
            Object.assign(error, { vertex: digest });
            tell(vertex, { started: now(), completed: now(), error: messageOf(error) });
          }
          throw error;
        });
      result.catch(() => {});
      vertices.set(digest, result);
    }
    return result;
  }

  async function solve(edge: Edge | undefined): Promise<Tree> {
    if (!edge) return EMPTY;
    const { outputs } = await solveVertex(edge.digest);
    const tree = outputs.get(edge.index);
    if (!tree) {
      const count = outputsOf(graph.vertices.get(edge.digest)!.op);
      throw invalidArgument(`there is no output ${edgeName(edge)} (operation has ${count})`);
    }
    return tree;
  }

  return {
    workspace,
    solve,
    vertex: solveVertex,
    async solved() {
      const found = new Map<string, Solved>();
      for (const [digest, result] of vertices) {
        const solved = await result.catch(() => undefined);
        if (!solved) continue;
        const { keys } = solved;
        found.set(digest, {
          ...solved,
          // Looked up only by those who want them.
          get keys() {
            return [...new Set(keys.flatMap((key) => [key, ...cache.same(key)]))];
          },
        });
      }
      return found;
    },
    kept: (error) => (typeof error === "object" && error !== null ? failures.get(error) : undefined),
    /** Waits until nothing runs any more and takes away what was fetched. */
    async [Symbol.asyncDispose]() {
      await Promise.allSettled(vertices.values());
      for (const each of atEnd.splice(0).reverse()) {
        try {
          await each();
        } catch (error) {
          host.log("debug", `at the end of a build: ${messageOf(error)}`);
        }
      }
    },
  };
}
