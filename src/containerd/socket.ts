// The doors to other processes: the services as gRPC over HTTP/2 on a unix socket, and the client of such a socket.
import { rmSync } from "node:fs";
import { chmod, mkdir } from "node:fs/promises";
import { createServer, type ServerHttp2Session } from "node:http2";
import { connect } from "node:net";
import { dirname } from "node:path";
import type { ConnectRouter, HandlerContext, Interceptor, Transport } from "@connectrpc/connect";
import { connectNodeAdapter, createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { failedPrecondition } from "../lib/errors.ts";
import { entering, fromHeaders, toHeaders } from "../trace/index.ts";
import { fromConnectError, toConnectError } from "./grpc-errors.ts";
import { type Call, type Handler, runUnary, type Service } from "./service.ts";

/** What one message may hold; containerd's own limit for its clients is 16 MiB. */
const MESSAGE_LIMIT = 16 << 20;

const callOf = (context: HandlerContext): Call => ({
  namespace: context.requestHeader.get("containerd-namespace") ?? "",
  lease: context.requestHeader.get("containerd-lease") ?? "",
  signal: context.signal,
});

function implementation(handler: Handler): (request: unknown, context: HandlerContext) => unknown {
  if (handler.kind === "unary") {
    return async (request, context) => {
      const trace = fromHeaders((name) => context.requestHeader.get(name), "manager");
      try {
        return await entering(trace, () => runUnary(handler, request, callOf(context)));
      } catch (error) {
        throw toConnectError(error);
      }
    };
  }
  return async function* (request, context) {
    try {
      yield* handler.run(request, callOf(context));
    } catch (error) {
      if (context.signal.aborted) return;
      throw toConnectError(error);
    }
  };
}

/** Serves until closed. Replaces a socket that nobody listens on; FailedPrecondition where somebody does. */
export async function serveSocket(services: Service[], address: string): Promise<{ close(): Promise<void> }> {
  const routes = (router: ConnectRouter): void => {
    for (const { desc, handlers } of services) {
      router.service(desc, Object.fromEntries(handlers.map((handler) => [handler.method.localName, implementation(handler)])) as never);
    }
  };
  const handler = connectNodeAdapter({ routes, connect: false, grpcWeb: false, readMaxBytes: MESSAGE_LIMIT, writeMaxBytes: MESSAGE_LIMIT });
  const server = createServer({ settings: { initialWindowSize: 1 << 20, maxConcurrentStreams: 4096 } }, handler);
  const sessions = new Set<ServerHttp2Session>();
  server.on("session", (session) => {
    sessions.add(session);
    session.on("close", () => sessions.delete(session));
    session.on("error", () => {});
  });
  await freeSocket(address);
  await mkdir(dirname(address), { recursive: true, mode: 0o711 });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(address, () => {
      server.off("error", reject);
      resolve();
    });
  });
  await chmod(address, 0o660);
  return {
    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const session of sessions) session.destroy();
      rmSync(address, { force: true });
      await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, 500))]);
    },
  };
}

/** Removes a socket left by a dead process. */
export async function freeSocket(address: string): Promise<void> {
  const outcome = await new Promise<string>((resolve) => {
    const socket = connect(address);
    socket.once("connect", () => {
      socket.destroy();
      resolve("alive");
    });
    socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? "unknown"));
  });
  if (outcome === "alive") throw failedPrecondition(`another process listens on ${address}`);
  if (outcome !== "ENOENT") rmSync(address, { force: true });
}

/** A transport to the socket of a containerd, ours or the real one. Its errors are Failures, as in memory. */
export function socketTransport(address: string, namespace: string): { transport: Transport; close(): Promise<void> } {
  const interceptor: Interceptor = (next) => async (request) => {
    if (!request.header.has("containerd-namespace")) request.header.set("containerd-namespace", namespace);
    for (const [name, value] of Object.entries(toHeaders())) request.header.set(name, value);
    return next(request);
  };
  const sessionManager = new Http2SessionManager("http://localhost", {}, { createConnection: () => connect(address) });
  const transport = createGrpcTransport({
    baseUrl: "http://localhost",
    sessionManager,
    interceptors: [interceptor],
    readMaxBytes: MESSAGE_LIMIT,
    writeMaxBytes: MESSAGE_LIMIT,
  });
  // outside of Connect's own transport, which makes a ConnectError of whatever an interceptor throws
  const typed: Transport = {
    async unary(...args) {
      try {
        return await transport.unary(...args);
      } catch (error) {
        throw fromConnectError(error);
      }
    },
    async stream(...args) {
      try {
        const response = await transport.stream(...args);
        return { ...response, message: failures(response.message) };
      } catch (error) {
        throw fromConnectError(error);
      }
    },
  };
  return { transport: typed, close: async () => sessionManager.abort() };
}

async function* failures<T>(messages: AsyncIterable<T>): AsyncIterable<T> {
  try {
    yield* messages;
  } catch (error) {
    throw fromConnectError(error);
  }
}
