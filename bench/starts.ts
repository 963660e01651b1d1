// A container's create and start inside the shim, by this checkout and by another one in turns, a process each: what a change is worth on a machine whose
// speed drifts. Both have to be built.
//   bun bench/starts.ts OTHER-CHECKOUT [rounds] [bundle]
// Beside other load it is read best at a real-time priority, where the kernel lets such processes into cgroups, so without the cpu controller of v1:
//   unshare -m --propagation private sh -c 'umount /sys/fs/cgroup/cpu; exec chrt -f 1 bun bench/starts.ts OTHER-CHECKOUT'
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import type { Runtime } from "../src/runtime/index.ts";
import { makeBundle } from "./support/bundle.ts";
import { starts } from "./support/in-process.ts";
import { median, quickest } from "./support/measure.ts";

const here = resolve(import.meta.dir, "..");
const [first = "", second = "", third = ""] = process.argv.slice(2);

/** Makes a start for each line that comes. */
async function serve(checkout: string, bundle: string): Promise<void> {
  const { createRuntime } = (await import(join(checkout, "src/runtime/index.ts"))) as { createRuntime(): Runtime };
  const times = starts(bundle, createRuntime());
  for await (const line of console) if (line) console.log((await times.next()).value);
  await times.return();
}

/** A process that serves a checkout's starts. */
function side(checkout: string, bundle: string) {
  const child = Bun.spawn([process.execPath, import.meta.path, "--serve", checkout, bundle], { stdin: "pipe", stdout: "pipe" });
  const reader = child.stdout.getReader();
  return {
    times: [] as number[],
    async start(): Promise<number> {
      child.stdin.write("start\n");
      await child.stdin.flush();
      let line = "";
      while (!line.endsWith("\n")) {
        const { value, done } = await reader.read();
        if (done) throw new Error(`${checkout}: its process ended`);
        line += new TextDecoder().decode(value);
      }
      return Number(line);
    },
    async end(): Promise<void> {
      child.stdin.end();
      await child.exited;
    },
  };
}

if (first === "--serve") {
  await serve(second, third);
  process.exit(0);
}
if (!first) throw new Error("which other checkout?");
const rounds = Number(second || 100);
const dir = third || mkdtempSync(join(tmpdir(), "jubako-bench-starts-"));
try {
  if (!third) makeBundle(dir);
  const sides = { [resolve(first)]: side(resolve(first), dir), [here]: side(here, dir) };
  for (let i = 0; i < rounds + 31; i++) {
    // Whoever is first in one round is second in the next.
    for (const each of i % 2 ? Object.values(sides) : Object.values(sides).reverse()) {
      const time = await each.start();
      if (i >= 31) each.times.push(time);
    }
  }
  console.log("| checkout | best | quickest tenth | median |\n|---|---|---|---|");
  for (const [name, { times, end }] of Object.entries(sides)) {
    console.log(`| ${name} | ${Math.min(...times).toFixed(2)} ms | ${quickest(times).toFixed(2)} | ${median(times).toFixed(2)} |`);
    await end();
  }
} finally {
  if (!third) rmSync(dir, { recursive: true, force: true });
}
