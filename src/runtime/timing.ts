// A tape's stamps as spans: one an instruction that was played, with its reason, below the span that was active when the player started.
import { readSync } from "node:fs";
import { close } from "../linux/index.ts";
import { type Context, record } from "../trace/index.ts";
import type { Plan } from "./plan/create.ts";
import { stepText } from "./tape.ts";

/** Nanoseconds between CLOCK_MONOTONIC and CLOCK_REALTIME: performance.now() counts the former. */
function realtimeOffset(): bigint {
  return BigInt(Date.now()) * 1_000_000n - process.hrtime.bigint();
}

/** Reads the stamps in `timing`, records the spans, closes it. */
export function tracePlayer(context: Context, plan: Plan, timing: number): void {
  try {
    const { steps } = plan.tape;
    const bytes = Buffer.alloc(steps.length * 16);
    readSync(timing, bytes, 0, bytes.length, 0);
    const offset = realtimeOffset();
    let last = 0n;
    steps.forEach((step, i) => {
      const start = bytes.readBigUInt64LE(i * 16);
      let end = bytes.readBigUInt64LE(i * 16 + 8);
      if (start === 0n) return;
      // execve does not come back: what is after it is the program.
      if (end === 0n) end = start;
      if (start > last) last = start;
      record(context, stepText(step), start + offset, end + offset, { index: i, why: step.why, kind: "tape" });
    });
    const execve = plan.marks.execve;
    const at = execve >= 0 ? bytes.readBigUInt64LE(execve * 16) : 0n;
    if (at !== 0n) {
      const now = process.hrtime.bigint();
      record(context, "execve → first instruction of the program", at + offset, now + offset, { kind: "program" });
    }
  } finally {
    close(timing);
  }
}
