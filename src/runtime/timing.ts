// A tape's stamps as spans: one an instruction that was played, with its reason, below the span that was active when the player started.
import { readSync } from "node:fs";
import { binding, close, SYS } from "../linux/index.ts";
import { type Context, record } from "../trace/index.ts";
import type { Plan } from "./plan/create.ts";
import { stepText } from "./tape.ts";

/** A clock of the kernel in nanoseconds; 0: CLOCK_REALTIME, 1: CLOCK_MONOTONIC, which the stamps are in. */
function clock(id: 0 | 1): bigint {
  const time = new BigInt64Array(2);
  binding.syscall(SYS.clock_gettime, id, new Uint8Array(time.buffer));
  return time[0]! * 1_000_000_000n + time[1]!;
}

/** Reads the stamps in `timing`, records the spans, closes it. */
export function tracePlayer(context: Context, plan: Plan, timing: number): void {
  const started = clock(1);
  try {
    const { steps } = plan.tape;
    const bytes = Buffer.alloc(steps.length * 16);
    readSync(timing, bytes, 0, bytes.length, 0);
    const offset = clock(0) - clock(1);
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
      record(context, "execve → first instruction of the program", at + offset, started + offset, { kind: "program" });
    }
  } finally {
    close(timing);
  }
}
