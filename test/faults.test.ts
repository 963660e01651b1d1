// Crashes: the engine, the shim, in the middle of things. What was running is there afterwards, and nothing is left that nobody owns.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { type Census, census } from "./support/census.ts";
import { processesNaming } from "./support/daemon.ts";
import { lacks, startEngine, type TestEngine, until } from "./support/engine.ts";

describe.skipIf(lacks("docker", "nft", "ctr"))("faults", () => {
  let engine: TestEngine;
  beforeAll(async () => {
    engine = await startEngine();
    engine.docker("run", "--rm", "busybox", "true");
  });
  afterAll(() => engine?.stop());

  const running = () => engine.docker("ps", "-q").stdout.trim().split("\n").filter(Boolean);

  async function settled(before: Census): Promise<void> {
    let now = census(engine.dir);
    const clean = await until(
      "nothing is left",
      () => {
        now = census(engine.dir);
        return (
          now.mounts <= before.mounts &&
          now.cgroups <= before.cgroups &&
          now.nftElements <= before.nftElements &&
          now.snapshots <= before.snapshots &&
          Object.entries(now.directories).every(([path, n]) => n <= before.directories[path]!)
        );
      },
      15_000,
    ).catch(() => false);
    if (!clean) expect(now).toEqual(before);
    expect(now.links).toBeLessThanOrEqual(before.links + 4);
    expect(now.netns).toBeLessThanOrEqual(before.netns + 4);
  }

  test("kill -9 of the engine during twenty runs leaves no orphan", async () => {
    const before = census(engine.dir);
    const clients = Array.from({ length: 20 }, (_, i) =>
      engine.dockerAsync(
        "run",
        "-d",
        "--name",
        `crash${i}`,
        "busybox",
        "sh",
        "-c",
        "i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done",
      ),
    );
    await until("some run", () => running().length >= 5);
    await engine.kill();
    await Promise.all(clients);
    await new Promise((resolve) => setTimeout(resolve, 500));
    await engine.start();
    const survivors = running();
    expect(survivors.length).toBeGreaterThanOrEqual(5);
    for (const id of survivors.slice(0, 3)) {
      await until("it goes on logging", () => engine.docker("logs", id).stdout.split("\n").length > 60);
      const numbers = engine.docker("logs", id).stdout.trim().split("\n").map(Number);
      expect(numbers).toEqual(numbers.map((_, i) => i));
      expect(engine.docker("exec", id, "echo", "alive").stdout).toBe("alive\n");
    }
    const all = engine.docker("ps", "-aq").stdout.trim().split("\n").filter(Boolean);
    expect(engine.docker("rm", "-f", ...all).status).toBe(0);
    await settled(before);
  });

  test("what ended while the engine was down has its status and all its output", async () => {
    const id = engine
      .docker("run", "-d", "busybox", "sh", "-c", "i=0; while [ $i -lt 100 ]; do echo $i; i=$((i+1)); sleep 0.01; done; exit 33")
      .stdout.trim();
    await engine.kill();
    await new Promise((resolve) => setTimeout(resolve, 2500));
    await engine.start();
    expect(engine.docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", id).stdout).toBe("exited 33\n");
    expect(engine.docker("logs", id).stdout.trim().split("\n").map(Number)).toEqual(Array.from({ length: 100 }, (_, i) => i));
    engine.docker("rm", id);
  });

  const shimPids = () =>
    processesNaming(engine.dir).filter((pid) => pid !== engine.pid() && readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("shim"));

  test("kill -9 of engine and shim: a container's input waits for the next client", async () => {
    engine.docker("run", "-di", "--name", "input", "busybox", "cat");
    const send = async (line: string, all: string) => {
      // The client goes on waiting for output when its input is over.
      const client = spawn("docker", ["-H", engine.host, "attach", "input"], { stdio: ["pipe", "ignore", "ignore"] });
      client.stdin.end(line);
      await until(`${line} has come`, () => engine.docker("logs", "input").stdout === all).finally(() => client.kill("SIGKILL"));
    };
    await send("one\n", "one\n");
    const shims = shimPids();
    expect(shims.length).toBeGreaterThan(0);
    await engine.kill();
    for (const pid of shims) process.kill(pid, "SIGKILL");
    await new Promise((resolve) => setTimeout(resolve, 500));
    await engine.start();
    await send("two\n", "one\ntwo\n");
    expect(engine.docker("rm", "-f", "input").status).toBe(0);
  });

  test("kill -9 of the shim: its containers are adopted with nothing lost", async () => {
    const ids = ["a", "b"].map((name) =>
      engine
        .docker(
          "run",
          "-d",
          "--name",
          `held-${name}`,
          "busybox",
          "sh",
          "-c",
          "i=0; while [ $i -lt 300 ]; do echo $i; i=$((i+1)); sleep 0.01; done; exit 21",
        )
        .stdout.trim(),
    );
    const shims = shimPids();
    expect(shims.length).toBeGreaterThan(0);
    for (const pid of shims) process.kill(pid, "SIGKILL");
    await new Promise((resolve) => setTimeout(resolve, 1000));
    expect(engine.docker("exec", ids[0]!, "echo", "adopted").stdout).toBe("adopted\n");
    expect(running().length).toBe(2);
    expect(engine.docker("wait", ...ids).stdout).toBe("21\n21\n");
    for (const id of ids)
      expect(engine.docker("logs", id).stdout.trim().split("\n").map(Number)).toEqual(Array.from({ length: 300 }, (_, i) => i));
    engine.docker("rm", ...ids);
  });
});
