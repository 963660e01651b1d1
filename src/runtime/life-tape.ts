// What `start` and `delete` will do with a container, as a tape that its creation writes beside its state: the launcher (launcher.ts) plays it, and
// no program of ours has to be started. What it finds otherwise than it was told, it leaves to that program: it then runs the command as if
// there were no tape.
import { errno, type FileIdentity, SYS } from "../linux/index.ts";
import type { CgroupLocation } from "./cgroups/index.ts";
import { FAILED_FILE, LIFE_FILE } from "./life-file.ts";
import { FD } from "./plan/layout.ts";
import { createTape, type Label, type Tape, type Word } from "./tape.ts";

/** Descriptors that the launcher leaves to the tape. */
export const LIFE_FD = { root: 200, directory: 201, call: 202 } as const;
/** What lies at the beginning of `call`: addresses of the program's path, argv, envp, the --root; then the command. */
export const CALL = { path: 0, argv: 8, envp: 16, root: 24, command: 32, size: 40 } as const;
export const COMMAND = { start: 1, delete: 2, deleteForced: 3 } as const;

export interface Life {
  id: string;
  pid: number;
  /** The gate's pipe, which no other process has. */
  gate: FileIdentity;
  /** The process, where the kernel gives each an inode of its own. */
  process: FileIdentity | undefined;
  /** What goes through the gate. */
  home: string;
  cgroup: CgroupLocation;
}

const KILL = 9;
const SIGPIPE = 13;
const LOCK_EX = 2;
const AT_REMOVEDIR = 0x200;
const AT_EMPTY_PATH = 0x1000;
const O_CREATE = 0o1 | 0o100 | 0o1000 | 0o2000000;
const EX_NOT_FOUND = 127;
/** Of half a millisecond each. */
const MOST_TRIES = 10;

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
  tape.when(
    tape.wordAt(text, 0, 8, "state"),
    "NE",
    Buffer.from(version === 1 ? "THAWED\n\0" : "0\n\0\0\0\0\0\0").readBigUInt64LE(),
    frozen,
  );
}

/** Removes the container's cgroups; goes to `left` where one stays, or had others below it. */
export function planRemoval(tape: Tape, { directories }: CgroupLocation, left: Label): void {
  const all = [...new Set(Object.values(directories))];
  const result = tape.word("result");
  const tries = tape.word("tries");
  const pause = tape.structure([0, 500_000], "{0.5 ms}");
  const again = tape.label();
  const over = tape.label();
  tape.place(again);
  const troubles = all.map((directory) => {
    const trouble = tape.label();
    const next = tape.label();
    tape.step(SYS.rmdir, [directory], { why: `remove cgroup ${directory}`, store: result, jump: { to: trouble } });
    tape.place(next);
    return { trouble, next };
  });
  tape.jump(over);
  const busy = tape.label();
  for (const { trouble, next } of troubles) {
    tape.place(trouble);
    tape.when(result, "NE", -errno.ENOENT, busy);
    tape.jump(next);
  }
  // A process that has ended is in its cgroup for a moment more.
  tape.place(busy);
  tape.when(result, "NE", -errno.EBUSY, left);
  tape.when(tries, "GE", MOST_TRIES, left);
  tape.compute("ADD", tries, 1, tries);
  tape.step(SYS.nanosleep, [pause, 0], { why: "wait for its processes to be gone", ignore: "all" });
  tape.jump(again);
  tape.place(over);
}

export function lifeTape(life: Life): Uint8Array {
  const tape = createTape();
  const call = tape.room(CALL.size, "call");
  const [path, argv, envp, root, command] = (["path", "argv", "envp", "root", "command"] as const).map((name) =>
    tape.wordAt(call, CALL[name], 8, name),
  ) as [Word, Word, Word, Word, Word];
  const program = tape.label();
  const remove = tape.label();
  tape.step(SYS.pread64, [LIFE_FD.call, call, CALL.size, 0], { why: "see which command it is" });
  tape.when(command, "NE", COMMAND.start, remove);
  planStart(tape, life, program);
  tape.place(remove);
  planDelete(tape, life, command, root, { path, envp }, program);
  tape.place(program);
  tape.step(SYS.execve, [path, argv, envp], { why: "leave it to the program", ignore: "all" });
  tape.step(SYS.exit_group, [EX_NOT_FOUND]);
  return tape.encode();
}

function planStart(tape: Tape, life: Life, program: Label): void {
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
  const home = `${life.home}\0`;
  tape.step(SYS.write, [gate, tape.bytes(Buffer.from(home), "home"), Buffer.byteLength(home)], { jump });
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
