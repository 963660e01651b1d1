// Directories for snapshots, made ahead of need: on a journalling file system the three mkdirs cost more than everything else of Prepare together.
// A spare already has the number that its snapshot will have, so that taking it is no operation on disk at all. What a kill -9 leaves of them is a
// directory without a row, which reconciliation removes.
import { mkdirSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Log } from "../state.ts";

export interface Spares {
  /** The number of a snapshot directory with `fs` and `work`; made on the spot where none is ready. */
  take(): number;
  /** Makes some ready, off the event loop. */
  fill(): void;
  /** Removes what was not used. */
  close(): Promise<void>;
}

const READY = 16;

/** `next`: the first number that no snapshot ever had. */
export function createSpares(snapshots: string, next: number, log: Log): Spares {
  const ready: number[] = [];
  let number = next;
  let filling: Promise<void> | undefined;
  let closed = false;

  const fillUp = async (): Promise<void> => {
    while (ready.length < READY && !closed) {
      const id = number++;
      const directory = join(snapshots, String(id));
      await mkdir(directory, 0o700);
      await Promise.all([mkdir(join(directory, "fs"), 0o755), mkdir(join(directory, "work"), 0o711)]);
      ready.push(id);
    }
  };
  const fill = (): void => {
    if (filling || closed || ready.length > READY / 2) return;
    filling = fillUp()
      .catch((error) => log("warn", "no snapshot directories are made ahead", { error: String(error) }))
      .finally(() => {
        filling = undefined;
      });
  };
  return {
    fill,
    take() {
      const spare = ready.shift();
      // after the answer is out: the disk is not the only thing that is busy now
      setImmediate(fill);
      if (spare !== undefined) return spare;
      const id = number++;
      const directory = join(snapshots, String(id));
      mkdirSync(directory, 0o700);
      mkdirSync(join(directory, "fs"), 0o755);
      mkdirSync(join(directory, "work"), 0o711);
      return id;
    },
    async close() {
      closed = true;
      await filling;
      await Promise.all(ready.splice(0).map((id) => rm(join(snapshots, String(id)), { recursive: true, force: true })));
    },
  };
}
