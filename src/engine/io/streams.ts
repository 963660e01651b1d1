// The streams of one process as clients see them: output through the hub, input through stdin, and who wants to know when the log grew.
import { createHub, type Hub } from "./hub.ts";
import { createStdin, type Stdin } from "./stdin.ts";

export interface ContainerStreams {
  hub: Hub;
  stdin: Stdin;
  /** Called after entries were written to the log, and when the output ended. */
  logListeners: Set<() => void>;
  /** Whether a process writes to these streams now. */
  live: boolean;
}

export function createStreams(): ContainerStreams {
  return { hub: createHub(), stdin: createStdin(), logListeners: new Set(), live: false };
}
