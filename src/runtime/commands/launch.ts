// Starting a process for a command line: no keeper stays, the process is the caller's child, and its orphan once the caller leaves.
import { Failure, invalidArgument } from "../../lib/errors.ts";
import { basename, dirname } from "../../lib/paths.ts";
import {
  binding,
  check,
  close,
  errnoName,
  fstatSync,
  pidfdGetfd,
  pidfdSignal,
  renameSync,
  SYS,
  utf8,
  writeFileSync,
} from "../../linux/index.ts";
import type { Linux, Process } from "../../oci/runtime-spec.ts";
import { FD, MAX_PRESERVED } from "../plan/layout.ts";
import { type Asking, startPlayer } from "../player.ts";
import { hearNow, type Report } from "../reports.ts";
import { sendDescriptor } from "../send-descriptor.ts";
import type { Context } from "./context.ts";
import type { Planned } from "./plans.ts";

/** makedev(1, 3) */
const DEV_NULL = 0x103;

/** A process at its gate. */
export interface Launched {
  pid: number;
  pidfd: number;
  terminal: number | undefined;
  gate: number;
  report: number;
  failure(index: number, errno: number): Promise<Failure>;
  /** Others can find the process now: it no longer ends with this side. */
  made(): void;
  abandon(): void;
}

/** What --preserve-fds and systemd's $LISTEN_FDS let through: descriptors 3 and up. */
export function preservedFds(count: number): { fds: number[]; env: string[] } {
  const listening = Number(process.env.LISTEN_FDS ?? 0) || 0;
  const all = listening + count;
  if (all > MAX_PRESERVED) throw invalidArgument(`at most ${MAX_PRESERVED} descriptors can be preserved`);
  const fds: number[] = [];
  for (let i = 0; i < all; i++) fds.push(3 + i);
  return { fds, env: listening ? [`LISTEN_FDS=${listening}`, "LISTEN_PID=1"] : [] };
}

/** Which of stdin, stdout and stderr are given to the program's user: never the host's /dev/null. */
export function ownStdio(process: Process): boolean[] {
  if (!process.user?.uid) return [false, false, false];
  return stdio((rdev) => rdev !== DEV_NULL);
}

/** What the kernel will not raise is gone without, and told of in runc's words. */
export function tellOfCapabilities({ capabilities }: Process, warn: Context["warn"]): void {
  for (const name of capabilities?.ambient ?? []) {
    if (!capabilities?.permitted?.includes(name) || !capabilities.inheritable?.includes(name))
      warn(`can't raise ambient capability ${name}: operation not permitted`);
  }
}

/** Which of them are the host's null device. */
export const nullStdio = () => stdio((rdev) => rdev === DEV_NULL);

function stdio(is: (rdev: number) => boolean): boolean[] {
  const answers: boolean[] = [];
  for (let fd = 0; fd < 3; fd++) {
    try {
      answers.push(is(fstatSync(fd).rdev));
    } catch {
      answers.push(false);
    }
  }
  return answers;
}

/** `linux` has the id maps that the plan may leave to the maker. `onPid` is called while the process is on its way; `atHooks` while the process waits for the hooks that come before pivot_root. */
export async function launch(
  planned: Planned,
  spec: Process,
  preserved: number[],
  target: number,
  linux: Linux = {},
  atHooks?: (pid: number, pidfd: number) => Promise<void>,
  debug?: Context["debug"],
  onPid?: (pid: number, pidfd: number, gate: number) => Promise<void>,
): Promise<Launched> {
  const failure = async (index: number, number: number) => {
    const plan = await planned.plan();
    if (debug) {
      const step = plan.tape.steps[index];
      debug(`step ${index}: ${step ? (await import("../tape.ts")).stepText(step) : "none"}: ${errnoName(number)}`);
    }
    return (await import("../failures.ts")).stepFailure(plan, spec, index, number);
  };
  const stdio: [number, number, number] = spec.terminal ? [-1, -1, -1] : [0, 1, 2];
  const fds = { stdio, preserved, hold: [], holdStdin: -1, record: -1, notify: -1, control: -1, target };
  const player = startPlayer("jubako-runtime", planned.encoded, fds, 0);
  if (debug) await tellOfFilter(planned, debug);
  debug?.(`nsexec container setup: a tape of ${(await planned.plan()).tape.steps.length} steps`);
  let pid = 0;
  let pidfd = -1;
  let done = false;
  try {
    let failed: Extract<Report, { tag: "failed" }> | undefined;
    let ready = false;
    let hooks = false;
    let maps = false;
    let known = false;
    let more = true;
    const asked: Asking[] = [];
    while (more) {
      hooks = false;
      maps = false;
      hearNow(player.report, (report) => {
        if (report.tag === "pid") {
          pid = report.pid;
          pidfd = check(binding.syscall(SYS.pidfd_open, pid, 0), "pidfd_open");
        } else if (report.tag === "failed") failed = report;
        else if (report.tag === "ready") ready = true;
        else if (report.tag === "hooks") hooks = true;
        else if (report.tag === "maps") maps = true;
        else if (report.tag === "missing" || report.tag === "notify" || report.tag === "idmap") asked.push(report);
        // The child may be ready before its parent has told its pid: both must be known.
        return report.tag === "failed" || report.tag === "end" || (pid > 0 && (!known || ready || hooks || maps || asked.length > 0));
      });
      if (failed) throw await failure(failed.index, failed.errno);
      if (pid > 0 && !known) {
        known = true;
        await onPid?.(pid, pidfd, player.gate);
        if (!ready && !hooks && !maps && asked.length === 0) continue;
      }
      more = hooks || maps || asked.length > 0;
      if (maps) await (await import("../idmaps.ts")).mapIds(pid, linux);
      for (const each of asked.splice(0)) (await import("../answers.ts")).answer(await planned.plan(), { pid, pidfd }, each);
      if (hooks) await atHooks?.(pid, pidfd);
      if (more) player.goOn();
    }
    if (!ready || pidfd < 0) throw new Failure("Unknown", "the process ended while it was set up");
    reapNow(player.pidfd);
    const terminal = spec.terminal ? pidfdGetfd(pidfd, FD.terminal) : undefined;
    debug?.(`child process in init(): ${pid} is set up`);
    done = true;
    close(player.pidfd);
    return {
      pid,
      pidfd,
      terminal,
      gate: player.gate,
      report: player.report,
      failure,
      made: player.made,
      abandon() {
        player.made();
        pidfdSignal(pidfd, 9);
        reapNow(pidfd);
        close(pidfd);
        close(player.gate);
        close(player.report);
        if (terminal !== undefined) close(terminal);
      },
    };
  } finally {
    if (!done) {
      for (const fd of [pidfd, player.pidfd]) {
        if (fd < 0) continue;
        pidfdSignal(fd, 9);
        reapNow(fd);
      }
      close(pidfd);
      player.close();
    }
  }
}

async function tellOfFilter(planned: Planned, debug: NonNullable<Context["debug"]>): Promise<void> {
  const { seccomp } = await planned.plan();
  const LISTENER = 8;
  if (seccomp) debug(`seccomp filter flags: ${seccomp.flags | (seccomp.notifies ? LISTENER : 0)}`);
}

/** Waits for a child's end, blocking; its status as a shell gives it. */
export function reapNow(pidfd: number): number {
  const info = new Int32Array(32);
  while (binding.syscall(SYS.waitid, 3, pidfd, info, 4, null) === -4);
  return info[2] === 1 ? info[6]! : 128 + info[6]!;
}

/** Sends the terminal's master to whoever listens at --console-socket, as runc does: one message with the name of the terminal. */
export const sendTerminal = (path: string, terminal: number) => sendDescriptor(path, utf8("/dev/pts/ptmx"), terminal);

/** Sends the process' pidfd to whoever listens at --pidfd-socket. */
export function sendPidfd(path: string | undefined, pidfd: number): void {
  if (path) sendDescriptor(path, utf8("pidfd"), pidfd);
}

export function writePidFile(path: string | undefined, pid: number): void {
  if (!path) return;
  const temporary = `${dirname(path)}/.${basename(path)}`;
  writeFileSync(temporary, String(pid), { mode: 0o644 });
  renameSync(temporary, path);
}
