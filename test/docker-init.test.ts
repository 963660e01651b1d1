// docker run --init on a host that has neither docker-init nor tini: the runtime's own init. The programs of the PATH without those two are linked
// into a directory, which is the engine's PATH.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { lacks, startEngine, type TestEngine, until } from "./support/engine.ts";

describe.skipIf(lacks("docker"))("docker run --init without an init on the host", () => {
  const path = process.env.PATH;
  let engine: TestEngine;
  let programs = "";
  beforeAll(async () => {
    programs = mkdtempSync(join(tmpdir(), "jubako-init-path-"));
    mkdirSync(programs, { recursive: true });
    for (const directory of (path ?? "").split(":").filter((each) => existsSync(each))) {
      for (const name of readdirSync(directory)) {
        if (/^(docker-init|tini.*)$/.test(name) || existsSync(join(programs, name))) continue;
        try {
          symlinkSync(join(directory, name), join(programs, name));
        } catch {
          // a link that leads nowhere came first
        }
      }
    }
    process.env.PATH = programs;
    engine = await startEngine();
  });
  afterAll(async () => {
    await engine?.stop();
    if (path !== undefined) process.env.PATH = path;
    rmSync(programs, { recursive: true, force: true });
  });

  test("output, exit status, a program that is missing, a terminal, orphans", () => {
    const run = (...args: string[]) => engine.docker("run", "--rm", "--init", ...args);
    expect(run("busybox", "sh", "-c", "echo $$; cat /proc/1/comm; exit 7")).toMatchObject({
      status: 7,
      stdout: expect.stringMatching(/^[2-9]\d*\ndocker-init\n$/),
    });
    expect(run("busybox", "nowhere")).toMatchObject({ status: 127, stderr: expect.stringContaining("[FATAL docker-init] exec nowhere") });
    const orphans = "for i in 1 2 3; do (sh -c 'exit 3' &) ; done; sleep 0.3; grep -l '^State:.Z' /proc/[0-9]*/status | wc -l";
    expect(run("busybox", "sh", "-c", orphans).stdout.trim()).toBe("0");
    expect(run("-t", "busybox", "sh", "-c", "tty; echo done").stdout).toContain("done");
    expect(run("-u", "1000:1000", "--read-only", "busybox", "id", "-u").stdout).toBe("1000\n");
  });

  test("stop is passed on; a restart uses the same program", async () => {
    const script = "trap 'echo got; exit 9' TERM; echo set; while :; do sleep 0.05; done";
    expect(engine.docker("run", "-d", "--init", "--name", "trapper", "busybox", "sh", "-c", script).status).toBe(0);
    for (let round = 0; round < 2; round++) {
      await until("the trap is set", () => engine.docker("logs", "trapper").stdout.split("set\n").length === round + 2 || undefined);
      expect(engine.docker("stop", "-t", "5", "trapper").status).toBe(0);
      expect(engine.docker("wait", "trapper").stdout).toBe("9\n");
      if (round === 0) expect(engine.docker("start", "trapper").status).toBe(0);
    }
    expect(engine.docker("logs", "trapper").stdout).toBe("set\ngot\nset\ngot\n");
    expect(engine.docker("rm", "trapper").status).toBe(0);
  });
});
