// The framed stream of attach, exec and logs without a terminal: [stream, 0, 0, 0, size as 4 bytes big-endian] and then the bytes.
import { Buffer } from "node:buffer";
import { unavailable } from "../lib/errors.ts";

/** Takes the bytes as they come and calls back with pieces of standard output (1) and standard error (2); a frame may come in several pieces. */
export function demultiplexer(onPiece: (stream: 1 | 2, piece: Buffer) => void): (chunk: Buffer) => void {
  let head: Buffer = Buffer.alloc(0);
  let stream = 1;
  let left = 0;
  let complaint: Buffer[] | undefined;
  return (chunk) => {
    let at = 0;
    while (at < chunk.length) {
      if (left > 0) {
        const piece = chunk.subarray(at, at + left);
        at += piece.length;
        left -= piece.length;
        if (stream === 3) {
          complaint ??= [];
          complaint.push(piece);
          if (left === 0) throw unavailable(`error from daemon in stream: ${Buffer.concat(complaint).toString("utf8")}`);
        } else {
          onPiece(stream === 2 ? 2 : 1, piece);
        }
        continue;
      }
      const part = chunk.subarray(at, at + 8 - head.length);
      at += part.length;
      head = head.length === 0 ? part : Buffer.concat([head, part]);
      if (head.length < 8) {
        // The chunk's memory is the socket's: keep a copy.
        head = Buffer.from(head);
        return;
      }
      stream = head[0]!;
      if (stream > 3) throw unavailable(`Unrecognized input header: ${stream}`);
      left = head.readUInt32BE(4);
      head = head.subarray(0, 0);
    }
  };
}
