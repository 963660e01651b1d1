import { expect, test } from "bun:test";
import type { VertexEvent } from "../../build/index.ts";
import { sentenceOf, toConnectError } from "./errors.ts";
import { createProgress, type StatusUpdate } from "./status.ts";
import { createTunnel } from "./tunnel.ts";

const vertex = (fields: Partial<VertexEvent>): VertexEvent => ({
  kind: "vertex",
  digest: "sha256:1",
  inputs: [],
  name: "one",
  group: undefined,
  started: 1000.5,
  completed: undefined,
  cached: false,
  error: undefined,
  ...fields,
});

async function all(updates: AsyncIterable<StatusUpdate>): Promise<StatusUpdate[]> {
  const out: StatusUpdate[] = [];
  for await (const update of updates) out.push(update);
  return out;
}

test("who comes late hears all, and a vertex begins once", async () => {
  const progress = createProgress();
  const { signal } = new AbortController();
  const early = all(progress.follow(signal));
  progress.tell(vertex({}));
  progress.tell({ kind: "log", vertex: "sha256:1", stream: 1, bytes: Buffer.from("hello"), time: 1001 });
  progress.tell(vertex({ started: 1000.7, completed: 2000 }));
  progress.end();
  for (const updates of [await early, await all(progress.follow(signal))]) {
    const vertexes = updates.flatMap((each) => each.vertexes ?? []);
    expect(vertexes.at(-1)).toMatchObject({ started: { seconds: 1n, nanos: 500_000 }, completed: { seconds: 2n } });
    expect(updates.flatMap((each) => each.logs ?? []).map(({ msg }) => Buffer.from(msg!).toString())).toEqual(["hello"]);
  }
});

test("output without end is clipped; what is unfinished at the end is told as given up", async () => {
  const progress = createProgress();
  progress.tell(vertex({}));
  for (let i = 0; i < 5; i++) progress.tell({ kind: "log", vertex: "sha256:1", stream: 1, bytes: Buffer.alloc(1 << 20, 65), time: 1 });
  progress.end();
  const updates = await all(progress.follow(new AbortController().signal));
  const logs = updates.flatMap((each) => each.logs ?? []);
  expect(logs.reduce((sum, { msg }) => sum + msg!.length, 0)).toBeLessThan((2 << 20) + 100);
  expect(Buffer.from(logs.at(-1)!.msg!).toString()).toEndWith("[output clipped, log limit 2MiB reached]\n");
  expect(updates.flatMap((each) => each.vertexes ?? []).at(-1)!.error).toEndWith("context canceled");
});

test("errors: lines of a long file are carried without the rest of it", () => {
  const text = `${"x".repeat(50)}\n`.repeat(10_000);
  const sources = [
    {
      infos: [{ filename: "Dockerfile", data: Buffer.from(text), language: "Dockerfile" }],
      locations: { v: { locations: [{ sourceIndex: 0, ranges: [{ start: { line: 5000 }, end: { line: 5000 } }] }] } },
    },
  ];
  const error = toConnectError(Object.assign(new Error("failed"), { vertex: "v" }), sources as never);
  expect(error.details.map((each) => "type" in each && each.type)).toEqual(["errdefs.Vertex", "errdefs.Source"]);
  expect(
    error.details.reduce((sum, each) => sum + ("value" in each && each.value instanceof Uint8Array ? each.value.length : 0), 0),
  ).toBeLessThan(17_000);
  expect(sentenceOf("The command '/bin/sh -c it's' returned a non-zero code: 3")).toBe(
    `process "/bin/sh -c it's" did not complete successfully: exit code: 3`,
  );
});

test("a tunnel carries bytes both ways, in order, and ends", async () => {
  const tunnel = createTunnel();
  async function* incoming() {
    for (const text of ["a", "", "b"]) yield { data: Buffer.from(text) };
  }
  const fed = tunnel.feed(incoming());
  const read: string[] = [];
  tunnel.stream.on("data", (chunk: Buffer) => read.push(chunk.toString()));
  tunnel.stream.write("out");
  tunnel.stream.end();
  const written: string[] = [];
  for await (const { data } of tunnel.messages) written.push(Buffer.from(data).toString());
  await fed;
  expect(written.join("")).toBe("out");
  expect(read.join("")).toBe("ab");
});
