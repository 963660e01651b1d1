// Decompression piece by piece and synchronously, for use in a worker: gzip (also several members in a row), zstd, bzip2, xz, or none. The handles of
// node:zlib's streams are driven directly: their stream interface costs a thread hop and an allocation a chunk.
import { createGunzip, createZstdDecompress } from "node:zlib";
import { invalidArgument } from "../../lib/errors.ts";
import { createBzip2Decoder } from "./bzip2.ts";
import { createXzDecoder } from "./xz.ts";

export type Compression = "gzip" | "zstd" | "bzip2" | "xz" | "none";

/** Receives `length` bytes of `buffer` from `offset`, valid only during the call. */
export type Output = (buffer: Uint8Array, offset: number, length: number) => void;

export interface Decoder {
  push(input: Uint8Array, offset: number, length: number): void;
  /** The input is complete; InvalidArgument where the compressed stream is not. */
  end(): void;
  close(): void;
}

/** Told by the first bytes, as Docker does: media types lie. */
export function detectCompression(head: Uint8Array): Compression {
  if (head[0] === 0x1f && head[1] === 0x8b && head[2] === 8) return "gzip";
  if (head[0] === 0x28 && head[1] === 0xb5 && head[2] === 0x2f && head[3] === 0xfd) return "zstd";
  if (head[0] === 0x42 && head[1] === 0x5a && head[2] === 0x68) return "bzip2";
  if (head[0] === 0xfd && head[1] === 0x37 && head[2] === 0x7a && head[3] === 0x58 && head[4] === 0x5a && head[5] === 0) return "xz";
  // a skippable zstd frame (zstd:chunked, estargz-like tools put one first)
  if ((head[0]! & 0xf0) === 0x50 && head[1] === 0x2a && head[2] === 0x4d && head[3] === 0x18) return "zstd";
  return "none";
}

interface Handle {
  writeSync(
    flush: number,
    input: Uint8Array,
    inOffset: number,
    inLength: number,
    out: Uint8Array,
    outOffset: number,
    outLength: number,
  ): void;
  onerror: (message: string, errno: number, code: string) => void;
  close(): void;
  reset(): void;
}

const OUT = 1 << 20;
const EMPTY = new Uint8Array(0);

export function createDecoder(compression: Compression, output: Output): Decoder {
  if (compression === "none") return { push: output, end: () => {}, close: () => {} };
  if (compression === "xz") return createXzDecoder(output);
  if (compression === "bzip2") return createBzip2Decoder(output);
  const stream = (compression === "gzip" ? createGunzip() : createZstdDecompress()) as unknown as {
    _handle: Handle;
    _writeState: Uint32Array;
  };
  const handle = stream._handle;
  const state = stream._writeState;
  const out = new Uint8Array(OUT);
  const FINISH = compression === "gzip" ? 4 : 2;
  let failure: string | undefined;
  handle.onerror = (message) => {
    failure = message;
  };
  const run = (flush: number, input: Uint8Array, offset: number, length: number) => {
    let at = offset;
    let left = length;
    for (;;) {
      handle.writeSync(flush, input, at, left, out, 0, OUT);
      if (failure !== undefined) throw invalidArgument(`layer can't be decompressed: ${failure}`);
      const produced = OUT - state[0]!;
      const consumed = left - state[1]!;
      if (produced > 0) output(out, 0, produced);
      at += consumed;
      left -= consumed;
      // A full output buffer may hide more; otherwise all input was taken, or nothing more can come of it.
      if (produced < OUT && (left === 0 || (consumed === 0 && produced === 0))) return;
    }
  };
  return {
    push: (input, offset, length) => run(0, input, offset, length),
    end: () => run(FINISH, EMPTY, 0, 0),
    close: () => handle.close(),
  };
}
