// What a player reports (plan/layout.ts), read from its pipe.
import { binding, EPOLLIN, read, SYS, watch } from "../linux/index.ts";
import { REPORT } from "./plan/layout.ts";

export type Report =
  | { tag: "failed"; index: number; errno: number }
  | { tag: "pid"; pid: number }
  | { tag: "ready" }
  | { tag: "hooks" }
  /** A place that is missing, by its number in the plan; the root's descriptor in the process. */
  | { tag: "missing"; index: number; root: number }
  /** The filter's listener in the process. */
  | { tag: "notify"; fd: number }
  /** A detached mount in the process whose ids are to be mapped as in the user namespace, which it has as well. */
  | { tag: "idmap"; recursive: boolean; mount: number; namespace: number }
  /** The process waits until its ids are mapped. */
  | { tag: "maps" }
  | { tag: "end" };

function parseReports(bytes: Uint8Array): Report[] {
  const words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
  const reports: Report[] = [];
  for (let at = 0; at + REPORT.size <= bytes.length; at += REPORT.size) {
    const w = at >> 2;
    const tag = words[w]!;
    const index = words[w + 1]! >>> 0;
    // Pids, descriptors, errnos.
    const value = words[w + 2]!;
    if (tag === REPORT.failed) reports.push({ tag: "failed", index, errno: value });
    else if (tag === REPORT.pid) reports.push({ tag: "pid", pid: value });
    else if (tag === REPORT.ready) reports.push({ tag: "ready" });
    else if (tag === REPORT.hooks) reports.push({ tag: "hooks" });
    else if (tag === REPORT.missing) reports.push({ tag: "missing", index, root: value });
    else if (tag === REPORT.maps) reports.push({ tag: "maps" });
    else if (tag === REPORT.idmap) reports.push({ tag: "idmap", recursive: index === 1, mount: value, namespace: words[w + 3]! });
    else if (tag === REPORT.notify) reports.push({ tag: "notify", fd: value });
  }
  return reports;
}

/** Reads reports until `done` says that what was waited for came, or the pipe ends. The event loop goes on meanwhile. */
export function hearReports(fd: number, done: (report: Report) => boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    const buffer = new Uint8Array(REPORT.size * 8);
    const hear = (): boolean => {
      for (;;) {
        const n = read(fd, buffer);
        if (n === undefined) return false;
        if (n === 0) {
          done({ tag: "end" });
          return true;
        }
        let over = false;
        for (const report of parseReports(buffer.subarray(0, n))) over = done(report) || over;
        if (over) return true;
      }
    };
    try {
      if (hear()) return resolve();
      const watching = watch(fd, EPOLLIN, () => {
        try {
          if (!hear()) return;
          watching.close();
          resolve();
        } catch (error) {
          watching.close();
          reject(error);
        }
      });
    } catch (error) {
      reject(error);
    }
  });
}

/** Hears all reports when the pipe ends, so that this side wakes up just once; from now() on, each as it comes. */
export function hearAtEnd(fd: number, hear: (report: Report) => void): { over: Promise<void>; now(): void } {
  const over = Promise.withResolvers<void>();
  const buffer = new Uint8Array(REPORT.size * 8);
  // Without a mask: that there is something to read is no news, that nobody writes any more is.
  const watching = watch(fd, 0, () => {
    try {
      for (let n = read(fd, buffer); n !== undefined; n = read(fd, buffer)) {
        for (const report of parseReports(buffer.subarray(0, n))) hear(report);
        if (n > 0) continue;
        watching.close();
        over.resolve();
        return;
      }
    } catch (error) {
      watching.close();
      over.reject(error);
    }
  });
  return { over: over.promise, now: () => watching.events(EPOLLIN) };
}

/** The same, blocking; for a command line that has nothing else to do meanwhile. */
export function hearNow(fd: number, done: (report: Report) => boolean): void {
  const buffer = new Uint8Array(REPORT.size * 8);
  const polled = new Int32Array([fd, 1]);
  for (;;) {
    const n = read(fd, buffer);
    if (n === undefined) {
      binding.syscall(SYS.poll, polled, 1, -1);
      continue;
    }
    if (n === 0) {
      done({ tag: "end" });
      return;
    }
    let over = false;
    for (const report of parseReports(buffer.subarray(0, n))) over = done(report) || over;
    if (over) return;
  }
}
