// Debian's dockerd without a network, to compare what builders make: no bridge, no rules, nothing that quarrels with other engines on the machine.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { busyboxTar, sh, until } from "./engine.ts";

export interface PlainDockerd {
  host: string;
  stop(): Promise<void>;
}

export async function startPlainDockerd(...more: string[]): Promise<PlainDockerd> {
  const dir = mkdtempSync(join(tmpdir(), "jubako-dockerd-"));
  const host = `unix://${dir}/docker.sock`;
  const log = join(dir, "log");
  const out = openSync(log, "a");
  const child: ChildProcess = spawn(
    "dockerd",
    [
      "--data-root",
      `${dir}/root`,
      "--exec-root",
      `${dir}/exec`,
      "--pidfile",
      `${dir}/pid`,
      "-H",
      host,
      "--bridge",
      "none",
      "--iptables=false",
      "--ip6tables=false",
      ...more,
    ],
    { stdio: ["ignore", out, out] },
  );
  const stop = async () => {
    if (child.exitCode === null) {
      const exited = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), 20_000);
      await exited;
      clearTimeout(timer);
    }
    for (const line of readFileSync("/proc/self/mounts", "utf8").split("\n").reverse()) {
      const place = line.split(" ")[1] ?? "";
      if (place.startsWith(`${dir}/`)) spawnSync("umount", ["-l", place]);
    }
    rmSync(dir, { recursive: true, force: true });
  };
  try {
    await until("dockerd", () => child.exitCode !== null || sh(`docker -H ${host} version`).status === 0, 30_000);
    if (child.exitCode !== null) throw new Error(`dockerd ended:\n${readFileSync(log, "utf8").slice(-2000)}`);
    const loaded = spawnSync("docker", ["-H", host, "load"], { input: busyboxTar(), encoding: "utf8" });
    if (loaded.status !== 0) throw new Error(`docker load: ${loaded.stderr}`);
  } catch (error) {
    await stop();
    throw error;
  }
  return { host, stop };
}
