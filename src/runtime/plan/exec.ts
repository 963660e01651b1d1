// A further process in a container → the tape that joins the container's namespaces by its init's pidfd, in one call, and runs the program.

import { invalidArgument } from "../../lib/errors.ts";
import { SYS } from "../../linux/index.ts";
import type { NamespaceType, Process, Spec, State } from "../../oci/runtime-spec.ts";
import type { CgroupPlan } from "../cgroups/index.ts";
import type { Arg } from "../tape.ts";
import { planJoin } from "./cgroup.ts";
import { CLONE, flags, PR } from "./constants.ts";
import { listenerOf, type Plan } from "./create.ts";
import type { Facts } from "./facts.ts";
import { handTerminal, planParent, recordSelf, reportPid } from "./keeper.ts";
import { FD, RECORD } from "./layout.ts";
import { cloneProcess } from "./namespaces.ts";
import { createPlanner } from "./planner.ts";
import { type Filter, planProcess, planTerminal } from "./process.ts";
import { openLabel, planAffinity, planAllCpus, planMemoryPolicy, planPersonality } from "./settings.ts";

export interface ExecInput {
  id: string;
  /** The container's. */
  spec: Spec;
  process: Process;
  /** Only `join` counts. */
  cgroup: CgroupPlan | undefined;
  seccomp: Filter | undefined;
  /** The container's, for the agent of a filter. */
  state?: State;
  keeper: boolean;
  holds: number;
  holdStdin: boolean;
  ownStdio: boolean[];
  nullStdio?: boolean[];
  preserved: number;
}

const cloneFlags: Record<Exclude<NamespaceType, "pid">, keyof typeof CLONE> = {
  mount: "CLONE_NEWNS",
  network: "CLONE_NEWNET",
  uts: "CLONE_NEWUTS",
  ipc: "CLONE_NEWIPC",
  user: "CLONE_NEWUSER",
  cgroup: "CLONE_NEWCGROUP",
  time: "CLONE_NEWTIME",
};

export function planExec(input: ExecInput, facts: Facts): Plan {
  const { process, spec } = input;
  if (!process.args?.[0]) throw invalidArgument("args must not be empty");
  const p = createPlanner();
  const { tape } = p;
  const target: Arg = { value: FD.target, name: "init" };
  const has = (type: NamespaceType) => (spec.linux?.namespaces ?? []).some((n) => n.type === type);

  const ordinary = facts.ordinaryUser !== undefined;
  if (ordinary && process.user?.additionalGids?.length) throw invalidArgument("cannot set any additional groups in a rootless container");

  // ---- the keeper. What it does as a child of the container's pid namespace must not be seen from there.
  tape.step(SYS.prctl, [PR.PR_SET_DUMPABLE, 0], { why: "close this process to the container's eyes" });
  if (input.keeper) recordSelf(p, RECORD.keeper, "record the keeper");
  tape.step(SYS.umask, [0], { why: "clear the umask" });
  if (process.oomScoreAdj !== undefined) {
    p.writeFile("/proc/self/oom_score_adj", String(process.oomScoreAdj), { why: `set the out-of-memory score to ${process.oomScoreAdj}` });
  } else if (spec.process?.oomScoreAdj !== undefined) {
    p.writeFile("/proc/self/oom_score_adj", String(spec.process.oomScoreAdj), { why: "set the container's out-of-memory score" });
  }
  const joined = (Object.keys(cloneFlags) as (keyof typeof cloneFlags)[]).filter((type) => has(type)).map((type) => cloneFlags[type]);
  // A user without rights gets them by the user namespace, which is joined before there is a child. The host's paths stay until then.
  if (has("pid") && !ordinary)
    tape.step(SYS.setns, [target, flags(CLONE, "CLONE_NEWPID")], { why: "let the child join the pid namespace" });
  const affinity = process.execCPUAffinity ?? spec.process?.execCPUAffinity;
  planAffinity(p, affinity?.initial, "initial");
  const into = input.cgroup?.into;
  if (ordinary) {
    if (input.cgroup?.version === 1) planJoin(p, input.cgroup);
    const first = joined.filter((flag) => flag !== "CLONE_NEWNS");
    const pid = has("pid") ? (["CLONE_NEWPID"] as const) : [];
    tape.step(SYS.setns, [target, flags(CLONE, ...first, ...pid)], { why: "join the container's namespaces, but for its mounts" });
  }
  const cloned = cloneProcess(p, [], input.keeper, into, "start the process");
  const child = tape.label();
  tape.when(cloned.pid, "EQ", 0, child);
  reportPid(p, cloned);
  const one = tape.structure([1], "{1}");
  const terminalReady: Arg = { value: FD.terminalReady, name: "terminal_ready" };
  const waitTerminal = input.keeper && process.terminal === true;
  planParent(p, cloned, { ...input, holdMounts: false }, waitTerminal ? terminalReady : undefined);

  // ---- the process
  tape.place(child);
  if (input.keeper) tape.step(SYS.prctl, [PR.PR_SET_PDEATHSIG, { value: 9, name: "SIGKILL" }], { why: "end with the keeper" });
  if (input.keeper) recordSelf(p, RECORD.process, "record the process");
  if (!ordinary && input.cgroup?.version === 1) planJoin(p, input.cgroup);
  if (affinity?.initial || affinity?.final) planAffinity(p, affinity.final, "final");
  else planAllCpus(p);
  const label = openLabel(p, { ...spec, process: withLabels(process, spec) }, facts);
  const then = ordinary ? joined.filter((flag) => flag === "CLONE_NEWNS") : joined;
  if (then.length) tape.step(SYS.setns, [target, flags(CLONE, ...then)], { why: "join the container's namespaces" });
  tape.step(SYS.setsid, [], { why: "start a session" });
  if (has("user")) {
    tape.step(SYS.setresgid, [0, 0, 0], { why: "become root of the user namespace" });
    tape.step(SYS.setresuid, [0, 0, 0]);
  }
  planPersonality(p, spec);
  planMemoryPolicy(p, spec);
  if (process.terminal) {
    planTerminal(p, process, undefined);
    if (waitTerminal) handTerminal(p, terminalReady, one);
  }
  const marks = planProcess(
    p,
    {
      process,
      capabilities: has("user") ? [-1, -1] : facts.capabilities,
      seccomp: input.seccomp,
      dieWithParent: input.keeper,
      ownStdio: input.ownStdio,
      nullStdio: input.nullStdio,
      preserved: input.preserved,
      keyring: `_ses.${input.id}`,
      label,
      keepGroups: ordinary || facts.groupsDenied,
    },
    facts.lastCapability,
    () => {
      // By now it holds nothing of the host's, and its maker has to take the terminal.
      if (ordinary) tape.step(SYS.prctl, [PR.PR_SET_DUMPABLE, 1], { why: "stay open to the user that made this" });
    },
  );
  const state: State = input.state ?? { ociVersion: spec.ociVersion, id: input.id, status: "running", bundle: "" };
  return { tape, seccomp: input.seccomp, marks, missing: p.missing, ...listenerOf(spec, input.seccomp, state) };
}

/** A further process has the container's labels unless it has its own. */
function withLabels(process: Process, spec: Spec): Process {
  const apparmorProfile = process.apparmorProfile ?? spec.process?.apparmorProfile;
  const selinuxLabel = process.selinuxLabel ?? spec.process?.selinuxLabel;
  return { ...process, ...(apparmorProfile ? { apparmorProfile } : {}), ...(selinuxLabel ? { selinuxLabel } : {}) };
}
