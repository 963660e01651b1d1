import { afterAll, expect, test } from "bun:test";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { close, O_NONBLOCK, O_RDONLY, open } from "../../linux/index.ts";
import { fakeEngine, fakeRecord } from "./fake.ts";

const dir = mkdtempSync("/tmp/jubako-io-");
mkdirSync(`${dir}/data`, { recursive: true });
afterAll(() => rmSync(dir, { recursive: true, force: true }));

function lines(path: string): { log: string; stream: string; time: string }[] {
  return readFileSync(path, "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line));
}

test("what a process writes to the FIFOs is in the log when it is drained", async () => {
  const { engine } = fakeEngine(dir);
  const record = fakeRecord(dir, "a1");
  const io = await engine.io.open(record);
  const shell = spawn("sh", [
    "-c",
    `exec >${io.stdout} 2>${io.stderr}; echo out; echo err >&2; head -c 20000 /dev/zero | tr '\\0' x; echo; printf end`,
  ]);
  io.started();
  await once(shell, "exit");
  await io.drained;
  const log = lines(`${record.dir}/a1-json.log`);
  const out = log.filter((line) => line.stream === "stdout").map((line) => line.log);
  expect(log.filter((line) => line.stream === "stderr").map((line) => line.log)).toEqual(["err\n"]);
  expect(out[0]).toBe("out\n");
  expect(out[1]!.length).toBe(16384);
  expect(out[2]).toBe(`${"x".repeat(20000 - 16384)}\n`);
  expect(out[3]).toBe("end");
  expect(log[1]!.time).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z$/);
  await io.release();
  expect(engine.io.get("a1")).toBeUndefined();
});

test("the end of stdin waits for the start, then is told to the task service", async () => {
  const { engine, calls } = fakeEngine(dir);
  const record = fakeRecord(dir, "a2", (r) => {
    r.config.OpenStdin = true;
  });
  const { stdin } = engine.io.streams("a2");
  stdin.write(Buffer.from("hello\n"));
  stdin.end();
  const io = await engine.io.open(record);
  const holder = openSync(io.stdin, "r+");
  const cat = spawn("sh", ["-c", `exec <${io.stdin} >${io.stdout} 2>${io.stderr}; head -n 1`]);
  expect(calls).toEqual([]);
  io.started();
  expect(calls).toEqual(["closeIO a2"]);
  await once(cat, "exit");
  close(holder);
  await io.drained;
  expect(lines(`${record.dir}/a2-json.log`)[0]!.log).toBe("hello\n");
  await io.release();
});

test("an engine killed at any moment loses no line and doubles none", async () => {
  const record = fakeRecord(dir, "a3");
  const script = `${dir}/engine.ts`;
  await Bun.write(
    script,
    `import { fakeEngine, fakeRecord } from ${JSON.stringify(`${import.meta.dir}/fake.ts`)};
     const { engine } = fakeEngine(${JSON.stringify(dir)});
     const record = fakeRecord(${JSON.stringify(dir)}, "a3", (r) => { r.hostConfig.LogConfig.Config = { "max-size": "300k", "max-file": "1000" }; });
     const io = await (process.argv[2] === "first" ? engine.io.open(record) : engine.io.reopen(record));
     setTimeout(() => {}, 60000);
     process.stdout.write("ready");
     await io.drained; process.stdout.write("drained"); process.exit(0);`,
  );
  const engine = (word: string) => spawn(process.execPath, [script, word], { stdio: ["ignore", "pipe", "inherit"] });
  let current = engine("first");
  await once(current.stdout!, "data");
  const fifo = `${dir}/exec/io/a3`;
  const keep = [openSync(`${fifo}/stdout`, "r+"), openSync(`${fifo}/stderr`, "r+")];
  const count = 300_000;
  const rounds = `i=0; while [ $i -lt ${count} ]; do seq -f "line %.0f of some length, to fill the pipe" $i $((i+4999)); i=$((i+5000)); sleep 0.02; done`;
  const writer = spawn("sh", ["-c", `exec >${fifo}/stdout; ${rounds}`]);
  const finished = once(writer, "exit");
  let over = false;
  finished.then(() => {
    over = true;
  });
  let kills = 0;
  while (!over) {
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 8));
    current.kill("SIGKILL");
    await once(current, "exit");
    kills++;
    current = engine("again");
    await once(current.stdout!, "data");
  }
  // From now on the keeper holds read ends only: there is no writer any more, and the next engine finds the end by itself.
  const held = ["stdout", "stderr"].map((name) => open(`${fifo}/${name}`, O_RDONLY | O_NONBLOCK));
  for (const fd of keep) close(fd);
  if (current.exitCode === null) {
    current.kill("SIGKILL");
    await once(current, "exit");
  }
  current = engine("again");
  await once(current, "exit");
  for (const fd of held) close(fd);
  const { logFiles } = await import("../logs/file.ts");
  const log = logFiles(`${record.dir}/a3-json.log`).flatMap(lines);
  expect(kills).toBeGreaterThan(2);
  expect(log.length).toBe(count);
  expect(log.every((line, i) => line.log === `line ${i} of some length, to fill the pipe\n`)).toBe(true);
}, 60_000);

test("a full disk costs log lines, never the container or the shape of the log", async () => {
  for (const where of ["log", "spool"]) {
    const full = `${dir}/full-${where}`;
    mkdirSync(full);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=256k", "jubako-io-test", full]);
    try {
      const { engine } = fakeEngine(where === "log" ? `${dir}/elsewhere` : full);
      const record = fakeRecord(where === "log" ? full : `${dir}/elsewhere`, `a4${where}`);
      const io = await engine.io.open(record);
      let seen = 0;
      engine.io.streams(record.id).hub.add({
        stdout: true,
        stderr: true,
        write(_stream, bytes) {
          seen += bytes.length;
        },
        pending: () => 0,
        onDrain() {},
        end() {},
      });
      const writer = spawn("sh", ["-c", `exec >${io.stdout} 2>${io.stderr}; seq 1 100000`]);
      io.started();
      await once(writer, "exit");
      await io.drained;
      expect(seen).toBe(588_895);
      const log = lines(`${record.dir}/${record.id}-json.log`);
      expect(log.slice(0, 100).map((line) => line.log)).toEqual(Array.from({ length: 100 }, (_, i) => `${i + 1}\n`));
      await io.release();
    } finally {
      execFileSync("umount", ["-l", full]);
    }
  }
});
