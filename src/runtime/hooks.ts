// Hooks of config.json: programs that get the container's state on stdin (runtime-spec config.md, "POSIX-platform Hooks"), run by a tape. prestart,
// createRuntime, poststart and poststop run here; createContainer and startContainer run inside the container's namespaces.
import { failedPrecondition } from "../lib/errors.ts";
import {
  binding,
  check,
  close,
  EPOLLIN,
  ended,
  errnoText,
  O_NONBLOCK,
  pidfdSignal,
  pipe,
  read,
  readFileSync,
  readlinkSync,
  SYS,
  textOf,
  utf8,
  type Watch,
  watch,
  write,
} from "../linux/index.ts";
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
  const env = hook.env?.length || !inside || !process ? (hook.env ?? []) : programEnvironment(process, inside.target);
  tape.step(SYS.execve, [hook.path, tape.vector(hook.args ?? [hook.path], "args"), tape.vector(env, "env")], {
    why: `run hook ${hook.path}`,
  });
  return tape;
}

function programEnvironment(process: Process, init: number): string[] {
  const { env, needsHome } = environmentOf(process.env);
  return needsHome ? [...env, `HOME=${homeOf(pidsOf(init)[0]!, process.user?.uid ?? 0)}`] : env;
}

/** What went wrong, in runc's words. */
async function runHook(hook: Hook, state: string, inside: Inside | undefined): Promise<string | undefined> {
  const input = check(binding.syscall(SYS.memfd_create, "state", 1), "memfd_create");
  // One inside has no output but its caller's stderr.
  const output = inside ? undefined : captured();
  let pidfd = -1;
  let problem: string | undefined;
  try {
    write(input, utf8(state));
    check(binding.syscall(SYS.lseek, input, 0, 0), "lseek");
    const none = { preserved: [], hold: [], holdStdin: -1, record: -1, notify: -1, control: -1 };
    const [out, err] = output?.ends ?? [-1, 2];
    const player = startPlayer(
      "jubako-hook",
      planHook(hook, inside).encode(),
      { stdio: [input, out, err], ...none, target: inside?.target ?? -1 },
      0,
    );
    output?.started();
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
    const { status, signal } = (await ended(fd)) ?? { status: 0, signal: undefined };
    clearTimeout(timer);
    if (late) return `hook ran past specified timeout of ${hook.timeout}s`;
    if (problem !== undefined) return problem;
    const how = signal === undefined ? `exit status ${status}` : `signal: ${SIGNALS[signal] ?? signal}`;
    return status === 0 ? undefined : `${how}${output ? `, ${output.text()}` : ""}`;
  } finally {
    close(input);
    close(pidfd);
    output?.close();
  }
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

const MAX_OUTPUT = 4096;

/** What a hook writes, for the sentence about its failure. What it started may hold its output open for longer, and is not waited for. */
function captured() {
  const streams = ["stdout", "stderr"].map((name) => ({ name, ...pipe(O_NONBLOCK), text: "" }));
  const buffer = new Uint8Array(MAX_OUTPUT);
  /** Whether there may be more. */
  const hear = (stream: (typeof streams)[number]): boolean => {
    for (;;) {
      const n = read(stream.read, buffer);
      if (!n) return n === undefined;
      if (stream.text.length < MAX_OUTPUT) stream.text += textOf(buffer.subarray(0, n));
    }
  };
  let watches: Watch[] = [];
  let own = true;
  const letGo = () => {
    if (own) for (const stream of streams) close(stream.write);
    own = false;
  };
  // The hook's ends block, as everybody expects of them.
  for (const stream of streams) check(binding.syscall(SYS.fcntl, stream.write, 4, 0), "fcntl F_SETFL");
  return {
    ends: streams.map((stream) => stream.write) as [number, number],
    started() {
      letGo();
      watches = streams.map((stream) => {
        const watching = watch(stream.read, EPOLLIN, () => void (hear(stream) || watching.close()));
        return watching;
      });
    },
    text() {
      for (const stream of streams) hear(stream);
      return streams.map(({ name, text }) => `${name}: ${text.slice(0, MAX_OUTPUT)}`).join(", ");
    },
    close() {
      letGo();
      for (const each of watches) each.close();
      for (const stream of streams) close(stream.read);
    },
  };
}
