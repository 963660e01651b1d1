// How a build goes, told once, in a neutral form: the classic door makes lines of it, BuildKit's door a stream of statuses, our own command a display.
import type { Range, SourceInfo } from "../gen/pb_pb.ts";

/** Times are milliseconds since 1970, with fractions. */
export type BuildEvent = VertexEvent | StatusEvent | LogEvent | WarningEvent | MissEvent;

/** A vertex' state. Each event replaces the earlier one of the same digest. */
export interface VertexEvent {
  kind: "vertex";
  digest: string;
  /** Digests of vertices. */
  inputs: string[];
  name: string;
  group: { id: string; name: string; weak: boolean } | undefined;
  /** Undefined: it waits. */
  started: number | undefined;
  completed: number | undefined;
  cached: boolean;
  /** Undefined: none. */
  error: string | undefined;
}

/** Something within a vertex that takes time: a pull of a layer, an upload, a part of an export. */
export interface StatusEvent {
  kind: "status";
  vertex: string;
  id: string;
  name: string;
  current: number;
  /** 0: not known. */
  total: number;
  time: number;
  started: number;
  completed: number | undefined;
}

export interface LogEvent {
  kind: "log";
  vertex: string;
  stream: 1 | 2;
  bytes: Uint8Array;
  time: number;
}

export interface WarningEvent {
  kind: "warning";
  /** "" where it belongs to none. */
  vertex: string;
  level: number;
  short: string;
  detail: string[];
  url: string;
  source: SourceInfo | undefined;
  ranges: Range[];
}

/** Why a vertex was not found in the cache (only where the build asked for it). */
export interface MissEvent {
  kind: "miss";
  vertex: string;
  name: string;
  /** What the vertex' key is made of now. */
  parts: KeyPart[];
  /** The latest record with the same name, if there is one, and what is different. */
  earlier: { created: number; changed: { name: string; before: string | undefined; now: string | undefined }[] } | undefined;
}

export interface KeyPart {
  /** "command", "environment", "network", "input 0: files of /src", … */
  name: string;
  value: string;
}
