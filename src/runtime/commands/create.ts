// create and run: bundle → container. `create` leaves its init at the gate, `run` opens it and, unless detached, stays until the end.
import { Failure, failedPrecondition, invalidArgument, messageOf } from "../../lib/errors.ts";
import { close, fileIdentity, readFileSync } from "../../linux/index.ts";
import type { Process, Spec } from "../../oci/runtime-spec.ts";
import { readText } from "../cgroups/files.ts";
import { type CgroupLocation, openCgroup } from "../cgroups/index.ts";
import type { StartedUnit } from "../cgroups/systemd.ts";
import { facts } from "../facts.ts";
import { identityOf } from "../identity.ts";
import type { LifeTape } from "../life-tape.ts";
import type { CreateInput } from "../plan/create.ts";
import { pausesBeforePivot } from "../plan/pause.ts";
import { rootPathOf } from "../plan/root-path.ts";
import { wholeMounts } from "../whole-mounts.ts";
import { bundleOf, readBundle } from "./bundle.ts";
import type { Context } from "./context.ts";
import { type Flags, type FlagTable, idOf, parseFlags } from "./flags.ts";
import {
  type Launched,
  launch,
  nullStdio,
  ownStdio,
  preservedFds,
  sendPidfd,
  sendTerminal,
  tellOfCapabilities,
  writePidFile,
} from "./launch.ts";
import { homeFor, leaveRoot, locate, openGateNow, openNotify, removeContainer, startCreated } from "./life.ts";
import type { NotifySocket } from "./notify-socket.ts";
import { planContainer } from "./plans.ts";
import type { Stay } from "./stay.ts";
import { type Stored, stateOf } from "./store.ts";

const shared: FlagTable = {
  bundle: "value",
  b: { short: "bundle" },
  "console-socket": "value",
  "pid-file": "value",
  "pidfd-socket": "value",
  "no-pivot": "boolean",
  "no-new-keyring": "boolean",
  "preserve-fds": "value",
  "dry-run": "boolean",
  json: "boolean",
};

export const createFlags = shared;
export const runFlags: FlagTable = { ...shared, detach: "boolean", d: { short: "detach" }, keep: "boolean", "no-subreaper": "boolean" };

/** What create, run and explain plan for a bundle. */
export function inputOf(
  id: string,
  bundle: string,
  spec: Spec,
  flags: Flags,
  preserved: number,
  location: CgroupLocation,
  rehearsal = false,
): CreateInput {
  return {
    id,
    bundle,
    spec,
    rootfs: [],
    cgroup: openCgroup(location).plan(spec.linux?.resources ?? {}, rehearsal),
    seccomp: undefined,
    keeper: false,
    holds: 0,
    holdStdin: false,
    ownStdio: spec.process ? ownStdio(spec.process) : [],
    nullStdio: nullStdio(),
    preserved,
    noPivot: flags.on("no-pivot") && wholeMounts(rootPathOf(spec, bundle)),
    keyring: !flags.on("no-new-keyring"),
    pauseForHooks: pausesBeforePivot(spec),
    // Whoever asks for its pidfd may want to end it before it starts, by whatever signal.
    mortal: flags.value("pidfd-socket") !== undefined,
  };
}

/** A cgroup that is there already: others' processes would share the container's limits and its end; a frozen one would hold it for ever. */
function lookAtCgroup({ version, directories }: Stored["cgroup"], warn: Context["warn"]): void {
  const directory = version === 1 ? (directories.freezer ?? directories.pids) : directories[""];
  const procs = directory === undefined ? undefined : readText(`${directory}/cgroup.procs`);
  if (directory === undefined || procs === undefined) return;
  const running = procs.split("\n").filter(Boolean).length;
  if (running > 0) warn(`container's cgroup is not empty: ${running} process(es) found`);
  if (openCgroup({ version, directories }).frozen()) throw failedPrecondition("container's cgroup unexpectedly frozen");
}

export interface Created {
  stored: Stored;
  spec: Spec;
  launched: Launched;
}

/** `underway` is called while the process is on its way to its gate. */
export async function createFromBundle(
  context: Context,
  id: string,
  flags: Flags,
  detached: boolean,
  underway?: (stored: Stored, spec: Spec) => Promise<void>,
): Promise<Created> {
  const bundle = bundleOf(flags.value("bundle"));
  const spec = readBundle(bundle);
  const { process } = spec;
  if (!process) throw invalidArgument("config.json has no process");
  checkConsole(process, flags.value("console-socket"), detached);
  tellOfCapabilities(process, context.warn);
  const preserved = preservedFds(flags.number("preserve-fds") ?? 0);
  if (preserved.env.length) process.env = [...(process.env ?? []), ...preserved.env];
  const { store } = context;
  const directory = store.reserve(id);
  let launched: Launched | undefined;
  let location: CgroupLocation | undefined;
  let unit: StartedUnit | undefined;
  let done = false;
  try {
    if (globalThis.process.env.NOTIFY_SOCKET) (await import("./notify-socket.ts")).offerNotifySocket(spec, directory);
    const found = await locate(context, spec, id);
    if (
      context.rootless &&
      Object.keys(found.directories).length === 0 &&
      !spec.linux?.namespaces?.some(({ type, path }) => type === "pid" && !path)
    )
      context.warn(
        "A rootless container with neither a cgroup nor a pid namespace of its own cannot be killed as a whole. Such configuration is strongly discouraged.",
      );
    // Before what keeps a scope is in it, too.
    if (found.systemd) {
      lookAtCgroup(found, context.warn);
      unit = await (await import("../cgroups/systemd.ts")).startUnit(found, spec);
    }
    const planned = await planContainer(inputOf(id, bundle, spec, flags, preserved.fds.length, found));
    if (!unit) lookAtCgroup(found, context.warn);
    checkScheduler(spec);
    location = found;
    const stored: Stored = {
      ociVersion: spec.ociVersion,
      id,
      bundle,
      rootfs: spec.root ? rootPathOf(spec, bundle) : "",
      created: new Date().toISOString(),
      init: { pid: 0, start: "" },
      cgroup: location,
      owner: ownerName(),
      ...(spec.annotations ? { annotations: spec.annotations } : {}),
    };
    store.announce(id, spec);
    const creating = (pid: number) => stateOf({ ...stored, init: { pid, start: "" } }, "creating");
    let life: LifeTape | undefined;
    launched = await launch(
      planned,
      process,
      preserved.fds,
      -1,
      spec.linux,
      async (pid, pidfd) => {
        if (spec.linux?.netDevices) (await import("../net-devices.ts")).moveNetDevices(spec, pid);
        if (!spec.hooks) return;
        const { runHooks } = await import("../hooks.ts");
        await runHooks("prestart", spec.hooks, creating(pid));
        await runHooks("createRuntime", spec.hooks, creating(pid));
        await runHooks("createContainer", spec.hooks, creating(pid), { target: pidfd, cwd: rootPathOf(spec, bundle) });
      },
      context.debug,
      async (pid, pidfd, gate) => {
        stored.init = identityOf(pid) ?? stored.init;
        store.save(stored);
        if (detached && lifeIsPlain(spec, found)) life = await lifeOf(id, pid, pidfd, gate, found);
        await underway?.(stored, spec);
      },
    );
    launched.made();
    if (life?.setHome(homeFor(launched.pid, process))) store.saveTape(id, life.file);
    context.debug?.("init: closing the pipe to signal completion: the container is written down");
    const socket = flags.value("console-socket");
    if (socket && launched.terminal !== undefined) sendTerminal(socket, launched.terminal);
    sendPidfd(flags.value("pidfd-socket"), launched.pidfd);
    writePidFile(flags.value("pid-file"), launched.pid);
    done = true;
    return { stored, spec, launched };
  } catch (error) {
    // To check everything takes a tenth of a creation: what went wrong for a wrong type is told so afterwards.
    (await import("../shape.ts")).checkSpecShape(spec);
    throw error;
  } finally {
    unit?.release();
    if (!done) {
      launched?.abandon();
      if (location) await openCgroup(location).remove(true);
      leaveRoot(spec, bundle);
      store.remove(id);
    }
  }
}

/** Whether nothing of ours is needed when it starts and ends: no hooks, no unit of systemd's, no mounts of this namespace, nobody to be told. */
function lifeIsPlain({ hooks, linux }: Spec, { systemd }: CgroupLocation): boolean {
  if (hooks?.startContainer?.length || hooks?.poststart?.length || hooks?.poststop?.length) return false;
  if (systemd || globalThis.process.env.NOTIFY_SOCKET) return false;
  return linux?.namespaces?.some(({ type }) => type === "mount") === true;
}

/** Since then a pidfd's inode tells one process from all others. */
const PIDFS = 6.09;

async function lifeOf(id: string, pid: number, pidfd: number, gate: number, cgroup: CgroupLocation): Promise<LifeTape> {
  const process = facts().kernel >= PIDFS ? fileIdentity(pidfd) : undefined;
  return (await import("../life-tape.ts")).lifeTape({
    id,
    pid,
    gate: fileIdentity(gate),
    process,
    boot: readFileSync("/proc/sys/kernel/random/boot_id", "utf8"),
    cgroup,
  });
}

/** The kernel plans deadlines for all cpus of a root domain: a process with one can't be held on some of them (sched_setaffinity(2)). */
function checkScheduler({ linux, process }: Spec): void {
  if (process?.scheduler?.policy === "SCHED_DEADLINE" && linux?.resources?.cpu?.cpus)
    throw invalidArgument("process scheduler can't be used together with AllowedCPUs");
}

/** As /etc/passwd has it; who is not there is called by his number, as runc does. */
export function ownerName(): string {
  const uid = globalThis.process.geteuid?.() ?? 0;
  if (uid === 0) return "root";
  const line = (readText("/etc/passwd") ?? "").split("\n").find((each) => each.split(":")[2] === String(uid));
  return line?.split(":")[0] || `#${uid}`;
}

/** In runc's words. */
export function checkConsole(process: Process, socket: string | undefined, detached: boolean): void {
  if (detached && process.terminal && !socket)
    throw invalidArgument("cannot allocate tty if runc will detach without setting console socket");
  if ((!detached || !process.terminal) && socket)
    throw invalidArgument("cannot use console socket if runc will not detach or allocate tty");
}

export async function create(context: Context, argv: string[]): Promise<number> {
  const flags = parseFlags(argv, createFlags);
  if (flags.on("dry-run")) return (await import("./inform.ts")).explainBundle(context, idOf("create", flags), flags);
  const { launched } = await wrap("create", () => createFromBundle(context, idOf("create", flags), flags, true));
  if (launched.terminal !== undefined) close(launched.terminal);
  return 0;
}

export async function run(context: Context, argv: string[]): Promise<number> {
  const flags = parseFlags(argv, runFlags);
  const id = idOf("run", flags);
  const detached = flags.on("detach");
  if (flags.on("dry-run")) return (await import("./inform.ts")).explainBundle(context, id, flags);
  return wrap("run", async () => {
    let stay: Stay | undefined;
    const { stored, spec, launched } = await createFromBundle(context, id, flags, detached, async (made, spec) => {
      if (detached || spec.process?.terminal || !lifeIsPlain(spec, made.cgroup)) return;
      const forgotten = flags.on("keep") ? undefined : { root: context.store.root, id, cgroup: made.cgroup };
      stay = (await import("./stay.ts")).prepareStay(forgotten);
    });
    const process = spec.process!;
    let notify: NotifySocket | undefined;
    try {
      notify = await openNotify(context, id);
      stay?.hold();
      if (!detached && launched.terminal !== undefined) (await import("./foreground.ts")).prepareTerminal(launched.terminal);
      await startCreated(stored, spec, launched.pidfd, () => {
        return openGateNow(homeFor(launched.pid, process), launched.gate, launched.report, launched.failure);
      });
    } catch (error) {
      notify?.close();
      launched.abandon();
      await removeContainer(context, stored, spec);
      throw error;
    }
    const told = notify?.told(launched.pid, launched.pidfd);
    if (detached) {
      await told;
      if (launched.terminal !== undefined) close(launched.terminal);
      return 0;
    }
    told?.catch((error: unknown) => context.warn(messageOf(error)));
    stay?.begin(launched.pidfd);
    const status = await (await import("./foreground.ts")).attend(launched.pidfd, launched.terminal);
    notify?.close();
    if (!flags.on("keep")) await removeContainer(context, stored, spec);
    return status;
  });
}

/** "runc create failed: unable to start container process: …": what Docker and containerd look for. */
async function wrap<T>(command: string, fn: () => Promise<T>): Promise<T> {
  try {
    return await fn();
  } catch (error) {
    if (error instanceof Failure && /^(exec|chdir)[ :]/.test(error.message)) {
      throw new Failure(error.kind, `runc ${command} failed: unable to start container process: ${error.message}`, { cause: error });
    }
    const text = error instanceof Error ? error.message : String(error);
    const message = /^(make|enter) cgroup|^put the process into cgroup/.test(text) ? `unable to apply cgroup configuration: ${text}` : text;
    throw new Failure(error instanceof Failure ? error.kind : "Unknown", `runc ${command} failed: ${message}`, { cause: error });
  }
}
