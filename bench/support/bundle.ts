// A bundle of busybox as `runc spec` describes one, and what a run of a runtime over it costs.
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Makes DIR/config.json and DIR/rootfs; its program is `true`. */
export function makeBundle(dir: string): void {
  mkdirSync(join(dir, "rootfs/bin"), { recursive: true });
  cpSync("/bin/busybox", join(dir, "rootfs/bin/busybox"));
  for (const applet of ["sh", "true", "sleep"]) symlinkSync("busybox", join(dir, "rootfs/bin", applet));
  const spec = spawnSync("runc", ["spec", "--bundle", dir], { encoding: "utf8" });
  if (spec.status !== 0) throw new Error(`runc spec: ${spec.stderr ?? spec.error}`);
  const file = join(dir, "config.json");
  const config = JSON.parse(readFileSync(file, "utf8")) as {
    process: { terminal: boolean; args: string[]; capabilities: { ambient?: string[] } };
  };
  config.process.terminal = false;
  config.process.args = ["true"];
  // Of a runc before 1.2: without the inheritable ones they can't be raised, which newer runtimes warn of.
  delete config.process.capabilities.ambient;
  writeFileSync(file, JSON.stringify(config));
}

export interface Cost {
  /** Milliseconds of each command. */
  each: number[];
  /** Milliseconds. */
  wall: number;
  /** Milliseconds of processor time, with what its children took. */
  cpu: number;
}

/** Runs the commands one after the other; throws where one fails. */
export function cost(commands: string[][]): Cost {
  const began = performance.now();
  const total: Cost = { each: [], wall: 0, cpu: 0 };
  for (const command of commands) {
    const start = performance.now();
    // No pipe: a container that was created holds its ends as long as it is there.
    const { exitCode, resourceUsage } = Bun.spawnSync(command, { stdin: "ignore", stdout: "ignore", stderr: "inherit", timeout: 60_000 });
    if (exitCode !== 0) throw new Error(`${command.join(" ")}: ended with ${exitCode}`);
    total.each.push(performance.now() - start);
    total.cpu += Number(resourceUsage.cpuTime.total) / 1000;
  }
  total.wall = performance.now() - began;
  return total;
}

/** Compiles a program of bench/support into the directory. */
export function compiled(name: string, dir: string): string {
  const program = join(dir, name);
  const built = spawnSync("gcc", ["-O2", "-o", program, new URL(`${name}.c`, import.meta.url).pathname], { encoding: "utf8" });
  if (built.status !== 0) throw new Error(`gcc: ${built.stderr ?? built.error}`);
  return program;
}

/** The commands' peak memory in MB, by peak.c: that of the one with most. */
export function peakMemory(peak: string, commands: string[][]): number {
  const peaks = commands.map((command) => {
    const { status, stdout } = spawnSync(peak, command, { encoding: "utf8", stdio: ["ignore", "pipe", "inherit"], timeout: 60_000 });
    if (status !== 0) throw new Error(`${command.join(" ")}: ended with ${status}`);
    return Number(stdout) / 1024;
  });
  return Math.max(...peaks);
}

/** What a runtime is called with: its command line up to the command. */
export function runOf(runtime: string[], bundle: string, id: string): string[][] {
  return [[...runtime, "run", "--bundle", bundle, id]];
}

export function cycleOf(runtime: string[], bundle: string, id: string): string[][] {
  return [
    [...runtime, "create", "--bundle", bundle, id],
    [...runtime, "start", id],
    [...runtime, "delete", "--force", id],
  ];
}
