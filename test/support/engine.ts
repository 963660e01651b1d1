// An engine of the test's own: dist/bin/jubakod on temporary directories, with a bridge and a subnet that nobody else has.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { endDaemon, endNaming } from "./daemon.ts";

export const root = new URL("../../", import.meta.url).pathname;
export const bin = (name: string) => join(root, "dist/bin", name);

export interface Output {
  status: number;
  stdout: string;
  stderr: string;
}

export interface TestEngine {
  dir: string;
  /** unix://… */
  host: string;
  bridge: string;
  pid(): number;
  /** Runs the real docker CLI against it. */
  docker(...args: string[]): Output;
  dockerWith(options: { input?: string | Uint8Array; env?: Record<string, string>; timeoutMs?: number }, ...args: string[]): Output;
  /** The same, in the background. */
  dockerAsync(...args: string[]): Promise<Output>;
  /** Runs our CLI against it. */
  jubako(...args: string[]): Output;
  /** Ends the engine as a crash does; its containers, shims and files stay. */
  kill(): Promise<void>;
  /** Starts it again on the same directories. */
  start(): Promise<void>;
  stop(): Promise<void>;
  log(): string;
  [Symbol.asyncDispose](): Promise<void>;
}

let subnets = 0;

export function sh(command: string): Output {
  const result = spawnSync("/bin/sh", ["-c", command], { encoding: "utf8", maxBuffer: 64 << 20 });
  return { status: result.status ?? 255, stdout: result.stdout ?? "", stderr: result.stderr ?? "" };
}

/** The same for a list of words, while this process goes on with what else it does. */
export function run([program, ...args]: string[], env = process.env, timeoutMs = 120_000): Promise<Output> {
  return new Promise((resolve, reject) => {
    const child = spawn(program!, args, { env, stdio: ["ignore", "pipe", "pipe"], timeout: timeoutMs });
    const output = { stdout: "", stderr: "" };
    for (const name of ["stdout", "stderr"] as const)
      child[name].setEncoding("utf8").on("data", (chunk: string) => {
        output[name] += chunk;
      });
    child.on("error", reject);
    child.on("close", (code, signal) => resolve({ status: code ?? 255, ...output, stderr: `${output.stderr}${signal ?? ""}` }));
  });
}

export function which(program: string): string | undefined {
  const found = sh(`command -v ${program}`);
  return found.status === 0 ? found.stdout.trim() : undefined;
}

/** True where one of the programs is missing; then says so in the form that the test runner collects. For `describe.skipIf(lacks(…))`. */
export function lacks(...programs: string[]): boolean {
  const missing = programs.filter((program) => which(program) === undefined);
  if (missing.length) console.log(`skip: ${missing.join(", ")} not installed`);
  return missing.length > 0;
}

export async function until<T>(what: string, probe: () => T | Promise<T>, timeoutMs = 10_000): Promise<NonNullable<T>> {
  const end = Date.now() + timeoutMs;
  for (;;) {
    const value = await probe();
    if (value) return value as NonNullable<T>;
    if (Date.now() > end) throw new Error(`${what}: not within ${timeoutMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

export async function startEngine(options: { flags?: string[]; image?: boolean } = {}): Promise<TestEngine> {
  const dir = mkdtempSync(join(tmpdir(), "jubako-e2e-"));
  const number = (process.pid * 7 + subnets++) % 200;
  const bridge = `jubakot${number}`;
  const host = `unix://${dir}/docker.sock`;
  const logPath = join(dir, "log");
  let child: ChildProcess;

  const engine: TestEngine = {
    dir,
    host,
    bridge,
    pid: () => child.pid!,
    docker: (...args) => engine.dockerWith({}, ...args),
    dockerWith(opts, ...args) {
      const result = spawnSync("docker", ["-H", host, ...args], {
        encoding: "utf8",
        maxBuffer: 64 << 20,
        timeout: opts.timeoutMs ?? 30_000,
        env: { ...process.env, ...opts.env },
        ...(opts.input === undefined ? { stdio: ["ignore", "pipe", "pipe"] } : { input: opts.input }),
      });
      return { status: result.status ?? 255, stdout: result.stdout ?? "", stderr: `${result.stderr ?? ""}${result.error ?? ""}` };
    },
    dockerAsync(...args) {
      return new Promise((resolve) => {
        const cli = spawn("docker", ["-H", host, ...args], { stdio: ["ignore", "pipe", "pipe"] });
        let stdout = "";
        let stderr = "";
        cli.stdout.on("data", (chunk) => {
          stdout += chunk;
        });
        cli.stderr.on("data", (chunk) => {
          stderr += chunk;
        });
        cli.on("close", (code) => resolve({ status: code ?? 255, stdout, stderr }));
      });
    },
    jubako(...args) {
      const result = spawnSync(bin("jubako"), ["-H", host, ...args], {
        encoding: "utf8",
        timeout: 30_000,
        stdio: ["ignore", "pipe", "pipe"],
      });
      return { status: result.status ?? 255, stdout: result.stdout ?? "", stderr: result.stderr ?? "" };
    },
    async kill() {
      const exited = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGKILL");
      await exited;
    },
    async start() {
      const out = openSync(logPath, "a");
      const paths = ["--data-root", join(dir, "root"), "--exec-root", join(dir, "exec"), "--pidfile", join(dir, "pid"), "-H", host];
      child = spawn(bin("jubakod"), [...paths, "--bridge", bridge, "--bip", `10.218.${number}.1/24`, ...(options.flags ?? [])], {
        // what it needs must not depend on where it is started
        cwd: dir,
        env: { ...process.env, JUBAKO_SHIM_STATE: join(dir, "shim") },
        stdio: ["ignore", out, out],
      });
      await until("the engine answers", () => {
        if (child.exitCode !== null) throw new Error(`jubakod ended with ${child.exitCode}:\n${engine.log().slice(-4000)}`);
        return existsSync(`${dir}/docker.sock`) && engine.docker("version").status === 0;
      });
    },
    async stop() {
      if (child.exitCode === null && child.signalCode === null) {
        const ids = engine.docker("ps", "-aq").stdout.split("\n").filter(Boolean);
        if (ids.length) engine.docker("rm", "-f", "-v", ...ids);
        await endDaemon(child);
      }
      endNaming(dir);
      sh(`ip link del ${bridge} 2>/dev/null`);
      rmSync(dir, { recursive: true, force: true });
    },
    log: () => (existsSync(logPath) ? readFileSync(logPath, "utf8") : ""),
    [Symbol.asyncDispose]: () => engine.stop(),
  };

  try {
    await engine.start();
    if (options.image !== false) {
      const loaded = engine.dockerWith({ input: busyboxTar() }, "load");
      if (loaded.status !== 0) throw new Error(`docker load: ${loaded.stderr}\n${engine.log().slice(-2000)}`);
    }
  } catch (error) {
    await engine.stop();
    throw error;
  }
  return engine;
}

let seed: Uint8Array | undefined;

/** A busybox image as a docker archive, made from this machine's busybox-static. */
export function busyboxTar(): Uint8Array {
  if (!seed) {
    const made = spawnSync(process.execPath, [join(root, "scripts/seed-busybox.ts")], { maxBuffer: 64 << 20 });
    if (made.status !== 0) throw new Error(`seed-busybox: ${made.stderr}`);
    seed = made.stdout;
  }
  return seed;
}
