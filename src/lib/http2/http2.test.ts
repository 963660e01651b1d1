import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer as createHttp2Server, type Http2Server, connect as http2Connect } from "node:http2";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FLAG, frame, PREFACE, settings, TYPE } from "./frames.ts";
import { createDecoder, encodeFields } from "./hpack.ts";
import { decodeHuffman } from "./huffman.ts";
import { type Connection, createConnection, type Fields, type Stream, type StreamListener, type Wire } from "./index.ts";

const wireOf = (socket: Socket): Wire => ({
  write: (bytes) => socket.write(bytes),
  drained: () => new Promise((resolve) => socket.once("drain", resolve).once("close", resolve)),
  end: () => socket.end(),
  destroy: () => socket.destroy(),
});

function attach(socket: Socket, connection: Connection): void {
  socket.on("data", (bytes) => connection.receive(bytes));
  socket.on("close", () => connection.end());
  socket.on("error", () => connection.end());
}

/** Sends back what comes, with the request's fields as trailers. */
function echo(stream: Stream): StreamListener {
  let request: Fields = [];
  return {
    fields(fields, last) {
      request = fields.filter(([name]) => name.startsWith("x-"));
      stream.fields([[":status", "200"]], false);
      if (last) stream.end(request);
    },
    data(bytes, last) {
      stream.write(bytes, false);
      if (last) stream.end(request);
    },
    drained() {},
    closed() {},
  };
}

describe("HPACK", () => {
  // RFC 7541, C.4.1 and C.6.1
  test.each([
    ["f1e3c2e5f23a6ba0ab90f4ff", "www.example.com"],
    ["9d29ad171863c78f0b97c8e9ae82ae43d3", "https://www.example.com"],
    ["6402", "302"],
  ])("the Huffman code of %s", (hex, text) => expect(decodeHuffman(Buffer.from(hex, "hex"))).toBe(text));

  test("padding that is no beginning of EOS, or too long, is refused", () => {
    expect(decodeHuffman(Buffer.from("18", "hex"))).toBeUndefined();
    expect(decodeHuffman(Buffer.from("6402ff", "hex"))).toBeUndefined();
  });

  test("RFC 7541, C.3: requests with a dynamic table", () => {
    const decoder = createDecoder();
    const decode = (hex: string) => decoder.decode(Buffer.from(hex, "hex"), 1 << 20).map(([name, value]) => `${name}: ${value}`);
    expect(decode("828684410f7777772e6578616d706c652e636f6d")).toContain(":authority: www.example.com");
    expect(decode("828684be58086e6f2d6361636865")).toEqual([
      ":method: GET",
      ":scheme: http",
      ":path: /",
      ":authority: www.example.com",
      "cache-control: no-cache",
    ]);
    expect(decode("828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565")).toEqual([
      ":method: GET",
      ":scheme: https",
      ":path: /index.html",
      ":authority: www.example.com",
      "custom-key: custom-value",
    ]);
  });

  test("what is encoded is decoded as it was", () => {
    const all = Array.from({ length: 224 }, (_, i) => String.fromCharCode(i + 32)).join("");
    const fields: Fields = [
      [":method", "POST"],
      [":path", "/a"],
      ["content-type", "x"],
      ["x-all", all],
      ["x-long", "y".repeat(20_000)],
    ];
    expect(createDecoder().decode(encodeFields(fields, true), 1 << 20)).toEqual(fields.map(([name, value]) => [name, value]));
  });

  test.each([["ff"], ["80"], ["ffffffffff"], ["4005616263"], ["3fe1ff7f"], ["c0"]])("the malformed block %s is refused", (hex) =>
    expect(() => createDecoder().decode(Buffer.from(hex, "hex"), 1 << 20)).toThrow(),
  );

  test("a bomb is refused: many references to one long entry", () => {
    const entry = encodeFields([["x-bomb", "z".repeat(3000)]], false);
    entry[0] = 0x40;
    const block = Buffer.concat([entry, Buffer.alloc(10_000, 0x80 | 62)]);
    expect(() => createDecoder().decode(block, 4 << 20)).toThrow("too long");
  });
});

describe("a server", () => {
  let dir: string;
  let server: Server;
  let path: string;
  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), "jubako-http2-"));
    path = join(dir, "socket");
    server = createServer((socket) => {
      attach(socket, createConnection(wireOf(socket), "server", { accept: echo, window: 100_000, closed() {} }));
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
  });
  afterAll(() => {
    server.close();
    rmSync(dir, { recursive: true, force: true });
  });

  test("node:http2 sends fields of all letters, and gets a large body back", async () => {
    const session = http2Connect("http://localhost", { createConnection: () => connect(path) });
    const all = Array.from({ length: 94 }, (_, i) => String.fromCharCode(i + 33)).join("");
    const call = session.request({ ":method": "POST", ":path": "/", "x-all": all, "x-big": "b".repeat(40_000) });
    const body = Buffer.alloc(3_000_000, "0123456789");
    const chunks: Buffer[] = [];
    let trailers: Record<string, unknown> = {};
    call.on("data", (chunk: Buffer) => chunks.push(chunk));
    call.on("trailers", (fields) => {
      trailers = fields;
    });
    call.end(body);
    await new Promise((resolve, reject) => call.on("close", resolve).on("error", reject));
    expect(Buffer.concat(chunks).equals(body)).toBe(true);
    expect(trailers["x-all"]).toBe(all);
    expect(trailers["x-big"]).toBe("b".repeat(40_000));
    session.destroy();
  });

  /** What a peer gets back that sends these; undefined where the connection is still open. */
  function talk(accept: (stream: Stream) => StreamListener, pieces: Uint8Array[]): Buffer | undefined {
    const sent: Uint8Array[] = [];
    let over = false;
    const wire: Wire = { write: (bytes) => sent.push(bytes) > 0, drained: async () => {}, end() {}, destroy() {} };
    const connection = createConnection(wire, "server", {
      accept,
      window: 100_000,
      closed() {
        over = true;
      },
    });
    for (const piece of pieces) connection.receive(Buffer.from(piece));
    return over ? Buffer.concat(sent) : undefined;
  }
  /** One that reads nothing. */
  const stuck = (stream: Stream): StreamListener => ({ ...echo(stream), fields: () => stream.pause(), data() {} });
  const head = (id: number) => frame(TYPE.HEADERS, FLAG.END_HEADERS, id, encodeFields([[":method", "POST"]], false));

  test.each<[string, Uint8Array[]]>([
    ["no preface", [Buffer.from("GET / HTTP/1.1\r\nHost: x\r\n\r\n")]],
    ["a frame that is too long", [PREFACE, settings([]), Buffer.from("01ffff000000000001", "hex")]],
    [
      "headers that never end",
      [PREFACE, frame(TYPE.HEADERS, 0, 1, Buffer.alloc(10)), ...Array<Buffer>(1100).fill(frame(TYPE.CONTINUATION, 0, 1, Buffer.alloc(0)))],
    ],
    ["data before any headers", [PREFACE, frame(TYPE.DATA, 0, 1, Buffer.alloc(10))]],
    ["something else within headers", [PREFACE, frame(TYPE.HEADERS, 0, 1, Buffer.alloc(0)), frame(TYPE.PING, 0, 0, Buffer.alloc(8))]],
    ["padding longer than its frame", [PREFACE, frame(TYPE.HEADERS, FLAG.PADDED | FLAG.END_HEADERS, 1, Buffer.from([200, 0]))]],
    ["an even stream", [PREFACE, head(2)]],
    ["a malformed header block", [PREFACE, frame(TYPE.HEADERS, FLAG.END_HEADERS, 1, Buffer.from([0xff, 0xff, 0xff, 0xff, 0xff]))]],
    ["more data than the window", [PREFACE, head(1), ...Array<Buffer>(20).fill(frame(TYPE.DATA, 0, 1, Buffer.alloc(16_000)))]],
    ["a push", [PREFACE, frame(TYPE.PUSH_PROMISE, 0, 1, Buffer.alloc(4))]],
    [
      "too many resets",
      [
        PREFACE,
        ...Array.from({ length: 2100 }, (_, i) => Buffer.concat([head(2 * i + 1), frame(TYPE.RST_STREAM, 0, 2 * i + 1, Buffer.alloc(4))])),
      ],
    ],
  ])("%s ends the connection with a reason", (_, pieces) => {
    expect(talk(stuck, pieces)?.includes(frame(TYPE.GOAWAY, 0, 0, Buffer.alloc(8)).subarray(0, 9))).toBe(true);
  });

  test("noise does no harm", () => {
    let seed = 1;
    const random = () => {
      seed = (seed * 1103515245 + 12345) & 0x7fffffff;
      return seed;
    };
    for (let i = 0; i < 300; i++) {
      let closed = false;
      const wire: Wire = { write: () => true, drained: async () => {}, end() {}, destroy() {} };
      const connection = createConnection(wire, "server", {
        accept: echo,
        window: 1000,
        closed: () => {
          closed = true;
        },
      });
      connection.receive(PREFACE);
      for (let j = 0; j < 40 && !closed; j++) {
        const payload = Buffer.from(Array.from({ length: random() % 40 }, () => random() >> 8));
        connection.receive(frame(random() % 11, random() >> 4, random() % 8, payload));
      }
      connection.close();
    }
  });
});

describe("a client", () => {
  let dir: string;
  let server: Http2Server;
  let path: string;
  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), "jubako-http2-"));
    path = join(dir, "socket");
    server = createHttp2Server();
    server.on("stream", (stream, headers) => {
      if (headers[":path"] === "/reset") return stream.close(8);
      stream.respond({ ":status": 200, "x-back": String(headers["x-there"]) }, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "x-last": "yes" }));
      stream.pipe(stream);
    });
    await new Promise<void>((resolve) => server.listen(path, resolve));
  });
  afterAll(() => {
    server.close();
    rmSync(dir, { recursive: true, force: true });
  });

  async function call(target: string, body: Buffer) {
    const socket = connect(path);
    const connection = createConnection(wireOf(socket), "client", { window: 50_000, closed() {} });
    attach(socket, connection);
    const got: { fields: Fields; body: Buffer[]; error: Error | undefined } = { fields: [], body: [], error: undefined };
    await new Promise<void>((resolve) => {
      let at = 0;
      const more = () => {
        while (at < body.length) {
          const room = stream.write(body.subarray(at, at + 100_000), at + 100_000 >= body.length);
          at += 100_000;
          if (!room) return;
        }
      };
      const stream = connection.open({
        fields: (fields) => {
          got.fields = [...got.fields, ...fields];
        },
        data: (bytes) => void got.body.push(Buffer.from(bytes)),
        drained: more,
        closed(error) {
          got.error = error;
          resolve();
        },
      });
      const fields: Fields = [
        [":method", "POST"],
        [":scheme", "http"],
        [":path", target],
        [":authority", "x"],
        ["x-there", "ok"],
      ];
      stream.fields(fields, body.length === 0);
      more();
    });
    connection.close();
    return { ...got, body: Buffer.concat(got.body) };
  }

  test("sends more than any window holds, and gets it back with trailers", async () => {
    const body = Buffer.alloc(2_000_000, "abcdefg");
    const answer = await call("/", body);
    expect(answer.error).toBeUndefined();
    expect(answer.body.equals(body)).toBe(true);
    expect(answer.fields).toContainEqual(["x-back", "ok"]);
    expect(answer.fields).toContainEqual(["x-last", "yes"]);
  });

  test("hears of a reset", async () => {
    expect((await call("/reset", Buffer.alloc(0))).error).toBeInstanceOf(Error);
  });
});
