// Our shim under containerd itself, driven by its own ctr: every containerd on PATH is tried, each with the ctr beside it.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { findProgram } from "../lib/find-program.ts";
import { programCommand } from "../lib/program.ts";
import { BUSYBOX, place } from "./harness.ts";

const installed = new Set(
  (process.env.PATH ?? "")
    .split(":")
    .map((dir) => `${dir}/containerd`)
    .filter((file) => existsSync(file) && existsSync(`${dirname(file)}/ctr`))
    .map((file) => realpathSync(file)),
);

interface Ran {
  status: number;
  stdout: string;
  stderr: string;
}

async function command(argv: string[], options: { stdin?: string; env?: Record<string, string | undefined> } = {}): Promise<Ran> {
  const child = Bun.spawn(argv, { stdin: "pipe", stdout: "pipe", stderr: "pipe", env: options.env ?? process.env });
  const guard = setTimeout(() => child.kill(9), 15_000);
  if (options.stdin !== undefined) {
    child.stdin.write(options.stdin);
    child.stdin.end();
  }
  const [stdout, stderr] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  const status = await child.exited;
  clearTimeout(guard);
  return { status, stdout, stderr };
}

for (const containerd of installed)
  describe.skipIf(!BUSYBOX)(`under ${Bun.spawnSync([containerd, "--version"]).stdout.toString().trim()}`, () => {
    const here = place("seam");
    const socket = `${here.dir}/containerd.sock`;
    const runtime = "io.containerd.jubako.v1";
    const env = {
      ...process.env,
      PATH: `${here.dir}/bin:${process.env.PATH}`,
      JUBAKO_SHIM_STATE: `${here.dir}/shim`,
      JUBAKO_SHIM_RUNTIME: "",
    };
    let daemon: ReturnType<typeof Bun.spawn>;

    const ctr = (args: string[], stdin?: string) =>
      command([`${dirname(containerd)}/ctr`, "-a", socket, ...args], stdin === undefined ? {} : { stdin });
    const run = (id: string, args: string[], flags: string[] = ["--rm"], stdin?: string) =>
      ctr(["run", ...flags, "--runtime", runtime, "--rootfs", here.rootfs, id, ...args], stdin);
    const up = async (): Promise<void> => {
      daemon = Bun.spawn([containerd, "-c", `${here.dir}/config.toml`], {
        env,
        stdout: Bun.file(`${here.dir}/log`),
        stderr: Bun.file(`${here.dir}/log`),
      });
      for (let i = 0; i < 100 && (await ctr(["version"])).status !== 0; i++) await Bun.sleep(100);
    };
    /** Pids of our shims, from their groups' sockets. */
    const shims = async (): Promise<number[]> =>
      readdirSync("/proc")
        .filter((name) => /^\d+$/.test(name))
        .filter((pid) => {
          try {
            const line = readFileSync(`/proc/${pid}/cmdline`, "utf8");
            return line.includes(`${here.dir}/shim`) && line.includes("serve");
          } catch {
            return false;
          }
        })
        .map(Number);

    beforeAll(async () => {
      here.make();
      mkdirSync(`${here.dir}/bin`);
      const words = programCommand("containerd-shim-jubako-v1").map((word) => `'${word}'`);
      writeFileSync(`${here.dir}/bin/containerd-shim-jubako-v1`, `#!/bin/sh\nexec ${words.join(" ")} "$@"\n`, { mode: 0o755 });
      writeFileSync(
        `${here.dir}/config.toml`,
        `version = 2\nroot = "${here.dir}/root"\nstate = "${here.dir}/state"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n` +
          `[grpc]\naddress = "${socket}"\n[ttrpc]\naddress = "${socket}.ttrpc"\n`,
      );
      await up();
    }, 20_000);
    afterAll(async () => {
      for (const id of (await ctr(["task", "ls", "-q"])).stdout.split("\n").filter(Boolean)) {
        await ctr(["task", "kill", "-s", "9", id]);
        await ctr(["task", "rm", "-f", id]);
      }
      daemon.kill();
      await daemon.exited;
      for (const pid of await shims()) process.kill(pid, "SIGKILL");
      await command(["umount", "-R", `${here.dir}/state`]);
      here.remove();
    }, 20_000);

    test("run: output, input, exit status, a program that is missing", async () => {
      expect(await run("a", ["/bin/echo", "hello"])).toMatchObject({ status: 0, stdout: "hello\n" });
      expect(await run("b", ["/bin/cat"], ["--rm"], "through\n")).toMatchObject({ status: 0, stdout: "through\n" });
      expect((await run("c", ["/bin/sh", "-c", "exit 5"])).status).toBe(5);
      const missing = await run("d", ["/bin/missing"]);
      expect(missing.status).toBe(1);
      expect(missing.stderr).toContain("/bin/missing");
    }, 30_000);

    test("input that ends before ctr has a task to tell of it", async () => {
      const runs = await Promise.all(Array.from({ length: 4 }, (_, i) => run(`in${i}`, ["/bin/cat"], ["--rm"], `${i}\n`)));
      expect(runs.map(({ status, stdout }) => [status, stdout])).toEqual(runs.map((_, i) => [0, `${i}\n`]));
    }, 30_000);

    test("detached, exec, pause, metrics, kill, delete; one shim for all", async () => {
      for (const id of ["e", "f"]) expect((await run(id, ["/bin/sleep", "1000"], ["-d"])).status).toBe(0);
      expect((await ctr(["task", "ls"])).stdout).toMatch(/e +\d+ +RUNNING/);
      expect((await shims()).length).toBe(1);
      expect(await ctr(["task", "exec", "--exec-id", "x", "e", "/bin/sh", "-c", "echo inside; exit 3"])).toMatchObject({
        status: 3,
        stdout: "inside\n",
      });
      await ctr(["task", "pause", "e"]);
      expect((await ctr(["task", "ls"])).stdout).toMatch(/e +\d+ +PAUSED/);
      await ctr(["task", "resume", "e"]);
      expect((await ctr(["task", "metrics", "e"])).stdout).toMatch(/memory\.usage_in_bytes +\d+|pids/);
      expect((await ctr(["task", "ps", "e"])).stdout).toMatch(/\d+/);
      await ctr(["task", "kill", "-s", "9", "e"]);
      for (let i = 0; i < 50 && !/e +\d+ +STOPPED/.test((await ctr(["task", "ls"])).stdout); i++) await Bun.sleep(50);
      await ctr(["task", "rm", "e"]);
      expect((await ctr(["task", "ls"])).stdout).toMatch(/f +\d+ +RUNNING/);
    }, 30_000);

    test.skipIf(!findProgram("script"))(
      "a terminal",
      async () => {
        const inner = `${dirname(containerd)}/ctr -a ${socket} run --rm -t --runtime ${runtime} --rootfs ${here.rootfs} t /bin/sh -c 'tty; exit 4'`;
        const ran = await command(["script", "-qec", inner, "/dev/null"]);
        expect(ran.stdout).toContain("/dev/pts/0");
        expect(ran.status).toBe(4);
      },
      30_000,
    );

    test("containerd killed and back: the task goes on; then the shim killed: it is cleaned up", async () => {
      const before = (await ctr(["task", "ls"])).stdout;
      expect(before).toMatch(/f +\d+ +RUNNING/);
      daemon.kill(9);
      await daemon.exited;
      await up();
      expect((await ctr(["task", "ls"])).stdout).toBe(before);
      const [pid] = await shims();
      process.kill(pid!, "SIGKILL");
      for (let i = 0; i < 40 && /f +\d+ +RUNNING/.test((await ctr(["task", "ls"])).stdout); i++) await Bun.sleep(50);
      expect((await ctr(["task", "ls"])).stdout).not.toMatch(/f +\d+ +RUNNING/);
      const task = Number(/f +(\d+)/.exec(before)![1]);
      for (let i = 0; i < 40 && existsSync(`/proc/${task}`); i++) await Bun.sleep(50);
      expect(existsSync(`/proc/${task}`)).toBe(false);
      expect(await run("g", ["/bin/echo", "again"])).toMatchObject({ status: 0, stdout: "again\n" });
    }, 30_000);
  });

test.skipIf(installed.size > 0)("no containerd on PATH: nothing to try", () => {});
