// Messages of a gRPC call out of the pieces in which they arrive, and back: a flag, four bytes of length, the message.
import { CODE, GrpcError } from "./status.ts";

export const MAX_MESSAGE = 16 << 20;
const HEAD = 5;

export interface MessageReader {
  /** Messages that are whole now. */
  push(bytes: Uint8Array): Uint8Array[];
  /** Throws where it ends within a message. */
  end(): void;
}

/** `gzip`: what the sender says of messages that are marked as compressed. */
export function messageReader(compression: () => string | undefined = () => undefined): MessageReader {
  let rest: Buffer = Buffer.alloc(0);
  let parts: Uint8Array[] = [];
  let bytes = 0;
  let wanted = HEAD;
  return {
    push(piece) {
      parts.push(piece);
      bytes += piece.length;
      // A large message comes in many pieces: they are joined once.
      if (bytes < wanted) return [];
      rest = parts.length === 1 && Buffer.isBuffer(parts[0]) ? parts[0] : Buffer.concat(parts);
      const messages: Uint8Array[] = [];
      let at = 0;
      wanted = HEAD;
      while (rest.length - at >= HEAD) {
        const length = rest.readUInt32BE(at + 1);
        if (length > MAX_MESSAGE) throw new GrpcError("the other side sent a message that is too long", CODE.RESOURCE_EXHAUSTED);
        wanted = HEAD + length;
        if (rest.length - at < wanted) break;
        const message = rest.subarray(at + HEAD, at + wanted);
        messages.push(rest[at] === 0 ? message : inflated(message, compression()));
        at += wanted;
        wanted = HEAD;
      }
      parts = at < rest.length ? [rest.subarray(at)] : [];
      bytes = rest.length - at;
      return messages;
    },
    end() {
      if (bytes > 0) throw new GrpcError("the other side ended within a message", CODE.INTERNAL);
    },
  };
}

function inflated(message: Uint8Array, compression: string | undefined): Uint8Array {
  if (compression !== "gzip") throw new GrpcError(`messages compressed with ${compression ?? "nothing that is named"}`, CODE.UNIMPLEMENTED);
  try {
    // Loaded only where someone compresses, which takes a millisecond.
    const { gunzipSync } = process.getBuiltinModule("node:zlib");
    return gunzipSync(message, { maxOutputLength: MAX_MESSAGE });
  } catch (error) {
    throw new GrpcError(`a compressed message: ${error instanceof Error ? error.message : error}`, CODE.INTERNAL);
  }
}

/** What is gathered before it is handed on. */
const BATCH = 256 << 10;

export interface Outbox {
  /** Frames and sends a message, soon. */
  send(message: Uint8Array): void;
  /** Resolves when what waits is little enough for more. */
  room(): Promise<void>;
  /** Hands on what was gathered. */
  flush(): void;
  /** There is room, or nobody takes any more. */
  freed(): void;
}

/** Gathers what is sent within one turn. `write` answers false where it is enough for now. */
export function createOutbox(write: (bytes: Uint8Array) => boolean): Outbox {
  let held: Uint8Array[] = [];
  let bytes = 0;
  let scheduled = false;
  let full = false;
  const free: (() => void)[] = [];
  function flush(): void {
    scheduled = false;
    if (held.length === 0) return;
    const all = held.length === 1 ? held[0]! : Buffer.concat(held, bytes);
    held = [];
    bytes = 0;
    if (!write(all)) full = true;
  }
  return {
    send(message) {
      const head = Buffer.allocUnsafe(HEAD);
      head[0] = 0;
      head.writeUInt32BE(message.length, 1);
      held.push(head, message);
      bytes += message.length + HEAD;
      if (bytes >= BATCH) flush();
      else if (!scheduled) {
        scheduled = true;
        queueMicrotask(flush);
      }
    },
    room: () => (full ? new Promise<void>((resolve) => free.push(resolve)) : Promise.resolve()),
    flush,
    freed() {
      full = false;
      for (const each of free.splice(0)) each();
    },
  };
}

/** Batches of messages for whoever reads. */
export interface Inbox {
  put(messages: Uint8Array[]): void;
  end(error?: Error): void;
  batches(): AsyncGenerator<Uint8Array[]>;
}

/** What is held unread before the sender is asked to wait. */
const MAX_RECEIVED = 4 << 20;

export function createInbox(flow: { pause(): void; resume(): void }): Inbox {
  let received: Uint8Array[] = [];
  let bytes = 0;
  let paused = false;
  let over = false;
  let failure: Error | undefined;
  let wake: () => void = () => {};
  return {
    put(messages) {
      for (const message of messages) {
        received.push(message);
        bytes += message.length + HEAD;
      }
      if (bytes > MAX_RECEIVED && !paused) {
        paused = true;
        flow.pause();
      }
      wake();
    },
    end(error) {
      over = true;
      failure ??= error;
      wake();
    },
    async *batches() {
      for (;;) {
        if (received.length > 0) {
          const batch = received;
          received = [];
          bytes = 0;
          if (paused) {
            paused = false;
            flow.resume();
          }
          yield batch;
        } else if (failure) throw failure;
        else if (over) return;
        else
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
      }
    },
  };
}
