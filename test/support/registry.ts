// Debian's docker-registry on a loopback port, filled by skopeo.
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { busyboxTar, sh, until } from "./engine.ts";

export interface TestRegistry {
  /** "127.0.0.1:PORT" */
  address: string;
  dir: string;
  /** Pushes the busybox image under this repository and tag. */
  push(name: string, ...skopeoFlags: string[]): void;
  kill(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

export async function startRegistry(): Promise<TestRegistry> {
  const dir = mkdtempSync(join(tmpdir(), "jubako-registry-"));
  const port = await freePort();
  const address = `127.0.0.1:${port}`;
  writeFileSync(
    join(dir, "config.yml"),
    `version: 0.1\nlog: { level: error }\nstorage:\n  filesystem: { rootdirectory: ${dir}/data }\n  delete: { enabled: true }\nhttp: { addr: "${address}" }\n`,
  );
  const child: ChildProcess = spawn("docker-registry", ["serve", join(dir, "config.yml")], { stdio: "ignore" });
  await until(
    "the registry listens",
    () =>
      new Promise<boolean>((resolve) => {
        const probe = connect(port, "127.0.0.1", () => {
          probe.destroy();
          resolve(true);
        });
        probe.on("error", () => resolve(false));
      }),
  );
  writeFileSync(join(dir, "busybox.tar"), busyboxTar());
  const kill = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exited = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await exited;
  };
  return {
    address,
    dir,
    push(name, ...flags) {
      const copied = sh(
        `skopeo --insecure-policy copy ${flags.join(" ")} --dest-tls-verify=false docker-archive:${dir}/busybox.tar docker://${address}/${name}`,
      );
      if (copied.status !== 0) throw new Error(`skopeo: ${copied.stderr}`);
    },
    kill,
    async [Symbol.asyncDispose]() {
      await kill();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}
