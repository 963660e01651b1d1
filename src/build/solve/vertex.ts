// What solving a vertex takes and gives.
import type { Definition, ExecOp } from "../../gen/pb_pb.ts";
import type { Edge, Graph, Vertex } from "../graph/llb.ts";
import type { BaseImage, BuilderHost, BuildHost, Layer, Lease, Status } from "../host.ts";
import type { BuildEvent, KeyPart } from "../progress.ts";
import type { Cache, Outputs, RecordKind } from "./cache.ts";
import type { MountCaches } from "./caches.ts";
import type { Tree, Workspace } from "./workspace.ts";

/** What a vertex has become. */
export interface Solved {
  outputs: Map<number, Tree>;
  cached: boolean;
  /** Layers that it added to its first output. */
  added: Layer[];
  /** Of its cache record; "" where it has none. */
  key: string;
  /** All keys that lead to it. */
  keys: string[];
  image?: BaseImage;
  material?: { uri: string; digest: string };
}

/** What a step held when its command had failed. */
export interface Kept {
  vertex: string;
  op: ExecOp;
  mounts: (Tree | undefined)[];
  inputs: Tree[];
}

/** Another place where results of earlier builds may be. */
export interface CacheSource {
  /** Whole trees, by output, with the means to fetch them; undefined where one of them is missing. */
  find(key: string, outputs: readonly number[]): Promise<Map<number, Tree> | undefined>;
}

export interface SolveOptions {
  host: BuilderHost;
  build: BuildHost;
  cache: Cache;
  caches: MountCaches;
  graph: Graph;
  images: ReadonlyMap<string, BaseImage>;
  lease: Lease;
  useCache: boolean;
  entitlements: ReadonlySet<string>;
  imports: readonly CacheSource[];
  keepFailed: boolean;
  explain: boolean;
  onEvent(event: BuildEvent): void;
  onContainer(vertex: string, id: string): void;
  /** Words for the cache's list; "" where there are none. */
  describe(vertex: string): string;
  /** Adds a definition that a step made to the graph; absent: none can. */
  load?: (definition: Definition) => Edge | undefined;
  signal: AbortSignal;
}

/** What each kind of vertex is solved with. */
export interface VertexTools {
  options: SolveOptions;
  workspace: Workspace;
  inputsOf(vertex: Vertex): Promise<Tree[]>;
  /**
   * From the cache, or from another build that makes it now, or made. Keys are tried in order; `parentOf` gives the tree that an output grows from.
   */
  cachedOr(
    vertex: Vertex,
    kind: RecordKind,
    keys: (() => Promise<KeyPart[]> | KeyPart[])[],
    indexes: readonly number[],
    parentOf: (output: number) => Tree,
    make: () => Promise<Outputs>,
  ): Promise<Solved>;
  nameOf(vertex: Vertex): string;
  /** Says what a vertex does while it does it. */
  watched(vertex: Vertex): { status(status: Status): void; log(stream: 1 | 2, bytes: Uint8Array): void };
  /** The build does not end before this. */
  later(work: Promise<void>): void;
  /** Remembers what a step held when its command had failed. */
  failed(error: object, kept: Kept): void;
}

/** What a tree holds, as part of a key. */
export const contentName = (tree: Tree): string => tree.chainId || tree.digest;
/** Whether only a look into the files can say what they are. */
export const isUnknown = (tree: Tree): boolean => tree.directory !== undefined && tree.digest === "";
