// config.json → the tape that makes a container and runs its program. Pure: what it must know of the machine comes as Facts.
//
// The keeper's part: its own record, cgroups, copies of every host path that is mounted, joined namespaces, clone3 of the process, its id maps
// and cgroups; then it stays as the parent (or leaves, where a command line ran it). The process' part: mounts, pivot_root, devices,
// terminal, identity, the gate, execve.

import { invalidArgument, unimplemented } from "../../lib/errors.ts";
import { errno, SYS, utf8 } from "../../linux/index.ts";
import type { IdMapping, NamespaceType, Spec, State } from "../../oci/runtime-spec.ts";
import type { CgroupPlan } from "../cgroups/index.ts";
import type { RootMount } from "../face.ts";
import { type Arg, REPORT_FD, type Tape, type Word } from "../tape.ts";
import { planCgroup, planCgroupMount, planCgroupSources, planJoin, planPlace } from "./cgroup.ts";
import { AT_FDCWD, CLONE, flags, MOUNT_ATTR, MOVE_MOUNT, MS, named, O, PR } from "./constants.ts";
import { planMasked, planReadonly } from "./covered-paths.ts";
import { attach, planReadonlyMount } from "./detached-mounts.ts";
import { planDeviceSources, planDevices } from "./devices.ts";
import type { Facts } from "./facts.ts";
import { idInside } from "./idmap.ts";
import { dieWithParent, handTerminal, planParent, recordProcess, recordSelf, reportPid } from "./keeper.ts";
import { FD, RECORD, REPORT } from "./layout.ts";
import { propagationOf } from "./mount-options.ts";
import { planSources } from "./mount-sources.ts";
import { planMount } from "./mounts.ts";
import { cloneFlags, namespacesOf, openNamespaces, planClone, planMaps, planTime } from "./namespaces.ts";
import { hasHelper, planHelperEnd, planNetwork, showsNetwork } from "./network.ts";
import { createPlanner, type Missing, waitForMaker, waitForParent } from "./planner.ts";
import { type Filter, type ProcessMarks, planProcess, planTerminal } from "./process.ts";
import { checkOrdinary, refuseImpossible } from "./refusals.ts";
import { planFurtherRoots, planOldOverlay, planRoot } from "./root-mounts.ts";
import { insideRoot, rootPathOf } from "./root-path.ts";
import { openLabel, planAllCpus, planLoopback, planMemoryPolicy, planPersonality, planSysctl } from "./settings.ts";

export interface CreateInput {
  id: string;
  bundle: string;
  spec: Spec;
  rootfs: readonly RootMount[];
  cgroup: CgroupPlan | undefined;
  seccomp: Filter | undefined;
  /** The player stays as the parent and keeps descriptors, exit status and terminal; else it leaves once the process is set up. */
  keeper: boolean;
  /** How many descriptors (from FD.hold on) the keeper holds. */
  holds: number;
  holdStdin: boolean;
  ownStdio: boolean[];
  nullStdio?: boolean[];
  /** Descriptors 3, 4, … to let through to the program. */
  preserved: number;
  /** Only chrooted: the mounts to take out of its sight (wholeMounts). */
  noPivot: false | readonly string[];
  keyring: boolean;
  /** Report and wait before pivot_root, so that the caller can run hooks meanwhile. */
  pauseForHooks: boolean;
  /** Whoever has its pidfd may end it at the gate by any signal that ends a program. */
  mortal?: boolean;
}

export interface Plan {
  tape: Tape;
  seccomp?: Filter | undefined;
  marks: ProcessMarks;
  missing: readonly Missing[];
  /** Whose such a place is: the container's root, where that is not this machine's. */
  owner?: { uid: number; gid: number };
  /** Who gets the listener of the process' filter, and what is said of the container; without a pid it is the process itself. */
  listener?: { path: string; metadata: string | undefined; state: State };
}

const LAYERS_BY_FSCONFIG = 6.08;
// CAP_SYS_CHROOT, without which nobody enters another mount namespace (setns(2)).
const SYS_CHROOT = 1 << 18;

export function planCreate(input: CreateInput, facts: Facts): Plan {
  const { spec } = input;
  const { process, linux = {} } = spec;
  if (!process) throw invalidArgument("config.json has no process");
  if (!spec.root?.path && input.rootfs.length === 0) throw invalidArgument("config.json has no root path");
  refuseImpossible(spec, facts);
  const p = createPlanner();
  const { tape } = p;
  const namespaces = namespacesOf(spec);
  const isNew = (type: NamespaceType) => namespaces.get(type) !== undefined && namespaces.get(type)!.path === undefined;
  const ownMounts = isNew("mount");
  if (!ownMounts && input.keeper) throw unimplemented("a container without a mount namespace of its own is not supported under a shim");
  const ownUser = isNew("user");
  // In a user namespace, be it new or joined, nothing belongs to the process that was not made there or opened before.
  const inUser = namespaces.has("user");

  // A user without rights has them in the user namespace alone: what needs them is done there.
  const ordinary = facts.ordinaryUser !== undefined;
  if (facts.ordinaryUser) checkOrdinary(spec, inUser, ownUser);

  // ---- the keeper. Nobody in a new user namespace has power over this process; its own user needs some over the one that waits at the gate.
  if (!ordinary) tape.step(SYS.prctl, [PR.PR_SET_DUMPABLE, 0], { why: "close this process to the container's eyes" });
  tape.step(SYS.umask, [0], { why: "clear the umask" });
  // Of v1, the keeper makes the cgroups while the process mounts its file systems: a third of a millisecond that the other core has time for.
  // Those of v2 have to be there before it; so have all where the process will not be able to take them from the host.
  const beside = input.cgroup?.version === 1 && ownMounts && !inUser && !ordinary;
  if (input.cgroup) planCgroup(p, beside ? { ...input.cgroup, directories: directoriesOf(input.cgroup.into), writes: [] } : input.cgroup);
  const root = tape.word("root");
  const rootPlace = rootPathOf(spec, input.bundle);
  // Before Linux 6.8 an overlay's layers are one string of at most 255 bytes by fsconfig(2), of a page by mount(2), which needs a place to
  // mount on: that is then in the process' own mount namespace.
  const byMount = facts.kernel < LAYERS_BY_FSCONFIG && input.rootfs.some((m) => m.type === "overlay");
  // A destination without a slash counts from the root: refused by the specification since 1.0, taken by runc to this day.
  // One that is the host's path of such a place means that place, as with runc.
  const mounts = (spec.mounts ?? []).map((m) => {
    const destination = insideRoot(rootPlace, m.destination) ?? (m.destination.startsWith("/") ? m.destination : `/${m.destination}`);
    return destination === m.destination ? m : { ...m, destination };
  });
  const cgroupMounts = mounts.filter((m) => m.type === "cgroup" || m.type === "cgroup2");
  const ownIds = { uids: spec.linux?.uidMappings ?? [], gids: spec.linux?.gidMappings ?? [] };
  const beneath = (destination: string) => {
    const entries = facts.entriesOf(input.rootfs.length > 0 ? input.rootfs : rootPlace, destination);
    return inUser
      ? entries.map((each) => ({ ...each, uid: idInside(ownIds.uids, each.uid), gid: idInside(ownIds.gids, each.gid) }))
      : entries;
  };
  const takeCgroups = () => (cgroupMounts.length && input.cgroup ? planCgroupSources(p, input.cgroup, namespaces.has("cgroup")) : []);
  const takeSources = () => {
    if (!byMount) planRoot(p, rootPlace, input.rootfs, root);
    return {
      sources: planSources(
        p,
        mounts,
        facts.kindOf,
        input.bundle,
        ownIds,
        beneath,
        ownMounts && !inUser,
        linux.mountLabel,
        inUser,
        ownMounts ? rootPlace : undefined,
        (facts.capabilities[0] & SYS_CHROOT) !== 0,
      ),
      extraRoots: byMount ? [] : planFurtherRoots(p, input.rootfs),
      cgroupSources: beside ? [] : takeCgroups(),
      devices: inUser || facts.inUserNamespace ? planDeviceSources(p, spec) : undefined,
    };
  };
  const taken = ordinary ? undefined : takeSources();
  if (process.oomScoreAdj !== undefined) {
    p.writeFile("/proc/self/oom_score_adj", String(process.oomScoreAdj), { why: `set the out-of-memory score to ${process.oomScoreAdj}` });
  }
  const joins = openNamespaces(p, namespaces, ordinary);
  if (isNew("time") && !ordinary) planTime(p, spec);
  const join = ({ fd, type }: { fd: Word; type: NamespaceType }) => {
    tape.step(SYS.setns, [fd, flags(CLONE, cloneFlags[type])], { why: `join the ${type} namespace of ${namespaces.get(type)!.path}` });
    p.close(fd);
  };
  // Who is in a user namespace may not join what belongs to another one; and what is made new is to belong to the one that is joined.
  const early = joins.filter(({ type }) => inUser && type !== "mount");
  // But what the host's rights can join need not belong to the one that is joined: that goes first, and what they can't (a user's) after it.
  const first = ordinary ? [] : early.filter(({ type }) => type !== "user");
  const joined = first.map((each) => {
    const there = tape.word(`${each.type}_joined`);
    const later = tape.label();
    const why = `join the ${each.type} namespace of ${namespaces.get(each.type)!.path}`;
    tape.step(SYS.setns, [each.fd, flags(CLONE, cloneFlags[each.type])], { why, jump: { to: later, on: [errno.EPERM] } });
    tape.compute("ADD", 1, 0, there);
    tape.place(later);
    return there;
  });
  for (const each of early) {
    const there = joined[first.indexOf(each)];
    const done = tape.label();
    if (there) tape.when(there, "EQ", 1, done);
    join(each);
    tape.place(done);
  }

  const placed: Arg = { value: FD.placed, name: "placed" };
  const terminalReady: Arg = { value: FD.terminalReady, name: "terminal_ready" };
  const apart = new Set<NamespaceType>(["cgroup", "time"]);
  const helper = input.keeper && hasHelper(spec, facts);
  if (helper) apart.add("network");
  const pid = planClone(p, (type) => isNew(type) && !apart.has(type), namespaces, input);
  const child = tape.label();
  tape.when(pid.pid, "EQ", 0, child);

  // ---- the keeper, as the parent
  // Under a shim, who hears of the process would take the core from it or from who makes its cgroups: everything that can be told later is.
  const tellsLater = beside && input.keeper;
  const tell = () => {
    if (tellsLater) recordProcess(p, pid.pid);
    else reportPid(p, pid);
    if (input.keeper) recordSelf(p, RECORD.keeper, "record the keeper");
    if (tellsLater) reportPid(p, pid);
  };
  if (!tellsLater) tell();
  const mapsByMaker = ordinary && ownUser && !mapsHimself(spec, facts.ordinaryUser!);
  if (ownUser && !mapsByMaker) planMaps(p, pid.pid, ownIds.uids, ownIds.gids, ordinary);
  if (ownUser && input.cgroup?.version === 1) planPlace(p, pid.pid, input.cgroup);
  if (beside) planCgroup(p, { ...input.cgroup!, directories: input.cgroup!.directories.filter((each) => each !== input.cgroup!.into) });
  const one = tape.structure([1], "{1}");
  if (ownUser || beside) tape.step(SYS.write, [placed, one, 8], { why: "let the process go on" });
  if (tellsLater) tell();
  if (helper) planHelperEnd(p, pid.pidfd);
  const waitTerminal = input.keeper && process.terminal === true;
  planParent(p, pid, { ...input, holdMounts: true }, waitTerminal ? terminalReady : undefined);

  // ---- the process
  tape.place(child);
  if (input.keeper) dieWithParent(p);
  // Who finds the record complete finds all cgroups made. In a session of its own a process competes as a newcomer, unless it does so by its cgroup.
  const enterCgroups = () => {
    if (beside) waitForParent(p, placed, "wait until its cgroups are there");
    if (input.keeper && !tellsLater) recordSelf(p, RECORD.process, "record the process");
    if (!ownUser && input.cgroup?.version === 1) planJoin(p, input.cgroup);
    tape.step(SYS.setsid, [], { why: "start a session" });
  };
  if (!beside) enterCgroups();
  for (const each of joins) if (!early.includes(each)) join(each);
  if (ownUser) waitForParent(p, placed, "wait until id maps and cgroups are in place");
  if (mapsByMaker) {
    const tag = tape.bytes(new Uint8Array(Uint32Array.of(REPORT.maps, 0, 0, 0).buffer), "{maps}");
    tape.step(SYS.write, [{ value: REPORT_FD, name: "report" }, tag, REPORT.size], { why: "wait for newuidmap and newgidmap" });
    waitForMaker(p);
  }
  if (inUser) {
    tape.step(SYS.setresgid, [0, 0, 0], { why: "become root of the user namespace" });
    tape.step(SYS.setresuid, [0, 0, 0]);
  }
  // A change of ids takes it away.
  const openToUser = () => tape.step(SYS.prctl, [PR.PR_SET_DUMPABLE, 1], { why: "stay open to the user that made this" });
  if (ordinary) openToUser();
  if (ordinary && isNew("time")) planTime(p, spec);
  if (isNew("network") && !helper) planLoopback(p);
  if (spec.hostname && namespaces.has("uts")) {
    tape.step(SYS.sethostname, [spec.hostname, utf8(spec.hostname).length], { why: `set the host name ${spec.hostname}` });
  } else if (spec.hostname) throw invalidArgument("unable to set hostname without a private UTS namespace");
  if (spec.domainname && !namespaces.has("uts")) throw invalidArgument("unable to set domainname without a private UTS namespace");
  if (spec.domainname) {
    tape.step(SYS.setdomainname, [spec.domainname, utf8(spec.domainname).length], { why: `set the domain name ${spec.domainname}` });
  }

  const rootPropagation = spec.linux?.rootfsPropagation ? propagationOf(spec.linux.rootfsPropagation) : undefined;
  if (spec.linux?.rootfsPropagation && !rootPropagation)
    throw invalidArgument(`rootfsPropagation=${spec.linux.rootfsPropagation} is not supported`);
  if (ownMounts) tape.step(SYS.mount, [0, "/", 0, flags(MS, "MS_SLAVE", "MS_REC"), 0], { why: "keep mounts from reaching the host" });
  const gained = taken ?? takeSources();
  // Anywhere will do, as it becomes the root: only hooks expect it at its path in the bundle. Others' mounts must not be covered.
  const on = !ownMounts || input.pauseForHooks ? rootPlace : "/";
  const how = flags(MOVE_MOUNT, "MOVE_MOUNT_F_EMPTY_PATH", "MOVE_MOUNT_T_SYMLINKS");
  const why = `put the root file system on ${on}`;
  if (byMount) planOldOverlay(p, input.rootfs, rootPlace, root);
  else if (on === "/" || !inUser) tape.step(SYS.move_mount, [root, "", AT_FDCWD, on, how], { why });
  else {
    // To whom the namespace's root is outside, the bundle may be closed.
    const closed = tape.label();
    const put = tape.label();
    tape.step(SYS.move_mount, [root, "", AT_FDCWD, on, how], { why, jump: { to: closed, on: [errno.EACCES] } });
    tape.jump(put);
    tape.place(closed);
    tape.step(SYS.move_mount, [root, "", AT_FDCWD, "/", how]);
    tape.place(put);
  }

  const { sources, devices, extraRoots } = gained;
  let { cgroupSources } = gained;
  let entered = !beside;
  const enter = () => {
    if (entered) return;
    entered = true;
    enterCgroups();
    cgroupSources = takeCgroups();
  };
  let networked = !helper;
  const joinNetwork = () => {
    if (!networked) planNetwork(p);
    networked = true;
  };
  // What a container's mounts begin with is its own memory.
  if (sources.some(({ copy }) => copy?.length)) enter();
  for (const { fd, target } of extraRoots) {
    const place = tape.word("place");
    p.ensure(root, target, "directory", place, `mount on ${target} of the root file system`);
    attach(p, fd, place);
    for (const each of [place, fd]) p.close(each);
  }
  for (const planned of sources) {
    const cgroup = cgroupMounts.indexOf(planned.mount);
    if (cgroup === 0) enter();
    if (showsNetwork(planned.mount)) joinNetwork();
    if (cgroup < 0) planMount(p, planned, root, planned.mount.destination === "/dev");
    else if (cgroup === 0 && input.cgroup)
      planCgroupMount(p, planned.mount.destination, planned.options.set, cgroupSources, input.cgroup, root);
  }
  const host = sources.find((planned) => planned.host)?.host;
  for (const fd of host ? [host.namespace, host.root] : []) p.close(fd);
  joinNetwork();
  enter();
  planAllCpus(p);
  planDevices(p, spec, root, devices);
  for (const [name, value] of Object.entries(linux.sysctl ?? {})) planSysctl(p, name, value, root, linux.namespaces ?? []);
  if (process.terminal) planTerminal(p, process, root);
  planReadonly(p, spec.linux?.readonlyPaths ?? [], root);
  planMasked(p, spec.linux?.maskedPaths ?? [], root);
  if (process.cwd && process.cwd !== "/") {
    const cwd = tape.word("cwd");
    p.ensure(root, process.cwd, "directory", cwd, `make the working directory ${process.cwd}`);
    p.close(cwd);
  }
  if (sources.some(({ mount, options }) => mount.destination === "/dev" && options.set & MOUNT_ATTR.MOUNT_ATTR_RDONLY)) {
    const dev = tape.word("dev");
    p.openInRoot(root, "/dev", O.O_PATH, dev, { why: "make /dev read-only" });
    planReadonlyMount(p, dev, "make /dev read-only");
    p.close(dev);
  }
  const label = openLabel(p, spec, facts);
  if (spec.root?.readonly) planReadonlyMount(p, root, "make the root file system read-only");

  if (input.pauseForHooks) {
    const tag = tape.bytes(new Uint8Array(Uint32Array.of(REPORT.hooks, 0, 0, 0).buffer), "{hooks}");
    tape.step(SYS.write, [{ value: REPORT_FD, name: "report" }, tag, REPORT.size], { why: "wait for hooks" });
    waitForMaker(p);
  }
  tape.step(SYS.fchdir, [root], { why: "make it the root" });
  if (input.noPivot || !ownMounts) {
    // What shows all of proc and sysfs, out of reach as it is, would let the container mount them anew without its masks. What came with the user
    // namespace cannot be taken away, but covered.
    for (const path of (ownMounts && input.noPivot) || []) {
      const gone = tape.label();
      const stays = tape.label();
      tape.step(SYS.umount2, [path, { value: 2, name: "MNT_DETACH" }], { jump: { to: stays } });
      tape.jump(gone);
      tape.place(stays);
      tape.step(SYS.mount, ["tmpfs", path, "tmpfs", 0, 0], { ignore: "all" });
      tape.place(gone);
    }
    tape.step(SYS.chroot, ["."]);
  } else {
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
  planMemoryPolicy(p, spec);

  const marks = planProcess(
    p,
    {
      process,
      capabilities: inUser ? [-1, -1] : facts.capabilities,
      seccomp: input.seccomp,
      dieWithParent: input.keeper,
      ownStdio: input.ownStdio,
      nullStdio: input.nullStdio,
      preserved: input.preserved,
      mortal: input.mortal,
      keyring: input.keyring ? `_ses.${input.id}` : undefined,
      label,
      keepGroups: ordinary || facts.groupsDenied,
    },
    facts.lastCapability,
    () => {
      if (ordinary) openToUser();
    },
  );
  const { id, bundle } = input;
  const state: State = {
    ociVersion: spec.ociVersion,
    id,
    status: "creating",
    bundle,
    ...(spec.annotations ? { annotations: spec.annotations } : {}),
  };
  const rootIn = (map: IdMapping[]) => map.find(({ containerID, size }) => containerID === 0 && size > 0)?.hostID ?? 0;
  const owner = ownUser ? { owner: { uid: rootIn(ownIds.uids), gid: rootIn(ownIds.gids) } } : {};
  return { tape, seccomp: input.seccomp, marks, missing: p.missing, ...owner, ...listenerOf(spec, input.seccomp, state) };
}

const directoriesOf = (directory: string | undefined) => (directory === undefined ? [] : [directory]);

/** Whether the kernel takes the maps from the user himself: his own id, and nothing else (user_namespaces(7)). */
function mapsHimself({ linux }: Spec, { uid, gid }: { uid: number; gid: number }): boolean {
  const one = (maps: IdMapping[] | undefined, id: number) => maps?.length === 1 && maps[0]!.size === 1 && maps[0]!.hostID === id;
  return one(linux?.uidMappings, uid) && one(linux?.gidMappings, gid);
}

/** Of a filter that asks an agent. */
export function listenerOf(spec: Spec, filter: Filter | undefined, state: State): Pick<Plan, "listener"> {
  const { listenerPath, listenerMetadata } = spec.linux?.seccomp ?? {};
  return filter?.notifies && listenerPath ? { listener: { path: listenerPath, metadata: listenerMetadata, state } } : {};
}
