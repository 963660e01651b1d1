// One repository of a registry, with one user's credentials: the verbs of the distribution specification over the nouns of oci.
import { Failure, invalidArgument, messageOf, notFound, unavailable } from "../lib/errors.ts";
import {
  algorithmOf,
  createDigester,
  type Descriptor,
  type Digest,
  digestOf,
  isDigest,
  isForeign,
  MAX_MANIFEST,
  MEDIA,
  matches,
  parseTag,
  type Reference,
} from "../oci/index.ts";
import { type Credentials, parseChallenges } from "./auth.ts";
import { parseRetryAfter, RegistryError, registryError } from "./errors.ts";
import { type Endpoint, endpointsOf, type RegistryConfig, transportElsewhere } from "./hosts.ts";
import { type Referrer, referrerOf, referrersTag, withReferrer } from "./referrers.ts";
import { delayAfter, sleep, transient } from "./retry.ts";
import { pieces, type RequestOptions, readBody, type Transport } from "./transport.ts";

const ACCEPT = [MEDIA.ociIndex, MEDIA.ociManifest, MEDIA.dockerList, MEDIA.dockerManifest, "*/*"].join(", ");
const ERROR_LIMIT = 64 << 10;
const ATTEMPTS = 5;
/** A blob that needs more connections than this, though each brings some bytes, is given up. */
const CONNECTIONS = 40;
/** A connection that brought less counts as one that brought nothing. */
const WORTH = 1 << 10;
/** Pages of a list of tags. */
const TAG_PAGES = 1000;

export interface BlobOptions {
  /** Where to begin; the bytes before are the caller's already. */
  offset?: number;
  signal?: AbortSignal;
  /** False: the caller checks the digest itself (in the pass that unpacks). Length is checked in any case. */
  verify?: boolean;
  /** A connection broke and is tried again in so many milliseconds. */
  onRetry?: (error: unknown, delayMs: number) => void;
}

export interface Repository {
  readonly reference: Reference;
  /** What a tag or digest names: its descriptor and its bytes, verified. `from` is the descriptor to follow, where there is one. */
  manifest(from: string | Descriptor, signal?: AbortSignal): Promise<{ descriptor: Descriptor; bytes: Uint8Array }>;
  /** A small blob as a whole, verified. */
  blob(descriptor: Descriptor, limit: number, signal?: AbortSignal): Promise<Uint8Array>;
  /** A blob's bytes in order; broken connections are resumed where they broke (bounded). InvalidArgument where length or digest are wrong. */
  stream(descriptor: Descriptor, options?: BlobOptions): AsyncGenerator<Uint8Array, void>;
  /** All tags, sorted. */
  tags(signal?: AbortSignal): Promise<string[]>;
  /** What a tag names now, without its bytes; undefined where it is not there, or the registry does not say. */
  resolve(tag: string, signal?: AbortSignal): Promise<Digest | undefined>;
  /** Size of a blob that is known by its digest alone; undefined where it is not there. */
  blobSize(digest: Digest, signal?: AbortSignal): Promise<number | undefined>;
  /** Whether the blob is there. */
  hasBlob(descriptor: Descriptor, signal?: AbortSignal): Promise<boolean>;
  /** Uploads a blob, or takes it over from another repository of the same registry. Answers what happened. */
  push(descriptor: Descriptor, open: () => AsyncIterable<Uint8Array>, options?: PushOptions): Promise<"pushed" | "exists" | "mounted">;
  /** One with a subject becomes a referrer of that, also where the registry keeps no lists of them. */
  pushManifest(descriptor: Descriptor, bytes: Uint8Array, tag: string | undefined, signal?: AbortSignal): Promise<Digest>;
}

export interface PushOptions {
  /** Path of a repository to mount from. */
  from?: string;
  onProgress?: (bytes: number) => void;
  signal?: AbortSignal;
}

/** What a HEAD may say: it is there, or not. */
const present = (status: number) => status === 200 || status === 404;

export function openRepository(
  reference: Reference,
  config: RegistryConfig,
  credentials?: Credentials,
  mode: "pull" | "push" = "pull",
): Repository {
  const timeoutMs = config.timeoutMs ?? 60_000;
  const attempts = Math.max(1, config.attempts ?? ATTEMPTS);
  const endpoints = endpointsOf(reference.domain, config, credentials, mode === "pull");
  /** The endpoint that answered; the others are not asked again. */
  let chosen: Endpoint | undefined;
  let elsewhere: Transport | undefined;
  const scope = `repository:${reference.path}:${mode === "push" ? "pull,push" : "pull"}`;

  const authorized = async (endpoint: Endpoint, path: string | URL, options: RequestOptions, more = ""): Promise<Response> => {
    const url = typeof path === "string" ? new URL(path, endpoint.base) : path;
    const wanted = more ? `${scope} ${more}` : scope;
    const own = url.origin === endpoint.base.origin;
    const send = (authorization: string | undefined) =>
      endpoint.transport.request(url, { ...options, headers: { ...options.headers, ...(authorization && own ? { authorization } : {}) } });
    const known = endpoint.authorizer.known(wanted);
    const response = await send(known);
    if (response.status !== 401 || !own || options.body instanceof ReadableStream) return response;
    const answer = await endpoint.authorizer.answer(parseChallenges(response.headers.get("www-authenticate") ?? ""), wanted);
    if (!answer || answer === known) return response;
    await response.body?.cancel();
    return send(answer);
  };

  const refuse = async (response: Response, request: string): Promise<never> => {
    const body = new TextDecoder().decode(await readBody(response, ERROR_LIMIT, timeoutMs).catch(() => new Uint8Array()));
    throw registryError(response.status, body, request, parseRetryAfter(response.headers.get("retry-after")));
  };

  /** Asks the endpoints in turn until one answers; a mirror's refusal is no answer. */
  const request = async (path: string, options: RequestOptions, accept: (status: number) => boolean, more = ""): Promise<Response> => {
    const describe = (endpoint: Endpoint) => `${options.method ?? "GET"} ${endpoint.base.origin}${path}`;
    const ask = async (endpoint: Endpoint) => {
      const response = await authorized(endpoint, path, options, more);
      // what a mirror lacks, the registry may have
      if (!accept(response.status) || (endpoint.mirror && response.status === 404)) await refuse(response, describe(endpoint));
      return response;
    };
    if (chosen && !chosen.mirror) return ask(chosen);
    let failure: unknown;
    for (const endpoint of chosen ? [chosen, ...endpoints.filter((other) => other !== chosen)] : endpoints) {
      try {
        const response = await ask(endpoint);
        chosen = endpoint;
        return response;
      } catch (error) {
        options.signal?.throwIfAborted();
        if (error instanceof RegistryError && !endpoint.mirror) {
          if (error.status < 500) chosen = endpoint;
          throw error;
        }
        failure = error;
      }
    }
    throw failure;
  };

  const retried = async <T>(signal: AbortSignal | undefined, attempt: () => Promise<T>): Promise<T> => {
    for (let tries = 1; ; tries++) {
      try {
        return await attempt();
      } catch (error) {
        // A registry that was never reached is not there: say so at once.
        signal?.throwIfAborted();
        if (tries >= attempts || !transient(error) || (!chosen && !(error instanceof RegistryError))) throw error;
        await sleep(delayAfter(error, tries), signal);
      }
    }
  };

  const manifest: Repository["manifest"] = (from, signal) =>
    retried(signal, async () => {
      const target = typeof from === "string" ? from : from.digest;
      const accept = typeof from === "string" || !from.mediaType ? ACCEPT : `${from.mediaType}, ${ACCEPT}`;
      const response = await request(
        `/v2/${reference.path}/manifests/${target}`,
        { headers: { accept }, signal },
        (status) => status === 200,
      );
      const bytes = await readBody(response, MAX_MANIFEST, timeoutMs);
      const mediaType = (response.headers.get("content-type") ?? "").split(";")[0]!.trim();
      const wanted = typeof from === "string" ? (/:/.test(from) ? from : undefined) : from.digest;
      const digest = wanted ?? digestOf(bytes);
      if (!matches(bytes, digest))
        throw invalidArgument(
          `manifest verification failed for digest ${digest}: the content's is ${digestOf(bytes, algorithmOf(digest))}`,
        );
      if (typeof from !== "string") {
        if (from.size !== bytes.length) throw invalidArgument(`manifest ${digest} is ${bytes.length} bytes long, expected ${from.size}`);
        return { descriptor: from, bytes };
      }
      return { descriptor: { mediaType, digest, size: bytes.length }, bytes };
    });

  const tags: Repository["tags"] = (signal) =>
    retried(signal, async () => {
      const found = new Set<string>();
      let path: string | undefined = `/v2/${reference.path}/tags/list`;
      for (let pages = 0; path !== undefined; pages++) {
        if (pages === TAG_PAGES) throw invalidArgument(`the registry has more tags of ${reference.path} than can be listed`);
        const response: Response = await request(path, { headers: { accept: "application/json" }, signal }, (status) => status === 200);
        const listed = JSON.parse(new TextDecoder().decode(await readBody(response, MAX_MANIFEST, timeoutMs))) as { tags?: unknown } | null;
        const names = listed?.tags ?? [];
        if (!Array.isArray(names)) throw invalidArgument(`the registry's list of tags of ${reference.path} is not a list`);
        for (const name of names) found.add(parseTag(String(name)));
        // only the query of the next page counts: the rest stays ours
        const next = /<([^>]*)>\s*;\s*rel="?next"?/.exec(response.headers.get("link") ?? "")?.[1];
        path = next === undefined ? undefined : `/v2/${reference.path}/tags/list?${next.split("?")[1] ?? ""}`;
      }
      return [...found].sort();
    });

  /** A layer that registries may not have, from where its descriptor says; no credentials go there. */
  const foreign = async (descriptor: Descriptor, options: RequestOptions, error: unknown): Promise<Response> => {
    if (!(error instanceof RegistryError) || error.status !== 404 || !isForeign(descriptor)) throw error;
    let failure = error;
    for (const url of descriptor.urls ?? []) {
      if (!/^https?:\/\//i.test(url) || !URL.canParse(url)) continue;
      elsewhere ??= transportElsewhere(config);
      const response = await elsewhere.request(new URL(url), { ...options, follow: true });
      if (response.status === 200 || response.status === 206) return response;
      await response.body?.cancel();
      failure = registryError(response.status, "", `GET ${url}`);
    }
    throw failure;
  };

  async function* stream(descriptor: Descriptor, options: BlobOptions = {}): AsyncGenerator<Uint8Array, void> {
    const { signal } = options;
    const digester = options.verify !== false && !options.offset ? createDigester(algorithmOf(descriptor.digest)) : undefined;
    let at = options.offset ?? 0;
    let failures = 0;
    let connections = 0;
    while (at < descriptor.size) {
      const before = at;
      try {
        const headers: Record<string, string> = { accept: "application/octet-stream" };
        if (at > 0) headers.range = `bytes=${at}-${descriptor.size - 1}`;
        const path = `/v2/${reference.path}/blobs/${descriptor.digest}`;
        const asked = { headers, signal };
        const response = await request(path, asked, (status) => status === 200 || status === 206).catch((error: unknown) =>
          foreign(descriptor, asked, error),
        );
        // A server that knows no ranges sends everything again.
        let skip = at;
        if (response.status === 206) {
          const start = Number(/^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "")?.[1] ?? Number.NaN);
          if (start !== at)
            throw unavailable(`the registry answered another range than the one asked for (${response.headers.get("content-range")})`);
          skip = 0;
        }
        for await (let piece of pieces(response, timeoutMs)) {
          signal?.throwIfAborted();
          if (skip > 0) {
            const n = Math.min(skip, piece.length);
            piece = piece.subarray(n);
            skip -= n;
            if (piece.length === 0) continue;
          }
          if (at + piece.length > descriptor.size)
            throw invalidArgument(`blob ${descriptor.digest} is longer than the ${descriptor.size} bytes that were announced`);
          digester?.update(piece);
          at += piece.length;
          yield piece;
        }
        if (at < descriptor.size) throw unavailable(`blob ${descriptor.digest}: unexpected EOF after ${at} of ${descriptor.size} bytes`);
      } catch (error) {
        signal?.throwIfAborted();
        failures = at - before >= WORTH ? 1 : failures + 1;
        const broken = transient(error) || !(error instanceof Failure);
        if (!broken || failures >= attempts || ++connections >= CONNECTIONS)
          throw error instanceof Failure ? error : unavailable(`blob ${descriptor.digest}: ${messageOf(error)}`, error);
        const delay = delayAfter(error, failures);
        options.onRetry?.(error, delay);
        await sleep(delay, signal);
      }
    }
    const digest = digester?.digest();
    if (digest !== undefined && digest !== descriptor.digest)
      throw invalidArgument(`filesystem layer verification failed for digest ${descriptor.digest}`);
  }

  const hasBlob: Repository["hasBlob"] = (descriptor, signal) =>
    retried(signal, async () => {
      const response = await request(`/v2/${reference.path}/blobs/${descriptor.digest}`, { method: "HEAD", signal }, present);
      return response.status === 200;
    });

  /** One attempt: what broke off is sent again from its beginning. */
  const upload = async (
    descriptor: Descriptor,
    open: () => AsyncIterable<Uint8Array>,
    options: PushOptions,
  ): Promise<"pushed" | "exists" | "mounted"> => {
    const { signal } = options;
    if (await hasBlob(descriptor, signal)) return "exists";
    const mount = options.from ? `?mount=${encodeURIComponent(descriptor.digest)}&from=${encodeURIComponent(options.from)}` : "";
    const begin = (query: string, more: string) =>
      request(
        `/v2/${reference.path}/blobs/uploads/${query}`,
        { method: "POST", body: "", signal },
        (status) => status === 202 || status === 201,
        more,
      );
    // The token must be good for both repositories; who may not read the other one uploads.
    const begun = await begin(mount, options.from ? `repository:${options.from}:pull` : "").catch((error: unknown) => {
      if (!mount || !(error instanceof RegistryError) || ![401, 403, 404].includes(error.status)) throw error;
      return begin("", "");
    });
    await begun.body?.cancel();
    if (begun.status === 201) return "mounted";
    const endpoint = chosen!;
    const location = begun.headers.get("location");
    if (!location) throw unavailable("the registry gave no place to upload to");
    const target = new URL(location, endpoint.base);
    target.searchParams.set("digest", descriptor.digest);
    let sent = 0;
    let last = Date.now();
    const source = open()[Symbol.asyncIterator]();
    const body = new ReadableStream<Uint8Array>({
      async pull(controller) {
        const { done, value } = await source.next();
        last = Date.now();
        if (done) return controller.close();
        sent += value.length;
        controller.enqueue(value);
        options.onProgress?.(sent);
      },
      async cancel() {
        await source.return?.();
      },
    });
    const stop = new AbortController();
    const abort = () => stop.abort(signal?.reason);
    signal?.addEventListener("abort", abort, { once: true });
    // A registry that takes nothing more is given up; one that has it all may take its time to look at it.
    const watch = setInterval(() => {
      const patience = sent < descriptor.size ? timeoutMs : 10 * timeoutMs;
      if (Date.now() - last > patience)
        stop.abort(unavailable(`PUT ${target.origin}${target.pathname}: no progress in ${patience / 1000} seconds`));
    }, timeoutMs / 4);
    let response: Response;
    try {
      response = await authorized(endpoint, target, {
        method: "PUT",
        body,
        follow: false,
        signal: stop.signal,
        headers: { "content-type": "application/octet-stream", "content-length": String(descriptor.size) },
      });
    } finally {
      clearInterval(watch);
      signal?.removeEventListener("abort", abort);
    }
    if (response.status !== 201) await refuse(response, `PUT ${endpoint.base.origin}${target.pathname}`);
    await response.body?.cancel();
    return "pushed";
  };

  /** `listed`: the registry keeps the list of referrers itself, or says so. */
  const putManifest = (descriptor: Pick<Descriptor, "mediaType" | "digest">, bytes: Uint8Array, at: string, signal?: AbortSignal) =>
    retried(signal, async () => {
      const options = { method: "PUT", body: bytes, headers: { "content-type": descriptor.mediaType }, signal };
      const response = await request(`/v2/${reference.path}/manifests/${at}`, options, (status) => status === 201);
      await response.body?.cancel();
      return { digest: response.headers.get("docker-content-digest") ?? descriptor.digest, listed: response.headers.has("oci-subject") };
    });

  const addReferrer = async ({ subject, entry }: Referrer, signal?: AbortSignal): Promise<void> => {
    const tag = referrersTag(subject);
    const known = await manifest(tag, signal).catch((error: unknown) => {
      if (error instanceof RegistryError && error.status === 404) return undefined;
      throw error;
    });
    const bytes = withReferrer(known?.bytes, entry);
    if (bytes) await putManifest({ mediaType: MEDIA.ociIndex, digest: digestOf(bytes) }, bytes, tag, signal);
  };

  return {
    reference,
    manifest,
    tags,
    stream,
    async blob(descriptor, limit, signal) {
      if (descriptor.size > limit)
        throw invalidArgument(`blob ${descriptor.digest} is ${descriptor.size} bytes long; the limit is ${limit}`);
      const chunks: Uint8Array[] = [];
      for await (const piece of stream(descriptor, signal ? { signal } : {})) chunks.push(piece);
      return Buffer.concat(chunks);
    },
    resolve: (tag, signal) =>
      retried(signal, async () => {
        const options = { method: "HEAD", headers: { accept: ACCEPT }, signal };
        const response = await request(`/v2/${reference.path}/manifests/${tag}`, options, present);
        const digest = response.headers.get("docker-content-digest");
        return response.status === 200 && digest !== null && isDigest(digest) ? digest : undefined;
      }),
    blobSize: (digest, signal) =>
      retried(signal, async () => {
        const response = await request(`/v2/${reference.path}/blobs/${digest}`, { method: "HEAD", signal }, present);
        const size = Number(response.headers.get("content-length") ?? Number.NaN);
        return response.status === 200 && Number.isSafeInteger(size) ? size : undefined;
      }),
    hasBlob,
    push: (descriptor, open, options = {}) => retried(options.signal, () => upload(descriptor, open, options)),
    async pushManifest(descriptor, bytes, tag, signal) {
      const { digest, listed } = await putManifest(descriptor, bytes, tag ?? descriptor.digest, signal);
      const referrer = listed ? undefined : referrerOf(descriptor, bytes);
      if (referrer) await addReferrer(referrer, signal);
      return digest;
    },
  };
}

/** NotFound in Docker's words, for an index without a manifest for the wanted platform. */
export function noMatchingPlatform(reference: string, platform: string): Failure {
  return notFound(`no matching manifest for ${platform} in the manifest list entries: ${reference}`);
}
