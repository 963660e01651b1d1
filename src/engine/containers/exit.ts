// What follows when a container's process has ended: its state, who waits, its network, its restart, its removal.

import type { WaitResponse } from "../../gen/containerd/services/tasks/v1_pb.ts";
import { messageOf } from "../../lib/errors.ts";
import type { Entry } from "./book.ts";
import { type Core, now, publish, timeOf } from "./core.ts";
import { unlinkRoot } from "./rootlink.ts";
import { unmountShm } from "./shm.ts";

/** Output that is not at its end this long after the exit belongs to a process that outlived its container's init. */
const DRAIN_MS = 2000;

const FIRST_DELAY = 100;
const LONGEST_DELAY = 60_000;
/** A container that ran this long is healthy enough to start the delays anew. */
const STABLE_MS = 10_000;

/** A task that is gone without a known status. */
const LOST = 255;

/** Follows a running container to its exit. */
export function watchExit(core: Core, entry: Entry, wait: Promise<WaitResponse>): void {
  const { engine } = core;
  const containerId = entry.record.id;
  const follow = async () => {
    for (;;) {
      try {
        const { exitStatus, exitedAt } = await wait;
        if (entry.starting) await entry.starting.catch(() => {});
        if (!entry.record.state.Running) return;
        await handleExit(core, entry, exitStatus, exitedAt ? timeOf(exitedAt) : now());
        return;
      } catch (error) {
        if (engine.signal.aborted) return;
        engine.log("warn", `waiting for ${containerId}: ${messageOf(error)}`);
        await new Promise((resolve) => setTimeout(resolve, 200));
        const found = await engine.manager.tasks.get({ containerId }).then(
          () => true,
          (second) => !/not found|no running task/i.test(messageOf(second)),
        );
        if (!found) {
          await handleExit(core, entry, LOST, now());
          return;
        }
        wait = engine.manager.tasks.wait({ containerId });
      }
    }
  };
  entry.exited = follow().catch((error) =>
    engine.log("error", `exit of ${containerId}: ${messageOf(error)}`, { stack: (error as Error).stack }),
  );
}

function withTimeout(work: Promise<unknown>, ms: number): Promise<unknown> {
  let timer: NodeJS.Timeout;
  return Promise.race([
    work,
    new Promise((resolve) => {
      timer = setTimeout(resolve, ms);
    }),
  ]).finally(() => clearTimeout(timer));
}

export async function handleExit(core: Core, entry: Entry, status: number, at: string): Promise<void> {
  const { engine } = core;
  const { record } = entry;
  const { state } = record;
  const ranMs = Date.parse(at) - Date.parse(state.StartedAt ?? "");
  engine.io.stopHealth(record.id);
  // What the task held is let go while its last output is read.
  const io = entry.io ?? engine.io.get(record.id);
  entry.ending = endOfTask(core, record.id).finally(() => {
    entry.ending = undefined;
  });
  const network = engine.networks.detach(record).catch((error) => engine.log("error", `network of ${record.id}: ${messageOf(error)}`));
  if (io) await withTimeout(io.drained, DRAIN_MS);
  const release = io ? io.release().catch((error) => engine.log("warn", `streams of ${record.id}: ${messageOf(error)}`)) : undefined;
  entry.io = undefined;
  unlinkRoot(core, entry);
  if (record.hostConfig.IpcMode === "shareable") unmountShm(engine.config.execRoot, record.id);

  Object.assign(state, { Pid: 0, ExitCode: status, Paused: false, FinishedAt: at, OOMKilled: entry.oomKilled, Error: "" });
  const again = shouldRestart(core, entry);
  if (again) Object.assign(state, { Status: "restarting", Running: true, Restarting: true });
  else Object.assign(state, { Status: "exited", Running: false, Restarting: false });
  entry.exited = undefined;
  entry.cleanup = Promise.all([network, release]).then(() => {
    entry.cleanup = undefined;
  });
  const removeNow = record.hostConfig.AutoRemove && !again && !entry.keep && !entry.removing;
  // The removal writes the database itself.
  if (!removeNow) core.book.save(entry);
  publish(core, record, "die", { exitCode: String(status), execDuration: String(Math.max(0, Math.round(ranMs / 1000))) });
  engine.volumes.stopped(record);
  for (const waiter of [...entry.waiters]) waiter.exit?.(status, "");
  if (again) scheduleRestart(core, entry, ranMs);
  else if (removeNow) {
    await core
      .remove(entry, { force: true, volumes: true })
      .catch((error) => engine.log("error", `removing ${record.id}: ${messageOf(error)}`));
  }
}

async function endOfTask(core: Core, id: string): Promise<void> {
  const { manager, log } = core.engine;
  await manager.tasks.delete({ containerId: id }).catch((error) => log("debug", `task ${id}: ${messageOf(error)}`));
  await manager.containers.delete({ id }).catch((error) => log("debug", `container ${id}: ${messageOf(error)}`));
}

export function shouldRestart(core: Core, entry: Entry): boolean {
  const { record } = entry;
  if (core.engine.signal.aborted || core.stopping || entry.removing || entry.keep || record.stoppedByUser) return false;
  const policy = record.hostConfig.RestartPolicy;
  switch (policy?.Name) {
    case "always":
    case "unless-stopped":
      return true;
    case "on-failure": {
      const maximum = policy.MaximumRetryCount ?? 0;
      return record.state.ExitCode !== 0 && (maximum === 0 || record.restartCount < maximum);
    }
    default:
      return false;
  }
}

function scheduleRestart(core: Core, entry: Entry, ranMs: number): void {
  const { restart, record } = entry;
  if (ranMs >= STABLE_MS || restart.delay === 0) restart.delay = FIRST_DELAY;
  else restart.delay = Math.min(restart.delay * 2, LONGEST_DELAY);
  restart.timer = setTimeout(() => {
    restart.timer = undefined;
    record.restartCount++;
    core.start(entry).catch((error) => {
      core.engine.log("error", `restarting ${record.id}: ${messageOf(error)}`);
      if (!shouldRestart(core, entry) || core.book.byId(record.id) !== entry) return;
      Object.assign(record.state, { Status: "restarting", Running: true, Restarting: true });
      core.book.save(entry);
      scheduleRestart(core, entry, 0);
    });
  }, restart.delay);
}

/** Gives up a restart that is waiting for its time; true where there was one. */
export function cancelRestart(core: Core, entry: Entry): boolean {
  if (!entry.record.state.Restarting || !entry.restart.timer) return false;
  clearTimeout(entry.restart.timer);
  entry.restart.timer = undefined;
  Object.assign(entry.record.state, { Status: "exited", Running: false, Restarting: false });
  core.book.save(entry);
  return true;
}
