// A pull-through cache: what is not here is fetched from another registry, handed on while it arrives, and kept. A tag is asked for upstream each time
// (HEAD, which costs no one's pull quota); while upstream does not answer, what was kept is served. One download serves all who wait for the blob.

import { EventEmitter, once } from "node:events";
import { open, stat } from "node:fs/promises";
import { Readable } from "node:stream";
import { openRepository, RegistryError, type Repository } from "../distribution/index.ts";
import { isKind, messageOf } from "../lib/errors.ts";
import { algorithmOf, type Digest } from "../oci/index.ts";
import { type Blobs, blobHeaders, pour } from "./blobs.ts";
import { createCache } from "./cache.ts";
import type { ProxyConfig } from "./config.ts";
import { documentOf } from "./document.ts";
import { asRefusal, refuse } from "./errors.ts";
import { type Exchange, isHead, send } from "./exchange.ts";
import { orAbsent } from "./files.ts";
import type { Manifests, Reference } from "./manifests.ts";
import type { Metrics } from "./metrics.ts";
import { parseRange } from "./range.ts";
import type { LinkKind, Store } from "./store.ts";
import type { Uploads } from "./uploads.ts";

export interface CacheThrough {
  blobs: Pick<Blobs, "get">;
  manifests: Pick<Manifests, "get">;
  /** Removes links that nobody asked for in the time to live; garbage collection then removes what they held. */
  expire(): Promise<number>;
  /** Breaks off downloads. */
  close(): Promise<void>;
}

interface Download {
  digest: Digest;
  size: number;
  file: string;
  /** Bytes that are in the file. */
  offset(): number;
  changed: EventEmitter;
  /** Resolves when the blob is whole, checked and in its place; rejects where that failed. */
  done: Promise<void>;
  whole: boolean;
  failure: unknown;
}

const TOUCH_EVERY_MS = 3_600_000;
/** Silence after which upstream counts as away. */
const UPSTREAM_MS = 15_000;
const PIECE = 1 << 20;

/** Upstream's refusals and silences as answers of ours. */
function upstreamFailure(error: unknown, unknownCode: "MANIFEST_UNKNOWN" | "BLOB_UNKNOWN"): unknown {
  if (!(error instanceof RegistryError)) return error;
  if (error.status === 404) return refuse(unknownCode);
  if (error.status === 429) return refuse("TOOMANYREQUESTS", { message: `upstream: ${error.message}` });
  if (error.status === 401 || error.status === 403) return refuse("DENIED", { message: `upstream: ${error.message}` });
  return refuse("UNAVAILABLE", { status: 502, message: `upstream: ${error.message}` });
}

/** Whether upstream can't tell at the moment: then what is kept is better than nothing. */
function silent(error: unknown): boolean {
  if (error instanceof RegistryError) return error.status >= 500 || error.status === 429;
  return isKind(error, "Unavailable");
}

export function createCacheThrough(
  config: ProxyConfig,
  local: { store: Store; uploads: Uploads; blobs: Blobs; manifests: Manifests },
  metrics: Metrics,
  log: (message: string) => void,
): CacheThrough {
  const { store, uploads } = local;
  const remote = new URL(config.remote);
  const domain = /^(registry-1\.|index\.)?docker\.io$/.test(remote.host) ? "docker.io" : remote.host;
  const credentials = config.username ? { username: config.username, password: config.password } : undefined;
  const settings = {
    insecure: remote.protocol === "http:" ? [remote.host] : [],
    mirrors: [],
    timeoutMs: UPSTREAM_MS,
    // Someone waits who can be served what is kept, or can ask again himself.
    attempts: 2,
    userAgent: "jubako-registry/0.1.0",
  };
  const repositories = createCache<Repository>(1000);
  const fetching = new Map<string, Promise<Digest | undefined>>();
  const closing = new AbortController();
  const downloads = new Map<string, Download>();
  const touched = createCache<{ at: number }>(100_000);

  const repositoryOf = (name: string): Repository => {
    const known = repositories.get(name);
    if (known) return known;
    const repository = openRepository({ domain, path: name }, settings, credentials, "pull");
    repositories.set(name, repository);
    return repository;
  };

  const count = (what: "hits" | "misses", kind: LinkKind) =>
    metrics.count(`jubako_registry_proxy_${what}_total`, `Pulls that were ${what} of the cache.`, 1, { kind });

  const touch = (name: string, kind: LinkKind, digest: Digest) => {
    const key = `${kind} ${name}@${digest}`;
    if ((touched.get(key)?.at ?? 0) > Date.now() - TOUCH_EVERY_MS) return;
    touched.set(key, { at: Date.now() });
    store.touch(name, kind, digest).catch((error) => log(`${name}@${digest}: ${messageOf(error)}`));
  };

  /** Brings a manifest here; answers its digest, or undefined where neither upstream nor this has it. */
  const fetchManifest = async (name: string, reference: Reference): Promise<Digest | undefined> => {
    const kept = reference.digest ?? (await store.tag(name, reference.tag));
    const here = kept !== undefined && (await store.manifest(name, kept)) !== undefined;
    if (here && reference.digest !== undefined) {
      count("hits", "revision");
      touch(name, "revision", kept);
      return kept;
    }
    const repository = repositoryOf(name);
    try {
      if (here && (await repository.resolve(reference.tag!)) === kept) {
        count("hits", "revision");
        touch(name, "revision", kept);
        return kept;
      }
      const { descriptor, bytes } = await repository.manifest(reference.tag ?? reference.digest!);
      // What can't be read as a manifest is refused here, not kept.
      const { subject } = documentOf(bytes);
      count("misses", "revision");
      await store.putManifest(name, descriptor.digest, bytes);
      if (subject) await store.putReferrer(name, subject.digest, descriptor.digest);
      if (reference.tag !== undefined && kept !== descriptor.digest) await store.putTag(name, reference.tag, descriptor.digest);
      return descriptor.digest;
    } catch (error) {
      if (!here || !silent(error)) throw upstreamFailure(error, "MANIFEST_UNKNOWN");
      log(`${name}: served from the cache, as upstream does not answer: ${messageOf(error)}`);
      return kept;
    }
  };

  /** Whoever asks for the same at the same time shares the answer. */
  const shared = (name: string, reference: Reference): Promise<Digest | undefined> => {
    const key = `${name}:${reference.tag ?? reference.digest}`;
    const running = fetching.get(key) ?? fetchManifest(name, reference).finally(() => fetching.delete(key));
    fetching.set(key, running);
    return running;
  };

  const begin = async (name: string, digest: Digest): Promise<Download> => {
    const repository = repositoryOf(name);
    let size: number | undefined;
    try {
      size = await repository.blobSize(digest);
    } catch (error) {
      throw upstreamFailure(error, "BLOB_UNKNOWN");
    }
    if (size === undefined) throw refuse("BLOB_UNKNOWN", { detail: digest });
    const running = downloads.get(`${name}@${digest}`);
    if (running) return running;
    const key = `${name}@${digest}`;
    const changed = new EventEmitter();
    changed.setMaxListeners(0);
    const upload = await uploads.begin(name, algorithmOf(digest));
    const other = downloads.get(key);
    if (other) {
      await uploads.cancel(upload);
      return other;
    }
    const body = Readable.from(
      repository.stream({ mediaType: "application/octet-stream", digest, size }, { verify: false, signal: closing.signal }),
    );
    body.on("error", () => {});
    const run = async () => {
      try {
        await uploads.append(upload, { body, length: size, onProgress: () => changed.emit("change") });
        await uploads.finish(upload, digest);
        download.whole = true;
      } catch (error) {
        download.failure = error;
        await uploads.cancel(upload);
        log(`${name}@${digest}: the download failed: ${messageOf(error)}`);
        throw error;
      } finally {
        downloads.delete(key);
        changed.emit("change");
      }
    };
    const download: Download = {
      digest,
      size,
      file: uploads.file(upload),
      offset: () => upload.offset,
      changed,
      done: Promise.resolve(),
      whole: false,
      failure: undefined,
    };
    downloads.set(key, download);
    count("misses", "layer");
    download.done = run();
    download.done.catch(() => {});
    return download;
  };

  /** The bytes from first to last as they arrive. The blob's last byte waits until its digest is known to be right. */
  async function* follow(download: Download, first: number, last: number): AsyncGenerator<Uint8Array, void> {
    const handle = (await orAbsent(open(download.file, "r"))) ?? (await orAbsent(open(store.layout.blob(download.digest), "r")));
    if (!handle) throw download.failure ?? new Error("the download's file is gone");
    try {
      for (let at = first; at <= last; ) {
        if (download.failure !== undefined) throw download.failure;
        const there = download.whole ? download.size : Math.min(download.offset(), download.size - 1);
        const length = Math.min(there, last + 1) - at;
        if (length <= 0) {
          await once(download.changed, "change");
          continue;
        }
        const { bytesRead, buffer } = await handle.read(Buffer.allocUnsafe(Math.min(length, PIECE)), 0, Math.min(length, PIECE), at);
        if (bytesRead === 0) throw new Error("the download's file is shorter than expected");
        at += bytesRead;
        yield buffer.subarray(0, bytesRead);
      }
    } finally {
      await handle.close();
    }
  }

  const getBlob = async (exchange: Exchange, name: string, digest: Digest): Promise<void> => {
    const { request, response } = exchange;
    if ((store.knownBlobSize(name, digest) ?? (await store.blobSize(name, digest))) !== undefined) {
      if (!isHead(exchange)) count("hits", "layer");
      touch(name, "layer", digest);
      return local.blobs.get(exchange, name, digest);
    }
    const etag = `"${digest}"`;
    const headers = blobHeaders(digest, etag);
    if (isHead(exchange)) {
      const size = await repositoryOf(name)
        .blobSize(digest)
        .catch((error) => {
          throw upstreamFailure(error, "BLOB_UNKNOWN");
        });
      if (size === undefined) throw refuse("BLOB_UNKNOWN", { detail: digest });
      return send(exchange, 200, { ...headers, "content-length": String(size) });
    }
    const download = downloads.get(`${name}@${digest}`) ?? (await begin(name, digest));
    const range = parseRange(request.headers, download.size, etag);
    const { start, end } = range ?? { start: 0, end: download.size - 1 };
    headers["content-length"] = String(end - start + 1);
    if (range) headers["content-range"] = `bytes ${start}-${end}/${download.size}`;
    if (download.size === 0) {
      await download.done;
      return send(exchange, 200, headers);
    }
    const source = Readable.from(follow(download, start, end));
    // Nothing is promised before the first piece is there: until then a failure is still an answer.
    await new Promise<void>((resolve, reject) => {
      source.once("readable", resolve);
      source.once("error", reject);
    }).catch((error) => {
      throw asRefusal(error) ?? refuse("UNAVAILABLE", { status: 502, message: `upstream: ${messageOf(error)}` });
    });
    response.writeHead(range ? 206 : 200, headers);
    await pour(source, response);
  };

  return {
    blobs: { get: getBlob },
    manifests: {
      async get(exchange, name, reference) {
        const digest = await shared(name, reference);
        if (digest === undefined) throw refuse("MANIFEST_UNKNOWN");
        return local.manifests.get(exchange, name, reference.tag === undefined ? { digest } : reference);
      },
    },
    async close() {
      closing.abort();
      await Promise.allSettled([...downloads.values()].map((download) => download.done));
    },
    async expire() {
      if (config.ttlMs === 0) return 0;
      const limit = Date.now() - config.ttlMs;
      const stale = async (path: string) => ((await orAbsent(stat(path)))?.mtimeMs ?? Date.now()) < limit;
      let expired = 0;
      for (const name of await store.repositories()) {
        for (const digest of await store.manifests(name)) {
          if (!(await stale(store.layout.revision(name, digest)))) continue;
          for (const tag of (await store.tags(name)) ?? []) if ((await store.tag(name, tag)) === digest) await store.removeTag(name, tag);
          await store.removeManifest(name, digest);
          expired++;
        }
        for (const digest of await store.layers(name)) {
          if (!(await stale(store.layout.layer(name, digest)))) continue;
          await store.unlinkBlob(name, digest);
          expired++;
        }
      }
      return expired;
    },
  };
}
