// The `delete` command: ends one task for a manager that lost its shim.

import { Task } from "../gen/containerd/task/v2_pb.ts";
import { isKind } from "../lib/errors.ts";
import { publisher } from "./events.ts";
import type { Group } from "./group.ts";
import { createTasks, within } from "./tasks.ts";
import { createTtrpcClient } from "./ttrpc/index.ts";

export interface Removed {
  pid: number;
  exitStatus: number;
  exitedAt?: { seconds: bigint; nanos: number };
}

const KILLED = 137;
const PATIENCE_MS = 5000;

function nothing(): Removed {
  return { pid: 0, exitStatus: KILLED, exitedAt: { seconds: BigInt(Math.floor(Date.now() / 1000)), nanos: 0 } };
}

/** By the group's shim, which lives. */
export async function removeLiving(group: Group, id: string): Promise<Removed> {
  const client = createTtrpcClient(Task, group.address);
  try {
    await client.kill({ id, signal: 9, all: true }, { timeoutMs: PATIENCE_MS }).catch(() => {});
    const exited = await client.wait({ id }, { timeoutMs: PATIENCE_MS }).catch(() => undefined);
    if (!exited) return nothing();
    const { pid, exitStatus, exitedAt } = await client.delete({ id }, { timeoutMs: PATIENCE_MS });
    return { pid, exitStatus, ...(exitedAt ? { exitedAt } : {}) };
  } catch (error) {
    if (isKind(error, "NotFound")) return nothing();
    throw error;
  } finally {
    client.close();
  }
}

/** In this process: adopts the task, ends it, removes what is left. */
export async function removeDead(group: Group, namespace: string, id: string): Promise<Removed> {
  const events = publisher(undefined, namespace);
  const tasks = createTasks({ namespace, state: group.dir, events });
  await tasks.adopt(id);
  if (!tasks.has(id)) return nothing();
  const task = tasks.get(id);
  try {
    tasks.kill(id, "", 9, true);
  } catch {
    // it has ended
  }
  await within(task.init.exited, PATIENCE_MS);
  const { pid, record } = await tasks.remove(id, "");
  return { pid, exitStatus: record.status, exitedAt: { seconds: BigInt(Math.floor(record.at / 1000)), nanos: (record.at % 1000) * 1e6 } };
}
