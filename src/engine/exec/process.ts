// The OCI process of an exec: the container's own, changed by what the caller asked.
import type { Process } from "../../oci/runtime-spec.ts";
import { accountsBelow } from "../containers/rootfs.ts";
import { capabilitySet, processCapabilities } from "../containers/spec/capabilities.ts";
import { mergeEnv } from "../containers/spec/env.ts";
import { type ResolvedUser, resolveUser } from "../containers/spec/user.ts";
import type { ContainerRecord, Engine } from "../context.ts";

export interface ExecRequest {
  args: string[];
  env: string[];
  user: string;
  workingDir: string;
  privileged: boolean;
  terminal: boolean;
  /** Rows and columns; undefined: unknown. */
  size: [height: number, width: number] | undefined;
}

/** The user by the container's own accounts as they are now. */
export async function lookUpUser(engine: Engine, record: ContainerRecord, user: string): Promise<ResolvedUser> {
  const root = await engine.containers.openRoot(record.id);
  try {
    return resolveUser(user, record.hostConfig.GroupAdd ?? [], accountsBelow(root.fd));
  } finally {
    await root.close();
  }
}

/** `own` is the running container's. */
export async function execProcess(engine: Engine, record: ContainerRecord, own: Process, request: ExecRequest): Promise<Process> {
  const process: Process = { ...own, args: request.args, cwd: request.workingDir || own.cwd };
  delete process.terminal;
  delete process.consoleSize;
  let env = own.env ?? [];
  if (request.user !== "" && request.user !== (record.config.User ?? "")) {
    const user = await lookUpUser(engine, record, request.user);
    process.user = { uid: user.uid, gid: user.gid, ...(user.additionalGids.length > 0 ? { additionalGids: user.additionalGids } : {}) };
    const said = (record.config.Env ?? []).some((each) => each.startsWith("HOME="));
    if (!said) env = mergeEnv(env, [`HOME=${user.home}`]);
    const { CapAdd: add, CapDrop: drop, Privileged: privileged } = record.hostConfig;
    process.capabilities = processCapabilities(capabilitySet({ add, drop, privileged }), user.uid);
  }
  if (request.privileged) {
    const all = capabilitySet({ privileged: true });
    process.capabilities = { bounding: all, effective: all, permitted: all };
  }
  if (request.terminal) {
    process.terminal = true;
    if (!env.some((each) => each.startsWith("TERM="))) env = [...env, "TERM=xterm"];
    if (request.size) process.consoleSize = { height: request.size[0], width: request.size[1] };
  }
  process.env = mergeEnv(env, request.env);
  return process;
}
