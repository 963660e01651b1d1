// What the shim does for a container, in a process that stays, as the shim's does: the runtime's create and start, without trace or manager.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Spec } from "../../src/oci/runtime-spec.ts";
import { createRuntime } from "../../src/runtime/index.ts";

const io = { stdin: -1, stdout: -1, stderr: -1, terminal: false, hold: [], holdStdin: -1 };

/** Milliseconds of create and start together, of each of `rounds` containers, after as many that do not count. */
export async function createAndStart(bundle: string, rounds: number): Promise<number[]> {
  const runtime = createRuntime();
  const text = readFileSync(join(bundle, "config.json"), "utf8");
  const times: number[] = [];
  // Where the shim has its state: /run, which is in memory with systemd.
  const run = mkdtempSync("/dev/shm/jubako-bench-");
  try {
    for (let i = 0; i < 2 * rounds; i++) {
      const id = `jubako-bench-${process.pid}-${i}`;
      const began = performance.now();
      const container = await runtime.create({
        id,
        bundle,
        spec: JSON.parse(text) as Spec,
        rootfs: [],
        io,
        state: join(run, `state-${i}`),
      });
      try {
        await container.init.start();
        if (i >= rounds) times.push(performance.now() - began);
        const { status } = await container.init.exited;
        if (status !== 0) throw new Error(`the program ended with ${status}`);
      } finally {
        await container.delete(true);
      }
    }
  } finally {
    rmSync(run, { recursive: true, force: true });
  }
  return times;
}
