// For tests only: the real docker CLI and a real dockerd to compare with, the same command line through both, and what may differ taken out.
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { cp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";

/** A program on PATH. */
export function which(name: string): string | undefined {
  return (process.env.PATH ?? "")
    .split(delimiter)
    .map((dir) => join(dir, name))
    .find(existsSync);
}

export interface Outcome {
  status: number;
  out: string;
  err: string;
}

const main = new URL("../../main.ts", import.meta.url).pathname;

/** The command line that runs our CLI from source. */
export const OURS = [process.execPath, main];

export async function run(argv: string[], options: { env?: Record<string, string>; input?: string; cwd?: string } = {}): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(argv[0]!, argv.slice(1), {
      env: { ...process.env, ...options.env },
      cwd: options.cwd,
      stdio: ["pipe", "pipe", "pipe"],
    });
    let out = "";
    let err = "";
    child.stdout.on("data", (chunk: Buffer) => {
      out += chunk.toString();
    });
    child.stderr.on("data", (chunk: Buffer) => {
      err += chunk.toString();
    });
    child.on("error", reject);
    child.on("close", (code, signal) => resolve({ status: code ?? 128 + (signal ? 1 : 0), out, err }));
    child.stdin.on("error", () => {});
    child.stdin.end(options.input ?? "");
  });
}

/** Names of the programs, ids, times and ages taken out. */
export function normal(text: string): string {
  return text
    .replaceAll(/\bdocker(?=[: ]|')/g, "jubako")
    .replaceAll(/\b[0-9a-f]{64}\b/g, "<id64>")
    .replaceAll(/\b[0-9a-f]{12}\b/g, "<id12>")
    .replaceAll(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.?\d*(Z|[+-]\d\d:\d\d)/g, "<time>")
    .replaceAll(/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)? [+-]\d{4} \w+/g, "<time>")
    .replaceAll(/(\d+|About an?|Less than a) (second|minute|hour)s?( ago)? */g, "<age> ")
    .replaceAll(/^.*(<age>|STATUS|CREATED).*$/gm, (line) => line.replaceAll(/ {2,}/g, "  "))
    .replaceAll(/"Pid": ?\d+/g, '"Pid":0')
    .replaceAll(/[ \t]+$/gm, "");
}

export const normalised = ({ status, out, err }: Outcome): Outcome => ({ status, out: normal(out), err: normal(err) });

export interface Daemon {
  dir: string;
  host: string;
  stop(): Promise<void>;
}

/** A dockerd of our own, without a network, with a busybox image. Undefined where the machine lacks what it needs. */
export async function startDockerd(): Promise<Daemon | undefined> {
  const dockerd = which("dockerd");
  const busybox = which("busybox");
  if (!dockerd || !busybox || !which("docker") || !which("tar") || process.getuid?.() !== 0) return undefined;
  const dir = mkdtempSync(`${tmpdir()}/jubako-cli-dockerd-`);
  const host = `unix://${dir}/docker.sock`;
  const args = [
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
    "--ip-forward=false",
  ];
  const daemon = spawn(dockerd, args, { stdio: "ignore" });
  const exited = new Promise<void>((resolve) => void daemon.on("exit", () => resolve()));
  const stop = async () => {
    daemon.kill("SIGTERM");
    await exited;
    for (const line of readFileSync("/proc/self/mounts", "utf8").split("\n").reverse()) {
      const at = line.split(" ")[1];
      if (at?.startsWith(dir)) await run(["umount", "-l", at]);
    }
    rmSync(dir, { recursive: true, force: true });
  };
  for (let tries = 0; !existsSync(`${dir}/docker.sock`); tries++) {
    if (tries > 200 || daemon.exitCode !== null) {
      await stop();
      return undefined;
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  await importBusybox(dir, host, busybox);
  return { dir, host, stop };
}

async function importBusybox(dir: string, host: string, busybox: string): Promise<void> {
  const tree = `${dir}/busybox`;
  for (const name of ["bin", "tmp", "etc", "root"]) mkdirSync(`${tree}/${name}`, { recursive: true });
  await cp(busybox, `${tree}/bin/busybox`);
  for (const applet of (await run([busybox, "--list"])).out.split("\n")) {
    if (applet && applet !== "busybox") symlinkSync("busybox", `${tree}/bin/${applet}`);
  }
  await Bun.write(`${tree}/etc/passwd`, "root:x:0:0:root:/root:/bin/sh\n");
  await Bun.write(`${tree}/etc/group`, "root:x:0:\n");
  await run(["tar", "-C", tree, "-cf", `${dir}/busybox.tar`, "."]);
  const imported = await run([...OURS, "-H", host, "import", "-c", 'CMD ["sh"]', `${dir}/busybox.tar`, "busybox"]);
  if (imported.status !== 0) throw new Error(`import of busybox failed: ${imported.err}`);
}
