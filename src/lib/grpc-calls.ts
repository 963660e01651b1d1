// gRPC's client side over an HTTP/2 stream, by hand, for two reasons: calls that carry very many small messages (a file is three of them) get them in batches instead
// of one turn of the event loop each; and Bun's client forgets an answer whose stream the server resets behind it without an error (RFC 9113, 8.1), which Go's servers do.
import type { ClientHttp2Stream, OutgoingHttpHeaders } from "node:http2";
import { create, type DescMessage, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError, type Transport } from "@connectrpc/connect";
import { StatusSchema } from "../gen/google/rpc/status_pb.ts";
import { resourceExhausted } from "./errors.ts";

const MAX_MESSAGE = 16 << 20;
/** RST_STREAM's code (RFC 9113, 7). */
const CANCEL = 8;
/** What is held unread before the connection is paused. */
const MAX_RECEIVED = 4 << 20;
/** What is gathered before it is handed to the connection. */
const BATCH = 256 << 10;

const CODES = new Set<unknown>(Object.values(Code));

export interface BulkCall {
  /** Frames and sends a message, soon. */
  send(message: Uint8Array): void;
  /** Resolves when what waits is little enough for more. */
  room(): Promise<void>;
  /** Nothing more is sent. */
  end(): void;
  /** Batches of messages until the other side is done; throws what it failed with. */
  batches(): AsyncGenerator<Uint8Array[]>;
  cancel(): void;
}

export type OpenStream = (path: string, headers: OutgoingHttpHeaders) => Promise<ClientHttp2Stream>;

function detailsOf(text: string): { type: string; value: Uint8Array }[] {
  try {
    const { details } = fromBinary(StatusSchema, Buffer.from(text, "base64"));
    return details.map(({ typeUrl, value }) => ({ type: typeUrl.slice(typeUrl.lastIndexOf("/") + 1), value }));
  } catch {
    return [];
  }
}

/** The error in a call's last headers; undefined where it succeeded. */
function failureOf(headers: Record<string, string | string[] | undefined>): ConnectError | undefined {
  const status = headers["grpc-status"];
  if (status === undefined || status === "0") return undefined;
  const text = String(headers["grpc-message"] ?? "");
  let message = text;
  try {
    message = decodeURIComponent(text);
  } catch {
    // a message that is not escaped
  }
  const code = Number(status);
  const failure = new ConnectError(message, CODES.has(code) ? code : Code.Unknown);
  const details = headers["grpc-status-details-bin"];
  if (details !== undefined) failure.details = detailsOf(String(details));
  return failure;
}

export async function openBulkCall(
  open: OpenStream,
  path: string,
  headers: Record<string, string>,
  signal: AbortSignal,
): Promise<BulkCall> {
  signal.throwIfAborted();
  const stream = await open(path, { ...headers, "content-type": "application/grpc+proto", te: "trailers" });
  let outcome: ConnectError | undefined;
  let answered = false;
  const note = (fields: Record<string, string | string[] | undefined>) => {
    if (fields["grpc-status"] === undefined) return;
    answered = true;
    outcome = failureOf(fields);
  };
  stream.on("response", note);
  stream.on("trailers", note);
  const cancel = () => {
    if (!stream.closed && !stream.destroyed) stream.close(CANCEL);
  };
  signal.addEventListener("abort", cancel, { once: true });
  stream.on("close", () => signal.removeEventListener("abort", cancel));
  // Errors reach whoever reads the batches.
  let broken: Error | undefined;
  stream.on("error", (error) => {
    broken = error;
  });

  // What arrives is taken at once: a server that is done need not wait for our end; Go's then resets the stream, and what is unread of it is lost.
  let rest: Buffer = Buffer.alloc(0);
  let received: Uint8Array[] = [];
  let receivedBytes = 0;
  let paused = false;
  let failure: Error | undefined;
  let wake: () => void = () => {};
  stream.on("data", (chunk: Buffer) => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    let at = 0;
    while (rest.length - at >= 5) {
      const length = rest.readUInt32BE(at + 1);
      if (length > MAX_MESSAGE || rest[at] !== 0) {
        failure = resourceExhausted("the other side sent a message that is too long, or compressed");
        break;
      }
      if (rest.length - at - 5 < length) break;
      received.push(rest.subarray(at + 5, at + 5 + length));
      at += 5 + length;
    }
    rest = rest.subarray(at);
    receivedBytes += at;
    if (receivedBytes > MAX_RECEIVED && !paused) {
      paused = true;
      stream.pause();
    }
    wake();
  });

  let held: Uint8Array[] = [];
  let bytes = 0;
  let scheduled = false;
  let full = false;
  let over = false;
  const free: (() => void)[] = [];
  const freed = () => {
    full = false;
    for (const each of free.splice(0)) each();
  };
  stream.on("drain", freed);
  stream.on("close", () => {
    over = true;
    wake();
    freed();
  });
  const flush = () => {
    scheduled = false;
    if (held.length === 0 || over || stream.destroyed) return;
    const all = Buffer.concat(held);
    held = [];
    bytes = 0;
    if (!stream.write(all)) full = true;
  };
  return {
    send(message) {
      if (over) return;
      const prefix = Buffer.alloc(5);
      prefix.writeUInt32BE(message.length, 1);
      held.push(prefix, message);
      bytes += message.length + 5;
      if (bytes >= BATCH) flush();
      else if (!scheduled) {
        scheduled = true;
        queueMicrotask(flush);
      }
    },
    room: () => (full && !over ? new Promise<void>((resolve) => free.push(resolve)) : Promise.resolve()),
    end() {
      flush();
      if (!over && !stream.writableEnded) stream.end();
    },
    async *batches() {
      try {
        for (;;) {
          if (received.length > 0) {
            const batch = received;
            received = [];
            receivedBytes = 0;
            if (paused && !over) {
              paused = false;
              stream.resume();
            }
            yield batch;
          } else if (failure) throw failure;
          else if (over) break;
          else
            await new Promise<void>((resolve) => {
              wake = resolve;
            });
        }
      } finally {
        cancel();
      }
      signal.throwIfAborted();
      if (outcome) throw outcome;
      if (!answered) throw broken ?? new ConnectError("the connection is over", Code.Unavailable);
    },
    cancel,
  };
}

function canceled(signal: AbortSignal): ConnectError {
  const late = signal.reason instanceof DOMException && signal.reason.name === "TimeoutError";
  return late ? new ConnectError("the operation timed out", Code.DeadlineExceeded) : new ConnectError("context canceled", Code.Canceled);
}

/** Connect's clients over such calls. */
export function bulkTransport(open: OpenStream, closed: AbortSignal): Transport {
  const never = new Headers();
  const begin = async (
    method: { name: string; parent: { typeName: string } },
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
    header: Parameters<Transport["unary"]>[3],
  ) => {
    const signals = [closed, ...(signal ? [signal] : []), ...(timeoutMs ? [AbortSignal.timeout(timeoutMs)] : [])];
    const all = AbortSignal.any(signals);
    if (all.aborted) throw canceled(all);
    const headers = Object.fromEntries(new Headers(header).entries());
    return { call: await openBulkCall(open, `/${method.parent.typeName}/${method.name}`, headers, all), all };
  };
  const encode = <I extends DescMessage>(schema: I, message: MessageInitShape<I>) => toBinary(schema, create(schema, message));
  return {
    async unary(method, signal, timeoutMs, header, input) {
      const { call, all } = await begin(method, signal, timeoutMs, header);
      call.send(encode(method.input, input));
      call.end();
      let answer: Uint8Array | undefined;
      try {
        for await (const batch of call.batches()) answer ??= batch[0];
      } catch (error) {
        throw all.aborted ? canceled(all) : error;
      }
      if (!answer) throw new ConnectError("the call was answered without a message", Code.Internal);
      const message = fromBinary(method.output, answer);
      return { stream: false, service: method.parent, method, header: never, trailer: never, message };
    },
    async stream(method, signal, timeoutMs, header, input) {
      const { call, all } = await begin(method, signal, timeoutMs, header);
      const sending = (async () => {
        for await (const message of input) {
          call.send(encode(method.input, message));
          await call.room();
        }
        call.end();
      })();
      sending.catch(call.cancel);
      async function* messages() {
        try {
          for await (const batch of call.batches()) for (const message of batch) yield fromBinary(method.output, message);
        } catch (error) {
          throw all.aborted ? canceled(all) : error;
        }
      }
      return { stream: true, service: method.parent, method, header: never, trailer: never, message: messages() };
    },
  };
}
