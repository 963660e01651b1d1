import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createStreams } from "../io/streams.ts";
import { jsonFile, local } from "./codec.ts";
import type { Entry, LogRecord, ReadOptions } from "./driver.ts";
import { logFiles, openLogFile } from "./file.ts";
import { checkLogConfig } from "./options.ts";
import { readLog } from "./reader.ts";
import { formatNano, parseInstant, parseNano } from "./time.ts";

const dir = mkdtempSync("/tmp/jubako-logs-");
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const ALL: ReadOptions = { stdout: true, stderr: true, since: undefined, until: undefined, tail: undefined };
const BASE = 1_700_000_000_000_000_000n;

function entry(i: number, stream: Entry["stream"] = "stdout"): Entry {
  return { stream, line: Buffer.from(`line ${i}\n`), time: BASE + BigInt(i), partial: false };
}

function fill(path: string, count: number, options: { maxSize: number; maxFiles: number; compress: boolean }, codec = jsonFile(undefined)) {
  const writer = openLogFile(path, codec, options);
  for (let i = 0; i < count; ) i += writer.write([entry(i)], 0);
  return writer;
}

async function texts(path: string, options: ReadOptions, codec = jsonFile(undefined)): Promise<string[]> {
  const out: string[] = [];
  for await (const batch of readLog({ path, codec }, options)) out.push(...batch.map((r) => Buffer.from(r.line).toString().trimEnd()));
  return out;
}

test("times are Go's RFC3339Nano", () => {
  expect(formatNano(BASE)).toBe("2023-11-14T22:13:20Z");
  expect(formatNano(BASE + 120_000n)).toBe("2023-11-14T22:13:20.00012Z");
  expect(formatNano(BASE, true)).toBe("2023-11-14T22:13:20.000000000Z");
  expect(parseNano("2023-11-14T23:13:20.00012+01:00")).toBe(BASE + 120_000n);
  expect(parseInstant("1700000000.5")).toBe(BASE + 500_000_000n);
  expect(parseInstant("0")).toBeUndefined();
});

test("json-file lines are dockerd's, byte for byte", () => {
  const codec = jsonFile({ env: "a" });
  const line = Buffer.concat([Buffer.from('<a href="x">\t\u0001\\ é '), Buffer.of(0xff, 10)]);
  const text = codec.encode({ stream: "stderr", line, time: BASE, partial: false }) as string;
  expect(text).toBe(
    '{"log":"\\u003ca href=\\"x\\"\\u003e\\u0009\\u0001\\\\ é \\ufffd\\n","stream":"stderr","attrs":{"env":"a"},"time":"2023-11-14T22:13:20Z"}\n',
  );
  const back = codec.decode(Buffer.from(text.trimEnd())) as LogRecord;
  expect(back.stream).toBe("stderr");
  expect(back.attrs).toEqual({ env: "a" });
});

test("the local format keeps bytes as they are", () => {
  for (const line of [Buffer.of(0xff, 0, 32, 10), Buffer.from("no newline"), Buffer.from("\n")]) {
    const bytes = Buffer.from(local.encode({ stream: "stderr", line, time: BASE + 5n, partial: false }));
    const back = local.decode(bytes.subarray(0, -1)) as LogRecord;
    expect(Buffer.from(back.line).equals(line)).toBe(true);
    expect([back.time, back.stream]).toEqual([BASE + 5n, "stderr"]);
  }
  expect(local.decode(Buffer.from("garbage"))).toBeUndefined();
});

test("a log rotates, keeps max-file files, and tail counts over all of them", async () => {
  const path = `${dir}/rotate.log`;
  fill(path, 100, { maxSize: 800, maxFiles: 3, compress: false }).close();
  expect(logFiles(path).map((file) => file.slice(path.length))).toEqual([".2", ".1", ""]);
  const all = await texts(path, ALL);
  expect(all.at(-1)).toBe("line 99");
  expect(all.length).toBeGreaterThan(20);
  expect(await texts(path, { ...ALL, tail: 15 })).toEqual(all.slice(-15));
  expect(await texts(path, { ...ALL, tail: 0 })).toEqual([]);
  expect(await texts(path, { ...ALL, tail: 1000 })).toEqual(all);
  expect(await texts(path, { ...ALL, since: BASE + 95n })).toEqual(all.slice(-5));
  expect(await texts(path, { ...ALL, until: BASE + 95n, tail: 6 })).toEqual(["line 94", "line 95"]);
});

test("compressed files are read too, and tail into them", async () => {
  const path = `${dir}/compress.log`;
  const writer = openLogFile(path, local, { maxSize: 300, maxFiles: 4, compress: true });
  for (let i = 0; i < 40; i++) {
    writer.write([entry(i)], 0);
    if (i % 10 === 9) await new Promise((resolve) => setTimeout(resolve, 30));
  }
  writer.close();
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(logFiles(path).some((file) => file.endsWith(".gz"))).toBe(true);
  const all = await texts(path, ALL, local);
  expect(all).toEqual(Array.from({ length: all.length }, (_, i) => `line ${40 - all.length + i}`));
  expect(await texts(path, { ...ALL, tail: all.length - 2 }, local)).toEqual(all.slice(2));
});

test("tail and since of a large log read its end only", async () => {
  const path = `${dir}/large.log`;
  const writer = openLogFile(path, jsonFile(undefined), { maxSize: Number.POSITIVE_INFINITY, maxFiles: 1, compress: false });
  writer.write(
    Array.from({ length: 200_000 }, (_, i) => entry(i)),
    0,
  );
  writer.close();
  const begin = performance.now();
  expect(await texts(path, { ...ALL, tail: 2 })).toEqual(["line 199998", "line 199999"]);
  expect((await texts(path, { ...ALL, since: BASE + 199_990n })).length).toBe(10);
  expect(performance.now() - begin).toBeLessThan(1000);
});

test("follow goes on over rotations and ends with the process", async () => {
  const path = `${dir}/follow.log`;
  const options = { maxSize: 500, maxFiles: 3, compress: false };
  const writer = fill(path, 3, options);
  const streams = createStreams();
  streams.live = true;
  const got: string[] = [];
  const reading = (async () => {
    const follow = { streams, signal: new AbortController().signal };
    for await (const batch of readLog({ path, codec: jsonFile(undefined) }, ALL, follow))
      got.push(...batch.map((r) => Buffer.from(r.line).toString()));
  })();
  const late = performance.now() + 10_000;
  for (let i = 3; i < 60; ) {
    i += writer.write([entry(i)], 0);
    for (const listener of streams.logListeners) listener();
    if (i % 4 > 0) continue;
    // What a reader is too late for is gone with its file: on a busy machine it is waited for.
    do await new Promise((resolve) => setTimeout(resolve, 3));
    while (got.length < i - 4 && performance.now() < late);
  }
  streams.live = false;
  for (const listener of streams.logListeners) listener();
  await reading;
  expect(got).toEqual(Array.from({ length: 60 }, (_, i) => `line ${i}\n`));
  writer.close();
});

test("what a killed writer wrote and did not account for is cut off, also in the middle of a rotation", () => {
  const path = `${dir}/cut.log`;
  const options = { maxSize: 10_000, maxFiles: 3, compress: false };
  const writer = fill(path, 2, options);
  const position = writer.position();
  writer.write([entry(2)], 0);
  writer.close();
  openLogFile(path, jsonFile(undefined), options, position).close();
  expect(readFileSync(path, "utf8").split("\n").length).toBe(3);
});

test("options are refused with dockerd's sentences", () => {
  const config = { logDriver: "json-file", logOpts: {} } as never;
  const check = (Type: string, Config: Record<string, string>) => () => checkLogConfig(config, { LogConfig: { Type, Config } } as never);
  expect(check("json-file", { foo: "1" })).toThrow("unknown log opt 'foo' for json-file log driver");
  expect(check("json-file", { "max-file": "0" })).toThrow("max-file cannot be less than 1");
  expect(check("json-file", { compress: "true", "max-file": "1" })).toThrow(
    "compress cannot be true when max-file is less than 2 or max-size is not set",
  );
  expect(check("nope", {})).toThrow("logger: no log driver named 'nope' is registered");
  expect(check("json-file", { "max-size": "-1" })).not.toThrow();
  const host = {} as { LogConfig?: unknown };
  checkLogConfig({ logDriver: "local", logOpts: { "max-file": "7" } } as never, host as never);
  expect(host.LogConfig).toEqual({ Type: "local", Config: { "max-file": "7" } });
});
