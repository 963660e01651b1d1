// Copies between a terminal's master side and the FIFOs of its client, inside the kernel (splice(2)): no byte is ever in the shim's memory, so
// none is lost when the shim is killed. Where splice is refused (a file opened for appending), read(2) and write(2) do it.
import { binding, check, close, EPOLLIN, EPOLLOUT, errno, O_WRONLY, open, SYS, type Watch, watch, write } from "../linux/index.ts";

const SPLICE_F_NONBLOCK = 2;
const CHUNK = 65536;
const F_DUPFD_CLOEXEC = 1030;
const POLLIN = 1;
const POLLOUT = 4;
/** How long the exit of a process waits for a reader that doesn't read. */
const STALL_MS = 2000;

export interface TerminalCopy {
  /** Resolves when all that the terminal holds was passed on, or no one took it for STALL_MS. After the process' exit. */
  drained(): Promise<void>;
  /** Ends copying and closes `input` and `output`. */
  close(): void;
}

/** What poll(2) says of the two right now. */
function ready(from: number, to: number): { from: boolean; to: boolean } {
  const fds = new DataView(new ArrayBuffer(16));
  fds.setInt32(0, from, true);
  fds.setInt16(4, POLLIN, true);
  fds.setInt32(8, to, true);
  fds.setInt16(12, POLLOUT, true);
  check(binding.syscall(SYS.poll, fds.buffer as ArrayBuffer, 2, 0), "poll");
  return { from: fds.getInt16(6, true) !== 0, to: fds.getInt16(14, true) !== 0 };
}

interface Pump {
  /** Moves what it can; "empty": nothing to read; "full": nothing can be written; "end": the source is at its end or the target is gone. */
  move(): "empty" | "full" | "end";
}

function pump(from: number, to: number): Pump {
  let buffer: Uint8Array | undefined;
  let rest: Uint8Array = new Uint8Array(0);
  const copy = (): "empty" | "full" | "end" => {
    buffer ??= new Uint8Array(16384);
    for (;;) {
      while (rest.length > 0) {
        let n: number | undefined;
        try {
          n = write(to, rest);
        } catch {
          return "end";
        }
        if (n === undefined) return "full";
        rest = rest.subarray(n);
      }
      const n = binding.syscall(SYS.read, from, buffer, buffer.length);
      if (n === -errno.EAGAIN) return "empty";
      if (n === -errno.EINTR) continue;
      if (n <= 0) return "end";
      rest = buffer.subarray(0, n);
    }
  };
  return {
    move() {
      if (buffer) return copy();
      for (;;) {
        const n = binding.syscall(SYS.splice, from, null, to, null, CHUNK, SPLICE_F_NONBLOCK);
        if (n > 0) continue;
        if (n === -errno.EINTR) continue;
        if (n === -errno.EINVAL) return copy();
        // 0: the end of a FIFO; EIO: the end of a terminal; EPIPE: nobody will ever read.
        if (n !== -errno.EAGAIN) return "end";
        const now = ready(from, to);
        if (!now.from) return "empty";
        if (!now.to) return "full";
        // Both are ready and yet nothing moved: let read and write tell which it is.
        return copy();
      }
    },
  };
}

/**
 * Starts copying master → output and input → master; -1: none. The master stays its owner's, and must be closed after close(). `output` is closed
 * as soon as the terminal's other side is: the reader sees the end before anyone deletes the process.
 */
export function copyTerminal(master: number, input: number, output: number): TerminalCopy {
  // The master is watched for both directions, but a descriptor can be watched once: a duplicate serves the writing side.
  const writer = input >= 0 ? check(binding.syscall(SYS.fcntl, master, F_DUPFD_CLOEXEC, 0), "fcntl F_DUPFD_CLOEXEC") : -1;
  // Without a reader, what arrives is dropped, so that a program never blocks on a terminal that nobody looks at.
  const out = oneWay(master, output >= 0 ? output : open("/dev/null", O_WRONLY));
  const into = input >= 0 ? oneWay(input, writer) : undefined;
  return {
    drained: () => out.drained(),
    close() {
      out.close();
      into?.close();
      close(input);
    },
  };
}

interface OneWay {
  drained(): Promise<void>;
  close(): void;
}

/** Copies until the end, and closes the target then. */
function oneWay(from: number, target: number): OneWay {
  const { move } = pump(from, target);
  let source: Watch | undefined;
  let sink: Watch | undefined;
  let done = false;
  let moved = 0;
  const waiting: (() => void)[] = [];

  const settle = (): void => {
    for (const resolve of waiting.splice(0)) resolve();
  };
  const finish = (): void => {
    if (done) return;
    done = true;
    source?.close();
    sink?.close();
    close(target);
    settle();
  };
  const step = (): "empty" | "full" | "end" => {
    if (done) return "end";
    const state = move();
    moved++;
    if (state === "end") finish();
    else if (state === "full") {
      source?.events(0);
      if (sink) sink.events(EPOLLOUT);
      else {
        sink = watch(target, EPOLLOUT, () => {
          sink?.events(0);
          source?.events(EPOLLIN);
          if (step() === "empty" && draining) settle();
        });
      }
    }
    return state;
  };
  let draining = false;
  source = watch(from, EPOLLIN, () => {
    if (step() === "empty" && draining) settle();
  });
  step();
  return {
    drained() {
      draining = true;
      if (done || step() !== "full") return Promise.resolve();
      return new Promise((resolve) => {
        let seen = moved;
        const timer = setInterval(() => {
          if (moved === seen) settle();
          seen = moved;
        }, STALL_MS);
        waiting.push(() => {
          clearInterval(timer);
          resolve();
        });
      });
    },
    close: finish,
  };
}
