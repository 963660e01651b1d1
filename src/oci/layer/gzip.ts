// gzip on all cores: pieces of a fixed size are deflated side by side by node:zlib's threads, each with the end of the one before as its dictionary, and make
// up one member (RFC 1951 and 1952; as pigz does it). The same input gives the same bytes, however many cores there are.
import { availableParallelism } from "node:os";
import { constants, crc32, deflateRaw } from "node:zlib";

const PIECE = 512 << 10;
const DICTIONARY = 32 << 10;
const LEVEL = 5;
const AT_ONCE = Math.min(8, availableParallelism() + 1);
/** Magic, deflate, no flags, no time, no level told, system unknown. */
const HEADER = Uint8Array.of(0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255);

function deflate(piece: Buffer, before: Buffer | undefined, last: boolean): Promise<Buffer> {
  const options = {
    level: LEVEL,
    // each piece ends at a byte, so that the next can follow
    finishFlush: last ? constants.Z_FINISH : constants.Z_SYNC_FLUSH,
    ...(before ? { dictionary: before.subarray(-DICTIONARY) } : {}),
  };
  return new Promise((resolve, reject) =>
    deflateRaw(piece, options, (error, result) => (error ? reject(error) : resolve(result as Buffer))),
  );
}

/** The same bytes in pieces of one size; the last is shorter, or empty. A piece is overwritten when as many more were taken as `ring` holds. */
async function* regular(source: AsyncIterable<Uint8Array>, ring: Buffer[]): AsyncGenerator<Buffer> {
  let next = 0;
  const take = () => {
    const at = next++ % ring.length;
    ring[at] ??= Buffer.allocUnsafeSlow(PIECE);
    return ring[at];
  };
  let piece = take();
  let filled = 0;
  for await (const bytes of source) {
    for (let at = 0; at < bytes.length; ) {
      const n = Math.min(PIECE - filled, bytes.length - at);
      piece.set(bytes.subarray(at, at + n), filled);
      filled += n;
      at += n;
      if (filled === PIECE) {
        yield piece;
        piece = take();
        filled = 0;
      }
    }
  }
  yield piece.subarray(0, filled);
}

export async function* gzipped(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void> {
  yield HEADER;
  const waiting: Promise<Buffer>[] = [];
  let before: Buffer | undefined;
  let crc = 0;
  let size = 0;
  try {
    // Each piece is read while it is deflated, and while the next one is.
    for await (const piece of regular(source, new Array(AT_ONCE + 2))) {
      crc = crc32(piece, crc);
      size += piece.length;
      const work = deflate(piece, before, piece.length < PIECE);
      // it is told in its turn
      work.catch(() => {});
      waiting.push(work);
      before = piece;
      if (waiting.length >= AT_ONCE) yield await waiting.shift()!;
    }
    while (waiting.length > 0) yield await waiting.shift()!;
  } finally {
    await Promise.allSettled(waiting);
  }
  const trailer = Buffer.alloc(8);
  trailer.writeUInt32LE(crc >>> 0, 0);
  trailer.writeUInt32LE(size % 2 ** 32, 4);
  yield trailer;
}
