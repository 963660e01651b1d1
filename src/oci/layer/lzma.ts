// The LZMA2 decoder (XZ Utils' doc/xz-file-format.txt, 5.3.1; LZMA itself as in the LZMA SDK's lzma-specification.txt). Chunks come whole; output goes by
// way of the dictionary, a ring that holds what later matches may repeat. What it reads is hostile: every distance and length is checked, and reading past
// the end of a chunk is an error when the chunk is done.
import { invalidArgument } from "../../lib/errors.ts";
import type { Output } from "./decode.ts";

const STATES = 12;
const corrupt = (what: string) => invalidArgument(`layer can't be decompressed: corrupt xz data: ${what}`);

// Where each set of probabilities begins in one array.
const MATCH = 0;
const REP = MATCH + (STATES << 4);
const REP_G0 = REP + STATES;
const REP_G1 = REP_G0 + STATES;
const REP_G2 = REP_G1 + STATES;
const REP_LONG = REP_G2 + STATES;
const SLOT = REP_LONG + (STATES << 4);
const SPECIAL = SLOT + 4 * 64;
const ALIGN = SPECIAL + 115;
const MATCH_LENGTH = ALIGN + 16;
const LENGTH_SIZE = 2 + 2 * 16 * 8 + 256;
const REP_LENGTH = MATCH_LENGTH + LENGTH_SIZE;
const LITERAL = REP_LENGTH + LENGTH_SIZE;

export interface Lzma2 {
  /** A chunk that is stored as it is. */
  stored(bytes: Uint8Array, resetDictionary: boolean): void;
  /** A compressed chunk that holds `size` bytes. `reset`: 0 nothing, 1 the state, 2 with new properties, 3 with the dictionary too. */
  chunk(bytes: Uint8Array, size: number, reset: number, properties: number): void;
}

export function createLzma2(dictionarySize: number, output: Output): Lzma2 {
  const dictionary = new Uint8Array(dictionarySize);
  /** Place of the next byte; how many bytes before it a match may use. */
  let at = 0;
  let filled = 0;
  let told = 0;
  const probabilities = new Uint16Array(LITERAL + (0x300 << 4));
  let lc = 0;
  let lpMask = 0;
  let pbMask = 0;
  let state = 0;
  let rep0 = 0;
  let rep1 = 0;
  let rep2 = 0;
  let rep3 = 0;
  let ready = false;
  let position = 0;
  // range coder
  let input: Uint8Array = new Uint8Array(0);
  let next = 0;
  let range = 0;
  let code = 0;

  const flush = () => {
    if (at > told) output(dictionary, told, at - told);
    told = at;
  };
  const put = (byte: number) => {
    dictionary[at++] = byte;
    if (at === dictionarySize) {
      flush();
      at = 0;
      told = 0;
    }
    if (filled < dictionarySize) filled++;
    position++;
  };
  const bit = (index: number): number => {
    const p = probabilities[index]!;
    const bound = Math.imul(range >>> 11, p) >>> 0;
    let value = 0;
    if (code < bound) {
      range = bound;
      probabilities[index] = p + ((2048 - p) >>> 5);
    } else {
      range = (range - bound) >>> 0;
      code = (code - bound) >>> 0;
      probabilities[index] = p - (p >>> 5);
      value = 1;
    }
    if (range < 0x1000000) {
      range = (range << 8) >>> 0;
      code = ((code << 8) | input[next++]!) >>> 0;
    }
    return value;
  };
  const tree = (base: number, bits: number): number => {
    let m = 1;
    for (let i = 0; i < bits; i++) m = (m << 1) | bit(base + m);
    return m - (1 << bits);
  };
  const reverse = (base: number, bits: number): number => {
    let m = 1;
    let value = 0;
    for (let i = 0; i < bits; i++) {
      const b = bit(base + m);
      m = (m << 1) | b;
      value |= b << i;
    }
    return value;
  };
  const direct = (bits: number): number => {
    let value = 0;
    for (let i = 0; i < bits; i++) {
      range >>>= 1;
      let b = 0;
      if (code >= range) {
        code = (code - range) >>> 0;
        b = 1;
      }
      value = ((value << 1) | b) >>> 0;
      if (range < 0x1000000) {
        range = (range << 8) >>> 0;
        code = ((code << 8) | input[next++]!) >>> 0;
      }
    }
    return value;
  };
  const length = (base: number, posState: number): number => {
    if (bit(base) === 0) return 2 + tree(base + 2 + (posState << 3), 3);
    if (bit(base + 1) === 0) return 10 + tree(base + 2 + 128 + (posState << 3), 3);
    return 18 + tree(base + 2 + 256, 8);
  };
  const byteAt = (distance: number): number => {
    const from = at - distance - 1;
    return dictionary[from < 0 ? from + dictionarySize : from]!;
  };
  const literal = () => {
    const before = filled > 0 ? byteAt(0) : 0;
    const base = LITERAL + 0x300 * (((position & lpMask) << lc) + (before >>> (8 - lc)));
    let symbol = 1;
    if (state >= 7) {
      let match = byteAt(rep0);
      do {
        const matchBit = (match >>> 7) & 1;
        match <<= 1;
        const b = bit(base + ((1 + matchBit) << 8) + symbol);
        symbol = (symbol << 1) | b;
        if (matchBit !== b) break;
      } while (symbol < 0x100);
    }
    while (symbol < 0x100) symbol = (symbol << 1) | bit(base + symbol);
    put(symbol & 0xff);
    state = state < 4 ? 0 : state < 10 ? state - 3 : state - 6;
  };
  const distance = (long: number): number => {
    const slot = tree(SLOT + (Math.min(long - 2, 3) << 6), 6);
    if (slot < 4) return slot;
    const bits = (slot >>> 1) - 1;
    const base = ((2 | (slot & 1)) << bits) >>> 0;
    if (slot < 14) return base + reverse(SPECIAL + base - slot, bits);
    return (base + ((direct(bits - 4) << 4) >>> 0) + reverse(ALIGN, 4)) >>> 0;
  };
  const resetDictionary = () => {
    flush();
    filled = 0;
    position = 0;
  };

  return {
    stored(bytes, reset) {
      if (reset) resetDictionary();
      for (const byte of bytes) put(byte);
      flush();
    },
    chunk(bytes, size, reset, properties) {
      if (reset === 3) resetDictionary();
      if (reset >= 2) {
        if (properties >= 225) throw corrupt("bad properties");
        lc = properties % 9;
        const rest = Math.floor(properties / 9);
        const lp = rest % 5;
        if (lc + lp > 4) throw corrupt("bad properties");
        lpMask = (1 << lp) - 1;
        pbMask = (1 << Math.floor(rest / 5)) - 1;
        ready = true;
      }
      if (!ready) throw corrupt("no properties");
      if (reset >= 1) {
        probabilities.fill(1024);
        state = rep0 = rep1 = rep2 = rep3 = 0;
      }
      if (bytes.length < 5 || bytes[0] !== 0) throw corrupt("bad chunk");
      input = bytes;
      next = 5;
      range = 0xffffffff;
      code = ((bytes[1]! << 24) | (bytes[2]! << 16) | (bytes[3]! << 8) | bytes[4]!) >>> 0;
      let left = size;
      while (left > 0) {
        if (next > bytes.length) throw corrupt("a chunk is too short");
        const posState = position & pbMask;
        if (bit(MATCH + (state << 4) + posState) === 0) {
          // A literal after a match is coded against what stands at the last distance.
          if (state >= 7 && rep0 >= filled) throw corrupt("bad distance");
          literal();
          left--;
          continue;
        }
        let long: number;
        if (bit(REP + state) === 0) {
          rep3 = rep2;
          rep2 = rep1;
          rep1 = rep0;
          long = length(MATCH_LENGTH, posState);
          state = state < 7 ? 7 : 10;
          rep0 = distance(long);
        } else {
          if (bit(REP_G0 + state) === 0) {
            if (bit(REP_LONG + (state << 4) + posState) === 0) {
              if (rep0 >= filled) throw corrupt("bad distance");
              state = state < 7 ? 9 : 11;
              put(byteAt(rep0));
              left--;
              continue;
            }
          } else {
            let chosen = rep1;
            if (bit(REP_G1 + state) === 1) {
              chosen = rep2;
              if (bit(REP_G2 + state) === 1) {
                chosen = rep3;
                rep3 = rep2;
              }
              rep2 = rep1;
            }
            rep1 = rep0;
            rep0 = chosen;
          }
          long = length(REP_LENGTH, posState);
          state = state < 7 ? 8 : 11;
        }
        if (rep0 >= filled) throw corrupt("bad distance");
        if (long > left) throw corrupt("a match is too long");
        left -= long;
        for (let i = 0; i < long; i++) put(byteAt(rep0));
      }
      if (next !== bytes.length || code !== 0) throw corrupt("a chunk has another length than it says");
      flush();
    },
  };
}
