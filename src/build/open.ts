// A build of LLB: definitions in, trees out (session.ts says what for).
import { randomBytes } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { type Definition, ExecOpSchema, MetaSchema, NetMode, type Source } from "../gen/pb_pb.ts";
import { failedPrecondition, invalidArgument, isKind, messageOf } from "../lib/errors.ts";
import { digestOf } from "../oci/index.ts";
import type { ExportContext } from "./export/context.ts";
import { partsOf, provenanceOf } from "./export/image.ts";
import { exportResult } from "./export/index.ts";
import { provenanceOptions } from "./export/provenance.ts";
import { definitionToGraph } from "./graph/definition.ts";
import { createGraph, type Edge, graphToDefinition } from "./graph/llb.ts";
import type { BuilderHost, BuildHost, Lease, Status } from "./host.ts";
import { applyPolicy, type SourcePolicy } from "./policy.ts";
import { inlineConfig } from "./remote/config.ts";
import { exportCache } from "./remote/export.ts";
import { importCache } from "./remote/import.ts";
import type { BuildSession, ContainerRequest, FailedStep, ProcessRequest, Ref, SessionContainer, SessionOptions } from "./session.ts";
import type { Cache } from "./solve/cache.ts";
import type { MountCaches } from "./solve/caches.ts";
import { createContainer } from "./solve/container.ts";
import { createSolver } from "./solve/solver.ts";
import type { CacheSource } from "./solve/vertex.ts";
import { fileTree, readDir, readFile, statPath } from "./solve/view.ts";
import { EMPTY, type Tree } from "./solve/workspace.ts";

export interface OpenOptions {
  host: BuilderHost;
  build: BuildHost;
  cache: Cache;
  caches: MountCaches;
  lease: Lease;
  options: SessionOptions;
}

/** The builder's lease must last as long as the session. */
export async function openSession({ host, build, cache, caches, lease, options }: OpenOptions): Promise<BuildSession> {
  const graph = createGraph();
  const imports: CacheSource[] = [];
  const ended = new AbortController();
  const signal = AbortSignal.any([options.signal, ended.signal]);
  const edgeOf = (given: Definition, policy: SourcePolicy | undefined): Edge | undefined =>
    definitionToGraph(policy ? applyPolicy(policy, given) : given, graph);
  const solver = createSolver({
    host,
    build,
    cache,
    caches,
    graph,
    images: new Map(),
    lease,
    useCache: !options.noCache,
    entitlements: options.entitlements,
    imports,
    keepFailed: options.keepFailed ?? false,
    explain: options.explain ?? false,
    onEvent: options.onEvent,
    onContainer() {},
    describe: () => "",
    load: (given) => edgeOf(given, options.policy),
    signal,
  });
  const { workspace } = solver;
  const atEnd: (() => unknown)[] = [];
  const trees = new WeakMap<Ref, () => Promise<Tree>>();

  function refOf(edge: Edge | undefined, treeOf: () => Promise<Tree>): Ref {
    const looking = async <T>(work: (root: number) => T | Promise<T>): Promise<T> =>
      workspace.reading(await treeOf(), async ({ root }) => work(root));
    const ref: Ref = {
      edge,
      definition: (source) => graphToDefinition(graph, edge, source),
      evaluate: async () => void (await treeOf()),
      readFile: (path, range) => looking((root) => readFile(root, path, range)),
      readDir: (path, pattern) => looking((root) => readDir(root, path, pattern)),
      stat: (path) => looking((root) => statPath(root, path)),
      withTree: (work) => looking((root) => work(fileTree(root))),
    };
    trees.set(ref, treeOf);
    return ref;
  }
  const solved = new Map<string, Ref>();
  const ref = (edge: Edge | undefined): Ref => {
    const name = edge ? `${edge.digest}#${edge.index}` : "";
    let found = solved.get(name);
    if (!found) {
      found = refOf(edge, () => solver.solve(edge));
      solved.set(name, found);
    }
    return found;
  };
  const treeOf = (each: Ref): Promise<Tree> => {
    const find = trees.get(each);
    if (!find) throw invalidArgument("a reference of another build");
    return find();
  };

  async function container(request: ContainerRequest): Promise<SessionContainer> {
    const held = await Promise.all(request.mounts.map((each) => each.ref && treeOf(each.ref)));
    const network = request.network === "host" ? NetMode.HOST : request.network === "none" ? NetMode.NONE : NetMode.UNSET;
    if (network === NetMode.HOST && !options.entitlements.has("network.host")) throw failedPrecondition("network.host is not allowed");
    const meta = create(MetaSchema, {
      hostname: request.hostname,
      extraHosts: request.extraHosts.map(({ Host, IP }) => ({ Host, IP })),
    });
    const op = create(ExecOpSchema, { mounts: request.mounts.map(({ mount }) => mount), network, meta });
    const made = await createContainer({ host, build, workspace, caches, signal, op, trees: held });
    atEnd.push(() => made.release());
    const { run } = made;
    return {
      ...made,
      run(process) {
        if (process.insecure && !options.entitlements.has("security.insecure"))
          throw failedPrecondition("security.insecure is not allowed");
        return run(process);
      },
    };
  }

  const failed = new WeakMap<object, FailedStep>();
  function failedStep(error: unknown): FailedStep | undefined {
    const kept = solver.kept(error);
    if (!kept || typeof error !== "object" || error === null) return undefined;
    const known = failed.get(error);
    if (known) return known;
    const { op, vertex } = kept;
    let entered: Promise<SessionContainer> | undefined;
    const release = async () => {
      await (await entered)?.release();
      entered = undefined;
      for (const tree of kept.mounts.splice(0))
        if (tree?.snapshot) {
          const { snapshotter, snapshots } = host.manager;
          await snapshots.remove({ snapshotter, key: tree.snapshot }).catch(() => {});
        }
    };
    atEnd.push(release);
    const step: FailedStep = {
      vertex,
      op,
      mounts: kept.mounts.map((tree) => tree && refOf(undefined, async () => tree)),
      inputs: kept.inputs.map((tree) => refOf(undefined, async () => tree)),
      async enter(request) {
        entered ??= createContainer({ host, build, workspace, caches, signal, op, trees: kept.mounts });
        const meta = op.meta!;
        const whole: ProcessRequest = {
          args: meta.args,
          env: meta.env,
          cwd: meta.cwd || "/",
          user: meta.user,
          terminal: false,
          input: false,
          insecure: op.security === 1,
          secretEnv: op.secretenv.map(({ ID, name, optional }) => ({ id: ID, name, optional })),
          ...request,
        };
        return (await entered).run(whole);
      },
      release,
    };
    failed.set(error, step);
    return step;
  }

  const started = new Date();
  const id = randomBytes(16).toString("hex");
  let source: Source | undefined;
  let { request } = options;

  /** Runs part of an export as a vertex of its own, for those who watch. */
  async function shown<T>(name: string, work: (status: (status: Status) => void) => Promise<T>): Promise<T> {
    const digest = digestOf(`${id} ${name} ${performance.now()}`);
    const now = () => performance.timeOrigin + performance.now();
    const begun = now();
    const base = { kind: "vertex" as const, digest, inputs: [], name, group: undefined, cached: false };
    const begins = new Map<string, number>();
    options.onEvent({ ...base, started: begun, completed: undefined, error: undefined });
    try {
      const answer = await work(({ id: part, name: partName, current, total, completed }) => {
        const time = now();
        const first = begins.get(part) ?? time;
        begins.set(part, first);
        const state = { current, total, time, started: first, completed: completed ? time : undefined };
        options.onEvent({ kind: "status", vertex: digest, id: part, name: partName, ...state });
      });
      options.onEvent({ ...base, started: begun, completed: now(), error: undefined });
      return answer;
    } catch (error) {
      options.onEvent({ ...base, started: begun, completed: now(), error: messageOf(error) });
      throw error;
    }
  }

  const contextOf = (status: (status: Status) => void): ExportContext => ({
    host,
    lease,
    signal,
    graph,
    cache,
    workspace,
    epoch: options.epoch,
    noCache: options.noCache,
    request,
    id,
    started,
    treeOf: async (each) => (each ? treeOf(each) : EMPTY),
    solved: () => solver.solved(),
    source: () => source,
    status,
    async hasSnapshot(chainId) {
      const { snapshots, snapshotter } = host.manager;
      return snapshots.stat({ snapshotter, key: chainId }).then(
        () => true,
        () => false,
      );
    },
    inlineCache: async (layers) => inlineConfig((await solver.solved()).values(), layers),
  });
  async function dispose(): Promise<void> {
    ended.abort(failedPrecondition("the build is over"));
    for (const each of atEnd.splice(0).reverse()) {
      try {
        await each();
      } catch (error) {
        host.log("debug", `at the end of a build: ${error}`);
      }
    }
    await solver[Symbol.asyncDispose]();
  }

  // A cache that can't be had makes a build slower, not wrong.
  const importing = await Promise.allSettled(
    (options.cacheImports ?? []).map(async (option) => {
      if (option.type === "inline") return;
      const name = option.type === "local" ? `local cache of ${option.attrs.src ?? ""}` : (option.attrs.ref ?? option.type);
      try {
        await shown(`importing cache manifest from ${name}`, async () => {
          const { sources, release } = await importCache(option, { host, build, lease, signal });
          imports.push(...sources);
          if (release) atEnd.push(release);
        });
      } catch (error) {
        signal.throwIfAborted();
        if (isKind(error, "InvalidArgument") || isKind(error, "Unimplemented")) throw error;
        host.log("info", `cache import: ${messageOf(error)}`);
      }
    }),
  );
  const failure = importing.find((each) => each.status === "rejected");
  if (failure) {
    await dispose();
    throw failure.reason;
  }

  const NAMES: Record<string, string> = {
    image: "exporting to image",
    oci: "exporting to oci image format",
    docker: "exporting to docker image format",
    local: "exporting to client directory",
    tar: "exporting to client tarball",
  };

  return {
    graph,
    load(definition, policy = options.policy) {
      // The one that has a Dockerfile in it says more than what it was read by.
      if (!source?.infos.some(({ data }) => data.length > 0)) source = definition.Source ?? source;
      return ref(edgeOf(definition, policy));
    },
    ref,
    export: (result, exporter, sink) =>
      shown(NAMES[exporter.type] ?? `exporting to ${exporter.type}`, (status) => exportResult(contextOf(status), result, exporter, sink)),
    exportCache: (result, option, sink) =>
      shown(
        option.type === "inline"
          ? "preparing layers for inline cache"
          : `exporting cache to ${option.type === "local" ? "client directory" : option.type}`,
        (status) => exportCache(contextOf(status), build, result, option, sink),
      ),
    describe(frontend, attrs) {
      if (request && request.frontend === "") request = { frontend, attrs: { ...attrs, ...request.attrs } };
    },
    async provenance(result) {
      const context = contextOf(() => {});
      const wanted = provenanceOptions(request?.attrs ?? {}) ?? provenanceOptions({ "attest:provenance": "" })!;
      const found = new Map<string, { predicateType: string; predicate: unknown }>();
      for (const part of await partsOf(context, result)) {
        const { predicateType, predicate } = await provenanceOf(context, part, { ...wanted, mode: "max" });
        found.set(result.refs.size > 0 ? part.name : "", { predicateType, predicate });
      }
      return found;
    },
    container,
    failedStep,
    [Symbol.asyncDispose]: dispose,
  };
}
