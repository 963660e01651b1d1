// Execs made before they are started: the runtime's exec waits at its gate while the manager's Start is on its way, which then only opens it.
//
// One that is not started soon is taken down again and made anew when it is; so is one whose making failed, as the reason may be gone by then. There
// are few at a time: each is two processes, one of them in the container's cgroup.
import type { RunningProcess } from "../runtime/face.ts";
import type { TaskProcess } from "./process.ts";

export interface Prepared {
  /** Opens its gate, or leaves that to the process' start(); rejects where it could not be run. Undefined: there is none any more, it has to be made. */
  open(): Promise<void> | undefined;
  /** Takes it down. Idempotent; never rejects. */
  drop(): Promise<void>;
}

/** One that a shim before this one made; `opened` takes it over, gate and all. */
export function adoptedPreparation(running: RunningProcess, opened: () => void): Prepared {
  return {
    async open() {
      opened();
    },
    async drop() {
      running.signal(9);
      await running.exited;
      running.release();
    },
  };
}

const MOST = 4;
const KEPT_MS = 5000;

/** `make` is given what opens its process' gate; it settles when the program runs or nothing is left. */
export function preparations(): (process: TaskProcess, make: (opens: Promise<boolean>) => Promise<void>) => void {
  let count = 0;
  return (process, make) => {
    if (count >= MOST) return;
    count++;
    const opens = Promise.withResolvers<boolean>();
    const timer = setTimeout(() => void prepared.drop(), KEPT_MS);
    let over = false;
    const made = make(opens.promise);
    const end = (): void => {
      over = true;
      count--;
      clearTimeout(timer);
      if (process.prepared === prepared) process.prepared = undefined;
    };
    made.then(end, end);
    const prepared: Prepared = {
      open() {
        if (over) return undefined;
        clearTimeout(timer);
        opens.resolve(true);
        return made;
      },
      drop() {
        opens.resolve(false);
        return made.catch(() => {});
      },
    };
    process.prepared = prepared;
  };
}
