// The .xz container (XZ Utils' doc/xz-file-format.txt): streams of blocks, each with a check of its own. Of filters only LZMA2 is known, as in most readers;
// those for machine code are refused by name. The dictionary that a file may ask for is bounded.
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import { invalidArgument, resourceExhausted } from "../../lib/errors.ts";
import type { Decoder, Output } from "./decode.ts";
import { createLzma2 } from "./lzma.ts";

const MAGIC = Buffer.from("fd377a585a00", "hex");
/** `xz -9` needs 64 MiB. */
const MAX_DICTIONARY = 256 << 20;
const CHECK_SIZES = [0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64];

const corrupt = (what: string) => invalidArgument(`layer can't be decompressed: corrupt xz data: ${what}`);

let crc64Tables: { low: Int32Array; high: Int32Array } | undefined;

/** CRC-64/XZ, in halves of 32 bits. */
function createCrc64() {
  if (!crc64Tables) {
    const low = new Int32Array(256);
    const high = new Int32Array(256);
    for (let n = 0; n < 256; n++) {
      let l = n;
      let h = 0;
      for (let k = 0; k < 8; k++) {
        const odd = l & 1;
        l = (l >>> 1) | (h << 31);
        h >>>= 1;
        if (odd) {
          l ^= 0xd7870f42;
          h ^= 0xc96c5795;
        }
      }
      low[n] = l;
      high[n] = h;
    }
    crc64Tables = { low, high };
  }
  const { low, high } = crc64Tables;
  let l = -1;
  let h = -1;
  return {
    update(bytes: Uint8Array) {
      for (let i = 0; i < bytes.length; i++) {
        const n = (l ^ bytes[i]!) & 0xff;
        l = ((l >>> 8) | (h << 24)) ^ low[n]!;
        h = (h >>> 8) ^ high[n]!;
      }
    },
    digest(): Buffer {
      const out = Buffer.alloc(8);
      out.writeInt32LE(~l, 0);
      out.writeInt32LE(~h, 4);
      return out;
    },
  };
}

/** The running check of a block; undefined for a kind that nobody uses, which is then not verified. */
function createCheck(kind: number): { update(bytes: Uint8Array): void; digest(): Buffer } | undefined {
  if (kind === 4) return createCrc64();
  if (kind === 10) {
    const hash = createHash("sha256");
    return { update: (bytes) => void hash.update(bytes), digest: () => hash.digest() };
  }
  if (kind !== 1) return undefined;
  let value = 0;
  return {
    update(bytes) {
      value = crc32(bytes, value);
    },
    digest() {
      const out = Buffer.alloc(4);
      out.writeUInt32LE(value >>> 0);
      return out;
    },
  };
}

const crcOf = (bytes: Uint8Array): number => crc32(bytes) >>> 0;

/** A number of the container's own kind: seven bits a byte, lowest first. */
function readNumber(bytes: Buffer, at: { place: number }): number {
  let value = 0;
  for (let i = 0; i < 9; i++) {
    const byte = bytes[at.place++];
    if (byte === undefined) throw corrupt("a header is too short");
    value += (byte & 0x7f) * 2 ** (7 * i);
    if (byte < 0x80) {
      if (!Number.isSafeInteger(value)) throw corrupt("a number is out of range");
      return value;
    }
  }
  throw corrupt("a number is out of range");
}

/** What a block header says; the bytes are the whole header without its size byte, checksum included. */
function parseBlockHeader(first: number, rest: Buffer): { dictionary: number; packed: number | undefined; plain: number | undefined } {
  const end = rest.length - 4;
  if (crcOf(Buffer.concat([Buffer.from([first]), rest.subarray(0, end)])) !== rest.readUInt32LE(end)) throw corrupt("block header");
  const header = rest.subarray(0, end);
  const flags = header[0]!;
  const at = { place: 1 };
  const packed = flags & 0x40 ? readNumber(header, at) : undefined;
  const plain = flags & 0x80 ? readNumber(header, at) : undefined;
  if (flags & 0x3c) throw invalidArgument("layer can't be decompressed: an xz block of an unknown kind");
  let dictionary = 0;
  for (let i = 0; i <= (flags & 3); i++) {
    const id = readNumber(header, at);
    const length = readNumber(header, at);
    if (id !== 0x21 || i < (flags & 3) || length !== 1)
      throw invalidArgument(`layer can't be decompressed: the xz filter 0x${id.toString(16)} is not supported`);
    const bits = header[at.place++] ?? 41;
    if (bits > 40) throw corrupt("dictionary size");
    dictionary = bits === 40 ? 2 ** 32 - 1 : (2 | (bits & 1)) * 2 ** (Math.floor(bits / 2) + 11);
  }
  for (; at.place < header.length; at.place++) if (header[at.place] !== 0) throw corrupt("block header padding");
  return { dictionary, packed, plain };
}

export function createXzDecoder(output: Output): Decoder {
  /** Between streams the input may end. */
  let mayEnd = false;
  let checkOf: ReturnType<typeof createCheck>;
  let plainSize = 0;
  const tell: Output = (buffer, offset, length) => {
    plainSize += length;
    checkOf?.update(buffer.subarray(offset, offset + length));
    output(buffer, offset, length);
  };

  /** Asks for exactly so many bytes at a time. */
  function* parse(): Generator<number, void, Buffer> {
    for (;;) {
      mayEnd = true;
      let header = yield 4;
      mayEnd = false;
      // between streams there may be zeros, four at a time
      if (header.readUInt32LE(0) === 0) continue;
      header = Buffer.concat([header, yield 8]);
      if (!header.subarray(0, 6).equals(MAGIC)) throw corrupt("stream header");
      const streamFlags = Buffer.from(header.subarray(6, 8));
      if (crcOf(streamFlags) !== header.readUInt32LE(8) || streamFlags[0] !== 0 || streamFlags[1]! > 15) throw corrupt("stream header");
      const sums = { blocks: 0, packed: 0, plain: 0 };
      for (;;) {
        const first = (yield 1)[0]!;
        if (first === 0) break;
        const header = yield (first + 1) * 4 - 1;
        const block = parseBlockHeader(first, header);
        if (block.dictionary > MAX_DICTIONARY)
          throw resourceExhausted(`the xz dictionary of ${block.dictionary} bytes is larger than the limit of ${MAX_DICTIONARY}`);
        const packed = yield* blockData(block.dictionary, streamFlags[1]!);
        if ((block.packed ?? packed) !== packed || (block.plain ?? plainSize) !== plainSize) throw corrupt("block size");
        if (packed % 4 && (yield 4 - (packed % 4)).some((byte) => byte !== 0)) throw corrupt("block padding");
        const size = CHECK_SIZES[streamFlags[1]!]!;
        const wanted = size ? yield size : undefined;
        if (checkOf && !checkOf.digest().equals(wanted!)) throw corrupt("wrong checksum");
        sums.blocks++;
        sums.packed += (first + 1) * 4 + packed + size;
        sums.plain += plainSize;
      }
      yield* index(sums, streamFlags);
    }
  }

  /** The LZMA2 chunks of a block; answers how many bytes they took. */
  function* blockData(dictionary: number, kind: number): Generator<number, number, Buffer> {
    plainSize = 0;
    checkOf = createCheck(kind);
    const lzma = createLzma2(Math.max(dictionary, 4096), tell);
    let fresh = true;
    for (let packed = 0; ; ) {
      const control = (yield 1)[0]!;
      packed++;
      if (control === 0) return packed;
      if (fresh && control !== 1 && control < 0xe0) throw corrupt("no dictionary");
      fresh = false;
      if (control < 0x80) {
        if (control > 2) throw corrupt("bad chunk");
        const size = (yield 2).readUInt16BE(0) + 1;
        lzma.stored(yield size, control === 1);
        packed += 2 + size;
        continue;
      }
      const reset = (control >> 5) & 3;
      const head = yield reset >= 2 ? 5 : 4;
      packed += head.length;
      const plain = ((control & 0x1f) << 16) + head.readUInt16BE(0) + 1;
      const size = head.readUInt16BE(2) + 1;
      const properties = reset >= 2 ? head[4]! : 0;
      lzma.chunk(yield size, plain, reset, properties);
      packed += size;
    }
  }

  function* index(sums: { blocks: number; packed: number; plain: number }, streamFlags: Buffer): Generator<number, void, Buffer> {
    let length = 1;
    let crc = crc32(Buffer.from([0]));
    function* number(): Generator<number, number, Buffer> {
      let value = 0;
      for (let i = 0; i < 9; i++) {
        const one = yield 1;
        crc = crc32(one, crc);
        length++;
        value += (one[0]! & 0x7f) * 2 ** (7 * i);
        if (one[0]! < 0x80) return value;
      }
      throw corrupt("index");
    }
    const count = yield* number();
    if (count !== sums.blocks) throw corrupt("index");
    for (let i = 0; i < count; i++) {
      sums.packed -= yield* number();
      sums.plain -= yield* number();
    }
    if (sums.packed !== 0 || sums.plain !== 0) throw corrupt("index");
    const padding = (4 - (length % 4)) % 4;
    if (padding) {
      const zeros = yield padding;
      if (zeros.some((byte) => byte !== 0)) throw corrupt("index");
      crc = crc32(zeros, crc);
    }
    if ((yield 4).readUInt32LE(0) !== crc >>> 0) throw corrupt("index");
    const footer = yield 12;
    if (
      crcOf(footer.subarray(4, 10)) !== footer.readUInt32LE(0) ||
      (footer.readUInt32LE(4) + 1) * 4 !== length + padding + 4 ||
      !footer.subarray(8, 10).equals(streamFlags) ||
      footer.toString("latin1", 10) !== "YZ"
    )
      throw corrupt("stream footer");
  }

  const parser = parse();
  let wanted = parser.next().value as number;
  let held = Buffer.alloc(0);
  return {
    push(input, offset, length) {
      let bytes = Buffer.from(input.buffer, input.byteOffset + offset, length);
      if (held.length > 0) bytes = Buffer.concat([held, bytes]);
      let at = 0;
      while (bytes.length - at >= wanted) {
        const piece = bytes.subarray(at, at + wanted);
        at += wanted;
        wanted = parser.next(piece).value as number;
      }
      held = Buffer.from(bytes.subarray(at));
    },
    end() {
      if (!mayEnd || held.length > 0) throw invalidArgument("layer can't be decompressed: unexpected end of xz data");
    },
    close() {},
  };
}
