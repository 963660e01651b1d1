// One process of a task: the init process or an exec. Its phases:
//
//   added (exec only: known, not made) → created (waits at the gate) → starting → running → stopped
//
// `exited` settles once, when the exit may be told: the output is in the reader's hands (terminal) or in the kernel (FIFO), and the start was told.
import { failedPrecondition, notFound } from "../lib/errors.ts";
import type { Process as SpecProcess } from "../oci/runtime-spec.ts";
import type { ExitRecord, RunningProcess } from "../runtime/face.ts";
import type { InputEnd } from "./input-end.ts";
import type { Prepared } from "./prepare.ts";
import type { OpenStdio, Stdio } from "./stdio.ts";
import type { TerminalCopy } from "./terminal.ts";

export type Phase = "added" | "created" | "starting" | "running" | "stopped";

export interface TaskProcess {
  /** "" for the init process. */
  readonly execId: string;
  readonly stdio: Stdio;
  /** What an exec runs. */
  readonly spec: SpecProcess | undefined;
  phase: Phase;
  running: RunningProcess | undefined;
  /** An exec that is added may wait at its gate already. */
  prepared: Prepared | undefined;
  /** Its streams, until it runs: whoever reads them must not take the end of what was made in advance for the end of the output. */
  opened: OpenStdio | undefined;
  copy: TerminalCopy | undefined;
  inputEnd: InputEnd | undefined;
  /** Settles when a start under way has been told or has failed. */
  gate: Promise<void>;
  exit: ExitRecord | undefined;
  readonly exited: Promise<ExitRecord>;
  /** Settles `exited`. */
  end(record: ExitRecord): void;
}

export function taskProcess(execId: string, stdio: Stdio, spec: SpecProcess | undefined, phase: Phase): TaskProcess {
  let settle: (record: ExitRecord) => void = () => {};
  const exited = new Promise<ExitRecord>((resolve) => {
    settle = resolve;
  });
  const process: TaskProcess = {
    execId,
    stdio,
    spec,
    phase,
    running: undefined,
    prepared: undefined,
    opened: undefined,
    copy: undefined,
    inputEnd: undefined,
    gate: Promise.resolve(),
    exit: undefined,
    exited,
    end(record) {
      process.phase = "stopped";
      process.exit ??= record;
      settle(process.exit);
    },
  };
  return process;
}

/** Joins a process that the runtime made with the descriptors that it was made with. */
export async function attach(process: TaskProcess, running: RunningProcess, opened: OpenStdio): Promise<void> {
  process.running = running;
  process.inputEnd = opened.inputEnd;
  opened.inputEnd?.onEnd(() => running.closeStdin());
  if (running.terminal !== undefined) {
    const { copyTerminal } = await import("./terminal.ts");
    process.copy = copyTerminal(running.terminal, opened.input, opened.output);
  }
}

export function pidOf(process: TaskProcess): number {
  return process.running?.pid ?? 0;
}

/** The process made; an exec that is only known is none yet. */
export function madeProcess(process: TaskProcess): RunningProcess {
  if (!process.running) throw failedPrecondition("process not created: failed precondition");
  return process.running;
}

export function signalProcess(process: TaskProcess, signal: number): void {
  if (process.phase === "stopped") throw notFound("process already finished: not found");
  if (!madeProcess(process).signal(signal)) throw notFound("process already finished: not found");
}

export function closeStdio(process: TaskProcess): void {
  process.opened?.abandon();
  process.opened?.close();
  process.opened = undefined;
}

/** Lets go of all that the shim and the keeper hold for it. */
export function release(process: TaskProcess): void {
  closeStdio(process);
  process.copy?.close();
  process.copy = undefined;
  process.inputEnd?.close();
  process.running?.release();
}
