// Namespaces: which are new, which are joined; clone3 of the process into them; what only its parent can do for them.
import { invalidArgument } from "../../lib/errors.ts";
import { SYS } from "../../linux/index.ts";
import type { IdMapping, Namespace, NamespaceType, Spec } from "../../oci/runtime-spec.ts";
import type { Label, Word } from "../tape.ts";
import { CLONE, flags, O } from "./constants.ts";
import type { CreateInput } from "./create.ts";
import { openProcess, type Planner } from "./planner.ts";

export const cloneFlags: Record<NamespaceType, keyof typeof CLONE> = {
  mount: "CLONE_NEWNS",
  pid: "CLONE_NEWPID",
  network: "CLONE_NEWNET",
  uts: "CLONE_NEWUTS",
  ipc: "CLONE_NEWIPC",
  user: "CLONE_NEWUSER",
  cgroup: "CLONE_NEWCGROUP",
  time: "CLONE_NEWTIME",
};

/** The order in which namespaces are joined: user first, as it gives the right to the others; mount last, as it changes what paths mean. */
const joinOrder: NamespaceType[] = ["user", "ipc", "uts", "network", "cgroup", "mount"];

/** These concern the children of who joins. */
const ofChildren = ["pid", "time"] as const;

export function namespacesOf(spec: Spec): Map<NamespaceType, Namespace> {
  const namespaces = new Map<NamespaceType, Namespace>();
  for (const namespace of spec.linux?.namespaces ?? []) {
    if (!(namespace.type in cloneFlags)) throw invalidArgument(`unknown namespace ${JSON.stringify(namespace.type)}`);
    if (namespaces.has(namespace.type)) throw invalidArgument(`malformed spec file: duplicated ns ${JSON.stringify(namespace)}`);
    namespaces.set(namespace.type, namespace.path ? namespace : { type: namespace.type });
  }
  return namespaces;
}

/** `ordinary`: a user's right to any comes with the user namespace, which is not joined yet. */
export function openNamespaces(
  p: Planner,
  namespaces: Map<NamespaceType, Namespace>,
  ordinary: boolean,
): { type: NamespaceType; fd: Word }[] {
  const { tape } = p;
  const joins: { type: NamespaceType; fd: Word }[] = [];
  for (const type of ordinary ? [...joinOrder, ...ofChildren] : joinOrder) {
    const path = namespaces.get(type)?.path;
    if (!path) continue;
    const fd = tape.word(`${type}_ns`);
    p.open(path, 0, fd, { why: `open the ${type} namespace ${path}` });
    joins.push({ type, fd });
  }
  for (const type of ordinary ? [] : ofChildren) {
    const path = namespaces.get(type)?.path;
    if (!path) continue;
    const fd = tape.word(`${type}_ns`);
    p.open(path, 0, fd, { why: `join the ${type} namespace of ${path}` });
    tape.step(SYS.setns, [fd, flags(CLONE, cloneFlags[type])]);
    p.close(fd);
  }
  return joins;
}

export function planTime(p: Planner, spec: Spec): void {
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

export function planClone(
  p: Planner,
  wanted: (type: NamespaceType) => boolean,
  namespaces: Map<NamespaceType, Namespace>,
  input: CreateInput,
): Cloned {
  const set = [...namespaces.keys()].filter(wanted).map((type) => cloneFlags[type]);
  const into = input.cgroup?.into;
  return cloneProcess(p, set, input.keeper, into, "start the process in its namespaces");
}

/** clone3(2), with a copy of the memory, as fork does. Without a keeper the process becomes its caller's child. `failed`: where to go on if there is none. */
export function cloneProcess(
  p: Planner,
  set: (keyof typeof CLONE)[],
  keeper: boolean,
  intoCgroup: string | undefined,
  why: string,
  failed?: Label,
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
  tape.step(SYS.clone3, [args, 88], { why, store: pid, jump: failed && { to: failed } });
  return { pid, pidfd };
}

/** `byUser`: who has no right to set groups may map one if the namespace has none either (user_namespaces(7)). */
export function planMaps(p: Planner, pid: Word, uids: IdMapping[], gids: IdMapping[], byUser = false): void {
  const directory = openProcess(p, pid, "map the ids of the user namespace");
  const text = (map: IdMapping[]) => map.map((m) => `${m.containerID} ${m.hostID} ${m.size}\n`).join("");
  if (byUser) p.writeFile("setgroups", "deny", { at: directory });
  if (uids.length) p.writeFile("uid_map", text(uids), { at: directory });
  if (gids.length) p.writeFile("gid_map", text(gids), { at: directory });
  p.close(directory);
}
