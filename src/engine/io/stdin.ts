// The way of clients' input into a process: a queue in front of the FIFO, which may be connected later than the first input came (`docker run -i`
// attaches before it starts). The FIFO is written without blocking; who writes too fast is told to wait.
import { close, EPOLLOUT, type Watch, watch, write } from "../../linux/index.ts";
import { openWriter } from "./fifo.ts";

const HIGH_WATER = 256 * 1024;

export interface Stdin {
  /** Queues the bytes; false: wait for `onDrain` before the next. */
  write(bytes: Uint8Array): boolean;
  onDrain(callback: () => void): void;
  /** No more input: once everything queued is in the FIFO, the write end is closed and `closed` called. Idempotent. */
  end(): void;
  /** Connects the FIFO of a new process; `closed` is called after its end was closed by `end`, not before `started`. */
  connect(path: string, closed: () => void): void;
  /** The process has its own end open now: ours may be closed without what is in the FIFO going with it. */
  started(): void;
  /** The process is gone: drops what is queued, and is open for the next one. */
  disconnect(): void;
  /** Drops what is queued for a process that never came; does nothing where one is connected. */
  forget(): void;
}

export function createStdin(): Stdin {
  let queue: Uint8Array[] = [];
  let queued = 0;
  let fd = -1;
  let watching: Watch | undefined;
  let ending = false;
  let running = false;
  let closed: (() => void) | undefined;
  let waiting: (() => void)[] = [];

  function closeFd(): void {
    watching?.close();
    watching = undefined;
    close(fd);
    fd = -1;
  }

  function drained(): void {
    const callbacks = waiting;
    waiting = [];
    for (const callback of callbacks) callback();
  }

  function pump(): void {
    while (fd >= 0 && queue.length > 0) {
      const first = queue[0]!;
      const n = write(fd, first);
      if (n === undefined) {
        if (watching) watching.events(EPOLLOUT);
        else watching = watch(fd, EPOLLOUT, pump, { ref: false });
        return;
      }
      queued -= n;
      if (n === first.length) queue.shift();
      else queue[0] = first.subarray(n);
    }
    watching?.events(0);
    if (queued < HIGH_WATER) drained();
    if (ending && running && queue.length === 0 && fd >= 0) {
      closeFd();
      closed?.();
    }
  }

  function disconnect(): void {
    if (fd >= 0) closeFd();
    queue = [];
    queued = 0;
    ending = false;
    running = false;
    closed = undefined;
    drained();
  }

  return {
    write(bytes) {
      if (ending) return true;
      queue.push(bytes);
      queued += bytes.length;
      pump();
      return queued < HIGH_WATER;
    },
    onDrain(callback) {
      waiting.push(callback);
    },
    end() {
      if (ending) return;
      ending = true;
      pump();
    },
    connect(path, done) {
      fd = openWriter(path);
      closed = done;
      pump();
    },
    started() {
      running = true;
      pump();
    },
    disconnect,
    forget() {
      if (fd < 0) disconnect();
    },
  };
}
