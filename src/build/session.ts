// One build as the doors that speak LLB see it: definitions go in, references to what they mean come out, are looked into, and exported.
//
//   await using session = await builder.open({ onEvent, signal, … }, host);
//   const ref = session.load(definition);                    // nothing is done yet
//   const bytes = await ref.readFile("/Dockerfile");         // now it is
//   const answer = await session.export({ ref, refs: new Map(), metadata, attestations: new Map() }, { type: "image", attrs: { name } }, sink);
import type { Readable, Writable } from "node:stream";
import type { Definition, ExecOp, Mount, Source } from "../gen/pb_pb.ts";
import type { Descriptor, Platform } from "../oci/index.ts";
import type { Edge, Graph } from "./graph/llb.ts";
import type { Status } from "./host.ts";
import type { SourcePolicy } from "./policy.ts";
import type { BuildEvent } from "./progress.ts";

export interface SessionOptions {
  onEvent(event: BuildEvent): void;
  signal: AbortSignal;
  /** No step is taken from the cache. Single vertices say it in their metadata (ignore_cache). */
  noCache: boolean;
  /** SOURCE_DATE_EPOCH in seconds. */
  epoch?: number | undefined;
  /** "network.host", "security.insecure", "device". */
  entitlements: ReadonlySet<string>;
  /** A failed step is kept until it is released, so that one can look into it. */
  keepFailed?: boolean;
  /** Misses are told as events. */
  explain?: boolean;
  cacheImports?: CacheOption[];
  /** What definitions may have for sources. Images that a frontend looks up are the host's to mind (withPolicy). */
  policy?: SourcePolicy;
  /** What the client asked for, for provenance: "attest:provenance" among the attributes says whether one is wanted. */
  request?: { frontend: string; attrs: Readonly<Record<string, string>> };
}

/** An entry of --cache-from or --cache-to: type "registry", "local", "inline", … */
export interface CacheOption {
  type: string;
  attrs: Record<string, string>;
}

/** A file as it is in a tree; times in nanoseconds since 1970. */
export interface FileInfo {
  /** Relative to the tree, without leading "/". */
  path: string;
  /** As stat has it, with the kind of file. */
  mode: number;
  uid: number;
  gid: number;
  size: number;
  mtime: bigint;
  /** Target of a symbolic link; for a further name of a file already told, that file's path. */
  linkname: string;
  devmajor: number;
  devminor: number;
  xattrs: Record<string, Uint8Array>;
}

/** A file tree to send somewhere, in the order of a depth-first walk by sorted names (a directory comes before what is in it). */
export interface FileTree {
  entries(): AsyncIterable<FileInfo>;
  /** Contents of a regular file that entries() told. */
  open(path: string): Promise<Readable>;
}

/** What a vertex' output is, not made before somebody looks into it. */
export interface Ref {
  /** Undefined: the empty tree. */
  readonly edge: Edge | undefined;
  definition(source?: Source): Definition;
  /** Makes it. Errors have the vertex' digest in `vertex`. */
  evaluate(): Promise<void>;
  /** NotFound; a file of at most 128 MiB or a part of it. */
  readFile(path: string, range?: { offset: number; length: number }): Promise<Uint8Array>;
  readDir(path: string, pattern?: string): Promise<FileInfo[]>;
  stat(path: string): Promise<FileInfo>;
  /** The whole tree, as long as `work` lasts. */
  withTree<T>(work: (tree: FileTree) => Promise<T>): Promise<T>;
}

export interface Attestation {
  kind: "in-toto" | "bundle";
  /** Where its bytes are, or the bytes. */
  ref: Ref | undefined;
  path: string;
  content?: Uint8Array;
  metadata: Map<string, Uint8Array>;
  predicateType: string;
  subjects: { kind: "self" | "raw"; name: string; digest: string[] }[];
}

/** What a frontend answers: trees by platform ("linux/amd64", or one without a name) and what is to be said of them (containerimage.config, …). */
export interface Result {
  ref: Ref | undefined;
  refs: Map<string, Ref | undefined>;
  metadata: Map<string, Uint8Array>;
  attestations: Map<string, Attestation[]>;
}

/** An image in the content store, kept by the build's lease. */
export interface ExportedImage {
  /** The manifest, or an index. */
  target: Descriptor;
  /** Digest of the config; undefined for several platforms. */
  configDigest: string | undefined;
  platforms: Platform[];
  names: string[];
  /** "push", "push-by-digest", "registry.insecure", "unpack", "store", "dangling-name-prefix", … as the client gave them. */
  attrs: Record<string, string>;
  lease: { headers: Record<string, string> };
}

/** Where an export goes; what its type needs must be there. What it tells of its parts ("naming to …") belongs to the export's vertex. */
export interface ExportSink {
  /** type image: names it, pushes it. Answers the names that the client is told; undefined: those that it asked for. */
  image?(image: ExportedImage, status: (status: Status) => void): Promise<string[] | undefined>;
  /** types oci, docker, tar: bytes to the client (or a file). */
  stream?(status: (status: Status) => void): Promise<Writable>;
  /** types local, oci and docker with tar=false: files to the client. Called for one tree that holds all. */
  tree?(tree: FileTree, status: (status: Status) => void): Promise<void>;
}

/** What the exporter's answer says, such as "containerimage.digest". */
export type ExportAnswer = Record<string, string>;

export interface ProcessRequest {
  args: string[];
  env: string[];
  cwd: string;
  user: string;
  terminal: boolean;
  size?: { rows: number; columns: number } | undefined;
  /** Whether anything will be written to its input. */
  input: boolean;
  insecure?: boolean;
  secretEnv?: { id: string; name: string; optional: boolean }[];
  onOutput(stream: 1 | 2, bytes: Uint8Array): void;
}

export interface StepProcess {
  write(bytes: Uint8Array): Promise<void>;
  closeInput(): void;
  resize(rows: number, columns: number): Promise<void>;
  /** "SIGTERM", "TERM". */
  signal(name: string): Promise<void>;
  /** Its exit status. */
  exited: Promise<number>;
}

export interface ContainerRequest {
  /** Mounts as LLB has them, with what they hold; one has the destination "/". */
  mounts: { mount: Mount; ref: Ref | undefined }[];
  /** "default", "host", "none". */
  network: string;
  platform?: Platform | undefined;
  hostname: string;
  extraHosts: { Host: string; IP: string }[];
}

/** A container beside the build (the gateway's NewContainer); it lasts until it is released, or the session ends. */
export interface SessionContainer {
  /** The first is process 1; when it ends the others do. */
  run(request: ProcessRequest): Promise<StepProcess>;
  release(): Promise<void>;
}

/** A step that failed and was kept. */
export interface FailedStep {
  vertex: string;
  op: ExecOp;
  /** What each mount of the op held when the command had failed; undefined where it holds no files of the build (secrets, caches). */
  mounts: (Ref | undefined)[];
  /** What the vertex' inputs are. */
  inputs: (Ref | undefined)[];
  /** Runs a process in the container as it was: same mounts, network, user, environment and directory where the request leaves them undefined. */
  enter(request: Partial<ProcessRequest> & Pick<ProcessRequest, "onOutput">): Promise<StepProcess>;
  release(): Promise<void>;
}

export interface BuildSession extends AsyncDisposable {
  readonly graph: Graph;
  /** InvalidArgument, ResourceExhausted where it is not well-formed. `policy` counts in place of the session's. */
  load(definition: Definition, policy?: SourcePolicy): Ref;
  ref(edge: Edge | undefined): Ref;
  /** Types image, oci, docker, local, tar. */
  export(result: Result, exporter: { type: string; attrs: Record<string, string> }, sink: ExportSink): Promise<ExportAnswer>;
  /** Types inline (nothing to do: it is an image export with the attribute inline-cache=true), registry, local; others are Unimplemented. `tree` takes a local export's files. */
  exportCache(result: Result, option: CacheOption, sink: Pick<ExportSink, "tree">): Promise<ExportAnswer>;
  /** Says what the client's own frontend asked of ours, for provenance; the first one counts. */
  describe(frontend: string, attrs: Readonly<Record<string, string>>): void;
  /** What went into each part of a result, all that is known, by platform. */
  provenance(result: Result): Promise<Map<string, { predicateType: string; predicate: unknown }>>;
  container(request: ContainerRequest): Promise<SessionContainer>;
  /** The step that an error of this session is about, where it was kept. */
  failedStep(error: unknown): FailedStep | undefined;
}
