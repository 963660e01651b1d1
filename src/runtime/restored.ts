// A container that goes on from a checkpoint, with a keeper as any other. Making it needs a mount namespace and blocks, so a program of its own does it
// (commands/restore-kept.ts), which finds in the state directory what to do:
//
//   restore.json    what to restore, from where
//   restore.error   why it could not be done
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { alreadyExists, Failure } from "../lib/errors.ts";
import { programCommand } from "../lib/program.ts";
import {
  binding,
  check,
  close,
  ended,
  O_CREAT,
  O_NONBLOCK,
  O_RDWR,
  O_TRUNC,
  open,
  pidfdGetfd,
  pidfdOpen,
  pidfdSignal,
  SYS,
} from "../linux/index.ts";
import type { Spec } from "../oci/runtime-spec.ts";
import { type CgroupLocation, locateCgroup, openCgroup } from "./cgroups/index.ts";
import { isUnitPath } from "./cgroups/unit-path.ts";
import { type ContainerState, runtimeContainer } from "./container.ts";
import type { RestoreOptions, RootMount, RuntimeContainer } from "./face.ts";
import type { Kept } from "./keeper.ts";
import { FD } from "./plan/layout.ts";
import { planRestore } from "./plan/restore.ts";
import { eventfd, startPlayer } from "./player.ts";
import { hearReports } from "./reports.ts";

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

const LOCK_EX = 2;
const F_SETFL = 4;

export async function restoreContainer(options: RestoreOptions): Promise<RuntimeContainer> {
  const { id, bundle, io, state, images, work, rootfs } = options;
  const { process } = options.spec;
  if (!process) throw new Failure("InvalidArgument", "config.json has no process");
  const spec: Spec = { ...options.spec, process: { ...process, terminal: io.terminal } };
  mkdirSync(state, { recursive: true, mode: 0o711 });
  const bySystemd = isUnitPath(spec.linux?.cgroupsPath);
  const cgroup = bySystemd ? await (await import("./cgroups/systemd.ts")).locateUnit(spec, id, false) : locateCgroup(spec, id);
  const saved: ContainerState = { id, bundle, cgroup, hooks: Boolean(spec.hooks?.poststop?.length) };
  try {
    writeFileSync(`${state}/state.json`, JSON.stringify(saved), { flag: "wx", mode: 0o600 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") throw alreadyExists(`container ${id} already exists in ${state}`);
    throw error;
  }
  let done = false;
  try {
    const task: Restoration = { id, bundle, rootfs, cgroup, images, work, terminal: io.terminal };
    writeFileSync(`${state}/restore.json`, JSON.stringify(task), { mode: 0o600 });
    const init = await launch(options);
    done = true;
    return runtimeContainer(saved, state, () => spec, init, []);
  } finally {
    rmSync(`${state}/restore.json`, { force: true });
    if (!done) {
      await openCgroup(cgroup).remove(true);
      rmSync(state, { recursive: true, force: true });
    }
  }
}

async function launch({ io, state }: RestoreOptions): Promise<Kept> {
  const plan = planRestore({
    command: [...programCommand("jubako-runtime"), "restore-kept", state],
    env: Object.entries(process.env).map(([name, value]) => `${name}=${value}`),
    holds: io.hold.length,
    holdStdin: io.holdStdin >= 0,
    terminal: io.terminal,
  });
  const record = `${state}/record`;
  const recordFd = open(record, O_RDWR | O_CREAT | O_TRUNC, 0o600);
  const notify = eventfd();
  const control = eventfd();
  let keeper: ReturnType<typeof startPlayer> | undefined;
  let done = false;
  try {
    check(binding.syscall(SYS.flock, recordFd, LOCK_EX), "flock");
    const stdio: [number, number, number] = io.terminal ? [-1, -1, -1] : [io.stdin, io.stdout, io.stderr];
    const fds = { stdio, preserved: [], hold: io.hold, holdStdin: io.holdStdin, record: recordFd, notify, control, target: -1 };
    keeper = startPlayer("jubako-keeper", plan.tape.encode(), fds, 0);
    let pid = 0;
    let ready = false;
    await hearReports(keeper.report, (report) => {
      if (report.tag === "pid") pid = report.pid;
      else if (report.tag === "ready") ready = true;
      return ready || report.tag === "failed" || report.tag === "end";
    });
    if (!ready) throw new Failure("Unknown", whyNot(state));
    const terminal = io.terminal ? pidfdGetfd(keeper.pidfd, FD.terminal) : undefined;
    if (terminal !== undefined) check(binding.syscall(SYS.fcntl, terminal, F_SETFL, O_RDWR | O_NONBLOCK), "fcntl F_SETFL");
    const own = binding.syscall(SYS.pidfd_open, pid, 0);
    close(keeper.report);
    close(keeper.gate);
    keeper.made();
    done = true;
    return {
      pid,
      // Of a process that has ended already nothing is signalled any more; the keeper's own stands in.
      pidfd: own >= 0 ? own : pidfdOpen(keeper.pid),
      keeper: keeper.pid,
      keeperPidfd: keeper.pidfd,
      record,
      notify,
      control,
      terminal,
      gate: undefined,
      failure: () => new Failure("Unknown", "a restored process was started before"),
      child: true,
    };
  } finally {
    close(recordFd);
    if (!done) {
      if (keeper) {
        pidfdSignal(keeper.pidfd, 9);
        await ended(keeper.pidfd);
        keeper.close();
      }
      close(notify);
      close(control);
    }
  }
}

function whyNot(state: string): string {
  try {
    return readFileSync(`${state}/restore.error`, "utf8");
  } catch {
    return "the program that restores processes ended before it was done";
  }
}
