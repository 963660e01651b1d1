// Ending, pausing and restarting what runs.
import { conflict, isKind, messageOf, unknown } from "../../lib/errors.ts";
import { type Entry, locked } from "./book.ts";
import { type Core, publish } from "./core.ts";
import { cancelRestart } from "./exit.ts";
import { signalNumber } from "./signals.ts";

const SIGKILL = 9;
const SIGTERM = 15;
const DEFAULT_TIMEOUT = 10;
/** A killed process that has not ended after this stays in the kernel (a dead disk, for instance). */
const KILL_WAIT_MS = 10_000;

const notRunning = (entry: Entry) => conflict(`container ${entry.record.id} is not running`);

/** Waits for the handled exit at most `ms`; false when it takes longer. */
export async function exitWithin(entry: Entry, ms: number): Promise<boolean> {
  const exited = entry.exited;
  if (!exited) return true;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), ms);
  });
  try {
    return await Promise.race([exited.then(() => true), late]);
  } finally {
    clearTimeout(timer);
  }
}

async function send(core: Core, entry: Entry, signal: number): Promise<void> {
  const { manager } = core.engine;
  const { record } = entry;
  if (signal === SIGKILL) entry.killed = true;
  await manager.tasks.kill({ containerId: record.id, signal, all: false }).catch((error) => {
    // It ended in the meantime: what was wanted has happened.
    if (!/not found|process already finished|no such process|not running/i.test(messageOf(error))) throw error;
  });
  publish(core, record, "kill", { signal: String(signal) });
  if (record.state.Paused && (signal === SIGKILL || signal === SIGTERM || signal === stopSignal(entry))) {
    await manager.tasks.resume({ containerId: record.id }).catch(() => {});
    record.state.Paused = false;
    record.state.Status = "running";
  }
}

function stopSignal(entry: Entry): number {
  const name = entry.record.config.StopSignal;
  return name ? signalNumber(name) : SIGTERM;
}

/** Kills with SIGKILL and waits until the exit has been handled. */
export async function killAndWait(core: Core, entry: Entry): Promise<void> {
  if (!entry.record.state.Running) return;
  await send(core, entry, SIGKILL);
  if (await exitWithin(entry, KILL_WAIT_MS)) return;
  throw unknown(`container ${entry.record.id} did not end ${KILL_WAIT_MS / 1000} s after SIGKILL: it hangs in the kernel`);
}

/** False where it did not run. */
export async function stopContainer(
  core: Core,
  entry: Entry,
  options: { timeout?: number; signal?: string; byUser: boolean; restarting?: boolean },
): Promise<boolean> {
  const { record } = entry;
  const signal = options.signal ? signalNumber(options.signal) : stopSignal(entry);
  if (entry.starting) await entry.starting.catch(() => {});
  if (!record.state.Running) return false;
  if (options.byUser && !options.restarting) {
    record.stoppedByUser = true;
    core.book.save(entry);
  }
  if (cancelRestart(core, entry)) return true;
  const timeout = options.timeout ?? record.config.StopTimeout ?? DEFAULT_TIMEOUT;
  const exited = entry.exited;
  await send(core, entry, signal);
  if (timeout < 0) await exited;
  else if (!(await exitWithin(entry, timeout * 1000))) {
    core.engine.log("info", `Container failed to exit within ${timeout}s of signal ${signal} - using the force`, { container: record.id });
    await killAndWait(core, entry);
  }
  publish(core, record, "stop");
  return true;
}

export async function killContainer(core: Core, entry: Entry, signal: string): Promise<void> {
  const number = signal ? signalNumber(signal) : SIGKILL;
  const { record } = entry;
  if (entry.starting) await entry.starting.catch(() => {});
  if (!record.state.Running) throw notRunning(entry);
  if (number === SIGKILL || number === stopSignal(entry)) {
    record.stoppedByUser = true;
    core.book.save(entry);
  }
  if (cancelRestart(core, entry)) return;
  if (record.state.Paused && number !== SIGKILL && number !== SIGTERM && number !== stopSignal(entry)) {
    throw conflict(`Container ${record.id} is paused. Unpause the container before stopping or killing`);
  }
  if (number === SIGKILL) await killAndWait(core, entry);
  else await send(core, entry, number);
}

export async function restartContainer(core: Core, entry: Entry, options: { timeout?: number; signal?: string }): Promise<void> {
  entry.keep = true;
  try {
    await stopContainer(core, entry, { ...options, byUser: true, restarting: true });
    await core.start(entry);
  } finally {
    entry.keep = false;
  }
  publish(core, entry.record, "restart");
}

/** Its process may end while it is being frozen or thawed. */
async function frozen(entry: Entry, change: Promise<unknown>): Promise<void> {
  try {
    await change;
  } catch (error) {
    if (isKind(error, "FailedPrecondition") || isKind(error, "NotFound") || /no such file|no such process/i.test(messageOf(error)))
      throw notRunning(entry);
    throw error;
  }
  if (!entry.record.state.Running) throw notRunning(entry);
}

export function pauseContainer(core: Core, entry: Entry): Promise<void> {
  return locked(entry, async () => {
    const { record } = entry;
    if (!record.state.Running) throw notRunning(entry);
    if (record.state.Paused) throw conflict(`container ${record.id} is already paused`);
    if (record.state.Restarting) throw conflict(`Container ${record.id} is restarting, wait until the container is running`);
    if (entry.killed) throw notRunning(entry);
    await frozen(entry, core.engine.manager.tasks.pause({ containerId: record.id }));
    if (entry.killed) {
      await core.engine.manager.tasks.resume({ containerId: record.id }).catch(() => {});
      throw notRunning(entry);
    }
    record.state.Paused = true;
    record.state.Status = "paused";
    core.book.save(entry);
    publish(core, record, "pause");
  });
}

export function unpauseContainer(core: Core, entry: Entry): Promise<void> {
  return locked(entry, async () => {
    const { record } = entry;
    if (!record.state.Paused) throw conflict(`container ${record.id} is not paused`);
    await frozen(entry, core.engine.manager.tasks.resume({ containerId: record.id }));
    record.state.Paused = false;
    record.state.Status = "running";
    core.book.save(entry);
    publish(core, record, "unpause");
  });
}
