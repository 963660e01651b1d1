// The door of the engine: HTTP requests to routes. Negotiates the API version, finds the route, calls it, writes its answer, and maps what it
// throws to a status once. Knows no resource.
import type { Socket } from "node:net";
import { failedPrecondition, invalidArgument, messageOf } from "../lib/errors.ts";
import { entering, fromHeaders, span, wantsSpans } from "../trace/index.ts";
import { statusOf } from "./errors.ts";
import { type Exchange, serveConnection } from "./http.ts";
import { missingFeature } from "./missing.ts";
import { type Answer, type Call, hijacked, type Route } from "./route.ts";
import { traced } from "./trace.ts";
import { API_VERSION, MAX_API, MIN_API, MIN_API_VERSION, VERSION } from "./version.ts";

const MAX_JSON = 16 * 1024 * 1024;

interface Compiled {
  route: Route;
  pattern: RegExp;
  names: string[];
  /** Routes with fewer parameters, and longer fixed parts, are tried first. */
  rank: number;
}

export type Router = (method: string, path: string) => { route: Route; params: Record<string, string> } | undefined;

/** Compiles the routes once; a look-up tries only those of the same method and first segment. */
export function createRouter(routes: Route[]): Router {
  const buckets = new Map<string, Compiled[]>();
  for (const route of routes) {
    const names: string[] = [];
    const source = route.path
      .split("/")
      .map((segment) => {
        const parameter = /^\{(\w+)(\.\.\.)?\}$/.exec(segment);
        if (!parameter) return segment.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
        names.push(parameter[1]!);
        return parameter[2] ? "(.+)" : "([^/]+)";
      })
      .join("/");
    const fixed = route.path.replace(/\{[^}]*\}/g, "").length;
    const key = `${route.method} ${route.path.split("/")[1]}`;
    const bucket = buckets.get(key) ?? [];
    bucket.push({ route, pattern: new RegExp(`^${source}$`), names, rank: names.length * 1000 - fixed });
    bucket.sort((a, b) => a.rank - b.rank);
    buckets.set(key, bucket);
  }
  return (method, path) => {
    const slash = path.indexOf("/", 1);
    const bucket = buckets.get(`${method} ${slash < 0 ? path.slice(1) : path.slice(1, slash)}`);
    for (const { route, pattern, names } of bucket ?? []) {
      const match = pattern.exec(path);
      if (!match) continue;
      const params: Record<string, string> = {};
      for (let i = 0; i < names.length; i++) params[names[i]!] = decode(match[i + 1]!);
      return { route, params };
    }
    return undefined;
  };
}

function decode(text: string): string {
  if (!text.includes("%")) return text;
  try {
    return decodeURIComponent(text);
  } catch {
    throw invalidArgument(`malformed percent encoding in the request path: ${text}`);
  }
}

/** Splits `/v1.40/containers/json` into its parts; the newest version where none is named. Docker's sentences for versions that are not spoken. */
export function negotiate(path: string): { version: number; path: string } {
  const prefix = /^\/v([0-9]+(?:\.[0-9]+)*)(\/.*)$/.exec(path);
  if (!prefix) return { version: MAX_API, path };
  const [major = 0, minor = 0] = prefix[1]!.split(".").map(Number);
  if (major > 1 || (major === 1 && minor > MAX_API)) {
    throw invalidArgument(`client version ${prefix[1]} is too new. Maximum supported API version is ${API_VERSION}`);
  }
  if (major < 1 || minor < MIN_API) {
    throw invalidArgument(
      `client version ${prefix[1]} is too old. Minimum supported API version is ${MIN_API_VERSION}, please upgrade your client to a newer version`,
    );
  }
  return { version: minor, path: prefix[2]! };
}

/** Head lines of every answer. */
const commonHead = (experimental: boolean): string =>
  [`Api-Version: ${API_VERSION}`, `Docker-Experimental: ${experimental}`, "Ostype: linux", `Server: Jubako/${VERSION} (linux)`, ""].join(
    "\r\n",
  );

function isJson(contentType: string | undefined): boolean {
  return contentType !== undefined && /^application\/json\s*(;|$)/i.test(contentType);
}

async function readJson(exchange: Exchange): Promise<unknown> {
  const body = await exchange.bytes(MAX_JSON);
  const type = exchange.headers["content-type"];
  if (body.length === 0) return undefined;
  if (type !== undefined && !isJson(type)) throw invalidArgument(`unsupported Content-Type header (${type}): must be 'application/json'`);
  try {
    return JSON.parse(body.toString("utf8"));
  } catch (error) {
    throw invalidArgument(`invalid JSON: ${messageOf(error)}`);
  }
}

function takeOver(exchange: Exchange, common: string, contentType: string | undefined, headers: Record<string, string> = {}): Socket {
  const upgrade = exchange.headers.upgrade;
  const asked = upgrade !== undefined && /\bupgrade\b/i.test(exchange.headers.connection ?? "");
  if (asked && /[^\w./ ,-]/.test(upgrade)) throw invalidArgument("malformed Upgrade header");
  const lines = Object.entries({ ...(contentType === undefined ? {} : { "Content-Type": contentType }), ...headers })
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join("");
  const head = asked
    ? `HTTP/1.1 101 UPGRADED\r\n${lines}Connection: Upgrade\r\nUpgrade: ${upgrade}\r\n${common}\r\n`
    : `HTTP/1.1 200 OK\r\n${lines}${common}\r\n`;
  return exchange.takeOver(head);
}

function callOf(exchange: Exchange, common: string, params: Record<string, string>, search: string, version: number): Call {
  return {
    params,
    query: new URLSearchParams(search),
    headers: exchange.headers,
    version,
    get body() {
      return exchange.body;
    },
    json: () => readJson(exchange),
    get signal() {
      return exchange.signal;
    },
    hijack: (contentType, headers) => takeOver(exchange, common, contentType, headers),
  };
}

function answer(exchange: Exchange, result: Answer): Promise<void> | undefined {
  if (result === hijacked) return undefined;
  const headers = result.headers ?? {};
  if ("json" in result) {
    exchange.send(result.status ?? 200, { "Content-Type": "application/json", ...headers }, `${JSON.stringify(result.json)}\n`);
  } else if ("text" in result) {
    exchange.send(result.status ?? 200, { "Content-Type": "text/plain; charset=utf-8", ...headers }, result.text);
  } else if ("stream" in result) {
    return exchange.stream(result.status ?? 200, { "Content-Type": result.type, ...headers }, result.stream);
  } else {
    exchange.send(result.status, headers, "");
  }
  return undefined;
}

export interface ServerOptions {
  routes: Route[];
  /** What the head of every answer says of this engine. */
  experimental?: boolean;
  /** Where the spans of a traced request go. */
  traceDir: string;
  log(level: "debug" | "info" | "warn" | "error", message: string, fields?: Record<string, unknown>): void;
  /** Takes connections that speak HTTP/2 from their first byte: gRPC. */
  http2?: (socket: Socket) => void;
}

/** What serves each accepted connection. */
export function createServer(options: ServerOptions): (socket: Socket) => void {
  const route = createRouter(options.routes);
  const common = commonHead(options.experimental ?? false);

  async function dispatch(exchange: Exchange): Promise<void> {
    const mark = exchange.target.indexOf("?");
    const full = mark < 0 ? exchange.target : exchange.target.slice(0, mark);
    const search = mark < 0 ? "" : exchange.target.slice(mark + 1);
    const { version, path } = negotiate(full);
    const found = route(exchange.method, path);
    if (!found || version < (found.route.since ?? 0)) {
      const feature = missingFeature(exchange.method, path);
      if (feature) exchange.send(501, JSON_TYPE, message(feature));
      else exchange.send(404, JSON_TYPE, message("page not found"));
      return;
    }
    const call = callOf(exchange, common, found.params, search, version);
    const run = async () => {
      const result = await found.route.handle(call);
      await answer(exchange, result);
    };
    const header = (name: string) => exchange.headers[name];
    const asked = exchange.headers.traceparent !== undefined && !found.route.untraced && wantsSpans(header);
    const context = asked ? fromHeaders(header, "engine", options.traceDir) : undefined;
    if (!context) return run();
    traced(options.traceDir);
    return entering(context, () => span(`${found.route.method} ${found.route.path}`, found.params, run));
  }

  async function handle(exchange: Exchange): Promise<void> {
    try {
      await dispatch(exchange);
      if (!exchange.answered && !exchange.takenOver) throw failedPrecondition(`${exchange.method} ${exchange.target} gave no answer`);
    } catch (error) {
      const { status, message: text } = statusOf(error);
      if (status >= 500) options.log("error", text, { method: exchange.method, target: exchange.target, stack: (error as Error).stack });
      if (exchange.takenOver) return exchange.destroy();
      if (!exchange.answered) exchange.send(status, JSON_TYPE, message(text));
    }
  }

  return (socket) => serveConnection(socket, handle, common, options.http2);
}

const JSON_TYPE = { "Content-Type": "application/json" };
const message = (text: string) => `${JSON.stringify({ message: text })}\n`;
