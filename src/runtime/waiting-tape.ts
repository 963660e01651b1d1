// A tape that waits for another one, as its maker still plans that: the kernel loads the player meanwhile, on the other core, and the player makes
// what is known before the plan. It ends with its maker.
import { errno, SYS, sealedMemfd } from "../linux/index.ts";
import { FD } from "./plan/layout.ts";
import { planHelper } from "./plan/network.ts";
import { createPlanner } from "./plan/planner.ts";
import { NEXT_FD } from "./player.ts";

const made = new Map<boolean, number>();

/** Its descriptor, for all players: what they change of it is their own. `network`: it has a network namespace made. */
export function waitingTape(network = false): number {
  let fd = made.get(network);
  if (fd === undefined) {
    const planner = createPlanner();
    const { tape } = planner;
    const count = tape.word("count");
    const given = tape.label();
    if (network) planHelper(planner);
    tape.step(SYS.read, [{ value: FD.maker, name: "maker" }, tape.room(8, "byte"), 1], { retry: errno.EINTR, store: count });
    tape.when(count, "NE", 0, given);
    tape.step(SYS.exit_group, [1]);
    tape.place(given);
    tape.play(NEXT_FD);
    fd = sealedMemfd("tape", tape.encode());
    made.set(network, fd);
  }
  return fd;
}
