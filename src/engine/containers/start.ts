// From created or exited to running. All or nothing: where a step fails, what was made before it is undone.

import { existsSync } from "node:fs";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { AnySchema } from "@bufbuild/protobuf/wkt";
import type { MountSchema } from "../../gen/containerd/types_pb.ts";
import { conflict, invalidArgument, isKind, messageOf, unknown } from "../../lib/errors.ts";
import { span } from "../../trace/index.ts";
import type { ContainerRecord, NetworkAttachment } from "../context.ts";
import { profileFor } from "./apparmor.ts";
import { type Entry, locked } from "./book.ts";
import { withImages } from "./checkpoint.ts";
import { type Core, NEVER, now, publish } from "./core.ts";
import { watchExit } from "./exit.ts";
import { isCgroupV2 } from "./host.ts";
import { initProgram } from "./init.ts";
import { accountFiles, type SnapshotMount, withCommonLayer } from "./rootfs.ts";
import { linkRoot } from "./rootlink.ts";
import { runtimeOf } from "./runtime.ts";
import { seccompFor } from "./seccomp.ts";
import { mountShm, shmPath, unmountShm } from "./shm.ts";
import { capabilitySet } from "./spec/capabilities.ts";
import { cgroupsPathOf } from "./spec/cgroups-path.ts";
import { buildSpec } from "./spec/index.ts";
import { securityOptions } from "./spec/security.ts";
import { resolveUser } from "./spec/user.ts";

export const SPEC_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

type Mounts = MessageInitShape<typeof MountSchema>[];

/** Starts a container; false where it runs already. */
export function startContainer(core: Core, entry: Entry, checkpoint?: string): Promise<boolean> {
  return locked(entry, () => startLocked(core, entry, checkpoint));
}

async function startLocked(core: Core, entry: Entry, checkpoint: string | undefined): Promise<boolean> {
  const { state } = entry.record;
  if (state.Paused) throw conflict("cannot start a paused container, try unpause instead");
  if (entry.removing || state.Dead) throw conflict("container is marked for removal and cannot be started");
  if (state.Running && !state.Restarting) return false;
  clearTimeout(entry.restart.timer);
  entry.restart.timer = undefined;
  await Promise.all([entry.cleanup, entry.ending]);
  const start = bringUp(core, entry, checkpoint);
  entry.starting = start;
  try {
    await start;
  } finally {
    entry.starting = undefined;
  }
  return true;
}

/** The container whose namespace `mode` ("container:REF") joins; it must run. */
function joined(core: Core, mode: string | undefined): ContainerRecord | undefined {
  if (!mode?.startsWith("container:")) return undefined;
  const other = core.book.find(mode.slice("container:".length)).record;
  if (!other.state.Running)
    throw conflict(`cannot join namespace of a non running container: container ${other.name} is ${other.state.Status}`);
  if (other.state.Restarting) throw conflict(`cannot join namespace of a container that is restarting: ${other.name}`);
  return other;
}

async function specOf(core: Core, record: ContainerRecord, rootfs: SnapshotMount[], attachment: Promise<NetworkAttachment>) {
  const { engine } = core;
  const { hostConfig, config } = record;
  const files = accountFiles(record.chainId, rootfs);
  const user = resolveUser(config.User ?? "", hostConfig.GroupAdd ?? [], files);
  const security = securityOptions(hostConfig, engine.config.containerDefaults.noNewPrivileges);
  const profile = await profileFor(security.apparmor, hostConfig, engine.log);
  security.apparmor = profile || undefined;
  record.apparmorProfile = profile;
  const pid = joined(core, hostConfig.PidMode);
  const ipc = joined(core, hostConfig.IpcMode);
  if (ipc && ipc.hostConfig.IpcMode !== "shareable" && ipc.hostConfig.IpcMode !== "host") {
    throw unknown(`can't join IPC of container ${ipc.id}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)`);
  }
  const wantsInit = hostConfig.Init ?? engine.config.init;
  const initPath = wantsInit ? await initProgram(record, engine.config.initBinary) : undefined;
  const [points, seccomp] = await Promise.all([
    Promise.all(
      record.mounts.map(async (point) => ({ point, source: point.Type === "tmpfs" ? "" : await engine.volumes.source(point, record) })),
    ),
    seccompFor(security.seccomp, capabilitySet({ add: hostConfig.CapAdd, drop: hostConfig.CapDrop, privileged: hostConfig.Privileged })),
  ]);
  return buildSpec({
    record,
    user,
    security,
    seccomp,
    attachment: await attachment,
    mounts: {
      points,
      shmSize: hostConfig.ShmSize || engine.config.defaultShmSize,
      shmPath: sharedMemory(core, record, ipc),
      initPath,
    },
    pidOf: { pid: pid?.state.Pid, ipc: ipc?.state.Pid },
    hostname: hostnameOf(core, record),
    cgroupsPath: cgroupsPathOf(engine.config, hostConfig.CgroupParent, record.id),
    cgroupV2: isCgroupV2(),
    defaultUlimits: engine.config.defaultUlimits,
  });
}

/** What is bound at /dev/shm: undefined for a tmpfs inside the container's own mount namespace. */
function sharedMemory(core: Core, record: ContainerRecord, ipc: ContainerRecord | undefined): string | undefined {
  const { execRoot, defaultShmSize } = core.engine.config;
  if (ipc) return ipc.hostConfig.IpcMode === "host" ? "/dev/shm" : shmPath(execRoot, ipc.id);
  if (record.hostConfig.IpcMode === "shareable") return mountShm(execRoot, record.id, record.hostConfig.ShmSize || defaultShmSize);
  return record.hostConfig.IpcMode === "host" && existsSync("/dev/shm") ? "/dev/shm" : undefined;
}

function hostnameOf(core: Core, record: ContainerRecord): string {
  const mode = record.hostConfig.NetworkMode ?? "";
  if (mode.startsWith("container:")) return core.book.find(mode.slice("container:".length)).record.config.Hostname ?? "";
  return record.config.Hostname ?? "";
}

async function bringUp(core: Core, entry: Entry, checkpoint: string | undefined): Promise<void> {
  const { engine } = core;
  const { record } = entry;
  const { manager } = engine;
  const undo: (() => unknown)[] = [];
  entry.oomKilled = false;
  entry.killed = false;
  try {
    const attaching = span("network attach", {}, () => engine.networks.attach(record));
    undo.push(async () => {
      await attaching.catch(() => {});
      await engine.networks.detach(record);
    });
    attaching.catch(() => {});
    const opening = engine.io.open(record);
    undo.push(async () => (await opening).release());
    opening.catch(() => {});
    if (record.hostConfig.IpcMode === "shareable") undo.push(() => unmountShm(engine.config.execRoot, record.id));
    if (record.imageMounts) undo.push(() => engine.volumes.stopped(record));
    const { mounts } = await manager.snapshots.mounts({ snapshotter: manager.snapshotter, key: record.snapshotKey });
    const rootfs = withCommonLayer(engine.config.dataRoot, mounts as unknown as SnapshotMount[]);
    const spec = await span("specification", {}, () => specOf(core, record, rootfs, attaching));
    const io = await opening;
    entry.io = io;

    const runtime = runtimeOf(engine.config, record.hostConfig.Runtime);
    await manager.containers.create({
      container: {
        id: record.id,
        image: record.image.ref,
        labels: { "com.docker/engine.bundle.path": record.dir },
        runtime,
        spec: create(AnySchema, { typeUrl: SPEC_TYPE, value: Buffer.from(JSON.stringify(spec)) }),
        snapshotter: manager.snapshotter,
        snapshotKey: record.snapshotKey,
      },
    });
    undo.push(() => manager.containers.delete({ id: record.id }));
    const created = await span("task create", {}, () =>
      manager.tasks.create({
        containerId: record.id,
        rootfs: rootfs as unknown as Mounts,
        stdin: io.stdin,
        stdout: io.stdout,
        stderr: io.stderr,
        terminal: io.terminal,
        ...(checkpoint === undefined ? {} : { options: withImages(runtime, checkpoint) }),
      }),
    );
    // One that goes on from a checkpoint has no process before its start.
    let { pid } = created;
    undo.push(() => (pid === 0 ? manager.tasks.delete({ containerId: record.id }) : endTask(core, record.id)));
    let attached = pid === 0 ? undefined : engine.networks.started(record.id, pid);
    const exit = manager.tasks.wait({ containerId: record.id });
    exit.catch(() => {});
    const started = await span("task start", { pid }, () => manager.tasks.start({ containerId: record.id }));
    pid = started.pid;
    attached ??= engine.networks.started(record.id, pid);
    await attached;
    setRunning(entry, pid);
    core.book.save(entry);
    linkRoot(core, entry, pid);
    watchExit(core, entry, exit);
    publish(core, record, "start");
    io.started();
    engine.io.startHealth(record.id);
  } catch (error) {
    for (const step of undo.reverse()) {
      try {
        await step();
      } catch (second) {
        engine.log("debug", `undoing a failed start of ${record.id}: ${messageOf(second)}`);
      }
    }
    entry.io = undefined;
    const { failure, exitCode } = startFailure(error);
    const { state } = record;
    Object.assign(state, {
      Status: state.StartedAt === NEVER ? "created" : "exited",
      Running: false,
      Restarting: false,
      Pid: 0,
      ExitCode: exitCode,
      Error: failure.message,
    });
    core.book.save(entry);
    if (record.hostConfig.AutoRemove && !entry.removing) void removeAfterFailure(core, entry);
    throw failure;
  }
}

/** As dockerd does with --rm: who waits for the removal hears the exit code. */
async function removeAfterFailure(core: Core, entry: Entry): Promise<void> {
  await core
    .remove(entry, { force: true, volumes: true })
    .catch((error) => core.engine.log("error", messageOf(error), { container: entry.record.id }));
}

async function endTask(core: Core, containerId: string): Promise<void> {
  const { tasks } = core.engine.manager;
  await tasks.kill({ containerId, signal: 9, all: true }).catch(() => {});
  await tasks.wait({ containerId }).catch(() => {});
  await tasks.delete({ containerId });
}

export function setRunning(entry: Entry, pid: number): void {
  const { record } = entry;
  Object.assign(record.state, {
    Status: "running",
    Running: true,
    Paused: false,
    Restarting: false,
    OOMKilled: false,
    Dead: false,
    Pid: pid,
    ExitCode: 0,
    Error: "",
    StartedAt: now(),
  });
  record.stoppedByUser = false;
  entry.restart.startedAt = Date.now();
}

/** Docker's exit codes for what could not be started: 127 where the command is not there, 126 where it can't be run. The client reads them from the sentence. */
export function startFailure(error: unknown): { failure: Error; exitCode: number } {
  const text = messageOf(error);
  const lower = text.toLowerCase();
  const message = /^failed to create task/.test(text) || !isTaskError(error, lower) ? text : `failed to create task for container: ${text}`;
  if (lower.includes("permission denied") || lower.includes("is a directory"))
    return { failure: invalidArgument(message, error), exitCode: 126 };
  if (lower.includes("not a directory")) {
    const hint =
      "Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type";
    return { failure: invalidArgument(`${message}: ${hint}`, error), exitCode: 127 };
  }
  if (lower.includes("executable file not found") || lower.includes("no such file or directory"))
    return { failure: invalidArgument(message, error), exitCode: 127 };
  if (error instanceof Error && isTaskError(error, lower)) return { failure: unknown(message, error), exitCode: 128 };
  return { failure: error instanceof Error ? error : unknown(message), exitCode: 128 };
}

/** Whether the manager or what lies below said so, and not one of the engine's own checks. */
function isTaskError(error: unknown, lower: string): boolean {
  if (isKind(error, "Conflict") || isKind(error, "NotFound") || isKind(error, "InvalidArgument"))
    return lower.includes("exec") || lower.includes("mount");
  return isKind(error, "Unknown") || isKind(error, "FailedPrecondition") || !(error instanceof Error && "kind" in error);
}
