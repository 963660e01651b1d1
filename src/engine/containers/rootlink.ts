// DATA/containers/ID/rootfs → /proc/PID/root: the container's files as it sees them, while it runs. A convenience, made and removed behind: on a busy disk
// either takes a millisecond, and neither may fail a start or an exit.
import { rm, symlink } from "node:fs/promises";
import type { Entry } from "./book.ts";
import { type Core, inBackground } from "./core.ts";

/** One after another for each container. */
const last = new WeakMap<Entry, Promise<void>>();

function queue(core: Core, entry: Entry, step: () => Promise<void>): void {
  const work = (last.get(entry) ?? Promise.resolve()).then(step).catch(() => {});
  last.set(entry, work);
  inBackground(core, work);
}

export function linkRoot(core: Core, entry: Entry, pid: number): void {
  const link = `${entry.record.dir}/rootfs`;
  queue(core, entry, async () => {
    await rm(link, { force: true });
    await symlink(`/proc/${pid}/root`, link);
  });
}

export function unlinkRoot(core: Core, entry: Entry): void {
  queue(core, entry, () => rm(`${entry.record.dir}/rootfs`, { force: true }));
}
