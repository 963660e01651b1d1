// Staying with a process until it ends: signals go to it, its terminal is ours.
import {
  binding,
  close,
  EPOLLHUP,
  EPOLLIN,
  EPOLLOUT,
  ended,
  O_NONBLOCK,
  pidfdSignal,
  read,
  SYS,
  SystemError,
  signalOf,
  type Watch,
  watch,
  write,
} from "../../linux/index.ts";
import { onSignals } from "../signals.ts";

const FORWARDED = ["SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGTERM", "SIGCONT", "SIGWINCH"] as const;
const TCGETS = 0x5401;
const TCSETS = 0x5402;
const TIOCGWINSZ = 0x5413;
const TIOCSWINSZ = 0x5414;
const F_GETFL = 3;
const F_SETFL = 4;
const POLLOUT = 4;
const PIECE = 4096;

/** Resolves to the exit status, as a shell gives it. Closes the descriptors. */
export async function attend(pidfd: number, terminal: number | undefined): Promise<number> {
  const session = terminal === undefined ? undefined : serveTerminal(terminal);
  const off = onSignals(FORWARDED, (name) => {
    if (name === "SIGWINCH") session?.fit();
    else pidfdSignal(pidfd, signalOf(name)!);
  });
  const status = (await ended(pidfd))?.status ?? 0;
  off();
  await session?.end();
  close(pidfd);
  return status;
}

function serveTerminal(terminal: number): { fit(): void; end(): Promise<void> } {
  const saved = new Uint8Array(64);
  const isTerminal = binding.syscall(SYS.ioctl, 0, TCGETS, saved) >= 0;
  if (isTerminal) binding.syscall(SYS.ioctl, 0, TCSETS, raw(saved));
  fit(terminal);
  const over = Promise.withResolvers<void>();
  const output = watch(terminal, EPOLLIN | EPOLLHUP, (events) => {
    if (events & EPOLLOUT) input.goOn();
    if (events !== EPOLLOUT && !show(terminal)) {
      output.close();
      over.resolve();
    }
  });
  const input = passInput(terminal, (full) => output.events(EPOLLIN | EPOLLHUP | (full ? EPOLLOUT : 0)));
  return {
    fit: () => fit(terminal),
    async end() {
      // What was written before the end is still in the terminal.
      await Promise.race([over.promise, new Promise((resolve) => setTimeout(resolve, 1000))]);
      input.close();
      output.close();
      if (isTerminal) binding.syscall(SYS.ioctl, 0, TCSETS, saved);
      close(terminal);
    },
  };
}

const shown = new Uint8Array(32768);

/** What the terminal shows goes to stdout; false at its end. */
function show(terminal: number): boolean {
  try {
    const n = read(terminal, shown);
    for (let done = 0; done < (n ?? 0); ) done += write(1, shown.subarray(done, n)) ?? waitWritable(1);
    return n !== 0;
  } catch (error) {
    if (error instanceof SystemError) return false; // EIO: the last process with the terminal is gone
    throw error;
  }
}

function waitWritable(fd: number): 0 {
  binding.syscall(SYS.poll, new Int32Array([fd, POLLOUT]), 1, -1);
  return 0;
}

interface Input {
  /** The terminal takes more. */
  goOn(): void;
  close(): void;
}

/** Passes stdin on as fast as the terminal takes it, which may be less than there is; `full` is told when it takes no more, and when it does again. */
function passInput(terminal: number, full: (yes: boolean) => void): Input {
  const buffer = new Uint8Array(PIECE);
  let left = buffer.subarray(0, 0);
  let stopped = false;
  let over = false;
  let watching: Watch | undefined;
  const stop = (yes: boolean) => {
    if (yes === stopped) return;
    stopped = yes;
    full(yes);
    watching?.events(yes ? 0 : EPOLLIN);
  };
  const close = () => {
    over = true;
    watching?.close();
    stop(false);
  };
  /** Until there is nothing to read, or no room. */
  const pass = () => {
    try {
      while (!over) {
        if (left.length === 0) {
          const n = read(0, buffer);
          if (n === 0) return close();
          if (n === undefined) return stop(false);
          left = buffer.subarray(0, n);
        }
        const n = write(terminal, left);
        if (n === undefined) return stop(true);
        left = left.subarray(n);
        if (watching && left.length === 0) return stop(false);
      }
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      close();
    }
  };
  binding.syscall(SYS.fcntl, terminal, F_SETFL, binding.syscall(SYS.fcntl, terminal, F_GETFL) | O_NONBLOCK);
  try {
    watching = watch(0, EPOLLIN, pass);
  } catch {
    // A file cannot be waited for.
    pass();
  }
  return { goOn: pass, close };
}

const ONLCR = 0o4;

/** Before its first program runs: it has our terminal's size, and leaves the ends of lines to that one, as runc's does: what is no terminal gets none with CR. */
export function prepareTerminal(terminal: number): void {
  fit(terminal);
  const termios = new Uint8Array(64);
  if (binding.syscall(SYS.ioctl, terminal, TCGETS, termios) < 0) return;
  const flags = new DataView(termios.buffer);
  flags.setUint32(4, flags.getUint32(4, true) & ~ONLCR, true);
  binding.syscall(SYS.ioctl, terminal, TCSETS, termios);
}

/** To our terminal's size, where we have one. */
function fit(terminal: number): void {
  const size = new Uint8Array(8);
  if (binding.syscall(SYS.ioctl, 0, TIOCGWINSZ, size) >= 0) binding.syscall(SYS.ioctl, terminal, TIOCSWINSZ, size);
}

/** cfmakeraw(3) on the kernel's struct termios: iflag, oflag, cflag, lflag, line, cc[19]. */
function raw(saved: Uint8Array): Uint8Array {
  const termios = saved.slice();
  const view = new DataView(termios.buffer);
  const clear = (at: number, bits: number) => view.setUint32(at, view.getUint32(at, true) & ~bits, true);
  clear(0, 0o1 | 0o2 | 0o10 | 0o40 | 0o100 | 0o200 | 0o400 | 0o2000);
  clear(4, 0o1);
  clear(8, 0o60 | 0o400);
  clear(12, 0o1 | 0o2 | 0o10 | 0o100 | 0o100000);
  view.setUint32(8, view.getUint32(8, true) | 0o60, true);
  termios[17 + 6] = 1; // VMIN
  termios[17 + 5] = 0; // VTIME
  return termios;
}
