// Commands on containers that exist: kill, delete, state, list, ps, pause, resume, update.
import { Failure, failedPrecondition, invalidArgument, isKind } from "../../lib/errors.ts";
import { close, kill as killPid, pidfdSignal, readFileSync, signalOf } from "../../linux/index.ts";
import type { Resources, Spec } from "../../oci/runtime-spec.ts";
import { openCgroup } from "../cgroups/index.ts";
import { openIdentity } from "../identity.ts";
import { parseJson } from "./bundle.ts";
import type { Context } from "./context.ts";
import { idOf, parseFlags, usageError } from "./flags.ts";
import { resourcesOf } from "./go-spelling.ts";
import { locate, removeContainer } from "./life.ts";
import { print } from "./output.ts";
import { cgroupOf, checkId, pidsOf, type Stored, statusOf } from "./store.ts";

const out = (text: string) => print(1, text);

export function signalNumber(text: string): number {
  if (/^\d+$/.test(text)) return Number(text);
  const number = signalOf(text);
  if (number === undefined) throw invalidArgument(`unknown signal ${JSON.stringify(text)}`);
  return number;
}

export async function kill(context: Context, argv: string[]): Promise<number> {
  // containerd puts --all after the id, too.
  const { on, rest } = parseFlags(argv, { all: "boolean", a: { short: "all" } });
  const words = rest.filter((word) => word !== "--all" && word !== "-a");
  const all = on("all") || words.length !== rest.length;
  const [id, name = "SIGTERM"] = words;
  if (!id || words.length > 2) throw usageError('jubako-runtime: "kill" requires a minimum of 1 argument(s)');
  const stored = context.store.load(id);
  const signal = signalNumber(name);
  if (all) {
    const pids = pidsOf(stored);
    for (const pid of pids) killPid(pid, signal);
    return 0;
  }
  // Without a pid namespace of its own the end of its first process ends nothing else.
  if (signal === 9 && sharesPids(safeSpec(context, id))) {
    const pids = pidsOf(stored);
    if (pids.length === 0) throw failedPrecondition("container not running");
    for (const pid of pids) killPid(pid, signal);
    if (cgroupOf(stored).frozen()) await cgroupOf(stored).freeze(false);
    return 0;
  }
  if (statusOf(stored) === "stopped") throw failedPrecondition("container not running");
  const pidfd = openIdentity(stored.init);
  if (pidfd === undefined) throw failedPrecondition("container not running");
  try {
    // The first process of a pid namespace hears nothing but SIGKILL until its program has said what it wants to hear.
    pidfdSignal(pidfd, statusOf(stored) === "created" && ends(signal) ? 9 : signal);
    // A frozen process takes even SIGKILL only once it thaws.
    if (signal === 9 && cgroupOf(stored).frozen()) await cgroupOf(stored).freeze(false);
  } finally {
    close(pidfd);
  }
  return 0;
}

/** Signals whose default it is to end the process (signal(7)): all but 0, CHLD, CONT, STOP, TSTP, TTIN, TTOU, URG, WINCH. */
const ends = (signal: number) => ![0, 17, 18, 19, 20, 21, 22, 23, 28].includes(signal);

const sharesPids = (spec: Spec | undefined) =>
  spec !== undefined && !spec.linux?.namespaces?.some(({ type, path }) => type === "pid" && !path);

export async function remove(context: Context, argv: string[]): Promise<number> {
  const flags = parseFlags(argv, { force: "boolean", f: { short: "force" } });
  const words = flags.rest.filter((word) => word !== "--force" && word !== "-f");
  const force = flags.on("force") || words.length !== flags.rest.length;
  const [id] = words;
  if (!id || words.length !== 1) throw usageError('jubako-runtime: "delete" requires exactly 1 argument(s)');
  const { store } = context;
  checkId(id);
  let stored: Stored;
  try {
    stored = store.load(id);
  } catch (error) {
    if (!isKind(error, "NotFound")) throw error;
    if (!force) throw error;
    // What a creation left that was killed in mid-work; its process ended with it.
    const spec = safeSpec(context, id);
    if (spec) await openCgroup(await locate(context, spec, id)).remove(true);
    store.remove(id);
    return 0;
  }
  const status = statusOf(stored);
  if (status !== "stopped") {
    if (!force && status !== "created") throw failedPrecondition(`cannot delete container ${id} that is not stopped: ${status}`);
    const pidfd = openIdentity(stored.init);
    if (pidfd !== undefined) {
      pidfdSignal(pidfd, 9);
      close(pidfd);
    }
  }
  await removeContainer(context, stored, stored && safeSpec(context, id));
  return 0;
}

function safeSpec(context: Context, id: string) {
  try {
    return context.store.spec(id);
  } catch {
    return undefined;
  }
}

function describe(stored: Stored, withOwner: boolean) {
  const status = statusOf(stored);
  return {
    ociVersion: stored.ociVersion,
    id: stored.id,
    pid: status === "stopped" ? 0 : stored.init.pid,
    status,
    bundle: stored.bundle,
    rootfs: stored.rootfs,
    created: stored.created,
    ...(stored.annotations ? { annotations: stored.annotations } : {}),
    owner: withOwner ? stored.owner : "",
  };
}

export async function state(context: Context, argv: string[]): Promise<number> {
  const id = idOf("state", parseFlags(argv, {}));
  out(JSON.stringify(describe(context.store.load(id), false), null, 2));
  return 0;
}

export async function list(context: Context, argv: string[]): Promise<number> {
  const flags = parseFlags(argv, { format: "value", f: { short: "format" }, quiet: "boolean", q: { short: "quiet" } });
  const all = context.store.list(context.rootGiven);
  if (flags.on("quiet")) {
    for (const { id } of all) out(`${id}\n`);
    return 0;
  }
  const format = flags.value("format") ?? "table";
  const described = all.map((stored) => describe(stored, true));
  if (format === "json") out(`${JSON.stringify(described.length ? described : null)}\n`);
  else if (format === "table") {
    const rows = [
      ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"],
      ...described.map((d) => [d.id, String(d.pid), d.status, d.bundle, d.created, d.owner]),
    ];
    out(table(rows));
  } else throw invalidArgument("invalid format option");
  return 0;
}

function table(rows: string[][]): string {
  const widths = rows[0]!.map((_, i) => Math.max(12, ...rows.map((row) => row[i]!.length + 3)));
  return rows.map((row) => `${row.map((cell, i) => (i === row.length - 1 ? cell : cell.padEnd(widths[i]!))).join("")}\n`).join("");
}

export async function ps(context: Context, argv: string[]): Promise<number> {
  const flags = parseFlags(argv, { format: "value", f: { short: "format" } });
  const [id, ...options] = flags.rest;
  if (!id) throw usageError('jubako-runtime: "ps" requires a minimum of 1 argument(s)');
  const pids = pidsOf(context.store.load(id));
  const format = flags.value("format") ?? "table";
  if (format === "json") {
    out(`${JSON.stringify(pids)}\n`);
    return 0;
  }
  if (format !== "table") throw invalidArgument("invalid format option");
  const lines = process
    .getBuiltinModule("node:child_process")
    .execFileSync("ps", options.length ? options : ["-ef"], { encoding: "utf8" })
    .split("\n");
  const column = lines[0]!.trim().split(/\s+/).indexOf("PID");
  if (column < 0) throw invalidArgument("couldn't find PID field in ps output");
  out(`${[lines[0], ...lines.slice(1).filter((line) => pids.includes(Number(line.trim().split(/\s+/)[column])))].join("\n")}\n`);
  return 0;
}

export async function pause(context: Context, argv: string[]): Promise<number> {
  const stored = context.store.load(idOf("pause", parseFlags(argv, {})));
  const status = statusOf(stored);
  if (status !== "running" && status !== "created") throw failedPrecondition("container not running");
  await cgroupOf(stored).freeze(true);
  return 0;
}

export async function resume(context: Context, argv: string[]): Promise<number> {
  const stored = context.store.load(idOf("resume", parseFlags(argv, {})));
  if (statusOf(stored) !== "paused") throw failedPrecondition("container not paused");
  await cgroupOf(stored).freeze(false);
  return 0;
}

/** "50M", "1.5g", "1024", -1. */
function bytesOf(name: string, text: string): number {
  const match = /^(-?\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?$/i.exec(text);
  if (!match) throw usageError(`invalid value for ${name}: invalid size: '${text}'`);
  return Math.trunc(Number(match[1]) * 1024 ** " kmgtp".indexOf(match[2]?.toLowerCase() || " "));
}

export async function update(context: Context, argv: string[]): Promise<number> {
  const names = [
    "blkio-weight",
    "cpu-period",
    "cpu-quota",
    "cpu-burst",
    "cpu-share",
    "cpu-rt-period",
    "cpu-rt-runtime",
    "cpu-idle",
    "memory",
  ];
  const more = ["memory-reservation", "memory-swap", "pids-limit"];
  const values = [
    ...names,
    ...more,
    "cpuset-cpus",
    "cpuset-mems",
    "resources",
    "l3-cache-schema",
    "mem-bw-schema",
    "kernel-memory",
    "kernel-memory-tcp",
  ];
  const valueTable = Object.fromEntries(values.map((name) => [name, "value" as const]));
  // Here options may follow the id.
  const first = parseFlags(argv, { ...valueTable, r: { short: "resources" } });
  const id = first.rest[0];
  if (!id) throw usageError('jubako-runtime: "update" requires exactly 1 argument(s)');
  const second = parseFlags(first.rest.slice(1), { ...valueTable, r: { short: "resources" } });
  const value = (name: string) => second.value(name) ?? first.value(name);
  const number = (name: string) => second.number(name) ?? first.number(name);
  const size = (name: string) => {
    const text = value(name);
    return text === undefined ? undefined : bytesOf(name, text);
  };
  if (value("l3-cache-schema") || value("mem-bw-schema")) throw new Failure("Unimplemented", "Intel RDT is not supported");
  if (value("kernel-memory")) context.warn("Kernel memory settings are ignored and will be removed");
  const stored = context.store.load(id);
  if (statusOf(stored) === "stopped") throw failedPrecondition("container not running");
  // Before stdin is read: where this host lacks it, another program does the whole command, and finds what is left of its input.
  if (stored.cgroup.systemd) await import("../cgroups/systemd.ts");
  const file = value("resources");
  if (file) {
    const given = parseJson(readFileSync(file === "-" ? 0 : file, "utf8"), file);
    const { checkResourcesShape } = await import("../shape.ts");
    checkResourcesShape(given);
    const resources = resourcesOf(given as Record<string, unknown>);
    checkResourcesShape(resources);
    delete resources.devices;
    await cgroupOf(stored).apply(resources);
    return 0;
  }
  const pick = <T extends object>(from: Record<string, number | string | undefined>): T | undefined => {
    const set = Object.fromEntries(Object.entries(from).filter(([, v]) => v !== undefined));
    return Object.keys(set).length ? (set as T) : undefined;
  };
  const memory = pick<NonNullable<Resources["memory"]>>({
    limit: size("memory"),
    reservation: size("memory-reservation"),
    swap: size("memory-swap"),
    kernelTCP: size("kernel-memory-tcp"),
  });
  const cpu = pick<NonNullable<Resources["cpu"]>>({
    period: number("cpu-period"),
    quota: number("cpu-quota"),
    burst: number("cpu-burst"),
    shares: number("cpu-share"),
    realtimePeriod: number("cpu-rt-period"),
    realtimeRuntime: number("cpu-rt-runtime"),
    idle: number("cpu-idle"),
    cpus: value("cpuset-cpus"),
    mems: value("cpuset-mems"),
  });
  const weight = number("blkio-weight");
  const limit = number("pids-limit");
  await cgroupOf(stored).apply({
    ...(memory ? { memory } : {}),
    ...(cpu ? { cpu } : {}),
    ...(limit !== undefined ? { pids: { limit } } : {}),
    ...(weight ? { blockIO: { weight } } : {}),
  });
  return 0;
}
