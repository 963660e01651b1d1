// /containers/{id}/exec and /exec/{id}: further processes in a running container.
//
// Life of an exec: created (a record only) → running (start) → exited; forgotten some minutes after, or with its container.
import { randomBytes } from "node:crypto";
import { conflict, invalidArgument, notFound } from "../../lib/errors.ts";
import { connectClient, frame, streamType } from "../attach/connection.ts";
import { DEFAULT_DETACH_KEYS, parseDetachKeys } from "../attach/detach.ts";
import { windowSize } from "../attach/index.ts";
import type { ContainerRecord, Engine } from "../context.ts";
import { type ContainerStreams, createStreams } from "../io/streams.ts";
import { type Answer, type Call, hijacked, type Route } from "../route.ts";
import { createPreparations, type Prepared } from "./prepare.ts";
import { type ExecRequest, execProcess } from "./process.ts";
import { type AddedExec, addExec, containerProcess, execFailure, type RunningExec, removeExec, startExec as startAdded } from "./run.ts";

/** How long `docker exec`'s client may ask for the exit code afterwards. */
const REMEMBER_MS = 5 * 60 * 1000;

const SWEEP_EVERY = 100;

interface Exec {
  id: string;
  containerId: string;
  request: ExecRequest;
  stdin: boolean;
  stdout: boolean;
  stderr: boolean;
  detachKeys: Uint8Array;
  detachText: string;
  state: "created" | "running" | "exited";
  pid: number;
  exitCode: number | null;
  prepared: Prepared | undefined;
}

function strings(value: unknown, name: string): string[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value) || value.some((each) => typeof each !== "string" || each.includes("\0")))
    throw invalidArgument(`invalid JSON: ${name} must be a list of strings`);
  return value as string[];
}

function text(value: unknown, name: string): string {
  if (value === undefined || value === null) return "";
  if (typeof value !== "string" || value.includes("\0")) throw invalidArgument(`invalid JSON: ${name} must be a string`);
  return value;
}

function consoleSize(value: unknown): [number, number] | undefined {
  if (!Array.isArray(value) || value.length !== 2 || value.some((each) => !Number.isInteger(each) || each < 0 || each > 65535))
    return undefined;
  return value[0] > 0 && value[1] > 0 ? [value[0], value[1]] : undefined;
}

function running(engine: Engine, ref: string): ContainerRecord {
  const record = engine.containers.get(ref);
  if (record.state.Restarting) throw conflict(`container ${record.id} is restarting, wait until the container is running`);
  if (!record.state.Running) throw conflict(`container ${record.id} is not running`);
  if (record.state.Paused) throw conflict(`container ${record.id} is paused, unpause the container before exec`);
  return record;
}

export function routes(engine: Engine): Route[] {
  const execs = new Map<string, Exec>();
  const prepare = createPreparations(engine);

  function get(id: string): Exec {
    const exec = execs.get(id);
    if (!exec) throw notFound(`No such exec instance: ${id}`);
    return exec;
  }

  function publish(exec: Exec, action: string, more: Record<string, string> = {}): void {
    let record: ContainerRecord;
    try {
      record = engine.containers.get(exec.containerId);
    } catch {
      return;
    }
    engine.events.publish("container", action, record.id, { ...engine.events.containerAttributes(record), execID: exec.id, ...more });
  }

  /** ExecIDs of inspect: what runs in the container now; not worth a write to the database. */
  function list(exec: Exec, on: boolean): void {
    try {
      const record = engine.containers.get(exec.containerId);
      record.execIds = [...record.execIds.filter((id) => id !== exec.id), ...(on ? [exec.id] : [])];
    } catch {
      // the container is gone, and its list with it
    }
  }

  function ended(exec: Exec, exitCode: number): void {
    exec.state = "exited";
    exec.exitCode = exitCode;
    list(exec, false);
    publish(exec, "exec_die", { exitCode: String(exitCode) });
    setTimeout(() => execs.delete(exec.id), REMEMBER_MS).unref();
  }

  /** Execs that nobody started go with their container. */
  function sweep(): void {
    const there = new Set(engine.containers.list().map((record) => record.id));
    for (const [id, exec] of execs) if (!there.has(exec.containerId)) execs.delete(id);
  }

  async function createExec(call: Call): Promise<Answer> {
    const record = running(engine, call.params.id!);
    const body = ((await call.json()) ?? {}) as Record<string, unknown>;
    const args = strings(body.Cmd, "Cmd");
    if (args.length === 0) throw invalidArgument("No exec command specified");
    const env = strings(body.Env, "Env");
    const workingDir = text(body.WorkingDir, "WorkingDir");
    if (workingDir !== "" && !workingDir.startsWith("/"))
      throw invalidArgument(`the working directory '${workingDir}' is invalid, it needs to be an absolute path`);
    const detachText = text(body.DetachKeys, "DetachKeys");
    const exec: Exec = {
      id: randomBytes(32).toString("hex"),
      containerId: record.id,
      request: {
        args,
        env,
        user: text(body.User, "User"),
        workingDir,
        privileged: body.Privileged === true,
        terminal: body.Tty === true,
        size: consoleSize(body.ConsoleSize),
      },
      stdin: body.AttachStdin === true,
      stdout: body.AttachStdout === true,
      stderr: body.AttachStderr === true,
      detachKeys: detachText ? parseDetachKeys(detachText) : DEFAULT_DETACH_KEYS,
      detachText,
      state: "created",
      pid: 0,
      exitCode: null,
      prepared: undefined,
    };
    if (execs.size % SWEEP_EVERY === SWEEP_EVERY - 1) sweep();
    execs.set(exec.id, exec);
    list(exec, true);
    publish(exec, `exec_create: ${args.join(" ")}`);
    // A terminal's size comes with the start; a client that says so now will start it without its streams.
    if (!exec.request.terminal && (exec.stdout || exec.stderr) && body.Detach !== true) {
      const streams = createStreams();
      exec.prepared = prepare(streams, () => add(exec, streams, true));
    }
    return { status: 201, json: { Id: exec.id } };
  }

  async function add(exec: Exec, streams: ContainerStreams, attached: boolean): Promise<AddedExec> {
    const record = engine.containers.get(exec.containerId);
    return addExec(engine, {
      containerId: record.id,
      execId: exec.id,
      process: await execProcess(engine, record, await containerProcess(engine, record.id), exec.request),
      streams,
      stdin: attached && exec.stdin,
      output: attached,
    });
  }

  /** What was added in advance; undefined where there is none, or it is not what is to be started. */
  async function preparedFor(exec: Exec, attached: boolean): Promise<AddedExec | undefined> {
    const added = await exec.prepared?.take();
    exec.prepared = undefined;
    if (!added || (attached && !exec.request.terminal)) return added;
    await removeExec(engine, added);
    return undefined;
  }

  async function start(exec: Exec, streams: ContainerStreams, attached: boolean): Promise<RunningExec> {
    try {
      const run = await startAdded(engine, (await preparedFor(exec, attached)) ?? (await add(exec, streams, attached)));
      exec.pid = run.pid;
      publish(exec, `exec_start: ${exec.request.args.join(" ")}`);
      return run;
    } catch (error) {
      const { failure, exitCode } = execFailure(error);
      ended(exec, exitCode);
      throw failure;
    }
  }

  async function startExec(call: Call): Promise<Answer> {
    const exec = get(call.params.id!);
    const body = ((await call.json()) ?? {}) as Record<string, unknown>;
    running(engine, exec.containerId);
    if (exec.state === "exited") throw conflict(`exec command ${exec.id} has already run`);
    if (exec.state === "running") throw conflict(`exec command ${exec.id} is already running`);
    const size = consoleSize(body.ConsoleSize);
    if (size) exec.request.size = size;
    if (body.Tty === true) exec.request.terminal = true;
    exec.state = "running";
    const streams = exec.prepared?.streams ?? createStreams();
    const died = (run: RunningExec) =>
      run.exited.then(
        (status) => ended(exec, status),
        (error) => {
          engine.log("warn", "exec was lost", { container: exec.containerId, error: String(error) });
          ended(exec, 255);
        },
      );
    if (body.Detach === true) {
      const run = await start(exec, streams, false);
      died(run);
      return { status: 200 };
    }
    const { terminal } = exec.request;
    const duplex = call.hijack(streamType(call.version, terminal));
    // The hub ends the client only after the exit code is known, which the client asks for at once.
    const { hub } = streams;
    const endClients = hub.end;
    hub.end = () => {};
    connectClient({
      duplex,
      streams,
      framed: !terminal,
      stdin: exec.stdin,
      stdout: exec.stdout,
      stderr: exec.stderr && !terminal,
      closesStdin: !terminal,
      detachKeys: terminal ? exec.detachKeys : undefined,
      detached: () => publish(exec, "exec_detach"),
    });
    try {
      const run = await start(exec, streams, true);
      await died(run);
    } catch (error) {
      const line = Buffer.from(`${(error as Error).message}\r\n`);
      duplex.write(terminal ? line : frame("stdout", line));
    }
    endClients();
    return hijacked;
  }

  return [
    { method: "POST", path: "/containers/{id}/exec", handle: createExec },
    { method: "POST", path: "/exec/{id}/start", handle: startExec },
    {
      method: "POST",
      path: "/exec/{id}/resize",
      async handle(call) {
        const { height, width } = windowSize(call.query);
        const exec = get(call.params.id!);
        if (exec.state !== "running") throw conflict(`exec ${exec.id} is not running`);
        await engine.manager.tasks.resizePty({ containerId: exec.containerId, execId: exec.id, width, height });
        return { status: 200 };
      },
    },
    {
      method: "GET",
      path: "/exec/{id}/json",
      handle(call) {
        const exec = get(call.params.id!);
        const [entrypoint, ...rest] = exec.request.args;
        const { user, privileged, terminal } = exec.request;
        return {
          json: {
            ID: exec.id,
            Running: exec.state === "running",
            ExitCode: exec.exitCode,
            ProcessConfig: { tty: terminal, entrypoint, arguments: rest, privileged, ...(user ? { user } : {}) },
            OpenStdin: exec.stdin,
            OpenStderr: exec.stderr,
            OpenStdout: exec.stdout,
            CanRemove: false,
            ContainerID: exec.containerId,
            DetachKeys: exec.detachText,
            Pid: exec.pid,
          },
        };
      },
    },
  ];
}
