// Webhooks: what happened, told to other programs in the CNCF registry's envelope, so that what listens to that one can listen to this one. An endpoint
// gets its events in order, one request at a time; it is tried until it takes them, and where it never does the oldest are dropped, with a count.
import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { messageOf } from "../lib/errors.ts";
import type { Exchange } from "./exchange.ts";

export type Action = "pull" | "push" | "mount" | "delete";

export interface Happening {
  action: Action;
  repository: string;
  digest?: string;
  tag?: string;
  size?: number;
  mediaType?: string;
  fromRepository?: string;
}

export type Notify = (exchange: Exchange, happening: Happening) => void;

export interface EndpointConfig {
  name: string;
  url: string;
  headers: Record<string, string | string[]>;
  /** Milliseconds for one request. */
  timeoutMs: number;
  /** Failures in a row before it waits `backoffMs` between attempts instead of a second. */
  threshold: number;
  backoffMs: number;
  ignoredMediaTypes: readonly string[];
  ignoredActions: readonly string[];
}

export interface EndpointStatus {
  name: string;
  pending: number;
  delivered: number;
  failures: number;
  dropped: number;
}

export interface Events {
  notify: Notify;
  status(): EndpointStatus[];
  /** Tries for so long to deliver what is pending, then gives up. */
  close(withinMs: number): Promise<void>;
}

const MEDIA_TYPE = "application/vnd.docker.distribution.events.v2+json";
const MAX_PENDING = 10_000;
/** Events of one request. */
const BATCH = 100;

interface Endpoint extends EndpointStatus {
  config: EndpointConfig;
  queue: object[];
  running: Promise<void> | undefined;
}

export function createEvents(configs: readonly EndpointConfig[], address: () => string, log: (message: string) => void): Events {
  const instanceID = randomUUID();
  let closing = false;
  let wake = () => {};
  const endpoints: Endpoint[] = configs.map((config) => ({
    config,
    name: config.name,
    queue: [],
    pending: 0,
    delivered: 0,
    failures: 0,
    dropped: 0,
    running: undefined,
  }));

  const post = async (endpoint: Endpoint, events: object[]): Promise<void> => {
    const headers = new Headers();
    for (const [name, value] of Object.entries(endpoint.config.headers)) for (const one of [value].flat()) headers.append(name, one);
    headers.set("content-type", MEDIA_TYPE);
    const response = await fetch(endpoint.config.url, {
      method: "POST",
      headers,
      body: JSON.stringify({ events }),
      redirect: "manual",
      signal: AbortSignal.timeout(endpoint.config.timeoutMs),
    });
    await response.body?.cancel();
    if (response.status < 200 || response.status >= 400) throw new Error(`answered ${response.status}`);
  };

  const run = async (endpoint: Endpoint): Promise<void> => {
    let failures = 0;
    while (endpoint.queue.length > 0) {
      const events = endpoint.queue.slice(0, BATCH);
      try {
        await post(endpoint, events);
        failures = 0;
        // The oldest may have been dropped in the meantime: what was sent is found by identity.
        const sent = new Set(events);
        endpoint.queue = endpoint.queue.filter((event) => !sent.has(event));
        endpoint.delivered += events.length;
      } catch (error) {
        endpoint.failures++;
        failures++;
        if (failures === 1 || failures === endpoint.config.threshold)
          log(`notifications: endpoint ${endpoint.name}: ${messageOf(error)}; ${endpoint.queue.length} events wait`);
        if (closing) return;
        const wait = failures >= endpoint.config.threshold ? endpoint.config.backoffMs : Math.min(1000, endpoint.config.backoffMs);
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, wait);
          wake = () => {
            clearTimeout(timer);
            resolve();
          };
        });
      }
      endpoint.pending = endpoint.queue.length;
    }
  };

  const start = (endpoint: Endpoint) => {
    endpoint.running ??= run(endpoint).finally(() => {
      endpoint.running = undefined;
      if (endpoint.queue.length > 0 && !closing) start(endpoint);
    });
  };

  const notify: Notify = (exchange, happening) => {
    const { request, actor, id } = exchange;
    const { action, repository, digest, tag, size, mediaType, fromRepository } = happening;
    const host = request.headers.host ?? address();
    const scheme = (request.socket as { encrypted?: boolean }).encrypted ? "https" : "http";
    const kind = mediaType === undefined || mediaType === "application/octet-stream" ? "blobs" : "manifests";
    const event = {
      id: randomUUID(),
      timestamp: new Date().toISOString(),
      action,
      target: {
        ...(mediaType === undefined ? {} : { mediaType }),
        ...(size === undefined ? {} : { size, length: size }),
        ...(digest === undefined ? {} : { digest }),
        repository,
        ...(fromRepository === undefined ? {} : { fromRepository }),
        ...(digest === undefined || action === "delete" ? {} : { url: `${scheme}://${host}/v2/${repository}/${kind}/${digest}` }),
        ...(tag === undefined ? {} : { tag }),
      },
      request: {
        id,
        addr: exchange.remote,
        host,
        method: request.method,
        useragent: request.headers["user-agent"] ?? "",
      },
      actor: actor ? { name: actor } : {},
      source: { addr: `${hostname()}:${address().split(":").at(-1)}`, instanceID },
    };
    for (const endpoint of endpoints) {
      if (endpoint.config.ignoredActions.includes(action) || (mediaType && endpoint.config.ignoredMediaTypes.includes(mediaType))) continue;
      if (endpoint.queue.length >= MAX_PENDING) {
        endpoint.queue.shift();
        endpoint.dropped++;
      }
      endpoint.queue.push(event);
      endpoint.pending = endpoint.queue.length;
      start(endpoint);
    }
  };

  return {
    notify: endpoints.length ? notify : () => {},
    status: () => endpoints.map(({ name, pending, delivered, failures, dropped }) => ({ name, pending, delivered, failures, dropped })),
    async close(withinMs) {
      closing = true;
      wake();
      const all = Promise.all(endpoints.map((endpoint) => endpoint.running));
      await Promise.race([all, new Promise((resolve) => setTimeout(resolve, withinMs).unref())]);
    },
  };
}
