// BuildKit's own daemon (scripts/go-tools.sh buildkitd) with its OCI worker and Debian's runc, in a temporary directory of its own.
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { end, unmountBelow } from "./peers.ts";

/** `registry` speaks plain HTTP. Steps run in the host's network, as there are no CNI plugins. */
export async function startBuildkitd(registry: string): Promise<{ address: string; stop(): Promise<void> }> {
  const dir = mkdtempSync(join(tmpdir(), "jubako-bench-buildkitd-"));
  const [socket, log] = [join(dir, "buildkitd.sock"), join(dir, "log")];
  mkdirSync(join(dir, "tmp"));
  writeFileSync(join(dir, "buildkitd.toml"), `[registry."${registry}"]\n  http = true\n`);
  const out = openSync(log, "a");
  const flags = ["--oci-worker-net=host", "--oci-worker-snapshotter=overlayfs", "--oci-worker-gc=false", "--containerd-worker=false"];
  const child = spawn(
    "buildkitd",
    ["--root", join(dir, "root"), "--addr", `unix://${socket}`, "--config", join(dir, "buildkitd.toml"), ...flags],
    { stdio: ["ignore", out, out], env: { ...process.env, TMPDIR: join(dir, "tmp") } },
  );
  for (let tries = 0; tries < 400 && !existsSync(socket) && child.exitCode === null; tries++)
    await new Promise((resolve) => setTimeout(resolve, 50));
  if (!existsSync(socket)) {
    child.kill("SIGKILL");
    throw new Error(`buildkitd did not come up:\n${readFileSync(log, "utf8").slice(-3000)}`);
  }
  return {
    address: `unix://${socket}`,
    async stop() {
      await end(child);
      unmountBelow(dir);
      rmSync(dir, { recursive: true, force: true });
    },
  };
}
