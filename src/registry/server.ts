// The door. It finds the route, asks who it is and whether they may, hands over to the handlers, and turns whatever they
// throw into an answer.
import { randomUUID } from "node:crypto";
import type { IncomingMessage, RequestListener, ServerResponse } from "node:http";
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
          ...(unread && request.httpVersionMajor < 2 ? { connection: "close" } : {}),
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
