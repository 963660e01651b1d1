// Calls that carry very many small messages (a file is three of them): gRPC's framing at hand, messages in batches as they arrive, instead of one turn of the event
// loop for each.
import type { ClientHttp2Stream, OutgoingHttpHeaders } from "node:http2";
import { type Code, ConnectError } from "@connectrpc/connect";
import { resourceExhausted } from "../../lib/errors.ts";

const MAX_MESSAGE = 16 << 20;
/** RST_STREAM's code (RFC 9113, 7). */
const CANCEL = 8;
/** What is gathered before it is handed to the connection. */
const BATCH = 256 << 10;

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
  return new ConnectError(message, Number(status) as Code);
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
      let rest: Buffer = Buffer.alloc(0);
      try {
        for await (const chunk of stream as AsyncIterable<Buffer>) {
          rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
          const messages: Uint8Array[] = [];
          let at = 0;
          while (rest.length - at >= 5) {
            const length = rest.readUInt32BE(at + 1);
            if (length > MAX_MESSAGE || rest[at] !== 0)
              throw resourceExhausted("the client sent a message that is too long, or compressed");
            if (rest.length - at - 5 < length) break;
            messages.push(rest.subarray(at + 5, at + 5 + length));
            at += 5 + length;
          }
          rest = rest.subarray(at);
          if (messages.length > 0) yield messages;
        }
      } catch (error) {
        signal.throwIfAborted();
        // A server that is done need not wait for our end: Go's then resets the stream, after its last message.
        if (!answered || outcome) throw outcome ?? error;
      }
      signal.throwIfAborted();
      if (outcome) throw outcome;
      if (!answered) throw broken ?? new ConnectError("the client's session is over", 14 as Code);
    },
    cancel,
  };
}
