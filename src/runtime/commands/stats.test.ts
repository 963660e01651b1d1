// The numbers of `events --stats` in runc's form.
import { expect, test } from "bun:test";
import { statsLine } from "./stats.ts";

const none = { version: 2, directories: {} } as const;

test("v2: swap is told with memory, what is unlimited is the largest number, what is zero is left out as runc does", () => {
  const counter = (usage: number, limit: number) => ({ usage, limit, max: 0, failcnt: 0 });
  const text = statsLine(
    "one",
    {
      version: 2,
      memory: { usage: 100, maxUsage: 150, limit: Number.MAX_SAFE_INTEGER, failcnt: 2, stat: { file: 7 }, swap: counter(5, 50) },
      pids: { current: 3, limit: 0 },
      hugetlb: { "2MB": counter(0, 10) },
      blkio: [{ major: 8, minor: 0, op: "read", value: 4096, kind: "serviceBytes" }],
    },
    none,
  );
  expect(text).toContain('"usage":{"limit":18446744073709551615,"usage":100,"max":150,"failcnt":2}');
  const { type, id, data } = JSON.parse(text);
  expect({ type, id }).toEqual({ type: "stats", id: "one" });
  expect(data.memory).toMatchObject({ cache: 7, swap: { usage: 105, failcnt: 0 }, kernel: { limit: 0, failcnt: 0 }, raw: { file: 7 } });
  expect(data.pids).toEqual({ current: 3 });
  expect(data.hugetlb).toEqual({ "2MB": { failcnt: 0 } });
  expect(data.blkio).toEqual({ ioServiceBytesRecursive: [{ major: 8, op: "read", value: 4096 }] });
  expect(data.cpu).toEqual({ usage: { kernel: 0, user: 0 }, throttling: {} });
});

test("v1: numbers beyond 2^53 keep their digits", () => {
  const memory = { usage: 1, maxUsage: 1, limit: 2 ** 63 - 4096, failcnt: 0, stat: {} };
  expect(statsLine("x", { version: 1, memory }, { version: 1, directories: {} })).toContain('"limit":9223372036854771712');
});
