// Runs a program of the host's until it ends, by a tape: what it says is heard, and it is ended where it takes too long. Whoever waits does so in its
// event loop.
//
//   const p = createPlanner()
//   planProgram(p, { path: "/bin/true", args: ["true"], env: [] })
//   const { status, stderr } = await runProgram("jubako-true", p.tape, {})
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
  SYS,
  textOf,
  utf8,
  type Watch,
  watch,
  write,
} from "../linux/index.ts";
import { reportPid } from "./plan/keeper.ts";
import { cloneProcess } from "./plan/namespaces.ts";
import type { Planner } from "./plan/planner.ts";
import { startPlayer } from "./player.ts";
import { hearReports } from "./reports.ts";
import type { Tape } from "./tape.ts";

export interface Program {
  path: string;
  args: readonly string[];
  env: readonly string[];
}

/** `prepare`: what the program's process does before it becomes the program. */
export function planProgram(p: Planner, { path, args, env }: Program, prepare: () => void = () => {}): void {
  const { tape } = p;
  const cloned = cloneProcess(p, [], false, undefined, `start ${path}`);
  const child = tape.label();
  tape.when(cloned.pid, "EQ", 0, child);
  reportPid(p, cloned);
  tape.step(SYS.exit_group, [0]);
  tape.place(child);
  tape.step(SYS.close_range, [3, 0xffffffff, { value: 4, name: "CLOSE_RANGE_CLOEXEC" }], { why: "let no descriptor through" });
  prepare();
  tape.step(SYS.execve, [path, tape.vector([...args], "args"), tape.vector([...env], "env")], { why: `run ${path}` });
}

export interface Conditions {
  /** Nothing unless told. */
  stdin?: string;
  /** Its only output is the caller's stderr. */
  silent?: boolean;
  /** FD.target, for its tape. */
  target?: number;
  /** Seconds, after which it is killed. */
  timeout?: number | undefined;
}

export interface Outcome {
  /** Why it could not be executed, where it could not. */
  problem: string | undefined;
  /** It was killed for taking too long. */
  late: boolean;
  status: number;
  signal: number | undefined;
  /** What it wrote at first, at most MAX_OUTPUT characters. */
  stdout: string;
  stderr: string;
}

/** `name` is its player's. */
export async function runProgram(name: string, tape: Tape, { stdin, silent, target = -1, timeout }: Conditions): Promise<Outcome> {
  const input = stdin === undefined ? -1 : content(stdin);
  const output = silent ? undefined : captured();
  let pidfd = -1;
  let problem: string | undefined;
  try {
    const none = { preserved: [], hold: [], holdStdin: -1, record: -1, notify: -1, control: -1 };
    const player = startPlayer(name, tape.encode(), { stdio: [input, ...(output?.ends ?? ([-1, 2] as const))], ...none, target }, 0);
    output?.started();
    try {
      await hearReports(player.report, (report) => {
        if (report.tag === "pid") pidfd = check(binding.syscall(SYS.pidfd_open, report.pid, 0), "pidfd_open");
        else if (report.tag === "failed") problem = errnoText(report.errno);
        return report.tag !== "pid";
      });
      await ended(player.pidfd);
    } finally {
      player.close();
    }
    let late = false;
    let end: Awaited<ReturnType<typeof ended>>;
    if (pidfd >= 0) {
      const kill = () => {
        late = true;
        pidfdSignal(pidfd, 9);
      };
      const timer = timeout ? setTimeout(kill, timeout * 1000) : undefined;
      end = await ended(pidfd);
      clearTimeout(timer);
    } else problem ??= "it could not be started";
    const { stdout, stderr } = output?.texts() ?? { stdout: "", stderr: "" };
    return { problem, late, status: end?.status ?? 0, signal: end?.signal, stdout, stderr };
  } finally {
    close(input);
    close(pidfd);
    output?.close();
  }
}

/** A descriptor to read it from. */
function content(text: string): number {
  const fd = check(binding.syscall(SYS.memfd_create, "stdin", 1), "memfd_create");
  write(fd, utf8(text));
  check(binding.syscall(SYS.lseek, fd, 0, 0), "lseek");
  return fd;
}

const MAX_OUTPUT = 4096;

/** What it writes. What it started may hold its output open for longer, and is not waited for. */
function captured() {
  const streams = [0, 1].map(() => ({ ...pipe(O_NONBLOCK), text: "" })) as [Captured, Captured];
  const buffer = new Uint8Array(MAX_OUTPUT);
  /** Whether there may be more. */
  const hear = (stream: Captured): boolean => {
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
  // The program's ends block, as everybody expects of them.
  for (const stream of streams) check(binding.syscall(SYS.fcntl, stream.write, 4, 0), "fcntl F_SETFL");
  return {
    ends: [streams[0].write, streams[1].write] as const,
    started() {
      letGo();
      watches = streams.map((stream) => {
        const watching = watch(stream.read, EPOLLIN, () => void (hear(stream) || watching.close()));
        return watching;
      });
    },
    texts() {
      const [stdout, stderr] = streams.map((stream) => {
        hear(stream);
        return stream.text.slice(0, MAX_OUTPUT);
      }) as [string, string];
      return { stdout, stderr };
    },
    close() {
      letGo();
      for (const each of watches) each.close();
      for (const stream of streams) close(stream.read);
    },
  };
}

interface Captured {
  read: number;
  write: number;
  text: string;
}
