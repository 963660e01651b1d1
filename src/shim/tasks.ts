// The tasks of one shim: what the Task service's calls mean. Errors are worded and kinded as containerd-shim-runc-v2 does.
import { readFileSync } from "node:fs";
import type { Any } from "@bufbuild/protobuf/wkt";
import {
  TaskCreateSchema,
  TaskDeleteSchema,
  TaskExecAddedSchema,
  TaskExecStartedSchema,
  TaskExitSchema,
  TaskOOMSchema,
  TaskPausedSchema,
  TaskResumedSchema,
  TaskStartSchema,
} from "../gen/containerd/events_pb.ts";
import { KEEP_STDIN } from "../lib/annotations.ts";
import { alreadyExists, Failure, failedPrecondition, invalidArgument, isKind, messageOf, notFound } from "../lib/errors.ts";
import type { Resources, Spec, Process as SpecProcess } from "../oci/runtime-spec.ts";
import type { CgroupStats, ExitRecord, RootMount, RuntimeContainer } from "../runtime/face.ts";
import { isUnitPath } from "../runtime/index.ts";
import { active, entering, span } from "../trace/index.ts";
import { adoptTask } from "./adopt.ts";
import type { Restoration } from "./checkpoint.ts";
import { chooseDriver, type Driver, runtimeOf } from "./drivers.ts";
import { type Publisher, timestamp } from "./events.ts";
import { preparations } from "./prepare.ts";
import { attach, closeStdio, pidOf, release, signalProcess, type TaskProcess, taskProcess } from "./process.ts";
import { type Records, records } from "./record.ts";
import { openStdio, type Stdio } from "./stdio.ts";

export interface Task {
  readonly id: string;
  readonly bundle: string;
  readonly driver: Driver | undefined;
  readonly killAll: boolean;
  readonly keepInput: boolean;
  /** Undefined where it is gone: declared dead at adoption. */
  container: RuntimeContainer | undefined;
  readonly init: TaskProcess;
  readonly execs: Map<string, TaskProcess>;
  paused: boolean;
  deleting: boolean;
  stopOom: () => void;
  /** Its start goes on from a checkpoint; until then there is no container. */
  readonly restoration: Restoration | undefined;
}

export interface CreateRequest {
  id: string;
  bundle: string;
  rootfs: RootMount[];
  stdio: Stdio;
  options: Any | undefined;
  /** Directory of the images that the task goes on from; "": it begins anew. */
  checkpoint: string;
}

export interface Exit {
  pid: number;
  record: ExitRecord;
}

export interface Tasks {
  create(request: CreateRequest): Promise<Task>;
  /** The task, or the error that says it isn't there. */
  get(id: string): Task;
  has(id: string): boolean;
  /** A process of it: "" is init. */
  process(task: Task, execId: string): TaskProcess;
  start(id: string, execId: string): Promise<number>;
  remove(id: string, execId: string): Promise<Exit>;
  exec(id: string, execId: string, stdio: Stdio, spec: Any | undefined): void;
  kill(id: string, execId: string, signal: number, all: boolean): void;
  pause(id: string): Promise<void>;
  resume(id: string): Promise<void>;
  checkpoint(id: string, path: string, options: Any | undefined): Promise<void>;
  update(id: string, resources: Any | undefined): Promise<void>;
  stats(id: string): CgroupStats;
  size(): number;
  /** Takes over what an earlier shim of this group left: all, or one task. */
  adopt(only?: string): Promise<void>;
}

const ID = /^[A-Za-z0-9][A-Za-z0-9_.:-]{0,200}$/;
/** How long init's exit waits for the exits of execs, which must be told first. */
const EXECS_MS = 1000;
const SIGKILL = 9;

function checkedId(id: string, what: string): string {
  if (!ID.test(id)) throw invalidArgument(`${what} ${JSON.stringify(id)} is not a valid identifier`);
  return id;
}

function json<T>(any: Any | undefined, what: string): T {
  if (!any) throw invalidArgument(`${what} is missing`);
  try {
    return JSON.parse(Buffer.from(any.value).toString()) as T;
  } catch (error) {
    throw invalidArgument(`${what} is not valid JSON: ${messageOf(error)}`);
  }
}

/** The runtime's error as the command line's would read. */
function runtimeError(error: unknown, what: string): Failure {
  // A program that is not found must not read as a task that is not found.
  const kind = error instanceof Failure && error.kind !== "NotFound" ? error.kind : "Unknown";
  return new Failure(kind, `${what}: ${messageOf(error)}`, { cause: error });
}

export function createTasks(options: { namespace: string; state: string; events: Publisher }): Tasks {
  const { namespace, events } = options;
  const tasks = new Map<string, Task>();
  /** Ids whose creation is under way. */
  const making = new Set<string>();
  const store: Records = records(options.state);
  const prepare = preparations();

  const get = (id: string): Task => {
    const task = tasks.get(id);
    if (!task) throw notFound("container not created: not found");
    return task;
  };

  const find = (task: Task, execId: string): TaskProcess => {
    const process = execId === "" ? task.init : task.execs.get(execId);
    if (!process) throw notFound(`process does not exist ${execId}: not found`);
    return process;
  };

  /** Tells an exit, once its output is out, its start was told, and, for init, all other processes are done. */
  const onExit = async (task: Task, process: TaskProcess, record: ExitRecord): Promise<void> => {
    if (process === task.init && task.killAll) task.container?.killAll(SIGKILL);
    await process.copy?.drained();
    await process.gate;
    if (process === task.init) {
      const open = [...task.execs.values()].filter((exec) => exec.running && exec.phase !== "stopped");
      if (open.length > 0) await within(Promise.all(open.map((exec) => exec.exited)), EXECS_MS);
    }
    if (process.exit) return;
    // Whoever hears of the end must have heard of the kill that caused it.
    if (process === task.init) task.stopOom();
    process.end(record);
    events.publish("/tasks/exit", TaskExitSchema, {
      containerId: task.id,
      id: process.execId || task.id,
      pid: pidOf(process),
      exitStatus: record.status,
      exitedAt: timestamp(record.at),
    });
  };

  const follow = (task: Task, process: TaskProcess): void => {
    void process.running!.exited.then((record) => onExit(task, process, record));
  };

  const watchOom = (task: Task): void => {
    task.stopOom = task.container?.onOom(() => events.publish("/tasks/oom", TaskOOMSchema, { containerId: task.id })) ?? (() => {});
  };

  /** Once there is a process. */
  const begin = (task: Task): void => {
    watchOom(task);
    follow(task, task.init);
  };

  const create = async (request: CreateRequest): Promise<Task> => {
    const id = checkedId(request.id, "task id");
    if (tasks.has(id) || making.has(id)) throw alreadyExists(`task ${id}: already exists`);
    making.add(id);
    try {
      const driver = await chooseDriver(request.options, namespace);
      const spec = span("read config.json", {}, () => readSpec(request.bundle));
      if (driver && isUnitPath(spec.linux?.cgroupsPath)) driver.systemdCgroup = true;
      const restoration = request.checkpoint === "" ? undefined : (await import("./checkpoint.ts")).restorationOf(request);
      const runtime = await runtimeOf(driver);
      const keepInput = spec.annotations?.[KEEP_STDIN] === "true";
      const opened = restoration ? undefined : await span("open stdio", {}, () => openStdio(request.stdio, { id, namespace }, keepInput));
      store.make(id);
      try {
        const state = store.runtimeDir(id);
        const { bundle, rootfs } = request;
        const container = opened && (await below("create", () => runtime.create({ id, bundle, spec, rootfs, io: opened.io, state })));
        const init = taskProcess("", request.stdio, undefined, "created");
        const task: Task = {
          id,
          bundle: request.bundle,
          driver,
          killAll: !ownPidNamespace(spec),
          keepInput,
          container,
          init,
          execs: new Map(),
          paused: false,
          deleting: false,
          stopOom: () => {},
          restoration,
        };
        if (container) await attach(init, container.init, opened);
        const saved = { bundle, driver, killAll: task.killAll, keepInput, stdio: request.stdio };
        store.writeTask(id, { ...saved, ...(restoration ? { restoration } : {}) });
        tasks.set(id, task);
        if (container) begin(task);
        return task;
      } catch (error) {
        opened?.abandon();
        store.remove(id);
        throw runtimeError(error, "OCI runtime create failed");
      } finally {
        opened?.close();
      }
    } finally {
      making.delete(id);
    }
  };

  const startProcess = async (task: Task, process: TaskProcess): Promise<void> => {
    const { execId } = process;
    if (process.phase === "stopped") throw failedPrecondition("cannot start a stopped process: failed precondition");
    if (process.phase !== "created" && process.phase !== "added")
      throw failedPrecondition("cannot start a running process: failed precondition");
    const made = process.phase === "created";
    const restores = task.restoration !== undefined && process === task.init;
    process.phase = "starting";
    let told: () => void = () => {};
    process.gate = new Promise((resolve) => {
      told = resolve;
    });
    store.phase(task.id, execId, "starting");
    try {
      if (!made && !(await openPrepared(process))) await makeExec(task, process);
      if (restores) {
        const { restoreTask } = await import("./checkpoint.ts");
        await below("restore", () => restoreTask(task, namespace, store.runtimeDir(task.id)));
        begin(task);
      } else await below("start", () => process.running!.start());
      process.phase = "running";
      store.phase(task.id, execId, "running");
      if (execId === "") events.publish("/tasks/start", TaskStartSchema, { containerId: task.id, pid: pidOf(process) });
      else events.publish("/tasks/exec-started", TaskExecStartedSchema, { containerId: task.id, execId, pid: pidOf(process) });
    } catch (error) {
      closeStdio(process);
      process.end({ status: 255, at: Date.now() });
      store.phase(task.id, execId, "stopped");
      throw runtimeError(error, `OCI runtime ${restores ? "restore" : execId === "" ? "start" : "exec"} failed`);
    } finally {
      told();
    }
  };

  /** False: there is none, or it ended before it was wanted. */
  const openPrepared = async ({ prepared }: TaskProcess): Promise<boolean> => {
    try {
      const running = prepared?.open();
      await running;
      return running !== undefined;
    } catch (error) {
      if (isKind(error, "Cancelled")) return false;
      throw error;
    }
  };

  const makeExec = async (task: Task, process: TaskProcess, opens?: Promise<boolean>): Promise<void> => {
    process.opened ??= await openStdio(process.stdio, { id: task.id, namespace }, task.keepInput);
    const { execId, opened } = process;
    const spec = { ...process.spec!, terminal: process.stdio.terminal };
    const running = await below("exec", () => task.container!.exec({ execId, process: spec, io: opened.io, ...(opens ? { opens } : {}) }));
    await attach(process, running, opened);
    process.opened = undefined;
    opened.close();
    follow(task, process);
  };

  const removeInit = async (task: Task): Promise<Exit> => {
    const { init } = task;
    if (task.deleting) throw failedPrecondition("cannot delete a task that is being deleted: failed precondition");
    if (init.phase === "starting" || init.phase === "running")
      throw failedPrecondition(`cannot delete a ${task.paused ? "paused" : "running"} process: failed precondition`);
    task.deleting = true;
    const pid = pidOf(init);
    await Promise.all([...task.execs.values()].map((exec) => exec.prepared?.drop()));
    try {
      store.deleting(task.id, true);
      await below("delete", async () => task.container?.delete(true));
    } catch (error) {
      task.deleting = false;
      store.deleting(task.id, false);
      throw runtimeError(error, "OCI runtime delete failed");
    }
    if (!init.exit) await within(init.exited, EXECS_MS);
    const record = init.exit ?? { status: 128 + SIGKILL, at: Date.now() };
    task.stopOom();
    for (const process of [...task.execs.values(), init]) {
      process.end(record);
      release(process);
    }
    tasks.delete(task.id);
    store.remove(task.id);
    events.publish("/tasks/delete", TaskDeleteSchema, {
      containerId: task.id,
      pid,
      exitStatus: record.status,
      exitedAt: timestamp(record.at),
    });
    return { pid, record };
  };

  const removeExec = async (task: Task, process: TaskProcess): Promise<Exit> => {
    if (process.phase !== "stopped" && process.phase !== "added")
      throw failedPrecondition("cannot delete a running process: failed precondition");
    const pid = pidOf(process);
    task.execs.delete(process.execId);
    if (process.prepared) await process.prepared.drop();
    process.end({ status: 0, at: Date.now() });
    release(process);
    store.removeExec(task.id, process.execId);
    return { pid, record: process.exit! };
  };

  const living = (task: Task, verb: string): RuntimeContainer => {
    const { phase } = task.init;
    if (phase === "stopped" || !task.container) throw failedPrecondition(`cannot ${verb} a stopped container: failed precondition`);
    return task.container;
  };

  return {
    async create(request) {
      const task = await create(request);
      events.publish("/tasks/create", TaskCreateSchema, {
        containerId: task.id,
        bundle: task.bundle,
        rootfs: request.rootfs.map(({ type, source, target, options }) => ({ type, source, target: target ?? "", options })),
        io: { ...task.init.stdio },
        checkpoint: request.checkpoint,
        pid: pidOf(task.init),
      });
      return task;
    },
    get,
    has: (id) => tasks.has(id),
    process: find,
    async start(id, execId) {
      const task = get(id);
      const process = find(task, execId);
      await startProcess(task, process);
      return pidOf(process);
    },
    async remove(id, execId) {
      const task = get(id);
      return execId === "" ? removeInit(task) : removeExec(task, find(task, execId));
    },
    exec(id, execId, stdio, any) {
      const task = get(id);
      checkedId(execId, "exec id");
      if (task.execs.has(execId)) throw alreadyExists(`id ${execId}: already exists`);
      const spec = json<SpecProcess>(any, "the exec's process");
      if (task.paused) throw failedPrecondition("cannot exec in a paused state: failed precondition");
      if (task.init.phase === "stopped" || !task.container) throw failedPrecondition("cannot exec in a stopped state: failed precondition");
      const process = taskProcess(execId, stdio, spec, "added");
      task.execs.set(execId, process);
      store.writeExec(id, execId, { stdio, spec });
      // Behind the answer to this call. A terminal and a logger come with the start; a runtime's command line makes nothing in advance.
      const plain = !stdio.terminal && !stdio.stdout.startsWith("binary:") && !task.driver;
      if (plain) queueMicrotask(() => prepare(process, (opens) => makeExec(task, process, opens)));
      events.publish("/tasks/exec-added", TaskExecAddedSchema, { containerId: id, execId });
    },
    kill(id, execId, signal, all) {
      const task = get(id);
      const process = find(task, execId);
      if (all && execId === "" && task.container) {
        if (process.phase === "stopped" && task.container.pids().length === 0) throw notFound("process already finished: not found");
        task.container.killAll(signal);
      } else signalProcess(process, signal);
    },
    async pause(id) {
      const task = get(id);
      if (task.init.phase !== "running") throw failedPrecondition(`cannot pause a ${task.init.phase} container: failed precondition`);
      await living(task, "pause").pause();
      task.paused = true;
      store.paused(id, true);
      events.publish("/tasks/paused", TaskPausedSchema, { containerId: id });
    },
    async resume(id) {
      const task = get(id);
      await living(task, "resume").resume();
      task.paused = false;
      store.paused(id, false);
      events.publish("/tasks/resumed", TaskResumedSchema, { containerId: id });
    },
    async checkpoint(id, path, options) {
      const task = get(id);
      const { checkpointTask } = await import("./checkpoint.ts");
      await below("checkpoint", () => checkpointTask(task, path, options));
    },
    async update(id, resources) {
      const task = get(id);
      await living(task, "update").update(json<Resources>(resources, "the resources"));
    },
    stats(id) {
      const { container } = get(id);
      if (!container) throw notFound("cgroup does not exist: not found");
      return container.stats();
    },
    size: () => tasks.size + making.size,
    async adopt(only) {
      for (const found of store.all()) {
        if (only !== undefined && found.id !== only) continue;
        try {
          await adoptTask({ namespace, store, tasks, watchOom, follow, onExit }, found);
        } catch (error) {
          process.stderr.write(`adopt ${found.id}: ${messageOf(error)}\n`);
        }
      }
    },
  };
}

/** A call of the runtime, as a span of the runtime's layer. */
function below<T>(name: string, call: () => T): T {
  const context = active();
  return context ? entering({ ...context, layer: "runtime" }, () => span(name, {}, call)) : call();
}

export function readSpec(bundle: string): Spec {
  try {
    return JSON.parse(readFileSync(`${bundle}/config.json`, "utf8")) as Spec;
  } catch (error) {
    throw invalidArgument(`the bundle's config.json can't be read: ${messageOf(error)}`);
  }
}

function ownPidNamespace(spec: Spec): boolean {
  return spec.linux?.namespaces?.some((namespace) => namespace.type === "pid" && !namespace.path) ?? false;
}

/** Resolves when the promise settles, or after `ms`. */
export function within(promise: Promise<unknown>, ms: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    const done = (): void => {
      clearTimeout(timer);
      resolve();
    };
    promise.then(done, done);
  });
}
