// Checkpoints of tasks, as containerd-shim-runc-v2 has them: a directory of images is written, and a task that is created from one goes on from there when
// it is started; until then it has no process.
import { copyFileSync, rmSync } from "node:fs";
import { fromBinary } from "@bufbuild/protobuf";
import type { Any } from "@bufbuild/protobuf/wkt";
import { type CheckpointOptions, CheckpointOptionsSchema, OptionsSchema } from "../gen/containerd/runc/v1_pb.ts";
import { Failure, failedPrecondition, invalidArgument, isKind, messageOf } from "../lib/errors.ts";
import type { RootMount, RuntimeContainer } from "../runtime/face.ts";
import { runtimeOf } from "./drivers.ts";
import { attach } from "./process.ts";
import { openStdio } from "./stdio.ts";
import type { CreateRequest, Task } from "./tasks.ts";

/** What a task goes on from. */
export interface Restoration {
  images: string;
  /** Directory of CRIU's logs. */
  work: string;
  rootfs: RootMount[];
}

/** From a request to create; options of another kind than runc's say nothing. */
export function restorationOf({ checkpoint, bundle, options, rootfs }: CreateRequest): Restoration | undefined {
  if (checkpoint === "") return undefined;
  const known = options?.typeUrl.endsWith(OptionsSchema.typeName) ? options : undefined;
  const work = known ? fromBinary(OptionsSchema, known.value).criuWorkPath : "";
  return { images: checkpoint, work: work || `${bundle}/criu-work`, rootfs };
}

function parse(options: Any | undefined): CheckpointOptions | undefined {
  if (!options || options.value.length === 0) return undefined;
  if (!options.typeUrl.endsWith(CheckpointOptionsSchema.typeName))
    throw invalidArgument(`options of a checkpoint are a ${CheckpointOptionsSchema.typeName}, not a ${options.typeUrl}`);
  try {
    return fromBinary(CheckpointOptionsSchema, options.value);
  } catch (error) {
    throw invalidArgument(`options of a checkpoint: ${messageOf(error)}`);
  }
}

export async function checkpointTask(task: Task, path: string, any: Any | undefined): Promise<void> {
  const { phase } = task.init;
  if (phase === "stopped") throw failedPrecondition("cannot checkpoint a stopped container: failed precondition");
  if (phase !== "running" || !task.container) throw failedPrecondition("cannot checkpoint a task in created state: failed precondition");
  if (!path.startsWith("/")) throw invalidArgument("the checkpoint's path is not absolute");
  const asked = parse(any);
  const ownWork = `${task.bundle}/criu-work`;
  const work = asked?.workPath || ownWork;
  try {
    await task.container.checkpoint({
      images: path,
      work,
      leaveRunning: !asked?.exit,
      tcpEstablished: asked?.openTcp ?? false,
      externalUnixSockets: asked?.externalUnixSockets ?? false,
      shellJob: asked?.terminal ?? false,
      fileLocks: asked?.fileLocks ?? false,
      emptyNamespaces: asked?.emptyNamespaces ?? [],
      cgroupsMode: asked?.cgroupsMode || undefined,
      parent: asked?.parentPath || undefined,
    });
  } catch (error) {
    if (isKind(error, "Unimplemented")) throw error;
    const kept = keepLog(`${work}/dump.log`, `${task.bundle}/criu-dump.log`);
    throw new Failure("Unknown", `${messageOf(error).split("\n")[0]}${kept ? ` path= ${kept}` : ""}`, { cause: error });
  } finally {
    if (work === ownWork) rmSync(ownWork, { recursive: true, force: true });
  }
}

function keepLog(from: string, to: string): string | undefined {
  try {
    copyFileSync(from, to);
    return to;
  } catch {
    // CRIU did not come so far
    return undefined;
  }
}

/** The start of a task that goes on from a checkpoint. `state`: the runtime's directory. */
export async function restoreTask(task: Task, namespace: string, state: string): Promise<RuntimeContainer> {
  const { id, bundle, init } = task;
  const { images, work, rootfs } = task.restoration!;
  const runtime = await runtimeOf(task.driver);
  const { readSpec } = await import("./tasks.ts");
  const opened = await openStdio(init.stdio, { id, namespace }, task.keepInput);
  try {
    const container = await runtime.restore({ id, bundle, spec: readSpec(bundle), rootfs, io: opened.io, state, images, work });
    task.container = container;
    await attach(init, container.init, opened);
    return container;
  } catch (error) {
    opened.abandon();
    if (isKind(error, "Unimplemented")) throw error;
    const kept = keepLog(`${work}/restore.log`, `${bundle}/criu-restore.log`);
    throw new Failure("Unknown", `${messageOf(error).split("\n")[0]}${kept ? ` path= ${kept}` : ""}`, { cause: error });
  } finally {
    opened.close();
    if (work === `${bundle}/criu-work`) rmSync(work, { recursive: true, force: true });
  }
}
