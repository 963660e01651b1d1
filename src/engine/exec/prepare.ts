// Execs added to the task service when they are created, so that they may be made while the client is on its way to start them. They are few and
// wait for seconds only: what is not started by then, or could not be added, is added when it is started.

import type { Engine } from "../context.ts";
import type { ContainerStreams } from "../io/streams.ts";
import { type AddedExec, removeExec } from "./run.ts";

export interface Prepared {
  readonly streams: ContainerStreams;
  /** What was added; undefined where there is nothing any more, and nothing is left of it. To be called once. */
  take(): Promise<AddedExec | undefined>;
}

const MOST = 4;
const KEPT_MS = 5000;

export function createPreparations(engine: Engine): (streams: ContainerStreams, add: () => Promise<AddedExec>) => Prepared | undefined {
  let count = 0;
  return (streams, add) => {
    if (count >= MOST) return undefined;
    count++;
    // Behind the answer that tells of the exec.
    const added = new Promise((resolve) => setImmediate(resolve)).then(add).catch(() => undefined);
    let dropped: Promise<void> | undefined;
    const timer = setTimeout(() => {
      count--;
      dropped = added.then((exec) => exec && removeExec(engine, exec));
    }, KEPT_MS);
    timer.unref();
    return {
      streams,
      async take() {
        if (!dropped) {
          clearTimeout(timer);
          count--;
          return added;
        }
        await dropped;
        return undefined;
      },
    };
  };
}
