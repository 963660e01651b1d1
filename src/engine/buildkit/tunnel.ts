// Bytes that travel as messages of a bidirectional call, as a stream: sessions within Control.Session (HTTP/2 within HTTP/2), connections to an ssh agent.
import { Duplex } from "node:stream";

/** gRPC clients of Go take messages of 4 MiB at most. */
const MAX_MESSAGE = 1 << 20;

export interface Tunnel {
  stream: Duplex;
  /** What was written into the stream; ends with it. */
  messages: AsyncIterable<{ data: Uint8Array }>;
  /** Gives the stream what comes; resolves at the end of it. Errors end the stream. */
  feed(incoming: AsyncIterable<{ data: Uint8Array }>): Promise<void>;
}

export function createTunnel(): Tunnel {
  const queue: { data: Uint8Array; done: () => void }[] = [];
  let over = false;
  let wake: (() => void) | undefined;
  let readable: (() => void) | undefined;
  const stream = new Duplex({
    read() {
      const ready = readable;
      readable = undefined;
      ready?.();
    },
    write(chunk: Buffer, _, done) {
      queue.push({ data: chunk, done });
      wake?.();
    },
    final(done) {
      over = true;
      wake?.();
      done();
    },
    destroy(error, done) {
      over = true;
      wake?.();
      readable?.();
      done(error);
    },
  });
  async function* messages(): AsyncGenerator<{ data: Uint8Array }> {
    let whole = false;
    try {
      for (;;) {
        const next = queue.shift();
        if (next) {
          for (let at = 0; at < next.data.length; at += MAX_MESSAGE) yield { data: next.data.subarray(at, at + MAX_MESSAGE) };
          next.done();
        } else if (over) {
          whole = true;
          return;
        } else
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
      }
    } finally {
      // Whoever stops listening is gone; after a proper end there may still be answers.
      if (!whole) stream.destroy();
    }
  }
  return {
    stream,
    messages: messages(),
    async feed(incoming) {
      try {
        for await (const { data } of incoming) {
          if (stream.destroyed) return;
          if (data.length > 0 && !stream.push(data))
            await new Promise<void>((resolve) => {
              readable = resolve;
              if (stream.destroyed) resolve();
            });
        }
        if (!stream.destroyed) stream.push(null);
      } catch {
        stream.destroy();
      }
    },
  };
}
