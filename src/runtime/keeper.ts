// A process with its keeper, as this side sees them: start, signals, terminal, exit. Everything that must outlive this side (the exit's record,
// the terminal's master, the gate) is held by keeper and process at fixed descriptors, so that another of ours can take over.
import { Failure } from "../lib/errors.ts";
import {
  binding,
  check,
  close,
  EPOLLIN,
  pidfdGetfd,
  pidfdOpen,
  pidfdSignal,
  readBytesSync,
  reap,
  SYS,
  utf8,
  watch,
} from "../linux/index.ts";
import type { ExitRecord, RunningProcess } from "./face.ts";
import { homeOf } from "./home.ts";
import { FD, HOME_ROOM, RECORD } from "./plan/layout.ts";
import { hearReports } from "./reports.ts";

/** Ours: what a keeper's owner holds. Descriptors are owned and closed by release(). */
export interface Kept {
  pid: number;
  /** A signal by number could hit another process: the keeper reaps at once. */
  pidfd: number;
  keeper: number;
  keeperPidfd: number;
  record: string;
  notify: number;
  control: number;
  terminal: number | undefined;
  /** Until started: the gate's write end, the report's read end, and what the gate still needs. */
  gate: { write: number; report: number; home: { uid: number } | undefined; open?: boolean } | undefined;
  /** Turns a failed step into a sentence. */
  failure(index: number, errno: number): Failure;
  /** The keeper is this process' child, and reaped by it. */
  child: boolean;
  /** Called once the program runs. */
  onStarted?: (() => void | Promise<void>) | undefined;
  beforeStart?: () => Promise<void>;
  /** Called once the keeper has ended after its release. */
  onGone?: () => void;
}

/** How the process ended, if it did; undefined while there is no record. */
export function readExit(record: string): ExitRecord | undefined {
  let bytes: DataView;
  try {
    bytes = new DataView(readBytesSync(record).buffer);
  } catch {
    return undefined;
  }
  if (bytes.byteLength < RECORD.size) return undefined;
  const code = bytes.getInt32(RECORD.exit + 8, true);
  if (code === 0) return undefined;
  const status = bytes.getInt32(RECORD.exit + 24, true);
  const at = Number(bytes.getBigInt64(RECORD.time, true)) * 1000 + Math.floor(Number(bytes.getBigInt64(RECORD.time + 8, true)) / 1e6);
  return { status: code === 1 ? status : 128 + status, at };
}

/** What lets a process through its gate. `pid`: one that has its root. */
export function writeGate(gate: number, pid: number, uid: number | undefined): void {
  const home = uid === undefined ? "x" : `HOME=${homeOf(pid, uid)}`;
  const message = utf8(`${home.slice(0, HOME_ROOM - 2)}\0`);
  check(binding.syscall(SYS.write, gate, message, message.length), "write gate");
}

/** Opens the gate of a process that waits there; resolves once its program runs. */
export async function openGate(pid: number, gate: NonNullable<Kept["gate"]>, failure: Kept["failure"]): Promise<void> {
  if (!gate.open) writeGate(gate.write, pid, gate.home?.uid);
  let failed: Failure | undefined;
  await hearReports(gate.report, (report) => {
    if (report.tag === "failed") failed = failure(report.index, report.errno);
    return report.tag === "failed" || report.tag === "end";
  });
  close(gate.write);
  close(gate.report);
  if (failed) throw failed;
}

/** Takes descriptor `fd` of another process of ours. */
export function takeFd(pid: number, fd: number): number {
  const pidfd = pidfdOpen(pid);
  try {
    return pidfdGetfd(pidfd, fd);
  } finally {
    close(pidfd);
  }
}

const one = new Uint8Array(BigUint64Array.of(1n).buffer);

export function runningProcess(kept: Kept, onReleased: () => void): RunningProcess {
  let exit: ExitRecord | undefined;
  let released = false;
  let settle: (exit: ExitRecord) => void = () => {};
  const exited = new Promise<ExitRecord>((resolve) => {
    settle = resolve;
  });
  const watches = [
    watch(kept.notify, EPOLLIN, () => ended()),
    // A keeper that was killed takes its process along; how that ended, nobody saw.
    watch(kept.keeperPidfd, EPOLLIN, () => ended()),
  ];
  function ended(): void {
    if (exit) return;
    for (const w of watches) w.close();
    exit = readExit(kept.record) ?? { status: 137, at: Date.now() };
    settle(exit);
  }

  // Of a process that ended before it was adopted, pidfd is not its own.
  if (!kept.child && readExit(kept.record)) ended();

  return {
    pid: kept.pid,
    keeper: kept.keeper,
    terminal: kept.terminal,
    exited,
    async start() {
      const { gate } = kept;
      if (!gate) throw new Failure("FailedPrecondition", "the process was already started");
      kept.gate = undefined;
      await kept.beforeStart?.();
      await openGate(kept.pid, gate, kept.failure);
      await kept.onStarted?.();
    },
    signal(signal) {
      return !exit && !released && pidfdSignal(kept.pidfd, signal);
    },
    resize(columns, rows) {
      if (kept.terminal === undefined || released) return;
      check(
        binding.syscall(SYS.ioctl, kept.terminal, 0x5414, new Uint8Array(Uint16Array.of(rows, columns, 0, 0).buffer)),
        "resize terminal",
      );
    },
    closeStdin() {
      if (!released) binding.syscall(SYS.write, kept.control, one, 8);
    },
    release() {
      if (released) return;
      released = true;
      for (const w of watches) w.close();
      pidfdSignal(kept.keeperPidfd, 9);
      const pidfd = kept.keeperPidfd;
      const ending = watch(
        pidfd,
        EPOLLIN,
        () => {
          ending.close();
          if (kept.child) reap(pidfd);
          close(pidfd);
          kept.onGone?.();
        },
        { ref: false },
      );
      close(kept.pidfd);
      close(kept.notify);
      close(kept.control);
      if (kept.terminal !== undefined) close(kept.terminal);
      if (kept.gate) {
        close(kept.gate.write);
        close(kept.gate.report);
        kept.gate = undefined;
      }
      if (!exit) {
        exit = readExit(kept.record) ?? { status: 137, at: Date.now() };
        settle(exit);
      }
      onReleased();
    },
  };
}

/** Descriptors that a successor fetches from a keeper. */
export function adoptKeeper(keeper: number): { keeperPidfd: number; notify: number; control: number } {
  const keeperPidfd = pidfdOpen(keeper);
  try {
    return { keeperPidfd, notify: pidfdGetfd(keeperPidfd, FD.notify), control: pidfdGetfd(keeperPidfd, FD.control) };
  } catch (error) {
    close(keeperPidfd);
    throw error;
  }
}
