// From a set-up container (or a joined one) to the program: program look-up, terminal, limits, identity, capabilities, the gate, seccomp, execve.

import { invalidArgument } from "../../lib/errors.ts";
import { errno, SYS, utf8 } from "../../linux/index.ts";
import type { Capabilities, Process } from "../../oci/runtime-spec.ts";
import { type Block, REPORT_FD, TIMING_FD, type Word } from "../tape.ts";
import { AT, AT_FDCWD, CAPABILITIES, flags, IOCTL, named, O, OPEN_TREE, PR, S } from "./constants.ts";
import { attach } from "./detached-mounts.ts";
import { environmentOf } from "./environment.ts";
import { planNullCheck } from "./file-checks.ts";
import { FD, HOME_ROOM, REPORT } from "./layout.ts";
import { planLimits, planScheduling } from "./limits.ts";
import { type Planner, waitForMaker } from "./planner.ts";

/** Instructions of a compiled seccomp filter, and the flags of seccomp(2). */
export interface Filter {
  program: Uint8Array;
  flags: number;
  /** A process with the filter on may wait at its gate: the filter lets the calls through that this takes, whatever their arguments. */
  letsWait?: boolean;
  /** Some calls are told to an agent, who gets the listener that seccomp(2) then returns. */
  notifies?: boolean;
}

export interface ProcessPlan {
  process: Process;
  /** What there is to give; all in a user namespace of its own. */
  capabilities: Bits;
  seccomp: Filter | undefined;
  /** End with the parent. */
  dieWithParent: boolean;
  /** Which of stdin, stdout, stderr become the user's own. */
  ownStdio: boolean[];
  /** Which of them are the host's null device, in whose place the container's own comes. */
  nullStdio?: boolean[] | undefined;
  preserved: number;
  /** Name of the session keyring; undefined leaves the caller's. */
  keyring: string | undefined;
  /** Path of the file that takes the security label of the next execve, open already; the label. */
  label: { text: string; fd: Word } | undefined;
  /** Signals that end a program end the process at its gate, too. */
  mortal?: boolean | undefined;
  /** setgroups(2) is not for this user, or not for anybody in this user namespace. */
  keepGroups?: boolean;
}

/** Indices of steps whose failure has a sentence of its own. */
export interface ProcessMarks {
  lookup: Set<number>;
  execve: number;
}

/** Capabilities as the kernel's two words, low and high. */
type Bits = [low: number, high: number];

const numbers = new Map<string, number>(CAPABILITIES.map((name, i) => [name, i]));

function capabilityBits(names: readonly string[] | undefined): Bits {
  const bits: Bits = [0, 0];
  for (const name of names ?? []) {
    const number = numbers.get(name);
    // runc warns and goes on: a newer engine may know capabilities that this kernel does not.
    if (number !== undefined) bits[number >> 5]! |= 1 << (number & 31);
  }
  return bits;
}

const hex = ([low, high]: Bits) => `0x${(high >>> 0).toString(16)}${(low >>> 0).toString(16).padStart(8, "0")}`;

/** data[2] of capset(2): effective, permitted, inheritable, low words then high words. */
function capset(p: Planner, effective: Bits, permitted: Bits, inheritable: Bits, why: string): void {
  const words = Uint32Array.of(effective[0], permitted[0], inheritable[0], effective[1], permitted[1], inheritable[1]);
  const header = p.tape.bytes(new Uint8Array(Uint32Array.of(0x20080522, 0).buffer), "{_LINUX_CAPABILITY_VERSION_3}");
  const name = `{effective=${hex(effective)}, permitted=${hex(permitted)}, inheritable=${hex(inheritable)}}`;
  p.tape.step(SYS.capset, [header, p.tape.bytes(new Uint8Array(words.buffer), name)], { why });
}

/** Finds the program as execvp would, as the user who will run it; its path is then in the word that is returned. */
function planLookup(p: Planner, process: Process, marks: ProcessMarks): Word {
  const { tape } = p;
  const name = process.args?.[0];
  if (!name) throw invalidArgument("args must not be empty");
  const program = tape.word("program");
  const found = tape.label();
  const stat = tape.room(144, "stat");
  const mode = tape.wordAt(stat, 24, 4, "stat.st_mode");
  const type = tape.word("type");
  const why = `find the program ${JSON.stringify(name)}`;
  const mark = () => marks.lookup.add(tape.steps.length);
  if (name.includes("/")) {
    const file = tape.label();
    mark();
    tape.step(SYS.newfstatat, [AT_FDCWD, name, stat, 0], { why });
    tape.compute("AND", mode, { value: S.S_IFMT, name: "S_IFMT" }, type);
    tape.when(type, "NE", { value: S.S_IFDIR, name: "S_IFDIR" }, file);
    mark();
    tape.fail(errno.EISDIR, why);
    tape.place(file);
    mark();
    tape.step(SYS.faccessat2, [AT_FDCWD, name, 1, flags(AT, "AT_EACCESS")]);
    tape.compute("ADD", tape.text(name), 0, program);
    return program;
  }
  const path = process.env?.findLast((e) => e.startsWith("PATH="))?.slice(5);
  for (const directory of path === undefined ? [] : path.split(":")) {
    const next = tape.label();
    const candidate = `${directory === "" ? "." : directory.replace(/\/+$/, "")}/${name}`;
    tape.step(SYS.newfstatat, [AT_FDCWD, candidate, stat, 0], { why, jump: { to: next } });
    tape.compute("AND", mode, { value: S.S_IFMT, name: "S_IFMT" }, type);
    tape.when(type, "EQ", { value: S.S_IFDIR, name: "S_IFDIR" }, next);
    tape.step(SYS.faccessat2, [AT_FDCWD, candidate, 1, flags(AT, "AT_EACCESS")], { jump: { to: next } });
    tape.compute("ADD", tape.text(candidate), 0, program);
    tape.jump(found);
    tape.place(next);
  }
  mark();
  tape.fail(errno.ENOENT, why);
  tape.place(found);
  return program;
}

/** A terminal in the container's devpts becomes the process' own; its master stays at FD.terminal. `root`: where /dev/console is to be bound. */
export function planTerminal(p: Planner, process: Process, root: Word | undefined): void {
  const { tape } = p;
  const master = tape.word("master");
  const slave = tape.word("slave");
  const zero = tape.word("zero", 4);
  const why = "open a terminal";
  if (root) p.openInRoot(root, "/dev/pts/ptmx", O.O_RDWR | O.O_NOCTTY, master, { why });
  else p.open("/dev/ptmx", O.O_RDWR | O.O_NOCTTY, master, { why });
  tape.step(SYS.ioctl, [master, IOCTL.TIOCSPTLCK, tape.address(zero)]);
  tape.step(SYS.ioctl, [master, IOCTL.TIOCGPTPEER, flags(O, "O_RDWR", "O_NOCTTY", "O_CLOEXEC")], { store: slave });
  tape.step(SYS.dup3, [master, FD.terminal, flags(O, "O_CLOEXEC")]);
  p.close(master);
  if (process.consoleSize) {
    const { height, width } = process.consoleSize;
    const size = tape.bytes(new Uint8Array(Uint16Array.of(height, width, 0, 0).buffer), `{${height} rows, ${width} columns}`);
    tape.step(SYS.ioctl, [slave, IOCTL.TIOCSWINSZ, size], { why: "set the terminal's size" });
  }
  const uid = process.user?.uid ?? 0;
  if (uid !== 0) tape.step(SYS.fchown, [slave, uid, -1], { why: "give the terminal to the user" });
  if (root) {
    const place = tape.word("place");
    const copy = tape.word("copy");
    const console = "put the terminal on /dev/console";
    p.ensure(root, "/dev/console", "file", place, console, { mode: 0o620, noSymlinks: true });
    tape.step(SYS.open_tree, [slave, "", flags(OPEN_TREE, "OPEN_TREE_CLONE", "OPEN_TREE_CLOEXEC", "AT_EMPTY_PATH")], { store: copy });
    attach(p, copy, place);
    p.close(copy);
    p.close(place);
  }
  tape.step(SYS.ioctl, [slave, IOCTL.TIOCSCTTY, 0], { why: "make the terminal the controlling one" });
  for (const fd of [0, 1, 2]) tape.step(SYS.dup3, [slave, fd, 0]);
  p.close(slave);
}

export const FILTER_FLAG = {
  SECCOMP_FILTER_FLAG_LOG: 2,
  SECCOMP_FILTER_FLAG_SPEC_ALLOW: 4,
  SECCOMP_FILTER_FLAG_NEW_LISTENER: 8,
  SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: 32,
} as const;

export function planSeccomp({ tape }: Planner, { program, flags: filterFlags }: Filter, listener?: Word): void {
  const instructions = tape.bytes(program, "filter");
  const prog = tape.structure([program.length / 8, instructions], `{${program.length / 8} instructions}`);
  tape.step(SYS.seccomp, [{ value: 1, name: "SECCOMP_SET_MODE_FILTER" }, named(FILTER_FLAG, filterFlags), prog], {
    why: "filter system calls",
    store: listener,
  });
}

/** A filter that asks an agent: from its first step on, what it asks about waits for the agent, who has to have the listener first. */
function planNotifyingSeccomp(p: Planner, filter: Filter): void {
  const { tape } = p;
  const listener = tape.word("listener");
  planSeccomp(p, { ...filter, flags: filter.flags | FILTER_FLAG.SECCOMP_FILTER_FLAG_NEW_LISTENER }, listener);
  const report = tape.bytes(new Uint8Array(Uint32Array.of(REPORT.notify, 0, 0, 0).buffer), "{notify}");
  tape.compute("ADD", listener, 0, tape.wordAt(report, 8, 8, "{notify}.listener"));
  tape.step(SYS.write, [{ value: REPORT_FD, name: "report" }, report, REPORT.size], { why: "hand the filter's listener to its agent" });
  waitForMaker(p);
  p.close(listener);
}

// SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGTERM
const ENDING = [1, 2, 3, 10, 12, 14, 15].reduce((mask, signal) => mask | (1 << (signal - 1)), 0);
const POLLIN = 2 ** 32;

/**
 * The first process of a pid namespace is not ended by a signal that it has no handler for (pid_namespaces(7)), and a tape has none: it hears of signals
 * as of the gate. In two parts, as the report comes between them.
 */
function planMortality(p: Planner): () => void {
  const { tape } = p;
  const mask = tape.structure([ENDING], "{SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGTERM}");
  const before = tape.room(8, "signal mask");
  const signals = tape.word("signals");
  tape.step(SYS.rt_sigprocmask, [{ value: 0, name: "SIG_BLOCK" }, mask, before, 8], { why: "hear of signals at the gate" });
  tape.step(SYS.signalfd4, [-1, mask, 8, { value: O.O_CLOEXEC, name: "SFD_CLOEXEC" }], { store: signals });
  return () => {
    const open = tape.label();
    const polled = tape.structure([FD.gateRead + POLLIN, 0], "{gate, signals}");
    const info = tape.room(128, "signalfd_siginfo");
    const status = tape.word("status");
    tape.compute("ADD", signals, POLLIN, tape.wordAt(polled, 8, 8, "pollfd[1]"));
    tape.step(SYS.ppoll, [polled, 2, 0, 0, 0], { why: "wait at the gate, or for a signal", retry: errno.EINTR });
    tape.when(tape.wordAt(polled, 4, 4, "gate.revents"), "GE", 0x10000, open);
    tape.step(SYS.read, [signals, info, 128], { retry: errno.EINTR });
    tape.compute("ADD", tape.wordAt(info, 0, 4, "ssi_signo"), 128, status);
    tape.step(SYS.exit_group, [status], { why: "end as by the signal" });
    tape.place(open);
    tape.step(SYS.rt_sigprocmask, [{ value: 2, name: "SIG_SETMASK" }, before, 0, 8]);
  };
}

const SYS_ADMIN = 1 << CAPABILITIES.indexOf("CAP_SYS_ADMIN");

/** The last stretch of every process, container's init or exec. */
export function planProcess(p: Planner, plan: ProcessPlan, lastCapability: number, beforeGate: () => void): ProcessMarks {
  const { tape } = p;
  const { process } = plan;
  const marks: ProcessMarks = { lookup: new Set(), execve: -1 };
  const uid = process.user?.uid ?? 0;
  const gid = process.user?.gid ?? 0;

  if (plan.keyring !== undefined) {
    tape.step(SYS.keyctl, [{ value: 1, name: "KEYCTL_JOIN_SESSION_KEYRING" }, plan.keyring], {
      why: "join a session keyring of its own",
      ignore: "all",
    });
  }
  planLimits(p, process);
  planScheduling(p, process);
  if (plan.label) {
    tape.step(SYS.write, [plan.label.fd, plan.label.text, utf8(plan.label.text).length], {
      why: "set the security label of the program",
    });
    p.close(plan.label.fd);
  }

  const nulls = process.terminal ? [] : (plan.nullStdio ?? []).flatMap((isNull, fd) => (isNull ? [fd] : []));
  if (nulls.length > 0) {
    const own = tape.word("null");
    const none = tape.label();
    const fake = tape.label();
    const real = tape.label();
    const why = "have the container's own null device";
    p.open("/dev/null", O.O_RDWR | O.O_NOCTTY | O.O_NONBLOCK | O.O_NOFOLLOW, own, { why, jump: { to: none } });
    // Whatever else the image has there would be opened with more rights than its program has.
    planNullCheck(p, own, why, real);
    tape.jump(fake);
    tape.place(real);
    for (const fd of nulls) tape.step(SYS.dup3, [own, fd, 0]);
    tape.place(fake);
    p.close(own);
    tape.place(none);
  }

  // Identity. Everything that needs more than the user's own rights comes before it.
  plan.ownStdio.forEach((own, fd) => {
    if (own && !process.terminal) tape.step(SYS.fchown, [fd, uid, -1], { why: "give stdin, stdout and stderr to the user", ignore: "all" });
  });
  const caps: Capabilities = process.capabilities ?? {};
  const bounding = capabilityBits(caps.bounding);
  for (let n = 0; n <= lastCapability; n++) {
    if (!(bounding[n >> 5]! & (1 << (n & 31)))) {
      tape.step(SYS.prctl, [PR.PR_CAPBSET_DROP, { value: n, name: CAPABILITIES[n] ?? String(n) }], {
        why: "drop capabilities from the bounding set",
      });
    }
  }
  // As runc: the directory may be one that root reaches and the user does not, or (with root squashed, say) the other way about.
  const cwd = process.cwd || "/";
  const later = tape.label();
  const entered = tape.word("entered", 4);
  tape.step(SYS.chdir, [cwd], { why: `go to the working directory ${cwd}`, jump: { to: later, on: [errno.EACCES] } });
  tape.compute("ADD", 1, 0, entered);
  tape.place(later);

  const groups = process.user?.additionalGids ?? [];
  const list = tape.bytes(new Uint8Array(Uint32Array.from(groups).buffer), `[${groups.join(", ")}]`);
  // A user namespace with setgroups denied refuses the call even for nothing.
  if (!plan.keepGroups)
    tape.step(SYS.setgroups, [groups.length, list], { why: "set the groups", ...(groups.length ? {} : { ignore: [errno.EPERM] }) });
  tape.step(SYS.prctl, [PR.PR_SET_KEEPCAPS, 1], { why: `become user ${uid}:${gid}` });
  tape.step(SYS.setresgid, [gid, gid, gid]);
  tape.step(SYS.setresuid, [uid, uid, uid]);
  tape.step(SYS.prctl, [PR.PR_SET_KEEPCAPS, 0]);
  // Nobody can give what he has not: a container in a container, or a host that holds capabilities back.
  const most = plan.capabilities;
  const has = ([low, high]: Bits): Bits => [low & most[0], high & most[1]];
  const effective = has(capabilityBits(caps.effective));
  const permitted = has(capabilityBits(caps.permitted));
  const inheritable = has(capabilityBits(caps.inheritable));
  // Without no_new_privs a filter needs CAP_SYS_ADMIN, which is then dropped as the last thing.
  const keepAdmin = plan.seccomp !== undefined && !process.noNewPrivileges;
  const extra = ([low, high]: Bits): Bits => [keepAdmin ? low | SYS_ADMIN : low, high];
  capset(p, extra(effective), extra(permitted), inheritable, "set the capabilities");
  tape.step(SYS.prctl, [PR.PR_CAP_AMBIENT, PR.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0], { ignore: "all" });
  for (const name of caps.ambient ?? []) {
    const number = numbers.get(name);
    if (number !== undefined && number <= lastCapability) {
      // runc warns and goes on where an ambient capability is not permitted or not inheritable.
      tape.step(SYS.prctl, [PR.PR_CAP_AMBIENT, PR.PR_CAP_AMBIENT_RAISE, { value: number, name }, 0, 0], { ignore: [errno.EPERM] });
    }
  }
  // A directory of the host that is still open could be reached as /proc/self/fd/N (CVE-2024-21626): all go, and where we got is looked at.
  tape.step(SYS.close_range, [3 + plan.preserved, FD.hold - 1, 0], { why: "close what the way here needed" });
  tape.step(SYS.close_range, [TIMING_FD + 1, { value: 0xffffffff, name: "~0" }, 0]);
  const inside = tape.label();
  const where = tape.room(4096, "cwd");
  const first = tape.word("first");
  const there = tape.label();
  tape.when(entered, "EQ", 1, there);
  tape.step(SYS.chdir, [cwd], { why: `go to the working directory ${cwd}` });
  tape.place(there);
  tape.step(SYS.getcwd, [where, 4096], { why: `see that the working directory ${cwd} is inside the root` });
  tape.compute("AND", tape.wordAt(where, 0, 4, "cwd[0]"), 0xff, first);
  tape.when(first, "EQ", { value: 0x2f, name: "'/'" }, inside);
  tape.fail(errno.EPERM, `see that the working directory ${cwd} is inside the root`);
  tape.place(inside);
  const umask = process.user?.umask ?? 0o022;
  tape.step(SYS.umask, [{ value: umask, name: `0${umask.toString(8)}` }], { why: "set the umask" });
  if (process.noNewPrivileges) tape.step(SYS.prctl, [PR.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0], { why: "allow no new privileges" });
  const program = planLookup(p, process, marks);
  if (plan.dieWithParent) tape.step(SYS.prctl, [PR.PR_SET_PDEATHSIG, { value: 9, name: "SIGKILL" }], { why: "end with the keeper" });
  tape.step(SYS.close_range, [3 + plan.preserved, { value: 0xffffffff, name: "~0" }, { value: 4, name: "CLOSE_RANGE_CLOEXEC" }], {
    why: "let no descriptor through",
  });
  beforeGate();

  // The gate: what comes through it is the HOME of the user, found in the container's /etc/passwd.
  const { env, needsHome } = environmentOf(process.env);
  const home: Block = tape.room(HOME_ROOM, "home");
  const ready = tape.bytes(new Uint8Array(Uint32Array.of(REPORT.ready, 0, 0, 0).buffer), "{ready}");
  const { seccomp } = plan;
  const filter = () => {
    if (!seccomp) return;
    (seccomp.notifies ? planNotifyingSeccomp : planSeccomp)(p, seccomp);
    if (keepAdmin) capset(p, effective, permitted, inheritable, "drop the capability that the filter needed");
  };
  if (seccomp?.notifies) filter();
  // A filter may refuse what it takes.
  const waitOrEnd = plan.mortal && !seccomp?.notifies ? planMortality(p) : undefined;
  const early = seccomp?.letsWait && !waitOrEnd;
  tape.step(SYS.write, [{ value: REPORT_FD, name: "report" }, ready, REPORT.size], { why: "report: created" });
  // Installing it takes a third of a millisecond: rather while others hear of the report than when the gate opens.
  if (early && !seccomp.notifies) filter();
  waitForMaker(p, "wait until its maker has written down that it is there");
  // Who keeps the terminal has it by now.
  if (process.terminal) tape.step(SYS.close, [{ value: FD.terminal, name: "terminal" }], { why: "leave the terminal to its keeper" });
  waitOrEnd?.();
  tape.step(SYS.read, [{ value: FD.gateRead, name: "gate" }, home, HOME_ROOM - 1], { why: "wait at the gate", retry: errno.EINTR });
  if (!early && !seccomp?.notifies) filter();
  const argv = tape.vector(process.args ?? [], `[${(process.args ?? []).map((a) => JSON.stringify(a)).join(", ")}]`);
  const envp = tape.vector(needsHome ? [...env, home] : env, `env of ${env.length}`);
  marks.execve = tape.steps.length;
  tape.step(SYS.execve, [program, argv, envp], { why: `run ${process.args?.join(" ")}` });
  return marks;
}
