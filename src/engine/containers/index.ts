// Containers: what people make, start, stop and remove. A container is a record (what was asked for, and its state), a snapshot to run in, and while it
// runs a container and a task of the manager.
//
// Life: create → created; start → running (⇄ paused); its process ends → exited, or restarting when its policy says so; remove → gone. Each change is in
// the database before anyone hears of it. Changes of one container wait for each other; different ones never do.
//
//   POST /containers/create   create.ts   checks, image, mount points, snapshot, record
//   POST …/start              start.ts    network ∥ streams ∥ specification → containers.create, tasks.create, tasks.start
//   (exit)                    exit.ts     state, waiters, network, task; then restart or removal
//   DELETE …                  remove.ts   the client waits for name, addresses and record; files go later

import { close, O_DIRECTORY, O_PATH, open } from "../../linux/index.ts";
import type { ContainersFace, Engine } from "../context.ts";
import type { Route } from "../route.ts";
import { type Entry, openBook } from "./book.ts";
import { checkpointRoutes } from "./checkpoint.ts";
import { type Core, NEVER } from "./core.ts";
import { recoverContainers, stopAll } from "./recover.ts";
import { removeContainer } from "./remove.ts";
import { mountDetached, type SnapshotMount, withCommonLayer } from "./rootfs.ts";
import { containerRoutes } from "./routes.ts";
import { startContainer } from "./start.ts";
import { killContainer, stopContainer } from "./stop.ts";
import { waitFor } from "./wait.ts";

export { NEVER };

const cores = new WeakMap<Engine, Core>();

function coreOf(engine: Engine): Core {
  const core = cores.get(engine);
  if (!core) throw new Error("createContainers comes before everything else here");
  return core;
}

export function createContainers(engine: Engine): ContainersFace {
  const core: Core = {
    engine,
    book: openBook(engine.db),
    stopping: false,
    background: new Set(),
    start: (entry, checkpoint) => startContainer(core, entry, checkpoint),
    stop: (entry, options) => stopContainer(core, entry, options),
    remove: (entry, options) => removeContainer(core, entry, options),
  };
  cores.set(engine, core);
  const { book } = core;
  return {
    get: (ref) => book.find(ref).record,
    list: () => book.entries().map(({ record }) => record),
    update(id, change) {
      const entry = book.find(id);
      change(entry.record);
      book.save(entry);
      return entry.record;
    },
    pid(id) {
      const state = book.byId(id)?.record.state;
      return state?.Running ? (state.Pid ?? 0) : 0;
    },
    start: async (id) => void (await core.start(book.find(id))),
    stop: async (id, options) => void (await core.stop(book.find(id), options)),
    kill: (id, signal) => killContainer(core, book.find(id), signal),
    remove: (id, options) => core.remove(book.find(id), options),
    wait: (id, condition, signal) => waitFor(book.find(id), condition, signal),
    openRoot: (id) => openRoot(core, book.find(id)),
  };
}

async function openRoot(core: Core, entry: Entry): Promise<{ fd: number; close(): Promise<void> }> {
  const { record } = entry;
  const { manager } = core.engine;
  let fd: number;
  if (record.state.Running && record.state.Pid) fd = open(`/proc/${record.state.Pid}/root`, O_PATH | O_DIRECTORY);
  else {
    const { mounts } = await manager.snapshots.mounts({ snapshotter: manager.snapshotter, key: record.snapshotKey });
    fd = mountDetached(withCommonLayer(core.engine.config.dataRoot, mounts as unknown as SnapshotMount[]));
  }
  return { fd, close: async () => close(fd) };
}

export function routes(engine: Engine): Route[] {
  const core = coreOf(engine);
  return [...containerRoutes(core), ...checkpointRoutes(core)];
}

/** To be awaited before the first request is served. */
export function recover(engine: Engine): Promise<void> {
  return recoverContainers(coreOf(engine));
}

/** Ends what runs, unless live-restore keeps it. */
export async function shutdown(engine: Engine): Promise<void> {
  const core = coreOf(engine);
  core.stopping = true;
  if (!engine.config.liveRestore) await stopAll(core);
  await Promise.all(core.background);
}
