import { expect, test } from "bun:test";
import type { Engine } from "../context.ts";
import { createStreams } from "../io/streams.ts";
import { createPreparations } from "./prepare.ts";
import type { AddedExec } from "./run.ts";

const engine = { log() {} } as unknown as Engine;
const exec = (execId: string) => ({ options: { containerId: "c", execId }, io: { release: async () => {} } }) as unknown as AddedExec;

test("few execs wait for their start; one whose adding failed is added again by who starts it", async () => {
  const prepare = createPreparations(engine);
  const made: string[] = [];
  const one = (id: string) =>
    prepare(createStreams(), async () => {
      made.push(id);
      if (id === "bad") throw new Error("no");
      return exec(id);
    });
  const first = one("a");
  expect(made).toEqual([]);
  expect((await first!.take())!.options.execId).toBe("a");
  const waiting = ["bad", "c", "d", "e"].map(one);
  expect(waiting.every(Boolean)).toBe(true);
  expect(one("f")).toBeUndefined();
  expect(await waiting[0]!.take()).toBeUndefined();
  const last = one("g");
  expect((await waiting[3]!.take())!.options.execId).toBe("e");
  expect((await last!.take())!.options.execId).toBe("g");
  expect(made).toEqual(["a", "bad", "c", "d", "e", "g"]);
});
