// HPACK's Huffman code (RFC 7541, 5.2 and Appendix B). It is canonical: codes of one length are consecutive, in the order of their symbols, so that the lengths say all.

/** Lengths in bits of the symbols 0 to 256 (the last one is EOS), as runs: "LENGTH" or "LENGTHxCOUNT". */
const LENGTHS = `13 23 28x7 24 30 28x2 30 28x8 30 28x9 6 10x2 12 13 6 8 11 10x2 8 11 8 6x3 5x3 6x7 7 8 15 6 12 10 13 6 7x22 8 7 8 13 19 13 14 6 15 5 6 5 6 5 6x3 5
7x2 6x3 5 6 7 6 5x2 6 7x5 15 11 14 13 28 20 22 20x2 22x3 23 22 23x5 24 23 24x2 22 23 24 23x4 21 22 23 22 23x2 24 22 21 20 22x2 23x2 21 23 22x2 24 21 22 23x2 21x2 22
21 23 22 23x2 20 22x3 23 22x2 23 26x2 20 19 22 23 22 25 26x3 27x2 26 24 25 19 21 26 27x2 26 27 24 21x2 26x2 28 27x3 20 24 20 21 22 21x2 23 22x2 25x2 24x2 26 23 26
27 26x2 27x5 28 27x5 26 30`;

const LONGEST = 30;
const EOS = 256;

interface Code {
  /** By length: the first code, the number of codes, where their symbols begin. */
  first: number[];
  count: number[];
  start: number[];
  symbols: number[];
}

let code: Code | undefined;

function build(): Code {
  const lengths = LENGTHS.split(/\s/).flatMap((run) => {
    const [length = 0, count = 1] = run.split("x").map(Number);
    return Array<number>(count).fill(length);
  });
  const made: Code = { first: [], count: [], start: [], symbols: [] };
  let next = 0;
  for (let length = 0; length <= LONGEST; length++) {
    next *= 2;
    const symbols = lengths.flatMap((each, symbol) => (each === length && length > 0 ? [symbol] : []));
    made.first.push(next);
    made.count.push(symbols.length);
    made.start.push(made.symbols.length);
    made.symbols.push(...symbols);
    next += symbols.length;
  }
  return made;
}

/** Decodes to a byte string; undefined where the bytes are no such code. */
export function decodeHuffman(bytes: Uint8Array): string | undefined {
  code ??= build();
  const { first, count, start, symbols } = code;
  const out: number[] = [];
  let value = 0;
  let length = 0;
  let ones = true;
  for (const byte of bytes) {
    for (let bit = 7; bit >= 0; bit--) {
      const set = (byte >> bit) & 1;
      value = value * 2 + set;
      length++;
      ones &&= set === 1;
      const offset = value - first[length]!;
      if (offset < count[length]!) {
        const symbol = symbols[start[length]! + offset]!;
        if (symbol === EOS) return undefined;
        out.push(symbol);
        value = 0;
        length = 0;
        ones = true;
      } else if (length === LONGEST) return undefined;
    }
  }
  // What is left over fills the last byte: the first bits of EOS, fewer than eight.
  if (length > 7 || !ones) return undefined;
  return Buffer.from(out).toString("latin1");
}
