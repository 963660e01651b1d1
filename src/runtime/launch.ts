// A keeper and its process, from the start of the player to the gate at which the process waits.
import { Failure } from "../lib/errors.ts";
import {
  binding,
  check,
  close,
  EPOLLIN,
  ended,
  O_NONBLOCK,
  O_RDWR,
  pidfdGetfd,
  pidfdSignal,
  SYS,
  SystemError,
  spawnError,
  watch,
} from "../linux/index.ts";
import type { Process } from "../oci/runtime-spec.ts";
import { active } from "../trace/index.ts";
import type { Planned } from "./create-plans.ts";
import { type EarlyGate, type Heard, passEarly } from "./early.ts";
import type { ProcessIo } from "./face.ts";
import { stepFailure } from "./failures.ts";
import type { Kept } from "./keeper.ts";
import { environmentOf } from "./plan/environment.ts";
import { FD, MAX_HOLD } from "./plan/layout.ts";
import { type Asking, eventfd, type Player, startPlayer } from "./player.ts";
import { hearReports } from "./reports.ts";
import { tracePlayer } from "./timing.ts";
import { waitingTape } from "./waiting-tape.ts";

const F_SETFL = 4;

/** eventfds of a keeper (Kept). */
interface Events {
  notify: number;
  control: number;
}

interface Launching {
  /** What makeRecord() gave. */
  record: number;
  /** pidfd of the process whose namespaces are joined; -1: none. */
  target: number;
  /** The keeper has a network namespace made while it waits for the plan. */
  network?: boolean;
  atHooks?: (pid: number, pidfd: number) => Promise<void>;
  early?: EarlyGate | undefined;
}

/** Starts a keeper on a tape for a process with this `io`, and hands it to `use`, which fills in what it hears. Where that fails, nothing is left of either. */
export async function keeping<T>(
  tape: Uint8Array | number,
  io: ProcessIo,
  fds: { record: number; target: number },
  timedSteps: number,
  use: (keeper: Player, events: Events, heard: Heard) => Promise<T>,
): Promise<T> {
  if (io.hold.length > MAX_HOLD) throw new Failure("InvalidArgument", `a keeper holds at most ${MAX_HOLD} descriptors`);
  const events: Events = { notify: eventfd(), control: eventfd() };
  const heard: Heard = { pid: 0, pidfd: -1, ready: false, failed: undefined };
  let keeper: Player | undefined;
  let done = false;
  try {
    const stdio: [number, number, number] = io.terminal ? [-1, -1, -1] : [io.stdin, io.stdout, io.stderr];
    const { hold, holdStdin } = io;
    keeper = startPlayer("jubako-keeper", tape, { stdio, preserved: [], hold, holdStdin, ...events, ...fds }, timedSteps);
    const used = await use(keeper, events, heard);
    done = true;
    return used;
  } finally {
    if (!done) {
      const { pidfd } = heard;
      if (pidfd >= 0) pidfdSignal(pidfd, 9);
      if (keeper) {
        // The keeper reaps its process before it goes: an orphan would stay in its cgroup until someone else does.
        if (pidfd >= 0) await readable([events.notify, keeper.pidfd], 2000);
        pidfdSignal(keeper.pidfd, 9);
        await ended(keeper.pidfd);
        keeper.close();
      }
      close(pidfd);
      close(events.notify);
      close(events.control);
    }
  }
}

/** The master of its terminal, of one who holds it. */
export function takeTerminal(pidfd: number): number {
  const terminal = pidfdGetfd(pidfd, FD.terminal);
  check(binding.syscall(SYS.fcntl, terminal, F_SETFL, O_RDWR | O_NONBLOCK), "fcntl F_SETFL");
  return terminal;
}

/** Starts the player on a plan with a keeper, and waits until the process stands at its gate. `plan` is asked for it while the player starts. On failure nothing is left. */
export async function launch(
  plan: () => Planned,
  process: Process,
  io: ProcessIo,
  directory: string,
  { record, target, network, atHooks, early }: Launching,
): Promise<Kept> {
  const trace = active();
  return keeping(waitingTape(network), io, { record, target }, trace ? 1 : 0, async (keeper, events, heard) => {
    const planned = plan();
    if (trace) {
      const { tape } = planned.plan();
      keeper.give(tape.encode(true), tape.steps.length);
    } else keeper.give(planned.encoded, 0);
    const failure = (index: number, number: number) => {
      const whole = planned.plan();
      const failed = stepFailure(whole, process, index, number);
      const stamps = keeper.stamps();
      if (trace && stamps) tracePlayer(trace, whole, stamps, { index, why: failed.message });
      return failed;
    };
    const { needsHome } = environmentOf(process.env);
    const uid = process.user?.uid ?? 0;
    if (early) await passEarly(keeper, early, needsHome ? uid : undefined, heard, failure);
    else await standAtGate(keeper, planned, heard, failure, atHooks);
    if (heard.failed) throw heard.failed;
    const { pid, pidfd } = heard;
    const unstarted = heard.ready ? 0 : spawnError(keeper.pid);
    if (unstarted) throw new SystemError("start the keeper", unstarted);
    if (!heard.ready || pidfd < 0) throw new Failure("Unknown", "the process ended while it was set up");
    const terminal = io.terminal ? takeTerminal(pidfd) : undefined;
    if (!early) keeper.made();
    return {
      pid,
      pidfd,
      keeper: keeper.pid,
      keeperPidfd: keeper.pidfd,
      record: `${directory}/record`,
      ...events,
      terminal,
      gate: { write: keeper.gate, report: keeper.report, home: needsHome ? { uid } : undefined, open: early !== undefined },
      failure,
      child: true,
      onStarted: trace
        ? () => {
            const stamps = keeper.stamps();
            if (stamps) tracePlayer(trace, planned.plan(), stamps);
          }
        : undefined,
    };
  });
}

/** Waits until the process stands at its gate or has failed, and answers what it asks on its way. */
async function standAtGate(
  keeper: Player,
  planned: Planned,
  heard: Heard,
  failure: (index: number, errno: number) => Failure,
  atHooks?: (pid: number, pidfd: number) => Promise<void>,
): Promise<void> {
  let hooks = false;
  const asked: Asking[] = [];
  for (;;) {
    await hearReports(keeper.report, (report) => {
      if (report.tag === "pid") {
        heard.pid = report.pid;
        heard.pidfd = binding.syscall(SYS.pidfd_open, report.pid, 0);
      } else if (report.tag === "failed") heard.failed = failure(report.index, report.errno);
      else if (report.tag === "ready") heard.ready = true;
      else if (report.tag === "hooks") hooks = true;
      else if (report.tag === "missing" || report.tag === "notify" || report.tag === "idmap") asked.push(report);
      // What the process tells may come before its parent has told its pid: both must be known.
      return report.tag === "end" || ((heard.failed || heard.ready || hooks || asked.length > 0) && heard.pid > 0);
    });
    if (heard.failed || (!hooks && asked.length === 0)) return;
    for (const each of asked.splice(0)) (await import("./answers.ts")).answer(planned.plan(), heard, each);
    if (hooks) await atHooks?.(heard.pid, heard.pidfd);
    hooks = false;
    keeper.goOn();
  }
}

/** Resolves once one of the descriptors can be read, or the time is over. */
export function readable(fds: number[], milliseconds: number): Promise<void> {
  return new Promise((resolve) => {
    const over = () => {
      clearTimeout(timer);
      for (const each of watches) each.close();
      resolve();
    };
    const timer = setTimeout(over, milliseconds);
    const watches = fds.map((fd) => watch(fd, EPOLLIN, over));
  });
}
