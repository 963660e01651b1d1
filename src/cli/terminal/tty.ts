// The user's terminal: raw mode and size, by ioctl on the descriptor. process.stdin.setRawMode leaves output processing on, which turns the
// container's line ends into double ones; so the settings are made here as cfmakeraw(3) makes them.
import { binding, SYS } from "../../linux/index.ts";

const TCGETS = 0x5401;
const TCSETS = 0x5402;
const TIOCGWINSZ = 0x5413;

export interface Size {
  h: number;
  w: number;
}

/** Rows and columns; undefined where the descriptor is no terminal or has no size. */
export function terminalSize(fd: number): Size | undefined {
  const size = new Uint8Array(8);
  if (binding.syscall(SYS.ioctl, fd, TIOCGWINSZ, size) < 0) return undefined;
  const view = new DataView(size.buffer);
  const h = view.getUint16(0, true);
  const w = view.getUint16(2, true);
  return h === 0 && w === 0 ? undefined : { h, w };
}

/** Raw mode until the returned function is called (twice does no harm). Undefined where the descriptor is no terminal. */
export function rawMode(fd: number): (() => void) | undefined {
  // struct termios of the kernel: four 32-bit flag words, the line discipline, 19 control characters.
  const before = new Uint8Array(60);
  if (binding.syscall(SYS.ioctl, fd, TCGETS, before) < 0) return undefined;
  const raw = before.slice();
  const view = new DataView(raw.buffer);
  const clear = (at: number, bits: number) => view.setUint32(at, view.getUint32(at, true) & ~bits, true);
  clear(0, 0o1 | 0o2 | 0o10 | 0o40 | 0o100 | 0o200 | 0o400 | 0o2000); // IGNBRK BRKINT PARMRK ISTRIP INLCR IGNCR ICRNL IXON
  clear(4, 0o1); // OPOST
  clear(12, 0o1 | 0o2 | 0o10 | 0o100 | 0o100000); // ISIG ICANON ECHO ECHONL IEXTEN
  clear(8, 0o60 | 0o400); // CSIZE PARENB
  view.setUint32(8, view.getUint32(8, true) | 0o60, true); // CS8
  raw[17 + 6] = 1; // VMIN
  raw[17 + 5] = 0; // VTIME
  binding.syscall(SYS.ioctl, fd, TCSETS, raw);
  let restored = false;
  return () => {
    if (restored) return;
    restored = true;
    binding.syscall(SYS.ioctl, fd, TCSETS, before);
  };
}

/** Runs `fn` while the terminal does not show what is typed. */
export async function withoutEcho<T>(fd: number, fn: () => Promise<T>): Promise<T> {
  const before = new Uint8Array(60);
  if (binding.syscall(SYS.ioctl, fd, TCGETS, before) < 0) return fn();
  const silent = before.slice();
  const view = new DataView(silent.buffer);
  view.setUint32(12, view.getUint32(12, true) & ~0o10, true); // ECHO
  binding.syscall(SYS.ioctl, fd, TCSETS, silent);
  try {
    return await fn();
  } finally {
    binding.syscall(SYS.ioctl, fd, TCSETS, before);
  }
}
