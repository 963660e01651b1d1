// A new network namespace. To make one takes longer than all that a process has to do until it needs it, so a helper of the keeper's makes it from the
// moment that the keeper runs, while the plan is still made, and the process joins it when it gets there.
//
//   keeper      clone3 the helper · … the plan comes … · clone3 the process · … · reap the helper
//   helper      unshare · lo up · tell `networkMade` ················ wait for `networkTaken` · end
//   process     ·········································· wait for `networkMade` · setns · tell `networkTaken`
import { errno, SYS } from "../../linux/index.ts";
import type { Mount, Spec } from "../../oci/runtime-spec.ts";
import type { Named, Word } from "../tape.ts";
import { CLONE, flags, O } from "./constants.ts";
import type { Facts } from "./facts.ts";
import { dieWithParent } from "./keeper.ts";
import { FD } from "./layout.ts";
import { cloneProcess } from "./namespaces.ts";
import type { Planner } from "./planner.ts";
import { planLoopback } from "./settings.ts";

const NEW_NETWORK = flags(CLONE, "CLONE_NEWNET");
const CLOEXEC = flags(O, "O_CLOEXEC");
const P_PIDFD: Named = { value: 3, name: "P_PIDFD" };
const ENDED: Named = { value: 4 | 1, name: "WEXITED|WNOHANG" };
const helper: Named = { value: FD.networkHelper, name: "helper" };
const made: Named = { value: FD.networkMade, name: "network_made" };
const taken: Named = { value: FD.networkTaken, name: "network_taken" };

/** Whether a helper can make it: not where it has to belong to another user namespace, or who joins it would have no right to. */
export function hasHelper({ linux }: Spec, facts: Pick<Facts, "ordinaryUser" | "inUserNamespace">): boolean {
  const namespaces = linux?.namespaces ?? [];
  if (facts.ordinaryUser || facts.inUserNamespace || namespaces.some(({ type }) => type === "user")) return false;
  return namespaces.some(({ type, path }) => type === "network" && !path);
}

/** The keeper's first steps, which need no plan. Where one fails there is no helper, or it ends: the process then makes its namespace itself, and tells why it can't. */
export function planHelper(p: Planner): void {
  const { tape } = p;
  const fd = tape.word("fd");
  const done = tape.label();
  const failed = tape.label();
  const over = tape.label();
  for (const event of [made, taken]) {
    tape.step(SYS.eventfd2, [0, CLOEXEC], { why: "make events of the network", store: fd, jump: { to: done } });
    tape.step(SYS.dup3, [fd, event, CLOEXEC], { ignore: "all" });
    p.close(fd);
  }
  const cloned = cloneProcess(p, [], true, undefined, "start the helper", done);
  tape.when(cloned.pid, "NE", 0, failed);
  dieWithParent(p);
  tape.step(SYS.unshare, [NEW_NETWORK], { why: "make a network namespace", jump: { to: over } });
  planLoopback(p, over);
  tell(p, made);
  // struct pollfd {int fd; short events, revents}[2]. Of the maker's end it hears though it listens to nothing: he is nobody to talk to.
  const polled = tape.bytes(new Uint8Array(new Int32Array([FD.networkTaken, 1, FD.maker, 0]).buffer), "{network_taken, maker}");
  tape.step(SYS.ppoll, [polled, 2, 0, 0, 0], { why: "keep it until it is taken", retry: errno.EINTR, ignore: "all" });
  tape.place(over);
  tape.step(SYS.exit_group, [0], { why: "end" });
  tape.place(failed);
  tape.step(SYS.dup3, [cloned.pidfd, helper, CLOEXEC], { ignore: "all" });
  p.close(cloned.pidfd);
  tape.place(done);
}

function tell({ tape }: Planner, event: Named): void {
  tape.step(SYS.write, [event, tape.structure([1], "{1}"), 8], { why: `tell ${event.name}`, ignore: "all" });
}

const MADE = 1 | (1 << 16);

/** The process gets into the namespace: the helper's, or one that it makes itself. */
export function planNetwork(p: Planner): void {
  const { tape } = p;
  const own = tape.label();
  const done = tape.label();
  const polled = tape.bytes(new Uint8Array(new Int32Array([FD.networkMade, 1, FD.networkHelper, 1]).buffer), "{network_made, helper}");
  tape.step(SYS.ppoll, [polled, 2, 0, 0, 0], { why: "wait for the network namespace", retry: errno.EINTR });
  // That the event can be read, and nothing else of it.
  tape.when(tape.wordAt(polled, 4, 4, "network_made.events"), "NE", MADE, own);
  tape.step(SYS.setns, [helper, NEW_NETWORK], { why: "join the network namespace that is made for it" });
  tell(p, taken);
  tape.jump(done);
  tape.place(own);
  tape.step(SYS.unshare, [NEW_NETWORK], { why: "make a network namespace" });
  planLoopback(p);
  tape.place(done);
}

/** The keeper of a process that is on its way. */
export function planHelperEnd(p: Planner, process: Word): void {
  const { tape } = p;
  const polled = tape.structure([0, 0], "{helper, process}");
  const IN = 0x1n << 32n;
  tape.compute("ADD", helper, IN, tape.wordAt(polled, 0, 8, "pollfd[0]"));
  tape.compute("ADD", process, IN, tape.wordAt(polled, 8, 8, "pollfd[1]"));
  tape.step(SYS.ppoll, [polled, 2, 0, 0, 0], { why: "wait for the helper", retry: errno.EINTR });
  tape.step(SYS.waitid, [P_PIDFD, helper, 0, ENDED, 0], { why: "reap the helper", ignore: "all" });
}

/** What asks for the network when it is mounted is not among these. */
const apart = new Set(["proc", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "bind"]);

/** Whether a mount shows the network that its maker has. */
export function showsNetwork({ type, options, source }: Mount): boolean {
  const bind = type === "bind" || options?.some((option) => option === "bind" || option === "rbind");
  return bind ? /^\/(proc|sys)(\/|$)/.test(source ?? "") : !apart.has(type ?? "");
}
