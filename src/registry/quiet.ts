// Gives memory back once there was nothing to do for a while: what requests left for the collector, and the executable's pages that only start-up or a
// burst needed.
import { releaseExecutable } from "../linux/index.ts";

const QUIET_MS = 2000;

export interface Quiet {
  /** Something happens. Costs a clock's reading. */
  busy(): void;
  close(): void;
}

export function createQuiet(): Quiet {
  let last = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const look = () => {
    timer = undefined;
    if (Date.now() - last < QUIET_MS) return wait();
    Bun.gc(true);
    releaseExecutable();
  };
  const wait = () => {
    timer = setTimeout(look, QUIET_MS);
    timer.unref();
  };
  const busy = () => {
    last = Date.now();
    if (timer === undefined) wait();
  };
  busy();
  return { busy, close: () => clearTimeout(timer) };
}
