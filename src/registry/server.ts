// The door: HTTP/1.1, with or without TLS. It finds the route, asks who it is and whether they may, hands over to the handlers, and turns whatever they
// throw into an answer.
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { messageOf } from "../lib/errors.ts";
import { type Access, type Authenticator, accessFor } from "./access.ts";
import type { Blobs } from "./blobs.ts";
import { asRefusal, errorBody, Refusal, refuse } from "./errors.ts";
import { type Exchange, send } from "./exchange.ts";
import type { Listings } from "./listings.ts";
import type { Manifests } from "./manifests.ts";
import type { Metrics } from "./metrics.ts";
import { isName, parseRoute, type Route } from "./route.ts";

export type Log = (level: "debug" | "info" | "warn" | "error", message: string, fields?: Record<string, string | number>) => void;

export interface Rules {
  readOnly: boolean;
  mayDelete: boolean;
  /** A pull-through cache takes no pushes. */
  cache: boolean;
}

export interface Handlers {
  blobs: Blobs;
  manifests: Manifests;
  listings: Listings;
}

export interface DoorOptions {
  handlers: Handlers;
  rules: Rules;
  authenticator: Authenticator | undefined;
  metrics: Metrics;
  /** Called at the beginning and at the end of every request. */
  busy(): void;
  /** Headers of every answer. */
  headers: Record<string, string | string[]>;
  log: Log;
  accessLog: boolean;
  /** Whether anyone wants to know the client's address. */
  remotes: boolean;
  /** Nothing but the pages is served. */
  only?: boolean;
  /** Pages beside the specification's: /metrics, /debug/health. */
  pages: Record<string, (exchange: Exchange) => Promise<void> | void>;
}

const METHODS: Record<Route["kind"], readonly string[]> = {
  base: ["GET", "HEAD"],
  catalog: ["GET"],
  manifest: ["GET", "HEAD", "PUT", "DELETE"],
  blob: ["GET", "HEAD", "DELETE"],
  uploads: ["POST"],
  upload: ["GET", "PATCH", "PUT", "DELETE"],
  tags: ["GET"],
  referrers: ["GET", "HEAD"],
};

const NO_QUERY = new URLSearchParams();

export function createHandler(options: DoorOptions): RequestListener {
  const { handlers, rules, authenticator, metrics, log } = options;
  const { blobs, manifests, listings } = handlers;
  const extra = Object.entries(options.headers);

  const checkRules = (route: Route, method: string) => {
    if (!METHODS[route.kind].includes(method)) throw refuse("UNSUPPORTED", { headers: { allow: METHODS[route.kind].join(", ") } });
    if (method === "GET" || method === "HEAD") return;
    if (rules.readOnly) throw refuse("UNSUPPORTED", { message: "the registry is read-only" });
    if (rules.cache) throw refuse("UNSUPPORTED", { message: "the registry is a cache of another one: push there" });
    if (method === "DELETE" && route.kind !== "upload" && !rules.mayDelete)
      throw refuse("UNSUPPORTED", { message: "deletion is switched off (storage.delete.enabled)" });
  };

  const dispatch = async (exchange: Exchange, route: Route, method: string): Promise<void> => {
    switch (route.kind) {
      case "base":
        return send(exchange, 200, { "content-type": "application/json" }, "{}");
      case "catalog":
        return listings.catalog(exchange);
      case "tags":
        return listings.tags(exchange, route.name);
      case "referrers":
        return listings.referrers(exchange, route.name, route.digest);
      case "manifest":
        if (method === "PUT") return manifests.put(exchange, route.name, route);
        if (method === "DELETE") return manifests.remove(exchange, route.name, route);
        return manifests.get(exchange, route.name, route);
      case "blob":
        return method === "DELETE" ? blobs.remove(exchange, route.name, route.digest) : blobs.get(exchange, route.name, route.digest);
      case "uploads":
        return blobs.begin(exchange, route.name, async (from) => {
          if (!authenticator) return true;
          if (from === undefined) return false;
          try {
            await authenticator.check(exchange.request, [{ type: "repository", name: from, actions: ["pull"] }]);
            return true;
          } catch (error) {
            // Who may not read there uploads instead, as if the blob were not there.
            if (error instanceof Refusal) return false;
            throw error;
          }
        });
      case "upload":
        if (method === "PATCH") return blobs.patch(exchange, route.name, route.id);
        if (method === "PUT") return blobs.put(exchange, route.name, route.id);
        if (method === "DELETE") return blobs.cancel(exchange, route.name, route.id);
        return blobs.status(exchange, route.name, route.id);
    }
  };

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    options.busy();
    const began = performance.now();
    const method = request.method ?? "GET";
    const url = request.url ?? "/";
    const question = url.indexOf("?");
    const path = question < 0 ? url : url.slice(0, question);
    const query = question < 0 ? NO_QUERY : new URLSearchParams(url.slice(question + 1));
    const exchange: Exchange = {
      request,
      response,
      query,
      actor: "",
      remote: options.remotes ? `${request.socket.remoteAddress}:${request.socket.remotePort}` : "",
      id: randomUUID(),
    };
    let kind = "other";
    response.setHeader("docker-distribution-api-version", "registry/2.0");
    response.setHeader("x-content-type-options", "nosniff");
    for (const [name, value] of extra) response.setHeader(name, value);
    try {
      const page = options.pages[path];
      const route = page || options.only ? undefined : parseRoute(path);
      if (!page && !route) throw refuse("UNSUPPORTED", { status: 404, message: "404 page not found" });
      kind = route?.kind ?? path;
      if (authenticator && path !== "/" && path !== "/debug/health") {
        const mount = route?.kind === "uploads" && query.get("mount") ? (query.get("from") ?? "") : "";
        const needed: Access[] = route ? accessFor(route, method, isName(mount) ? mount : undefined) : [];
        const who = authenticator.check(request, needed.slice(0, 1), needed);
        exchange.actor = typeof who === "string" ? who : await who;
      }
      if (page) await page(exchange);
      else {
        checkRules(route!, method);
        await dispatch(exchange, route!, method);
      }
    } catch (error) {
      let refusal = asRefusal(error);
      if (!refusal) {
        log("error", `${method} ${path.slice(0, 500)}: ${messageOf(error)}`, { id: exchange.id });
        refusal = refuse("UNKNOWN", { detail: { request: exchange.id } });
      }
      if (response.headersSent) response.destroy();
      else {
        // A body that was refused is not read to its end: the connection ends instead.
        const unread = !request.complete && method !== "GET" && method !== "HEAD";
        const headers = {
          "content-type": "application/json; charset=utf-8",
          ...refusal.headers,
          ...(unread ? { connection: "close" } : {}),
        };
        send(exchange, refusal.status, headers, errorBody(refusal));
        if (unread) request.resume();
      }
    }
    options.busy();
    const seconds = (performance.now() - began) / 1000;
    metrics.observe(kind, METHOD_NAMES.has(method) ? method : "OTHER", response.statusCode, seconds);
    if (options.accessLog)
      log("info", "request", {
        id: exchange.id,
        remote: exchange.remote,
        method,
        uri: url.slice(0, 1000),
        status: response.statusCode,
        seconds: Number(seconds.toFixed(6)),
        agent: (request.headers["user-agent"] ?? "").slice(0, 300),
        ...(exchange.actor ? { user: exchange.actor } : {}),
      });
  };

  return (request, response) => {
    request.on("error", () => {});
    response.on("error", () => {});
    void answer(request, response);
  };
}

const METHOD_NAMES = new Set(["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"]);

export interface TlsFiles {
  certificate: string;
  key: string;
  clientCAs: readonly string[];
  minimum: "TLSv1.2" | "TLSv1.3";
}

export interface Listener {
  /** "127.0.0.1:5000" as it was bound. */
  address: string;
  /** Takes no new connections, lets requests end for so long, then ends them. */
  close(withinMs: number): Promise<void>;
}

/** "127.0.0.1:5000", ":5000", "[::1]:5000" */
function parseAddress(text: string): { host: string; port: number } {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]*)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (!match || port > 65535) throw new Error(`${text} is not an address of the form HOST:PORT`);
  return { host: match[1] ?? (match[2] || "0.0.0.0"), port };
}

/** Milliseconds in which a request's head must have come. */
const HEADERS_MS = 30_000;

export async function listen(address: string, tls: TlsFiles | undefined, handler: RequestListener, idleMs: number): Promise<Listener> {
  const { host, port } = parseAddress(address);
  const server: Server = tls
    ? createTlsServer(
        {
          cert: readFileSync(tls.certificate),
          key: readFileSync(tls.key),
          minVersion: tls.minimum,
          ...(tls.clientCAs.length
            ? { ca: tls.clientCAs.map((file) => readFileSync(file)), requestCert: true, rejectUnauthorized: true }
            : {}),
        },
        handler,
      )
    : createServer(handler);
  server.headersTimeout = HEADERS_MS;
  server.requestTimeout = 0;
  server.setTimeout(idleMs);
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, resolve);
  });
  const bound = server.address() as AddressInfo;
  return {
    address: `${bound.family === "IPv6" ? `[${bound.address}]` : bound.address}:${bound.port}`,
    async close(withinMs) {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeIdleConnections();
      const timer = setTimeout(() => server.closeAllConnections(), withinMs);
      await closed;
      clearTimeout(timer);
    },
  };
}
