// The engine's end of one output FIFO: waits until it is readable, hands it to a taker, and tells when the output is over.
import { close, EPOLLHUP, EPOLLIN, pidfdOpen, type Watch, watch } from "../../linux/index.ts";
import { openReader } from "./fifo.ts";

export interface OutputOptions {
  path: string;
  /** Takes what is there from the descriptor (some of it): the count, 0 at the end, undefined where nothing is there now. */
  take(fd: number): number | undefined;
  /** The output is over. Called once, not after close(). */
  ended(): void;
  /**
   * Pid of the process, 0 where it does not run. Where it is given, the end of the writers alone is not the end: the FIFO of a terminal is written by
   * the shim, whose successor will open it again.
   */
  pid?: (() => number) | undefined;
}

export interface Output {
  pause(on: boolean): void;
  /** Takes what is there now; finds out, also without an event, that there are no writers any more. For a FIFO that had a writer before we came. */
  catchUp(): void;
  close(): void;
}

/** A process that ends within this time after its terminal's writer took the terminal with it: the usual end. */
const SAME_MOMENT_MS = 100;
/** How long a new shim may take to deliver the rest. */
const SUCCESSOR_MS = 1000;

export function openOutput(options: OutputOptions): Output {
  let fd = openReader(options.path);
  let over = false;
  let paused = false;
  let watching: Watch | undefined;
  let exit: { watching: Watch; pidfd: number } | undefined;
  let timer: NodeJS.Timeout | undefined;

  function listen(): void {
    watching = watch(fd, paused ? 0 : EPOLLIN, readable, { ref: false });
  }

  function shut(): void {
    over = true;
    watching?.close();
    close(fd);
    fd = -1;
    forgetExit();
    clearTimeout(timer);
  }

  function forgetExit(): void {
    exit?.watching.close();
    if (exit) close(exit.pidfd);
    exit = undefined;
  }

  function conclude(): void {
    if (over) return;
    shut();
    options.ended();
  }

  function noWriters(): void {
    const pid = options.pid?.() ?? 0;
    let pidfd: number;
    try {
      if (pid === 0) throw new Error("not running");
      pidfd = pidfdOpen(pid);
    } catch {
      conclude();
      return;
    }
    // A fresh descriptor: the kernel reports the end of writers to one that has seen a writer, again and again.
    watching?.close();
    close(fd);
    fd = openReader(options.path);
    listen();
    const since = performance.now();
    forgetExit();
    exit = {
      pidfd,
      watching: watch(
        pidfd,
        EPOLLIN,
        () => {
          forgetExit();
          if (performance.now() - since < SAME_MOMENT_MS) conclude();
          else timer = setTimeout(conclude, SUCCESSOR_MS);
        },
        { ref: false },
      ),
    };
  }

  function readable(events: number): void {
    if (over || paused) return;
    // The end and nothing before it: no file need be made for nothing.
    const empty = (events & (EPOLLIN | EPOLLHUP)) === EPOLLHUP;
    if (empty || options.take(fd) === 0) noWriters();
  }

  listen();
  return {
    pause(on) {
      if (over || paused === on) return;
      paused = on;
      watching?.events(on ? 0 : EPOLLIN);
    },
    catchUp() {
      while (!over && !paused) {
        const n = options.take(fd);
        if (n === undefined) return;
        if (n === 0) {
          noWriters();
          return;
        }
      }
    },
    close() {
      if (!over) shut();
    },
  };
}
