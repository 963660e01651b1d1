// The thread that decompresses what node:zlib has no threads for: pieces in, pieces out. It waits while the reader has a window's worth before it.
import { messageOf } from "../../lib/errors.ts";
import { type Compression, createDecoder, type Decoder } from "./decode.ts";

/** First the kind; then pieces; `end` after the last. */
export type Ask = { compression: Compression; shared: SharedArrayBuffer } | { piece: Uint8Array } | { end: true };
/** `next`: the piece was used up. */
export type Tell = { output: Uint8Array } | { next: true } | { ended: true } | { failed: string };

/** Bytes that may wait for the reader. */
const WINDOW = 8 << 20;

const scope = globalThis as unknown as {
  onmessage: (event: { data: Ask }) => void;
  postMessage(reply: Tell, transfer?: ArrayBuffer[]): void;
};

let decoder: Decoder;
let taken: Int32Array;
/** In KiB, as the counter that the reader moves. */
let told = 0;

function output(buffer: Uint8Array, offset: number, length: number): void {
  const piece = buffer.slice(offset, offset + length);
  told = (told + Math.ceil(length / 1024)) | 0;
  scope.postMessage({ output: piece }, [piece.buffer as ArrayBuffer]);
  for (let seen = Atomics.load(taken, 0); ((told - seen) | 0) * 1024 > WINDOW; seen = Atomics.load(taken, 0)) Atomics.wait(taken, 0, seen);
}

scope.onmessage = ({ data }) => {
  try {
    if ("compression" in data) {
      taken = new Int32Array(data.shared);
      decoder = createDecoder(data.compression, output);
    } else if ("piece" in data) {
      decoder.push(data.piece, 0, data.piece.length);
      scope.postMessage({ next: true });
    } else {
      decoder.end();
      scope.postMessage({ ended: true });
    }
  } catch (error) {
    scope.postMessage({ failed: messageOf(error) });
  }
};
