// ttrpc's framing (github.com/containerd/ttrpc, PROTOCOL.md): ten bytes of header, then the message.
//
//   | length u32 | stream id u32 | type u8 | flags u8 | message … |      big endian
//
// A client counts odd stream ids up; one unary call is one request and one response with the same stream id.

export const HEADER = 10;
/** Largest message, either way. */
export const MAX_MESSAGE = 4 << 20;

export const REQUEST = 1;
export const RESPONSE = 2;
export const DATA = 3;

/** Flags of a request that opens a stream rather than making a unary call. */
export const FLAG_REMOTE_OPEN = 0x02;

export interface Frame {
  stream: number;
  type: number;
  flags: number;
  /** Undefined where the message was longer than MAX_MESSAGE; its bytes are skipped. */
  message: Uint8Array | undefined;
}

/** A frame as it goes over the wire. */
export function encodeFrame(stream: number, type: number, flags: number, message: Uint8Array): Buffer {
  const out = Buffer.allocUnsafe(HEADER + message.length);
  out.writeUInt32BE(message.length, 0);
  out.writeUInt32BE(stream, 4);
  out[8] = type;
  out[9] = flags;
  out.set(message, HEADER);
  return out;
}

/**
 * Cuts a byte stream into frames. The returned function takes each chunk as it arrives; a frame's message may alias the chunk, so it must be
 * decoded before the callback returns. Memory is bounded by MAX_MESSAGE whatever the header claims.
 */
export function frameReader(deliver: (frame: Frame) => void): (chunk: Uint8Array) => void {
  let parts: Uint8Array[] = [];
  let have = 0;
  let need = HEADER;
  let skip = 0;

  const joined = (): Buffer => {
    const first = parts[0]!;
    const all = parts.length === 1 ? Buffer.from(first.buffer, first.byteOffset, first.length) : Buffer.concat(parts, have);
    return all;
  };

  return (chunk) => {
    let bytes = chunk;
    if (skip > 0) {
      const n = Math.min(skip, bytes.length);
      skip -= n;
      bytes = bytes.subarray(n);
    }
    if (bytes.length === 0) return;
    parts.push(bytes);
    have += bytes.length;
    if (have < need) return;
    const all = joined();
    let at = 0;
    need = HEADER;
    while (all.length - at >= HEADER) {
      const length = all.readUInt32BE(at);
      const stream = all.readUInt32BE(at + 4);
      const type = all[at + 8]!;
      const flags = all[at + 9]!;
      if (length > MAX_MESSAGE) {
        at += HEADER;
        const n = Math.min(length, all.length - at);
        skip = length - n;
        at += n;
        deliver({ stream, type, flags, message: undefined });
        continue;
      }
      if (all.length - at < HEADER + length) {
        need = HEADER + length;
        break;
      }
      at += HEADER + length;
      deliver({ stream, type, flags, message: all.subarray(at - length, at) });
    }
    have = all.length - at;
    parts = have > 0 ? [all.subarray(at)] : [];
  };
}
