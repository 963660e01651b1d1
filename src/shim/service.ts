// The Task service, versions 2 and 3: they differ only in their package's name, so both are one set of functions over the tasks.
import { toBinary } from "@bufbuild/protobuf";
import { ProcessDetailsSchema } from "../gen/containerd/runc/v1_pb.ts";
import type * as v2 from "../gen/containerd/task/v2_pb.ts";
import { Task as Task2 } from "../gen/containerd/task/v2_pb.ts";
import { Task as Task3 } from "../gen/containerd/task/v3_pb.ts";
import { Status } from "../gen/containerd/v1/types_pb.ts";
import { entering, fromHeaders, span } from "../trace/index.ts";
import { timestamp } from "./events.ts";
import { metricsAny } from "./metrics.ts";
import { pidOf, type TaskProcess } from "./process.ts";
import type { Task, Tasks } from "./tasks.ts";
import { type Implementation, type Services, ttrpcServices } from "./ttrpc/index.ts";

type Plain<T> = Omit<T, "$typeName" | "$unknown">;

function statusOf(task: Task, process: TaskProcess): Status {
  if (process.phase === "stopped") return Status.STOPPED;
  if (process.phase === "added" || process.phase === "created" || process.phase === "starting") return Status.CREATED;
  return task.paused && process === task.init ? Status.PAUSED : Status.RUNNING;
}

function implementation(tasks: Tasks, created: ((id: string) => void) | undefined, shutdown: (id: string, now: boolean) => void) {
  return {
    state({ id, execId }: Plain<v2.StateRequest>) {
      const task = tasks.get(id);
      const process = tasks.process(task, execId);
      return {
        id,
        bundle: task.bundle,
        pid: pidOf(process),
        status: statusOf(task, process),
        ...process.stdio,
        execId,
        ...(process.exit ? { exitStatus: process.exit.status, exitedAt: timestamp(process.exit.at) } : {}),
      };
    },
    async create(request: Plain<v2.CreateTaskRequest>) {
      const { id, bundle, stdin, stdout, stderr, terminal, options, checkpoint } = request;
      const rootfs = request.rootfs.map(({ type, source, target, options }) => ({ type, source, options, ...(target ? { target } : {}) }));
      const task = await tasks.create({ id, bundle, rootfs, stdio: { stdin, stdout, stderr, terminal }, options, checkpoint });
      created?.(id);
      return { pid: pidOf(task.init) };
    },
    async start({ id, execId }: Plain<v2.StartRequest>) {
      return { pid: await tasks.start(id, execId) };
    },
    async delete({ id, execId }: Plain<v2.DeleteRequest>) {
      const { pid, record } = await tasks.remove(id, execId);
      return { pid, exitStatus: record.status, exitedAt: timestamp(record.at) };
    },
    pids({ id }: Plain<v2.PidsRequest>) {
      const task = tasks.get(id);
      const execs = new Map([...task.execs.values()].map((exec) => [pidOf(exec), exec.execId]));
      const processes = (task.container?.pids() ?? []).map((pid) => {
        const execId = execs.get(pid);
        if (execId === undefined) return { pid };
        const value = toBinary(ProcessDetailsSchema, { $typeName: ProcessDetailsSchema.typeName, execId });
        return { pid, info: { typeUrl: ProcessDetailsSchema.typeName, value } };
      });
      return { processes };
    },
    async pause({ id }: Plain<v2.PauseRequest>) {
      await tasks.pause(id);
      return {};
    },
    async resume({ id }: Plain<v2.ResumeRequest>) {
      await tasks.resume(id);
      return {};
    },
    async checkpoint({ id, path, options }: Plain<v2.CheckpointTaskRequest>) {
      await tasks.checkpoint(id, path, options);
      return {};
    },
    kill({ id, execId, signal, all }: Plain<v2.KillRequest>) {
      tasks.kill(id, execId, signal, all);
      return {};
    },
    exec({ id, execId, stdin, stdout, stderr, terminal, spec }: Plain<v2.ExecProcessRequest>) {
      tasks.exec(id, execId, { stdin, stdout, stderr, terminal }, spec);
      return {};
    },
    resizePty({ id, execId, width, height }: Plain<v2.ResizePtyRequest>) {
      const process = tasks.process(tasks.get(id), execId);
      if (process.running?.terminal !== undefined && process.phase !== "stopped") process.running.resize(width, height);
      return {};
    },
    closeIO({ id, execId, stdin }: Plain<v2.CloseIORequest>) {
      const process = tasks.process(tasks.get(id), execId);
      if (stdin) process.running?.closeStdin();
      return {};
    },
    async update({ id, resources }: Plain<v2.UpdateTaskRequest>) {
      await tasks.update(id, resources);
      return {};
    },
    async wait({ id, execId }: Plain<v2.WaitRequest>) {
      const record = await tasks.process(tasks.get(id), execId).exited;
      return { exitStatus: record.status, exitedAt: timestamp(record.at) };
    },
    stats({ id }: Plain<v2.StatsRequest>) {
      return { stats: metricsAny(tasks.stats(id)) };
    },
    connect({ id }: Plain<v2.ConnectRequest>) {
      return { shimPid: process.pid, taskPid: tasks.has(id) ? pidOf(tasks.get(id).init) : 0 };
    },
    shutdown({ id, now }: Plain<v2.ShutdownRequest>) {
      shutdown(id, now);
      return {};
    },
  };
}

/** Both versions of the service, each call a span of the caller's trace. */
export function taskServices(
  tasks: Tasks,
  created: ((id: string) => void) | undefined,
  shutdown: (id: string, now: boolean) => void,
): Services {
  const both = implementation(tasks, created, shutdown);
  const services = ttrpcServices((name, call, run) => {
    const context = fromHeaders((header) => call.metadata(header), "shim");
    return context ? entering(context, () => span(name.slice(name.lastIndexOf("/") + 1), {}, run)) : run();
  });
  return services.add(Task2, both satisfies Implementation<typeof Task2>).add(Task3, both satisfies Implementation<typeof Task3>);
}
