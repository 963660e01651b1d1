// One HTTP request to a registry, safely: only http and https, redirects followed by hand so that no credential reaches another host, a limit on
// silence, answers of bounded size, certificates as Docker's certs.d directory says.
import { readdirSync, readFileSync } from "node:fs";
import { Failure, invalidArgument, unavailable } from "../lib/errors.ts";
import { type ProxySettings, proxyFor } from "./proxy.ts";

export interface RequestOptions {
  method?: string;
  headers?: Record<string, string>;
  body?: Uint8Array | string | ReadableStream<Uint8Array>;
  signal?: AbortSignal | undefined;
  /** Follow redirects (GET and HEAD only). */
  follow?: boolean;
}

export interface Transport {
  request(url: URL, options?: RequestOptions): Promise<Response>;
}

export interface TransportOptions {
  /** Accept any certificate. */
  insecure: boolean;
  /** Directory with ca.crt, client.cert, client.key of this host ("/etc/docker/certs.d/HOST"). */
  certificates: string | undefined;
  /** Milliseconds without an answer before a request is given up. */
  timeoutMs: number;
  userAgent: string;
  proxy: ProxySettings;
}

const MAX_REDIRECTS = 10;

interface Tls {
  rejectUnauthorized?: boolean;
  ca?: string[];
  cert?: string;
  key?: string;
}

/** Where the distributions keep the certificates that the machine trusts; Go looks at the same places. */
const SYSTEM_BUNDLES = [
  "/etc/ssl/certs/ca-certificates.crt",
  "/etc/pki/tls/certs/ca-bundle.crt",
  "/etc/ssl/ca-bundle.pem",
  "/etc/pki/tls/cacert.pem",
  "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
  "/etc/ssl/cert.pem",
];

/** What the machine trusts; undefined where it has no such file: then what is built in counts. */
function systemAuthorities(): string | undefined {
  for (const path of process.env.SSL_CERT_FILE ? [process.env.SSL_CERT_FILE] : SYSTEM_BUNDLES) {
    try {
      return readFileSync(path, "utf8");
    } catch {
      // the next distribution's place
    }
  }
  return undefined;
}

/** *.crt are authorities, NAME.cert with NAME.key a client's pair, as Docker reads them. */
function readCertificates(dir: string): Tls {
  const tls: Tls = {};
  let names: string[] = [];
  try {
    names = readdirSync(dir).sort();
  } catch {
    return tls;
  }
  for (const name of names) {
    if (name.endsWith(".crt")) {
      tls.ca ??= [];
      tls.ca.push(readFileSync(`${dir}/${name}`, "utf8"));
    } else if (name.endsWith(".cert")) {
      const key = name.replace(/\.cert$/, ".key");
      if (!names.includes(key)) throw new Failure("InvalidArgument", `missing key ${key} for client certificate ${name}`);
      tls.cert = readFileSync(`${dir}/${name}`, "utf8");
      tls.key = readFileSync(`${dir}/${key}`, "utf8");
    }
  }
  return tls;
}

/** What Go would say about a failed connection, which users and their scripts know. */
function connectionFailure(error: unknown, method: string, url: URL): Failure {
  const { code, message } = error as { code?: string; message?: string };
  const ping = `${method === "HEAD" ? "Head" : "Get"} "${url.origin}/v2/"`;
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const port = url.port || (url.protocol === "https:" ? "443" : "80");
  const known: Record<string, string> = {
    ConnectionRefused: `dial tcp ${host}:${port}: connect: connection refused`,
    ECONNREFUSED: `dial tcp ${host}:${port}: connect: connection refused`,
    ENOTFOUND: `dial tcp: lookup ${host}: no such host`,
    FailedToOpenSocket: `dial tcp: lookup ${host}: no such host`,
    ENETUNREACH: `dial tcp ${host}:${port}: connect: network is unreachable`,
    EHOSTUNREACH: `dial tcp ${host}:${port}: connect: no route to host`,
    ECONNRESET: `read tcp ${host}:${port}: read: connection reset by peer`,
    ConnectionClosed: "EOF",
    ERR_PROXY_TUNNEL: "proxyconnect tcp: the proxy refused to open a tunnel",
    DEPTH_ZERO_SELF_SIGNED_CERT: "tls: failed to verify certificate: x509: certificate signed by unknown authority",
    SELF_SIGNED_CERT_IN_CHAIN: "tls: failed to verify certificate: x509: certificate signed by unknown authority",
    UNABLE_TO_VERIFY_LEAF_SIGNATURE: "tls: failed to verify certificate: x509: certificate signed by unknown authority",
    UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "tls: failed to verify certificate: x509: certificate signed by unknown authority",
    UNABLE_TO_GET_ISSUER_CERT: "tls: failed to verify certificate: x509: certificate signed by unknown authority",
    CERT_HAS_EXPIRED: "tls: failed to verify certificate: x509: certificate has expired or is not yet valid",
  };
  const text = (code && known[code]) || message || String(error);
  return new Failure("Unavailable", `${ping}: ${text}`, { cause: error });
}

export function createTransport(options: TransportOptions): Transport {
  let tls: Tls | undefined;
  const tlsOptions = (): Tls => {
    if (tls) return tls;
    tls = options.certificates ? readCertificates(options.certificates) : {};
    if (options.insecure) tls.rejectUnauthorized = false;
    else {
      const system = systemAuthorities();
      if (system !== undefined) tls.ca = [system, ...(tls.ca ?? [])];
    }
    return tls;
  };

  const once = async (url: URL, request: RequestOptions, first: URL): Promise<Response> => {
    if (url.protocol !== "https:" && url.protocol !== "http:") throw unavailable(`refusing to follow a redirect to ${url.protocol}//`);
    const method = request.method ?? "GET";
    request.signal?.throwIfAborted();
    const controller = new AbortController();
    const giveUp = () => controller.abort();
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      controller.abort();
    }, options.timeoutMs);
    // An upload takes as long as it takes; only its caller ends it.
    if (request.body instanceof ReadableStream) clearTimeout(timer);
    request.signal?.addEventListener("abort", giveUp);
    const headers: Record<string, string> = { "user-agent": options.userAgent, ...request.headers };
    // Another origin gets no credentials, and not our client certificate either.
    const same = url.origin === first.origin;
    if (!same) delete headers.authorization;
    const secure = url.protocol === "https:";
    const own = secure ? tlsOptions() : {};
    try {
      return await fetch(url.href, {
        // Bun would read the environment by rules of its own.
        proxy: proxyFor(url, options.proxy) ?? false,
        method,
        headers,
        redirect: "manual",
        decompress: false,
        signal: controller.signal,
        ...(request.body === undefined ? {} : { body: request.body as NonNullable<RequestInit["body"]> }),
        ...(secure
          ? { tls: same ? own : { ...(own.ca ? { ca: own.ca } : {}), ...(options.insecure ? { rejectUnauthorized: false } : {}) } }
          : {}),
      } as unknown as RequestInit);
    } catch (error) {
      request.signal?.throwIfAborted();
      if (error instanceof Failure) throw error;
      if (late) throw unavailable(`${method} ${url.origin}${url.pathname}: no answer in ${options.timeoutMs / 1000} seconds`, error);
      request.signal?.removeEventListener("abort", giveUp);
      throw connectionFailure(error, method, url);
    } finally {
      clearTimeout(timer);
    }
  };

  return {
    async request(url, request = {}) {
      const follow = request.follow ?? true;
      let at = url;
      for (let hops = 0; ; hops++) {
        const response = await once(at, request, url);
        const location = response.headers.get("location");
        if (!follow || ![301, 302, 303, 307, 308].includes(response.status) || !location) return response;
        await response.body?.cancel();
        if (hops >= MAX_REDIRECTS) throw unavailable(`${url.origin}${url.pathname}: stopped after ${MAX_REDIRECTS} redirects`);
        at = new URL(location, at);
        at.username = "";
        at.password = "";
      }
    },
  };
}

/** The whole body; InvalidArgument where it is longer than `limit`, Unavailable where it stops coming for `timeoutMs`. */
export async function readBody(response: Response, limit: number, timeoutMs: number): Promise<Uint8Array> {
  const announced = Number(response.headers.get("content-length") ?? 0);
  if (announced > limit) {
    await response.body?.cancel();
    throw invalidArgument(`answer of ${announced} bytes is too long; the limit is ${limit}`);
  }
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of pieces(response, timeoutMs)) {
    length += chunk.length;
    if (length > limit) throw invalidArgument(`answer is too long; the limit is ${limit} bytes`);
    chunks.push(chunk);
  }
  return chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks);
}

/** Of this many times the timeout that were spent waiting, so many bytes must have come. */
const PATIENCE = 4;
const LEAST = 16 << 10;

/** The body piece by piece; Unavailable where none comes for `timeoutMs`, or only a trickle. */
export async function* pieces(response: Response, timeoutMs: number): AsyncGenerator<Uint8Array, void> {
  if (!response.body) return;
  const reader = response.body.getReader() as ReadableStreamDefaultReader<Uint8Array>;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let stalled = false;
  // One timer for the whole body, looking at when the last piece came: a timer for every piece would cost more than the piece.
  let last = Date.now();
  let waiting = false;
  let waited = 0;
  let came = 0;
  const look = () => {
    const left = waiting ? last + timeoutMs - Date.now() : timeoutMs;
    if (left > 0) {
      timer = setTimeout(look, left);
      return;
    }
    stalled = true;
    reader.cancel().catch(() => {});
  };
  timer = setTimeout(look, timeoutMs);
  try {
    for (;;) {
      waiting = true;
      last = Date.now();
      const { done, value } = await reader.read();
      waiting = false;
      if (stalled) throw unavailable(`no data for ${timeoutMs / 1000} seconds`);
      if (done) return;
      waited += Date.now() - last;
      came += value.length;
      if (waited >= PATIENCE * timeoutMs) {
        if (came < LEAST) throw unavailable(`only ${came} bytes in ${Math.round(waited / 1000)} seconds`);
        waited = 0;
        came = 0;
      }
      yield value;
    }
  } finally {
    clearTimeout(timer);
    reader.cancel().catch(() => {});
  }
}
