// config.json → the tape that makes a container and runs its program. Pure: what it must know of the machine comes as Facts.
//
// The keeper's part: its own record, cgroups, copies of every host path that is mounted, joined namespaces, clone3 of the process, its id maps
// and cgroups; then it stays as the parent (or leaves, where a command line ran it). The process' part: mounts, pivot_root, devices,
// terminal, identity, the gate, execve.

import { invalidArgument, unimplemented } from "../../lib/errors.ts";
import { errno, SYS } from "../../linux/index.ts";
import type { IdMapping, Namespace, NamespaceType, Spec } from "../../oci/runtime-spec.ts";
import type { CgroupPlan } from "../cgroups/index.ts";
import type { RootMount } from "../face.ts";
import { type Arg, type Block, REPORT_FD, type Tape, type Word } from "../tape.ts";
import { AT_FDCWD, CLONE, flags, IOCTL, MOUNT_ATTR, MOVE_MOUNT, MS, named, O, PR } from "./constants.ts";
import { planDeviceSources, planDevices } from "./devices.ts";
import { FD, MAX_HOLD, RECORD, REPORT } from "./layout.ts";
import { parseOptions, propagationOf } from "./mount-options.ts";
import {
  attach,
  cloneTree,
  newFileSystem,
  planMasked,
  planMount,
  planOldOverlay,
  planReadonly,
  planReadonlyMount,
  planRoot,
  planSources,
} from "./mounts.ts";
import { createPlanner, type Planner } from "./planner.ts";
import { type ProcessMarks, planProcess, planTerminal } from "./process.ts";

/** What a plan must know of the machine. */
export interface Facts {
  /** Of the kernel's version: 6.1 is 6.01, 6.18 is 6.18. */
  kernel: number;
  lastCapability: number;
  /** The file system type of the host's path. Throws where it does not exist. */
  kindOf(path: string): "directory" | "file";
  apparmor: boolean;
  selinux: boolean;
}

export interface CreateInput {
  id: string;
  bundle: string;
  spec: Spec;
  rootfs: readonly RootMount[];
  cgroup: CgroupPlan | undefined;
  seccomp: { program: Uint8Array; flags: number } | undefined;
  /** The player stays as the parent and keeps descriptors, exit status and terminal; else it leaves once the process is set up. */
  keeper: boolean;
  /** How many descriptors (from FD.hold on) the keeper holds. */
  holds: number;
  holdStdin: boolean;
  ownStdio: boolean[];
  /** Descriptors 3, 4, … to let through to the program. */
  preserved: number;
  noPivot: boolean;
  keyring: boolean;
  /** Report and wait before pivot_root, so that the caller can run hooks meanwhile. */
  pauseForHooks: boolean;
}

export interface Plan {
  tape: Tape;
  marks: ProcessMarks;
}

const cloneFlags: Record<NamespaceType, keyof typeof CLONE> = {
  mount: "CLONE_NEWNS",
  pid: "CLONE_NEWPID",
  network: "CLONE_NEWNET",
  uts: "CLONE_NEWUTS",
  ipc: "CLONE_NEWIPC",
  user: "CLONE_NEWUSER",
  cgroup: "CLONE_NEWCGROUP",
  time: "CLONE_NEWTIME",
};

const LAYERS_BY_FSCONFIG = 6.08;
const CLONES_OF_DETACHED = 6.15;

/** The order in which namespaces are joined: user first, as it gives the right to the others; mount last, as it changes what paths mean. */
const joinOrder: NamespaceType[] = ["user", "ipc", "uts", "network", "cgroup", "mount"];

export function planCreate(input: CreateInput, facts: Facts): Plan {
  const { spec } = input;
  const process = spec.process;
  if (!process) throw invalidArgument("config.json has no process");
  if (!spec.root?.path && input.rootfs.length === 0) throw invalidArgument("config.json has no root path");
  const p = createPlanner();
  const { tape } = p;
  const namespaces = namespacesOf(spec);
  const isNew = (type: NamespaceType) => namespaces.get(type) !== undefined && namespaces.get(type)!.path === undefined;
  if (!namespaces.has("mount") || namespaces.get("mount")!.path)
    throw unimplemented("a container without a new mount namespace is not supported");
  if (namespaces.get("user")?.path) throw unimplemented("joining a user namespace by path is not supported");
  const ownUser = isNew("user");

  // ---- the keeper
  tape.step(SYS.prctl, [PR.PR_SET_DUMPABLE, 0], { why: "close this process to the container's eyes" });
  if (input.keeper) recordSelf(p, RECORD.keeper, "record the keeper");
  tape.step(SYS.umask, [0], { why: "clear the umask" });
  if (input.cgroup) planCgroup(p, input.cgroup);
  const root = tape.word("root");
  const rootPath = spec.root?.path ?? "rootfs";
  const rootPlace = rootPath.startsWith("/") ? rootPath : `${input.bundle}/${rootPath}`;
  // Before Linux 6.8 an overlay's layers are one string of at most 255 bytes by fsconfig(2), of a page by mount(2), which needs a place to
  // mount on: that is then in the process' own mount namespace.
  const byMount = facts.kernel < LAYERS_BY_FSCONFIG && input.rootfs.some((m) => m.type === "overlay");
  if (!byMount) planRoot(p, rootPlace, input.rootfs, root);
  const cgroupMounts = (spec.mounts ?? []).filter((m) => m.type === "cgroup" || m.type === "cgroup2");
  const sources = planSources(p, spec.mounts ?? [], facts.kindOf, input.bundle);
  const cgroupSources = cgroupMounts.length && input.cgroup ? planCgroupSources(p, input.cgroup) : [];
  const devices = ownUser ? planDeviceSources(p, spec) : undefined;
  if (process.oomScoreAdj !== undefined) {
    p.writeFile("/proc/self/oom_score_adj", String(process.oomScoreAdj), { why: `set the out-of-memory score to ${process.oomScoreAdj}` });
  }
  const joins = openNamespaces(p, namespaces);
  if (isNew("time")) planTime(p, spec);

  const placed: Arg = { value: FD.placed, name: "placed" };
  const terminalReady: Arg = { value: FD.terminalReady, name: "terminal_ready" };
  const pid = planClone(p, (type) => isNew(type) && type !== "cgroup" && type !== "time", namespaces, input);
  const child = tape.label();
  tape.when(pid.pid, "EQ", 0, child);

  // ---- the keeper, as the parent
  reportPid(p, pid);
  if (ownUser) planMaps(p, pid.pid, spec.linux?.uidMappings ?? [], spec.linux?.gidMappings ?? []);
  if (ownUser && input.cgroup?.version === 1) planPlace(p, pid.pid, input.cgroup);
  const one = tape.structure([1], "{1}");
  if (ownUser) tape.step(SYS.write, [placed, one, 8], { why: "let the process go on" });
  const waitTerminal = input.keeper && process.terminal === true;
  planParent(p, pid, input, waitTerminal ? terminalReady : undefined);

  // ---- the process
  tape.place(child);
  const scratch = tape.room(8, "count");
  if (input.keeper) dieWithParent(p);
  if (input.keeper) recordSelf(p, RECORD.process, "record the process");
  if (!ownUser && input.cgroup?.version === 1) planJoin(p, input.cgroup);
  for (const { fd, type } of joins) {
    tape.step(SYS.setns, [fd, flags(CLONE, cloneFlags[type])], { why: `join the ${type} namespace of ${namespaces.get(type)!.path}` });
    p.close(fd);
  }
  tape.step(SYS.setsid, [], { why: "start a session" });
  if (ownUser) {
    tape.step(SYS.read, [placed, scratch, 8], { why: "wait until id maps and cgroups are in place", retry: errno.EINTR });
    tape.step(SYS.setresgid, [0, 0, 0], { why: "become root of the user namespace" });
    tape.step(SYS.setresuid, [0, 0, 0]);
  }
  if (isNew("network")) planLoopback(p);
  if (spec.hostname && isNew("uts")) {
    tape.step(SYS.sethostname, [spec.hostname, Buffer.byteLength(spec.hostname)], { why: `set the host name ${spec.hostname}` });
  } else if (spec.hostname) throw invalidArgument("unable to set hostname without a private UTS namespace");
  if (spec.domainname) {
    tape.step(SYS.setdomainname, [spec.domainname, Buffer.byteLength(spec.domainname)], { why: `set the domain name ${spec.domainname}` });
  }

  const rootPropagation = spec.linux?.rootfsPropagation ? propagationOf(spec.linux.rootfsPropagation) : undefined;
  if (spec.linux?.rootfsPropagation && !rootPropagation)
    throw invalidArgument(`rootfsPropagation=${spec.linux.rootfsPropagation} is not supported`);
  tape.step(SYS.mount, [0, "/", 0, flags(MS, "MS_SLAVE", "MS_REC"), 0], { why: "keep mounts from reaching the host" });
  // Anywhere will do, as it becomes the root: only hooks expect it at its path in the bundle.
  const on = input.pauseForHooks && !ownUser ? rootPlace : "/";
  if (byMount) planOldOverlay(p, input.rootfs, rootPlace, root);
  else
    tape.step(SYS.move_mount, [root, "", AT_FDCWD, on, flags(MOVE_MOUNT, "MOVE_MOUNT_F_EMPTY_PATH", "MOVE_MOUNT_T_SYMLINKS")], {
      why: `put the root file system on ${on}`,
    });

  for (const planned of sources) {
    const cgroup = cgroupMounts.indexOf(planned.mount);
    if (cgroup < 0) planMount(p, planned, root);
    else if (cgroup === 0 && input.cgroup)
      planCgroupMount(p, planned.mount.destination, planned.options.set, cgroupSources, input.cgroup, root);
  }
  planDevices(p, spec, root, devices);
  for (const [name, value] of Object.entries(spec.linux?.sysctl ?? {})) planSysctl(p, name, value, root);
  if (process.terminal) planTerminal(p, process, root);
  planReadonly(p, spec.linux?.readonlyPaths ?? [], root);
  planMasked(p, spec.linux?.maskedPaths ?? [], root, facts.kernel >= CLONES_OF_DETACHED);
  if (process.cwd && process.cwd !== "/") {
    const cwd = tape.word("cwd");
    p.ensure(root, process.cwd, "directory", cwd, `make the working directory ${process.cwd}`);
    p.close(cwd);
  }
  const label = openLabel(p, spec, facts);
  if (spec.root?.readonly) planReadonlyMount(p, root, "make the root file system read-only");

  if (input.pauseForHooks) {
    const tag = tape.bytes(new Uint8Array(Uint32Array.of(REPORT.hooks, 0, 0, 0).buffer), "{hooks}");
    tape.step(SYS.write, [{ value: REPORT_FD, name: "report" }, tag, REPORT.size], { why: "wait for hooks" });
    tape.step(SYS.read, [{ value: FD.gateRead, name: "gate" }, scratch, 1], { retry: errno.EINTR });
  }
  tape.step(SYS.fchdir, [root], { why: "make it the root" });
  if (input.noPivot) tape.step(SYS.chroot, ["."]);
  else {
    tape.step(SYS.pivot_root, [".", "."]);
    tape.step(SYS.umount2, [".", { value: 2, name: "MNT_DETACH" }]);
  }
  tape.step(SYS.chdir, ["/"]);
  p.close(root);
  if (rootPropagation && rootPropagation.flag !== MS.MS_SLAVE) {
    const value = rootPropagation.flag | (rootPropagation.recursive ? MS.MS_REC : 0);
    tape.step(SYS.mount, [0, "/", 0, named(MS, value), 0], { why: `make the root ${spec.linux!.rootfsPropagation}` });
  }
  if (waitTerminal) handTerminal(p, terminalReady, one);
  if (isNew("cgroup")) tape.step(SYS.unshare, [flags(CLONE, "CLONE_NEWCGROUP")], { why: "make a cgroup namespace" });
  planPersonality(p, spec);

  const marks = planProcess(
    p,
    {
      process,
      seccomp: input.seccomp,
      dieWithParent: input.keeper,
      ownStdio: input.ownStdio,
      preserved: input.preserved,
      keyring: input.keyring ? `_ses.${input.id}` : undefined,
      label,
    },
    facts.lastCapability,
    () => {},
  );
  return { tape, marks };
}

function namespacesOf(spec: Spec): Map<NamespaceType, Namespace> {
  const namespaces = new Map<NamespaceType, Namespace>();
  for (const namespace of spec.linux?.namespaces ?? []) {
    if (!(namespace.type in cloneFlags)) throw invalidArgument(`unknown namespace ${JSON.stringify(namespace.type)}`);
    if (namespaces.has(namespace.type)) throw invalidArgument(`malformed spec file: duplicated ns ${JSON.stringify(namespace)}`);
    namespaces.set(namespace.type, namespace.path ? namespace : { type: namespace.type });
  }
  return namespaces;
}

/** Copies /proc/self/stat (pid on the host, start time) to the record file. */
export function recordSelf(p: Planner, offset: number, why: string): void {
  const { tape } = p;
  const fd = tape.word("stat_fd");
  const text = tape.room(RECORD.stat, "stat_text");
  const length = tape.word("length");
  p.open("/proc/self/stat", 0, fd, { why });
  tape.step(SYS.read, [fd, text, RECORD.stat - 1], { store: length });
  tape.step(SYS.pwrite64, [{ value: FD.record, name: "record" }, text, length, offset]);
  p.close(fd);
}

/** v2's device rules: a BPF program of type CGROUP_DEVICE, loaded (5) and attached (8) to the cgroup for all that is below. */
function planDeviceRules(p: Planner, directory: string, program: Uint8Array): void {
  const { tape } = p;
  const cgroup = tape.word("cgroup_fd");
  const why = "attach the device rules";
  p.open(directory, O.O_DIRECTORY, cgroup, { why });
  const instructions = tape.bytes(program, `${program.length / 8} instructions`);
  // union bpf_attr: prog_type, insn_cnt, insns, license; the kernel takes a shorter one as ending in zeros.
  const load = tape.structure([15 + (program.length / 8) * 0x100000000, instructions, "Apache"], "{BPF_PROG_TYPE_CGROUP_DEVICE}");
  const loaded = tape.word("program");
  tape.step(SYS.bpf, [{ value: 5, name: "BPF_PROG_LOAD" }, load, 24], { store: loaded });
  // target_fd, attach_bpf_fd, attach_type BPF_CGROUP_DEVICE, attach_flags BPF_F_ALLOW_MULTI
  const attach = tape.structure([0, 6 + 2 * 0x100000000], "{cgroup_fd, program, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI}");
  tape.compute("ADD", cgroup, 0, tape.wordAt(attach, 0, 4, "attr.target_fd"));
  tape.compute("ADD", loaded, 0, tape.wordAt(attach, 4, 4, "attr.attach_bpf_fd"));
  tape.step(SYS.bpf, [{ value: 8, name: "BPF_PROG_ATTACH" }, attach, 16]);
  p.close(loaded);
  p.close(cgroup);
}

function planCgroup(p: Planner, cgroup: CgroupPlan): void {
  const { tape } = p;
  for (const directory of cgroup.directories) {
    tape.step(SYS.mkdirat, [AT_FDCWD, directory, { value: 0o755, name: "0755" }], {
      why: `make cgroup ${directory}`,
      ignore: [errno.EEXIST],
    });
  }
  if (cgroup.devices) planDeviceRules(p, cgroup.directories.at(-1)!, cgroup.devices);
  // Rules for devices come one a write, but many to one file.
  const fd = tape.word("limit");
  cgroup.writes.forEach(({ file, value, why, ignore }, i) => {
    const first = cgroup.writes[i - 1]?.file !== file;
    const last = cgroup.writes[i + 1]?.file !== file;
    if (first && last) {
      p.writeFile(file, value, { why, ignore });
      return;
    }
    if (first) p.open(file, O.O_WRONLY, fd, { why });
    tape.step(SYS.write, [fd, value, Buffer.byteLength(value)], { why, ignore });
    if (last) p.close(fd);
  });
}

/**
 * The process enters its v1 cgroups itself, alone: "0" into `tasks`. The kernel then takes no lock against forks; a pid written to cgroup.procs
 * has it wait for an RCU grace period, 13 ms here (kernel/cgroup/cgroup.c, cgroup_procs_write_start).
 */
export function planJoin(p: Planner, cgroup: CgroupPlan): void {
  const fd = p.tape.word("tasks");
  for (const directory of cgroup.join) {
    p.open(`${directory}/tasks`, O.O_WRONLY, fd, { why: `enter cgroup ${directory}` });
    p.tape.step(SYS.write, [fd, "0", 1], {});
    p.close(fd);
  }
}

/** The parent writes the process' pid to cgroup.procs of each hierarchy: a process in a new user namespace may not do it itself. */
function planPlace(p: Planner, pid: Word, cgroup: CgroupPlan): void {
  const { tape } = p;
  const digits = tape.room(24, "pid_text");
  const fd = tape.word("procs");
  tape.decimal(pid, digits);
  for (const directory of cgroup.join) {
    p.open(`${directory}/cgroup.procs`, O.O_WRONLY, fd, { why: `put the process into cgroup ${directory}` });
    tape.step(SYS.write, [fd, digits, 21], {});
    p.close(fd);
  }
}

function planCgroupSources(p: Planner, cgroup: CgroupPlan): { name: string; links: string[]; source: Word }[] {
  return cgroup.mounts.map(({ name, links, directory }) => {
    const source = p.tape.word("cgroup");
    const options = {
      ...parseOptions(["rbind"]),
      set: MOUNT_ATTR.MOUNT_ATTR_NOSUID | MOUNT_ATTR.MOUNT_ATTR_NODEV | MOUNT_ATTR.MOUNT_ATTR_NOEXEC,
    };
    cloneTree(p, AT_FDCWD, directory, options, source, `take cgroup ${directory}`);
    return { name, links, source };
  });
}

/** v2: the container's own cgroup; v1: a directory with the container's own cgroup of each hierarchy. */
function planCgroupMount(
  p: Planner,
  destination: string,
  set: number,
  sources: { name: string; links: string[]; source: Word }[],
  cgroup: CgroupPlan,
  root: Word,
): void {
  const { tape } = p;
  const place = tape.word("place");
  const why = `mount cgroup on ${destination}`;
  const readonly = (fd: Word) => {
    if (set & MOUNT_ATTR.MOUNT_ATTR_RDONLY) planReadonlyMount(p, fd, why);
  };
  if (cgroup.version === 2) {
    const { source } = sources[0]!;
    readonly(source);
    p.ensure(root, destination, "directory", place, why);
    attach(p, source, place);
    p.close(place);
    p.close(source);
    return;
  }
  const top = tape.word("cgroups");
  newFileSystem(p, "tmpfs", "cgroup", [["mode", "755"]], set & ~MOUNT_ATTR.MOUNT_ATTR_RDONLY, top, why);
  p.ensure(root, destination, "directory", place, why);
  attach(p, top, place);
  p.close(place);
  for (const { name, links, source } of sources) {
    readonly(source);
    p.ensure(root, `${destination}/${name}`, "directory", place, `mount cgroup ${name} on ${destination}/${name}`);
    attach(p, source, place);
    p.close(place);
    p.close(source);
    for (const link of links) tape.step(SYS.symlinkat, [name, top, link], { why: `link ${destination}/${link}`, ignore: [errno.EEXIST] });
  }
  readonly(top);
  p.close(top);
}

function openNamespaces(p: Planner, namespaces: Map<NamespaceType, Namespace>): { type: NamespaceType; fd: Word }[] {
  const { tape } = p;
  const joins: { type: NamespaceType; fd: Word }[] = [];
  for (const type of joinOrder) {
    const path = namespaces.get(type)?.path;
    if (!path) continue;
    const fd = tape.word(`${type}_ns`);
    p.open(path, 0, fd, { why: `open the ${type} namespace ${path}` });
    joins.push({ type, fd });
  }
  // These two concern the children of who joins.
  for (const type of ["pid", "time"] as const) {
    const path = namespaces.get(type)?.path;
    if (!path) continue;
    const fd = tape.word(`${type}_ns`);
    p.open(path, 0, fd, { why: `join the ${type} namespace of ${path}` });
    tape.step(SYS.setns, [fd, flags(CLONE, cloneFlags[type])]);
    p.close(fd);
  }
  return joins;
}

function planTime(p: Planner, spec: Spec): void {
  p.tape.step(SYS.unshare, [flags(CLONE, "CLONE_NEWTIME")], { why: "make a time namespace" });
  const lines = Object.entries(spec.linux?.timeOffsets ?? {}).map(
    ([clock, offset]) => `${clock} ${offset.secs ?? 0} ${offset.nanosecs ?? 0}\n`,
  );
  if (lines.length) p.writeFile("/proc/self/timens_offsets", lines.join(""), { why: "set the offsets of the clocks" });
}

export interface Cloned {
  pid: Word;
  pidfd: Word;
}

function planClone(
  p: Planner,
  wanted: (type: NamespaceType) => boolean,
  namespaces: Map<NamespaceType, Namespace>,
  input: CreateInput,
): Cloned {
  const set = [...namespaces.keys()].filter(wanted).map((type) => cloneFlags[type]);
  const into = input.cgroup?.version === 2 ? input.cgroup.join[0] : undefined;
  return cloneProcess(p, set, input.keeper, into, "start the process in its namespaces");
}

/** clone3(2), with a copy of the memory, as fork does. Without a keeper the process becomes its caller's child. */
export function cloneProcess(
  p: Planner,
  set: (keyof typeof CLONE)[],
  keeper: boolean,
  intoCgroup: string | undefined,
  why: string,
): Cloned {
  const { tape } = p;
  const pid = tape.word("pid");
  const pidfd = tape.word("pidfd", 4);
  const all: (keyof typeof CLONE)[] = [...set, keeper ? "CLONE_PIDFD" : "CLONE_PARENT"];
  // struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup
  const signal = keeper ? 17 : 0;
  if (intoCgroup) all.push("CLONE_INTO_CGROUP");
  const what = flags(CLONE, ...all);
  const args = tape.structure([what.value, keeper ? tape.address(pidfd) : 0, 0, 0, signal, 0, 0, 0, 0, 0, 0], `{${what.name}}`);
  if (intoCgroup) {
    const fd = tape.wordAt(args, 80, 8, "clone_args.cgroup");
    p.open(intoCgroup, O.O_PATH | O.O_DIRECTORY, fd, { why: `open cgroup ${intoCgroup}` });
  }
  tape.step(SYS.clone3, [args, 88], { why, store: pid });
  return { pid, pidfd };
}

function planMaps(p: Planner, pid: Word, uids: IdMapping[], gids: IdMapping[]): void {
  const { tape } = p;
  const path = tape.bytes(new Uint8Array([...Buffer.from("/proc/"), ...new Uint8Array(24)]), "/proc/PID");
  const directory = tape.word("proc_pid");
  tape.decimal(pid, tape.within(path, 6, "/proc/PID[6]"));
  p.open(path, O.O_PATH | O.O_DIRECTORY, directory, { why: "map the ids of the user namespace" });
  const text = (map: IdMapping[]) => map.map((m) => `${m.containerID} ${m.hostID} ${m.size}\n`).join("");
  if (uids.length) p.writeFile("uid_map", text(uids), { at: directory });
  if (gids.length) p.writeFile("gid_map", text(gids), { at: directory });
  p.close(directory);
}

/** Set again after the change of identity, which clears it. */
function dieWithParent(p: Planner): void {
  p.tape.step(SYS.prctl, [PR.PR_SET_PDEATHSIG, { value: 9, name: "SIGKILL" }], { why: "end with the keeper" });
}

/** Tells the pid on the host, so that whoever waits can end the process whatever happens next. */
export function reportPid(p: Planner, cloned: Cloned): void {
  const { tape } = p;
  const tag = tape.bytes(new Uint8Array(Uint32Array.of(REPORT.pid, 0, 0, 0).buffer), "{pid}");
  tape.compute("ADD", cloned.pid, 0, tape.wordAt(tag, 8, 8, "{pid}"));
  tape.step(SYS.write, [{ value: REPORT_FD, name: "report" }, tag, REPORT.size], { why: "report: process made" });
}

/** The event's counter is filled, so that adding one waits until the keeper, who has the terminal then, takes the counter. */
export function handTerminal(p: Planner, terminalReady: Arg, one: Block): void {
  const full = p.tape.structure([0xfffffffffffffffen], "{2^64-2}");
  p.tape.step(SYS.write, [terminalReady, full, 8], { why: "hand the terminal to the keeper" });
  p.tape.step(SYS.write, [terminalReady, one, 8], { why: "wait for the keeper to have it", retry: errno.EINTR });
}

/** What the parent does once the process runs: leave, or keep it. */
export function planParent(
  p: Planner,
  cloned: Cloned,
  input: Pick<CreateInput, "keeper" | "holds" | "holdStdin">,
  waitTerminal: Arg | undefined,
): void {
  const { tape } = p;
  if (!input.keeper) {
    tape.step(SYS.exit_group, [0], { why: "leave the process to its caller" });
    return;
  }
  const why = "keep the process";
  const buffer = tape.room(8, "count");
  if (waitTerminal) {
    const polled = tape.structure([0, 0], "{terminal_ready, process}");
    const ready = tape.label();
    tape.compute("ADD", { value: FD.terminalReady, name: "terminal_ready" }, 0x1n << 32n, tape.wordAt(polled, 0, 8, "pollfd[0]"));
    tape.compute("ADD", cloned.pidfd, 0x1n << 32n, tape.wordAt(polled, 8, 8, "pollfd[1]"));
    tape.step(SYS.ppoll, [polled, 2, 0, 0, 0], { why: "wait for the terminal", retry: errno.EINTR });
    // events and revents in one word: nothing happened to the first, so the process ended.
    tape.when(tape.wordAt(polled, 4, 4, "pollfd[0].events"), "EQ", 1, ready);
    const terminal = tape.word("terminal");
    tape.step(SYS.pidfd_getfd, [cloned.pidfd, FD.terminal, 0], { why: "hold the terminal", store: terminal });
    tape.step(SYS.dup3, [terminal, FD.terminal, flags(O, "O_CLOEXEC")]);
    p.close(terminal);
    tape.step(SYS.read, [waitTerminal, buffer, 8], { why: "let the process go on" });
    tape.place(ready);
  }
  // Only what the keeper is for stays open: everything else would be held as long as the container lives.
  const pidfd: Arg = { value: 30, name: "process" };
  tape.step(SYS.dup3, [cloned.pidfd, pidfd, flags(O, "O_CLOEXEC")], { why });
  tape.step(SYS.close_range, [0, 29, 0]);
  tape.step(SYS.close_range, [31, FD.hold - 1, 0]);
  if (input.holds < MAX_HOLD) tape.step(SYS.close_range, [FD.hold + input.holds, FD.holdEnd - 1, 0]);
  if (!input.holdStdin) tape.step(SYS.close, [FD.holdStdin]);
  if (!waitTerminal) tape.step(SYS.close, [FD.terminal]);
  tape.step(SYS.close_range, [FD.record + 1, { value: 0xffffffff, name: "~0" }, 0]);
  p.writeFile("/proc/self/oom_score_adj", "-999", { why: "be the last to be killed for want of memory", ignore: "all" });
  tape.step(SYS.chdir, ["/"], { why });

  // struct pollfd {int fd; short events, revents}[2]
  const control: Arg = { value: FD.control, name: "control" };
  const fds = new Int32Array([FD.control, 1, 30, 1]);
  const polled = tape.bytes(new Uint8Array(fds.buffer), "{control, process}");
  const wait = tape.label();
  const ended = tape.label();
  tape.place(wait);
  tape.step(SYS.ppoll, [polled, 2, 0, 0, 0], { retry: errno.EINTR });
  const IN = 1n << 16n;
  tape.when(tape.wordAt(polled, 12, 4, "process.revents"), "GE", IN, ended);
  tape.step(SYS.read, [control, buffer, 8], { ignore: "all" });
  tape.step(SYS.close, [{ value: FD.holdStdin, name: "stdin" }], { why: "let stdin end", ignore: "all" });
  tape.jump(wait);
  tape.place(ended);
  const info = tape.room(144, "exit");
  tape.step(SYS.waitid, [{ value: 3, name: "P_PIDFD" }, pidfd, info, { value: 4, name: "WEXITED" }, 0], {
    why: "record the exit",
    retry: errno.EINTR,
  });
  tape.step(SYS.clock_gettime, [{ value: 0, name: "CLOCK_REALTIME" }, tape.within(info, 128, "exit.time")]);
  tape.step(SYS.pwrite64, [{ value: FD.record, name: "record" }, info, 144, RECORD.exit]);
  const one = tape.structure([1], "{1}");
  tape.step(SYS.write, [{ value: FD.notify, name: "notify" }, one, 8], { why: "tell of the exit" });
  const idle = tape.label();
  tape.place(idle);
  tape.step(SYS.ppoll, [0, 0, 0, 0, 0], { why: "hold descriptors until released", ignore: "all" });
  tape.jump(idle);
}

/** A new network namespace has its loopback down. */
function planLoopback(p: Planner): void {
  const { tape } = p;
  const socket = tape.word("socket");
  const request = new Uint8Array(40);
  request.set(Buffer.from("lo"));
  new DataView(request.buffer).setUint16(16, 1 | 0x40, true);
  tape.step(SYS.socket, [{ value: 2, name: "AF_INET" }, { value: 2 | 0o2000000, name: "SOCK_DGRAM|SOCK_CLOEXEC" }, 0], {
    why: "bring up lo",
    store: socket,
  });
  tape.step(SYS.ioctl, [socket, IOCTL.SIOCSIFFLAGS, tape.bytes(request, '{"lo", IFF_UP|IFF_RUNNING}')]);
  p.close(socket);
}

function planSysctl(p: Planner, name: string, value: string, root: Word): void {
  const { tape } = p;
  // A dot separates; a slash does so too, and a name that begins with slashes may have dots in it (sysctl.d(5)).
  const path = name.includes("/") && (!name.includes(".") || name.indexOf("/") < name.indexOf(".")) ? name : name.replaceAll(".", "/");
  if (path.split("/").includes("..")) throw invalidArgument(`sysctl ${JSON.stringify(name)} is not a name`);
  const fd = tape.word("sysctl");
  p.openInRoot(root, `/proc/sys/${path}`, O.O_WRONLY, fd, { why: `set sysctl ${name} to ${value}`, noSymlinks: true });
  tape.step(SYS.write, [fd, value, Buffer.byteLength(value)]);
  p.close(fd);
}

export function openLabel(p: Planner, spec: Spec, facts: Facts): { text: string; fd: Word } | undefined {
  const { apparmorProfile, selinuxLabel } = spec.process!;
  if (selinuxLabel && !facts.selinux)
    throw invalidArgument("selinux label is specified in config, but selinux is disabled or not supported");
  if (apparmorProfile && apparmorProfile !== "unconfined" && !facts.apparmor) {
    throw invalidArgument(`apparmor profile ${JSON.stringify(apparmorProfile)} is specified in config, but the kernel has no apparmor`);
  }
  const text = apparmorProfile && apparmorProfile !== "unconfined" ? `exec ${apparmorProfile}` : selinuxLabel;
  if (!text) return undefined;
  const fd = p.tape.word("label");
  const file = apparmorProfile && facts.apparmor ? "/proc/thread-self/attr/apparmor/exec" : "/proc/thread-self/attr/exec";
  p.open(file, O.O_WRONLY, fd, { why: "open the security label" });
  return { text, fd };
}

const personalities: Record<string, number> = { LINUX: 0, LINUX32: 8 };

function planPersonality(p: Planner, spec: Spec): void {
  const personality = spec.linux?.personality;
  if (!personality) return;
  const domain = personalities[personality.domain ?? "LINUX"];
  if (domain === undefined || personality.flags?.length) throw unimplemented("personality flags are not supported");
  p.tape.step(SYS.personality, [domain], { why: `set the personality ${personality.domain}` });
}
