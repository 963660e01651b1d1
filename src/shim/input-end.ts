// When a writer of a FIFO has closed it. The keeper of a process holds a write end of its input, so that no program reads the end before its client has
// come; once a client was there and has closed its own, the keeper is to let go, and the FIFO ends with its last writer.
import { binding, check, EPOLLIN, read, SYS, watch } from "../linux/index.ts";

const IN_CLOSE_WRITE = 0x8;
const IN_IGNORED = 0x8000;
const IN_NONBLOCK_CLOEXEC = 0o2004000;
/** struct inotify_event {int wd; uint32_t mask, cookie, len; char name[len]} */
const EVENT = 16;

export interface InputEnd {
  /** Calls back once a writer has closed it, at once where that was before. */
  onEnd(callback: () => void): void;
  /** Idempotent. */
  close(): void;
}

let inotify: number | undefined;
const watched = new Map<number, Set<() => void>>();

function instance(): number {
  if (inotify !== undefined) return inotify;
  const fd = check(binding.syscall(SYS.inotify_init1, IN_NONBLOCK_CLOEXEC), "inotify_init1");
  inotify = fd;
  const buffer = new Uint8Array(4096);
  watch(
    fd,
    EPOLLIN,
    () => {
      for (let n = read(fd, buffer); n; n = read(fd, buffer)) {
        const view = new DataView(buffer.buffer, 0, n);
        for (let at = 0; at + EVENT <= n; at += EVENT + view.getUint32(at + 12, true)) {
          const wd = view.getInt32(at, true);
          const mask = view.getUint32(at + 4, true);
          const callbacks = [...(watched.get(wd) ?? [])];
          if (mask & IN_IGNORED) watched.delete(wd);
          if (mask & IN_CLOSE_WRITE) for (const each of callbacks) each();
        }
      }
    },
    { ref: false },
  );
  return fd;
}

/**
 * To be called before this side opens the FIFO, which lets a writer that waits for a reader go on. Where the kernel has no room for another watch, no
 * end is ever told.
 */
export function watchInputEnd(path: string): InputEnd {
  let ended = false;
  let told: (() => void) | undefined;
  const end = () => {
    if (ended) return;
    ended = true;
    told?.();
  };
  const wd = binding.syscall(SYS.inotify_add_watch, instance(), path, IN_CLOSE_WRITE);
  if (wd >= 0) watched.set(wd, (watched.get(wd) ?? new Set()).add(end));
  return {
    onEnd(callback) {
      told = callback;
      if (ended) callback();
    },
    close() {
      const callbacks = watched.get(wd);
      if (!callbacks?.delete(end) || callbacks.size > 0) return;
      watched.delete(wd);
      binding.syscall(SYS.inotify_rm_watch, instance(), wd);
    },
  };
}
