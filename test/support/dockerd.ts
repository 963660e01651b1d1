// Debian's dockerd without a network, to compare what builders make: no bridge, no rules, nothing that quarrels with other engines on the machine.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, openSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { endDaemon, removeMounted } from "./daemon.ts";
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
    await endDaemon(child);
    removeMounted(dir);
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
