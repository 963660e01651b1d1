// The parts put together.
import { statSync } from "node:fs";
import { isKind, messageOf } from "../lib/errors.ts";
import { createBlobs } from "./blobs.ts";
import { createCacheThrough } from "./cache-through.ts";
import { type Collected, collect } from "./collect.ts";
import type { Config } from "./config.ts";
import { askControl, serveControl } from "./control.ts";
import { createEvents, type EndpointStatus } from "./events.ts";
import { send } from "./exchange.ts";
import { createHtpasswd } from "./htpasswd.ts";
import { createLayout } from "./layout.ts";
import { type Listener, listen } from "./listen.ts";
import { createListings } from "./listings.ts";
import { createManifests } from "./manifests.ts";
import { createMetrics } from "./metrics.ts";
import { createQuiet } from "./quiet.ts";
import { createHandler, type DoorOptions, type Log } from "./server.ts";
import { openStore, type Store } from "./store.ts";
import { createTokens } from "./token.ts";
import { createUploads } from "./uploads.ts";

export interface Registry {
  /** "127.0.0.1:5000" */
  address: string;
  debugAddress: string | undefined;
  /** Forgets what the cache keeps and nobody asked for in its time to live; 0 where it is no cache. */
  expire(): Promise<number>;
  /** Removes what nothing names; waits for a collection that runs already, and answers for its own. */
  collect(options: { dryRun: boolean; deleteUntagged: boolean; report?: (line: string) => void }): Promise<Collected>;
  /** Reads the TLS certificate again, which happens within a minute anyway where its files change; a bad one is logged, and the old one stays. */
  reload(): void;
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

const EXPIRE_EVERY_MS = 3_600_000;
/** How often the certificate's files are looked at. */
const WATCH_MS = 60_000;

/** Serves until it is closed. FailedPrecondition where another process serves the same root. */
export async function createRegistry(config: Config, log: Log): Promise<Registry> {
  const store = await openStore(config.root, config.graceMs);
  const listeners: Listener[] = [];
  try {
    const metrics = createMetrics();
    const uploads = createUploads(store, { maxBlob: config.limits.blob, maxActive: config.limits.uploads });
    const events = createEvents(
      config.endpoints,
      () => listeners[0]?.address ?? config.address,
      (message) => log("warn", message),
    );
    if (config.endpoints.length > 0) {
      const each = (value: (status: EndpointStatus) => number) => () =>
        events.status().map((status): [Record<string, string>, number] => [{ endpoint: status.name }, value(status)]);
      metrics.gauge(
        "jubako_registry_notifications_pending",
        "Events that wait for an endpoint.",
        each((status) => status.pending),
      );
      metrics.gauge(
        "jubako_registry_notifications_delivered",
        "Events that an endpoint took.",
        each((status) => status.delivered),
      );
      metrics.gauge(
        "jubako_registry_notifications_failures",
        "Requests that an endpoint did not take.",
        each((status) => status.failures),
      );
      metrics.gauge(
        "jubako_registry_notifications_dropped",
        "Events that were given up.",
        each((status) => status.dropped),
      );
    }
    metrics.gauge("jubako_registry_uploads_active", "Requests that write to an upload.", () => uploads.active());
    let collecting: Promise<unknown> = Promise.resolve();
    const collectNow: Registry["collect"] = (options) => {
      const run = async () => {
        const began = performance.now();
        const done = await collect(store, uploads, { ...options, uploadAgeMs: config.uploadAgeMs });
        log("info", "garbage collected", { ...done, seconds: Number(((performance.now() - began) / 1000).toFixed(3)) });
        metrics.count("jubako_registry_gc_runs_total", "Garbage collections that ended.");
        if (options.dryRun) return done;
        metrics.count("jubako_registry_gc_blobs_total", "Blobs that garbage collection removed.", done.blobs);
        metrics.count("jubako_registry_gc_bytes_total", "Bytes that garbage collection removed.", done.bytes);
        return done;
      };
      const mine = collecting.then(run, run);
      collecting = mine.catch(() => {});
      return mine;
    };
    const authenticator = config.htpasswd
      ? createHtpasswd(config.htpasswd.realm, config.htpasswd.path, (message) => log("warn", message))
      : config.token && createTokens(config.token);
    const pages: DoorOptions["pages"] = {
      "/metrics": (exchange) => send(exchange, 200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" }, metrics.text()),
      "/debug/health": (exchange) => send(exchange, 200, { "content-type": "application/json" }, "{}"),
    };
    const root: DoorOptions["pages"] = { "/": (exchange) => send(exchange, 200, {}) };
    const blobs = createBlobs(store, uploads, events.notify);
    const manifests = createManifests(store, events.notify, config.limits.manifest);
    const through =
      config.proxy && createCacheThrough(config.proxy, { store, uploads, blobs, manifests }, metrics, (message) => log("warn", message));
    const quiet = createQuiet();
    const door: DoorOptions = {
      busy: quiet.busy,
      handlers: {
        blobs: { ...blobs, ...through?.blobs },
        manifests: { ...manifests, ...through?.manifests },
        listings: createListings(store, config.limits.catalog),
      },
      rules: { readOnly: config.readOnly, mayDelete: config.mayDelete, cache: config.proxy !== undefined },
      authenticator,
      metrics,
      headers: config.headers,
      log,
      accessLog: config.accessLog,
      remotes: config.accessLog || config.endpoints.length > 0,
      pages: config.debugAddress === undefined ? { ...root, ...pages } : root,
    };
    listeners.push(await listen(config.address, config.tls, createHandler(door), config.idleMs));
    if (config.debugAddress !== undefined) {
      const handler = createHandler({ ...door, authenticator: undefined, pages, accessLog: false, only: true });
      listeners.push(await listen(config.debugAddress, undefined, handler, config.idleMs));
    }
    const control = await serveControl(store.layout.own, async (wanted, report) => {
      report(summary(await collectNow({ ...wanted, report }), wanted.dryRun));
    });
    // A cache forgets what nobody asks for, without being told to.
    const everyMs =
      Math.min(2 ** 31 - 1, config.collectEveryMs) || (config.proxy?.ttlMs ? Math.min(config.proxy.ttlMs, EXPIRE_EVERY_MS) : 0);
    const timer =
      everyMs > 0
        ? setInterval(() => {
            (through?.expire() ?? Promise.resolve(0))
              .then(() => collectNow({ dryRun: false, deleteUntagged: config.deleteUntagged }))
              .catch((error) => log("error", `garbage collection: ${messageOf(error)}`));
          }, everyMs)
        : undefined;
    const reload = () => {
      try {
        listeners[0]!.reload();
        if (config.tls) log("info", "certificate read", { certificate: config.tls.certificate });
      } catch (error) {
        log("error", `certificate: ${messageOf(error)}`);
      }
    };
    const unwatch = config.tls && watchFiles([config.tls.certificate, config.tls.key], WATCH_MS, reload);
    let closed: Promise<void> | undefined;
    const close = () => {
      closed ??= shut();
      return closed;
    };
    const shut = async () => {
      clearInterval(timer);
      unwatch?.();
      quiet.close();
      await control.close();
      await Promise.all(listeners.map((listener) => listener.close(config.drainMs)));
      await through?.close();
      await events.close(config.drainMs);
      await collecting;
      await store.close();
    };
    return {
      address: listeners[0]!.address,
      debugAddress: listeners[1]?.address,
      expire: async () => (await through?.expire()) ?? 0,
      collect: collectNow,
      reload,
      close,
      [Symbol.asyncDispose]: close,
    };
  } catch (error) {
    for (const listener of listeners) await listener.close(0);
    await store.close();
    throw error;
  }
}

/** Calls `changed` some time after one of the files was written or replaced. Answers what ends it. */
function watchFiles(paths: readonly string[], everyMs: number, changed: () => void): () => void {
  const look = () =>
    paths
      .map((path) => statSync(path, { throwIfNoEntry: false }))
      .map((stat) => `${stat?.ino} ${stat?.mtimeMs} ${stat?.size}`)
      .join();
  let seen = look();
  const timer = setInterval(() => {
    const now = look();
    if (now === seen) return;
    seen = now;
    changed();
  }, everyMs);
  timer.unref();
  return () => clearInterval(timer);
}

function summary(done: Collected, dryRun: boolean): string {
  const { blobs, bytes, links, manifests, uploads } = done;
  return `${dryRun ? "eligible for deletion" : "deleted"}: ${blobs} blobs of ${bytes} bytes, ${links} blob links, ${manifests} manifests, ${uploads} uploads`;
}

/** Collects in a root that nobody serves, or has it done by who does. */
export async function collectOffline(
  config: Config,
  options: { dryRun: boolean; deleteUntagged: boolean; report: (line: string) => void },
): Promise<void> {
  let store: Store;
  try {
    store = await openStore(config.root, config.graceMs, 0);
  } catch (error) {
    if (!isKind(error, "FailedPrecondition")) throw error;
    return askControl(createLayout(config.root).own, options, options.report);
  }
  try {
    const uploads = createUploads(store, { maxBlob: config.limits.blob, maxActive: config.limits.uploads });
    const done = await collect(store, uploads, { ...options, uploadAgeMs: config.uploadAgeMs });
    options.report(summary(done, options.dryRun));
  } finally {
    await store.close();
  }
}
