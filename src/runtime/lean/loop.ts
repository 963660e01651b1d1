// The event loop of a program that has one thread: what QuickJS has no job for waits in epoll_wait (native/lean.c calls `turn`).
import { host } from "./host.ts";
import { SYS, syscall } from "./syscall.ts";

const EPOLL_CLOEXEC = 0o2000000;
const EVENTS = 64;
/** struct epoll_event is packed on x86-64: u32 events, u64 data. */
const EVENT = 12;

interface Timer {
  at: number;
  then: () => void;
}
const timers = new Set<Timer>();
const buffer = new Uint8Array(EVENTS * EVENT);
const view = new DataView(buffer.buffer);
let epoll = -1;
let awaited = false;
let deliver: (data: number, events: number) => void = () => {};

export function poller(callback: typeof deliver): { fd: number; handle: unknown } {
  epoll = syscall(SYS.epoll_create1, EPOLL_CLOEXEC);
  deliver = callback;
  return { fd: epoll, handle: undefined };
}

export function pollerRef(_handle: unknown, on: boolean): void {
  awaited = on;
}

export function setTimeout(then: () => void, milliseconds: number): Timer {
  const timer = { at: Date.now() + milliseconds, then };
  timers.add(timer);
  return timer;
}

export function clearTimeout(timer: Timer | undefined): void {
  if (timer) timers.delete(timer);
}

/** Waits for what comes next; false where nothing is waited for. */
host.turn = () => {
  let first: Timer | undefined;
  for (const timer of timers) if (!first || timer.at < first.at) first = timer;
  if (!first && !awaited) return false;
  const milliseconds = first ? Math.max(0, first.at - Date.now()) : -1;
  if (epoll < 0) syscall(SYS.poll, null, 0, milliseconds);
  else {
    const n = syscall(SYS.epoll_pwait, epoll, buffer, EVENTS, milliseconds, null);
    for (let at = 0; at < n * EVENT; at += EVENT) deliver(view.getUint32(at + 4, true), view.getUint32(at, true));
  }
  if (first && first.at <= Date.now() && timers.delete(first)) first.then();
  return true;
};
