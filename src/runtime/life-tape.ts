// What `start` and `delete` will do with a container, as a tape that its creation writes beside its state: the launcher (launcher.ts) plays it, and
// no program of ours has to be started. What it finds otherwise than it was told, it leaves to that program: it then runs the command as if
// there were no tape.
import { errno, type FileIdentity, SYS, utf8 } from "../linux/index.ts";
import type { CgroupLocation } from "./cgroups/index.ts";
import { FAILED_FILE, LIFE_FILE } from "./life-file.ts";
import { FD } from "./plan/layout.ts";
import { planRemoval } from "./plan/removal.ts";
import { type Block, createTape, dataOf, type Label, type Tape, type Word } from "./tape.ts";

/** Descriptors that the launcher leaves to the tape. */
export const LIFE_FD = { root: 200, directory: 201, call: 202 } as const;
/**
 * What lies at the beginning of `call`: addresses of the program's path, argv, envp, the --root; then the command; and whether the process is the
 * program's at the tape's end (executable.ts), so that nothing has to be executed.
 */
export const CALL = { path: 0, argv: 8, envp: 16, root: 24, command: 32, leaves: 40, size: 48 } as const;
export const COMMAND = { start: 1, delete: 2, deleteForced: 3 } as const;

export interface Life {
  id: string;
  pid: number;
  /** The gate's pipe, which no other process has. */
  gate: FileIdentity;
  /** The process, where the kernel gives each an inode of its own. */
  process: FileIdentity | undefined;
  /** The machine's boot_id: after another boot the same numbers are others' again. */
  boot: string;
  cgroup: CgroupLocation;
}

const KILL = 9;
/** "THAWED\n", and "0\n" of v2, as a word. */
const THAWED = 0x0a444557414854n;
const RUNNING = 0x0a30n;
const SIGPIPE = 13;
const LOCK_EX = 2;
const AT_REMOVEDIR = 0x200;
const AT_EMPTY_PATH = 0x1000;
const O_CREATE = 0o1 | 0o100 | 0o1000 | 0o2000000;
const EX_NOT_FOUND = 127;

/** Goes to `other` where a descriptor is not that file. */
function expectFile(tape: Tape, fd: Word, file: FileIdentity, other: Label): void {
  const stat = tape.room(144, "stat");
  tape.step(SYS.newfstatat, [fd, "", stat, AT_EMPTY_PATH], { jump: { to: other } });
  tape.when(tape.wordAt(stat, 8, 8, "st_ino"), "NE", file.inode, other);
  tape.when(tape.wordAt(stat, 0, 8, "st_dev"), "NE", file.device, other);
}

/** Goes to `frozen` where the container is paused. */
function expectThawed(tape: Tape, { version, directories }: CgroupLocation, frozen: Label): void {
  const directory = directories[version === 1 ? "freezer" : ""];
  if (directory === undefined) return;
  const fd = tape.word("state");
  const text = tape.room(8, "state_text");
  const file = `${directory}/${version === 1 ? "freezer.state" : "cgroup.freeze"}`;
  tape.step(SYS.openat, [-100, file, 0o2000000, 0], { why: "see that it is not paused", store: fd, jump: { to: frozen } });
  tape.step(SYS.read, [fd, text, 8], { jump: { to: frozen } });
  tape.step(SYS.close, [fd], { ignore: "all" });
  tape.when(tape.wordAt(text, 0, 8, "state"), "NE", version === 1 ? THAWED : RUNNING, frozen);
}

const BOOT_ID = "/proc/sys/kernel/random/boot_id";
const BOOT_ID_COMPARED = 32;

/** Goes to `other` where the machine was started again since. */
function expectBoot(tape: Tape, boot: string, other: Label): void {
  const fd = tape.word("boot_id");
  const text = tape.room(BOOT_ID_COMPARED, "boot_id_text");
  const words = new BigUint64Array(utf8(boot).buffer, 0, BOOT_ID_COMPARED / 8);
  tape.step(SYS.openat, [-100, BOOT_ID, 0o2000000, 0], { why: "see that it is the same boot", store: fd, jump: { to: other } });
  tape.step(SYS.read, [fd, text, BOOT_ID_COMPARED], { jump: { to: other } });
  tape.step(SYS.close, [fd], { ignore: "all" });
  for (let i = 0; i < words.length; i++) tape.when(tape.wordAt(text, 8 * i, 8, `boot_id_text[${8 * i}]`), "NE", words[i]!, other);
}

export interface LifeTape {
  file: Uint8Array;
  /** What goes through the gate; false where there is no room for it. */
  setHome(home: string): boolean;
}

const HOME_ROOM = 240;

export function lifeTape(life: Life): LifeTape {
  const tape = createTape();
  const home = tape.room(HOME_ROOM, "home");
  const homeLength = tape.word("home_length");
  const call = tape.room(CALL.size, "call");
  const [path, argv, envp, root, command] = (["path", "argv", "envp", "root", "command"] as const).map((name) =>
    tape.wordAt(call, CALL[name], 8, name),
  ) as [Word, Word, Word, Word, Word];
  const leaves = tape.wordAt(call, CALL.leaves, 8, "leaves");
  const program = tape.label();
  const remove = tape.label();
  const end = tape.label();
  tape.step(SYS.pread64, [LIFE_FD.call, call, CALL.size, 0], { why: "see which command it is" });
  tape.when(command, "NE", COMMAND.start, remove);
  planStart(tape, life, { home, homeLength }, program);
  tape.place(remove);
  planDelete(tape, life, command, root, { path, envp }, program);
  tape.place(program);
  tape.when(leaves, "EQ", 1, end);
  tape.step(SYS.execve, [path, argv, envp], { why: "leave it to the program", ignore: "all" });
  tape.step(SYS.exit_group, [EX_NOT_FOUND]);
  tape.place(end);
  // The lock lies on one of them.
  for (const fd of Object.values(LIFE_FD)) tape.step(SYS.close, [fd], { why: "leave it to the program", ignore: "all" });
  const file = tape.encode();
  const data = dataOf(file);
  return {
    file,
    setHome(text) {
      const bytes = utf8(`${text}\0`);
      if (bytes.length > HOME_ROOM) return false;
      file.set(bytes, data + home.block);
      file[data + homeLength.word] = bytes.length;
      return true;
    },
  };
}

function planStart(tape: Tape, life: Life, { home, homeLength }: { home: Block; homeLength: Word }, program: Label): void {
  const jump = { to: program };
  const pidfd = tape.word("pidfd");
  const gate = tape.word("gate");
  const report = tape.word("report");
  tape.step(SYS.flock, [LIFE_FD.directory, LOCK_EX], { why: "take the container's lock", retry: errno.EINTR, jump });
  tape.step(SYS.pidfd_open, [life.pid, 0], { why: "see that it waits at its gate", store: pidfd, jump });
  tape.step(SYS.pidfd_getfd, [pidfd, FD.gateWrite, 0], { store: gate, jump });
  expectFile(tape, gate, life.gate, program);
  expectThawed(tape, life.cgroup, program);
  tape.step(SYS.pidfd_getfd, [pidfd, FD.reportRead, 0], { why: "open the gate", store: report, jump });
  // Whoever was killed meanwhile is told of by the error.
  tape.step(SYS.rt_sigaction, [SIGPIPE, tape.structure([1, 0, 0, 0], "{SIG_IGN}"), 0, 8], { jump });
  tape.step(SYS.write, [gate, home, homeLength], { jump });
  const wait = tape.label();
  const polled = tape.structure([0], "{report}");
  const record = tape.room(16, "record");
  const length = tape.word("length");
  const failed = tape.word("file");
  tape.compute("ADD", report, 1n << 32n, tape.wordAt(polled, 0, 8, "pollfd"));
  tape.place(wait);
  tape.step(SYS.ppoll, [polled, 1, 0, 0, 0], { why: "wait until its program runs", retry: errno.EINTR });
  tape.step(SYS.read, [report, record, 16], { store: length, jump: { to: wait } });
  const ended = tape.label();
  tape.when(length, "EQ", 0, ended);
  tape.when(tape.wordAt(record, 0, 4, "record.tag"), "NE", 0, wait);
  tape.step(SYS.openat, [LIFE_FD.directory, FAILED_FILE, O_CREATE, 0o600], { why: "keep why it can't run", store: failed, jump });
  tape.step(SYS.write, [failed, record, 16], { jump });
  tape.jump(program);
  tape.place(ended);
  tape.step(SYS.exit_group, [0]);
}

function planDelete(tape: Tape, life: Life, command: Word, root: Word, { path, envp }: { path: Word; envp: Word }, program: Label): void {
  const jump = { to: program };
  const gone = tape.label();
  const absent = tape.label();
  const pidfd = tape.word("pidfd");
  tape.step(SYS.pidfd_open, [life.pid, 0], { why: "see whether it has stopped", store: pidfd, jump: { to: absent } });
  const polled = tape.structure([0], "{process}");
  const ready = tape.word("ready");
  const now = tape.structure([0, 0], "{0 s}");
  tape.compute("ADD", pidfd, 1n << 32n, tape.wordAt(polled, 0, 8, "pollfd"));
  // Its number may be another's by now.
  if (life.process) expectFile(tape, pidfd, life.process, gone);
  tape.step(SYS.ppoll, [polled, 1, now, 0, 0], { store: ready, jump });
  tape.when(ready, "EQ", 1, gone);
  if (life.process) {
    expectBoot(tape, life.boot, program);
    const forced = tape.label();
    const gate = tape.word("gate");
    tape.when(command, "EQ", COMMAND.deleteForced, forced);
    // One that waits at its gate may go without force.
    tape.step(SYS.pidfd_getfd, [pidfd, FD.gateWrite, 0], { store: gate, jump });
    expectFile(tape, gate, life.gate, program);
    tape.place(forced);
    expectThawed(tape, life.cgroup, program);
    const second = tape.structure([1, 0], "{1 s}");
    tape.step(SYS.pidfd_send_signal, [pidfd, { value: KILL, name: "SIGKILL" }, 0, 0], { why: "kill it", jump });
    tape.step(SYS.ppoll, [polled, 1, second, 0, 0], { why: "wait for its end", retry: errno.EINTR, store: ready });
    tape.when(ready, "EQ", 1, gone);
  }
  tape.jump(program);
  tape.place(absent);
  tape.when(pidfd, "NE", -errno.ESRCH, program);
  tape.place(gone);
  planRemoval(tape, life.cgroup, program);
  for (const file of ["config.json", "state.json", LIFE_FILE])
    tape.step(SYS.unlinkat, [LIFE_FD.directory, file, 0], { why: "forget the container", ignore: "all" });
  const more = tape.label();
  tape.step(SYS.unlinkat, [LIFE_FD.root, life.id, AT_REMOVEDIR], { jump: { to: more } });
  tape.step(SYS.exit_group, [0]);
  // Something else lies there: without its state only by force.
  tape.place(more);
  const rest = tape.vector(["jubako-runtime", "--root", "", "delete", "--force", life.id], "[jubako-runtime --root … delete --force …]");
  tape.compute("ADD", root, 0, tape.wordAt(rest, 16, 8, "argv[2]"));
  tape.step(SYS.execve, [path, rest, envp], { ignore: "all" });
  tape.step(SYS.exit_group, [EX_NOT_FOUND]);
}
