import { expect, test } from "bun:test";
import { parsePs } from "./index.ts";
import { listProcesses, TITLES, terminalName } from "./processes.ts";

test("a ps table is cut down to the container's processes", () => {
  const output = "USER       PID %CPU COMMAND\nroot         1  0.0 /sbin/init  a b\nme          42  1.5 sh -c  x\n";
  expect(parsePs(output, new Set([42]))).toEqual({
    Titles: ["USER", "PID", "%CPU", "COMMAND"],
    Processes: [["me", "42", "1.5", "sh -c x"]],
  });
  expect(() => parsePs("USER CMD\n", new Set())).toThrow("Couldn't find PID field in ps output");
});

test("our own table has ps -ef's columns", () => {
  const [row] = listProcesses([process.pid, 2 ** 22]);
  expect(row!.length).toBe(TITLES.length);
  expect([row![0], row![1], row![2]]).toEqual(["root", String(process.pid), String(process.ppid)]);
  expect(terminalName(0)).toBe("?");
  expect(terminalName((136 << 8) | 3)).toBe("pts/3");
});
