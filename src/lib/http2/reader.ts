// Frames out of the bytes in which they arrive.
import { ERROR, HEAD, MAX_FRAME, MAX_WINDOW, PREFACE } from "./frames.ts";

/** What ends a connection: the peer breaks the protocol. */
export class ConnectionFailure extends Error {
  readonly code: number;
  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}
export const broken = (message: string, code: number = ERROR.PROTOCOL_ERROR): ConnectionFailure =>
  new ConnectionFailure(code, `HTTP/2: ${message}`);

/** `take` answers false where nothing more is wanted. Throws a ConnectionFailure. */
export function createReader(
  awaitingPreface: boolean,
  take: (type: number, flags: number, stream: number, payload: Buffer) => boolean,
): (bytes: Buffer) => void {
  let awaiting = awaitingPreface;
  let rest: Buffer = Buffer.alloc(0);
  return (bytes) => {
    let buffer = rest.length === 0 ? bytes : Buffer.concat([rest, bytes]);
    if (awaiting) {
      if (!buffer.subarray(0, PREFACE.length).equals(PREFACE.subarray(0, buffer.length))) throw broken("no preface");
      if (buffer.length < PREFACE.length) {
        rest = buffer;
        return;
      }
      awaiting = false;
      buffer = buffer.subarray(PREFACE.length);
    }
    let at = 0;
    while (buffer.length - at >= HEAD) {
      const length = buffer.readUIntBE(at, 3);
      if (length > MAX_FRAME) throw broken("a frame that is too long", ERROR.FRAME_SIZE_ERROR);
      if (buffer.length - at - HEAD < length) break;
      const id = buffer.readUInt32BE(at + 5) & MAX_WINDOW;
      const payload = buffer.subarray(at + HEAD, at + HEAD + length);
      if (!take(buffer[at + 3]!, buffer[at + 4]!, id, payload)) return;
      at += HEAD + length;
    }
    rest = buffer.subarray(at);
  };
}

/** The payload of a frame without its padding. */
export function unpadded(payload: Buffer, padded: boolean): Buffer {
  if (!padded) return payload;
  const padding = payload[0];
  if (padding === undefined || padding >= payload.length) throw broken("more padding than payload");
  return payload.subarray(1, payload.length - padding);
}
