// gRPC over a connection that was taken over from HTTP/1.1 (Upgrade: h2c), in both roles: of /grpc we are the server, of /session the client, although the
// client of the Engine API opened both.
import type { Duplex } from "node:stream";
import { create, type DescService, toBinary } from "@bufbuild/protobuf";
import type { Transport } from "@connectrpc/connect";
import { StatusSchema } from "../../gen/google/rpc/status_pb.ts";
import { type Handler, serveGrpc } from "../../lib/grpc/server.ts";
import { handlersOf, type Service } from "../../lib/grpc/services.ts";
import { isRpcFailure } from "../../lib/grpc/status.ts";
import { grpcTransport } from "../../lib/grpc/transport.ts";
import { type Connection, createConnection, type Fields, type Wire } from "../../lib/http2/index.ts";

const WINDOW = 4 << 20;
const LINGER_MS = 2000;

function wireOf(stream: Duplex): Wire {
  return {
    write: (bytes) => stream.destroyed || stream.write(bytes),
    drained: () =>
      new Promise((resolve) => {
        if (stream.destroyed || !stream.writableNeedDrain) return resolve();
        stream.once("drain", resolve);
        stream.once("close", resolve);
      }),
    // What is still being written goes out, if the peer still reads; then nobody listens any more.
    end() {
      stream.end(() => stream.destroy());
      setTimeout(() => stream.destroy(), LINGER_MS).unref();
    },
    destroy: () => void stream.destroy(),
  };
}

/** Gives a connection what arrives. */
function listen(stream: Duplex, connection: Connection): void {
  stream.on("error", (error: Error) => connection.end(error));
  stream.on("end", () => connection.end());
  stream.on("close", () => connection.end());
  stream.on("data", (bytes: Buffer) => connection.receive(bytes));
  stream.resume();
}

/** google.rpc.Status, where a failure says more than a code and a sentence. */
function statusDetails(error: Error): Uint8Array | undefined {
  if (!isRpcFailure(error) || error.details.length === 0) return undefined;
  const details = error.details.flatMap((each) =>
    "type" in each && "value" in each ? [{ typeUrl: `type.googleapis.com/${each.type}`, value: each.value }] : [],
  );
  return toBinary(StatusSchema, create(StatusSchema, { code: error.code, message: error.rawMessage, details }));
}

export interface Router {
  service<S extends DescService>(service: S, implementation: Service<S>): void;
}

/** Answers each connection that it is given with these services; a service that is not there is Unimplemented, as gRPC has it. */
export function createGrpcServer(routes: (router: Router) => void): { accept(connection: Duplex): void; close(): void } {
  const handlers = new Map<string, Handler>();
  routes({
    service(service, implementation) {
      for (const [path, handler] of handlersOf(service, implementation)) handlers.set(path, handler);
    },
  });
  const connections = new Set<Connection>();
  return {
    accept(stream) {
      const connection = serveGrpc(wireOf(stream), { handler: (path) => handlers.get(path), details: statusDetails, window: WINDOW }, () =>
        connections.delete(connection),
      );
      connections.add(connection);
      listen(stream, connection);
    },
    close() {
      for (const connection of [...connections]) connection.close();
    },
  };
}

/** Metadata with several values each. */
export function listFields(lists: Record<string, readonly string[]>): Fields {
  return Object.entries(lists).flatMap(([name, values]) => {
    // Values that a header can't hold are escaped, and said to be, as BuildKit does.
    const plain = values.every((value) => /^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$/.test(value));
    const sent = values.map((value) => [name, plain ? value : encodeURIComponent(value)] as const);
    return plain ? sent : [...sent, [`${name}-encoded`, "1"] as const];
  });
}

export interface ClientConnection {
  connection: Connection;
  transport: Transport;
  /** Aborts when it is gone. */
  closed: AbortSignal;
  close(): void;
}

/** Calls services over a connection; there is no second one. */
export function clientConnection(stream: Duplex): ClientConnection {
  const ending = new AbortController();
  // A server that ends its half serves no more.
  const connection = createConnection(wireOf(stream), "client", { window: WINDOW, closed: () => ending.abort() });
  listen(stream, connection);
  return { connection, transport: grpcTransport(connection, ending.signal), closed: ending.signal, close: () => connection.close() };
}
