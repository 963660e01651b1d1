// A container of ours: made by a tape, held by its keeper, found again by what lies in its state directory (state-directory.ts).
import { Failure, failedPrecondition } from "../lib/errors.ts";
import { close, kill, mkdirSync, removeSync } from "../linux/index.ts";
import type { Process, Spec, State } from "../oci/runtime-spec.ts";
import { type Cgroup, locateCgroup, openCgroup } from "./cgroups/index.ts";
import type { StartedUnit } from "./cgroups/systemd.ts";
import { isUnitPath } from "./cgroups/unit-path.ts";
import { containerPlan } from "./create-plans.ts";
import { execPlans } from "./exec-plans.ts";
import type { CreateOptions, RunningProcess, RuntimeContainer } from "./face.ts";
import { facts } from "./facts.ts";
import { type Kept, readExit, runningProcess } from "./keeper.ts";
import { launch } from "./launch.ts";
import { hasHelper } from "./plan/network.ts";
import { pausesBeforePivot } from "./plan/pause.ts";
import { rootPathOf } from "./plan/root-path.ts";
import { compileSeccomp } from "./seccomp.ts";
import { type ContainerState, claimState, makeRecord, removeState, saveState } from "./state-directory.ts";

export async function createContainer(options: CreateOptions): Promise<RuntimeContainer> {
  const { id, bundle, io, state } = options;
  if (!options.spec.process) throw new Failure("InvalidArgument", "config.json has no process");
  // Whether there is a terminal is the caller's to say: it has to serve it.
  const process: Process = { ...options.spec.process, terminal: io.terminal };
  const spec: Spec = { ...options.spec, process };
  const record = claimState(id, state);
  let saved: ContainerState | undefined;
  let done = false;
  let unit: StartedUnit | undefined;
  try {
    // What asks for a unit by its name means systemd's: not every caller has another way to say so.
    if (isUnitPath(spec.linux?.cgroupsPath)) {
      const { locateUnit, startUnit } = await import("./cgroups/systemd.ts");
      saved = saveState(state, id, bundle, await locateUnit(spec, id, false), spec);
      unit = await startUnit(saved.cgroup, spec);
    }
    // The player is on its way by now; it does nothing that has to be written down before it has the plan.
    const plan = () => {
      saved ??= saveState(state, id, bundle, locateCgroup(spec, id), spec);
      return containerPlan({
        id,
        bundle,
        spec,
        rootfs: options.rootfs,
        cgroup: openCgroup(saved.cgroup).plan(spec.linux?.resources ?? {}),
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
    };
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
    const init = await launch(plan, process, io, state, { record, target: -1, network: hasHelper(spec, facts()), atHooks });
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
    return runtimeContainer(saved!, state, () => spec, init, []);
  } catch (error) {
    (await import("./shape.ts")).checkSpecShape(spec);
    throw error;
  } finally {
    unit?.release();
    close(record);
    if (!done) {
      if (saved) await openCgroup(saved.cgroup).remove(true);
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
      let record = -1;
      let done = false;
      try {
        record = makeRecord(directory);
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
        const kept = await launch(() => planned, process, io, directory, { record, target: initKept.pidfd, early });
        const running = runningProcess(kept, () => {
          execs.delete(running);
          removeState(directory, ["record"]);
        });
        execs.add(running);
        done = true;
        return running;
      } finally {
        close(record);
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
