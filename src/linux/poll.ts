// Readiness of descriptors that the runtime's own event loop cannot watch: pipes, FIFOs, terminals, pidfds, netlink and inotify.
// One thread in epoll_wait (native/syscall.c) serves the whole process; each watch is one-shot in the kernel and armed again after its
// callback returned, so that a busy descriptor cannot flood the event loop.
import { binding } from "./binding.ts";
import { check, errno } from "./errno.ts";
import { type Exit, reap } from "./fd.ts";
import { SYS } from "./sys.ts";

export const EPOLLIN = 0x1;
export const EPOLLPRI = 0x2;
export const EPOLLOUT = 0x4;
export const EPOLLERR = 0x8;
export const EPOLLHUP = 0x10;
export const EPOLLRDHUP = 0x2000;
const EPOLLONESHOT = 0x40000000;
const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLL_CTL_MOD = 3;

export interface Watch {
  /** Changes what is waited for (EPOLLIN, EPOLLOUT, …); 0 pauses. */
  events(mask: number): void;
  /** Ends the watch; the callback is not called again. Call it before the descriptor is closed. */
  close(): void;
}

interface Entry {
  fd: number;
  mask: number;
  callback: (events: number) => void;
}

let poller: { fd: number; handle: unknown } | undefined;
const entries = new Map<number, Entry>();
let nextToken = 1;
let refs = 0;

// struct epoll_event is packed on x86-64: u32 events, u64 data.
const event = new Uint32Array(3);
const eventBytes = new Uint8Array(event.buffer);

function control(op: number, token: number, entry: Entry): number {
  event[0] = entry.mask | EPOLLONESHOT;
  event[1] = token;
  event[2] = token / 2 ** 32;
  return binding.syscall(SYS.epoll_ctl, poller!.fd, op, entry.fd, eventBytes);
}

function deliver(token: number, events: number): void {
  const entry = entries.get(token);
  if (!entry) return;
  try {
    entry.callback(events);
  } finally {
    if (entries.get(token) === entry && entry.mask) control(EPOLL_CTL_MOD, token, entry);
  }
}

/**
 * Calls `callback(events)` whenever `fd` is ready for one of `mask`'s events (level-triggered); EPOLLHUP and EPOLLERR are always reported.
 * With `ref: false` the watch does not keep the process alive. The same descriptor can be watched once at a time: a second watch throws EEXIST.
 */
export function watch(fd: number, mask: number, callback: (events: number) => void, options: { ref?: boolean } = {}): Watch {
  poller ??= binding.poller(deliver);
  const ref = options.ref ?? true;
  const token = nextToken++;
  const entry: Entry = { fd, mask, callback };
  check(control(EPOLL_CTL_ADD, token, entry), `epoll_ctl add ${fd}`);
  entries.set(token, entry);
  if (ref && refs++ === 0) binding.pollerRef(poller.handle, true);
  return {
    events(next) {
      if (!entries.has(token)) return;
      entry.mask = next;
      check(control(EPOLL_CTL_MOD, token, entry), `epoll_ctl mod ${fd}`);
    },
    close() {
      if (!entries.delete(token)) return;
      const result = control(EPOLL_CTL_DEL, token, entry);
      if (result < 0 && result !== -errno.EBADF && result !== -errno.ENOENT) check(result, `epoll_ctl del ${fd}`);
      if (ref && --refs === 0) binding.pollerRef(poller!.handle, false);
    },
  };
}

/** Resolves once the child behind `pidfd` has ended and is reaped; the descriptor stays the caller's. Rejects as reap() throws. */
export function ended(pidfd: number): Promise<Exit | undefined> {
  return new Promise((resolve, reject) => {
    const watching = watch(pidfd, EPOLLIN, () => {
      watching.close();
      try {
        resolve(reap(pidfd));
      } catch (error) {
        reject(error);
      }
    });
  });
}
