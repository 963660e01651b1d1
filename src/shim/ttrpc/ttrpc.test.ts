import { afterAll, beforeAll, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { mkdirSync, rmSync } from "node:fs";
import { connect, createServer, type Server } from "node:net";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { Task } from "../../gen/containerd/task/v2_pb.ts";
import { RequestSchema, ResponseSchema } from "../../gen/ttrpc_pb.ts";
import { notFound, unimplemented } from "../../lib/errors.ts";
import { encodeFrame, type Frame, frameReader, HEADER, MAX_MESSAGE, REQUEST } from "./frame.ts";
import { createTtrpcClient, type Implementation, serveTtrpc } from "./index.ts";

const dir = `/tmp/jubako-shim-ttrpc-${randomBytes(4).toString("hex")}`;
const servers: Server[] = [];
beforeAll(() => {
  mkdirSync(dir);
});
afterAll(() => {
  for (const server of servers) server.close();
  rmSync(dir, { recursive: true });
});

const refuse = () => {
  throw unimplemented("not in this test");
};
const names = Object.keys(Task.method) as (keyof typeof Task.method)[];
const base = Object.fromEntries(names.map((name) => [name, refuse])) as unknown as Implementation<typeof Task>;

let count = 0;
async function serve(
  implementation: Partial<Implementation<typeof Task>>,
): Promise<{ path: string; server: Server; sockets: Set<{ destroy(): void }> }> {
  const server = createServer();
  const sockets = new Set<{ destroy(): void }>();
  server.on("connection", (socket) => sockets.add(socket));
  serveTtrpc(server, Task, { ...base, ...implementation });
  const path = `${dir}/${count++}.sock`;
  await new Promise<void>((resolve) => server.listen(path, resolve));
  servers.push(server);
  return { path, server, sockets };
}

/** Sends raw bytes, returns the frames that come back until `wanted` of them are there. */
function raw(path: string, chunks: Uint8Array[], wanted: number): Promise<Frame[]> {
  return new Promise((resolve, reject) => {
    const frames: Frame[] = [];
    const socket = connect({ path });
    socket.on(
      "data",
      frameReader((frame) => {
        frames.push({ ...frame, message: frame.message && Uint8Array.from(frame.message) });
        if (frames.length === wanted) {
          socket.destroy();
          resolve(frames);
        }
      }),
    );
    socket.on("error", reject);
    socket.on("close", () => resolve(frames));
    void (async () => {
      for (const chunk of chunks) {
        socket.write(chunk);
        await new Promise((r) => setTimeout(r, 1));
      }
    })();
  });
}

const request = (service: string, method: string, payload = new Uint8Array(0)) =>
  toBinary(RequestSchema, create(RequestSchema, { service, method, payload }));
const status = (frame: Frame) => fromBinary(ResponseSchema, frame.message!).status;

test("a call goes there and back, with metadata, and errors keep their kind", async () => {
  const { path } = await serve({
    connect: (request, context) => ({ shimPid: 7, taskPid: request.id.length, version: context.metadata("who") ?? "" }),
    state: async (request) => {
      throw notFound(`container ${request.id}: not found`);
    },
  });
  const client = createTtrpcClient(Task, `unix://${path}`);
  const answer = await client.connect({ id: "abc" }, { metadata: { who: "me" } });
  expect([answer.shimPid, answer.taskPid, answer.version]).toEqual([7, 3, "me"]);
  const error = await client.state({ id: "x" }).catch((e) => e);
  expect([error.kind, error.message]).toEqual(["NotFound", "container x: not found"]);
  expect((await client.pids({ id: "x" }).catch((e) => e)).kind).toBe("Unimplemented");
  client.close();
});

test("many calls share a connection and finish in any order", async () => {
  const { path } = await serve({
    connect: async (request) => {
      await new Promise((resolve) => setTimeout(resolve, 20 - Number(request.id)));
      return { taskPid: Number(request.id) };
    },
  });
  const client = createTtrpcClient(Task, path);
  const answers = await Promise.all(Array.from({ length: 20 }, (_, i) => client.connect({ id: String(i) })));
  expect(answers.map((a) => a.taskPid)).toEqual(Array.from({ length: 20 }, (_, i) => i));
  client.close();
});

test("a deadline and a signal end the waiting; the handler can see both", async () => {
  let aborted = 0;
  let asked = 0;
  const until = async (done: () => boolean) => {
    for (let tries = 0; tries < 200 && !done(); tries++) await new Promise((resolve) => setTimeout(resolve, 5));
  };
  const { path } = await serve({
    wait: (_, context) =>
      new Promise((resolve) => {
        asked++;
        context.signal.addEventListener("abort", () => {
          aborted++;
          resolve({});
        });
      }),
  });
  const client = createTtrpcClient(Task, path);
  expect((await client.wait({ id: "a" }, { timeoutMs: 20 }).catch((e) => e)).kind).toBe("DeadlineExceeded");
  const giveUp = new AbortController();
  const pending = client.wait({ id: "a" }, { signal: giveUp.signal }).catch((e) => e);
  await until(() => asked === 2);
  giveUp.abort();
  expect((await pending).kind).toBe("Cancelled");
  client.close();
  await until(() => aborted === 2);
  expect(aborted).toBe(2);
});

test("a closed connection rejects all calls with Unavailable", async () => {
  const { path, sockets } = await serve({ wait: () => new Promise(() => {}) });
  const client = createTtrpcClient(Task, path);
  const calls = [client.wait({ id: "a" }), client.wait({ id: "b" })].map((call) => call.catch((e) => e.kind));
  await new Promise((resolve) => setTimeout(resolve, 30));
  for (const socket of sockets) socket.destroy();
  expect(await Promise.all(calls)).toEqual(["Unavailable", "Unavailable"]);
  await client.closed;
  expect((await client.wait({ id: "c" }).catch((e) => e)).kind).toBe("Unavailable");
  const nobody = createTtrpcClient(Task, `${dir}/nobody.sock`);
  expect((await nobody.wait({ id: "c" }).catch((e) => e)).kind).toBe("Unavailable");
});

test("malformed requests are answered, and the connection stays usable", async () => {
  const { path } = await serve({ connect: () => ({ shimPid: 1 }) });
  const good = request("containerd.task.v2.Task", "Connect");
  const frames = await raw(
    path,
    [
      encodeFrame(1, REQUEST, 0, new Uint8Array([0xff, 0xff, 0xff])),
      encodeFrame(2, REQUEST, 0, good),
      encodeFrame(3, REQUEST, 0, request("no.such.Service", "X")),
      encodeFrame(5, REQUEST, 0, request("containerd.task.v2.Task", "X")),
      encodeFrame(7, REQUEST, 0, request("containerd.task.v2.Task", "Connect", new Uint8Array([0x0a, 0xff]))),
      encodeFrame(9, 99, 0, good),
      encodeFrame(11, REQUEST, 0, good),
    ],
    6,
  );
  expect(frames.map((f) => [f.stream, status(f)?.code ?? 0])).toEqual([
    [1, 3],
    [2, 3],
    [3, 12],
    [5, 12],
    [7, 3],
    [11, 0],
  ]);
});

test("a frame that claims too much is refused and skipped, byte by byte frames are put together", async () => {
  const { path } = await serve({ connect: () => ({ shimPid: 1 }) });
  const huge = Buffer.alloc(HEADER + MAX_MESSAGE + 1);
  huge.writeUInt32BE(MAX_MESSAGE + 1, 0);
  huge.writeUInt32BE(1, 4);
  huge[8] = REQUEST;
  const good = encodeFrame(3, REQUEST, 0, request("containerd.task.v2.Task", "Connect"));
  const frames = await raw(path, [huge, ...Array.from(good, (_, i) => good.subarray(i, i + 1))], 2);
  expect(frames.map((f) => [f.stream, status(f)?.code ?? 0])).toEqual([
    [1, 8],
    [3, 0],
  ]);
  const client = createTtrpcClient(Task, path);
  expect((await client.connect({ id: "x".repeat(MAX_MESSAGE) }).catch((e) => e)).kind).toBe("ResourceExhausted");
  expect((await client.connect({ id: "x".repeat(MAX_MESSAGE - 100) })).shimPid).toBe(1);
  client.close();
});

test("a truncated frame and a vanished caller do the server no harm", async () => {
  const { path } = await serve({ connect: () => ({ shimPid: 1 }) });
  const good = encodeFrame(1, REQUEST, 0, request("containerd.task.v2.Task", "Connect"));
  for (let i = 0; i < good.length; i += 7) {
    const socket = connect({ path });
    socket.on("error", () => {});
    await new Promise<void>((resolve) => socket.write(good.subarray(0, i), () => resolve()));
    socket.destroy();
  }
  const client = createTtrpcClient(Task, path);
  expect((await client.connect({ id: "" })).shimPid).toBe(1);
  client.close();
});
