import { expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { Duplex } from "node:stream";
import { acceptHandshake, websocket } from "./websocket.ts";

test("the handshake of RFC 6455, 1.3; others are refused", () => {
  const headers = {
    upgrade: "websocket",
    connection: "keep-alive, Upgrade",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
  };
  expect(acceptHandshake(headers)).toEqual({ "Sec-WebSocket-Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" });
  for (const wrong of [{ upgrade: "tcp" }, { "sec-websocket-version": "8" }, { "sec-websocket-key": "short" }, { connection: "close" }])
    expect(() => acceptHandshake({ ...headers, ...wrong })).toThrow(/websocket|WebSocket/);
});

/** A connection whose other end is the test. */
function connection() {
  const sent: Buffer[] = [];
  const duplex: Duplex = new Duplex({
    read() {},
    write(chunk, _encoding, callback) {
      sent.push(chunk);
      callback();
    },
  });
  return { duplex, sent: () => Buffer.concat(sent) };
}

function masked(opcode: number, payload: Buffer, final = true): Buffer {
  const mask = randomBytes(4);
  const { length } = payload;
  const head = Buffer.alloc(length < 126 ? 2 : length < 65536 ? 4 : 10);
  head[0] = (final ? 0x80 : 0) | opcode;
  head[1] = 0x80 | (length < 126 ? length : length < 65536 ? 126 : 127);
  if (head.length === 4) head.writeUInt16BE(length, 2);
  if (head.length === 10) head.writeBigUInt64BE(BigInt(length), 2);
  return Buffer.concat([head, mask, payload.map((byte, i) => byte ^ mask[i & 3]!)]);
}

test("payloads of all lengths come through, in whatever pieces; pings are answered; a goodbye ends it", async () => {
  const { duplex, sent } = connection();
  const stream = websocket(duplex, true);
  const got: Buffer[] = [];
  stream.on("data", (chunk: Buffer) => got.push(chunk));
  const ended = new Promise((resolve) => stream.once("end", resolve));
  const payloads = [0, 5, 125, 126, 65_535, 65_536, 200_000].map((length) => randomBytes(length));
  const wire = Buffer.concat([
    ...payloads.map((payload) => masked(2, payload)),
    masked(1, Buffer.from("in "), false),
    masked(9, Buffer.from("still there?")),
    masked(0, Buffer.from("parts")),
    masked(8, Buffer.from([3, 232])),
  ]);
  for (let at = 0, size = 1; at < wire.length; at += size, size = (size * 7) % 3001) duplex.push(wire.subarray(at, at + size));
  await ended;
  expect(Buffer.concat(got).equals(Buffer.concat([...payloads, Buffer.from("in parts")]))).toBe(true);
  expect(sent()).toEqual(Buffer.concat([Buffer.from([0x8a, 12]), Buffer.from("still there?"), Buffer.from([0x88, 2, 3, 232])]));
});

test("output goes in frames of the right length, and ends with a goodbye", async () => {
  for (const [length, head] of [
    [3, [0x82, 3]],
    [300, [0x82, 126, 1, 44]],
    [70_000, [0x82, 127, 0, 0, 0, 0, 0, 1, 17, 112]],
  ] as [number, number[]][]) {
    const { duplex, sent } = connection();
    const stream = websocket(duplex, true);
    stream.end(Buffer.alloc(length, "x"));
    await new Promise((resolve) => stream.once("finish", resolve));
    expect(sent()).toEqual(Buffer.concat([Buffer.from(head), Buffer.alloc(length, "x"), Buffer.from([0x88, 2, 3, 232])]));
  }
});

test("what breaks the protocol is told so and ended", async () => {
  const unmaskedFrame = Buffer.from([0x82, 1, 65]);
  for (const wire of [unmaskedFrame, masked(3, Buffer.from("x")), masked(9, Buffer.alloc(126)), Buffer.from([0xf2, 0x80, 0, 0, 0, 0])]) {
    const { duplex, sent } = connection();
    const stream = websocket(duplex, true);
    stream.resume();
    const ended = new Promise((resolve) => stream.once("end", resolve));
    duplex.push(wire);
    await ended;
    expect([...sent()]).toEqual([0x88, 2, 3, 234]);
  }
});
