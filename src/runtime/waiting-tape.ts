// A tape that waits for another one, as its maker still plans that: the kernel loads the player meanwhile, on the other core. It ends with its maker.
import { errno, SYS, sealedMemfd } from "../linux/index.ts";
import { FD } from "./plan/layout.ts";
import { NEXT_FD } from "./player.ts";
import { createTape } from "./tape.ts";

let made: number | undefined;

/** Its descriptor, for all players: what they change of it is their own. */
export function waitingTape(): number {
  if (made === undefined) {
    const tape = createTape();
    const count = tape.word("count");
    const given = tape.label();
    tape.step(SYS.read, [{ value: FD.maker, name: "maker" }, tape.room(8, "byte"), 1], { retry: errno.EINTR, store: count });
    tape.when(count, "NE", 0, given);
    tape.step(SYS.exit_group, [1]);
    tape.place(given);
    tape.play(NEXT_FD);
    made = sealedMemfd("tape", tape.encode());
  }
  return made;
}
