// A gate that opens without this side having heard that its process stands there: what the process reported is heard once its program runs. For
// processes whose root is there already and which have nothing to ask on their way.
import { Failure } from "../lib/errors.ts";
import { binding, pidfdSignal, SYS, SystemError } from "../linux/index.ts";
import { writeGate } from "./keeper.ts";
import { FD } from "./plan/layout.ts";
import type { Player } from "./player.ts";
import { hearAtEnd } from "./reports.ts";

export interface EarlyGate {
  /** A process whose root is the one of the process at the gate. */
  rooted: number;
  /** When; at once, where it is not given. False: never, the process is to go. */
  opens?: Promise<boolean> | undefined;
}

export interface Heard {
  pid: number;
  /** -1: none. */
  pidfd: number;
  ready: boolean;
  failed: Failure | undefined;
}

/** Hears of the process until it runs or is gone, `heard` being filled as it is; throws Cancelled where it went before its gate opened. */
export async function passEarly(
  player: Player,
  gate: EarlyGate,
  uid: number | undefined,
  heard: Heard,
  failure: (index: number, errno: number) => Failure,
): Promise<void> {
  let state = "waiting" as "waiting" | "opened" | "unwanted" | "over";
  const listening = hearAtEnd(player.report, (report) => {
    if (report.tag === "pid") {
      heard.pid = report.pid;
      heard.pidfd = openKept(player.pidfd, report.pid);
      if (state === "unwanted") pidfdSignal(heard.pidfd, 9);
    } else if (report.tag === "failed") heard.failed = failure(report.index, report.errno);
    else if (report.tag === "ready") heard.ready = true;
  });
  const decide = (wanted: boolean) => {
    if (state === "over") return;
    state = wanted ? "opened" : "unwanted";
    if (wanted) open(player.gate, gate.rooted, uid);
    else listening.now();
  };
  // It waits at its gate, if anywhere: the next of ours will find it there.
  player.made();
  if (gate.opens) void gate.opens.then(decide);
  else decide(true);
  await listening.over;
  const passed = state === "opened";
  state = "over";
  if (!passed) throw new Failure("Cancelled", "the process ended at its gate");
}

function open(gate: number, rooted: number, uid: number | undefined): void {
  try {
    writeGate(gate, rooted, uid);
  } catch (error) {
    // A process that failed is gone already, and its report says why.
    if (!(error instanceof SystemError && error.code === "EPIPE")) throw error;
  }
}

/** A process that its keeper may have reaped already. It has a descriptor of it before it does, which is the same process whatever its number is now. */
function openKept(keeper: number, pid: number): number {
  const held = () => binding.syscall(SYS.pidfd_getfd, keeper, FD.process, 0);
  let pidfd = held();
  if (pidfd < 0) pidfd = binding.syscall(SYS.pidfd_open, pid, 0);
  return pidfd < 0 ? held() : pidfd;
}
