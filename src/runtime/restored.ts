// A container that goes on from a checkpoint, with a keeper as any other. Making it needs a mount namespace and blocks, so a program of its own does it
// (commands/restore-kept.ts), which finds in the state directory what to do:
//
//   restore.json    what to restore, from where
//   restore.error   why it could not be done
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { Failure } from "../lib/errors.ts";
import { programCommand } from "../lib/program.ts";
import { binding, close, pidfdOpen, removeSync, SYS } from "../linux/index.ts";
import type { Spec } from "../oci/runtime-spec.ts";
import { type CgroupLocation, locateCgroup, openCgroup } from "./cgroups/index.ts";
import { isUnitPath } from "./cgroups/unit-path.ts";
import { runtimeContainer } from "./container.ts";
import type { RestoreOptions, RootMount, RuntimeContainer } from "./face.ts";
import type { Kept } from "./keeper.ts";
import { keeping, takeTerminal } from "./launch.ts";
import { planRestore } from "./plan/restore.ts";
import { hearReports } from "./reports.ts";
import { type ContainerState, claimState, saveState } from "./state-directory.ts";

/** restore.json. The specification is the bundle's. */
export interface Restoration {
  id: string;
  bundle: string;
  rootfs: RootMount[];
  cgroup: CgroupLocation;
  images: string;
  work: string;
  terminal: boolean;
}

export async function restoreContainer(options: RestoreOptions): Promise<RuntimeContainer> {
  const { id, bundle, io, state, images, work, rootfs } = options;
  const { process } = options.spec;
  if (!process) throw new Failure("InvalidArgument", "config.json has no process");
  const spec: Spec = { ...options.spec, process: { ...process, terminal: io.terminal } };
  const record = claimState(id, state);
  let saved: ContainerState | undefined;
  let done = false;
  try {
    const bySystemd = isUnitPath(spec.linux?.cgroupsPath);
    const cgroup = bySystemd ? await (await import("./cgroups/systemd.ts")).locateUnit(spec, id, false) : locateCgroup(spec, id);
    saved = saveState(state, id, bundle, cgroup, spec);
    const task: Restoration = { id, bundle, rootfs, cgroup, images, work, terminal: io.terminal };
    writeFileSync(`${state}/restore.json`, JSON.stringify(task), { mode: 0o600 });
    const init = await launch(options, record);
    done = true;
    return runtimeContainer(saved, state, () => spec, init, []);
  } finally {
    close(record);
    rmSync(`${state}/restore.json`, { force: true });
    if (!done) {
      if (saved) await openCgroup(saved.cgroup).remove(true);
      removeSync(state);
    }
  }
}

async function launch({ io, state }: RestoreOptions, record: number): Promise<Kept> {
  const { tape } = planRestore({
    command: [...programCommand("jubako-runtime"), "restore-kept", state],
    env: Object.entries(process.env).map(([name, value]) => `${name}=${value}`),
    holds: io.hold.length,
    holdStdin: io.holdStdin >= 0,
    terminal: io.terminal,
  });
  return keeping(tape.encode(), io, { record, target: -1 }, 0, async (keeper, events, heard) => {
    await hearReports(keeper.report, (report) => {
      if (report.tag === "pid") heard.pid = report.pid;
      else if (report.tag === "ready") heard.ready = true;
      return heard.ready || report.tag === "failed" || report.tag === "end";
    });
    if (!heard.ready) throw new Failure("Unknown", whyNot(state));
    const terminal = io.terminal ? takeTerminal(keeper.pidfd) : undefined;
    const own = binding.syscall(SYS.pidfd_open, heard.pid, 0);
    close(keeper.report);
    close(keeper.gate);
    keeper.made();
    return {
      pid: heard.pid,
      // Of a process that has ended already nothing is signalled any more; the keeper's own stands in.
      pidfd: own >= 0 ? own : pidfdOpen(keeper.pid),
      keeper: keeper.pid,
      keeperPidfd: keeper.pidfd,
      record: `${state}/record`,
      ...events,
      terminal,
      gate: undefined,
      failure: () => new Failure("Unknown", "a restored process was started before"),
      child: true,
    };
  });
}

function whyNot(state: string): string {
  try {
    return readFileSync(`${state}/restore.error`, "utf8");
  } catch {
    return "the program that restores processes ended before it was done";
  }
}
