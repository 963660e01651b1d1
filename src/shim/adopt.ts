// Taking over one task that an earlier shim of the group left: from what that one wrote down (record.ts), and what the runtime finds alive.
import { messageOf } from "../lib/errors.ts";
import type { ExitRecord, ProcessIo } from "../runtime/face.ts";
import { runtimeOf } from "./drivers.ts";
import { adoptedPreparation } from "./prepare.ts";
import { attach, type TaskProcess, taskProcess } from "./process.ts";
import type { Found, Records } from "./record.ts";
import { type OpenStdio, openStdio } from "./stdio.ts";
import type { Task } from "./tasks.ts";

export interface Adopter {
  namespace: string;
  store: Records;
  tasks: Map<string, Task>;
  watchOom(task: Task): void;
  /** Waits for a process' exit. */
  follow(task: Task, process: TaskProcess): void;
  /** Tells an exit. */
  onExit(task: Task, process: TaskProcess, record: ExitRecord): Promise<void>;
}

/** The status of what died without anyone to see it: as if killed. */
const LOST = 137;

export async function adoptTask(adopter: Adopter, { id, task: record, execs }: Found): Promise<void> {
  const { store, tasks } = adopter;
  const runtime = await runtimeOf(record?.driver);
  const found = await runtime.adopt(id, store.runtimeDir(id));
  if (!record || record.deleting) {
    // Its creation was never answered, or its deletion was under way: both end with nothing.
    await found?.container.delete(true);
    store.remove(id);
    return;
  }
  const task: Task = {
    id,
    bundle: record.bundle,
    driver: record.driver,
    killAll: record.killAll,
    // Of a shim that did not write it down: it kept them all.
    keepInput: record.keepInput ?? true,
    container: found?.container,
    init: taskProcess("", record.stdio, undefined, record.phase),
    execs: new Map([...execs].map(([execId, saved]) => [execId, taskProcess(execId, saved.stdio, saved.spec, saved.phase)])),
    paused: record.paused,
    deleting: false,
    stopOom: () => {},
    restoration: record.restoration,
  };
  tasks.set(id, task);
  adopter.watchOom(task);
  for (const process of [task.init, ...task.execs.values()]) {
    const running = process.execId === "" ? found?.container.init : found?.execs.get(process.execId);
    await adoptProcess(adopter, task, process, running);
  }
}

async function adoptProcess(adopter: Adopter, task: Task, process: TaskProcess, running: TaskProcess["running"]): Promise<void> {
  const { store } = adopter;
  if (!running) {
    // An exec whose start had not got as far as a process can be started again; anything else is dead, and its status is lost with its keeper.
    if (process.execId !== "" && (process.phase === "added" || process.phase === "starting") && task.container) process.phase = "added";
    else if (task.restoration && process.phase === "created") return;
    else if (process.phase !== "added") await adopter.onExit(task, process, { status: LOST, at: Date.now() });
    return;
  }
  if (process.phase === "added") {
    // It was made before its start, and still waits for that.
    process.prepared = adoptedPreparation(running, () => {
      process.running = running;
      adopter.follow(task, process);
    });
    return;
  }
  if (process.stdio.terminal) {
    const opened = await terminalStdio(process, { id: task.id, namespace: adopter.namespace });
    await attach(process, running, opened);
    opened.close();
  } else {
    process.running = running;
    // Its writer may have gone while nobody saw. One that is there holds the input open by itself.
    if (process.stdio.stdin && !task.keepInput) running.closeStdin();
  }
  if (process.phase === "starting") {
    // The gate may or may not have been opened: opening it again does no harm, and the caller's answer was lost either way.
    process.phase = "running";
    process.gate = running.start().catch(() => {});
    store.phase(task.id, process.execId, "running");
  }
  adopter.follow(task, process);
}

/** The terminal's FIFOs; where they are gone, its output is dropped rather than the container. */
async function terminalStdio(process: TaskProcess, names: { id: string; namespace: string }): Promise<OpenStdio> {
  try {
    return await openStdio(process.stdio, names, true);
  } catch (error) {
    globalThis.process.stderr.write(`adopt ${names.id} ${process.execId}: ${messageOf(error)}\n`);
    const io: ProcessIo = { stdin: -1, stdout: -1, stderr: -1, terminal: true, hold: [], holdStdin: -1 };
    return { io, input: -1, output: -1, inputEnd: undefined, close() {}, abandon() {} };
  }
}
