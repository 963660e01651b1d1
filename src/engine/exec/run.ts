// Runs a further process in a container: from its streams to its exit status, with nothing left behind. Exec and health checks use it.
//
//   const added = await addExec(engine, options);     // streams are there, the task service knows it and may have made it
//   const run = await startExec(engine, added);        // or removeExec(engine, added)
//   const status = await run.exited;
import { create } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import { Failure, messageOf } from "../../lib/errors.ts";
import type { Process, Spec } from "../../oci/runtime-spec.ts";
import { span } from "../../trace/index.ts";
import type { Engine, ProcessIo } from "../context.ts";
import type { ContainerStreams } from "../io/streams.ts";

const PROCESS_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Process";
/** Output that is not at its end this long after the exit belongs to a process that outlived the one we started. */
const DRAIN_MS = 2000;
const REMOVE_MS = 10;

export interface RunOptions {
  containerId: string;
  execId: string;
  process: Process;
  streams: ContainerStreams;
  stdin: boolean;
  output: boolean;
}

export interface RunningExec {
  pid: number;
  /** The exit status, once the output was handed on too and the process was removed. */
  exited: Promise<number>;
}

interface Known {
  startedAt: string | undefined;
  process: Process;
}

/** By container, of this start of it: health checks and scripts exec again and again. */
const known = new WeakMap<Engine, Map<string, Known>>();
const MAX_KNOWN = 256;

/** The process in the running container's specification. It is not the caller's to change. */
export async function containerProcess(engine: Engine, id: string): Promise<Process> {
  const startedAt = engine.containers.get(id).state.StartedAt;
  let ours = known.get(engine);
  if (!ours) {
    ours = new Map();
    known.set(engine, ours);
  }
  const found = ours.get(id);
  if (found && startedAt !== undefined && found.startedAt === startedAt) return found.process;
  const { container } = await engine.manager.containers.get({ id });
  const { process } = JSON.parse(Buffer.from(container!.spec!.value).toString()) as Spec;
  if (ours.size >= MAX_KNOWN) ours.clear();
  ours.set(id, { startedAt, process: process! });
  return process!;
}

/** The sentence of a process that could not be started, and the exit code that a shell would give. */
export function execFailure(error: unknown): { failure: Failure; exitCode: number } {
  const text = messageOf(error).replace(/^\[[a-z_]+\] /, "");
  const why = text
    .replace(/^OCI runtime exec failed: (exec failed: )?(unable to start container process: )?/, "")
    .replace(/: unknown$/, "");
  const message = `OCI runtime exec failed: exec failed: unable to start container process: ${why}: unknown`;
  const missing = /executable file not found|no such file or directory/i.test(text);
  const refused = missing || /permission denied|not a directory|is a directory|exec format error/i.test(text);
  return { failure: new Failure(refused ? "InvalidArgument" : "Unknown", message, { cause: error }), exitCode: missing ? 127 : 126 };
}

/** One that the task service knows and that waits to be started, or to be removed. */
export interface AddedExec {
  options: RunOptions;
  io: ProcessIo;
}

/** Throws what the task service said where that failed, and leaves nothing then. */
export async function addExec(engine: Engine, options: RunOptions): Promise<AddedExec> {
  const { containerId, execId, process, streams } = options;
  const terminal = process.terminal ?? false;
  const io = engine.io.openExec(containerId, execId, streams, { stdin: options.stdin, output: options.output, terminal });
  try {
    await span("exec create", { container: containerId }, () =>
      engine.manager.tasks.exec({
        containerId,
        execId,
        stdin: io.stdin,
        stdout: io.stdout,
        stderr: io.stderr,
        terminal,
        spec: create(AnySchema, { typeUrl: PROCESS_TYPE, value: Buffer.from(JSON.stringify(process)) }),
      }),
    );
  } catch (error) {
    await io.release();
    throw error;
  }
  return { options, io };
}

/** Nothing is left of one that was added, or has ended. */
export async function removeExec(engine: Engine, { options, io }: AddedExec): Promise<void> {
  const { containerId, execId } = options;
  const [removed, released] = await Promise.allSettled([engine.manager.tasks.deleteProcess({ containerId, execId }), io.release()]);
  const fields = { container: containerId, exec: execId };
  if (removed.status === "rejected")
    engine.log("debug", "exec process could not be removed", { ...fields, error: messageOf(removed.reason) });
  if (released.status === "rejected")
    engine.log("warn", "exec streams could not be removed", { ...fields, error: messageOf(released.reason) });
}

/** Throws what the task service said where that failed, and leaves nothing then. */
export async function startExec(engine: Engine, added: AddedExec): Promise<RunningExec> {
  const { io, options } = added;
  const { containerId, execId } = options;
  const { tasks } = engine.manager;
  const target = { containerId, execId };
  const exit = tasks.wait(target);
  exit.catch(() => {});
  let pid: number;
  try {
    ({ pid } = await span("exec start", { container: containerId }, () => tasks.start(target)));
  } catch (error) {
    await removeExec(engine, added);
    throw error;
  }
  io.started();

  async function follow(): Promise<number> {
    const { exitStatus } = await exit;
    let timer: NodeJS.Timeout | undefined;
    await Promise.race([
      io.drained,
      new Promise((resolve) => {
        timer = setTimeout(resolve, DRAIN_MS);
      }),
    ]);
    clearTimeout(timer);
    // Nobody waits for this, and whoever asks for the exit status should not have to.
    setTimeout(() => void removeExec(engine, added), REMOVE_MS);
    return exitStatus;
  }
  return { pid, exited: follow() };
}

export async function runExec(engine: Engine, options: RunOptions): Promise<RunningExec> {
  return startExec(engine, await addExec(engine, options));
}
