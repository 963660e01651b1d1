// What the shim does for a container, in a process that stays, as the shim's does: the runtime's create and start, without trace or manager.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Spec } from "../../src/oci/runtime-spec.ts";
import { createRuntime, type Runtime } from "../../src/runtime/index.ts";

const io = { stdin: -1, stdout: -1, stderr: -1, terminal: false, hold: [], holdStdin: -1 };

/** Milliseconds of create and start together, of one container after the other. */
export async function* starts(bundle: string, runtime: Runtime): AsyncGenerator<number, void> {
  const text = readFileSync(join(bundle, "config.json"), "utf8");
  // Where the shim has its state: /run, which is in memory with systemd.
  const run = mkdtempSync("/dev/shm/jubako-bench-");
  try {
    for (let i = 0; ; i++) {
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
      let time = 0;
      try {
        await container.init.start();
        time = performance.now() - began;
        const { status } = await container.init.exited;
        if (status !== 0) throw new Error(`the program ended with ${status}`);
      } finally {
        await container.delete(true);
      }
      yield time;
    }
  } finally {
    rmSync(run, { recursive: true, force: true });
  }
}

/** The times of `rounds` containers, after as many that do not count. */
export async function createAndStart(bundle: string, rounds: number): Promise<number[]> {
  const times: number[] = [];
  for await (const time of starts(bundle, createRuntime())) {
    times.push(time);
    if (times.length === 2 * rounds) break;
  }
  return times.slice(rounds);
}
