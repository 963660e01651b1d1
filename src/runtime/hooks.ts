// Hooks of config.json: programs that get the container's state on stdin (runtime-spec config.md, "POSIX-platform Hooks"), run by a tape. prestart,
// createRuntime, poststart and poststop run here; createContainer and startContainer run inside the container's namespaces.
import { failedPrecondition } from "../lib/errors.ts";
import { pidfdSignal, readFileSync, readlinkSync, SYS } from "../linux/index.ts";
import type { Hook, Hooks, Process, State } from "../oci/runtime-spec.ts";
import { homeOf } from "./home.ts";
import { CLONE, flags } from "./plan/constants.ts";
import { environmentOf } from "./plan/environment.ts";
import { FD } from "./plan/layout.ts";
import { createPlanner } from "./plan/planner.ts";
import { planSeccomp } from "./plan/process.ts";
import { planProgram, runProgram } from "./run-program.ts";
import type { Tape } from "./tape.ts";

type HookName = keyof Hooks;

export interface Inside {
  /** pidfd of the container's init. */
  target: number;
  /** Where the hook starts; the root where it is not there. */
  cwd?: string | undefined;
  /** The container's filter, for hooks of a container that is set up. */
  seccomp?: { program: Uint8Array; flags: number } | undefined;
  /** Whose environment a hook has that names none. */
  process?: Process | undefined;
}

/** Runs the hooks of one kind, one after the other; throws at the first that fails. `inside`: for those in the container's namespaces. */
export async function runHooks(name: HookName, hooks: Hooks | undefined, state: State, inside?: Inside): Promise<void> {
  const list = hooks?.[name] ?? [];
  for (const [i, hook] of list.entries()) {
    // A hook inside is told the pid that it sees (runtime-spec runtime.md, "State").
    const text = JSON.stringify(inside ? { ...state, pid: pidsOf(inside.target).at(-1) } : state);
    const problem = await runHook(hook, text, inside);
    if (problem) throw failedPrecondition(`error running ${name} hook #${i}: error running hook: ${problem}`);
  }
}

/** A container whose poststart hook fails is stopped (runtime-spec runtime.md, "Lifecycle"). `init`: its pidfd. */
export async function runPoststart(hooks: Hooks, state: State, init: number): Promise<void> {
  try {
    await runHooks("poststart", hooks, state);
  } catch (error) {
    pidfdSignal(init, 9);
    throw error;
  }
}

/** poststop: a hook that fails is told of, and the others run. */
export async function runHooksAnyway(
  name: HookName,
  hooks: Hooks | undefined,
  state: State,
  warn: (message: string) => void,
): Promise<void> {
  for (const [i, hook] of (hooks?.[name] ?? []).entries()) {
    const problem = await runHook(hook, JSON.stringify(state), undefined);
    if (problem) warn(`error running ${name} hook #${i}: ${problem}`);
  }
}

const NAMESPACES = {
  user: "CLONE_NEWUSER",
  mnt: "CLONE_NEWNS",
  pid: "CLONE_NEWPID",
  net: "CLONE_NEWNET",
  uts: "CLONE_NEWUTS",
  ipc: "CLONE_NEWIPC",
} as const;

/** A process' number here, and in each pid namespace below in which it is. */
function pidsOf(pidfd: number): number[] {
  const line = /^NSpid:\t(.*)$/m.exec(readFileSync(`/proc/self/fdinfo/${pidfd}`, "utf8"))?.[1];
  return (line ?? "").split("\t").map(Number);
}

/** Those of a process that are not this one's: to join one's own is refused to users without rights. */
function othersNamespaces(pidfd: number): (typeof NAMESPACES)[keyof typeof NAMESPACES][] {
  const [pid] = pidsOf(pidfd);
  const names = Object.keys(NAMESPACES) as (keyof typeof NAMESPACES)[];
  return names
    .filter((name) => readlinkSync(`/proc/${pid}/ns/${name}`) !== readlinkSync(`/proc/self/ns/${name}`))
    .map((name) => NAMESPACES[name]);
}

/** The tape that runs a hook: inside, in the namespaces of the process behind FD.target. */
function planHook(hook: Hook, inside: Inside | undefined): Tape {
  const { cwd, seccomp, process } = inside ?? {};
  const p = createPlanner();
  const { tape } = p;
  const target = { value: FD.target, name: "init" };
  // In one call: afterwards, in a user namespace, the process would be out of reach.
  const joined = inside ? othersNamespaces(inside.target) : [];
  if (joined.length) tape.step(SYS.setns, [target, flags(CLONE, ...joined)], { why: "join the container's namespaces" });
  const env = hook.env?.length || !inside || !process ? (hook.env ?? []) : programEnvironment(process, inside.target);
  planProgram(p, { path: hook.path, args: hook.args ?? [hook.path], env }, () => {
    if (joined.includes("CLONE_NEWUSER")) {
      tape.step(SYS.setresgid, [0, 0, 0], { why: "be root there" });
      tape.step(SYS.setresuid, [0, 0, 0]);
    }
    if (cwd) tape.step(SYS.chdir, [cwd], { why: `go to ${cwd}`, ignore: "all" });
    if (seccomp) planSeccomp(p, seccomp);
  });
  return tape;
}

function programEnvironment(process: Process, init: number): string[] {
  const { env, needsHome } = environmentOf(process.env);
  return needsHome ? [...env, `HOME=${homeOf(pidsOf(init)[0]!, process.user?.uid ?? 0)}`] : env;
}

/** What went wrong, in runc's words. */
async function runHook(hook: Hook, state: string, inside: Inside | undefined): Promise<string | undefined> {
  const tape = planHook(hook, inside);
  // One inside has no output but its caller's stderr.
  const conditions = { stdin: state, silent: inside !== undefined, target: inside?.target ?? -1, timeout: hook.timeout };
  const { problem, late, status, signal, stdout, stderr } = await runProgram("jubako-hook", tape, conditions);
  if (late) return `hook ran past specified timeout of ${hook.timeout}s`;
  if (problem !== undefined) return `${hook.path}: ${problem}`;
  if (status === 0) return undefined;
  const how = signal === undefined ? `exit status ${status}` : `signal: ${SIGNALS[signal] ?? signal}`;
  return inside ? how : `${how}, stdout: ${stdout}, stderr: ${stderr}`;
}

/** As Go calls them. */
const SIGNALS: Record<number, string> = {
  2: "interrupt",
  6: "aborted",
  9: "killed",
  11: "segmentation fault",
  15: "terminated",
  31: "bad system call",
};
