// A tape's stamps as spans: one an instruction that was played, with its reason, below the span that was active when the player started.
import { binding, SYS } from "../linux/index.ts";
import { type Context, record } from "../trace/index.ts";
import type { Plan } from "./plan/create.ts";
import { stepText } from "./tape.ts";

/** A clock of the kernel in nanoseconds; 0: CLOCK_REALTIME, 1: CLOCK_MONOTONIC, which the stamps are in. */
function clock(id: 0 | 1): bigint {
  const time = new BigInt64Array(2);
  binding.syscall(SYS.clock_gettime, id, new Uint8Array(time.buffer));
  return time[0]! * 1_000_000_000n + time[1]!;
}

/** Records the spans; `failed`: the instruction that ended the tape, and why. */
export function tracePlayer(context: Context, plan: Plan, stamps: Uint8Array, failed?: { index: number; why: string }): void {
  const now = clock(1);
  const offset = clock(0) - now;
  const words = new BigUint64Array(stamps.buffer);
  plan.tape.steps.forEach((step, i) => {
    const start = words[2 * i]!;
    if (start === 0n) return;
    // execve does not come back: what is after it is the program. What failed has no end either.
    const end = words[2 * i + 1]! || start;
    const why = failed?.index === i ? failed.why : undefined;
    record(context, stepText(step), start + offset, end + offset, { index: i, why: step.why, kind: "tape" }, context.spanId, why);
  });
  const { execve } = plan.marks;
  const at = execve >= 0 && !failed ? words[2 * execve]! : 0n;
  if (at !== 0n) record(context, "execve → first instruction of the program", at + offset, now + offset, { kind: "program" });
}
