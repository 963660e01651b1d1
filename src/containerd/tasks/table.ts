// What the manager knows of tasks, in memory: lists and waits are answered from here, whatever a shim is doing. A process only goes forward:
// created → running (↔ paused) → stopped; what arrives late or twice changes nothing.
import { Status } from "../../gen/containerd/v1/types_pb.ts";
import { microseconds } from "../database.ts";
import type { Shim } from "./shim.ts";

export interface Process {
  /** The container's id for the init process, else the exec's. */
  id: string;
  pid: number;
  status: Status;
  stdin: string;
  stdout: string;
  stderr: string;
  terminal: boolean;
  exitStatus: number;
  /** Microseconds since 1970; 0 while it has not ended. */
  exitedAt: number;
  /** The exit was told to subscribers. */
  published: boolean;
  waiting: (() => void)[];
}

export interface Task {
  namespace: string;
  id: string;
  /** Program of its own shim; "" with the shared one. */
  shimBinary: string;
  bundle: string;
  shim: Shim;
  init: Process;
  execs: Map<string, Process>;
  /** The shim is still making it: nobody else sees it yet. */
  creating: boolean;
  /** An earlier manager made it: it may have execs that this one has not heard of. */
  restored: boolean;
  /** It goes on from a checkpoint when it is started. */
  resumes: boolean;
}

export function newProcess(id: string, io: { stdin: string; stdout: string; stderr: string; terminal: boolean }): Process {
  const { stdin, stdout, stderr, terminal } = io;
  return {
    id,
    pid: 0,
    status: Status.CREATED,
    stdin,
    stdout,
    stderr,
    terminal,
    exitStatus: 0,
    exitedAt: 0,
    published: false,
    waiting: [],
  };
}

export function started(process: Process, pid: number): void {
  process.pid = pid;
  if (process.status === Status.CREATED) process.status = Status.RUNNING;
}

/** Marks the end, once, and wakes who waits for it; false where it had ended before. */
export function exited(process: Process, status: number, at: number = microseconds()): boolean {
  if (process.status === Status.STOPPED) return false;
  process.status = Status.STOPPED;
  process.exitStatus = status;
  process.exitedAt = at;
  for (const wake of process.waiting.splice(0)) wake();
  return true;
}

export function processOf(task: Task, execId: string): Process | undefined {
  return execId === "" || execId === task.id ? task.init : task.execs.get(execId);
}

/** Resolves when it has ended, or the caller gives up. */
export function ended(process: Process, signal: AbortSignal): Promise<void> {
  if (process.status === Status.STOPPED || signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      signal.removeEventListener("abort", done);
      const at = process.waiting.indexOf(done);
      if (at >= 0) process.waiting.splice(at, 1);
      resolve();
    };
    process.waiting.push(done);
    signal.addEventListener("abort", done);
  });
}

export interface Table {
  get(namespace: string, id: string): Task | undefined;
  add(task: Task): void;
  remove(task: Task): void;
  list(namespace: string): Task[];
  ofShim(shim: Shim): Task[];
}

export function createTable(): Table {
  const namespaces = new Map<string, Map<string, Task>>();
  return {
    get: (namespace, id) => namespaces.get(namespace)?.get(id),
    add(task) {
      let tasks = namespaces.get(task.namespace);
      if (!tasks) {
        tasks = new Map();
        namespaces.set(task.namespace, tasks);
      }
      tasks.set(task.id, task);
    },
    remove(task) {
      const tasks = namespaces.get(task.namespace);
      if (tasks?.get(task.id) === task) tasks.delete(task.id);
    },
    list: (namespace) => [...(namespaces.get(namespace)?.values() ?? [])].filter((task) => !task.creating),
    ofShim: (shim) => [...namespaces.values()].flatMap((tasks) => [...tasks.values()]).filter((task) => task.shim === shim),
  };
}
