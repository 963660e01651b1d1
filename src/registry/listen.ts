// The address: HTTP/1.1, with or without TLS, and with TLS HTTP/2 for who can. Ends as a server should: no new requests, those under way to their end.
import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer, type Server as HttpServer, type RequestListener, type ServerResponse } from "node:http";
import type { SecureServerOptions, ServerHttp2Session } from "node:http2";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo, Server as NetServer } from "node:net";
import type { TLSSocket } from "node:tls";
import { answerPlainHttp } from "../lib/plain-http.ts";

export interface TlsFiles {
  certificate: string;
  key: string;
  clientCAs: readonly string[];
  minimum: "TLSv1.2" | "TLSv1.3";
  /** Offers HTTP/2, too (ALPN). */
  http2: boolean;
}

export interface Listener {
  /** "127.0.0.1:5000" as it was bound. */
  address: string;
  /** Reads the certificate's files again; connections made from now on get what they hold. Throws where they are no good: what was read before stays. */
  reload(): void;
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

/** What the listener needs of node's servers of HTTP/1.1 and HTTP/2. */
interface Served extends NetServer {
  setTimeout(ms: number): unknown;
  /** Ends connections that have no request under way. */
  closeIdle(): void;
  closeAll(): void;
  /** Bun's server of HTTP/1.1 with TLS has none. */
  setSecureContext?(options: SecureServerOptions): void;
}

function plainServer(server: HttpServer): Served {
  server.headersTimeout = HEADERS_MS;
  server.requestTimeout = 0;
  return Object.assign(server, { closeIdle: () => server.closeIdleConnections(), closeAll: () => server.closeAllConnections() });
}

/** Both versions on one port. Sessions and connections are counted here: the server of HTTP/2 can't be asked to end them. */
async function bothVersions(options: SecureServerOptions, handler: RequestListener, working: ReadonlySet<ServerResponse>): Promise<Served> {
  const { createSecureServer } = await import("node:http2");
  const sessions = new Set<ServerHttp2Session>();
  const sockets = new Set<TLSSocket>();
  // Requests and answers of HTTP/2 have the same methods, so far as they are used here (node's "Compatibility API").
  const server = createSecureServer({ ...options, allowHTTP1: true }, handler as unknown as Parameters<typeof createSecureServer>[1]);
  server.on("session", (session) => {
    sessions.add(session);
    session.on("error", () => {});
    session.on("close", () => sessions.delete(session));
  });
  server.on("secureConnection", (socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => sockets.delete(socket));
  });
  answerPlainHttp(server);
  return Object.assign(server, {
    closeIdle() {
      for (const session of sessions) session.close();
      const busy = new Set([...working].map((response) => response.socket));
      for (const socket of sockets) if (socket.alpnProtocol !== "h2" && !busy.has(socket)) socket.destroy();
    },
    closeAll() {
      for (const session of sessions) session.destroy();
      for (const socket of sockets) socket.destroy();
    },
  });
}

const secureOptions = (tls: TlsFiles) => ({
  cert: readFileSync(tls.certificate),
  key: readFileSync(tls.key),
  minVersion: tls.minimum,
  ...(tls.clientCAs.length ? { ca: tls.clientCAs.map((file) => readFileSync(file)), requestCert: true, rejectUnauthorized: true } : {}),
});

async function openServer(tls: TlsFiles | undefined, handler: RequestListener, working: ReadonlySet<ServerResponse>): Promise<Served> {
  if (!tls) return plainServer(createServer(handler));
  const options = secureOptions(tls);
  return tls.http2 ? bothVersions(options, handler, working) : plainServer(createTlsServer(options, handler));
}

export async function listen(address: string, tls: TlsFiles | undefined, handler: RequestListener, idleMs: number): Promise<Listener> {
  const { host, port } = parseAddress(address);
  const working = new Set<ServerResponse>();
  let closing = false;
  const last = (response: ServerResponse) => {
    if (response.req.httpVersionMajor < 2 && !response.headersSent) response.setHeader("connection", "close");
  };
  const counting: RequestListener = (request, response) => {
    working.add(response);
    response.once("close", () => working.delete(response));
    if (closing) last(response);
    handler(request, response);
  };
  const server = await openServer(tls, counting, working);
  server.setTimeout(idleMs);
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, resolve);
  });
  const bound = server.address() as AddressInfo;
  return {
    address: `${bound.family === "IPv6" ? `[${bound.address}]` : bound.address}:${bound.port}`,
    reload() {
      if (!tls) return;
      const options = secureOptions(tls);
      if (!server.setSecureContext) throw new Error("a new certificate takes a restart where HTTP/2 is switched off");
      // a pair that does not fit would be noticed by the clients only
      if (!new X509Certificate(options.cert).checkPrivateKey(createPrivateKey(options.key)))
        throw new Error(`${tls.key} is not the key of ${tls.certificate}`);
      server.setSecureContext(options);
    },
    async close(withinMs) {
      closing = true;
      for (const response of working) last(response);
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeIdle();
      const timer = setTimeout(() => server.closeAll(), withinMs);
      await closed;
      clearTimeout(timer);
    },
  };
}
