// What a process and its parent record and report, and how the parent keeps the process.
import { errno, SYS } from "../../linux/index.ts";
import { type Arg, type Block, REPORT_FD, type Word } from "../tape.ts";
import { flags, O, PR } from "./constants.ts";
import type { CreateInput } from "./create.ts";
import { FD, MAX_HOLD, RECORD, REPORT } from "./layout.ts";
import type { Cloned } from "./namespaces.ts";
import { openProcess, type Planner } from "./planner.ts";

const PIDFD_GET_MNT_NAMESPACE = 0xff03;

/** Copies /proc/self/stat (pid on the host, start time) to the record file. */
export function recordSelf(p: Planner, offset: number, why: string): void {
  record(p, "/proc/self/stat", offset, { why });
}

/** The same for its process, by the parent. */
export function recordProcess(p: Planner, pid: Word): void {
  const why = "record the process";
  const directory = openProcess(p, pid, why);
  record(p, "stat", RECORD.process, { why, at: directory });
  p.close(directory);
}

function record(p: Planner, stat: string, offset: number, options: { why: string; at?: Word }): void {
  const { tape } = p;
  const fd = tape.word("stat_fd");
  const text = tape.room(RECORD.stat, "stat_text");
  const length = tape.word("length");
  p.open(stat, 0, fd, options);
  tape.step(SYS.read, [fd, text, RECORD.stat - 1], { store: length });
  tape.step(SYS.pwrite64, [{ value: FD.record, name: "record" }, text, length, offset]);
  p.close(fd);
}

/** Set again after the change of identity, which clears it. */
export function dieWithParent(p: Planner): void {
  p.tape.step(SYS.prctl, [PR.PR_SET_PDEATHSIG, { value: 9, name: "SIGKILL" }], { why: "end with the keeper" });
}

/** Tells the pid on the host, so that whoever waits can end the process whatever happens next. */
export function reportPid(p: Planner, cloned: Cloned): void {
  const { tape } = p;
  const tag = tape.bytes(new Uint8Array(Uint32Array.of(REPORT.pid, 0, 0, 0).buffer), "{pid}");
  tape.compute("ADD", cloned.pid, 0, tape.wordAt(tag, 8, 8, "{pid}"));
  tape.step(SYS.write, [{ value: REPORT_FD, name: "report" }, tag, REPORT.size], { why: "report: process made" });
}

/** The event's counter is filled, so that adding one waits until the keeper, who has the terminal then, takes the counter. */
export function handTerminal(p: Planner, terminalReady: Arg, one: Block): void {
  const full = p.tape.structure([0xfffffffffffffffen], "{2^64-2}");
  p.tape.step(SYS.write, [terminalReady, full, 8], { why: "hand the terminal to the keeper" });
  p.tape.step(SYS.write, [terminalReady, one, 8], { why: "wait for the keeper to have it", retry: errno.EINTR });
}

/** What the parent does once the process runs: leave, or keep it. */
export function planParent(
  p: Planner,
  cloned: Cloned,
  input: Pick<CreateInput, "keeper" | "holds" | "holdStdin"> & { holdMounts: boolean; holdsTerminal?: boolean },
  waitTerminal: Arg | undefined,
): void {
  const { tape } = p;
  if (!input.keeper) {
    tape.step(SYS.exit_group, [0], { why: "leave the process to its caller" });
    return;
  }
  const why = "keep the process";
  const buffer = tape.room(8, "count");
  if (waitTerminal) {
    const polled = tape.structure([0, 0], "{terminal_ready, process}");
    const ready = tape.label();
    tape.compute("ADD", { value: FD.terminalReady, name: "terminal_ready" }, 0x1n << 32n, tape.wordAt(polled, 0, 8, "pollfd[0]"));
    tape.compute("ADD", cloned.pidfd, 0x1n << 32n, tape.wordAt(polled, 8, 8, "pollfd[1]"));
    tape.step(SYS.ppoll, [polled, 2, 0, 0, 0], { why: "wait for the terminal", retry: errno.EINTR });
    // events and revents in one word: nothing happened to the first, so the process ended.
    tape.when(tape.wordAt(polled, 4, 4, "pollfd[0].events"), "EQ", 1, ready);
    const terminal = tape.word("terminal");
    tape.step(SYS.pidfd_getfd, [cloned.pidfd, FD.terminal, 0], { why: "hold the terminal", store: terminal });
    tape.step(SYS.dup3, [terminal, FD.terminal, flags(O, "O_CLOEXEC")]);
    p.close(terminal);
    tape.step(SYS.read, [waitTerminal, buffer, 8], { why: "let the process go on" });
    tape.place(ready);
  }
  // Only what the keeper is for stays open: everything else would be held as long as the container lives.
  const pidfd: Arg = { value: FD.process, name: "process" };
  tape.step(SYS.dup3, [cloned.pidfd, pidfd, flags(O, "O_CLOEXEC")], { why });
  tape.step(SYS.close_range, [0, FD.process - 1, 0]);
  tape.step(SYS.close_range, [FD.process + 1, FD.hold - 1, 0]);
  if (input.holds < MAX_HOLD) tape.step(SYS.close_range, [FD.hold + input.holds, FD.holdEnd - 1, 0]);
  if (!input.holdStdin) tape.step(SYS.close, [FD.holdStdin]);
  if (!waitTerminal && !input.holdsTerminal) tape.step(SYS.close, [FD.terminal]);
  tape.step(SYS.close_range, [FD.record + 1, { value: 0xffffffff, name: "~0" }, 0]);
  p.writeFile("/proc/self/oom_score_adj", "-999", { why: "be the last to be killed for want of memory", ignore: "all" });
  tape.step(SYS.chdir, ["/"], { why });
  // Taking a container's mounts down costs the last process in their namespace milliseconds before its parent hears of its end: let that be
  // the keeper, when it is released. Before Linux 6.11 there is no such call, and the process does it.
  if (input.holdMounts) {
    const request: Arg = { value: PIDFD_GET_MNT_NAMESPACE, name: "PIDFD_GET_MNT_NAMESPACE" };
    tape.step(SYS.ioctl, [pidfd, request, 0], { why: "hold the mounts", ignore: "all" });
  }

  // struct pollfd {int fd; short events, revents}[2]
  const control: Arg = { value: FD.control, name: "control" };
  const fds = new Int32Array([FD.control, 1, FD.process, 1]);
  const polled = tape.bytes(new Uint8Array(fds.buffer), "{control, process}");
  const wait = tape.label();
  const ended = tape.label();
  tape.place(wait);
  tape.step(SYS.ppoll, [polled, 2, 0, 0, 0], { retry: errno.EINTR });
  const IN = 1n << 16n;
  tape.when(tape.wordAt(polled, 12, 4, "process.revents"), "GE", IN, ended);
  tape.step(SYS.read, [control, buffer, 8], { ignore: "all" });
  tape.step(SYS.close, [{ value: FD.holdStdin, name: "stdin" }], { why: "let stdin end", ignore: "all" });
  tape.jump(wait);
  tape.place(ended);
  const info = tape.room(144, "exit");
  tape.step(SYS.waitid, [{ value: 3, name: "P_PIDFD" }, pidfd, info, { value: 4, name: "WEXITED" }, 0], {
    why: "record the exit",
    retry: errno.EINTR,
  });
  tape.step(SYS.clock_gettime, [{ value: 0, name: "CLOCK_REALTIME" }, tape.within(info, 128, "exit.time")]);
  tape.step(SYS.pwrite64, [{ value: FD.record, name: "record" }, info, 144, RECORD.exit]);
  const one = tape.structure([1], "{1}");
  tape.step(SYS.write, [{ value: FD.notify, name: "notify" }, one, 8], { why: "tell of the exit" });
  const idle = tape.label();
  tape.place(idle);
  tape.step(SYS.ppoll, [0, 0, 0, 0, 0], { why: "hold descriptors until released", ignore: "all" });
  tape.jump(idle);
}
