// Starts the player on a tape and hears what it reports.
import { binding, check, close, O_CLOEXEC, O_NONBLOCK, pipe, SYS, SystemError, sealedMemfd, spawn, write } from "../linux/index.ts";
import { FD } from "./plan/layout.ts";
import { playerBytes } from "./player-file.ts";
import type { Report } from "./reports.ts";
import { REPORT_FD, TAPE_FD, TIMING_FD } from "./tape.ts";

let player: number | undefined;

/** The player's executable as a sealed memfd: it cannot be changed by a container that gets hold of /proc/PID/exe. */
export function playerExecutable(): number {
  player ??= sealedMemfd("player", playerBytes());
  return player;
}

export interface PlayerFds {
  /** Descriptors 0, 1 and 2; -1: /dev/null. */
  stdio: [number, number, number];
  /** 3 and up. */
  preserved: number[];
  hold: number[];
  holdStdin: number;
  record: number;
  notify: number;
  control: number;
  target: number;
}

export interface Failed {
  index: number;
  errno: number;
}

/** A player that runs. The descriptors here are this side's and are closed by close(). */
export interface Player {
  /** Brings the tape that one which was started without waits for; `timedSteps` as startPlayer has it. */
  give(tape: Uint8Array, timedSteps: number): void;
  pid: number;
  pidfd: number;
  /** Read end of the report pipe, non-blocking. */
  report: number;
  gate: number;
  /** Lets the process go on that waits for its maker (planner.ts, waitForMaker). */
  goOn(): void;
  /** The same for the last time: from now on the process lives without this side. */
  made(): void;
  /** Stamps of the instructions (timing.ts), once; undefined where they were not asked for, or were taken already. */
  stamps(): Uint8Array | undefined;
  close(): void;
}

let devNull: number | undefined;
function nullDevice(): number {
  devNull ??= check(binding.syscall(SYS.openat, -100, "/dev/null", 2 | O_CLOEXEC, 0), "open /dev/null");
  return devNull;
}

/** eventfd2(2), close-on-exec. */
export function eventfd(): number {
  return check(binding.syscall(SYS.eventfd2, 0, O_CLOEXEC), "eventfd2");
}

/** Where a tape that waits for another (waiting-tape.ts) finds it. */
export const NEXT_FD = TIMING_FD + 1;

/** `tape`: a descriptor of one that waits for what give() brings. */
export function startPlayer(name: string, tape: Uint8Array | number, fds: PlayerFds, timedSteps: number): Player {
  const opened: number[] = [];
  const keep = (fd: number) => {
    opened.push(fd);
    return fd;
  };
  try {
    const memory = check(binding.syscall(SYS.memfd_create, "tape", 1), "memfd_create");
    const fill = (content: Uint8Array) => {
      if (write(memory, content) !== content.length) throw new SystemError("write tape", 28);
    };
    let given = typeof tape !== "number";
    if (typeof tape !== "number") {
      keep(memory);
      fill(tape);
    }
    let timing = timedSteps > 0 ? check(binding.syscall(SYS.memfd_create, "timing", 1), "memfd_create") : undefined;
    if (timing !== undefined) check(binding.syscall(SYS.ftruncate, timing, timedSteps * 16), "ftruncate");
    const report = pipe(O_NONBLOCK);
    const gate = pipe();
    const maker = pipe();
    keep(report.write);
    keep(gate.read);
    keep(maker.read);
    // The player's end blocks: a record must not be lost.
    check(binding.syscall(SYS.fcntl, report.write, 4, 0), "fcntl F_SETFL");
    const placed = keep(eventfd());
    const terminalReady = keep(eventfd());
    const map = new Array<number>(NEXT_FD + 1).fill(-1);
    for (let i = 0; i < 3; i++) map[i] = fds.stdio[i]! < 0 ? nullDevice() : fds.stdio[i]!;
    for (let i = 0; i < fds.preserved.length; i++) map[3 + i] = fds.preserved[i]!;
    // Every number from here on is taken, so that what the tape opens never lands on one that means something.
    for (let fd = FD.hold; fd < TAPE_FD; fd++) map[fd] = placed;
    for (let i = 0; i < fds.hold.length; i++) map[FD.hold + i] = fds.hold[i]!;
    if (fds.holdStdin >= 0) map[FD.holdStdin] = fds.holdStdin;
    if (fds.notify >= 0) map[FD.notify] = fds.notify;
    if (fds.control >= 0) map[FD.control] = fds.control;
    if (fds.record >= 0) map[FD.record] = fds.record;
    if (fds.target >= 0) map[FD.target] = fds.target;
    // A process that is gone has told so, or will be found gone.
    const goOn = () => void binding.syscall(SYS.write, maker.write, new Uint8Array(1), 1);
    let stamped = timedSteps;
    let holding = true;
    const letGo = () => {
      if (holding) close(maker.write);
      holding = false;
    };
    map[FD.reportRead] = report.read;
    map[FD.gateRead] = gate.read;
    map[FD.gateWrite] = gate.write;
    map[FD.maker] = maker.read;
    map[FD.placed] = placed;
    map[FD.terminalReady] = terminalReady;
    map[TAPE_FD] = typeof tape === "number" ? tape : memory;
    if (!given) map[NEXT_FD] = memory;
    map[REPORT_FD] = report.write;
    map[TIMING_FD] = timing ?? -1;
    try {
      const { pid, pidfd } = spawn({ exe: playerExecutable(), argv: [name], fds: map, setsid: true, ahead: !given });
      return {
        pid,
        pidfd,
        report: report.read,
        gate: gate.write,
        give(content, steps) {
          fill(content);
          if (timing !== undefined) check(binding.syscall(SYS.ftruncate, timing, steps * 16), "ftruncate");
          stamped = steps;
          close(memory);
          given = true;
          goOn();
        },
        goOn,
        made() {
          goOn();
          letGo();
        },
        stamps() {
          if (timing === undefined) return undefined;
          const bytes = new Uint8Array(stamped * 16);
          binding.syscall(SYS.pread64, timing, bytes, bytes.length, 0);
          close(timing);
          timing = undefined;
          return bytes;
        },
        close() {
          if (!given) close(memory);
          letGo();
          close(report.read);
          close(gate.write);
          close(pidfd);
          if (timing !== undefined) close(timing);
          timing = undefined;
        },
      };
    } catch (error) {
      if (!given) close(memory);
      letGo();
      close(report.read);
      close(gate.write);
      if (timing !== undefined) close(timing);
      throw error;
    }
  } finally {
    for (const fd of opened) close(fd);
  }
}

/** What a process waits for an answer to. */
export type Asking = Extract<Report, { tag: "missing" | "notify" | "idmap" }>;
