// A process' streams and the user's: what attach, run, start and exec share. Input goes to the process until it ends or the detach keys come;
// output comes raw where the process has a terminal, framed where not; the terminal is raw while it lasts, and restored however it ends.
import { demultiplexer, type RawStream } from "../../client/index.ts";
import { DEFAULT_KEYS, keyWatcher, parseKeys } from "./detach.ts";
import type { Size } from "./tty.ts";

export interface SessionOptions {
  stream: RawStream;
  /** The process has a terminal. */
  tty: boolean;
  stdin: boolean;
  stdout: boolean;
  stderr: boolean;
  detachKeys: string;
  out(data: Uint8Array): void;
  err(data: Uint8Array): void;
}

export interface Session {
  /** The process' output has ended ("ended"), or the user pressed the detach keys ("detached"). Rejects where the connection broke. */
  done: Promise<"ended" | "detached">;
  /** Stops reading input and restores the terminal; harmless when repeated. */
  close(): void;
}

export async function openSession(options: SessionOptions): Promise<Session> {
  const { stream, tty } = options;
  let restore: (() => void) | undefined;
  let closed = false;
  let settle: (how: "ended" | "detached") => void = () => {};
  let fail: (error: Error) => void = () => {};
  const done = new Promise<"ended" | "detached">((resolve, reject) => {
    settle = resolve;
    fail = reject;
  });
  done.catch(() => {});
  const atExit = () => restore?.();
  const close = () => {
    if (closed) return;
    closed = true;
    if (options.stdin) stopInput();
    restore?.();
    process.off("exit", atExit);
  };
  const end = (how: "ended" | "detached", error?: Error) => {
    close();
    if (error) fail(error);
    else settle(how);
  };

  let stopInput = () => {};
  if (options.stdin) {
    if (tty) {
      const { rawMode } = await import("./tty.ts");
      restore = rawMode(0);
      if (restore) process.on("exit", atExit);
    }
    const watch = tty ? keyWatcher(parseKeys(options.detachKeys || DEFAULT_KEYS)) : undefined;
    const { readInput } = await import("./input.ts");
    const input = readInput(
      0,
      (chunk) => {
        const { pass, detached } = watch ? watch(chunk) : { pass: chunk, detached: false };
        if (pass.length > 0 && !stream.write(pass)) {
          input.pause();
          void stream.drained().then(() => input.resume());
        }
        if (detached) {
          end("detached");
          stream.destroy();
        }
      },
      () => stream.closeWrite(),
    );
    stopInput = () => input.close();
  }

  const framed = demultiplexer((which, piece) => (which === 1 ? options.out(piece) : options.err(piece)));
  stream.start(
    (chunk) => {
      if (tty) {
        options.out(chunk);
        return;
      }
      try {
        framed(chunk);
      } catch (error) {
        stream.destroy();
        end("ended", error as Error);
      }
    },
    (error) => {
      end("ended", error);
      stream.destroy();
    },
  );
  return { done, close };
}

/** Tells the process' terminal our size now, and whenever it changes; returns how to stop. */
export async function followSize(resize: (size: Size) => Promise<void>): Promise<() => void> {
  const { terminalSize } = await import("./tty.ts");
  const tell = async () => {
    const size = terminalSize(1) ?? terminalSize(0);
    if (size) await resize(size);
  };
  const onChange = () => void tell().catch(() => {});
  process.on("SIGWINCH", onChange);
  // The process may not be ready for it yet.
  void (async () => {
    for (let tries = 0; tries < 5; tries++) {
      try {
        return await tell();
      } catch {
        await new Promise((resolve) => setTimeout(resolve, (tries + 1) * 10));
      }
    }
  })();
  return () => void process.off("SIGWINCH", onChange);
}

const PROXIED = ["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCONT", "SIGTSTP"] as const;

/** Sends the signals that we get on to the process; returns how to stop. */
export function proxySignals(send: (signal: string) => Promise<void>): () => void {
  const handlers = PROXIED.map((signal) => {
    const handler = () => void send(signal.slice(3)).catch(() => {});
    process.on(signal, handler);
    return [signal, handler] as const;
  });
  return () => {
    for (const [signal, handler] of handlers) process.off(signal, handler);
  };
}
