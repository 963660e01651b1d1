// The OCI process of an exec: the container's own, changed by what the caller asked.
import { invalidArgument } from "../../lib/errors.ts";
import { close, O_RDONLY, openat2, RESOLVE_IN_ROOT, read } from "../../linux/index.ts";
import type { Process } from "../../oci/runtime-spec.ts";
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

const MAX_FILE = 4 * 1024 * 1024;

function textOf(root: number, path: string): string {
  let fd: number;
  try {
    fd = openat2(root, path, O_RDONLY, { resolve: RESOLVE_IN_ROOT });
  } catch {
    return "";
  }
  try {
    const chunks: Buffer[] = [];
    for (let total = 0; total <= MAX_FILE; ) {
      const buffer = Buffer.allocUnsafe(64 * 1024);
      const n = read(fd, buffer);
      if (!n) return Buffer.concat(chunks).toString();
      chunks.push(buffer.subarray(0, n));
      total += n;
    }
    throw invalidArgument(`${path} of the container is larger than ${MAX_FILE} bytes`);
  } finally {
    close(fd);
  }
}

/** The user by the container's own accounts as they are now. */
export async function lookUpUser(engine: Engine, record: ContainerRecord, user: string): Promise<ResolvedUser> {
  const root = await engine.containers.openRoot(record.id);
  try {
    return resolveUser(user, record.hostConfig.GroupAdd ?? [], {
      passwd: textOf(root.fd, "/etc/passwd"),
      group: textOf(root.fd, "/etc/group"),
    });
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
