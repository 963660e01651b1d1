// HTTP/2 on connections that the engine has upgraded: on /grpc we call it, on /session it calls us.
import { type Handler, type ServerOptions, serveGrpc } from "../../lib/grpc/server.ts";
import { type Connection, createConnection, type Wire } from "../../lib/http2/index.ts";
import type { RawStream } from "../streams.ts";

const WINDOW = 4 << 20;

const wireOf = (raw: RawStream): Wire => ({
  write: (bytes) => raw.write(bytes),
  drained: () => raw.drained(),
  end: () => raw.destroy(),
  destroy: () => raw.destroy(),
});

function listen(raw: RawStream, connection: Connection): void {
  raw.start(
    (bytes) => connection.receive(bytes),
    (error) => connection.end(error),
  );
}

/** For calls of ours; there is no second connection. */
export function callConnection(raw: RawStream): { connection: Connection; closed: AbortSignal } {
  const ending = new AbortController();
  const connection = createConnection(wireOf(raw), "client", { window: WINDOW, closed: () => ending.abort() });
  listen(raw, connection);
  return { connection, closed: ending.signal };
}

/** Serves on one connection until it ends. */
export function serveConnection(
  raw: RawStream,
  handler: (path: string) => Handler | undefined,
  details: ServerOptions["details"],
): { closed: Promise<void>; close(): void } {
  const { promise: closed, resolve } = Promise.withResolvers<void>();
  const connection = serveGrpc(wireOf(raw), { handler, window: WINDOW, ...(details ? { details } : {}) }, resolve);
  listen(raw, connection);
  return { closed, close: () => connection.close() };
}
