// Staying with a process until it ends: signals go to it, its terminal is ours.
import {
  binding,
  close,
  EPOLLHUP,
  EPOLLIN,
  pidfdSignal,
  read,
  reap,
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

/** Resolves to the exit status, as a shell gives it. Closes the descriptors. */
export async function attend(pidfd: number, terminal: number | undefined): Promise<number> {
  const session = terminal === undefined ? undefined : serveTerminal(terminal);
  const off = onSignals(FORWARDED, (name) => {
    if (name === "SIGWINCH") session?.fit();
    else pidfdSignal(pidfd, signalOf(name)!);
  });
  const status = await new Promise<number>((resolve) => {
    const watching = watch(pidfd, EPOLLIN, () => {
      watching.close();
      resolve(reap(pidfd)?.status ?? 0);
    });
  });
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
  const buffer = new Uint8Array(32768);
  let outputEnded: () => void = () => {};
  const ended = new Promise<void>((resolve) => {
    outputEnded = resolve;
  });
  const copy = (from: number, to: number): boolean => {
    try {
      const n = read(from, buffer);
      if (!n) return n === undefined;
      for (let done = 0; done < n; ) done += write(to, buffer.subarray(done, n)) ?? 0;
      return true;
    } catch (error) {
      if (error instanceof SystemError) return false; // EIO: the last process with the terminal is gone
      throw error;
    }
  };
  let input: Watch | undefined;
  try {
    input = watch(0, EPOLLIN, () => {
      if (!copy(0, terminal)) input?.close();
    });
  } catch {
    // A file as stdin cannot be waited for: it is read at once.
    while (copy(0, terminal) && read(0, new Uint8Array(0)) === undefined);
  }
  const output = watch(terminal, EPOLLIN | EPOLLHUP, () => {
    if (copy(terminal, 1)) return;
    output.close();
    outputEnded();
  });
  return {
    fit: () => fit(terminal),
    async end() {
      // What was written before the end is still in the terminal.
      await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 1000))]);
      input?.close();
      output.close();
      if (isTerminal) binding.syscall(SYS.ioctl, 0, TCSETS, saved);
      close(terminal);
    },
  };
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
