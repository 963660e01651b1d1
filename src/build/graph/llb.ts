// The build graph, in the shape of BuildKit's LLB: vertices with one operation each, named by the digest of what they say; edges are inputs by digest. Plain
// data: it can be printed, compared, sent. Names, lines and other words for people are not part of a vertex, so that they change no digest.
import { digestOf } from "../../oci/index.ts";

/** "docker-image://REF" with the image's id, "local://context", or an http(s) address. */
export interface SourceOp {
  identifier: string;
  attrs: Record<string, string>;
}

export interface ExecMount {
  type: "bind" | "cache" | "tmpfs";
  destination: string;
  /** Index of the vertex' input that is bound; -1: none. */
  input: number;
  /** What of the input. */
  selector: string;
  readonly: boolean;
  /** Of a cache: its name. */
  id: string;
  /** Of a tmpfs: bytes, 0: no limit. */
  size: number;
  mode: number;
  uid: number;
  gid: number;
}

/** Runs a command on input 0. */
export interface ExecOp {
  meta: { args: string[]; env: string[]; cwd: string; user: string };
  /** Variables that do not count for the cache: proxies. */
  proxyEnv: string[];
  network: string;
  security: string;
  mounts: ExecMount[];
  /** Files that are there only while the command runs. */
  scripts: { path: string; content: string }[];
}

export interface CopyAction {
  kind: "copy";
  /** Index of the vertex' input that is copied from. */
  input: number;
  sources: string[];
  /** Absolute; with "/" at its end it is a directory. */
  destination: string;
  /** "user:group" as COPY --chown says it; "": root, or as it is where `keepOwner`. */
  owner: string;
  keepOwner: boolean;
  mode: number | undefined;
  exclude: string[];
  parents: boolean;
  /** Archives are unpacked (ADD). */
  unpack: boolean;
}
export interface MkdirAction {
  kind: "mkdir";
  path: string;
  mode: number;
  owner: string;
}
export interface MkfileAction {
  kind: "mkfile";
  /** Absolute; with "/" at its end, or where a directory is there, the file is made in it under `name`. */
  path: string;
  name: string;
  content: string;
  mode: number;
  owner: string;
}
export type FileAction = CopyAction | MkdirAction | MkfileAction;

/** Changes files of input 0, one action after another. */
export interface FileOp {
  actions: FileAction[];
}

export type Op =
  | { source: SourceOp }
  | { exec: ExecOp }
  | { file: FileOp }
  /** The trees of all inputs upon each other. */
  | { merge: Record<string, never> }
  /** What input 1 has more than input 0. */
  | { diff: Record<string, never> };

export interface Vertex {
  digest: string;
  /** Digests; "" is the empty tree. */
  inputs: string[];
  op: Op;
}

export interface Graph {
  readonly vertices: ReadonlyMap<string, Vertex>;
  /** Adds a vertex (or finds the same one) and answers its digest. */
  add(inputs: readonly string[], op: Op): string;
}

export function createGraph(): Graph {
  const vertices = new Map<string, Vertex>();
  return {
    vertices,
    add(inputs, op) {
      const digest = digestOf(JSON.stringify([inputs, op]));
      if (!vertices.has(digest)) vertices.set(digest, { digest, inputs: [...inputs], op });
      return digest;
    },
  };
}

/** An output of a vertex: what a step gives to others. Where an edge may be undefined, that is the empty tree ("scratch"). */
export interface Edge {
  digest: string;
  index: number;
}
