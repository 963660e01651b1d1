// gRPC over connections that the engine has upgraded to HTTP/2: on /grpc we call it, on /session it calls us.
import {
  connect as connectHttp2,
  createServer,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type OutgoingHttpHeaders,
  type ServerHttp2Session,
} from "node:http2";
import type { Socket } from "node:net";
import { Duplex } from "node:stream";
import type { ConnectRouter, Transport } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { bulkTransport } from "../../lib/grpc-calls.ts";
import type { RawStream } from "../streams.ts";

const MESSAGE_LIMIT = 16 << 20;
const WINDOW = 4 << 20;

/** An upgraded connection as node's streams are. */
function duplexOf(raw: RawStream): Duplex {
  const stream: Duplex = new Duplex({
    read: () => raw.resume(),
    write(chunk: Buffer, _, done) {
      if (raw.write(chunk)) done();
      else raw.drained().then(() => done(), done);
    },
    final(done) {
      raw.closeWrite();
      done();
    },
    destroy(error, done) {
      raw.destroy();
      done(error);
    },
  });
  raw.start(
    (chunk) => {
      if (!stream.push(chunk)) raw.pause();
    },
    (error) => {
      if (error) stream.destroy(error);
      else stream.push(null);
    },
  );
  return stream;
}

/** Calls services over one connection; there is no second one. */
export function grpcTransport(raw: RawStream): { transport: Transport; close(): void } {
  const stream = duplexOf(raw);
  const ending = new AbortController();
  const session = connectHttp2("http://localhost", { createConnection: () => stream as Socket, settings: { initialWindowSize: WINDOW } });
  const close = () => {
    ending.abort();
    session.destroy();
    stream.destroy();
  };
  stream.once("close", close);
  stream.on("error", close);
  session.on("error", close);
  const open = async (path: string, headers: OutgoingHttpHeaders) =>
    session.request({ ...headers, ":method": "POST", ":path": path, ":scheme": "http", ":authority": "localhost" });
  return { transport: bulkTransport(open, ending.signal), close };
}

const LIST = "x-jubako-list-";

/** Metadata with several values; a web header would hold them as one. */
export function listHeader(headers: Headers, name: string): string[] {
  const text = headers.get(LIST + name);
  const values = text ? (JSON.parse(Buffer.from(text, "base64url").toString()) as string[]) : [];
  return headers.get(`${name}-encoded`) === "1" ? values.map((value) => decodeURIComponent(value)) : values;
}

function keepLists(request: Http2ServerRequest, names: readonly string[]): void {
  const { rawHeaders } = request;
  for (const name of names) {
    const values: string[] = [];
    for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
      if (rawHeaders[i] !== name) continue;
      const value: unknown = rawHeaders[i + 1];
      values.push(...(Array.isArray(value) ? (value as string[]) : [String(value)]));
    }
    if (values.length > 0) request.headers[LIST + name] = Buffer.from(JSON.stringify(values)).toString("base64url");
  }
}

/** Serves on one connection until it ends. */
export function serveGrpc(
  raw: RawStream,
  lists: readonly string[],
  routes: (router: ConnectRouter) => void,
): { closed: Promise<void>; close(): void } {
  const handler = connectNodeAdapter({ routes, connect: false, grpcWeb: false, readMaxBytes: MESSAGE_LIMIT, writeMaxBytes: MESSAGE_LIMIT });
  const server = createServer(
    { settings: { initialWindowSize: WINDOW, maxConcurrentStreams: 4096 } },
    (request: Http2ServerRequest, response: Http2ServerResponse) => {
      keepLists(request, lists);
      handler(request, response);
    },
  );
  let session: ServerHttp2Session | undefined;
  server.on("session", (opened) => {
    session = opened;
    opened.on("error", () => opened.destroy());
  });
  const stream = duplexOf(raw);
  stream.on("error", () => {});
  const closed = new Promise<void>((resolve) => stream.once("close", resolve));
  server.emit("connection", stream as Socket);
  return {
    closed,
    close() {
      session?.destroy();
      stream.destroy();
    },
  };
}
