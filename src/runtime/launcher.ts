// What stands in dist/bin/ as `jubako-runtime`: a static program of a few pages that runs ../jubako under this name with Bun's compilers switched off.
// A command of the runtime runs everything once: what they compile is never used, and they take a third of its processor time. They can be
// switched off by the environment only, before the program starts.
import { SYS } from "../linux/index.ts";
import { executableOf } from "./executable.ts";
import { createTape } from "./tape.ts";

const NAME = "jubako-runtime";
const PROGRAM = "../jubako";
const SETTING = "BUN_JSC_useJIT=0";
const MFD_CLOEXEC = 1;
const PATH_MAX = 4096;
/** Room for the environment's pointers. */
const MOST = 64 * 1024;
const EX_NOT_FOUND = 127;

/** Memory is copied through a file in memory, whose offsets count up. */
function launcherTape(): Uint8Array {
  const tape = createTape();
  const stack = tape.word("stack");
  const file = tape.word("file");
  const length = tape.word("length");
  const end = tape.word("end");
  const argc = tape.word("argc");
  const argv = tape.word("argv");
  const envp = tape.word("envp");
  const copied = tape.word("copied");
  const path = tape.room(PATH_MAX + 16, "path");
  const environment = tape.room(8 + MOST, "environment");
  const failed = tape.label();
  const run = tape.label();
  const program = `${PROGRAM}\0`;
  const jump = { to: failed };

  tape.step(SYS.memfd_create, ["launcher", MFD_CLOEXEC], { why: "copy memory through a file", store: file, jump });
  tape.step(SYS.write, [file, PROGRAM, program.length], { jump });
  tape.step(SYS.readlink, ["/proc/self/exe", path, PATH_MAX], { why: `find ${PROGRAM} beside this program`, store: length, jump });
  tape.compute("ADD", path, length, end);
  tape.compute("SUB", end, NAME.length, end);
  tape.step(SYS.pread64, [file, end, program.length, 0], { jump });

  // On the stack lie argc, argv and a NULL, the environment and a NULL.
  tape.step(SYS.write, [file, stack, 8], { why: "find arguments and environment", jump });
  tape.step(SYS.pread64, [file, tape.address(argc), 8, program.length], { jump });
  tape.compute("ADD", stack, 8, argv);
  tape.compute("SHL", argc, 3, envp);
  tape.compute("ADD", envp, 8, envp);
  tape.compute("ADD", argv, envp, envp);
  tape.step(SYS.write, [file, envp, MOST], { why: `put ${SETTING} into the environment`, store: copied, jump });
  // Up to the stack's end that was all there is; otherwise it may have no end.
  tape.when(copied, "EQ", MOST, run);
  tape.step(SYS.pread64, [file, tape.within(environment, 8, "environment[1]"), copied, program.length + 8], { jump });
  tape.compute("ADD", tape.text(SETTING), 0, tape.wordAt(environment, 0, 8, "environment[0]"));
  tape.compute("ADD", environment, 0, envp);
  tape.place(run);
  tape.step(SYS.execve, [path, argv, envp], { why: `run ${PROGRAM}`, jump });
  tape.place(failed);
  const text = `${NAME}: ${PROGRAM} is not there, seen from where this program lies, or can't be run\n`;
  tape.step(SYS.write, [2, text, Buffer.byteLength(text)], { why: "tell why", ignore: "all" });
  tape.step(SYS.exit_group, [EX_NOT_FOUND]);
  return tape.encode(false, stack);
}

export function launcher(): Uint8Array {
  return executableOf(launcherTape());
}
