// What stands in dist/bin/ as `jubako-runtime`, and as `jubako`: a static program of a few pages that runs ../jubako under this name with Bun's compilers switched off.
// Before the lean host (lean/) it leaves the runtime's commands to that, which runs ../jubako where it lacks something.
// A command of the runtime runs everything once: what they compile is never used, and they take a third of its processor time. They can be
// switched off by the environment only, before the program starts.
//
// `start` and `delete` of a container that has a tape for them (life-tape.ts) are played by the launcher itself: `--root` is given, and nothing else
// but what says where errors are logged.
import { SYS } from "../linux/index.ts";
import { executableOf } from "./executable.ts";
import { RUNTIME_SETTINGS } from "./launcher-settings.ts";
import { LIFE_FILE } from "./life-file.ts";
import { CALL, COMMAND, LIFE_FD } from "./life-tape.ts";
import { type Block, createTape, type Label, TAPE_MAGIC, TAPE_VERSION, type Tape, type Word } from "./tape.ts";

const PROGRAM = "../jubako";

interface Kind {
  name: string;
  settings: readonly string[];
  /** Whether it plays containers' tapes. */
  life: boolean;
}
const RUNTIME: Kind = { name: "jubako-runtime", settings: RUNTIME_SETTINGS, life: true };
/**
 * The command line's commands are as short, but some of them do much (a build of many files): what runs fifteen thousand times is compiled. A build that has nothing to do
 * takes 19 ms of processor time so instead of 28, other commands 2 ms less.
 */
const COMMAND_LINE: Kind = {
  name: "jubako",
  settings: ["BUN_JSC_thresholdForJITAfterWarmUp=15000", "BUN_JSC_thresholdForJITSoon=3000"],
  life: false,
};
const MFD_CLOEXEC = 1;
const PATH_MAX = 4096;
/** Room for the environment's pointers. */
const MOST = 64 * 1024;
const EX_NOT_FOUND = 127;

/** Memory is copied through a file in memory, whose offsets count up. */
function launcherTape({ name, settings, life }: Kind, leaves: boolean): Uint8Array {
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
  const added = 8 * settings.length;
  const environment = tape.room(added + MOST, "environment");
  const failed = tape.label();
  const run = tape.label();
  const program = `${PROGRAM}\0`;
  const jump = { to: failed };

  tape.step(SYS.memfd_create, ["launcher", MFD_CLOEXEC], { why: "copy memory through a file", store: file, jump });
  tape.step(SYS.write, [file, PROGRAM, program.length], { jump });
  tape.step(SYS.readlink, ["/proc/self/exe", path, PATH_MAX], { why: `find ${PROGRAM} beside this program`, store: length, jump });
  tape.compute("ADD", path, length, end);
  tape.compute("SUB", end, name.length, end);
  tape.step(SYS.pread64, [file, end, program.length, 0], { jump });

  // On the stack lie argc, argv and a NULL, the environment and a NULL.
  tape.step(SYS.write, [file, stack, 8], { why: "find arguments and environment", jump });
  tape.step(SYS.pread64, [file, tape.address(argc), 8, program.length], { jump });
  tape.compute("ADD", stack, 8, argv);
  tape.compute("SHL", argc, 3, envp);
  tape.compute("ADD", envp, 8, envp);
  tape.compute("ADD", argv, envp, envp);
  tape.step(SYS.write, [file, envp, MOST], { why: `put ${settings.join(" ")} into the environment`, store: copied, jump });
  // Up to the stack's end that was all there is; otherwise it may have no end.
  tape.when(copied, "EQ", MOST, run);
  tape.step(SYS.pread64, [file, tape.within(environment, added, `environment[${settings.length}]`), copied, program.length + 8], { jump });
  for (const [i, setting] of settings.entries())
    tape.compute("ADD", tape.text(setting), 0, tape.wordAt(environment, 8 * i, 8, `environment[${i}]`));
  tape.compute("ADD", environment, 0, envp);
  tape.place(run);
  const whole = tape.label();
  if (life) playLife(tape, { file, path, argv, envp, leaves }, whole);
  tape.place(whole);
  if (leaves) {
    tape.step(SYS.close, [file], { why: "leave it to the lean host", ignore: "all" });
    tape.place(failed);
    return tape.encode(false, stack);
  }
  tape.step(SYS.execve, [path, argv, envp], { why: `run ${PROGRAM}`, jump });
  tape.place(failed);
  const text = `${name}: ${PROGRAM} is not there, seen from where this program lies, or can't be run\n`;
  tape.step(SYS.write, [2, text, Buffer.byteLength(text)], { why: "tell why", ignore: "all" });
  tape.step(SYS.exit_group, [EX_NOT_FOUND]);
  return tape.encode(false, stack);
}

export const launcher = (): Uint8Array => executableOf(launcherTape(COMMAND_LINE, false));

/** `lean`: the lean host's executable, where there is one. */
export const runtimeLauncher = (lean?: Uint8Array): Uint8Array => executableOf(launcherTape(RUNTIME, lean !== undefined), lean);

/** Where in the file words and bytes of the command line are copied through. */
const SCRATCH = MOST + 2 * PATH_MAX;
const TEXT = 24;
const O_PATH_DIRECTORY = 0o10000000 | 0o200000 | 0o2000000;
const O_DIRECTORY_CLOEXEC = 0o200000 | 0o2000000;
const O_FILE = 0o400000 | 0o2000000;
const RESOLVE_BENEATH_NO_SYMLINKS = 0x08 | 0x04;
const AT_EMPTY_PATH = 0x1000;
const OTHERS_MAY_WRITE = 0o022;

interface Program {
  /** A file in memory. */
  file: Word;
  path: Block;
  argv: Word;
  envp: Word;
  /** It begins where a tape ends. */
  leaves: boolean;
}

/** Plays the container's own tape where the command line is one for it; goes to `program` where anything is not as expected. */
function playLife(tape: Tape, { file, path, argv, envp, leaves }: Program, program: Label): void {
  const jump = { to: program };
  const cursor = tape.word("cursor");
  const arg = tape.word("arg");
  const root = tape.word("root");
  const command = tape.word("command");
  const copied = tape.word("count");
  const text = tape.room(TEXT, "text");
  const part = tape.word("part");

  /** The next word of the command line; its end leads to `end`. */
  const advance = (end: Label, why?: string) => {
    tape.compute("ADD", cursor, 8, cursor);
    tape.step(SYS.pwrite64, [file, cursor, 8, SCRATCH], { why, jump });
    tape.step(SYS.pread64, [file, tape.address(arg), 8, SCRATCH], { jump });
    tape.when(arg, "EQ", 0, end);
  };
  const look = () => {
    tape.step(SYS.pwrite64, [file, arg, TEXT, SCRATCH], { store: copied, jump });
    tape.when(copied, "NE", TEXT, program);
    tape.step(SYS.pread64, [file, text, TEXT, SCRATCH], { jump });
  };
  /** Goes to `to` where the text is that word. */
  const whenText = (word: string, to: Label) => {
    const bytes = Buffer.alloc(TEXT);
    const length = bytes.write(`${word}\0`);
    const other = tape.label();
    for (let at = 0; at < length; at += 8) {
      const here = tape.wordAt(text, at, 8, `text[${at}]`);
      const last = at + 8 >= length;
      const mask = length - at >= 8 ? 0xffffffffffffffffn : (1n << BigInt(8 * (length - at))) - 1n;
      tape.compute("AND", here, mask, part);
      tape.when(part, last ? "EQ" : "NE", bytes.readBigUInt64LE(at), last ? to : other);
    }
    tape.place(other);
  };

  const next = tape.label();
  const rooted = tape.label();
  const skipped = tape.label();
  const start = tape.label();
  const remove = tape.label();
  const named = tape.label();
  tape.compute("ADD", argv, 0, cursor);
  tape.place(next);
  advance(program, "see whether it is a command that a container has a tape for");
  look();
  whenText("--root", rooted);
  whenText("start", start);
  whenText("delete", remove);
  for (const flag of ["--log", "--log-format"]) whenText(flag, skipped);
  whenText("--systemd-cgroup", next);
  tape.jump(program);
  tape.place(rooted);
  advance(program);
  tape.compute("ADD", arg, 0, root);
  tape.jump(next);
  tape.place(skipped);
  advance(program);
  tape.jump(next);

  tape.place(start);
  tape.compute("ADD", COMMAND.start, 0, command);
  advance(program);
  look();
  tape.jump(named);
  tape.place(remove);
  tape.compute("ADD", COMMAND.delete, 0, command);
  const forced = tape.label();
  advance(program);
  look();
  for (const flag of ["--force", "-f"]) whenText(flag, forced);
  tape.jump(named);
  tape.place(forced);
  tape.compute("ADD", COMMAND.deleteForced, 0, command);
  advance(program);
  look();
  tape.place(named);
  tape.when(root, "EQ", 0, program);
  // A flag, or a flag's neighbour, is the program's to understand.
  tape.compute("AND", tape.wordAt(text, 0, 8, "text[0]"), 0xff, part);
  tape.when(part, "EQ", { value: 0x2d, name: "'-'" }, program);
  const id = tape.word("id");
  tape.compute("ADD", arg, 0, id);
  const alone = tape.label();
  advance(alone);
  tape.jump(program);
  tape.place(alone);

  const fd = tape.word("fd");
  const directory = tape.word("directory");
  const how = tape.structure(
    [O_DIRECTORY_CLOEXEC, 0, RESOLVE_BENEATH_NO_SYMLINKS],
    "{O_DIRECTORY|O_CLOEXEC, RESOLVE_BENEATH|RESOLVE_NO_SYMLINKS}",
  );
  tape.step(SYS.openat, [-100, root, O_PATH_DIRECTORY, 0], { why: "open the container's tape", store: fd, jump });
  tape.step(SYS.openat2, [fd, id, how, 24], { store: directory, jump });
  tape.step(SYS.dup3, [fd, LIFE_FD.root, 0o2000000], { jump });
  tape.step(SYS.dup3, [directory, LIFE_FD.directory, 0o2000000], { jump });
  // Whoever is left these has no second copy, on which a lock would stay.
  for (const copied of [fd, directory]) tape.step(SYS.close, [copied], { ignore: "all" });
  tape.step(SYS.openat, [LIFE_FD.directory, LIFE_FILE, O_FILE, 0], { store: fd, jump });
  // It may do whatever its player may: so it has to be this user's own, and of this version.
  const stat = tape.room(144, "stat");
  const user = tape.word("user");
  tape.step(SYS.geteuid, [], { why: "see that it can be trusted", store: user, jump });
  tape.step(SYS.newfstatat, [fd, "", stat, AT_EMPTY_PATH], { jump });
  tape.when(tape.wordAt(stat, 28, 4, "st_uid"), "NE", user, program);
  tape.when(tape.wordAt(stat, 24, 4, "st_mode"), "BITS", OTHERS_MAY_WRITE, program);
  const header = tape.word("header");
  tape.step(SYS.pread64, [fd, tape.address(header), 8, 0], { jump });
  tape.when(header, "NE", BigInt(TAPE_MAGIC) + (BigInt(TAPE_VERSION) << 32n), program);

  const call = tape.room(CALL.size, "call");
  const into = (offset: number, value: Word | Block | number) =>
    tape.compute("ADD", value, 0, tape.wordAt(call, offset, 8, `call[${offset}]`));
  into(CALL.path, path);
  into(CALL.argv, argv);
  into(CALL.envp, envp);
  into(CALL.root, root);
  into(CALL.command, command);
  into(CALL.leaves, leaves ? 1 : 0);
  tape.step(SYS.pwrite64, [file, call, CALL.size, 0], { why: "play it", jump });
  tape.step(SYS.dup3, [file, LIFE_FD.call, 0o2000000], { jump });
  tape.play(fd);
}
