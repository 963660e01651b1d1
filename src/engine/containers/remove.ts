// Taking a container away. The client waits until its name, addresses and ports are free and it is out of the database; its files go after that.
import { randomBytes } from "node:crypto";
import { mkdirSync, renameSync } from "node:fs";
import { rm } from "node:fs/promises";
import { conflict, messageOf } from "../../lib/errors.ts";
import { span } from "../../trace/index.ts";
import { type Entry, locked } from "./book.ts";
import { type Core, inBackground, publish } from "./core.ts";
import { cancelRestart } from "./exit.ts";
import { killAndWait } from "./stop.ts";

export async function removeContainer(core: Core, entry: Entry, options: { force: boolean; volumes: boolean }): Promise<void> {
  const { record } = entry;
  if (entry.removing) throw conflict(`removal of container ${record.name} is already in progress`);
  if (!options.force) refuseRunning(entry);
  const removal = span("remove", {}, () => takeAway(core, entry, options));
  entry.removing = removal;
  try {
    await removal;
  } catch (error) {
    entry.removing = undefined;
    throw error;
  }
}

function refuseRunning({ record: { name, state } }: Entry): void {
  if (!state.Running) return;
  const shown = `cannot remove container "/${name}": container is ${state.Status}`;
  throw conflict(state.Paused ? `${shown} and must be unpaused first` : `${shown}: stop the container before removing or force remove`);
}

async function takeAway(core: Core, entry: Entry, options: { force: boolean; volumes: boolean }): Promise<void> {
  const { engine, book } = core;
  const { record } = entry;
  if (options.force) {
    if (entry.starting) await entry.starting.catch(() => {});
    cancelRestart(core, entry);
    if (record.state.Running) await killAndWait(core, entry);
  }
  await locked(entry, async () => {
    // A start that was asked for before has run in the meantime; a later one is refused.
    if (!options.force) refuseRunning(entry);
    cancelRestart(core, entry);
    if (record.state.Running) await killAndWait(core, entry);
    if (entry.cleanup) await entry.cleanup;
    record.state.Status = "removing";
    // Harmless where nothing is left; a container that never ran may hold reserved addresses.
    await engine.networks.detach(record);
    await engine.volumes.release(record, options.volumes);
    await engine.io.removeLogs(record);
    book.remove(entry);
  });
  publish(core, record, "destroy");
  for (const waiter of [...entry.waiters]) waiter.removed(record.state.ExitCode ?? 0, "");
  inBackground(core, removeFiles(core, record.id, record.snapshotKey, record.dir, entry.ending));
}

/** What is left of it in the manager and on disk. A crash in between leaves things without a record, which the next start of the engine removes. */
export async function removeFiles(core: Core, id: string, snapshotKey: string, dir: string, ending?: Promise<void>): Promise<void> {
  const { engine } = core;
  const { manager } = engine;
  await ending;
  await manager.snapshots.remove({ snapshotter: manager.snapshotter, key: snapshotKey }).catch((error) => {
    if (!/not found|not exist/i.test(messageOf(error))) engine.log("warn", `snapshot of ${id}: ${messageOf(error)}`);
  });
  const trash = `${engine.config.dataRoot}/trash`;
  const doomed = `${trash}/${id}-${randomBytes(4).toString("hex")}`;
  try {
    mkdirSync(trash, { recursive: true, mode: 0o700 });
    renameSync(dir, doomed);
    await rm(doomed, { recursive: true, force: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") engine.log("warn", `files of ${id}: ${messageOf(error)}`);
  }
}
