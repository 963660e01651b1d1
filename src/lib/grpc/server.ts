// gRPC's server side on a connection of HTTP/2 that exists already; messages are bytes.
import { type Connection, createConnection, type Fields, type Stream, type StreamListener, type Wire } from "../http2/index.ts";
import { createInbox, createOutbox, messageReader } from "./messages.ts";
import { CODE, isRpcFailure, trailersOf } from "./status.ts";

export interface ServerCall {
  /** The first value of a metadata field. */
  header(name: string): string | undefined;
  /** All values of a metadata field, which may be one each, or one field's. */
  list(name: string): string[];
  /** Aborts when the caller is gone, or its patience is over. */
  signal: AbortSignal;
  batches(): AsyncGenerator<Uint8Array[]>;
  /** The one message of a call. */
  message(): Promise<Uint8Array>;
  send(message: Uint8Array): void;
  room(): Promise<void>;
}

/** Answers a call; what it throws is the call's failure (an RpcFailure's code and sentence, or Unknown). */
export type Handler = (call: ServerCall) => Promise<void>;

export interface ServerOptions {
  /** By path: "/package.Service/Method". */
  handler(path: string): Handler | undefined;
  /** A status message (google.rpc.Status) for a failure that has details. */
  details?(failure: Error): Uint8Array | undefined;
  window: number;
}

const NO_ERROR = 0;
const UNITS: Record<string, number> = { H: 3600_000, M: 60_000, S: 1000, m: 1, u: 1e-3, n: 1e-6 };

function patience(fields: Fields): number | undefined {
  const match = /^(\d{1,8})([HMSmun])$/.exec(fields.find(([name]) => name === "grpc-timeout")?.[1] ?? "");
  return match ? Math.min(2 ** 31 - 1, Number(match[1]) * UNITS[match[2]!]!) : undefined;
}

function accept(stream: Stream, options: ServerOptions): StreamListener {
  const ending = new AbortController();
  let request: Fields = [];
  let begun = false;
  let over = false;
  let timer: NodeJS.Timeout | undefined;
  const reader = messageReader(() => request.find(([name]) => name === "grpc-encoding")?.[1]);
  const inbox = createInbox(stream);
  const head = () => {
    if (begun) return;
    begun = true;
    stream.fields(
      [
        [":status", "200"],
        ["content-type", "application/grpc"],
      ],
      false,
    );
  };
  const outbox = createOutbox((bytes) => {
    head();
    return stream.write(bytes, false);
  });
  function finish(code: number, message: string, details?: Uint8Array): void {
    clearTimeout(timer);
    if (over) return;
    over = true;
    outbox.flush();
    head();
    stream.end(trailersOf(code, message, details));
  }
  function fail(error: unknown): void {
    if (isRpcFailure(error)) finish(error.code, error.rawMessage, options.details?.(error));
    else finish(CODE.UNKNOWN, error instanceof Error ? error.message : String(error));
  }
  const call: ServerCall = {
    header: (name) => request.find(([each]) => each === name)?.[1],
    list: (name) => request.filter(([each]) => each === name).map(([, value]) => value),
    signal: ending.signal,
    batches: inbox.batches,
    async message() {
      let first: Uint8Array | undefined;
      for await (const [message] of inbox.batches()) {
        first ??= message;
        if (first) break;
      }
      return first ?? new Uint8Array();
    },
    send: outbox.send,
    room: outbox.room,
  };
  return {
    fields(fields, last) {
      if (last) inbox.end();
      if (request.length > 0) return;
      request = fields;
      const path = fields.find(([name]) => name === ":path")?.[1] ?? "";
      if (!/^application\/grpc(\+proto)?(;|$)/.test(call.header("content-type") ?? "")) {
        over = true;
        stream.fields([[":status", "415"]], true);
        stream.reset(NO_ERROR);
        return;
      }
      const handler = options.handler(path);
      if (!handler) {
        const [, service = "", method = ""] = path.split("/");
        finish(CODE.UNIMPLEMENTED, `unknown method ${method} for service ${service}`);
        return;
      }
      const ms = patience(fields);
      if (ms !== undefined) {
        timer = setTimeout(() => {
          finish(CODE.DEADLINE_EXCEEDED, "the operation timed out");
          ending.abort(new DOMException("the operation timed out", "TimeoutError"));
        }, ms);
      }
      handler(call).then(() => finish(CODE.OK, ""), fail);
    },
    data(bytes, last) {
      try {
        inbox.put(reader.push(bytes));
        if (last) inbox.end();
      } catch (error) {
        inbox.end(error as Error);
      }
    },
    drained: outbox.freed,
    closed(error) {
      clearTimeout(timer);
      if (!over || error) ending.abort(new DOMException("the caller is gone", "AbortError"));
      over = true;
      inbox.end(error);
      outbox.freed();
    },
  };
}

/** Serves on one connection until it ends. */
export function serveGrpc(wire: Wire, options: ServerOptions, closed: () => void): Connection {
  return createConnection(wire, "server", { accept: (stream) => accept(stream, options), window: options.window, closed });
}
