// BuildKit's own daemon, with buildctl as its client: steps without a network, images pulled from and pushed to registries on loopback.
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { endDaemon, removeMounted } from "./daemon.ts";
import { type Output, run, until } from "./engine.ts";

export interface Buildkitd {
  buildctl(...args: string[]): Promise<Output>;
  stop(): Promise<void>;
}

/** `registry` is spoken to without TLS. */
export async function startBuildkitd(registry: string): Promise<Buildkitd> {
  const dir = mkdtempSync(join(tmpdir(), "jubako-buildkitd-"));
  const address = `unix://${dir}/sock`;
  const log = join(dir, "log");
  writeFileSync(
    join(dir, "config.toml"),
    `root = "${dir}/root"
[grpc]
address = ["${address}"]
[worker.oci]
enabled = true
networkMode = "host"
[worker.containerd]
enabled = false
[registry."${registry}"]
http = true
`,
  );
  const out = openSync(log, "a");
  const child: ChildProcess = spawn("buildkitd", ["--config", join(dir, "config.toml")], { stdio: ["ignore", out, out] });
  const stop = async () => {
    await endDaemon(child);
    removeMounted(dir);
  };
  const buildctl = (...args: string[]) => run(["buildctl", "--addr", address, ...args]);
  try {
    await until(
      "buildkitd",
      async () => child.exitCode !== null || (existsSync(`${dir}/sock`) && (await buildctl("debug", "workers")).status === 0),
      30_000,
    );
    if (child.exitCode !== null) throw new Error(`buildkitd ended:\n${readFileSync(log, "utf8").slice(-2000)}`);
  } catch (error) {
    await stop();
    throw error;
  }
  return { buildctl, stop };
}
