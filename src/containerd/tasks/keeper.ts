// Keeps the table of tasks true: by the events that shims send, by asking again when a shim's connection ended, and at the manager's start.
import { rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { fromBinary } from "@bufbuild/protobuf";
import {
  TaskDeleteSchema,
  TaskExecStartedSchema,
  TaskExitSchema,
  TaskPausedSchema,
  TaskResumedSchema,
  TaskStartSchema,
} from "../../gen/containerd/events_pb.ts";
import { Events } from "../../gen/containerd/services/events/ttrpc/v1_pb.ts";
import type { StateResponse } from "../../gen/containerd/task/v2_pb.ts";
import type { Envelope } from "../../gen/containerd/types_pb.ts";
import { Status } from "../../gen/containerd/v1/types_pb.ts";
import { isKind, messageOf } from "../../lib/errors.ts";
import { serveTtrpc } from "../../shim/index.ts";
import { microseconds, timestamp } from "../database.ts";
import type { State } from "../state.ts";
import { deleteByShim } from "./bootstrap.ts";
import { bundles, removeBundle } from "./bundle.ts";
import { dropStale, hasUnpacked } from "./checkpoint.ts";
import type { TaskKeeper } from "./service.ts";
import { createShims, type Shim } from "./shim.ts";
import { createTable, exited, newProcess, type Process, processOf, started, type Task } from "./table.ts";

export interface KeeperOptions {
  shimBinary: string[];
  /** What shims are told as the manager's address; the events socket is beside it, `ADDRESS.ttrpc`. */
  address: string;
}

export interface Keeper extends TaskKeeper {
  /** Listens for shims' events and finds the tasks again that an earlier manager left. */
  start(): Promise<void>;
  close(): Promise<void>;
}

/** An exit that nobody published is published after this many milliseconds. */
const GRACE_MS = 200;
const DEAD = 137;
const LIVED_MS = 5000;

export function createKeeper(state: State, options: KeeperOptions): Keeper {
  const { db, events, log } = state;
  const table = createTable();
  const ttrpcAddress = `${options.address}.ttrpc`;
  const shims = createShims({ ...options, state: state.state, ttrpcAddress, log, onGone: (shim) => void recover(shim) });
  const sockets = new Set<Socket>();
  let server: Server | undefined;
  let closing = false;

  const microsecondsOf = (at: { seconds: bigint; nanos: number } | undefined): number =>
    at ? Number(at.seconds) * 1e6 + Math.round(at.nanos / 1000) : microseconds();

  const publishExit = (task: Task, process: Process): void => {
    if (process.published) return;
    process.published = true;
    events.publish(task.namespace, "/tasks/exit", TaskExitSchema, {
      containerId: task.id,
      id: process.id,
      pid: process.pid,
      exitStatus: process.exitStatus,
      exitedAt: timestamp(process.exitedAt),
    });
  };
  /** The process has ended, and its shim should say so; if it does not, we do. */
  const endedSilently = (task: Task, process: Process, status: number, at: number): void => {
    exited(process, status, at);
    if (!process.published) setTimeout(() => publishExit(task, process), GRACE_MS).unref();
  };

  function apply(envelope: Envelope): boolean {
    const { namespace, topic, event } = envelope;
    if (!event) return true;
    switch (topic) {
      case "/tasks/exit": {
        const exit = fromBinary(TaskExitSchema, event.value);
        const task = table.get(namespace, exit.containerId);
        const process = task && processOf(task, exit.id);
        if (!process) return true;
        exited(process, exit.exitStatus, microsecondsOf(exit.exitedAt));
        // an adopting shim may tell again what the one before it has told
        if (process.published) return false;
        process.published = true;
        return true;
      }
      case "/tasks/start": {
        const start = fromBinary(TaskStartSchema, event.value);
        const task = table.get(namespace, start.containerId);
        if (task) started(task.init, start.pid);
        return true;
      }
      case "/tasks/exec-started": {
        const start = fromBinary(TaskExecStartedSchema, event.value);
        const process = table.get(namespace, start.containerId)?.execs.get(start.execId);
        if (process) started(process, start.pid);
        return true;
      }
      case "/tasks/paused": {
        const init = table.get(namespace, fromBinary(TaskPausedSchema, event.value).containerId)?.init;
        if (init?.status === Status.RUNNING) init.status = Status.PAUSED;
        return true;
      }
      case "/tasks/resumed": {
        const init = table.get(namespace, fromBinary(TaskResumedSchema, event.value).containerId)?.init;
        if (init?.status === Status.PAUSED) init.status = Status.RUNNING;
        return true;
      }
      default:
        return true;
    }
  }

  const adoptState = (task: Task, process: Process, answer: StateResponse): void => {
    if (answer.pid !== 0) process.pid = answer.pid;
    process.stdin = answer.stdin;
    process.stdout = answer.stdout;
    process.stderr = answer.stderr;
    process.terminal = answer.terminal;
    if (answer.status === Status.STOPPED) endedSilently(task, process, answer.exitStatus, microsecondsOf(answer.exitedAt));
    else if (process.status !== Status.STOPPED) process.status = answer.status;
  };

  /** Asks the shim how a process is; what it does not know is dead. */
  async function refresh(task: Task, process: Process): Promise<void> {
    const execId = process === task.init ? "" : process.id;
    try {
      adoptState(task, process, await task.shim.task.state({ id: task.id, execId }, { timeoutMs: 5000 }));
    } catch (error) {
      if (!isKind(error, "NotFound")) throw error;
      exited(process, DEAD);
      publishExit(task, process);
    }
  }

  async function recover(shim: Shim): Promise<void> {
    const tasks = table.ofShim(shim);
    if (closing) return;
    if (tasks.length === 0) {
      // kept ready for the next container; one that does not live is not tried for ever
      if (shim.shared && performance.now() - shim.since > LIVED_MS) void shims.shared(shim.namespace).catch(() => {});
      return;
    }
    log("warn", "a shim is gone", { namespace: shim.namespace, containers: tasks.length });
    if (!shim.shared) {
      for (const task of tasks) await bury(task);
      return;
    }
    for (let tries = 0; tries < 3 && !closing; tries++) {
      try {
        const next = await shims.shared(shim.namespace);
        for (const task of tasks) task.shim = next;
        // one that is being made is made again by the call that makes it
        const made = tasks.filter((task) => !task.creating);
        await Promise.all(made.flatMap((task) => [task.init, ...task.execs.values()].map((process) => refresh(task, process))));
        return;
      } catch (error) {
        log("error", "the next shim does not take over", { namespace: shim.namespace, error: messageOf(error) });
      }
    }
    for (const task of tasks) {
      for (const process of [...task.execs.values(), task.init]) {
        exited(process, DEAD);
        publishExit(task, process);
      }
    }
  }

  /** A container's own shim has died: what it left is cleaned up by its `delete`, and the task is over. */
  async function bury(task: Task): Promise<void> {
    const answer = await deleteByShim(shims.program([task.shimBinary], task.namespace, task.id, task.bundle));
    for (const process of [...task.execs.values(), task.init]) {
      const own = process === task.init ? answer : undefined;
      exited(process, own?.exitStatus || DEAD, own?.exitedAt ? microsecondsOf(own.exitedAt) : microseconds());
      publishExit(task, process);
    }
    const { pid, exitStatus, exitedAt } = task.init;
    const at = timestamp(exitedAt);
    events.publish(task.namespace, "/tasks/delete", TaskDeleteSchema, { containerId: task.id, pid, exitStatus, exitedAt: at, id: task.id });
    table.remove(task);
    db.run("delete from shims where namespace = ? and id = ?", task.namespace, task.id);
    removeBundle(task.bundle);
  }

  function watchEnd(task: Task, execId: string): void {
    const process = processOf(task, execId);
    if (!process) return;
    task.shim.task.wait({ id: task.id, execId }).then(
      ({ exitStatus, exitedAt }) => exited(process, exitStatus, microsecondsOf(exitedAt)),
      () => {},
    );
  }

  async function patiently<T>(attempt: () => Promise<T>): Promise<T> {
    for (let tries = 0; ; tries++) {
      try {
        return await attempt();
      } catch (error) {
        if (tries >= 2) throw error;
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
    }
  }

  /** The tasks an earlier manager wrote down: found again with their shims, or buried. */
  async function restore(): Promise<void> {
    const rows = db.all<{ namespace: string; id: string; runtime: string; address: string; bundle: string }>(
      "select namespace, id, runtime, address, bundle from shims",
    );
    const restoring = rows.map(async ({ namespace, id, runtime, address, bundle }) => {
      const io = { stdin: "", stdout: "", stderr: "", terminal: false };
      const task: Task = {
        namespace,
        id,
        shimBinary: runtime,
        bundle,
        shim: undefined as unknown as Shim,
        init: newProcess(id, io),
        execs: new Map(),
        creating: true,
        restored: true,
        resumes: hasUnpacked(state, namespace, id),
      };
      try {
        task.shim = address === "" ? await patiently(() => shims.shared(namespace)) : await shims.reconnect(namespace, address, bundle);
        const answer = await task.shim.task.state({ id }, { timeoutMs: 5000 });
        adoptState(task, task.init, answer);
        task.creating = false;
        table.add(task);
        if (!task.shim.shared) watchEnd(task, "");
      } catch (error) {
        log("warn", "a task did not outlive the manager's restart", { namespace, id, error: messageOf(error) });
        exited(task.init, DEAD);
        if (address === "" && !isKind(error, "NotFound")) {
          // nobody knows how it is; it stays written down, for the next start
        } else if (address === "") {
          // its creation was never answered, or it is gone: nothing of it is left in the shim
          db.run("delete from shims where namespace = ? and id = ?", namespace, id);
          removeBundle(bundle);
          publishExit(task, task.init);
        } else await bury(task);
      }
    });
    await Promise.all(restoring);
    // a manager that was killed before it wrote the task down
    const known = new Set(rows.map(({ namespace, id }) => `${namespace}/${id}`));
    for (const { namespace, id, path } of bundles(state.state)) if (!known.has(`${namespace}/${id}`)) removeBundle(path);
    dropStale(state, (namespace, id) => known.has(`${namespace}/${id}`));
  }

  return {
    table,
    shims,
    watchEnd,
    adoptState,
    async start() {
      server = createServer((socket) => {
        sockets.add(socket);
        socket.on("close", () => sockets.delete(socket));
      });
      serveTtrpc(server, Events, {
        forward({ envelope }) {
          if (envelope && apply(envelope)) events.forward(envelope);
          return {};
        },
      });
      rmSync(ttrpcAddress, { force: true });
      await new Promise<void>((resolve, reject) => {
        server!.once("error", reject);
        server!.listen(ttrpcAddress, resolve);
      });
      await restore();
    },
    async close() {
      closing = true;
      await shims.close((shim) => table.ofShim(shim).length === 0);
      server?.close();
      for (const socket of sockets) socket.destroy();
      rmSync(ttrpcAddress, { force: true });
    },
  };
}
