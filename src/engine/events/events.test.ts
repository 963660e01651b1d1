import { afterAll, expect, test } from "bun:test";
import { appendFileSync, mkdtempSync, rmSync } from "node:fs";
import { parseFilters } from "./filter.ts";
import { createEvents, eventLine, passes } from "./index.ts";

const dir = mkdtempSync("/tmp/jubako-events-");
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const engine = { config: { dataRoot: dir }, log() {} } as never;

test("events are heard, kept in the journal, and there after a restart, a torn line aside", async () => {
  const events = createEvents(engine);
  const heard: string[] = [];
  const stop = events.listen((event) => heard.push(event.action));
  events.publish("container", "start", "abc", { name: "n", image: "busybox" });
  stop();
  events.publish("container", "die", "abc", { exitCode: "1" });
  expect(heard).toEqual(["start"]);
  await new Promise((resolve) => setTimeout(resolve, 200));
  appendFileSync(`${dir}/events.jsonl`, '{"t":"17');
  const later = createEvents(engine);
  expect(later.journal().map((event) => event.action)).toEqual(["start", "die"]);
  later.publish("volume", "create", "v", {});
  await new Promise((resolve) => setTimeout(resolve, 200));
  expect(createEvents(engine).journal().length).toBe(3);
});

test("filters match as dockerd's", () => {
  const event = {
    type: "container" as const,
    action: "exec_create: sh -c x",
    id: "abcdef",
    attributes: { name: "web", image: "busybox:1", tier: "a" },
    time: 1n,
  };
  const match = (filters: Record<string, string[]>) => passes(event, parseFilters(JSON.stringify(filters), Object.keys(filters)));
  expect(match({ event: ["exec_create"] })).toBe(true);
  expect(match({ event: ["exec"] })).toBe(false);
  expect(match({ container: ["abc"] })).toBe(true);
  expect(match({ container: ["web"], label: ["tier=a"] })).toBe(true);
  expect(match({ label: ["tier=b"] })).toBe(false);
  expect(match({ image: ["busybox"] })).toBe(true);
  expect(match({ type: ["volume", "container"] })).toBe(true);
  expect(match({ volume: ["abc"] })).toBe(false);
  expect(() => parseFilters("[", [])).toThrow("invalid filter");
  expect(() => parseFilters('{"x":["1"]}', ["y"])).toThrow("invalid filter 'x'");
});

test("a line has whole nanoseconds, and the old fields below API 1.52", () => {
  const event = {
    type: "container" as const,
    action: "start",
    id: "abc",
    attributes: { image: "busybox" },
    time: 1_700_000_000_123_456_789n,
  };
  expect(eventLine(event, 52)).toBe(
    '{"Type":"container","Action":"start","Actor":{"ID":"abc","Attributes":{"image":"busybox"}},"scope":"local","time":1700000000,"timeNano":1700000000123456789}\n',
  );
  expect(eventLine(event, 51)).toStartWith('{"status":"start","id":"abc","from":"busybox","Type":"container"');
});
