// A WebSocket's server side (RFC 6455) as a stream of bytes: what messages the bytes come in has no meaning for a terminal. No extensions, no subprotocol.
import { createHash } from "node:crypto";
import { Duplex } from "node:stream";
import { invalidArgument } from "../../lib/errors.ts";

const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const CONTINUATION = 0;
const TEXT = 1;
const BINARY = 2;
const CLOSE = 8;
const PING = 9;
const PONG = 10;
const FINAL = 0x80;
const MASKED = 0x80;
/** Payload of a control frame, at most (5.5). */
const MAX_CONTROL = 125;

/** The headers that accept a handshake; InvalidArgument where the request is none of version 13 (4.2.1). */
export function acceptHandshake(headers: Record<string, string | undefined>): Record<string, string> {
  const key = headers["sec-websocket-key"] ?? "";
  if (
    headers.upgrade?.toLowerCase() !== "websocket" ||
    !/\bupgrade\b/i.test(headers.connection ?? "") ||
    headers["sec-websocket-version"] !== "13"
  )
    throw invalidArgument("not a websocket handshake of version 13");
  if (Buffer.from(key, "base64").length !== 16) throw invalidArgument("malformed Sec-WebSocket-Key header");
  return {
    "Sec-WebSocket-Accept": createHash("sha1")
      .update(key.trim() + GUID)
      .digest("base64"),
  };
}

function frame(opcode: number, payload: Uint8Array): Buffer {
  const { length } = payload;
  const extra = length < 126 ? 0 : length < 65536 ? 2 : 8;
  const out = Buffer.allocUnsafe(2 + extra + length);
  out[0] = FINAL | opcode;
  if (extra === 0) out[1] = length;
  else if (extra === 2) {
    out[1] = 126;
    out.writeUInt16BE(length, 2);
  } else {
    out[1] = 127;
    out.writeBigUInt64BE(BigInt(length), 2);
  }
  out.set(payload, 2 + extra);
  return out;
}

interface Frame {
  opcode: number;
  mask: Buffer;
  /** Bytes of the payload that are still to come, and how many came: the mask goes round. */
  left: number;
  at: number;
  /** A control frame's payload. */
  control: Buffer[];
}

/** The head at the beginning of `bytes`; undefined where more is needed. Throws what breaks the protocol. */
function parseHead(bytes: Buffer): { frame: Frame; size: number } | undefined {
  if (bytes.length < 2) return undefined;
  const opcode = bytes[0]! & 0x0f;
  const short = bytes[1]! & 0x7f;
  if (bytes[0]! & 0x70) throw invalidArgument("websocket: reserved bits are set");
  if (!(bytes[1]! & MASKED)) throw invalidArgument("websocket: a client's frame is not masked");
  if (![CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG].includes(opcode)) throw invalidArgument(`websocket: unknown opcode ${opcode}`);
  if (opcode >= CLOSE && (short > MAX_CONTROL || !(bytes[0]! & FINAL)))
    throw invalidArgument("websocket: a control frame is long or in parts");
  const extra = short < 126 ? 0 : short === 126 ? 2 : 8;
  const size = 2 + extra + 4;
  if (bytes.length < size) return undefined;
  const left = extra === 0 ? short : extra === 2 ? bytes.readUInt16BE(2) : Number(bytes.readBigUInt64BE(2));
  if (!Number.isSafeInteger(left)) throw invalidArgument("websocket: a frame is too long");
  return { frame: { opcode, mask: bytes.subarray(size - 4, size), left, at: 0, control: [] }, size };
}

function unmask(current: Frame, bytes: Buffer): Buffer {
  const out = Buffer.allocUnsafe(bytes.length);
  for (let i = 0; i < bytes.length; i++) out[i] = bytes[i]! ^ current.mask[(current.at + i) & 3]!;
  return out;
}

/** The connection's payload, both ways; `binary`: in binary frames, else in text frames. It ends where the peer says goodbye, or breaks the protocol. */
export function websocket(socket: Duplex, binary: boolean): Duplex {
  let buffer: Buffer = Buffer.alloc(0);
  let current: Frame | undefined;
  let closed = false;

  const close = (payload: Uint8Array) => {
    if (closed) return;
    closed = true;
    socket.end(frame(CLOSE, payload));
  };

  const control = (opcode: number, payload: Buffer) => {
    if (opcode === PING && !closed) socket.write(frame(PONG, payload));
    if (opcode !== CLOSE) return;
    // The status code is sent back (5.5.1).
    close(payload.subarray(0, 2));
    stream.push(null);
  };

  /** Takes one head or one piece of payload from the buffer; false where more is needed. */
  const take = (): boolean => {
    if (!current) {
      const head = parseHead(buffer);
      if (!head) return false;
      current = head.frame;
      buffer = buffer.subarray(head.size);
    }
    if (current.left > 0 && buffer.length === 0) return false;
    const piece = unmask(current, buffer.subarray(0, current.left));
    buffer = buffer.subarray(piece.length);
    current.left -= piece.length;
    current.at += piece.length;
    const { opcode } = current;
    if (opcode >= CLOSE) current.control.push(piece);
    else if (piece.length > 0 && !stream.push(piece)) socket.pause();
    if (current.left === 0) {
      const whole = Buffer.concat(current.control);
      current = undefined;
      if (opcode >= CLOSE) control(opcode, whole);
      if (opcode === CLOSE) return false;
    }
    return true;
  };

  const stream = new Duplex({
    read: () => void socket.resume(),
    write(chunk: Buffer, _encoding, callback) {
      if (closed) return callback();
      if (socket.write(frame(binary ? BINARY : TEXT, chunk))) callback();
      else {
        const go = () => {
          socket.off("drain", go);
          socket.off("close", go);
          callback();
        };
        socket.on("drain", go);
        socket.on("close", go);
      }
    },
    final(callback) {
      close(Buffer.from([1000 >> 8, 1000 & 0xff]));
      callback();
    },
    destroy(error, callback) {
      socket.destroy();
      callback(error);
    },
  });

  socket.on("data", (chunk: Buffer) => {
    if (closed) return;
    buffer = buffer.length === 0 ? chunk : Buffer.concat([buffer, chunk]);
    try {
      while (take());
    } catch {
      // 1002: protocol error
      close(Buffer.from([1002 >> 8, 1002 & 0xff]));
      stream.push(null);
    }
  });
  socket.on("end", () => {
    if (!closed) stream.push(null);
  });
  socket.on("close", () => stream.destroy());
  socket.on("error", () => stream.destroy());
  return stream;
}
