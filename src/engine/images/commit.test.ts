import { expect, test } from "bun:test";
import { applyChanges } from "./changes.ts";
import { mergeConfig } from "./commit.ts";
import { globPattern, parseUntil } from "./list.ts";
import { humanSize, streamed } from "./progress.ts";

test("the new image's config is the container's, with the changes on top", () => {
  const container = { Hostname: "h", Env: ["A=1", "B=2"], Cmd: ["sh"], Entrypoint: ["/e"], Labels: { x: "1" }, WorkingDir: "/w" };
  const own = applyChanges({}, ["ENV A=3", "LABEL y=2", 'CMD ["run"]']);
  expect(mergeConfig(own, container as never)).toEqual({
    Env: ["A=3", "B=2"],
    Cmd: ["run"],
    Entrypoint: ["/e"],
    Labels: { x: "1", y: "2" },
    WorkingDir: "/w",
  });
  expect(mergeConfig(applyChanges({}, ["ENTRYPOINT /x"]), container as never).Cmd).toBeUndefined();
});

test("changes are Dockerfile instructions", () => {
  expect(applyChanges({}, ["HEALTHCHECK --interval=1m30s --retries=2 CMD curl x"]).Healthcheck).toEqual({
    Interval: 90e9,
    Retries: 2,
    Test: ["CMD-SHELL", "curl x"],
  });
  expect(applyChanges({ WorkingDir: "/a" }, ["WORKDIR b"]).WorkingDir).toBe("/a/b");
  expect(applyChanges({}, ["ENV KEY some words"]).Env).toEqual(["KEY=some words"]);
  for (const bad of ["FROM x", "EXPOSE notaport", "LABEL", "HEALTHCHECK soon"]) expect(() => applyChanges({}, [bad])).toThrow();
});

test("patterns, times and sizes as Go's", () => {
  expect(globPattern("a*/b?[cd]").test("axx/b1c")).toBe(true);
  expect(globPattern("a*").test("a/b")).toBe(false);
  expect(globPattern("a.c").test("abc")).toBe(false);
  expect(() => globPattern("[a")).toThrow("syntax error in pattern");
  expect(parseUntil("1700000000")).toBe(1_700_000_000);
  expect(Math.abs(parseUntil("1h30m") - (Date.now() / 1000 - 5400))).toBeLessThan(2);
  expect(() => parseUntil("soon")).toThrow("invalid value");
  expect([humanSize(0), humanSize(999), humanSize(1234), humanSize(12_345_678)]).toEqual(["0B", "999B", "1.234kB", "12.35MB"]);
});

test("work that fails before its first line fails as a whole, later with a line", async () => {
  const signal = new AbortController().signal;
  const early = await streamed(async () => {
    throw new Error("early");
  }, signal).catch((error: Error) => error.message);
  expect(early).toBe("early");
  const late = await streamed(async (sink) => {
    sink.line({ status: "begun" });
    await Bun.sleep(1);
    throw new Error("late");
  }, signal);
  let text = "";
  for await (const piece of late) text += piece;
  expect(text).toBe('{"status":"begun"}\r\n{"errorDetail":{"message":"late"},"error":"late"}\r\n');
});
