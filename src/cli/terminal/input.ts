// Standard input, read when it is ready. process.stdin would do, but leaves the terminal non-blocking behind itself: the shell that called us
// would then end at its next read.
import { EPOLLIN, read, watch } from "../../linux/index.ts";

export interface Input {
  pause(): void;
  resume(): void;
  /** No more callbacks. */
  close(): void;
}

const CHUNK = 64 * 1024;

export function readInput(fd: number, onData: (chunk: Uint8Array) => void, onEnd: () => void): Input {
  let paused = false;
  let closed = false;
  /** False at the end. */
  const take = (): boolean => {
    const buffer = new Uint8Array(CHUNK);
    let count: number | undefined;
    try {
      count = read(fd, buffer);
    } catch {
      // A terminal that hung up: EIO.
      count = 0;
    }
    if (count === undefined) return true;
    if (count > 0) onData(buffer.subarray(0, count));
    return count > 0;
  };
  try {
    const watched = watch(fd, EPOLLIN, () => {
      if (closed || paused) return;
      if (!take()) {
        input.close();
        onEnd();
      }
    });
    const input: Input = {
      pause() {
        if (closed || paused) return;
        paused = true;
        watched.events(0);
      },
      resume() {
        if (closed || !paused) return;
        paused = false;
        watched.events(EPOLLIN);
      },
      close() {
        if (closed) return;
        closed = true;
        watched.close();
      },
    };
    return input;
  } catch {
    // A regular file or /dev/null: epoll refuses it, and a read never blocks.
    const step = () => {
      if (closed || paused) return;
      if (take()) setImmediate(step);
      else {
        closed = true;
        onEnd();
      }
    };
    setImmediate(step);
    return {
      pause: () => {
        paused = true;
      },
      resume() {
        if (!paused) return;
        paused = false;
        setImmediate(step);
      },
      close: () => {
        closed = true;
      },
    };
  }
}

/** All of it, for commands that take a file on standard input. */
export async function* inputChunks(fd = 0): AsyncGenerator<Uint8Array> {
  const waiting: Uint8Array[] = [];
  let ended = false;
  let wake = () => {};
  const input = readInput(
    fd,
    (chunk) => {
      waiting.push(chunk);
      if (waiting.length >= 16) input.pause();
      wake();
    },
    () => {
      ended = true;
      wake();
    },
  );
  try {
    for (;;) {
      const chunk = waiting.shift();
      if (chunk) {
        if (waiting.length < 8) input.resume();
        yield chunk;
      } else if (ended) {
        return;
      } else {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    }
  } finally {
    input.close();
  }
}
