// What becomes of a container that is made, for the commands that make none: its start and its end.
import type { Failure } from "../../lib/errors.ts";
import { binding, check, SYS, utf8 } from "../../linux/index.ts";
import type { Process, Spec } from "../../oci/runtime-spec.ts";
import { type CgroupLocation, locateCgroup, openCgroup } from "../cgroups/index.ts";
import { homeOf } from "../home.ts";
import { environmentOf } from "../plan/environment.ts";
import { rootPathOf } from "../plan/root-path.ts";
import { hearNow, type Report } from "../reports.ts";
import type { Context } from "./context.ts";
import type { NotifySocket } from "./notify-socket.ts";
import { type Stored, stateOf } from "./store.ts";

/** Where a container's cgroups are to be. */
export async function locate({ rootless, systemdCgroup }: Context, spec: Spec, id: string): Promise<CgroupLocation> {
  return systemdCgroup ? (await import("../cgroups/systemd.ts")).locateUnit(spec, id, rootless) : locateCgroup(spec, id, rootless);
}

/** What is said to the process at its gate: the HOME of its user, where its environment has none. */
export function homeFor(pid: number, process: Process): string {
  return environmentOf(process.env).needsHome ? `HOME=${homeOf(pid, process.user?.uid ?? 0)}` : "x";
}

/** Opens the gate, blocking until the program runs. */
export async function openGateNow(
  home: string,
  gate: number,
  report: number,
  failure: (index: number, errno: number) => Failure | Promise<Failure>,
): Promise<void> {
  const message = utf8(`${home}\0`);
  check(binding.syscall(SYS.write, gate, message, message.length), "write gate");
  let failed: Extract<Report, { tag: "failed" }> | undefined;
  hearNow(report, (heard) => {
    if (heard.tag === "failed") failed = heard;
    return heard.tag === "failed" || heard.tag === "end";
  });
  if (failed) throw await failure(failed.index, failed.errno);
}

/** What the container's program says to systemd, where this was started by it. */
export async function openNotify({ store }: Context, id: string): Promise<NotifySocket | undefined> {
  const host = globalThis.process.env.NOTIFY_SOCKET;
  return host ? (await import("./notify-socket.ts")).openNotifySocket(`${store.root}/${id}`, host) : undefined;
}

/** Opens the gate, with the hooks around it. */
export async function startCreated(stored: Stored, spec: Spec, target: number, gate: () => Promise<void>): Promise<void> {
  if (spec.hooks) {
    const { runHooks } = await import("../hooks.ts");
    await runHooks("startContainer", spec.hooks, stateOf(stored, "created"), {
      target,
      seccomp: spec.linux?.seccomp ? (await import("../seccomp.ts")).compileSeccomp(spec.linux.seccomp) : undefined,
      process: spec.process,
    });
  }
  await gate();
  if (spec.hooks) {
    const { runPoststart } = await import("../hooks.ts");
    await runPoststart(spec.hooks, stateOf(stored, "running"), target);
  }
}

const MNT_DETACH = 2;

/** Of a container without a mount namespace of its own the mounts are this one's. */
export function leaveRoot(spec: Spec, bundle: string): void {
  if (spec.linux?.namespaces?.some(({ type }) => type === "mount")) return;
  binding.syscall(SYS.umount2, rootPathOf(spec, bundle), MNT_DETACH);
}

/** Ends and forgets a container. */
export async function removeContainer(context: Context, stored: Stored, spec: Spec | undefined): Promise<void> {
  await openCgroup(stored.cgroup).remove(true);
  if (spec) leaveRoot(spec, stored.bundle);
  context.store.remove(stored.id);
  if (spec?.hooks?.poststop?.length) {
    const { runHooksAnyway } = await import("../hooks.ts");
    await runHooksAnyway("poststop", spec.hooks, stateOf(stored, "stopped"), context.warn);
  }
}
