// A build of LLB: definitions in, trees out (session.ts says what for).
import { create } from "@bufbuild/protobuf";
import { ExecOpSchema, MetaSchema, NetMode } from "../gen/pb_pb.ts";
import { failedPrecondition, invalidArgument, unimplemented } from "../lib/errors.ts";
import { definitionToGraph } from "./graph/definition.ts";
import { createGraph, type Edge, graphToDefinition } from "./graph/llb.ts";
import type { BuilderHost, BuildHost, Lease } from "./host.ts";
import type { BuildSession, ContainerRequest, FailedStep, ProcessRequest, Ref, SessionContainer, SessionOptions } from "./session.ts";
import type { Cache, CacheRecord } from "./solve/cache.ts";
import type { MountCaches } from "./solve/caches.ts";
import { createContainer } from "./solve/container.ts";
import { type CacheSource, createSolver } from "./solve/solver.ts";
import { fileTree, readDir, readFile, statPath } from "./solve/view.ts";
import type { Tree } from "./solve/workspace.ts";

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
  const solver = createSolver({
    host,
    build,
    cache,
    caches,
    graph,
    images: new Map(),
    lease,
    useCache: !options.noCache,
    epoch: options.epoch,
    entitlements: options.entitlements,
    imports,
    keepFailed: options.keepFailed ?? false,
    explain: options.explain ?? false,
    onEvent: options.onEvent,
    onContainer() {},
    describe: () => "",
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

  return {
    graph,
    load: (definition) => ref(definitionToGraph(definition, graph)),
    ref,
    async export() {
      throw unimplemented("exports of builds");
    },
    async exportCache(_result, { type }) {
      throw unimplemented(`cache exports of the type ${type}`);
    },
    container,
    failedStep,
    used(): CacheRecord[] {
      return [];
    },
    async [Symbol.asyncDispose]() {
      ended.abort(failedPrecondition("the build is over"));
      for (const each of atEnd.splice(0).reverse()) {
        try {
          await each();
        } catch (error) {
          host.log("debug", `at the end of a build: ${error}`);
        }
      }
      await solver[Symbol.asyncDispose]();
    },
  };
}
