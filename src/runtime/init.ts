// The init of `docker run --init`, as a tape: starts the program as a child in a process group and, where there is a terminal, in the
// foreground; passes signals on to it; reaps what the container leaves behind; ends as the child ended (128 + signal). The player and its
// tape become one static executable, so that any runtime can run it.
import { errno, SYS, utf8 } from "../linux/index.ts";
import { executableOf } from "./executable.ts";
import { createTape } from "./tape.ts";

const SIG_SETMASK = 2;
const SIGCHLD = 17;
const WNOHANG = 1;
const TIOCSPGRP = 0x5410;
const EX_NOT_EXECUTABLE = 126;
const EX_NOT_FOUND = 127;
/** SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGSEGV SIGSYS are about init itself and stay as they are. */
const OWN_SIGNALS = [4, 5, 6, 7, 8, 11, 31];

const sentences: [number, string, number][] = [
  [errno.ENOENT, "No such file or directory", EX_NOT_FOUND],
  [errno.ENOTDIR, "Not a directory", EX_NOT_FOUND],
  [errno.EACCES, "Permission denied", EX_NOT_EXECUTABLE],
  [errno.ENOEXEC, "Exec format error", EX_NOT_EXECUTABLE],
  [0, "Invalid argument", 1],
];

/** What the init is called with: its own name, "--", then these. The PATH is looked along for a name without a slash. */
export interface InitProgram {
  args: string[];
  path: string;
}

function candidates({ args, path }: InitProgram): string[] {
  const name = args[0] ?? "";
  if (name.includes("/") || name === "") return [name];
  return path.split(":").map((directory) => `${directory || "."}/${name}`);
}

function initTape(program: InitProgram): Uint8Array {
  const tape = createTape();
  const stack = tape.word("stack");
  const child = tape.word("child");
  const signal = tape.word("signal");
  const reaped = tape.word("reaped");
  const code = tape.word("code");
  const part = tape.word("part");
  const over = tape.word("over", 4);
  const status = tape.wordAt(tape.room(8, "status"), 0, 4, "status");
  const every = OWN_SIGNALS.reduce((set, n) => set & ~(1n << BigInt(n - 1)), 0xffffffffffffffffn);
  const mask = tape.structure([every], "{~[ILL TRAP ABRT BUS FPE SEGV SYS]}");
  const none = tape.structure([0], "{}");

  // A blocked signal reaches even a pid namespace's init, and waits until it is asked for.
  tape.step(SYS.rt_sigprocmask, [SIG_SETMASK, mask, 0, 8], { why: "block signals" });
  tape.step(SYS.clone, [SIGCHLD, 0, 0, 0, 0], { why: "make the child", store: child });
  const inChild = tape.label();
  tape.when(child, "EQ", 0, inChild);

  const wait = tape.label();
  const reap = tape.label();
  const killed = tape.label();
  const end = tape.label();
  tape.place(wait);
  tape.step(SYS.rt_sigtimedwait, [mask, 0, 0, 8], { why: "wait for a signal", retry: errno.EINTR, store: signal });
  tape.when(signal, "EQ", SIGCHLD, reap);
  tape.step(SYS.kill, [child, signal], { why: "pass the signal on", ignore: "all" });
  tape.jump(wait);
  tape.place(reap);
  tape.step(SYS.wait4, [-1, tape.address(status), WNOHANG, 0], { why: "reap", ignore: "all", store: reaped });
  tape.when(reaped, "LT", 1, end);
  tape.when(reaped, "NE", child, reap);
  tape.compute("ADD", 1, 0, over);
  tape.compute("AND", status, 0x7f, part);
  tape.when(part, "NE", 0, killed);
  tape.compute("SHR", status, 8, code);
  tape.compute("AND", code, 0xff, code);
  tape.jump(reap);
  tape.place(killed);
  tape.compute("ADD", part, 128, code);
  tape.jump(reap);
  tape.place(end);
  tape.when(over, "EQ", 0, wait);
  tape.step(SYS.exit_group, [code], { why: "end as the child ended" });

  tape.place(inChild);
  const self = tape.wordAt(tape.room(8, "self"), 0, 4, "self");
  tape.step(SYS.setpgid, [0, 0], { why: "lead a process group", ignore: "all" });
  tape.step(SYS.getpid, [], { store: self });
  // Without a terminal at 0 there is no foreground. SIGTTOU is blocked.
  tape.step(SYS.ioctl, [0, TIOCSPGRP, tape.address(self)], { why: "come to the foreground", ignore: "all" });
  tape.step(SYS.rt_sigprocmask, [SIG_SETMASK, none, 0, 8], { why: "let signals through" });
  // On the stack lie argc, argv and a NULL, the environment.
  const argv = tape.word("argv");
  const envp = tape.word("envp");
  const called = program.args.length + 2;
  tape.compute("ADD", stack, 8 + 2 * 8, argv);
  tape.compute("ADD", stack, 8 + 8 * (called + 1), envp);
  const result = tape.word("result");
  const denied = tape.word("denied");
  const refused = tape.label();
  for (const path of candidates(program)) {
    const following = tape.label();
    tape.step(SYS.execve, [path, argv, envp], { why: `run ${path}`, ignore: "all", store: result });
    tape.when(result, "EQ", -errno.ENOENT, following);
    tape.when(result, "EQ", -errno.ENOTDIR, following);
    tape.when(result, "NE", -errno.EACCES, refused);
    tape.compute("ADD", result, 0, denied);
    tape.place(following);
  }
  // As execvp(3): that one candidate may not be run is told only where no other can be.
  tape.when(denied, "EQ", 0, refused);
  tape.compute("ADD", denied, 0, result);
  tape.place(refused);
  for (const [number, sentence, status] of sentences) {
    const other = tape.label();
    if (number) tape.when(result, "NE", -number, other);
    const text = `[FATAL docker-init] exec ${program.args[0]} failed: ${sentence}\n`;
    tape.step(SYS.write, [2, text, utf8(text).length], { why: "tell why", ignore: "all" });
    tape.step(SYS.exit_group, [status]);
    tape.place(other);
  }
  return tape.encode(false, stack);
}

export function initExecutable(program: InitProgram): Uint8Array {
  return executableOf(initTape(program));
}
