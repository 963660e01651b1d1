import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer as createSocketServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { conflict } from "../lib/errors.ts";
import { type Answer, hijacked, type Route } from "./route.ts";
import { createRouter, createServer, negotiate } from "./server.ts";

const directory = mkdtempSync(join(tmpdir(), "jubako-core-server-"));
const path = join(directory, "s.sock");
let server: Server;
let aborted = 0;

function echo(connection: Socket | import("node:stream").Duplex): void {
  connection.on("data", (data: Buffer) => connection.write(`<${data}>`));
  connection.on("end", () => connection.end("bye"));
}

const routes: Route[] = [
  { method: "GET", path: "/plain", handle: () => ({ text: "hello" }) },
  { method: "GET", path: "/images/{name...}/json", handle: ({ params, version }) => ({ json: { name: params.name, version } }) },
  { method: "GET", path: "/conflict", handle: () => Promise.reject(conflict('name "/x" is taken')) },
  { method: "POST", path: "/json", handle: async (call) => ({ status: 201, json: await call.json() }) },
  {
    method: "PUT",
    path: "/count",
    async handle({ body }) {
      let length = 0;
      for await (const chunk of body) length += (chunk as Buffer).length;
      return { json: { length } };
    },
  },
  {
    method: "POST",
    path: "/hijack",
    async handle(call): Promise<Answer> {
      const said = await call.json();
      const connection = call.hijack("application/vnd.docker.raw-stream");
      if (said) connection.write(JSON.stringify(said));
      echo(connection);
      return hijacked;
    },
  },
  {
    method: "GET",
    path: "/endless",
    handle: ({ signal }) => ({
      type: "text/plain",
      stream: (async function* () {
        signal.addEventListener("abort", () => aborted++);
        yield "first";
        await new Promise(() => {});
      })(),
    }),
  },
  {
    method: "GET",
    path: "/chunks",
    handle: () => ({
      type: "text/plain",
      stream: (async function* () {
        for (let i = 0; i < 3; i++) yield `chunk${i};`;
      })(),
    }),
  },
];

beforeAll(async () => {
  const serve = createServer({ routes, traceDir: directory, log: () => {} });
  server = createSocketServer({ allowHalfOpen: true }, serve);
  await new Promise<void>((resolve) => server.listen(path, resolve));
});
afterAll(() => {
  server.close();
  rmSync(directory, { recursive: true });
});

/** Sends the parts one after another with a pause, half-closes if asked, and gives everything that came back. */
async function talk(parts: string[], options: { end?: boolean; ms?: number } = {}): Promise<string> {
  const socket = connect({ path, allowHalfOpen: true });
  let text = "";
  socket.on("data", (data) => {
    text += data;
  });
  const closed = new Promise<void>((resolve) => socket.on("end", () => resolve()));
  for (const part of parts) {
    socket.write(part);
    await Bun.sleep(20);
  }
  if (options.end) socket.end();
  await Promise.race([closed, Bun.sleep(options.ms ?? 100)]);
  socket.destroy();
  return text;
}

test("versions outside 1.24 … 1.56 are refused with Docker's sentences", () => {
  expect(negotiate("/v1.40/info")).toEqual({ version: 40, path: "/info" });
  expect(negotiate("/volumes/v1")).toEqual({ version: 56, path: "/volumes/v1" });
  expect(() => negotiate("/v1.57/info")).toThrow("client version 1.57 is too new. Maximum supported API version is 1.56");
  expect(() => negotiate("/v1.23/info")).toThrow("client version 1.23 is too old. Minimum supported API version is 1.24");
});

test("fixed paths win over parameters, and image names span slashes", () => {
  const handle = () => ({ text: "" });
  const route = createRouter([
    { method: "GET", path: "/networks/{id}", handle },
    { method: "GET", path: "/networks/prune", handle },
    { method: "GET", path: "/images/{name...}/json", handle },
  ]);
  expect(route("GET", "/networks/prune")?.route.path).toBe("/networks/prune");
  expect(route("GET", "/images/localhost:5000/a/b:c/json")?.params).toEqual({ name: "localhost:5000/a/b:c" });
  expect(route("GET", "/images/a%2Fb%40sha256:0/json")?.params).toEqual({ name: "a/b@sha256:0" });
  expect(route("POST", "/networks/prune")).toBeUndefined();
  expect(() => route("GET", "/networks/%zz")).toThrow("percent");
});

test("requests of one connection are answered in turn", async () => {
  const text = await talk(["GET /plain HTTP/1.1\r\nHost: d\r\n\r\nGET /v1.40/images/a/b/json HTTP/1.1\r\nHost: d\r\n\r\n"]);
  expect(text.match(/HTTP\/1\.1 200 OK/g)).toHaveLength(2);
  expect(text.indexOf("hello")).toBeLessThan(text.indexOf('{"name":"a/b","version":40}'));
});

test("a failure becomes its status with a message", async () => {
  const text = await talk(["GET /conflict HTTP/1.1\r\n\r\n"]);
  expect(text).toStartWith("HTTP/1.1 409 Conflict");
  expect(text).toEndWith('{"message":"name \\"/x\\" is taken"}\n');
  expect(await talk(["GET /nowhere HTTP/1.1\r\n\r\n"])).toStartWith("HTTP/1.1 404");
  expect(await talk(["POST /swarm/init HTTP/1.1\r\n\r\n"])).toStartWith("HTTP/1.1 501");
});

test("JSON bodies: whole, chunked, malformed, of a wrong type, awaited with 100-continue", async () => {
  const post = (headers: string, body: string) => [`POST /json HTTP/1.1\r\n${headers}\r\n\r\n`, body];
  expect(await talk(post("Content-Type: application/json\r\nContent-Length: 7", '{"a":1}'))).toEndWith('{"a":1}\n');
  expect(await talk(post("Content-Type: application/json\r\nTransfer-Encoding: chunked", '4\r\n{"a"\r\n3\r\n:1}\r\n0\r\n\r\n'))).toEndWith(
    '{"a":1}\n',
  );
  expect(await talk(post("Content-Type: application/json\r\nContent-Length: 2", "{]"))).toStartWith("HTTP/1.1 400");
  expect(await talk(post("Content-Type: text/html\r\nContent-Length: 2", "{}"))).toContain("must be 'application/json'");
  expect(await talk(post("Content-Type: application/json\r\nContent-Length: 2\r\nExpect: 100-continue", "{}"))).toStartWith(
    "HTTP/1.1 100 Continue",
  );
});

test("malformed requests are refused", async () => {
  expect(await talk(["nonsense\r\n\r\n"])).toStartWith("HTTP/1.1 400");
  expect(await talk(["GET / HTTP/1.1\r\nno colon\r\n\r\n"])).toStartWith("HTTP/1.1 400");
  expect(await talk(["POST /json HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"])).toStartWith("HTTP/1.1 400");
  expect(await talk([`GET / HTTP/1.1\r\nX: ${"y".repeat(70000)}`])).toStartWith("HTTP/1.1 431");
});

test("a large body flows with backpressure", async () => {
  const size = 5_000_000;
  const text = await talk([`PUT /count HTTP/1.1\r\nContent-Length: ${size}\r\nConnection: close\r\n\r\n`, "x".repeat(size)], { ms: 3000 });
  expect(text).toEndWith(`{"length":${size}}\n`);
});

test("chunked answers keep the connection", async () => {
  const text = await talk(["GET /chunks HTTP/1.1\r\n\r\n", "GET /plain HTTP/1.1\r\n\r\n"]);
  expect(text).toContain("7\r\nchunk0;\r\n7\r\nchunk1;\r\n7\r\nchunk2;\r\n0\r\n\r\nHTTP/1.1 200 OK");
});

test("a client that leaves aborts its stream", async () => {
  const before = aborted;
  await talk(["GET /endless HTTP/1.1\r\n\r\n"]);
  await Bun.sleep(50);
  expect(aborted).toBe(before + 1);
});

test("a connection is taken over with an upgrade: body first, early data, half-close", async () => {
  const head =
    "POST /hijack HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n";
  const text = await talk([`${head}{"a":1}early`, "more"], { end: true });
  expect(text).toStartWith("HTTP/1.1 101 UPGRADED\r\n");
  expect(text).toContain("Upgrade: tcp\r\n");
  expect(text.split("\r\n\r\n")[1]).toBe('{"a":1}<early><more>bye');
});

test("a connection is taken over without an upgrade", async () => {
  const text = await talk(["POST /hijack HTTP/1.1\r\n\r\n", "one", "two"], { end: true });
  expect(text).toStartWith("HTTP/1.1 200 OK\r\n");
  expect(text.split("\r\n\r\n")[1]).toBe("<one><two>bye");
});
