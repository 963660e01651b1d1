// The answering side of ttrpc: services on a listening socket or on one connection.
import type { Server, Socket } from "node:net";
import { create, type DescMethod, fromBinary, type Message, toBinary } from "@bufbuild/protobuf";
import { RequestSchema, ResponseSchema } from "../../gen/ttrpc_pb.ts";
import { Failure, invalidArgument, resourceExhausted, unimplemented } from "../../lib/errors.ts";
import { encodeFrame, FLAG_REMOTE_OPEN, type Frame, frameReader, MAX_MESSAGE, REQUEST, RESPONSE } from "./frame.ts";
import type { CallContext, Implementation, Service } from "./service.ts";
import { statusOf } from "./status.ts";

type Handler = (request: Message, context: CallContext) => unknown;
type Wrap = (name: string, context: CallContext, run: () => unknown) => unknown;

export interface Services {
  /** Serves `implementation` under the service's full name. */
  add<S extends Service>(service: S, implementation: Implementation<S>): Services;
  /** Answers the calls that arrive on this connection. */
  connection(socket: Socket): void;
}

/**
 * A set of services, to be given connections. `wrap`, where given, runs around every call and must return what `run` returns: the place for
 * traces and metrics.
 */
export function ttrpcServices(wrap?: Wrap): Services {
  const methods = new Map<string, { desc: DescMethod; handler: Handler }>();
  const names = new Set<string>();

  const answer = (socket: Socket, stream: number, desc: DescMethod, value: unknown): void => {
    let payload = toBinary(desc.output, create(desc.output, value as Record<string, unknown>));
    let bytes = toBinary(ResponseSchema, create(ResponseSchema, { payload }));
    if (bytes.length > MAX_MESSAGE) {
      payload = new Uint8Array(0);
      const status = statusOf(resourceExhausted(`the answer's ${bytes.length} bytes exceed ttrpc's limit of ${MAX_MESSAGE}`));
      bytes = toBinary(ResponseSchema, create(ResponseSchema, { status }));
    }
    if (!socket.destroyed) socket.write(encodeFrame(stream, RESPONSE, 0, bytes));
  };

  const refuse = (socket: Socket, stream: number, error: unknown): void => {
    const bytes = toBinary(ResponseSchema, create(ResponseSchema, { status: statusOf(error) }));
    if (!socket.destroyed) socket.write(encodeFrame(stream, RESPONSE, 0, bytes));
  };

  const call = (socket: Socket, frame: Frame): void => {
    const { stream } = frame;
    if (frame.type !== REQUEST) return;
    let method: { desc: DescMethod; handler: Handler } | undefined;
    let input: Message;
    let context: CallContext;
    let name: string;
    try {
      if (stream % 2 !== 1) throw invalidArgument("StreamID must be odd for client initiated streams");
      if (!frame.message) throw resourceExhausted(`the message exceeds ttrpc's limit of ${MAX_MESSAGE} bytes`);
      const request = fromBinary(RequestSchema, frame.message);
      name = `${request.service}/${request.method}`;
      method = methods.get(name);
      if (!method) throw unimplemented(names.has(request.service) ? `method ${request.method}` : `service ${request.service}`);
      if (frame.flags & FLAG_REMOTE_OPEN) throw unimplemented(`method ${name} does not stream`);
      input = fromBinary(method.desc.input, request.payload);
      context = callContext(socket, request.metadata, Number(request.timeoutNano) / 1e6);
    } catch (error) {
      refuse(
        socket,
        stream,
        error instanceof Failure ? error : invalidArgument(`the request can't be decoded: ${(error as Error).message}`),
      );
      return;
    }
    const { desc, handler } = method;
    try {
      const result = wrap ? wrap(name, context, () => handler(input, context)) : handler(input, context);
      if (result instanceof Promise) {
        result.then((value) => answer(socket, stream, desc, value)).catch((error) => refuse(socket, stream, error));
      } else answer(socket, stream, desc, result);
    } catch (error) {
      refuse(socket, stream, error);
    }
  };

  const services: Services = {
    add(service, implementation) {
      names.add(service.typeName);
      for (const [local, desc] of Object.entries(service.method as Record<string, DescMethod>)) {
        const handler = (implementation as Record<string, Handler>)[local]!;
        methods.set(`${service.typeName}/${desc.name}`, { desc, handler });
      }
      return services;
    },
    connection(socket) {
      socket.on(
        "data",
        frameReader((frame) => call(socket, frame)),
      );
      socket.on("error", () => socket.destroy());
      socket.on("end", () => socket.destroy());
    },
  };
  return services;
}

function callContext(socket: Socket, metadata: { key: string; value: string }[], timeoutMs: number): CallContext {
  let signal: AbortSignal | undefined;
  return {
    metadata: (name) => metadata.find((pair) => pair.key === name)?.value,
    // Made on demand: hardly any handler needs it, and it costs more than the call.
    get signal() {
      if (!signal) {
        const gone = new AbortController();
        if (socket.destroyed) gone.abort();
        else socket.once("close", () => gone.abort());
        signal = timeoutMs > 0 ? AbortSignal.any([gone.signal, AbortSignal.timeout(timeoutMs)]) : gone.signal;
      }
      return signal;
    },
  };
}

/** Serves one service on every connection that `server` accepts. For several services on one socket: `ttrpcServices()`. */
export function serveTtrpc<S extends Service>(server: Server, service: S, implementation: Implementation<S>): void {
  const services = ttrpcServices().add(service, implementation);
  server.on("connection", services.connection);
}
