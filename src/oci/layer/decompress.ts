// Decompression of a stream, off the event loop: by node:zlib's threads, or a worker where that knows the format not.
import { Readable } from "node:stream";
import { createGunzip, createZstdDecompress } from "node:zlib";
import { invalidArgument, messageOf } from "../../lib/errors.ts";
import { compiled } from "../../lib/program.ts";
import { type Compression, createDecoder, detectCompression } from "./decode.ts";
import type { Ask, Tell } from "./decompress.worker.ts";
import { checkExpansion, EXPANSION, type ExpansionLimit } from "./expansion.ts";

const HEAD = 8;
const PIECE = 128 << 10;

/**
 * The bytes that a stream holds when it is uncompressed; what it is compressed with is told by its beginning. InvalidArgument where it is broken. What is
 * compressed as `kept` says stays so. ResourceExhausted where it expands beyond `limit`.
 */
export async function* decompressed(
  source: AsyncIterable<Uint8Array>,
  kept: readonly Compression[] = [],
  limit: ExpansionLimit = EXPANSION,
): AsyncGenerator<Uint8Array, void> {
  const pieces = source[Symbol.asyncIterator]();
  let head: Uint8Array = new Uint8Array(0);
  let ended = false;
  let consumed = 0;
  while (head.length < HEAD && !ended) {
    const next = await pieces.next();
    if (next.done) ended = true;
    else head = head.length === 0 ? next.value : Buffer.concat([head, next.value]);
  }
  async function* all(): AsyncGenerator<Uint8Array, void> {
    try {
      consumed = head.length;
      if (head.length > 0) yield head;
      if (ended) return;
      for (let next = await pieces.next(); !next.done; next = await pieces.next()) {
        consumed += next.value.length;
        yield next.value;
      }
      ended = true;
    } finally {
      if (!ended) await pieces.return?.();
    }
  }
  const compression = head.length < 6 ? "none" : detectCompression(head);
  if (compression === "none" || kept.includes(compression)) {
    yield* all();
    return;
  }
  let produced = 0;
  for await (const piece of compression === "gzip" || compression === "zstd" ? byZlib(all(), compression) : byWorker(all(), compression)) {
    produced += piece.length;
    checkExpansion("archive", consumed, produced, limit);
    yield piece;
  }
}

async function* byZlib(source: AsyncIterable<Uint8Array>, compression: "gzip" | "zstd"): AsyncGenerator<Uint8Array, void> {
  const decoder = compression === "gzip" ? createGunzip() : createZstdDecompress();
  const input = Readable.from(source, { objectMode: false });
  // What went wrong before the decoder is told as it is.
  let failure: unknown;
  input.on("error", (error) => {
    failure = error;
    decoder.destroy(error);
  });
  input.pipe(decoder);
  try {
    for await (const piece of decoder) yield piece as Uint8Array;
  } catch (error) {
    throw failure ?? invalidArgument(`archive can't be decompressed: ${messageOf(error)}`, error);
  } finally {
    input.destroy();
    decoder.destroy();
  }
}

function startWorker(): Worker {
  return new Worker(compiled() ? "/$bunfs/root/oci/layer/decompress.worker.js" : new URL("./decompress.worker.ts", import.meta.url).href);
}

async function* byWorker(source: AsyncIterable<Uint8Array>, compression: Compression): AsyncGenerator<Uint8Array, void> {
  const worker = startWorker();
  const told: Tell[] = [];
  let wake = () => {};
  const tell = (message: Tell) => {
    told.push(message);
    wake();
  };
  worker.onmessage = (event: MessageEvent<Tell>) => tell(event.data);
  worker.onerror = (event) => tell({ failed: event.message });
  const taken = new Int32Array(new SharedArrayBuffer(4));
  const ask = (message: Ask) => worker.postMessage(message);
  const pieces = source[Symbol.asyncIterator]();
  let held: Uint8Array = new Uint8Array(0);
  const feed = async () => {
    while (held.length === 0) {
      const next = await pieces.next();
      if (next.done) {
        ask({ end: true });
        return;
      }
      held = next.value;
    }
    ask({ piece: held.slice(0, PIECE) });
    held = held.subarray(PIECE);
  };
  try {
    ask({ compression, shared: taken.buffer as SharedArrayBuffer });
    await feed();
    for (;;) {
      const message = told.shift();
      if (!message) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      } else if ("output" in message) {
        Atomics.add(taken, 0, Math.ceil(message.output.length / 1024));
        Atomics.notify(taken, 0);
        yield message.output;
      } else if ("next" in message) await feed();
      else if ("failed" in message) throw invalidArgument(message.failed);
      else return;
    }
  } finally {
    worker.terminate();
    await pieces.return?.();
  }
}

/** The first bytes of a file when it is uncompressed, at most `length`; `read` fills a buffer with what comes next and answers how much. Meant for a look at what something is. */
export function plainHead(read: (buffer: Uint8Array) => number, length: number): Uint8Array {
  const buffer = new Uint8Array(64 << 10);
  const out: Uint8Array[] = [];
  let have = 0;
  const enough = Symbol();
  let decoder: ReturnType<typeof createDecoder> | undefined;
  try {
    for (let n = read(buffer); ; n = read(buffer)) {
      decoder ??= createDecoder(n < 6 ? "none" : detectCompression(buffer.subarray(0, n)), (bytes, offset, size) => {
        out.push(bytes.slice(offset, offset + Math.min(size, length - have)));
        have += Math.min(size, length - have);
        if (have >= length) throw enough;
      });
      if (n === 0) {
        decoder.end();
        break;
      }
      decoder.push(buffer, 0, n);
    }
  } catch (error) {
    if (error !== enough) throw error;
  } finally {
    decoder?.close();
  }
  return Buffer.concat(out);
}
