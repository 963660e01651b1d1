// Hooks of config.json: programs that get the container's state on stdin (runtime-spec config.md, "POSIX-platform Hooks"). prestart,
// createRuntime, poststart and poststop run here; createContainer and startContainer run inside the container's namespaces, by a tape.
import { spawn } from "node:child_process";
import { failedPrecondition } from "../lib/errors.ts";
import { binding, check, close, ended, errnoText, O_CLOEXEC, pidfdSignal, readFileSync, readlinkSync, SYS, write } from "../linux/index.ts";
import type { Hook, Hooks, Process, State } from "../oci/runtime-spec.ts";
import { homeOf } from "./home.ts";
import { CLONE, flags } from "./plan/constants.ts";
import { environmentOf } from "./plan/environment.ts";
import { reportPid } from "./plan/keeper.ts";
import { FD } from "./plan/layout.ts";
import { cloneProcess } from "./plan/namespaces.ts";
import { createPlanner } from "./plan/planner.ts";
import { planSeccomp } from "./plan/process.ts";
import { startPlayer } from "./player.ts";
import { hearReports } from "./reports.ts";
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
    const problem = inside === undefined ? await runHere(hook, text) : await runInside(hook, text, inside);
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
    const problem = await runHere(hook, JSON.stringify(state));
    if (problem) warn(`error running ${name} hook #${i}: ${problem}`);
  }
}

const MAX_OUTPUT = 4096;

function runHere(hook: Hook, state: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const env = Object.fromEntries((hook.env ?? []).map((e) => [e.split("=", 1)[0]!, e.slice(e.indexOf("=") + 1)]));
    const child = spawn(hook.path, (hook.args ?? [hook.path]).slice(1), { argv0: hook.args?.[0] ?? hook.path, env, stdio: "pipe" });
    let stdout = "";
    let stderr = "";
    let late = false;
    const timer = hook.timeout
      ? setTimeout(() => {
          late = true;
          child.kill("SIGKILL");
          // What it started may hold its output open for longer.
          child.stdout.destroy();
          child.stderr.destroy();
        }, hook.timeout * 1000)
      : undefined;
    child.stdout.on("data", (data) => {
      stdout = (stdout + data).slice(0, MAX_OUTPUT);
    });
    child.stderr.on("data", (data) => {
      stderr = (stderr + data).slice(0, MAX_OUTPUT);
    });
    child.on("error", (error) => resolve(error.message));
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      if (late) resolve(`hook ran past specified timeout of ${hook.timeout}s`);
      else if (code === 0) resolve(undefined);
      else resolve(`${signal ? `signal: ${signal}` : `exit status ${code}`}, stdout: ${stdout}, stderr: ${stderr}`);
    });
    // A hook need not read what it gets.
    child.stdin.on("error", () => {});
    child.stdin.end(state);
  });
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

/** The tape that runs a hook in the namespaces of the process behind FD.target. */
function planHook(hook: Hook, inside: Inside): Tape {
  const { cwd, seccomp, process } = inside;
  const p = createPlanner();
  const { tape } = p;
  const target = { value: FD.target, name: "init" };
  // In one call: afterwards, in a user namespace, the process would be out of reach.
  const joined = othersNamespaces(inside.target);
  if (joined.length) tape.step(SYS.setns, [target, flags(CLONE, ...joined)], { why: "join the container's namespaces" });
  const cloned = cloneProcess(p, [], false, undefined, "start the hook");
  const child = tape.label();
  tape.when(cloned.pid, "EQ", 0, child);
  reportPid(p, cloned);
  tape.step(SYS.exit_group, [0]);
  tape.place(child);
  if (joined.includes("CLONE_NEWUSER")) {
    tape.step(SYS.setresgid, [0, 0, 0], { why: "be root there" });
    tape.step(SYS.setresuid, [0, 0, 0]);
  }
  if (cwd) tape.step(SYS.chdir, [cwd], { why: `go to ${cwd}`, ignore: "all" });
  tape.step(SYS.close_range, [3, 0xffffffff, { value: 4, name: "CLOSE_RANGE_CLOEXEC" }], { why: "let no descriptor through" });
  if (seccomp) planSeccomp(p, seccomp);
  const env = hook.env?.length || !process ? (hook.env ?? []) : programEnvironment(process, inside.target);
  tape.step(SYS.execve, [hook.path, tape.vector(hook.args ?? [hook.path], "args"), tape.vector(env, "env")], {
    why: `run hook ${hook.path}`,
  });
  return tape;
}

function programEnvironment(process: Process, init: number): string[] {
  const { env, needsHome } = environmentOf(process.env);
  return needsHome ? [...env, `HOME=${homeOf(pidsOf(init)[0]!, process.user?.uid ?? 0)}`] : env;
}

async function runInside(hook: Hook, state: string, inside: Inside): Promise<string | undefined> {
  const input = check(binding.syscall(SYS.memfd_create, "state", O_CLOEXEC ? 1 : 0), "memfd_create");
  let pidfd = -1;
  let problem: string | undefined;
  try {
    write(input, Buffer.from(state));
    check(binding.syscall(SYS.lseek, input, 0, 0), "lseek");
    const none = { preserved: [], hold: [], holdStdin: -1, record: -1, notify: -1, control: -1 };
    const player = startPlayer(
      "jubako-hook",
      planHook(hook, inside).encode(),
      { stdio: [input, -1, 2], ...none, target: inside.target },
      0,
    );
    try {
      await hearReports(player.report, (report) => {
        if (report.tag === "pid") pidfd = check(binding.syscall(SYS.pidfd_open, report.pid, 0), "pidfd_open");
        else if (report.tag === "failed") problem = `${hook.path}: ${errnoText(report.errno)}`;
        return report.tag !== "pid";
      });
      await ended(player.pidfd);
    } finally {
      player.close();
    }
    if (pidfd < 0) return problem ?? "the hook could not be started";
    const fd = pidfd;
    let late = false;
    const end = () => {
      late = true;
      pidfdSignal(fd, 9);
    };
    const timer = hook.timeout ? setTimeout(end, hook.timeout * 1000) : undefined;
    const status = (await ended(fd))?.status ?? 0;
    clearTimeout(timer);
    if (late) return `hook ran past specified timeout of ${hook.timeout}s`;
    if (status > 128) return problem ?? `signal: ${status === 159 ? "bad system call" : status - 128}`;
    return problem ?? (status === 0 ? undefined : `exit status ${status}`);
  } finally {
    close(input);
    close(pidfd);
  }
}
