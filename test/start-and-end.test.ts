// How an engine starts, refuses to start, and ends.
import { describe, expect, test } from "bun:test";
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { endDaemon, endNaming, processesNaming } from "./support/daemon.ts";
import { bin, lacks, sh, startEngine, until } from "./support/engine.ts";

/** Whether a table of ours knows the bridge. */
const filtered = (bridge: string) => sh("nft list ruleset inet").stdout.includes(`"${bridge}"`);

function refused(...flags: string[]): { status: number | null; stderr: string; left: string[] } {
  const dir = mkdtempSync(join(tmpdir(), "jubako-refused-"));
  const own = ["--data-root", `${dir}/root`, "--exec-root", `${dir}/exec`, "--pidfile", `${dir}/pid`, "--bridge", "none"];
  const hosts = flags.some((flag) => flag === "-H" || flag === "--config-file") ? [] : ["-H", `unix://${dir}/sock`];
  const result = spawnSync(bin("jubakod"), [...own, ...hosts, ...flags], { encoding: "utf8", timeout: 10_000 });
  const left = ["pid", "sock"].filter((name) => existsSync(join(dir, name)));
  // a shim ends a moment after it was told to
  for (let tries = 0; tries < 40 && processesNaming(dir).length > 0; tries++) Bun.sleepSync(50);
  if (processesNaming(dir).length > 0) left.push("a process");
  rmSync(dir, { recursive: true, force: true });
  return { status: result.status, stderr: result.stderr, left };
}

describe("an engine that cannot start says why and ends", () => {
  test("no containerd at the address", () => {
    const result = refused("--containerd", "/nonexistent/containerd.sock");
    expect(result).toMatchObject({ status: 1, left: [] });
    expect(result.stderr).toContain("/nonexistent/containerd.sock");
  });

  test("the port is taken: the manager, open by then, does not keep it", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    const { port } = server.address() as { port: number };
    try {
      const result = refused("-H", `tcp://127.0.0.1:${port}`, "--tls=false");
      expect(result).toMatchObject({ status: 1, left: [] });
      expect(result.stderr).toMatch(/address already in use|EADDRINUSE/);
    } finally {
      server.close();
    }
  });

  test("a pidfile of a living engine", async () => {
    await using engine = await startEngine({ image: false });
    const result = refused("--pidfile", `${engine.dir}/pid`);
    expect(result.status).toBe(1);
    expect(result.stderr).toContain("is still running");
    expect(readFileSync(`${engine.dir}/pid`, "utf8")).toBe(`${engine.pid()}`);
  }, 20_000);

  test("a bridge name that is another link's", () => {
    const before = sh("ip -br addr show lo").stdout;
    const result = refused("--bridge", "lo", "--bip", "10.218.254.1/24");
    expect(result).toMatchObject({ status: 1, left: [] });
    expect(result.stderr).toContain("lo exists and is not a bridge");
    expect(sh("ip -br addr show lo").stdout).toBe(before);
  });

  test.each([
    [["--log-driver", "nosuch"], "no log driver named 'nosuch'"],
    [["--log-opt", "nosuch=1"], "unknown log opt 'nosuch'"],
    [["--default-runtime", "nosuch"], "default runtime 'nosuch' does not exist"],
    [["--dns", "banana"], "banana is not an ip address"],
    [["--group", "jubako-nobody"], "group jubako-nobody not found"],
  ])("%p", (flags, reason) => {
    const result = refused(...flags);
    expect(result).toMatchObject({ status: 1, left: [] });
    expect(result.stderr).toContain(reason);
  });

  test("a setting both as flag and in the file", () => {
    const dir = mkdtempSync(join(tmpdir(), "jubako-conflict-"));
    writeFileSync(`${dir}/daemon.json`, JSON.stringify({ hosts: [`unix://${dir}/sock`] }));
    const result = refused("--config-file", `${dir}/daemon.json`, "-H", `unix://${dir}/sock2`);
    rmSync(dir, { recursive: true, force: true });
    expect(result.status).toBe(1);
    expect(result.stderr).toContain("hosts");
  });
});

describe.skipIf(lacks("docker", "nft"))("an engine that ends", () => {
  test("takes its nftables table with it where nothing runs on", async () => {
    const engine = await startEngine();
    try {
      expect(engine.docker("run", "-d", "--stop-signal", "KILL", "busybox", "sleep", "1000").status).toBe(0);
      expect(filtered(engine.bridge)).toBe(true);
      process.kill(engine.pid(), "SIGTERM");
      await until("the engine ends", () => !existsSync(`/proc/${engine.pid()}`) || !existsSync(`${engine.dir}/pid`), 20_000);
      await until("the table is gone", () => !filtered(engine.bridge));
    } finally {
      await engine.stop();
    }
  }, 40_000);

  test("that is asked to while it starts takes its shim with it", async () => {
    const dir = mkdtempSync(join(tmpdir(), "jubako-early-"));
    const places = ["--data-root", `${dir}/root`, "--exec-root", `${dir}/exec`, "--pidfile", `${dir}/pid`, "-H", `unix://${dir}/sock`];
    const env = { ...process.env, JUBAKO_SHIM_STATE: `${dir}/shim` };
    const engine = spawn(bin("jubakod"), [...places, "--bridge", "none"], { stdio: "ignore", env });
    try {
      await until("a shim is on its way", () => processesNaming(`${dir}/shim`).length > 0);
      await endDaemon(engine);
      expect(engine.exitCode).toBe(0);
      await until("nothing of it runs", () => processesNaming(dir).length === 0);
      expect(existsSync(`${dir}/pid`)).toBe(false);
    } finally {
      endNaming(dir);
      rmSync(dir, { recursive: true, force: true });
    }
  }, 30_000);
});
