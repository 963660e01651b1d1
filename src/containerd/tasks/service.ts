// The tasks service: what is asked of a running container, handed to its shim. Every call to a shim has a deadline; lists and waits are answered
// from memory (table.ts).
import { create } from "@bufbuild/protobuf";
import { Tasks } from "../../gen/containerd/services/tasks/v1_pb.ts";
import type { StateResponse } from "../../gen/containerd/task/v2_pb.ts";
import { type Metric, MetricSchema } from "../../gen/containerd/types_pb.ts";
import { Status } from "../../gen/containerd/v1/types_pb.ts";
import { alreadyExists, isKind, messageOf, notFound, unavailable } from "../../lib/errors.ts";
import { loadContainer } from "../containers.ts";
import type { ContentStore } from "../content/store.ts";
import { microseconds, timestamp } from "../database.ts";
import { parseFilters } from "../filters.ts";
import { checkIdentifier } from "../identifiers.ts";
import { type Call, namespaceOf, required, type Service, service } from "../service.ts";
import type { State } from "../state.ts";
import { deleteByShim } from "./bootstrap.ts";
import { bundlePath, createBundle, removeBundle } from "./bundle.ts";
import { dropUnpacked, imagesToRestore, imagesToWrite, packCheckpoint, unpackCheckpoint } from "./checkpoint.ts";
import { shimOf } from "./runtime-name.ts";
import type { Shim, Shims } from "./shim.ts";
import { ended, exited, newProcess, type Process, processOf, started, type Table, type Task } from "./table.ts";

/** Making a container, starting a program: slow disks and hooks are allowed for. */
const LONG = { timeoutMs: 120_000 };
/** Memory is written to the disk, or read from there. */
const VERY_LONG = { timeoutMs: 3_600_000 };
const SHORT = { timeoutMs: 15_000 };
const STATS = { timeoutMs: 5_000 };

export interface TaskKeeper {
  table: Table;
  shims: Shims;
  /** Watches for the end of a process of a shim whose events may not come. */
  watchEnd(task: Task, execId: string): void;
  /** Takes over what a shim says of a process. */
  adoptState(task: Task, process: Process, answer: StateResponse): void;
}

export function tasksService(state: State, keeper: TaskKeeper, content: ContentStore): Service {
  const { db } = state;
  const { table, shims } = keeper;

  const find = (call: Call, id: string): Task => {
    const task = table.get(namespaceOf(call), id);
    if (!task || task.creating) throw notFound(`task ${id} not found`);
    return task;
  };
  /** A shim that died in the middle of a call: Unavailable, in words that name the task. */
  const calling = async <T>(task: Task, what: string, answer: Promise<T>): Promise<T> => {
    try {
      return await answer;
    } catch (error) {
      if (isKind(error, "Unavailable")) throw unavailable(`${what} task ${task.id}: its shim is gone: ${messageOf(error)}`, error);
      throw error;
    }
  };
  /** A process of the task. An exec from before the manager's restart is asked for at the shim, and then known again. */
  const processIn = async (task: Task, execId: string): Promise<Process> => {
    const known = processOf(task, execId);
    if (known) return known;
    const missing = notFound(`process ${execId} not found`);
    if (!task.restored) throw missing;
    const answer = await task.shim.task.state({ id: task.id, execId }, SHORT).catch((error) => {
      throw isKind(error, "NotFound") ? missing : error;
    });
    const process = newProcess(execId, answer);
    task.execs.set(execId, process);
    keeper.adoptState(task, process, answer);
    if (!task.shim.shared) keeper.watchEnd(task, execId);
    return process;
  };
  const forget = (task: Task): void => {
    if (task.resumes) dropUnpacked(state, task.namespace, task.id);
    table.remove(task);
    db.run("delete from shims where namespace = ? and id = ?", task.namespace, task.id);
    removeBundle(task.bundle);
  };
  /** Ends a shim that was made for one container. */
  const dismiss = async (task: Task): Promise<void> => {
    if (task.shim.shared) return;
    task.shim.gone = true;
    await task.shim.task.shutdown({ id: task.id }, SHORT).catch(() => {});
    task.shim.disconnect();
  };

  return service(Tasks, {
    async create(request, call) {
      const namespace = namespaceOf(call);
      const id = request.containerId;
      const container = loadContainer(db, namespace, id);
      checkIdentifier(id, "task id");
      if (table.get(namespace, id)) throw alreadyExists(`task ${id}`);
      const runtime = request.runtimePath || container.runtime!.name;
      const kind = shimOf(runtime);
      const given = request.options?.value.length ? request.options : container.runtime!.options;
      const bundle = bundlePath(state.state, namespace, id);
      const { stdin, stdout, stderr, terminal } = request;
      const task: Task = {
        namespace,
        id,
        shimBinary: kind === "shared" ? "" : kind.binary,
        bundle,
        shim: undefined as unknown as Shim,
        init: newProcess(id, { stdin, stdout, stderr, terminal }),
        execs: new Map(),
        creating: true,
        restored: false,
        resumes: false,
      };
      table.add(task);
      let made = false;
      try {
        let checkpoint = imagesToRestore(given);
        if (checkpoint === "" && request.checkpoint) checkpoint = await unpackCheckpoint(state, content, call, id, request.checkpoint);
        task.resumes = checkpoint !== "";
        createBundle(bundle, required(container.spec, "container.Spec").value);
        made = true;
        task.shim =
          kind === "shared"
            ? await shims.shared(namespace)
            : await shims.start(kind.binary, namespace, id, bundle, container.runtime!.options);
        const address = kind === "shared" ? "" : task.shim.address;
        db.run(
          "insert or replace into shims (namespace, id, runtime, address, pid, bundle) values (?, ?, ?, ?, 0, ?)",
          namespace,
          id,
          task.shimBinary,
          address,
          bundle,
        );
        const options = given === undefined ? {} : { options: given };
        const { pid } = await task.shim.task.create(
          { id, bundle, rootfs: request.rootfs, terminal, stdin, stdout, stderr, checkpoint, ...options },
          LONG,
        );
        task.init.pid = pid;
        task.creating = false;
        if (kind !== "shared") keeper.watchEnd(task, "");
        return { containerId: id, pid };
      } catch (error) {
        table.remove(task);
        if (task.shim && !task.shim.shared) {
          task.shim.gone = true;
          await deleteByShim(shims.program([(kind as { binary: string }).binary], namespace, id, bundle, container.runtime!.options));
          await task.shim.task.shutdown({ id, now: true }, SHORT).catch(() => {});
          task.shim.disconnect();
        } else if (task.shim) await task.shim.task.delete({ id }, SHORT).catch(() => {});
        db.run("delete from shims where namespace = ? and id = ?", namespace, id);
        if (made) removeBundle(bundle);
        if (request.checkpoint) dropUnpacked(state, namespace, id);
        throw error;
      }
    },
    async start({ containerId, execId }, call) {
      const task = find(call, containerId);
      const process = await processIn(task, execId);
      const resumes = task.resumes && process === task.init;
      const { pid } = await calling(task, "start", task.shim.task.start({ id: containerId, execId }, resumes ? VERY_LONG : LONG));
      started(process, pid);
      if (resumes) dropUnpacked(state, task.namespace, task.id);
      if (!task.shim.shared && execId !== "") keeper.watchEnd(task, execId);
      return { pid };
    },
    async delete({ containerId }, call) {
      const task = find(call, containerId);
      const init = task.init;
      // whether it still runs is the shim's to say: its event may be on the way
      const answer = await task.shim.task.delete({ id: containerId }, LONG).catch((error) => {
        // a shim that does not know it any more has nothing left to delete
        if (isKind(error, "NotFound") || (isKind(error, "Unavailable") && init.status === Status.STOPPED)) return undefined;
        throw error;
      });
      if (answer) exited(init, answer.exitStatus);
      else exited(init, 137);
      table.remove(task);
      await dismiss(task);
      forget(task);
      const at = answer?.exitedAt ?? (init.exitedAt === 0 ? undefined : timestamp(init.exitedAt));
      return { pid: init.pid, exitStatus: answer?.exitStatus ?? init.exitStatus, ...(at ? { exitedAt: at } : {}) };
    },
    async deleteProcess({ containerId, execId }, call) {
      const task = find(call, containerId);
      const process = await processIn(task, execId);
      const answer = await calling(task, "delete process of", task.shim.task.delete({ id: containerId, execId }, SHORT));
      exited(process, answer.exitStatus);
      task.execs.delete(execId);
      return { id: execId, pid: answer.pid, exitStatus: answer.exitStatus, ...(answer.exitedAt ? { exitedAt: answer.exitedAt } : {}) };
    },
    async get({ containerId, execId }, call) {
      const task = find(call, containerId);
      return { process: message(task, processOf(task, execId) ?? (await processIn(task, execId))) };
    },
    list(_, call) {
      return { tasks: table.list(namespaceOf(call)).map((task) => message(task, task.init)) };
    },
    async kill({ containerId, execId, signal, all }, call) {
      const task = find(call, containerId);
      await processIn(task, execId);
      await calling(task, "kill", task.shim.task.kill({ id: containerId, execId, signal, all }, SHORT));
      return {};
    },
    async exec({ containerId, execId, stdin, stdout, stderr, terminal, spec }, call) {
      const task = find(call, containerId);
      checkIdentifier(execId, "exec id");
      if (task.execs.has(execId) || execId === containerId) throw alreadyExists(`id ${execId}`);
      const process = newProcess(execId, { stdin, stdout, stderr, terminal });
      task.execs.set(execId, process);
      try {
        const given = required(spec, "spec");
        await calling(
          task,
          "exec in",
          task.shim.task.exec({ id: containerId, execId, stdin, stdout, stderr, terminal, spec: given }, SHORT),
        );
      } catch (error) {
        task.execs.delete(execId);
        throw error;
      }
      return {};
    },
    async resizePty({ containerId, execId, width, height }, call) {
      const task = find(call, containerId);
      await processIn(task, execId);
      await calling(task, "resize", task.shim.task.resizePty({ id: containerId, execId, width, height }, SHORT));
      return {};
    },
    async closeIO({ containerId, execId, stdin }, call) {
      const task = find(call, containerId);
      await processIn(task, execId);
      await calling(task, "close the input of", task.shim.task.closeIO({ id: containerId, execId, stdin }, SHORT));
      return {};
    },
    async pause({ containerId }, call) {
      const task = find(call, containerId);
      await calling(task, "pause", task.shim.task.pause({ id: containerId }, SHORT));
      if (task.init.status === Status.RUNNING) task.init.status = Status.PAUSED;
      return {};
    },
    async resume({ containerId }, call) {
      const task = find(call, containerId);
      await calling(task, "resume", task.shim.task.resume({ id: containerId }, SHORT));
      if (task.init.status === Status.PAUSED) task.init.status = Status.RUNNING;
      return {};
    },
    async listPids({ containerId }, call) {
      const task = find(call, containerId);
      return await calling(task, "list processes of", task.shim.task.pids({ id: containerId }, SHORT)).then(({ processes }) => ({
        processes,
      }));
    },
    async checkpoint({ containerId, options }, call) {
      const task = find(call, containerId);
      const asked = options ? { options } : {};
      const write = (path: string) =>
        calling(task, "checkpoint", task.shim.task.checkpoint({ id: containerId, path, ...asked }, VERY_LONG));
      const path = imagesToWrite(options);
      if (path !== "") {
        await write(path);
        return {};
      }
      const { spec } = loadContainer(db, task.namespace, containerId);
      return { descriptors: await packCheckpoint(state, content, call, spec, write) };
    },
    async update({ containerId, resources, annotations }, call) {
      const task = find(call, containerId);
      const given = required(resources, "resources");
      await calling(task, "update", task.shim.task.update({ id: containerId, resources: given, annotations }, SHORT));
      return {};
    },
    async metrics({ filters }, call) {
      const filter = parseFilters(filters);
      const tasks = table
        .list(namespaceOf(call))
        .filter((task) => filter(([head]) => (head === "id" ? task.id : head === "namespace" ? task.namespace : undefined)));
      const answers = await Promise.all(
        tasks.map(async (task): Promise<Metric | undefined> => {
          const { stats } = await task.shim.task.stats({ id: task.id }, STATS).catch((error) => {
            if (tasks.length === 1 && !isKind(error, "NotFound")) throw error;
            return { stats: undefined };
          });
          return stats ? create(MetricSchema, { id: task.id, timestamp: timestamp(microseconds()), data: stats }) : undefined;
        }),
      );
      return { metrics: answers.filter((answer) => answer !== undefined) };
    },
    async wait({ containerId, execId }, call) {
      const task = find(call, containerId);
      const process = await processIn(task, execId);
      await ended(process, call.signal);
      return { exitStatus: process.exitStatus, exitedAt: timestamp(process.exitedAt) };
    },
  });
}

function message(task: Task, process: Process) {
  return {
    containerId: task.id,
    id: process.id,
    pid: process.pid,
    status: process.status,
    stdin: process.stdin,
    stdout: process.stdout,
    stderr: process.stderr,
    terminal: process.terminal,
    exitStatus: process.exitStatus,
    ...(process.exitedAt === 0 ? {} : { exitedAt: timestamp(process.exitedAt) }),
  };
}
