// Daemons that tests start, and what they leave in their directories.
import { type ChildProcess, spawnSync } from "node:child_process";
import { readdirSync, readFileSync, rmSync } from "node:fs";

/** Ends it as its user would; one that doesn't go within twenty seconds is killed. */
export async function endDaemon(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), 20_000);
  await exited;
  clearTimeout(timer);
}

/** Pids whose command line mentions `word`. */
export function processesNaming(word: string): number[] {
  return readdirSync("/proc").flatMap((entry) => {
    if (!/^\d+$/.test(entry) || Number(entry) === process.pid) return [];
    try {
      return readFileSync(`/proc/${entry}/cmdline`, "utf8").includes(word) ? [Number(entry)] : [];
    } catch {
      return [];
    }
  });
}

/** Kills them, and what they started while they were looked for; the command lines of those that there were. */
export function endNaming(word: string): string[] {
  const ended: string[] = [];
  const until = Date.now() + 5000;
  for (let pids = processesNaming(word); pids.length > 0 && Date.now() < until; pids = processesNaming(word)) {
    for (const pid of pids) {
      try {
        const command = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
        process.kill(pid, "SIGKILL");
        ended.push(command);
      } catch {
        // It ended by itself.
      }
    }
    Bun.sleepSync(10);
  }
  return ended;
}

/** Takes down what is mounted below a directory, and removes it. */
export function removeMounted(dir: string): void {
  for (const line of readFileSync("/proc/self/mounts", "utf8").split("\n").reverse()) {
    const place = line.split(" ")[1] ?? "";
    if (place.startsWith(`${dir}/`)) spawnSync("umount", ["-l", place]);
  }
  rmSync(dir, { recursive: true, force: true });
}
