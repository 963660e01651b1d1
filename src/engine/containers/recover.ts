// At the engine's start: what the last one left. Containers that run are found again through the manager; those that ended meanwhile get their exit;
// what was half-made or half-removed goes away.

import { rm } from "node:fs/promises";
import { fromBinary } from "@bufbuild/protobuf";
import { TaskOOMSchema } from "../../gen/containerd/events_pb.ts";
import { type Process, Status } from "../../gen/containerd/v1/types_pb.ts";
import { entriesOf } from "../../lib/entries.ts";
import { messageOf } from "../../lib/errors.ts";
import type { ContainerRecord } from "../context.ts";
import type { Entry } from "./book.ts";
import { type Core, now, publish, timeOf } from "./core.ts";
import { SNAPSHOT_OWNER } from "./create.ts";
import { handleExit, shouldRestart, watchExit } from "./exit.ts";
import { removeFiles } from "./remove.ts";
import { linkRoot } from "./rootlink.ts";
import { sweepShm } from "./shm.ts";

/** A task of a running record that nobody knows any more: it was killed with its keeper. */
const LOST = 137;

export async function recoverContainers(core: Core): Promise<void> {
  const { engine, book } = core;
  const { manager } = engine;
  followOom(core);
  const known = new Map<string, Process>();
  for (const task of (await manager.tasks.list({})).tasks) known.set(task.id || task.containerId, task);

  const running: { entry: Entry; task: Process }[] = [];
  const ended: { entry: Entry; task: Process | undefined }[] = [];
  for (const entry of book.entries()) {
    const { state, id } = entry.record;
    const task = known.get(id);
    const alive = task && (task.status === Status.RUNNING || task.status === Status.PAUSED || task.status === Status.PAUSING);
    if (state.Running && !state.Restarting && alive) running.push({ entry, task });
    // A start that was cut short: the record says it does not run, the task is there.
    else if (task && !state.Running) ended.push({ entry, task });
    else if (state.Running) ended.push({ entry, task });
  }
  await engine.networks.restore(running.map(({ entry }) => entry.record));
  await Promise.all(running.map(({ entry, task }) => adopt(core, entry, task)));
  await Promise.all(ended.map(({ entry, task }) => settle(core, entry, task)));
  const unwanted = book.entries().filter(({ record }) => !record.state.Running && record.hostConfig.AutoRemove);
  await Promise.all(
    unwanted.map((entry) =>
      core
        .remove(entry, { force: true, volumes: true })
        .catch((error) => engine.log("error", `removing ${entry.record.id}: ${messageOf(error)}`)),
    ),
  );
  await removeOrphans(core);
  void startAgain(core);
}

async function adopt(core: Core, entry: Entry, task: Process): Promise<void> {
  const { engine } = core;
  const { record } = entry;
  const paused = task.status !== Status.RUNNING;
  Object.assign(record.state, { Pid: task.pid, Paused: paused, Status: paused ? "paused" : "running" });
  entry.restart.startedAt = Date.parse(record.state.StartedAt ?? "");
  try {
    entry.io = await engine.io.reopen(record);
  } catch (error) {
    engine.log("warn", `streams of ${record.id}: ${messageOf(error)}`);
  }
  const wait = engine.manager.tasks.wait({ containerId: record.id });
  wait.catch(() => {});
  linkRoot(core, entry, task.pid);
  core.book.save(entry);
  watchExit(core, entry, wait);
  engine.io.startHealth(record.id);
}

/** A container that ended while no engine looked, or whose start was cut short. */
async function settle(core: Core, entry: Entry, task: Process | undefined): Promise<void> {
  const { engine } = core;
  const { record } = entry;
  const stopped = task?.status === Status.STOPPED;
  if (task && !stopped) {
    await engine.manager.tasks.kill({ containerId: record.id, signal: 9, all: true }).catch(() => {});
    await engine.manager.tasks.wait({ containerId: record.id }).catch(() => {});
  }
  if (task && record.state.Running && !record.state.Restarting) {
    // Its last output is still in the keeper's hands.
    try {
      entry.io = await engine.io.reopen(record);
    } catch (error) {
      engine.log("debug", `streams of ${record.id}: ${messageOf(error)}`);
    }
  }
  if (!record.state.Running) {
    await engine.manager.tasks.delete({ containerId: record.id }).catch(() => {});
    await engine.manager.containers.delete({ id: record.id }).catch(() => {});
    await engine.networks.detach(record).catch((error) => engine.log("warn", `network of ${record.id}: ${messageOf(error)}`));
    core.book.save(entry);
    return;
  }
  if (record.state.Restarting) {
    Object.assign(record.state, { Status: "exited", Running: false, Restarting: false });
    core.book.save(entry);
    return;
  }
  const status = stopped ? task.exitStatus : LOST;
  const at = stopped && task.exitedAt ? timeOf(task.exitedAt) : now();
  entry.keep = true;
  await handleExit(core, entry, status, at);
  entry.keep = false;
  await Promise.all([entry.cleanup, entry.ending]);
}

/** Everything with our mark that no record knows. */
async function removeOrphans(core: Core): Promise<void> {
  const { engine, book } = core;
  const { manager, config } = engine;
  for (const { id: own, containerId } of (await manager.tasks.list({})).tasks) {
    const id = own || containerId;
    if (book.byId(id) || !isId(id)) continue;
    await manager.tasks.kill({ containerId: id, signal: 9, all: true }).catch(() => {});
    await manager.tasks.wait({ containerId: id }).catch(() => {});
    await manager.tasks.delete({ containerId: id }).catch((error) => engine.log("warn", `orphaned task ${id}: ${messageOf(error)}`));
  }
  const live = new Set(book.entries().flatMap(({ record }) => (record.state.Running ? [record.id] : [])));
  for (const { id } of (await manager.containers.list({})).containers) {
    if (!live.has(id) && isId(id))
      await manager.containers.delete({ id }).catch((error) => engine.log("warn", `orphaned container ${id}: ${messageOf(error)}`));
  }
  const keys: string[] = [];
  for await (const { info } of manager.snapshots.list({ snapshotter: manager.snapshotter })) {
    for (const each of info) if (each.labels[SNAPSHOT_OWNER] && !book.byId(each.labels[SNAPSHOT_OWNER])) keys.push(each.name);
  }
  for (const key of keys) await removeFiles(core, key, key, `${config.dataRoot}/containers/${key}`);
  for (const name of entriesOf(`${config.dataRoot}/containers`)) {
    if (!book.byId(name)) await rm(`${config.dataRoot}/containers/${name}`, { recursive: true, force: true });
  }
  sweepShm(config.execRoot, live);
  engine.volumes.sweep(live);
  // FIFOs of starts that were cut short (engine/io keeps them by container id).
  for (const name of entriesOf(`${config.execRoot}/io`)) {
    if (!live.has(name)) await rm(`${config.execRoot}/io/${name}`, { recursive: true, force: true });
  }
  await rm(`${config.dataRoot}/trash`, { recursive: true, force: true });
}

const isId = (text: string) => /^[0-9a-f]{64}$/.test(text);

/** Restart policies after the engine's own restart: `always` whatever was, the others unless the user stopped them. */
async function startAgain(core: Core): Promise<void> {
  const due = core.book.entries().filter((entry) => {
    const { record } = entry;
    if (record.state.Running || record.state.StartedAt?.startsWith("0001")) return false;
    return record.hostConfig.RestartPolicy?.Name === "always" || shouldRestart(core, entry);
  });
  await Promise.all(
    due.map((entry) => core.start(entry).catch((error) => core.engine.log("error", `starting ${entry.record.id}: ${messageOf(error)}`))),
  );
}

/** The kernel's out-of-memory kills, as the manager reports them. */
function followOom(core: Core): void {
  const { engine } = core;
  const follow = async () => {
    while (!engine.signal.aborted) {
      try {
        for await (const { event } of engine.manager.events.subscribe({ filters: ['topic=="/tasks/oom"'] }, { signal: engine.signal })) {
          if (!event?.typeUrl.endsWith("TaskOOM")) continue;
          const entry = core.book.byId(fromBinary(TaskOOMSchema, event.value).containerId);
          if (entry) markOom(core, entry.record, entry);
        }
      } catch (error) {
        if (engine.signal.aborted) return;
        engine.log("warn", `events of the manager: ${messageOf(error)}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 1000).unref());
    }
  };
  void follow();
}

function markOom(core: Core, record: ContainerRecord, entry: Entry): void {
  if (!entry.oomKilled) publish(core, record, "oom");
  entry.oomKilled = true;
}

/** At a graceful end: every container is stopped, as dockerd does without live-restore. */
export async function stopAll(core: Core): Promise<void> {
  const { engine, book } = core;
  const running = book.entries().filter(({ record }) => record.state.Running);
  if (running.length === 0) return;
  const limit = engine.config.shutdownTimeout;
  await Promise.all(
    running.map((entry) => {
      const own = entry.record.config.StopTimeout ?? 10;
      const timeout = limit < 0 ? own : Math.min(own < 0 ? limit : own, limit);
      return core
        .stop(entry, { timeout, byUser: false })
        .then(() => Promise.all([entry.cleanup, entry.ending]))
        .catch((error) => engine.log("error", `stopping ${entry.record.id}: ${messageOf(error)}`));
    }),
  );
}
