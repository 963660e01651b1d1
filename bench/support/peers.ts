// Starts the two engines that a bench compares, each in a temporary directory of its own with its own bridge, and takes them down again with all
// that they made: Debian's dockerd (package docker.io) and ours (dist/bin/jubakod).
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface Peer {
  name: string;
  host: string;
  /** The daemons' pids whose memory is the engine's and the manager's. */
  daemons(): number[];
  /** Pids of what holds the containers (shims, keepers). */
  shims(): number[];
  stop(): Promise<void>;
}

const root = new URL("../../", import.meta.url).pathname;

export const DOCKER = "docker";

/** Of this process, so that two benches can run at once. */
const bridges = [`jubako0-${process.pid % 100_000}`, `jubako1-${process.pid % 100_000}`] as const;
const subnet = (network: number) => `10.${network}.${process.pid % 250}.1/24`;

export function docker(peer: { host: string }, ...args: string[]): { status: number; stdout: string; stderr: string } {
  const result = spawnSync(DOCKER, ["-H", peer.host, ...args], { encoding: "utf8", maxBuffer: 64 << 20 });
  return { status: result.status ?? 255, stdout: result.stdout ?? "", stderr: result.stderr ?? String(result.error ?? "") };
}

/** The same, and an error where it failed. */
export function must(peer: Peer, ...args: string[]): string {
  const result = docker(peer, ...args);
  if (result.status !== 0) throw new Error(`${peer.name}: docker ${args.join(" ")}: ${result.status}: ${result.stderr}`);
  return result.stdout;
}

async function up(host: string, child: ChildProcess, log: string): Promise<void> {
  for (let tries = 0; tries < 400; tries++) {
    if (docker({ host }, "version").status === 0) return;
    if (child.exitCode !== null) break;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  child.kill("SIGKILL");
  throw new Error(`${host} did not come up:\n${existsSync(log) ? readFileSync(log, "utf8").slice(-3000) : ""}`);
}

export async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return;
  const exited = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), 30_000);
  await exited;
  clearTimeout(timer);
}

/** Pids whose command line contains all the words. */
function processes(...words: string[]): number[] {
  return readdirSync("/proc").flatMap((entry) => {
    if (!/^\d+$/.test(entry)) return [];
    try {
      const line = readFileSync(`/proc/${entry}/cmdline`, "utf8");
      return words.every((word) => line.includes(word)) ? [Number(entry)] : [];
    } catch {
      return [];
    }
  });
}

export function unmountBelow(dir: string): void {
  const mounts = readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" ")[1] ?? "");
  for (const mount of mounts.filter((m) => m.startsWith(`${dir}/`)).reverse()) spawnSync("umount", ["-l", mount]);
}

/** A busybox image, made from this machine's busybox-static. */
function seed(peer: Peer): void {
  const tar = spawnSync(process.execPath, [join(root, "scripts/seed-busybox.ts")], { maxBuffer: 64 << 20 });
  const loaded = spawnSync(DOCKER, ["-H", peer.host, "load"], { input: tar.stdout, encoding: "utf8" });
  if (loaded.status !== 0) throw new Error(`${peer.name}: load: ${loaded.stderr}${tar.stderr}`);
}

/** A directory of the daemon's own whose `run` is in memory, as /run is on machines with systemd: both daemons keep their run-time state there. */
function place(name: string): string {
  const dir = mkdtempSync(join(tmpdir(), name));
  mkdirSync(join(dir, "run"));
  spawnSync("mount", ["-t", "tmpfs", "-o", "mode=711", "tmpfs", join(dir, "run")]);
  return dir;
}

export async function startDockerd(): Promise<Peer> {
  const dir = place("jubako-bench-dockerd-");
  const host = `unix://${dir}/docker.sock`;
  const log = join(dir, "log");
  const out = openSync(log, "a");
  const [bridge] = bridges;
  const hadForward = readFileSync("/proc/sys/net/ipv4/ip_forward", "utf8").trim();
  spawnSync("ip", ["link", "add", bridge, "type", "bridge"]);
  spawnSync("ip", ["addr", "add", subnet(219), "dev", bridge]);
  spawnSync("ip", ["link", "set", bridge, "up"]);
  const rulesBefore = ["iptables", "ip6tables"].map((tool) => spawnSync(`${tool}-save`, { encoding: "utf8" }).stdout ?? "");
  const child = spawn(
    "dockerd",
    ["--data-root", join(dir, "root"), "--exec-root", join(dir, "run/exec"), "--pidfile", join(dir, "pid"), "-H", host, "--bridge", bridge],
    {
      stdio: ["ignore", out, out],
    },
  );
  const peer: Peer = {
    name: "dockerd",
    host,
    daemons: () => [child.pid!, ...processes("containerd", join(dir, "run/exec"), "--config")],
    shims: () => processes("containerd-shim", join(dir, "run/exec")),
    async stop() {
      for (const id of docker(peer, "ps", "-aq").stdout.split("\n").filter(Boolean)) docker(peer, "rm", "-f", id);
      await end(child);
      unmountBelow(dir);
      spawnSync("ip", ["link", "del", bridge]);
      ["iptables", "ip6tables"].forEach((tool, i) => {
        spawnSync(`${tool}-restore`, {
          input: rulesBefore[i] || "*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\nCOMMIT\n*nat\nCOMMIT\n",
        });
      });
      spawnSync("sysctl", ["-qw", `net.ipv4.ip_forward=${hadForward}`]);
      rmSync(dir, { recursive: true, force: true });
    },
  };
  try {
    await up(host, child, log);
    seed(peer);
  } catch (error) {
    await peer.stop();
    throw error;
  }
  return peer;
}

export async function startJubakod(flags: string[] = []): Promise<Peer> {
  const dir = place("jubako-bench-");
  const host = `unix://${dir}/docker.sock`;
  const log = join(dir, "log");
  const out = openSync(log, "a");
  const args = ["--data-root", join(dir, "root"), "--exec-root", join(dir, "run/exec"), "--pidfile", join(dir, "pid"), "-H", host];
  const child = spawn(join(root, "dist/bin/jubakod"), [...args, "--bridge", bridges[1], "--bip", subnet(218), ...flags], {
    env: { ...process.env, JUBAKO_SHIM_STATE: join(dir, "run/shim") },
    stdio: ["ignore", out, out],
  });
  const peer: Peer = {
    name: "jubakod",
    host,
    daemons: () => [child.pid!],
    shims: () => processes(join(dir, "run/exec")).filter((pid) => pid !== child.pid),
    async stop() {
      for (const id of docker(peer, "ps", "-aq").stdout.split("\n").filter(Boolean)) docker(peer, "rm", "-f", id);
      await end(child);
      for (const pid of peer.shims()) process.kill(pid, "SIGTERM");
      spawnSync("ip", ["link", "del", bridges[1]], { stdio: "ignore" });
      unmountBelow(dir);
      rmSync(dir, { recursive: true, force: true });
    },
  };
  try {
    await up(host, child, log);
    seed(peer);
  } catch (error) {
    await peer.stop();
    throw error;
  }
  return peer;
}
