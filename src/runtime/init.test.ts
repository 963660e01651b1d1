// The init of --init: a program of its own, run in a pid namespace by unshare(1).
import { afterAll, beforeAll, expect, test } from "bun:test";
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { initExecutable } from "./index.ts";

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(`${tmpdir()}/jubako-init-`);
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

let count = 0;
async function prepare(args: string[], path = "/usr/bin:/bin"): Promise<string[]> {
  const file = `${directory}/init${count++}`;
  writeFileSync(file, await initExecutable(args, path), { mode: 0o755 });
  return ["--pid", "--fork", "--kill-child", "--mount-proc", file, "--", ...args];
}

async function run(args: string[], path?: string) {
  const { status, stdout, stderr } = spawnSync("unshare", await prepare(args, path), { encoding: "utf8", env: { GREETING: "hello" } });
  return { status, stdout, stderr };
}

test("runs the program as a child with its arguments and environment, and ends as it ended", async () => {
  expect(await run(["sh", "-c", 'echo $$ $GREETING "$@"; exit 7', "sh", "a b", ""])).toMatchObject({
    status: 7,
    stdout: "2 hello a b \n",
  });
  expect(await run(["/bin/sh", "-c", "kill -9 $$"])).toMatchObject({ status: 137 });
  expect(await run(["true"])).toEqual({ status: 0, stdout: "", stderr: "" });
});

test("what cannot be run", async () => {
  expect(await run(["nowhere"])).toMatchObject({
    status: 127,
    stderr: "[FATAL docker-init] exec nowhere failed: No such file or directory\n",
  });
  writeFileSync(`${directory}/plain`, "", { mode: 0o644 });
  expect(await run(["plain"], `${directory}:/usr/bin`)).toMatchObject({ status: 126 });
});

test("orphans are reaped", async () => {
  const script = "for i in 1 2 3; do (sh -c 'exit 3' &) ; done; sleep 0.3; grep -l '^State:.Z' /proc/[0-9]*/status | wc -l";
  expect(await run(["sh", "-c", script])).toMatchObject({ status: 0, stdout: "0\n" });
});

test("signals are passed on", async () => {
  const [, , , , ...command] = await prepare(["sh", "-c", "trap 'echo got; exit 9' TERM; echo up; while :; do sleep 0.02; done"]);
  const child = spawn(command[0]!, command.slice(1), { stdio: ["ignore", "pipe", "inherit"] });
  let output = "";
  child.stdout.on("data", (chunk) => {
    if (output === "") child.kill("SIGTERM");
    output += chunk;
  });
  const status = await new Promise((resolve) => child.on("close", resolve));
  expect([output, status]).toEqual(["up\ngot\n", 9]);
});
