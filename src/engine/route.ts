// What a resource of the Engine API is made of: routes. A route says its method, its path and since which API version it is there; the
// server (server.ts) negotiates the version, parses, calls, and maps errors. A handler returns an answer; it touches no HTTP objects.
import type { Duplex, Readable } from "node:stream";

/** One request, parsed. */
export interface Call {
  /** Path parameters, percent-decoded: `/containers/{id}/json` gives `id`. A `{name...}` parameter spans slashes. */
  params: Record<string, string>;
  query: URLSearchParams;
  headers: Record<string, string | undefined>;
  /** The negotiated API version's minor number: 24 … 56 for 1.24 … 1.56. */
  version: number;
  /** The raw body (tar uploads). */
  body: Readable;
  /** The body as JSON; `undefined` where empty. InvalidArgument where malformed, not JSON by its content type, or over 16 MiB. */
  json(): Promise<unknown>;
  /** Aborts when the client went away. */
  signal: AbortSignal;
  /**
   * Answers 101 UPGRADED (or 200 where the client asked for no upgrade) with the stream media type and gives the connection, raw, both ways, half-close kept
   * (`end` on the duplex: the client closed its sending side). Data the client sent early is delivered first. Return `hijacked` afterwards.
   * `headers`: what the protocol that is changed to wants in the answer.
   */
  hijack(contentType: string | undefined, headers?: Record<string, string>): Duplex;
}

export type Answer =
  | { status: 204 | 304 | 200 | 201; headers?: Record<string, string> }
  | { status?: number; json: unknown; headers?: Record<string, string> }
  | { status?: number; text: string; headers?: Record<string, string> }
  /** A body in chunks, flushed one by one, until the iterable ends; aborted when the client goes away. Headers are sent at once, before the first chunk. */
  | { status?: number; type: string; stream: AsyncIterable<Uint8Array | string>; headers?: Record<string, string> }
  | typeof hijacked;

export const hijacked: unique symbol = Symbol("hijacked");

export interface Route {
  method: "GET" | "HEAD" | "POST" | "PUT" | "DELETE";
  /** Without the version prefix: "/containers/{id}/json". */
  path: string;
  /** First API minor version that has it (default: all). */
  since?: number;
  /** A connection for many calls rather than a call: it is no part of the trace in which it is opened. */
  untraced?: true;
  handle(call: Call): Promise<Answer> | Answer;
}

/** A query flag as Docker reads it: absent, "", "0", "no", "false", "none" are false (any case); anything else is true. */
export function flag(query: URLSearchParams, name: string, absent = false): boolean {
  const value = query.get(name);
  if (value === null) return absent;
  return !["", "0", "no", "false", "none"].includes(value.trim().toLowerCase());
}
