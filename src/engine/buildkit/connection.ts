// gRPC over a connection that was taken over from HTTP/1.1 (Upgrade: h2c), in both roles: of /grpc we are the server, of /session the client, although the
// client of the Engine API opened both. HTTP/2 is node:http2's; it gets a stream of our own, so that bytes which came before it was listening are not lost.
import { createServer, type OutgoingHttpHeaders, type ServerHttp2Session } from "node:http2";
import type { Socket } from "node:net";
import { Duplex } from "node:stream";
import { Code, ConnectError, type ConnectRouter, type Transport } from "@connectrpc/connect";
import { connectNodeAdapter, Http2SessionManager } from "@connectrpc/connect-node";

import { bulkTransport, type OpenStream } from "../../lib/grpc-calls.ts";

/** As BuildKit's own limit. */
export const MESSAGE_LIMIT = 16 << 20;
const WINDOW = 1 << 20;

/** A taken-over connection as a plain stream. */
export function streamOf(connection: Duplex): Duplex {
  const stream: Duplex = new Duplex({
    read: () => void connection.resume(),
    write(chunk: Buffer, _, done) {
      if (connection.destroyed) done(new Error("the connection is closed"));
      else if (connection.write(chunk)) done();
      else drained(connection, done);
    },
    final(done) {
      connection.end();
      done();
    },
    destroy(error, done) {
      connection.destroy();
      done(error);
    },
  });
  connection.on("data", (chunk: Buffer) => {
    if (!stream.push(chunk)) connection.pause();
  });
  connection.on("end", () => stream.push(null));
  connection.on("close", () => stream.destroy());
  connection.on("error", () => stream.destroy());
  return stream;
}

function drained(connection: Duplex, done: () => void): void {
  const finish = () => {
    connection.off("drain", finish);
    connection.off("close", finish);
    done();
  };
  connection.on("drain", finish);
  connection.on("close", finish);
}

/** Answers each connection that it is given with these services; a service that is not there is Unimplemented, as gRPC has it. */
export function createGrpcServer(routes: (router: ConnectRouter) => void): { accept(connection: Duplex): void; close(): void } {
  const handler = connectNodeAdapter({
    routes,
    connect: false,
    grpcWeb: false,
    readMaxBytes: MESSAGE_LIMIT,
    writeMaxBytes: MESSAGE_LIMIT,
    fallback(request, response) {
      response.writeHead(200, {
        "content-type": "application/grpc",
        "grpc-status": String(Code.Unimplemented),
        "grpc-message": encodeURIComponent(`unknown service ${(request.url ?? "").split("/")[1] ?? ""}`),
      });
      response.end();
    },
  });
  const server = createServer({ settings: { initialWindowSize: WINDOW, maxConcurrentStreams: 4096 } }, handler);
  const sessions = new Set<ServerHttp2Session>();
  server.on("session", (session) => {
    sessions.add(session);
    session.on("close", () => sessions.delete(session));
    session.on("error", () => session.destroy());
  });
  return {
    accept: (connection) => void server.emit("connection", streamOf(connection) as Socket),
    close() {
      for (const session of sessions) session.destroy();
    },
  };
}

const LIST = "jubako-list-";

/** Metadata with several values each, which web headers can't hold: they travel as JSON under another name as far as the connection. */
export function listHeaders(lists: Record<string, readonly string[]>): Record<string, string> {
  const out: Record<string, string> = {};
  for (const [name, values] of Object.entries(lists)) {
    if (values.length === 0) continue;
    // Values that a header can't hold are escaped, and said to be, as BuildKit does.
    const plain = values.every((value) => /^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$/.test(value));
    const sent = plain ? values : values.map((value) => encodeURIComponent(value));
    out[`${LIST}${name}`] = Buffer.from(JSON.stringify(sent)).toString("base64url");
    if (!plain) out[`${name}-encoded`] = "1";
  }
  return out;
}

function unpacked(headers: OutgoingHttpHeaders): OutgoingHttpHeaders {
  const out: OutgoingHttpHeaders = {};
  for (const [name, value] of Object.entries(headers)) {
    if (name.startsWith(LIST)) out[name.slice(LIST.length)] = JSON.parse(Buffer.from(String(value), "base64url").toString()) as string[];
    else out[name] = value;
  }
  return out;
}

/** Calls services over a connection; there is no second one. `closed` aborts when it is gone. */
export function connectionTransport(connection: Duplex): { transport: Transport; open: OpenStream; closed: AbortSignal; close(): void } {
  const stream = streamOf(connection);
  const ending = new AbortController();
  let taken = false;
  const inner = new Http2SessionManager(
    "http://localhost",
    { idleConnectionTimeoutMs: 2 ** 31 - 1 },
    {
      settings: { initialWindowSize: WINDOW },
      createConnection() {
        if (taken) throw new ConnectError("the client's session is over", Code.Unavailable);
        taken = true;
        return stream;
      },
    },
  );
  const close = () => {
    if (ending.signal.aborted) return;
    inner.abort();
    stream.destroy();
    ending.abort();
  };
  // A server that ends its half serves no more; and a session manager whose connection is gone tries for ever.
  for (const event of ["end", "close", "error"]) connection.once(event, close);
  stream.once("close", close);
  stream.on("error", close);
  const open: OpenStream = (path, headers) => inner.request("POST", path, unpacked(headers), {});
  return { transport: bulkTransport(open, ending.signal), open, closed: ending.signal, close };
}
