import { expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { gunzipSync } from "node:zlib";
import { gzipped } from "./gzip.ts";

async function* cut(bytes: Uint8Array, step: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += step) yield bytes.subarray(at, at + step);
}
const packed = async (bytes: Uint8Array, step = 100_000) => Buffer.concat(await Array.fromAsync(gzipped(cut(bytes, step))));

test("one member that every gunzip reads, the same however the input comes", async () => {
  const text = Buffer.from("some words that come again and again, ".repeat(20_000));
  for (const sample of [Buffer.alloc(0), text, Buffer.alloc(1 << 20), Buffer.concat([randomBytes(700_000), text, randomBytes(30), text])]) {
    const once = await packed(sample);
    expect(gunzipSync(once).equals(sample)).toBe(true);
    expect((await packed(sample, 7777)).equals(once)).toBe(true);
    if (Bun.which("gzip")) expect(Bun.spawnSync(["gzip", "-dc"], { stdin: once }).stdout.equals(sample)).toBe(true);
  }
  // what repeats across pieces is found
  expect((await packed(Buffer.concat([text, text]))).length).toBeLessThan(20_000);
});

test("a source that fails is told", async () => {
  async function* failing(): AsyncGenerator<Uint8Array> {
    yield randomBytes(2 << 20);
    throw new Error("no more");
  }
  expect(
    await Array.fromAsync(gzipped(failing())).then(
      () => "",
      (error: Error) => error.message,
    ),
  ).toBe("no more");
});
