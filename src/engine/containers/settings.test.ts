import { expect, test } from "bun:test";
import { parseFilters } from "./list.ts";
import { randomName } from "./names.ts";
import { parseUntil } from "./prune.ts";
import { mergeWithImage, parseCreate } from "./settings.ts";
import { signalNumber } from "./signals.ts";
import { humanDuration, statusText } from "./status.ts";

test("a request's config over its image's", () => {
  const image = {
    Entrypoint: ["/entry"],
    Cmd: ["default"],
    Env: ["A=image", "B=image"],
    Labels: { a: "image" },
    User: "www",
    WorkingDir: "/srv",
  };
  expect(mergeWithImage({ Env: ["A=own"], Labels: { b: "own" } }, image)).toMatchObject({
    Entrypoint: ["/entry"],
    Cmd: ["default"],
    Env: ["A=own", "B=image"],
    Labels: { a: "image", b: "own" },
    User: "www",
    WorkingDir: "/srv",
  });
  expect(mergeWithImage({ Cmd: ["own"] }, image)).toMatchObject({ Entrypoint: ["/entry"], Cmd: ["own"] });
  // An entrypoint of one's own does away with the image's command; an empty one with its entrypoint.
  expect(mergeWithImage({ Entrypoint: ["sh"] }, image).Cmd).toBeUndefined();
  expect(mergeWithImage({ Entrypoint: [""], Cmd: ["true"] }, image).Entrypoint).toBeUndefined();
  expect(() => mergeWithImage({}, {})).toThrow("no command specified");
});

test("the body of a create request: shape checked, unknown fields dropped", () => {
  expect(parseCreate({ Image: "x", Cmd: "true", Unknown: 1, HostConfig: { Binds: null, Memory: 5 } })).toEqual({
    config: { Image: "x", Cmd: ["true"] },
    hostConfig: { Memory: 5 },
    endpoints: undefined,
  });
  expect(() => parseCreate({})).toThrow("config cannot be empty");
  expect(() => parseCreate({ Image: "x", Env: ["A\0B"] })).toThrow("Env has a value of the wrong type");
});

test("health checks of image and request together", () => {
  const image = { Cmd: ["x"], Healthcheck: { Test: ["CMD", "probe"], Interval: 5 } };
  expect(mergeWithImage({ Healthcheck: { Retries: 2 } }, image).Healthcheck).toMatchObject({
    Test: ["CMD", "probe"],
    Interval: 5,
    Retries: 2,
  });
  expect(mergeWithImage({ Healthcheck: { Test: ["NONE"] } }, image).Healthcheck).toEqual({ Test: ["NONE"] });
});

test("names are found also when all short ones are taken", () => {
  expect(randomName(() => false)).toMatch(/^[a-z]+_[a-z]+$/);
  expect(randomName((name) => !/\d$/.test(name))).toMatch(/^[a-z]+_[a-z]+\d+$/);
});

test("signals by name and number", () => {
  expect(["TERM", "sigkill", "9", "RTMIN+3"].map(signalNumber)).toEqual([15, 9, 9, 37]);
  for (const bad of ["", "0", "65", "NONSENSE", "RTMAX+1"]) expect(() => signalNumber(bad)).toThrow(`Invalid signal: ${bad}`);
});

test("states in words", () => {
  const now = Date.parse("2026-01-02T00:00:00Z");
  const ago = (seconds: number) => new Date(now - seconds * 1000).toISOString();
  expect(statusText({ Status: "running", Running: true, StartedAt: ago(5) }, now)).toBe("Up 5 seconds");
  expect(statusText({ Status: "paused", Running: true, Paused: true, StartedAt: ago(60) }, now)).toBe("Up About a minute (Paused)");
  expect(statusText({ Status: "exited", ExitCode: 3, FinishedAt: ago(7200) }, now)).toBe("Exited (3) 2 hours ago");
  expect(statusText({ Status: "running", Running: true, StartedAt: ago(1), Health: { Status: "starting" } }, now)).toBe(
    "Up 1 second (health: starting)",
  );
  expect(humanDuration(3 * 86_400_000)).toBe("3 days");
});

test("filters as JSON, in the old form too; times of until", () => {
  expect(parseFilters('{"name":["a"]}', ["name"])).toEqual({ name: ["a"] });
  expect(parseFilters('{"name":{"a":true}}', ["name"])).toEqual({ name: ["a"] });
  expect(() => parseFilters('{"x":["a"]}', ["name"])).toThrow("invalid filter 'x'");
  expect(() => parseFilters("[", ["name"])).toThrow("invalid filter");
  expect(parseUntil("1h30m", 10_000_000)).toBe(10_000_000 - 5_400_000);
  expect(parseUntil("100")).toBe(100_000);
  expect(() => parseUntil("soon")).toThrow("invalid until value: soon");
});
