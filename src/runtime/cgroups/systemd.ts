// A container's cgroup as a unit of systemd's (https://systemd.io/CONTAINER_DELEGATION): a scope, or a slice, that systemd makes for us by
// D-Bus and leaves to us. What it does not know the tape still writes to the files below.
//
//   const location = await locateUnit(spec, id, rootless)
//   const unit = await startUnit(location, spec)       a process of no use keeps it until
//   …                                                  the tape has put the container's first one there
//   unit.release()
//   await openCgroup(location).remove(true)            … and stops the unit
import { Failure, failedPrecondition, invalidArgument, unavailable } from "../../lib/errors.ts";
import { binding, pidfdSignal, readFileSync, SYS } from "../../linux/index.ts";
import type { Resources, Spec } from "../../oci/runtime-spec.ts";
import { type Bus, connectBus, refusalOf } from "../dbus/connection.ts";
import { startPlayer } from "../player.ts";
import { createTape } from "../tape.ts";
import { cgroupOwner, giveCgroup } from "./delegation.ts";
import { type CgroupLocation, type Hierarchies, hierarchies, pathsOf, type SystemdUnit, wantedControllers } from "./index.ts";
import { annotatedProperties, flag, limitProperties, type Property, strings } from "./unit-properties.ts";

const MANAGER = "org.freedesktop.systemd1.Manager";
const systemd = { destination: "org.freedesktop.systemd1", path: "/org/freedesktop/systemd1" };
const JOB_TIMEOUT = 30_000;

/** "a-b.slice" as the path "/a.slice/a-b.slice". */
export function expandSlice(slice: string): string {
  if (!slice.endsWith(".slice") || slice.length <= 6 || slice.includes("/")) throw invalidArgument(`invalid slice name: ${slice}`);
  const name = slice.slice(0, -6);
  if (name === "-") return "";
  let path = "";
  let prefix = "";
  for (const part of name.split("-")) {
    if (part === "") throw invalidArgument(`invalid slice name: ${slice}`);
    path += `/${prefix}${part}.slice`;
    prefix += `${part}-`;
  }
  return path;
}

/** cgroupsPath is SLICE:PREFIX:NAME. */
export function unitOf(cgroupsPath: string | undefined, id: string, user: boolean): SystemdUnit {
  const standard = user ? "user.slice" : "system.slice";
  if (!cgroupsPath) return { unit: `runc-${id}.scope`, slice: standard, user };
  const parts = cgroupsPath.split(":");
  if (parts.length !== 3)
    throw invalidArgument(
      `expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got ${JSON.stringify(cgroupsPath)} instead`,
    );
  const [slice, prefix, name] = parts as [string, string, string];
  if (/[/\0]/.test(prefix + name) || name === "") throw invalidArgument(`cgroupsPath ${JSON.stringify(cgroupsPath)} names no unit`);
  return { unit: name.endsWith(".slice") ? name : `${prefix}-${name}.scope`, slice: slice || standard, user };
}

export async function locateUnit(spec: Spec, id: string, rootless: boolean, all: Hierarchies = hierarchies()): Promise<CgroupLocation> {
  const user = rootless && all.version === 2;
  const unit = unitOf(spec.linux?.cgroupsPath, id, user);
  const below = `${expandSlice(unit.slice)}/${unit.unit}`;
  const directories: Record<string, string> = {};
  if (all.version === 2) {
    let manager = "";
    if (user) manager = await withBus(true, async (bus) => String(await property(bus, "ControlGroup")));
    directories[""] = `${all.mounts.get("") ?? "/sys/fs/cgroup"}${manager}${below}`;
  } else {
    const wanted = wantedControllers(spec, 1).add("name=systemd");
    const first = pathsOf(readFileSync("/proc/1/cgroup", "utf8"));
    for (const [controller, mountPoint] of all.mounts) {
      if (!wanted.has(controller)) continue;
      const base = (first.get(controller) ?? "").replace(/\/init\.scope$/, "").replace(/^\/$/, "");
      directories[controller] = `${mountPoint}${base}${below}`;
    }
  }
  return { version: all.version, directories, systemd: unit, ...(rootless ? { rootless } : {}) };
}

/** The bus where the manager listens; where there is no bus, its own socket. */
async function connect(user: boolean): Promise<Bus> {
  const { DBUS_SESSION_BUS_ADDRESS, DBUS_SYSTEM_BUS_ADDRESS, XDG_RUNTIME_DIR } = process.env;
  const own = XDG_RUNTIME_DIR || `/run/user/${process.geteuid?.() ?? 0}`;
  const bus = user
    ? DBUS_SESSION_BUS_ADDRESS || `unix:path=${own}/bus`
    : DBUS_SYSTEM_BUS_ADDRESS || "unix:path=/run/dbus/system_bus_socket;unix:path=/var/run/dbus/system_bus_socket";
  try {
    return await connectBus(bus);
  } catch (error) {
    try {
      return await connectBus(`unix:path=${user ? `${own}/systemd/private` : "/run/systemd/private"}`, { direct: true });
    } catch {
      const which = user ? "the user's systemd" : "systemd";
      throw unavailable(`systemd cgroup flag passed, but ${which} can't be reached: ${(error as Error).message}`);
    }
  }
}

async function withBus<T>(user: boolean, use: (bus: Bus) => Promise<T>): Promise<T> {
  const bus = await connect(user);
  try {
    return await use(bus);
  } finally {
    bus.close();
  }
}

async function property(bus: Bus, name: string): Promise<unknown> {
  const [answer] = await bus.call({
    ...systemd,
    interface: "org.freedesktop.DBus.Properties",
    member: "Get",
    signature: "ss",
    args: [MANAGER, name],
  });
  return (answer as { value: unknown }).value;
}

/** "252.30-1~deb12u2" or "v245.4" as a number. */
async function versionOf(bus: Bus): Promise<number> {
  return Number(/\d+/.exec(String(await property(bus, "Version")))?.[0] ?? 0);
}

/** Has systemd do something with a unit and waits until it is done. */
async function job(bus: Bus, member: string, signature: string, args: Parameters<Bus["call"]>[0]["args"]): Promise<string> {
  const results = new Map<string, string>();
  let told: () => void = () => {};
  const end = bus.onSignal(MANAGER, "JobRemoved", ({ body }) => {
    results.set(String(body[1]), String(body[3]));
    told();
  });
  try {
    // Without a bus in between, all hear everything, and there is nobody to ask.
    const rule = `type='signal',interface='${MANAGER}',member='JobRemoved',path='${systemd.path}'`;
    const dbus = { destination: "org.freedesktop.DBus", path: "/org/freedesktop/DBus", interface: "org.freedesktop.DBus" };
    await bus.call({ ...dbus, member: "AddMatch", signature: "s", args: [rule] }).catch(() => {});
    await bus.call({ ...systemd, interface: MANAGER, member: "Subscribe" }).catch(() => {});
    const [path] = await bus.call({ ...systemd, interface: MANAGER, member, signature, ...(args ? { args } : {}) });
    const deadline = Date.now() + JOB_TIMEOUT;
    for (;;) {
      const result = results.get(String(path));
      if (result !== undefined) return result;
      if (Date.now() > deadline) return "timeout";
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, deadline - Date.now());
        told = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  } finally {
    end();
  }
}

const resetFailed = (bus: Bus, unit: string) =>
  bus.call({ ...systemd, interface: MANAGER, member: "ResetFailedUnit", signature: "s", args: [unit] }).catch(() => {});

export interface StartedUnit {
  /** The container's own processes keep it from now on. */
  release(): void;
}

/** Makes the unit. A scope lives as long as something is in it, and the container has no process yet: one that only waits stands in for it. */
export async function startUnit({ systemd: wanted, version, directories }: CgroupLocation, spec: Spec): Promise<StartedUnit> {
  if (!wanted) throw invalidArgument("the cgroup is not systemd's");
  const { unit, slice, user } = wanted;
  const bus = await connect(user);
  const scope = !unit.endsWith(".slice");
  let keeper: ReturnType<typeof startWaiting> | undefined;
  let done = false;
  try {
    if (scope) keeper = startWaiting();
    const accounting = ["MemoryAccounting", "CPUAccounting", version === 2 ? "IOAccounting" : "BlockIOAccounting", "TasksAccounting"];
    const properties: Property[] = [
      ["Description", { signature: "s", value: `libcontainer container ${unit}` }],
      ...(scope
        ? ([
            ["Slice", { signature: "s", value: slice }],
            ["Delegate", flag(true)],
            ["PIDs", { signature: "au", value: [keeper!.pid] }],
          ] as Property[])
        : ([["Wants", strings([slice])]] as Property[])),
      ...accounting.map((name): Property => [name, flag(true)]),
      ["DefaultDependencies", flag(false)],
      ...annotatedProperties(spec.annotations ?? {}),
      ...limitProperties(spec.linux?.resources ?? {}, version, await versionOf(bus)),
    ];
    const start = () => job(bus, "StartTransientUnit", "ssa(sv)a(sa(sv))", [unit, "replace", properties, []]);
    const result = await start().catch(async (error: unknown) => {
      // What is left of a container that failed is in the way.
      if (refusalOf(error) !== "org.freedesktop.systemd1.UnitExists") throw error;
      await resetFailed(bus, unit);
      return start().catch((again: unknown) => {
        // A slice that is there already will do.
        if (!scope && refusalOf(again) === "org.freedesktop.systemd1.UnitExists") return "done";
        throw again;
      });
    });
    if (result !== "done") {
      await resetFailed(bus, unit);
      throw failedPrecondition(`error creating systemd unit \`${unit}\`: got \`${result}\``);
    }
    const owner = version === 2 ? cgroupOwner(spec) : undefined;
    if (owner !== undefined && owner !== process.geteuid?.()) giveCgroup(directories[""]!, owner, user);
    done = true;
    return { release: () => keeper?.end() };
  } catch (error) {
    if (error instanceof Failure && refusalOf(error))
      throw failedPrecondition(`unable to start unit ${JSON.stringify(unit)}: ${error.message}`);
    throw error;
  } finally {
    bus.close();
    if (!done) keeper?.end();
  }
}

/** A player whose tape only waits: 0.1 MB. */
function startWaiting(): { pid: number; end(): void } {
  const tape = createTape();
  tape.step(
    SYS.prctl,
    [
      { value: 1, name: "PR_SET_PDEATHSIG" },
      { value: 9, name: "SIGKILL" },
    ],
    { why: "end with the maker" },
  );
  const again = tape.label();
  tape.place(again);
  tape.step(SYS.pause, [], { why: "wait until the container is made", ignore: "all" });
  tape.jump(again);
  const none = { preserved: [], hold: [], holdStdin: -1, record: -1, notify: -1, control: -1, target: -1 };
  const player = startPlayer("jubako-unit", tape.encode(), { stdio: [-1, -1, -1], ...none }, 0);
  return {
    pid: player.pid,
    end() {
      pidfdSignal(player.pidfd, 9);
      while (binding.syscall(SYS.waitid, 3, player.pidfd, new Int32Array(32), 4, null) === -4);
      player.close();
    },
  };
}

/** Idempotent: a scope ends by itself once it is empty. */
export function stopUnit({ unit, user }: SystemdUnit): Promise<void> {
  return withBus(user, async (bus) => {
    try {
      await job(bus, "StopUnit", "ss", [unit, "replace"]);
    } catch (error) {
      if (refusalOf(error) !== "org.freedesktop.systemd1.NoSuchUnit") throw error;
    }
    await resetFailed(bus, unit);
  });
}

/** Tells systemd of new limits, before they are written to the files; until the unit ends, as it does not outlive the machine. */
export function updateUnit({ unit, user }: SystemdUnit, resources: Resources, version: 1 | 2): Promise<void> {
  return withBus(user, async (bus) => {
    const properties = limitProperties(resources, version, await versionOf(bus));
    if (properties.length === 0) return;
    await bus.call({ ...systemd, interface: MANAGER, member: "SetUnitProperties", signature: "sba(sv)", args: [unit, true, properties] });
  });
}
