// The binding, made of what the Node-API addon (native/syscall.c) exports.
import type { Binding } from "./binding.ts";
import { check } from "./errno.ts";
import { SYS } from "./sys.ts";

export interface Native {
  syscall: Binding["syscall"];
  address: Binding["address"];
  spawn: Binding["spawn"];
  /** A thread in epoll_wait(2) that calls back for each event. It does not keep the event loop alive. `data` is below 2 ** 48. */
  poller(epoll: number, callback: (data: number, events: number) => void): void;
  /** Which file it was loaded from. */
  file: string;
}

const EPOLL_CLOEXEC = 0o2000000;
/** The longest that setInterval() takes: 24 days. */
const EVER = 2 ** 31 - 1;

export function bindingOf({ syscall, address, spawn, poller }: Native): Binding {
  let alive: ReturnType<typeof setInterval> | undefined;
  return {
    syscall,
    address,
    spawn,
    poller(callback) {
      const epoll = check(syscall(SYS.epoll_create1, EPOLL_CLOEXEC), "epoll_create1");
      poller(epoll, callback);
      return { fd: epoll, handle: undefined };
    },
    pollerRef(_, on) {
      alive ??= setInterval(() => {}, EVER);
      if (on) alive.ref();
      else alive.unref();
    },
  };
}
