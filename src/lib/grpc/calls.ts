// gRPC's client side on a connection of HTTP/2: messages as bytes, in batches, because calls that carry very many small ones (a file is three of them) must not cost a turn
// of the event loop each.
import type { Connection, Fields, StreamListener } from "../http2/index.ts";
import { createInbox, createOutbox, messageReader } from "./messages.ts";
import { CODE, GrpcError, outcomeOf } from "./status.ts";

/** RST_STREAM's code (RFC 9113, 7). */
const CANCEL = 8;

export interface BulkCall {
  send(message: Uint8Array): void;
  /** Resolves when what waits is little enough for more. */
  room(): Promise<void>;
  /** Nothing more is sent. */
  end(): void;
  /** Batches of messages until the other side is done; throws what it failed with, a GrpcError. */
  batches(): AsyncGenerator<Uint8Array[]>;
  cancel(): void;
}

const NOTHING = new Uint8Array();

/** `fields`: the call's metadata. */
export function openCall(connection: Connection, path: string, fields: Fields, signal?: AbortSignal): BulkCall {
  signal?.throwIfAborted();
  let outcome: "ok" | GrpcError | undefined;
  let head: Fields = [];
  const reader = messageReader(() => head.find(([name]) => name === "grpc-encoding")?.[1]);
  const fail = (error: unknown) => {
    inbox.end(error as Error);
    stream.reset(CANCEL);
  };
  const cancel = () => stream.reset(CANCEL);
  const listener: StreamListener = {
    fields(received) {
      if (head.length === 0) {
        head = received;
        const status = received.find(([name]) => name === ":status")?.[1];
        if (status !== "200") outcome = new GrpcError(`the other side answered ${status}`, CODE.UNAVAILABLE);
      }
      outcome = outcomeOf(received) ?? outcome;
    },
    data(bytes) {
      try {
        inbox.put(reader.push(bytes));
      } catch (error) {
        fail(error);
      }
    },
    drained: () => outbox.freed(),
    closed(error) {
      signal?.removeEventListener("abort", cancel);
      outbox.freed();
      if (outcome === "ok") inbox.end();
      else inbox.end(outcome ?? new GrpcError(error?.message ?? "the connection is over", CODE.UNAVAILABLE));
    },
  };
  const stream = connection.open(listener);
  const inbox = createInbox(stream);
  // A stream that is over takes everything and does nothing with it.
  const outbox = createOutbox((bytes) => stream.write(bytes, false));
  stream.fields(
    [
      [":method", "POST"],
      [":scheme", "http"],
      [":path", path],
      [":authority", "localhost"],
      ["content-type", "application/grpc+proto"],
      ["te", "trailers"],
      ...fields,
    ],
    false,
  );
  signal?.addEventListener("abort", cancel, { once: true });
  return {
    send: outbox.send,
    room: outbox.room,
    end() {
      outbox.flush();
      stream.write(NOTHING, true);
    },
    async *batches() {
      try {
        yield* inbox.batches();
      } catch (error) {
        signal?.throwIfAborted();
        throw error;
      } finally {
        cancel();
      }
    },
    cancel,
  };
}

/** One message there, one back. */
export async function unaryCall(
  connection: Connection,
  path: string,
  fields: Fields,
  message: Uint8Array,
  signal?: AbortSignal,
): Promise<Uint8Array> {
  const call = openCall(connection, path, fields, signal);
  call.send(message);
  call.end();
  let answer: Uint8Array | undefined;
  for await (const batch of call.batches()) answer ??= batch[0];
  if (!answer) throw new GrpcError("the call was answered without a message", CODE.INTERNAL);
  return answer;
}
