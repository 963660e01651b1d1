// Staying with a process that has no terminal until it ends, as a tape: the player takes this program's place (execve keeps the pid, and the
// children), passes signals on, reaps the process, removes the container where it is to be forgotten, and ends as the process ended. Bun is
// taken down while the container runs, and what waits holds a tenth of a megabyte.
import { programCommand } from "../../lib/program.ts";
import { binding, check, close, errno, SYS, stringVector, write } from "../../linux/index.ts";
import type { CgroupLocation } from "../cgroups/index.ts";
import { planRemoval } from "../plan/removal.ts";
import { playerExecutable } from "../player.ts";
import { createTape, TAPE_FD, TIMING_FD } from "../tape.ts";

/** The process, in the player. */
const PROCESS_FD = TIMING_FD + 1;
const NAME = "jubako-runtime";
/** The set of SIGHUP SIGINT SIGQUIT SIGUSR1 SIGUSR2 SIGTERM SIGCONT. */
const FORWARDED = 0x24a07;
/** Behind the descriptor in struct pollfd. */
const POLLIN = 0x100000000;
const SIGCHLD = 17;
const SIG_BLOCK = 0;
const SIG_SETMASK = 2;
const P_PIDFD = 3;
const WEXITED = 4;
const CLD_EXITED = 1;
const O_CLOEXEC = 0o2000000;
const PR_SET_NAME = 15;
const EX_NOT_FOUND = 127;

/** What is to be forgotten at the end. */
export interface Forgotten {
  root: string;
  id: string;
  cgroup: CgroupLocation;
}

export interface Stay {
  /** From now on signals wait for the player, who passes them on: to be called before the process runs, which nobody would end otherwise. */
  hold(): void;
  /** Comes back only where the player can't run. */
  begin(pidfd: number): void;
}

/** Gets everything ready, which takes a while that is better spent before the process runs. */
export function prepareStay(forgotten: Forgotten | undefined): Stay {
  const tape = stayTape(forgotten);
  const memory = check(binding.syscall(SYS.memfd_create, "tape", 1), "memfd_create");
  write(memory, tape);
  const argv = stringVector([NAME]);
  const environment: string[] = [];
  for (const name of ["PATH", "HOME", "TMPDIR", "BUN_TMPDIR"]) if (process.env[name]) environment.push(`${name}=${process.env[name]}`);
  const env = stringVector(environment);
  const executable = playerExecutable();
  const old = new Int32Array(2);
  return {
    hold() {
      binding.syscall(SYS.rt_sigprocmask, SIG_BLOCK, new Int32Array([FORWARDED, 0]), old, 8);
    },
    begin(pidfd) {
      check(binding.syscall(SYS.dup3, memory, TAPE_FD, 0), "dup3");
      check(binding.syscall(SYS.dup3, pidfd, PROCESS_FD, 0), "dup3");
      const AT_EMPTY_PATH = 0x1000;
      binding.syscall(SYS.execveat, executable, "", binding.address(argv.pointers), binding.address(env.pointers), AT_EMPTY_PATH);
      binding.syscall(SYS.rt_sigprocmask, SIG_SETMASK, old, null, 8);
      for (const fd of [memory, TAPE_FD, PROCESS_FD]) close(fd);
      void [argv.keep, env.keep];
    },
  };
}

function stayTape(forgotten: Forgotten | undefined): Uint8Array {
  const tape = createTape();
  const stack = tape.word("stack");
  const signals = tape.word("signals");
  const status = tape.word("status");
  const mask = tape.structure([FORWARDED], "{forwarded}");
  const polled = tape.structure([PROCESS_FD + POLLIN, 0], "{process, signals}");
  const wait = tape.label();
  const ended = tape.label();
  const info = tape.room(128, "siginfo");
  tape.step(SYS.prctl, [PR_SET_NAME, NAME], { why: "be found by its name", ignore: "all" });
  tape.step(SYS.signalfd4, [-1, mask, 8, O_CLOEXEC], { why: "hear of signals", store: signals });
  tape.compute("ADD", signals, POLLIN, tape.wordAt(polled, 8, 8, "pollfd[1]"));
  tape.place(wait);
  tape.step(SYS.ppoll, [polled, 2, 0, 0, 0], { why: "wait for the process' end, or a signal", retry: errno.EINTR });
  tape.when(tape.wordAt(polled, 4, 4, "process.revents"), "GE", 0x10000, ended);
  tape.step(SYS.read, [signals, info, 128], { retry: errno.EINTR });
  tape.step(SYS.pidfd_send_signal, [PROCESS_FD, tape.wordAt(info, 0, 4, "ssi_signo"), 0, 0], { why: "pass the signal on", ignore: "all" });
  tape.jump(wait);
  tape.place(ended);
  tape.step(SYS.waitid, [P_PIDFD, PROCESS_FD, info, WEXITED, 0], { why: "reap the process", retry: errno.EINTR, ignore: "all" });
  const exited = tape.label();
  tape.compute("ADD", tape.wordAt(info, 24, 4, "si_status"), 0, status);
  tape.when(tape.wordAt(info, 8, 4, "si_code"), "EQ", CLD_EXITED, exited);
  tape.compute("ADD", status, 128, status);
  tape.place(exited);
  const left = tape.label();
  if (forgotten) {
    const { root, id, cgroup } = forgotten;
    planRemoval(tape, cgroup, left);
    for (const file of ["config.json", "state.json"])
      tape.step(SYS.unlink, [`${root}/${id}/${file}`], { why: "forget the container", ignore: "all" });
    tape.step(SYS.rmdir, [`${root}/${id}`], { jump: { to: left } });
  }
  tape.step(SYS.exit_group, [status], { why: "end as the process ended" });
  if (!forgotten) return tape.encode(false, stack);

  // Processes that are left in its cgroups, or files: that is the program's to see to.
  tape.place(left);
  const child = tape.word("child");
  const parent = tape.label();
  const envp = tape.word("envp");
  const command = [...programCommand(NAME), "--root", forgotten.root, "delete", "--force", forgotten.id];
  tape.step(SYS.clone, [SIGCHLD, 0, 0, 0, 0], { why: "remove what is left", store: child });
  tape.when(child, "NE", 0, parent);
  tape.step(SYS.rt_sigprocmask, [SIG_SETMASK, tape.structure([0], "{}"), 0, 8]);
  // argc, one argument and a NULL; then the environment.
  tape.compute("ADD", stack, 3 * 8, envp);
  tape.step(SYS.execve, [command[0]!, tape.vector(command, "argv"), envp], { ignore: "all" });
  tape.step(SYS.exit_group, [EX_NOT_FOUND]);
  tape.place(parent);
  tape.step(SYS.wait4, [child, 0, 0, 0], { retry: errno.EINTR, ignore: "all" });
  tape.step(SYS.exit_group, [status]);
  return tape.encode(false, stack);
}
