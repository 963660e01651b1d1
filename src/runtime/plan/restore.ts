// The keeper of a process that CRIU restores. Whoever restores it is a program of ours (commands/restore-kept.ts), the keeper's child; CRIU and the
// process become children of the keeper, too, as if it had made them, and so it hears of the end.
import { errno, SYS } from "../../linux/index.ts";
import { type Arg, REPORT_FD } from "../tape.ts";
import { flags, O, PR } from "./constants.ts";
import type { Plan } from "./create.ts";
import { dieWithParent, planParent, recordSelf, reportPid } from "./keeper.ts";
import { FD, RECORD, REPORT, RESTORED } from "./layout.ts";
import { cloneProcess } from "./namespaces.ts";
import { createPlanner } from "./planner.ts";

export interface RestoreInput {
  /** The restorer, its executable first. */
  command: string[];
  env: string[];
  holds: number;
  holdStdin: boolean;
  terminal: boolean;
}

const P_PIDFD: Arg = { value: 3, name: "P_PIDFD" };
const WEXITED: Arg = { value: 4, name: "WEXITED" };

export function planRestore({ command, env, holds, holdStdin, terminal }: RestoreInput): Plan {
  const p = createPlanner();
  const { tape } = p;
  tape.step(SYS.prctl, [PR.PR_SET_DUMPABLE, 0], { why: "close this process to the container's eyes" });
  recordSelf(p, RECORD.keeper, "record the keeper");
  const restorer = cloneProcess(p, [], true, undefined, "start the restorer");
  const child = tape.label();
  tape.when(restorer.pid, "EQ", 0, child);

  // ---- the keeper
  const gate: Arg = { value: FD.gateRead, name: "gate" };
  const polled = tape.structure([0, 0], "{gate, restorer}");
  const told = tape.label();
  tape.compute("ADD", gate, 0x1n << 32n, tape.wordAt(polled, 0, 8, "pollfd[0]"));
  tape.compute("ADD", restorer.pidfd, 0x1n << 32n, tape.wordAt(polled, 8, 8, "pollfd[1]"));
  tape.step(SYS.ppoll, [polled, 2, 0, 0, 0], { why: "wait for the restored process", retry: errno.EINTR });
  // events and revents in one word: nothing happened to the first, so the restorer ended.
  tape.when(tape.wordAt(polled, 4, 4, "pollfd[0].events"), "NE", 1, told);
  tape.step(SYS.exit_group, [1], { why: "end: nothing was restored" });
  tape.place(told);
  const message = tape.room(RESTORED.size, "{process, criu, terminal}");
  tape.step(SYS.read, [gate, message, RESTORED.size], { retry: errno.EINTR });
  const pid = tape.wordAt(message, RESTORED.process, 8, "process");
  const pidfd = tape.word("pidfd", 4);
  tape.step(SYS.pidfd_open, [pid, 0], { why: "hold the process", store: pidfd });
  if (terminal) {
    const master = tape.word("terminal", 4);
    tape.step(SYS.pidfd_getfd, [restorer.pidfd, tape.wordAt(message, RESTORED.terminal, 8, "terminal"), 0], {
      why: "hold the terminal",
      store: master,
    });
    tape.step(SYS.dup3, [master, FD.terminal, flags(O, "O_CLOEXEC")]);
    p.close(master);
  }
  tape.step(SYS.write, [{ value: FD.placed, name: "placed" }, tape.structure([1], "{1}"), 8], { why: "let the restorer end" });
  tape.step(SYS.waitid, [P_PIDFD, restorer.pidfd, 0, WEXITED, 0], { retry: errno.EINTR });
  p.close(restorer.pidfd);
  tape.step(SYS.wait4, [tape.wordAt(message, RESTORED.criu, 8, "criu"), 0, 0, 0], { why: "reap CRIU", retry: errno.EINTR });
  reportPid(p, { pid, pidfd });
  const ready = tape.bytes(new Uint8Array(Uint32Array.of(REPORT.ready, 0, 0, 0).buffer), "{ready}");
  tape.step(SYS.write, [{ value: REPORT_FD, name: "report" }, ready, REPORT.size], { why: "report: restored" });
  planParent(p, { pid, pidfd }, { keeper: true, holds, holdStdin, holdMounts: true, holdsTerminal: terminal }, undefined);

  // ---- the restorer. It finds the keeper's descriptors at their numbers.
  tape.place(child);
  dieWithParent(p);
  const argv = tape.vector(command, `[${command.map((a) => JSON.stringify(a)).join(", ")}]`);
  const marks = { lookup: new Set<number>(), execve: tape.steps.length };
  tape.step(SYS.execve, [command[0]!, argv, tape.vector(env, `env of ${env.length}`)], { why: `run ${command.join(" ")}` });
  return { tape, marks, missing: p.missing };
}
