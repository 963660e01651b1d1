import { afterAll, expect, test } from "bun:test";
import { createSocket, type Socket } from "node:dgram";
import { createServer, type Server } from "node:net";
import { createForwarder } from "./forward.ts";
import { answers, framed, frames, parseQuery, pointer, RCODE, rcodeOf, reply, reverseAddress, TYPE } from "./message.ts";

function query(name: string, type: number = TYPE.A, id = 0x1234): Uint8Array {
  const labels = name.split(".").flatMap((label) => [label.length, ...Buffer.from(label)]);
  return Uint8Array.from([id >> 8, id & 255, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, ...labels, 0, type >> 8, type & 255, 0, 1]);
}

test("a query is read, and what is none is not", () => {
  const q = query("Web.Example");
  expect(parseQuery(q)).toEqual({ id: 0x1234, name: "web.example", type: 1, class: 1, end: q.length });
  expect(parseQuery(q.subarray(0, q.length - 1))).toBeUndefined();
  expect(parseQuery(new Uint8Array(0))).toBeUndefined();
  const response = q.slice();
  response[2]! |= 0x80;
  expect(parseQuery(response)).toBeUndefined();
  const compressed = q.slice();
  compressed[12] = 0xc0;
  expect(parseQuery(compressed)).toBeUndefined();
  expect(parseQuery(query("a".repeat(63)))?.name.length).toBe(63);
});

test("answers: records, no data, and the question kept as it was asked", () => {
  const q = query("db");
  const parsed = parseQuery(q)!;
  const found = reply(q, parsed, RCODE.ok, [{ type: TYPE.A, data: Uint8Array.of(10, 0, 0, 2) }]);
  expect(answers(q, parsed.end, found)).toBe(true);
  expect([...found.slice(-4)]).toEqual([10, 0, 0, 2]);
  expect(found[7]).toBe(1);
  expect(answers(query("dB"), parsed.end, found)).toBe(false);
  expect(rcodeOf(reply(q, parsed, RCODE.serverFailure))).toBe(2);
  expect([...pointer("c1.net").data]).toEqual([2, 99, 49, 3, 110, 101, 116, 0]);
});

test("reverse names", () => {
  expect(reverseAddress("2.0.17.172.in-addr.arpa")).toEqual(Uint8Array.of(172, 17, 0, 2));
  expect(reverseAddress("2.0.17.in-addr.arpa")).toBeUndefined();
  expect(reverseAddress(`${"1.".repeat(1)}${"0.".repeat(23)}8.b.d.0.1.0.0.2.ip6.arpa`)?.[1]).toBe(0x01);
});

test("messages over a stream come out whole, however they were cut", () => {
  const cut = frames();
  const bytes = new Uint8Array([...framed(query("a")), ...framed(query("bb"))]);
  const out: Uint8Array[] = [];
  for (const byte of bytes) out.push(...cut(Uint8Array.of(byte)));
  expect(out).toEqual([query("a"), query("bb")]);
});

const open: (Socket | Server)[] = [];
afterAll(() => {
  for (const one of open) one.close();
});

/** A resolver on its own loopback address that answers with `data`, or with a code, or not at all. */
async function upstream(address: string, port: number, answer: Uint8Array | number | undefined): Promise<{ asked: number; port: number }> {
  const state = { asked: 0, port: 0 };
  const respond = (message: Uint8Array): Uint8Array | undefined => {
    state.asked++;
    const parsed = parseQuery(message)!;
    if (answer === undefined) return undefined;
    return typeof answer === "number" ? reply(message, parsed, answer) : reply(message, parsed, 0, [{ type: TYPE.A, data: answer }]);
  };
  const udp = createSocket("udp4");
  udp.on("message", (message, from) => {
    const out = respond(message);
    if (out) udp.send(out, from.port, from.address);
  });
  await new Promise<void>((resolve) => udp.bind(port, address, resolve));
  state.port = udp.address().port;
  const tcp = createServer((socket) => {
    const cut = frames();
    socket.on("data", (chunk) => {
      for (const message of cut(chunk)) {
        const out = respond(message);
        if (out) socket.write(framed(out));
      }
    });
    socket.on("error", () => {});
  });
  await new Promise<void>((resolve) => tcp.listen(state.port, address, resolve));
  open.push(udp, tcp);
  return state;
}

test("a dead first resolver costs one short wait, then nothing; SERVFAIL goes to the next", async () => {
  const dead = await upstream("127.0.0.2", 0, undefined);
  const alive = await upstream("127.0.0.3", dead.port, Uint8Array.of(1, 2, 3, 4));
  const failing = await upstream("127.0.0.4", dead.port, RCODE.serverFailure);
  const forwarder = createForwarder(dead.port);
  const ask = async (servers: string[], kind: "udp" | "tcp" = "udp") => {
    const q = query("example.org", TYPE.A, 77);
    const start = performance.now();
    const found = await forwarder.ask(q, q.length, kind, servers);
    return {
      ms: performance.now() - start,
      last: found && [...found.slice(-4)],
      id: found && (found[0]! << 8) | found[1]!,
      rcode: found && rcodeOf(found),
    };
  };
  const first = await ask(["127.0.0.2", "127.0.0.3"]);
  expect(first).toMatchObject({ last: [1, 2, 3, 4], id: 77 });
  expect(first.ms).toBeLessThan(1200);
  await ask(["127.0.0.2", "127.0.0.3"]);
  const third = await ask(["127.0.0.2", "127.0.0.3"]);
  expect(third.ms).toBeLessThan(150);
  expect(await ask(["127.0.0.4", "127.0.0.3"])).toMatchObject({ last: [1, 2, 3, 4] });
  expect(await ask(["127.0.0.4"])).toMatchObject({ rcode: RCODE.serverFailure, id: 77 });
  expect(await ask(["127.0.0.3"], "tcp")).toMatchObject({ last: [1, 2, 3, 4] });
  expect(alive.asked).toBeGreaterThan(3);
  expect(failing.asked).toBeGreaterThan(0);
  expect(await forwarder.ask(query("x"), query("x").length, "udp", [])).toBeUndefined();
  expect(forwarder.health().find((h) => h.server === "127.0.0.3")?.failures).toBe(0);
  expect(forwarder.health().find((h) => h.server === "127.0.0.2")!.failures).toBeGreaterThanOrEqual(2);
});
