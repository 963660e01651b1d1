import { errno, SYS } from "../../linux/index.ts";
import type { CgroupLocation } from "../cgroups/index.ts";
import type { Label, Tape } from "../tape.ts";

/** Of half a millisecond each. */
const MOST_TRIES = 10;

/** Removes the container's cgroups; goes to `left` where one stays, or had others below it. */
export function planRemoval(tape: Tape, { directories }: CgroupLocation, left: Label): void {
  const all = [...new Set(Object.values(directories))];
  const result = tape.word("result");
  const tries = tape.word("tries");
  const pause = tape.structure([0, 500_000], "{0.5 ms}");
  const again = tape.label();
  const over = tape.label();
  tape.place(again);
  const troubles = all.map((directory) => {
    const trouble = tape.label();
    const next = tape.label();
    tape.step(SYS.rmdir, [directory], { why: `remove cgroup ${directory}`, store: result, jump: { to: trouble } });
    tape.place(next);
    return { trouble, next };
  });
  tape.jump(over);
  const busy = tape.label();
  for (const { trouble, next } of troubles) {
    tape.place(trouble);
    tape.when(result, "NE", -errno.ENOENT, busy);
    tape.jump(next);
  }
  // A process that has ended is in its cgroup for a moment more.
  tape.place(busy);
  tape.when(result, "NE", -errno.EBUSY, left);
  tape.when(tries, "GE", MOST_TRIES, left);
  tape.compute("ADD", tries, 1, tries);
  tape.step(SYS.nanosleep, [pause, 0], { why: "wait for its processes to be gone", ignore: "all" });
  tape.jump(again);
  tape.place(over);
}
