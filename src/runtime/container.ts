// A container of ours: made by a tape, held by its keeper, found again by what lies in its state directory:
//
//   state.json       id, bundle, cgroup: what the runtime decided before anything was done
//   record           pids of keeper and init with their start times, and init's exit (plan/layout.ts)
//   exec-ID/record   the same for each further process
import { alreadyExists, Failure, failedPrecondition } from "../lib/errors.ts";
import {
  binding,
  check,
  close,
  EPOLLIN,
  ended,
  kill,
  mkdirSync,
  O_CREAT,
  O_NONBLOCK,
  O_RDWR,
  O_TRUNC,
  open,
  pidfdGetfd,
  pidfdSignal,
  removeSync,
  rmdirSync,
  SYS,
  SystemError,
  spawnError,
  unlinkSync,
  watch,
  writeFileSync,
} from "../linux/index.ts";
import type { Process, Spec, State } from "../oci/runtime-spec.ts";
import { active } from "../trace/index.ts";
import { type Cgroup, type CgroupLocation, locateCgroup, openCgroup } from "./cgroups/index.ts";
import type { StartedUnit } from "./cgroups/systemd.ts";
import { isUnitPath } from "./cgroups/unit-path.ts";
import { containerPlan, type Planned } from "./create-plans.ts";
import { type EarlyGate, type Heard, passEarly } from "./early.ts";
import { execPlans } from "./exec-plans.ts";
import type { CreateOptions, ProcessIo, RunningProcess, RuntimeContainer } from "./face.ts";
import { facts } from "./facts.ts";
import { stepFailure } from "./failures.ts";
import { type Kept, readExit, runningProcess } from "./keeper.ts";
import { environmentOf } from "./plan/environment.ts";
import { FD, MAX_HOLD } from "./plan/layout.ts";
import { hasHelper } from "./plan/network.ts";
import { pausesBeforePivot } from "./plan/pause.ts";
import { rootPathOf } from "./plan/root-path.ts";
import { type Asking, eventfd, type Player, startPlayer } from "./player.ts";
import { hearReports } from "./reports.ts";
import { compileSeccomp } from "./seccomp.ts";
import { tracePlayer } from "./timing.ts";
import { waitingTape } from "./waiting-tape.ts";

/** state.json. */
export interface ContainerState {
  id: string;
  bundle: string;
  cgroup: CgroupLocation;
  /** There are hooks for the end. */
  hooks: boolean;
}

const LOCK_EX = 2;

interface Launching {
  /** pidfd of the process whose namespaces are joined; -1: none. */
  target: number;
  /** The keeper has a network namespace made while it waits for the plan. */
  network?: boolean;
  atHooks?: (pid: number, pidfd: number) => Promise<void>;
  early?: EarlyGate | undefined;
}

/** Starts the player on a plan with a keeper, and waits until the process stands at its gate. `plan` is asked for it while the player starts. On failure nothing is left. */
async function launch(
  plan: () => Planned,
  process: Process,
  io: ProcessIo,
  directory: string,
  { target, network, atHooks, early }: Launching,
): Promise<Kept> {
  if (io.hold.length > MAX_HOLD) throw new Failure("InvalidArgument", `a keeper holds at most ${MAX_HOLD} descriptors`);
  const record = `${directory}/record`;
  const failure = (index: number, number: number) => {
    const whole = planned!.plan();
    const failed = stepFailure(whole, process, index, number);
    const stamps = keeper?.stamps();
    if (trace && stamps) tracePlayer(trace, whole, stamps, { index, why: failed.message });
    return failed;
  };
  const trace = active();
  const recordFd = open(record, O_RDWR | O_CREAT | O_TRUNC, 0o600);
  // The lock is the open file's, which keeper and process share: it is held as long as one of them is there, whatever is recorded yet.
  check(binding.syscall(SYS.flock, recordFd, LOCK_EX), "flock");
  const notify = eventfd();
  const control = eventfd();
  let keeper: ReturnType<typeof startPlayer> | undefined;
  let planned: Planned | undefined;
  const heard: Heard = { pid: 0, pidfd: -1, ready: false, failed: undefined };
  let done = false;
  try {
    const stdio: [number, number, number] = io.terminal ? [-1, -1, -1] : [io.stdin, io.stdout, io.stderr];
    keeper = startPlayer(
      "jubako-keeper",
      waitingTape(network),
      { stdio, preserved: [], hold: io.hold, holdStdin: io.holdStdin, record: recordFd, notify, control, target },
      trace ? 1 : 0,
    );
    const made = plan();
    planned = made;
    if (trace) {
      const { tape } = made.plan();
      keeper.give(tape.encode(true), tape.steps.length);
    } else keeper.give(made.encoded, 0);
    const { needsHome } = environmentOf(process.env);
    const uid = process.user?.uid ?? 0;
    if (early) await passEarly(keeper, early, needsHome ? uid : undefined, heard, failure);
    else await standAtGate(keeper, made, heard, failure, atHooks);
    if (heard.failed) throw heard.failed;
    const { pid, pidfd } = heard;
    const unstarted = heard.ready ? 0 : spawnError(keeper.pid);
    if (unstarted) throw new SystemError("start the keeper", unstarted);
    if (!heard.ready || pidfd < 0) throw new Failure("Unknown", "the process ended while it was set up");
    const terminal = io.terminal ? pidfdGetfd(pidfd, FD.terminal) : undefined;
    if (terminal !== undefined) check(binding.syscall(SYS.fcntl, terminal, 4, O_RDWR | O_NONBLOCK), "fcntl F_SETFL");
    done = true;
    if (!early) keeper.made();
    const player = keeper;
    const kept: Kept = {
      pid,
      pidfd,
      keeper: keeper.pid,
      keeperPidfd: keeper.pidfd,
      record,
      notify,
      control,
      terminal,
      gate: {
        write: keeper.gate,
        report: keeper.report,
        home: needsHome ? { uid } : undefined,
        open: early !== undefined,
      },
      failure,
      child: true,
      onStarted: trace
        ? () => {
            const stamps = player.stamps();
            if (stamps) tracePlayer(trace, made.plan(), stamps);
          }
        : undefined,
    };
    return kept;
  } finally {
    close(recordFd);
    if (!done) {
      const { pidfd } = heard;
      if (pidfd >= 0) pidfdSignal(pidfd, 9);
      if (keeper) {
        // The keeper reaps its process before it goes: an orphan would stay in its cgroup until someone else does.
        if (pidfd >= 0) await readable([notify, keeper.pidfd], 2000);
        pidfdSignal(keeper.pidfd, 9);
        await ended(keeper.pidfd);
        keeper.close();
      }
      close(pidfd);
      close(notify);
      close(control);
    }
  }
}

/** Waits until the process stands at its gate or has failed, and answers what it asks on its way. */
async function standAtGate(
  keeper: Player,
  planned: Planned,
  heard: Heard,
  failure: (index: number, errno: number) => Failure,
  atHooks?: (pid: number, pidfd: number) => Promise<void>,
): Promise<void> {
  let hooks = false;
  const asked: Asking[] = [];
  for (;;) {
    await hearReports(keeper.report, (report) => {
      if (report.tag === "pid") {
        heard.pid = report.pid;
        heard.pidfd = binding.syscall(SYS.pidfd_open, report.pid, 0);
      } else if (report.tag === "failed") heard.failed = failure(report.index, report.errno);
      else if (report.tag === "ready") heard.ready = true;
      else if (report.tag === "hooks") hooks = true;
      else if (report.tag === "missing" || report.tag === "notify" || report.tag === "idmap") asked.push(report);
      // What the process tells may come before its parent has told its pid: both must be known.
      return report.tag === "end" || ((heard.failed || heard.ready || hooks || asked.length > 0) && heard.pid > 0);
    });
    if (heard.failed || (!hooks && asked.length === 0)) return;
    for (const each of asked.splice(0)) (await import("./answers.ts")).answer(planned.plan(), heard, each);
    if (hooks) await atHooks?.(heard.pid, heard.pidfd);
    hooks = false;
    keeper.goOn();
  }
}

/** Resolves once one of the descriptors can be read, or the time is over. */
export function readable(fds: number[], milliseconds: number): Promise<void> {
  return new Promise((resolve) => {
    const over = () => {
      clearTimeout(timer);
      for (const each of watches) each.close();
      resolve();
    };
    const timer = setTimeout(over, milliseconds);
    const watches = fds.map((fd) => watch(fd, EPOLLIN, over));
  });
}

/** Removes a state directory that holds just these files as a rule: a walk costs several times as much. */
function removeState(directory: string, files: string[]): void {
  try {
    for (const file of files) unlinkSync(`${directory}/${file}`);
    rmdirSync(directory);
  } catch {
    removeSync(directory);
  }
}

export async function createContainer(options: CreateOptions): Promise<RuntimeContainer> {
  const { id, bundle, io, state } = options;
  if (!options.spec.process) throw new Failure("InvalidArgument", "config.json has no process");
  // Whether there is a terminal is the caller's to say: it has to serve it.
  const process: Process = { ...options.spec.process, terminal: io.terminal };
  const spec: Spec = { ...options.spec, process };
  try {
    mkdirSync(state, { recursive: true, mode: 0o711 });
  } catch (error) {
    throw new Failure("Unknown", `make state directory ${state}: ${(error as Error).message}`, { cause: error });
  }
  // What asks for a unit by its name means systemd's: not every caller has another way to say so.
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
  let unit: StartedUnit | undefined;
  try {
    if (bySystemd) unit = await (await import("./cgroups/systemd.ts")).startUnit(cgroup, spec);
    const plan = () =>
      containerPlan({
        id,
        bundle,
        spec,
        rootfs: options.rootfs,
        cgroup: openCgroup(cgroup).plan(spec.linux?.resources ?? {}),
        seccomp: spec.linux?.seccomp ? compileSeccomp(spec.linux.seccomp) : undefined,
        keeper: true,
        holds: io.hold.length,
        holdStdin: io.holdStdin >= 0,
        ownStdio: [io.stdin >= 0, io.stdout >= 0, io.stderr >= 0],
        nullStdio: [io.stdin < 0, io.stdout < 0, io.stderr < 0],
        preserved: 0,
        noPivot: false,
        keyring: true,
        pauseForHooks: pausesBeforePivot(spec),
      });
    const { hooks } = spec;
    const stateOf = (status: State["status"], pid: number): State => ({
      ociVersion: spec.ociVersion,
      id,
      status,
      pid,
      bundle,
      ...(spec.annotations ? { annotations: spec.annotations } : {}),
    });
    const atHooks = async (pid: number, pidfd: number) => {
      if (spec.linux?.netDevices) (await import("./net-devices.ts")).moveNetDevices(spec, pid);
      if (!hooks) return;
      const { runHooks } = await import("./hooks.ts");
      await runHooks("prestart", hooks, stateOf("creating", pid));
      await runHooks("createRuntime", hooks, stateOf("creating", pid));
      await runHooks("createContainer", hooks, stateOf("creating", pid), { target: pidfd, cwd: rootPathOf(spec, bundle) });
    };
    const init = await launch(plan, process, io, state, { target: -1, network: hasHelper(spec, facts()), atHooks });
    if (hooks) {
      init.beforeStart = async () =>
        (await import("./hooks.ts")).runHooks("startContainer", hooks, stateOf("created", init.pid), {
          target: init.pidfd,
          seccomp: spec.linux?.seccomp ? compileSeccomp(spec.linux.seccomp) : undefined,
          process: spec.process,
        });
      const traced = init.onStarted;
      init.onStarted = async () => {
        await traced?.();
        await (await import("./hooks.ts")).runPoststart(hooks, stateOf("running", init.pid), init.pidfd);
      };
    }
    done = true;
    return runtimeContainer(saved, state, () => spec, init, []);
  } catch (error) {
    (await import("./shape.ts")).checkSpecShape(spec);
    throw error;
  } finally {
    unit?.release();
    if (!done) {
      await openCgroup(cgroup).remove(true);
      removeSync(state);
    }
  }
}

/** `specOf` is asked only where a further process is started. */
export function runtimeContainer(
  saved: ContainerState,
  state: string,
  specOf: () => Spec,
  initKept: Kept,
  running: Iterable<RunningProcess>,
): RuntimeContainer {
  const cgroup: Cgroup = openCgroup(saved.cgroup);
  const init = runningProcess(initKept, () => {});
  const execs = new Set<RunningProcess>(running);
  const planOf = execPlans();
  const specForHooks = () => {
    if (!saved.hooks) return undefined;
    try {
      return specOf();
    } catch {
      return undefined;
    }
  };
  return {
    id: saved.id,
    init,
    async exec({ execId, process, io, opens }) {
      const directory = `${state}/exec-${execId}`;
      if (!/^[\w+.-]+$/.test(execId)) throw new Failure("InvalidArgument", `invalid exec id ${JSON.stringify(execId)}`);
      const spec = specOf();
      if (readExit(`${state}/record`) !== undefined) throw failedPrecondition("cannot exec in a stopped container");
      mkdirSync(directory, { mode: 0o700 });
      let done = false;
      try {
        const planned = planOf({
          id: saved.id,
          spec,
          state: { ociVersion: spec.ociVersion, id: saved.id, status: "running", pid: initKept.pid, bundle: saved.bundle },
          process: { ...process, terminal: io.terminal },
          cgroup: cgroup.planJoin(initKept.pid),
          keeper: true,
          holds: io.hold.length,
          holdStdin: io.holdStdin >= 0,
          ownStdio: [io.stdin >= 0, io.stdout >= 0, io.stderr >= 0],
          nullStdio: [io.stdin < 0, io.stdout < 0, io.stderr < 0],
          preserved: 0,
        });
        // The master of a terminal is fetched from the process at its gate.
        const early = io.terminal || planned.plan().listener ? undefined : { rooted: initKept.pid, opens };
        if (opens && !early && !(await opens)) throw new Failure("Cancelled", "the process was not wanted");
        const kept = await launch(() => planned, process, io, directory, { target: initKept.pidfd, early });
        const running = runningProcess(kept, () => {
          execs.delete(running);
          removeState(directory, ["record"]);
        });
        execs.add(running);
        done = true;
        return running;
      } finally {
        if (!done) removeSync(directory);
      }
    },
    pids: () => cgroup.pids(),
    killAll: (signal) => {
      for (const pid of cgroup.pids()) kill(pid, signal);
    },
    pause: () => cgroup.freeze(true),
    resume: () => cgroup.freeze(false),
    update: (resources) => cgroup.apply(resources),
    async checkpoint(options) {
      const spec = specOf();
      const subject = { spec, bundle: saved.bundle, rootfs: rootPathOf(spec, saved.bundle), cgroup: saved.cgroup };
      await (await import("./criu-dump.ts")).dump(subject, initKept.pid, options);
    },
    stats: () => cgroup.stats(),
    onOom: (callback) => cgroup.onOom(callback),
    async delete(force = false) {
      if (!force && readExit(`${state}/record`) === undefined && init.signal(0)) {
        throw failedPrecondition(`cannot delete container ${saved.id} that is not stopped`);
      }
      // Each keeper reaps its process before it is let go; all of them are given two seconds together.
      const processes = [init, ...execs];
      const alive = processes.map((each) => each.signal(9));
      if (alive[0] && cgroup.frozen()) await cgroup.freeze(false).catch(() => {});
      let timer: ReturnType<typeof setTimeout> | undefined;
      const late = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, 2000);
      });
      await Promise.race([Promise.all(processes.map((each) => each.exited)), late]);
      clearTimeout(timer);
      // The keeper takes the mounts down: whoever deletes a container may rely on their being gone.
      const gone = new Promise<void>((resolve) => {
        initKept.onGone = resolve;
      });
      const slow = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, 2000);
      });
      for (const each of processes) each.release();
      await cgroup.remove(true);
      await Promise.race([gone, slow]);
      clearTimeout(timer);
      const { hooks, ociVersion } = specForHooks() ?? {};
      removeState(state, ["state.json", "record"]);
      if (hooks?.poststop?.length) {
        const stopped: State = { ociVersion: ociVersion ?? "1.0.2", id: saved.id, status: "stopped", pid: 0, bundle: saved.bundle };
        await (await import("./hooks.ts")).runHooksAnyway("poststop", hooks, stopped, () => {});
      }
    },
  };
}
