// Daemons that tests start, and what they leave in their directories.
import { type ChildProcess, spawnSync } from "node:child_process";
import { readFileSync, rmSync } from "node:fs";

/** Ends it as its user would; one that doesn't go within twenty seconds is killed. */
export async function endDaemon(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), 20_000);
  await exited;
  clearTimeout(timer);
}

/** Takes down what is mounted below a directory, and removes it. */
export function removeMounted(dir: string): void {
  for (const line of readFileSync("/proc/self/mounts", "utf8").split("\n").reverse()) {
    const place = line.split(" ")[1] ?? "";
    if (place.startsWith(`${dir}/`)) spawnSync("umount", ["-l", place]);
  }
  rmSync(dir, { recursive: true, force: true });
}
