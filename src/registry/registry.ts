// The parts put together.
import { unimplemented } from "../lib/errors.ts";
import { createBlobs } from "./blobs.ts";
import type { Config } from "./config.ts";
import { createEvents } from "./events.ts";
import { send } from "./exchange.ts";
import { createHtpasswd } from "./htpasswd.ts";
import { createListings } from "./listings.ts";
import { createManifests } from "./manifests.ts";
import { createMetrics } from "./metrics.ts";
import { createHandler, type DoorOptions, type Listener, type Log, listen } from "./server.ts";
import { openStore } from "./store.ts";
import { createTokens } from "./token.ts";
import { createUploads } from "./uploads.ts";

export interface Registry {
  /** "127.0.0.1:5000" */
  address: string;
  debugAddress: string | undefined;
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Serves until it is closed. FailedPrecondition where another process serves the same root. */
export async function createRegistry(config: Config, log: Log): Promise<Registry> {
  if (config.proxy) throw unimplemented("pull-through cache");
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
    metrics.gauge("jubako_registry_uploads_active", "Requests that write to an upload.", () => uploads.active());
    const authenticator = config.htpasswd
      ? createHtpasswd(config.htpasswd.realm, config.htpasswd.path, (message) => log("warn", message))
      : config.token && createTokens(config.token);
    const pages: DoorOptions["pages"] = {
      "/metrics": (exchange) => send(exchange, 200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" }, metrics.text()),
      "/debug/health": (exchange) => send(exchange, 200, { "content-type": "application/json" }, "{}"),
    };
    const root: DoorOptions["pages"] = { "/": (exchange) => send(exchange, 200, {}) };
    const door: DoorOptions = {
      handlers: {
        blobs: createBlobs(store, uploads, events.notify),
        manifests: createManifests(store, events.notify, config.limits.manifest),
        listings: createListings(store, config.limits.catalog),
      },
      rules: { readOnly: config.readOnly, mayDelete: config.mayDelete, cache: config.proxy !== undefined },
      authenticator,
      metrics,
      headers: config.headers,
      log,
      accessLog: config.accessLog,
      pages: config.debugAddress === undefined ? { ...root, ...pages } : root,
    };
    listeners.push(await listen(config.address, config.tls, createHandler(door), config.idleMs));
    if (config.debugAddress !== undefined) {
      const handler = createHandler({ ...door, authenticator: undefined, pages, accessLog: false, only: true });
      listeners.push(await listen(config.debugAddress, undefined, handler, config.idleMs));
    }
    const close = async () => {
      await Promise.all(listeners.map((listener) => listener.close(config.drainMs)));
      await events.close(config.drainMs);
      await store.close();
    };
    return { address: listeners[0]!.address, debugAddress: listeners[1]?.address, close, [Symbol.asyncDispose]: close };
  } catch (error) {
    for (const listener of listeners) await listener.close(0);
    await store.close();
    throw error;
  }
}
