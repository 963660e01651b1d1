// The calling side of ttrpc: one connection, any number of calls at once.
import { connect, type Socket } from "node:net";
import { create, type DescMethod, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { RequestSchema, ResponseSchema } from "../../gen/ttrpc_pb.ts";
import { cancelled, Failure, resourceExhausted, unavailable } from "../../lib/errors.ts";
import { toHeaders } from "../../trace/index.ts";
import { encodeFrame, type Frame, frameReader, MAX_MESSAGE, REQUEST, RESPONSE } from "./frame.ts";
import type { CallOptions, Calls, Client, Service } from "./service.ts";
import { failureOf } from "./status.ts";

interface Pending {
  resolve(payload: Uint8Array): void;
  reject(error: Failure): void;
}

/** A connection on which several services can be called. */
export interface Connection {
  client<S extends Service>(service: S): Client<S>;
  close(): void;
  readonly closed: Promise<void>;
}

/** "unix:///path", or a bare path. */
export function socketPath(address: string): string {
  return address.startsWith("unix://") ? address.slice("unix://".length) : address;
}

/** Connects at once; a connection that fails rejects the calls (Unavailable), never the process. */
export function connectTtrpc(address: string): Connection {
  const path = socketPath(address);
  const socket = connect({ path });
  const connection = overSocket(socket, path);
  return connection;
}

function overSocket(socket: Socket, path: string): Connection {
  const pending = new Map<number, Pending>();
  let nextStream = 1;
  let broken: Failure | undefined;
  let settle: () => void = () => {};
  const closed = new Promise<void>((resolve) => {
    settle = resolve;
  });

  const fail = (reason: string): void => {
    if (broken) return;
    broken = unavailable(`ttrpc: ${path}: ${reason}`);
    socket.destroy();
    for (const call of pending.values()) call.reject(broken);
    pending.clear();
    settle();
  };

  const receive = (frame: Frame): void => {
    const call = pending.get(frame.stream);
    if (!call || frame.type !== RESPONSE) return;
    pending.delete(frame.stream);
    if (pending.size === 0) socket.unref();
    try {
      if (!frame.message) throw resourceExhausted(`ttrpc: the answer exceeds the limit of ${MAX_MESSAGE} bytes`);
      const response = fromBinary(ResponseSchema, frame.message);
      if (response.status && response.status.code !== 0) call.reject(failureOf(response.status));
      else call.resolve(response.payload);
    } catch (error) {
      call.reject(
        error instanceof Failure ? error : new Failure("Unknown", `ttrpc: the answer can't be decoded: ${(error as Error).message}`),
      );
    }
  };

  socket.on("data", frameReader(receive));
  socket.on("error", (error) => fail(error.message));
  socket.on("end", () => fail("closed"));
  socket.on("close", () => fail("closed"));
  // Only calls under way keep the process alive.
  socket.unref();

  const call = (service: string, desc: DescMethod, request: unknown, options: CallOptions): Promise<unknown> => {
    if (broken) return Promise.reject(broken);
    if (options.signal?.aborted) return Promise.reject(cancelled(`${desc.name}: given up by the caller`));
    const payload = toBinary(desc.input, create(desc.input, request as MessageInitShape<typeof desc.input>));
    const metadata = Object.entries({ ...toHeaders(), ...options.metadata }).map(([key, value]) => ({ key, value }));
    const timeoutNano = options.timeoutMs === undefined ? 0n : BigInt(Math.ceil(options.timeoutMs * 1e6));
    const message = toBinary(RequestSchema, create(RequestSchema, { service, method: desc.name, payload, metadata, timeoutNano }));
    if (message.length > MAX_MESSAGE)
      return Promise.reject(resourceExhausted(`ttrpc: the request's ${message.length} bytes exceed the limit of ${MAX_MESSAGE}`));
    const stream = nextStream;
    nextStream = nextStream >= 0xffffffff - 2 ? 1 : nextStream + 2;
    return new Promise((resolve, reject) => {
      let timer: ReturnType<typeof setTimeout> | undefined;
      const giveUp = (error: Failure): void => {
        if (!pending.delete(stream)) return;
        if (pending.size === 0) socket.unref();
        clean();
        reject(error);
      };
      const onAbort = (): void => giveUp(cancelled(`${desc.name}: given up by the caller`));
      const clean = (): void => {
        if (timer) clearTimeout(timer);
        options.signal?.removeEventListener("abort", onAbort);
      };
      if (options.timeoutMs !== undefined)
        timer = setTimeout(
          () => giveUp(new Failure("DeadlineExceeded", `${desc.name}: no answer within ${options.timeoutMs} ms`)),
          options.timeoutMs,
        );
      options.signal?.addEventListener("abort", onAbort, { once: true });
      if (pending.size === 0) socket.ref();
      pending.set(stream, {
        resolve(bytes) {
          clean();
          try {
            resolve(fromBinary(desc.output, bytes));
          } catch (error) {
            reject(new Failure("Unknown", `ttrpc: the answer of ${desc.name} can't be decoded: ${(error as Error).message}`));
          }
        },
        reject(error) {
          clean();
          reject(error);
        },
      });
      socket.write(encodeFrame(stream, REQUEST, 0, message));
    });
  };

  const close = (): void => fail("closed by the caller");
  return {
    close,
    closed,
    client<S extends Service>(service: S): Client<S> {
      const calls: Record<string, unknown> = {};
      for (const [local, desc] of Object.entries(service.method as Record<string, DescMethod>))
        calls[local] = (request: unknown, options: CallOptions = {}) => call(service.typeName, desc, request, options);
      return { ...(calls as Calls<S>), close, closed };
    },
  };
}

/** A typed client of one service on its own connection. */
export function createTtrpcClient<S extends Service>(service: S, address: string): Client<S> {
  return connectTtrpc(address).client(service);
}
