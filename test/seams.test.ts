// The seams with one side replaced: containerd's own ctr against our manager, our engine on a manager of its own process.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { endDaemon, endNaming } from "./support/daemon.ts";
import { bin, busyboxTar, lacks, sh, startEngine, type TestEngine, until } from "./support/engine.ts";

async function startManager(dir: string): Promise<ChildProcess> {
  const log = openSync(join(dir, "log"), "a");
  const child = spawn(
    bin("jubako-containerd"),
    ["--root", join(dir, "root"), "--state", join(dir, "state"), "--address", join(dir, "containerd.sock")],
    { stdio: ["ignore", log, log] },
  );
  await until("the manager answers", () => {
    if (child.exitCode !== null) throw new Error(`jubako-containerd ended:\n${readFileSync(join(dir, "log"), "utf8")}`);
    return sh(`ctr -a ${dir}/containerd.sock version`).status === 0;
  });
  return child;
}

async function end(child: ChildProcess | undefined, dir: string): Promise<void> {
  if (child) await endDaemon(child);
  endNaming(dir);
  rmSync(dir, { recursive: true, force: true });
}

describe.skipIf(lacks("docker", "ctr"))("ctr against jubako-containerd", () => {
  const dir = mkdtempSync(join(tmpdir(), "jubako-seam-"));
  let manager: ChildProcess | undefined;
  const ctr = (args: string) => sh(`ctr -a ${dir}/containerd.sock ${args}`);
  const ok = (args: string): string => {
    const result = ctr(args);
    if (result.status !== 0) throw new Error(`ctr ${args}: ${result.stderr}`);
    return result.stdout;
  };
  beforeAll(async () => {
    manager = await startManager(dir);
    writeFileSync(join(dir, "busybox.tar"), busyboxTar());
  });
  afterAll(() => end(manager, dir));

  test("version, images import and ls", () => {
    expect(ok("version")).toContain("Server:");
    ok(`images import ${dir}/busybox.tar`);
    expect(ok("images ls -q")).toContain("busybox:latest");
  });

  test("run, tasks ls, exec, kill, rm", async () => {
    const image = ok("images ls -q").trim().split("\n")[0]!;
    expect(ok(`run --rm --runtime io.containerd.jubako.v1 ${image} one echo through-ctr`)).toBe("through-ctr\n");
    ok(`run -d --runtime io.containerd.jubako.v1 ${image} two sleep 1000`);
    expect(ok("tasks ls")).toMatch(/two\s+\d+\s+RUNNING/);
    expect(ok("tasks exec --exec-id e1 two echo inside")).toBe("inside\n");
    ok("tasks kill -s KILL two");
    await until("it stopped", () => ok("tasks ls").includes("STOPPED"));
    ok("tasks rm two");
    ok("containers rm two");
    expect(ok("containers ls -q")).toBe("");
  });
});

describe.skipIf(lacks("docker", "ctr"))("the engine and its manager", () => {
  test("ctr -n moby sees the engine's containers", async () => {
    await using engine: TestEngine = await startEngine();
    const id = engine.docker("run", "-d", "busybox", "sleep", "1000").stdout.trim();
    const socket = ["exec/containerd.sock", "exec/containerd/containerd.sock"]
      .map((path) => join(engine.dir, path))
      .find((path) => sh(`test -S ${path}`).status === 0);
    expect(socket).toBeDefined();
    expect(sh(`ctr -a ${socket} -n moby containers ls -q`).stdout.trim()).toBe(id);
    expect(sh(`ctr -a ${socket} -n moby tasks ls`).stdout).toContain("RUNNING");
  });

  test("jubakod --containerd uses a jubako-containerd of its own process", async () => {
    const dir = mkdtempSync(join(tmpdir(), "jubako-seam-"));
    const manager = await startManager(dir);
    try {
      await using engine: TestEngine = await startEngine({ flags: ["--containerd", join(dir, "containerd.sock")] });
      expect(engine.docker("run", "--rm", "busybox", "echo", "apart").stdout).toBe("apart\n");
      const id = engine.docker("run", "-d", "busybox", "sleep", "1000").stdout.trim();
      expect(sh(`ctr -a ${dir}/containerd.sock -n moby tasks ls`).stdout).toContain(id);
      expect(engine.docker("exec", id, "echo", "in").stdout).toBe("in\n");
      engine.docker("rm", "-f", id);
    } finally {
      await end(manager, dir);
    }
  });
});
