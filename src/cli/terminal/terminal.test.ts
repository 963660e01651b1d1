import { expect, test } from "bun:test";
import type { ProgressMessage } from "../../client/index.ts";
import { keyWatcher, parseKeys } from "./detach.ts";
import { bar, showProgress } from "./progress.ts";

test("detach keys", () => {
  expect(parseKeys("ctrl-p,ctrl-q")).toEqual([16, 17]);
  expect(parseKeys("a,ctrl-[,ctrl-@")).toEqual([97, 27, 0]);
  expect(() => parseKeys("foo")).toThrow("Unknown character: 'foo'");
  const watch = keyWatcher([16, 17]);
  const feed = (...bytes: number[]) => {
    const { pass, detached } = watch(Uint8Array.from(bytes));
    return [[...pass], detached];
  };
  expect(feed(1, 2)).toEqual([[1, 2], false]);
  expect(feed(1, 16)).toEqual([[1], false]);
  expect(feed(5)).toEqual([[16, 5], false]);
  expect(feed(16, 16)).toEqual([[16], false]);
  expect(feed(17, 9)).toEqual([[], true]);
});

async function* stream(...messages: ProgressMessage[]) {
  yield* messages;
}

async function shown(terminal: boolean, ...messages: ProgressMessage[]): Promise<string> {
  let text = "";
  await showProgress(stream(...messages), { terminal, width: 200, write: (t) => (text += t) });
  return text;
}

test("progress", async () => {
  expect(bar({ current: 512, total: 1024 }, 80)).toBe("    512B/1.024kB");
  expect(bar({ current: 512, total: 1024 }, 200)).toBe(`[${"=".repeat(25)}>${" ".repeat(25)}]     512B/1.024kB`);
  expect(bar({ current: 2000, total: 0 }, 200)).toBe("     2kB");
  expect(bar({}, 200)).toBe("");
  const messages: ProgressMessage[] = [
    { status: "Pulling from library/x", id: "latest" },
    { status: "Pulling fs layer", progressDetail: {}, id: "aaa" },
    { status: "Downloading", progressDetail: { current: 1, total: 2 }, id: "aaa" },
    { status: "Digest: sha256:0" },
  ];
  expect(await shown(false, ...messages)).toBe("latest: Pulling from library/x\naaa: Pulling fs layer\nDigest: sha256:0\n");
  const terminal = await shown(true, ...messages);
  expect(terminal).toContain("\x1b[1A\x1b[2K\raaa: Downloading [");
  expect(terminal).toContain("\r\x1b[1B");
  await expect(shown(false, { errorDetail: { message: "denied" }, error: "denied" })).rejects.toThrow("denied");
});
