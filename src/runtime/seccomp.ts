// The filter that the seccomp section of config.json asks for. Compiling it takes milliseconds, so what was compiled is kept: in memory, and,
// on disk, for the next process: root's in /run/jubako/seccomp, a user's below his XDG_RUNTIME_DIR.
//
// A file: u32 length of the program; the program; the section's JSON. Its name is a hash of the JSON, and what it says is taken where the whole of it is the same.
import { invalidArgument } from "../lib/errors.ts";
import { mkdirSync, readBytesSync, renameSync, statSync, textOf, utf8, writeFileSync } from "../linux/index.ts";
import type { Seccomp } from "../oci/runtime-spec.ts";
import { hashOf } from "./hash.ts";
import { compileProgram } from "./seccomp-compile.ts";

export interface CompiledSeccomp {
  /** struct sock_filter[] */
  program: Uint8Array;
  /** Of seccomp(2). */
  flags: number;
  /** A process with the filter on may wait at its gate: the filter lets the calls through that this takes, whatever their arguments. */
  letsWait: boolean;
  /** Some calls are told to the agent behind listenerPath. */
  notifies: boolean;
}

const uid = process.geteuid?.() ?? 0;
const CACHE = uid === 0 ? "/run/jubako/seccomp" : `${process.env.XDG_RUNTIME_DIR ?? "/nonexistent"}/jubako/seccomp`;
const memory = new Map<string, CompiledSeccomp>();

const WAIT_KILLABLE_RECV = 32;
const filterFlags: Record<string, number> = {
  // The player has one thread: there is nothing to synchronise.
  SECCOMP_FILTER_FLAG_TSYNC: 0,
  SECCOMP_FILTER_FLAG_LOG: 2,
  SECCOMP_FILTER_FLAG_SPEC_ALLOW: 4,
  SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: WAIT_KILLABLE_RECV,
};
export const seccompFlags = Object.keys(filterFlags);

/** Whether calls are told to an agent. How the process says that it is ready must not be one of them; the words are runc's. */
function checkNotify({ defaultAction, listenerPath, syscalls = [] }: Seccomp): boolean {
  const notify = "SCMP_ACT_NOTIFY";
  if (defaultAction === notify) throw invalidArgument("SCMP_ACT_NOTIFY cannot be used as default action");
  const names = syscalls.filter(({ action }) => action === notify).flatMap((rule) => rule.names);
  if (names.length > 0 && !listenerPath) throw invalidArgument("seccomp: a listenerPath must be set where SCMP_ACT_NOTIFY is used");
  if (names.includes("write")) throw invalidArgument("SCMP_ACT_NOTIFY cannot be used for the write syscall");
  return names.length > 0;
}

/** undefined where there is nothing to filter. */
export function compileSeccomp(seccomp: Seccomp): CompiledSeccomp | undefined {
  const notifies = checkNotify(seccomp);
  if (seccomp.defaultAction === "SCMP_ACT_ALLOW" && !seccomp.syscalls?.length) return undefined;
  let flags = 0;
  // As runc: where the section names no flags, speculation mitigations are left off, which cost more than they are worth here.
  for (const name of seccomp.flags ?? ["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]) {
    const flag = filterFlags[name];
    if (flag === undefined) throw invalidArgument(`unknown seccomp flag ${JSON.stringify(name)}`);
    flags |= flag;
  }
  // How a call that was told of waits for its answer: without a listener the kernel refuses it.
  if (!notifies) flags &= ~WAIT_KILLABLE_RECV;
  const key = JSON.stringify(seccomp);
  let compiled = memory.get(key);
  if (compiled) return compiled;
  const program = cachedProgram(key) ?? keepProgram(key, compileProgram(seccomp));
  compiled = { program, flags, letsWait: ["read", "write", "exit_group"].every((name) => letsThrough(seccomp, name)), notifies };
  if (memory.size >= 64) memory.clear();
  memory.set(key, compiled);
  return compiled;
}

function letsThrough({ syscalls = [], defaultAction }: Seccomp, name: string): boolean {
  const rules = syscalls.filter((rule) => rule.names.includes(name));
  if (rules.length === 0) return defaultAction === "SCMP_ACT_ALLOW";
  return rules.every((rule) => rule.action === "SCMP_ACT_ALLOW" && !rule.args?.length);
}

const fileOf = (key: string) => `${CACHE}/${hashOf(utf8(key))}`;

function cachedProgram(key: string): Uint8Array | undefined {
  try {
    const directory = statSync(CACHE);
    // Anyone who could write here could choose what a container may do.
    if (directory.uid !== uid || directory.mode & 0o022) return undefined;
    const file = readBytesSync(fileOf(key));
    const end = 4 + new Uint32Array(file.buffer, 0, 1)[0]!;
    return end > 4 && end % 8 === 4 && textOf(file.subarray(end)) === key ? file.slice(4, end) : undefined;
  } catch {
    return undefined;
  }
}

function keepProgram(key: string, program: Uint8Array): Uint8Array {
  try {
    mkdirSync(CACHE, { recursive: true, mode: 0o700 });
    const text = utf8(key);
    const file = new Uint8Array(4 + program.length + text.length);
    new Uint32Array(file.buffer, 0, 1)[0] = program.length;
    file.set(program, 4);
    file.set(text, 4 + program.length);
    const temporary = `${fileOf(key)}.${process.pid}`;
    writeFileSync(temporary, file, { mode: 0o600 });
    renameSync(temporary, fileOf(key));
  } catch {
    // A cache that cannot be written costs time only.
  }
  return program;
}
