// bzip2, several streams in a row too. The format has no specification of its makers; Joe Tsai's "BZIP2: Format Specification" describes it. A block is
// decoded when it is surely there as a whole: no block takes more than LARGEST bytes.
import { invalidArgument } from "../../lib/errors.ts";
import type { Decoder, Output } from "./decode.ts";

/** 900,000 symbols of at most 20 bits, and what stands before them. */
const LARGEST = 2_350_000;
const GROUP = 50;
const MAX_LENGTH = 20;

const corrupt = (what: string) => invalidArgument(`layer can't be decompressed: corrupt bzip2 data: ${what}`);

const crcTable = new Int32Array(256);
for (let n = 0; n < 256; n++) {
  let c = n << 24;
  for (let k = 0; k < 8; k++) c = c & 0x80000000 ? (c << 1) ^ 0x04c11db7 : c << 1;
  crcTable[n] = c;
}

interface Table {
  /** By code length: the largest code, and what to take from a code for its place in `symbols`. */
  limit: Int32Array;
  base: Int32Array;
  symbols: Uint16Array;
  shortest: number;
}

function makeTable(lengths: Uint8Array, count: number): Table {
  const limit = new Int32Array(MAX_LENGTH + 2).fill(-1);
  const base = new Int32Array(MAX_LENGTH + 2);
  const symbols = new Uint16Array(count);
  let at = 0;
  let code = 0;
  let shortest = MAX_LENGTH + 1;
  for (let length = 1; length <= MAX_LENGTH; length++) {
    base[length] = code - at;
    for (let symbol = 0; symbol < count; symbol++) {
      if (lengths[symbol] !== length) continue;
      symbols[at++] = symbol;
      code++;
      if (shortest > length) shortest = length;
    }
    limit[length] = code - 1;
    if (code > 1 << length) throw corrupt("code lengths");
    code <<= 1;
  }
  return { limit, base, symbols, shortest };
}

export function createBzip2Decoder(output: Output): Decoder {
  let bytes = Buffer.alloc(0);
  /** Next byte; bits taken from the bytes but not used yet. */
  let at = 0;
  let held = 0;
  let count = 0;
  let inStream = false;
  let limit = 0;
  let combined = 0;
  let streams = 0;
  let links = new Uint32Array(0);
  const out = new Uint8Array(256 << 10);

  const bits = (n: number): number => {
    while (count < n) {
      const byte = bytes[at++];
      if (byte === undefined) throw invalidArgument("layer can't be decompressed: unexpected end of bzip2 data");
      held = ((held << 8) | byte) >>> 0;
      count += 8;
    }
    count -= n;
    const value = (held >>> count) & ((1 << n) - 1);
    held &= (1 << count) - 1;
    return value;
  };
  const long = (): number => ((bits(16) << 16) | bits(16)) >>> 0;

  const readTables = (symbols: number): { tables: Table[]; selectors: Uint8Array } => {
    const groups = bits(3);
    const chosen = bits(15);
    if (groups < 2 || groups > 6 || chosen < 1) throw corrupt("tables");
    const front = Array.from({ length: groups }, (_, i) => i);
    const selectors = new Uint8Array(chosen);
    for (let i = 0; i < chosen; i++) {
      let n = 0;
      while (bits(1)) if (++n >= groups) throw corrupt("selector");
      const [group] = front.splice(n, 1);
      front.unshift(group!);
      selectors[i] = group!;
    }
    const tables: Table[] = [];
    const lengths = new Uint8Array(symbols);
    for (let i = 0; i < groups; i++) {
      let length = bits(5);
      for (let symbol = 0; symbol < symbols; symbol++) {
        for (;;) {
          if (length < 1 || length > MAX_LENGTH) throw corrupt("code length");
          if (!bits(1)) break;
          length += bits(1) ? -1 : 1;
        }
        lengths[symbol] = length;
      }
      tables.push(makeTable(lengths, symbols));
    }
    return { tables, selectors };
  };

  const readBlock = () => {
    const wanted = long();
    if (bits(1)) throw invalidArgument("layer can't be decompressed: bzip2 blocks of version 0.9.0 (randomised) are not supported");
    const origin = bits(24);
    const front: number[] = [];
    const ranges = bits(16);
    for (let i = 0; i < 16; i++) {
      if (!(ranges & (0x8000 >> i))) continue;
      const used = bits(16);
      for (let j = 0; j < 16; j++) if (used & (0x8000 >> j)) front.push(i * 16 + j);
    }
    if (front.length === 0) throw corrupt("no symbols");
    const end = front.length + 1;
    const { tables, selectors } = readTables(end + 1);
    const starts = new Uint32Array(256);
    let length = 0;
    let run = 0;
    let weight = 1;
    const endRun = () => {
      if (run === 0) return;
      if (length + run > limit) throw corrupt("block is too long");
      const byte = front[0]!;
      starts[byte]! += run;
      links.fill(byte, length, length + run);
      length += run;
      run = 0;
      weight = 1;
    };
    decode: for (let group = 0; ; group++) {
      const selector = selectors[group];
      if (selector === undefined) throw corrupt("selectors");
      const table = tables[selector]!;
      for (let i = 0; i < GROUP; i++) {
        let size = table.shortest;
        let code = bits(size);
        while (code > table.limit[size]!) {
          if (++size > MAX_LENGTH) throw corrupt("code");
          code = (code << 1) | bits(1);
        }
        const symbol = table.symbols[code - table.base[size]!]!;
        if (symbol < 2) {
          // The two lowest symbols are the digits of a run's length.
          run += weight << symbol;
          weight *= 2;
          if (run > limit) throw corrupt("run is too long");
          continue;
        }
        endRun();
        if (symbol === end) break decode;
        const place = symbol - 1;
        const byte = front[place]!;
        front.copyWithin(1, 0, place);
        front[0] = byte;
        if (length >= limit) throw corrupt("block is too long");
        starts[byte]!++;
        links[length++] = byte;
      }
    }
    if (origin >= length) throw corrupt("origin");
    emit(length, origin, starts, wanted);
  };

  /** Undoes the Burrows-Wheeler transform and the runs before it. */
  const emit = (length: number, origin: number, starts: Uint32Array, wanted: number) => {
    for (let sum = 0, i = 0; i < 256; i++) {
      const n = starts[i]!;
      starts[i] = sum;
      sum += n;
    }
    for (let i = 0; i < length; i++) links[starts[links[i]! & 0xff]!++]! |= i << 8;
    let crc = -1;
    let filled = 0;
    const write = (byte: number) => {
      out[filled++] = byte;
      crc = (crc << 8) ^ crcTable[(crc >>> 24) ^ byte]!;
      if (filled === out.length) {
        output(out, 0, filled);
        filled = 0;
      }
    };
    let place = links[origin]! >>> 8;
    let same = 0;
    let last = -1;
    for (let i = 0; i < length; i++) {
      const link = links[place]!;
      const byte = link & 0xff;
      place = link >>> 8;
      if (same === 4) {
        for (let n = 0; n < byte; n++) write(last);
        same = 0;
        last = -1;
        continue;
      }
      same = byte === last ? same + 1 : 1;
      last = byte;
      write(byte);
    }
    if (filled > 0) output(out, 0, filled);
    crc = ~crc >>> 0;
    if (crc !== wanted) throw corrupt("wrong checksum");
    combined = (((combined << 1) | (combined >>> 31)) ^ crc) >>> 0;
  };

  /** One block, or a beginning or an end of a stream. */
  const step = () => {
    if (!inStream) {
      if (bits(8) !== 0x42 || bits(8) !== 0x5a || bits(8) !== 0x68) throw corrupt("header");
      const level = bits(8) - 0x30;
      if (level < 1 || level > 9) throw corrupt("header");
      limit = level * 100_000;
      if (links.length < limit) links = new Uint32Array(limit);
      inStream = true;
      combined = 0;
      streams++;
      return;
    }
    const [a, b, c] = [bits(16), bits(16), bits(16)];
    if (a === 0x3141 && b === 0x5926 && c === 0x5359) readBlock();
    else if (a === 0x1772 && b === 0x4538 && c === 0x5090) {
      if (long() !== combined) throw corrupt("wrong checksum");
      held = 0;
      count = 0;
      inStream = false;
    } else throw corrupt("block header");
  };

  return {
    push(input, offset, length) {
      const more = Buffer.from(input.buffer, input.byteOffset + offset, length);
      bytes = Buffer.concat([bytes.subarray(at), more]);
      at = 0;
      while (bytes.length - at > LARGEST) step();
    },
    end() {
      // What is no further stream is rubbish at the end, which bzip2 ignores too.
      while (inStream || (at + 4 <= bytes.length && bytes.toString("latin1", at, at + 3) === "BZh") || streams === 0) step();
    },
    close() {},
  };
}
