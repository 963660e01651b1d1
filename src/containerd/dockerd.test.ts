// The seam above: the original dockerd, with our manager in containerd's place.
import { expect, test } from "bun:test";
import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { busybox, busyboxLayer, programs, run, scratch, startManager, until } from "./harness.ts";

const dockerd = programs("dockerd")[0];
const docker = programs("docker")[0];
const ready = process.getuid?.() === 0 && busybox && dockerd && docker && programs("containerd-shim-runc-v2")[0] && programs("runc")[0];

test.skipIf(!ready)(
  "dockerd --containerd (needs root, dockerd, docker, runc and its shim)",
  async () => {
    using place = scratch("dockerd");
    const manager = await startManager(place.path);
    const host = `unix://${place.path}/d.sock`;
    const directories = ["--data-root", join(place.path, "d"), "--exec-root", join(place.path, "x"), "--pidfile", join(place.path, "pid")];
    const network = ["--bridge", "none", "--iptables=false", "--ip6tables=false"];
    const daemon = spawn(dockerd!, [...directories, "-H", host, "--containerd", manager.address, ...network], { stdio: "ignore" });
    const gone = new Promise((resolve) => daemon.on("exit", resolve));
    const call = (...args: string[]) => run(docker!, ["-H", host, ...args], { timeout: 10_000 });
    try {
      expect(await until(async () => (await call("version")).status === 0, 15_000)).toBe(true);
      expect((await call("version")).stdout).toContain("+jubako");
      writeFileSync(join(place.path, "image.tar"), busyboxLayer());
      await call("import", join(place.path, "image.tar"), "busybox");
      const once = (...args: string[]) => call("run", "--rm", "--network", "none", "busybox", ...args);
      expect((await once("echo", "hello")).stdout).toBe("hello\n");
      expect((await once("sh", "-c", "exit 9")).status).toBe(9);
      expect((await once("nonesuch")).status).toBe(127);
      await call("run", "-d", "--name", "long", "--network", "none", "busybox", "sleep", "1000");
      expect((await call("exec", "long", "echo", "inside")).stdout).toBe("inside\n");
      await call("stop", "-t", "0", "long");
      expect((await call("inspect", "-f", "{{.State.ExitCode}}", "long")).stdout).toBe("137\n");
      expect((await call("rm", "long")).status).toBe(0);
    } finally {
      daemon.kill();
      await gone;
      await manager.kill("SIGTERM");
    }
  },
  60_000,
);
