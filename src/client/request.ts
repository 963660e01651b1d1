// A call of the Engine API: version prefix, query, JSON, errors; and the negotiation of the version without a round trip of its own.
import { type ErrorKind, Failure, unavailable } from "../lib/errors.ts";
import type { Target } from "./endpoint.ts";
import { createHttp, type HttpResponse } from "./http.ts";

/** The newest API version that this client speaks. */
export const MAX_VERSION = "1.50";
const MIN_VERSION = "1.24";

export type QueryValue = string | number | boolean | readonly string[] | undefined;
export type Query = Record<string, QueryValue>;

export interface Call {
  query?: Query;
  /** Sent as JSON; a function is given the negotiated minor version, and called again where that changes. */
  json?: unknown | ((version: number) => unknown);
  /** Sent as it is. */
  body?: Uint8Array | AsyncIterable<Uint8Array>;
  headers?: Record<string, string | readonly string[]>;
  upgrade?: boolean;
  /** What an upgraded connection is to speak; "tcp" where it is not said. */
  protocol?: string;
  /** Without the version prefix. */
  unversioned?: boolean;
  signal?: AbortSignal | undefined;
}

/** An error that the engine answered: its sentence, its kind, and the HTTP status. */
export type ApiFailure = Failure & { status: number };

export function isApiFailure(error: unknown): error is ApiFailure {
  return error instanceof Failure && "status" in error;
}

/** The minor number of "1.41". */
export function minor(version: string): number {
  return Number(version.split(".")[1] ?? 0);
}

const kinds: Record<number, ErrorKind> = {
  304: "NotModified",
  400: "InvalidArgument",
  401: "Unauthenticated",
  403: "PermissionDenied",
  404: "NotFound",
  409: "Conflict",
  412: "FailedPrecondition",
  501: "Unimplemented",
  503: "Unavailable",
  507: "ResourceExhausted",
};

export interface Caller {
  /** The answer, status below 400; others are thrown as ApiFailure. */
  send(method: string, path: string, call?: Call): Promise<HttpResponse>;
  /** The answer's JSON. */
  json<T>(method: string, path: string, call?: Call): Promise<T>;
  /** Sends and forgets the answer's body. */
  done(method: string, path: string, call?: Call): Promise<void>;
  /** What is known of the version: negotiated by the first answer, or by a ping where none came yet. */
  version(): Promise<string>;
  /** What headers of the last answer said: Api-Version, Server, Ostype, … */
  seen(): Record<string, string>;
  close(): void;
}

export interface CallerOptions {
  target: Target;
  /** A fixed version (DOCKER_API_VERSION): no negotiation. */
  version?: string | undefined;
  headers?: Record<string, string> | undefined;
  /** Headers that are asked for with each request: the trace context. */
  extraHeaders?: (() => Record<string, string>) | undefined;
  /** Wraps each request until its head has come: a span. */
  around?: (<T>(name: string, send: () => Promise<T>) => Promise<T>) | undefined;
}

export function createCaller(options: CallerOptions): Caller {
  const http = createHttp(options.target.endpoint);
  let version = options.version ?? MAX_VERSION;
  let settled = options.version !== undefined;
  let seen: Record<string, string> = {};

  // Engines answer with the newest version that they speak; ours may be older.
  const learn = (headers: Record<string, string>) => {
    seen = headers;
    const theirs = headers["api-version"];
    if (settled || !theirs) return;
    settled = true;
    if (minor(theirs) < minor(version)) version = theirs;
  };

  const once = (method: string, path: string, call: Call): Promise<HttpResponse> => {
    const headers: Record<string, string | readonly string[]> = {
      "User-Agent": "jubako/0.1.0 (linux)",
      ...options.headers,
      ...options.extraHeaders?.(),
      ...call.headers,
    };
    let body: string | Uint8Array | AsyncIterable<Uint8Array> | undefined = call.body;
    if (call.json !== undefined) {
      body = JSON.stringify(typeof call.json === "function" ? (call.json as (version: number) => unknown)(minor(version)) : call.json);
      headers["Content-Type"] ??= "application/json";
    }
    return http.request({
      method,
      path: `${call.unversioned ? "" : `/v${version}`}${path}${encodeQuery(call.query)}`,
      headers,
      body,
      upgrade: call.upgrade ?? false,
      protocol: call.protocol,
      signal: call.signal,
    });
  };

  const attempt = async (method: string, path: string, call: Call): Promise<HttpResponse> => {
    try {
      const { around } = options;
      return await (around ? around(`${method} ${path}`, () => once(method, path, call)) : once(method, path, call));
    } catch (error) {
      throw call.signal?.aborted ? error : connectionFailure(error, options.target.host);
    }
  };

  const send = async (method: string, path: string, call: Call = {}): Promise<HttpResponse> => {
    // A body that streams can't be sent twice.
    if (!settled && call.body !== undefined && !(call.body instanceof Uint8Array)) await ping();
    const guess = version;
    const wasSettled = settled;
    let response = await attempt(method, path, call);
    learn(response.headers);
    // An engine that is older than our guess refuses it, and says which version it speaks.
    if (response.status === 400 && !wasSettled && !call.unversioned && minor(version) < minor(guess)) {
      await response.text();
      if (minor(version) < minor(MIN_VERSION)) {
        throw failureOf(400, `the engine speaks API ${version} at most; this client needs ${MIN_VERSION}`);
      }
      response = await attempt(method, path, call);
    }
    if (response.status >= 400) throw failureOf(response.status, messageIn(await response.text(), response));
    return response;
  };

  const ping = async () => {
    const response = await attempt("HEAD", "/_ping", { unversioned: true });
    await response.text();
    learn(response.headers);
    settled = true;
  };

  return {
    send,
    async json<T>(method: string, path: string, call?: Call) {
      const response = await send(method, path, call);
      const text = await response.text();
      try {
        return JSON.parse(text) as T;
      } catch (error) {
        throw unavailable(`${method} ${path}: the answer is not JSON: ${(error as Error).message}`, error);
      }
    },
    async done(method, path, call) {
      await (await send(method, path, call)).text();
    },
    async version() {
      if (!settled) await ping();
      return version;
    },
    seen: () => seen,
    close: () => http.close(),
  };
}

function failureOf(status: number, message: string): ApiFailure {
  return Object.assign(new Failure(kinds[status] ?? "Unknown", message), { status });
}

function messageIn(text: string, response: HttpResponse): string {
  if (response.headers["content-type"]?.startsWith("application/json")) {
    try {
      const { message } = JSON.parse(text) as { message?: unknown };
      if (typeof message === "string" && message !== "") return message.trim();
    } catch {}
  }
  return text.trim() || `request returned status ${response.status} with no body`;
}

/** What a failed connection means to the user. */
function connectionFailure(error: unknown, host: string): unknown {
  const code = (error as { code?: string }).code;
  if (code === "ENOENT" || code === "ECONNREFUSED" || code === "FailedToOpenSocket") {
    return Object.assign(unavailable(`Cannot connect to the Docker daemon at ${host}. Is the docker daemon running?`, error), {
      connection: true,
    });
  }
  if (code === "EACCES") {
    return new Failure("PermissionDenied", `permission denied while trying to connect to the Docker daemon socket at ${host}`, {
      cause: error,
    });
  }
  return error instanceof Failure ? error : unavailable(`error during connect: ${host}: ${(error as Error).message}`, error);
}

export function encodeQuery(query: Query | undefined): string {
  if (!query) return "";
  const parts: string[] = [];
  const add = (name: string, value: string) => parts.push(`${name}=${encodeURIComponent(value).replace(/%20/g, "+")}`);
  for (const [name, value] of Object.entries(query)) {
    if (value === undefined || value === false) continue;
    if (Array.isArray(value)) for (const one of value as string[]) add(name, one);
    else add(name, value === true ? "1" : String(value));
  }
  return parts.length > 0 ? `?${parts.join("&")}` : "";
}

/** Filters as the API takes them: {"label":{"a=b":true}}. Undefined where there are none. */
export function encodeFilters(filters: Record<string, readonly string[]> | undefined): string | undefined {
  if (!filters || Object.keys(filters).length === 0) return undefined;
  return JSON.stringify(
    Object.fromEntries(Object.entries(filters).map(([k, values]) => [k, Object.fromEntries(values.map((v) => [v, true]))])),
  );
}
