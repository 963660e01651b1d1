// What a container's limits are as properties of a systemd unit (systemd.resource-control(5)): systemd keeps the files of its units' cgroups as it
// knows them, so it has to know them. Conversions are runc's.
import { invalidArgument } from "../../lib/errors.ts";
import { existsSync, readFileSync } from "../../linux/index.ts";
import type { DeviceRule, Resources } from "../../oci/runtime-spec.ts";
import type { Value, Variant } from "../dbus/wire.ts";
import { effectiveRules } from "./devices.ts";
import { cpuWeight, swapOf } from "./v2.ts";
import { parseVariant } from "./variant-text.ts";

export type Property = [name: string, value: Variant];

const INFINITY = 0xffff_ffff_ffff_ffffn;
const DEFAULT_PERIOD = 100_000;
/** The first that knows the property. */
const SINCE = { CPUQuotaPeriodUSec: 242, AllowedCPUs: 244, idle: 252 };

const u64 = (value: number | bigint): Variant => ({ signature: "t", value: value < 0 ? INFINITY : BigInt(value) });
const text = (value: string): Variant => ({ signature: "s", value });
export const flag = (value: boolean): Variant => ({ signature: "b", value });
export const strings = (value: readonly string[]): Variant => ({ signature: "as", value });

/** `quota` of `period` as microseconds a second. systemd writes whole percents: rounded up, so that what is below can have its due. */
function quotaProperties(quota: number, period: number, version: number): Property[] {
  if (!quota && !period) return [];
  const properties: Property[] = [];
  if (period && version >= SINCE.CPUQuotaPeriodUSec) properties.push(["CPUQuotaPeriodUSec", u64(period)]);
  let perSecond: number | bigint = -1;
  if (quota > 0) perSecond = Math.ceil(Math.floor((quota * 1_000_000) / (period || DEFAULT_PERIOD)) / 10_000) * 10_000;
  properties.push(["CPUQuotaPerSecUSec", u64(perSecond)]);
  return properties;
}

/** "0-2,7" as systemd's bit mask, the lowest cpu in the lowest bit of the first byte. */
export function cpuMask(list: string): Variant {
  const bytes: number[] = [];
  for (const range of list.split(",").map((part) => part.trim())) {
    const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(range);
    const first = Number(match?.[1]);
    const last = Number(match?.[2] ?? match?.[1]);
    if (!match || last < first) throw invalidArgument(`${JSON.stringify(list)} is not a list of cpus or memory nodes`);
    for (let n = first; n <= last; n++) bytes[n >> 3] = (bytes[n >> 3] ?? 0) | (1 << (n & 7));
  }
  return { signature: "ay", value: Array.from(bytes, (byte) => byte ?? 0) };
}

function cpusetProperties(cpus: string | undefined, mems: string | undefined, version: number): Property[] {
  if (version < SINCE.AllowedCPUs) return [];
  return [
    ...(cpus ? [["AllowedCPUs", cpuMask(cpus)] as Property] : []),
    ...(mems ? [["AllowedMemoryNodes", cpuMask(mems)] as Property] : []),
  ];
}

/** The name of a driver by its major number, for "char-NAME". */
function driverOf(type: "b" | "c", major: number): string | undefined {
  const [, characters = "", blocks = ""] =
    /Character devices:\n([\s\S]*)\nBlock devices:\n([\s\S]*)/.exec(readFileSync("/proc/devices", "utf8")) ?? [];
  const line = (type === "c" ? characters : blocks).split("\n").find((each) => Number.parseInt(each, 10) === major);
  return line?.trim().split(/\s+/)[1];
}

function deviceEntry({ type, major = -1, minor = -1, access }: DeviceRule): Value[] {
  if (type !== "b" && type !== "c") return [];
  const kind = type === "c" ? "char" : "block";
  const permissions = access || "rwm";
  if (major >= 0 && minor >= 0) {
    const path = `/dev/${kind}/${major}:${minor}`;
    // What the kernel does not have, older versions stumble over.
    return existsSync(`/sys/dev/${kind}/${major}:${minor}`) ? [[path, permissions]] : [];
  }
  if (major < 0) return [[`${kind}-*`, permissions]];
  const driver = driverOf(type, major);
  return driver ? [[`${kind}-${driver}`, permissions]] : [];
}

function deviceProperties(asked: readonly DeviceRule[]): Property[] {
  const { allowAll, rules } = effectiveRules(asked);
  const policy = allowAll && rules.length === 0 ? "auto" : "strict";
  // Exceptions to "everything" systemd has no words for; the rules themselves are set on the cgroup in any case.
  const entries = allowAll ? [] : rules.filter(({ allow }) => allow).flatMap(deviceEntry);
  return [
    ["DevicePolicy", text(policy)],
    ["DeviceAllow", { signature: "a(ss)", value: [] }],
    ...(entries.length ? [["DeviceAllow", { signature: "a(ss)", value: entries }] as Property] : []),
  ];
}

const UNIFIED: Record<string, string> = {
  "cpu.weight": "CPUWeight",
  "memory.high": "MemoryHigh",
  "memory.low": "MemoryLow",
  "memory.min": "MemoryMin",
  "memory.max": "MemoryMax",
  "memory.swap.max": "MemorySwapMax",
  "pids.max": "TasksMax",
};

function unifiedProperties(unified: Record<string, string>, version: number): Property[] {
  return Object.entries(unified).flatMap(([name, value]): Property[] => {
    const known = UNIFIED[name];
    if (known) {
      if (!/^(max|\d+)$/.test(value)) throw invalidArgument(`unified resource ${name} value conversion error: ${JSON.stringify(value)}`);
      return [[known, u64(value === "max" ? -1 : BigInt(value))]];
    }
    if (name === "cpu.idle") return version >= SINCE.idle && value.trim() === "1" ? [["CPUWeight", u64(0)]] : [];
    if (name === "cpuset.cpus") return cpusetProperties(value, undefined, version);
    if (name === "cpuset.mems") return cpusetProperties(undefined, value, version);
    if (name === "cpu.max") {
      const [quota = "max", period = String(DEFAULT_PERIOD)] = value.trim().split(/\s+/);
      return quotaProperties(quota === "max" ? -1 : Number(quota), Number(period), version);
    }
    return [];
  });
}

/** `version`: systemd's. */
export function limitProperties(resources: Resources, cgroups: 1 | 2, version: number): Property[] {
  const { memory, cpu, pids, blockIO, devices, unified } = resources;
  const properties: Property[] = devices ? deviceProperties(devices) : [];
  const quota = quotaProperties(cpu?.quota ?? 0, cpu?.period ?? 0, version);
  const cpuset = cpusetProperties(cpu?.cpus, cpu?.mems, version);
  const tasks: Property[] = pids?.limit !== undefined ? [["TasksMax", u64(pids.limit || 1)]] : [];
  if (cgroups === 1) {
    if (memory?.limit) properties.push(["MemoryLimit", u64(memory.limit)]);
    if (cpu?.shares) properties.push(["CPUShares", u64(cpu.shares)]);
    properties.push(...quota);
    if (blockIO?.weight) properties.push(["BlockIOWeight", u64(blockIO.weight)]);
    return [...properties, ...tasks, ...cpuset];
  }
  if (memory?.limit) properties.push(["MemoryMax", u64(memory.limit)]);
  if (memory?.reservation) properties.push(["MemoryLow", u64(memory.reservation)]);
  const swap = swapOf(memory?.limit ?? 0, memory?.swap ?? 0);
  if (swap !== 0) properties.push(["MemorySwapMax", u64(swap === "none" ? 0 : swap)]);
  const idle = cpu?.idle === 1 && version >= SINCE.idle;
  if (idle) properties.push(["CPUWeight", u64(0)]);
  else if (cpu?.shares) properties.push(["CPUWeight", u64(cpuWeight(cpu.shares))]);
  return [...properties, ...quota, ...tasks, ...cpuset, ...unifiedProperties(unified ?? {}, version)];
}

const ANNOTATION = "org.systemd.property.";

/** Annotations "org.systemd.property.NAME", with values as gdbus writes them; a NAME in seconds becomes one in microseconds. */
export function annotatedProperties(annotations: Record<string, string>): Property[] {
  return Object.entries(annotations).flatMap(([key, value]): Property[] => {
    if (!key.startsWith(ANNOTATION)) return [];
    const name = key.slice(ANNOTATION.length);
    if (!/^[A-Za-z]{3,}$/.test(name)) throw invalidArgument(`annotation ${key} name incorrect: ${JSON.stringify(name)}`);
    let parsed: Variant;
    try {
      parsed = parseVariant(value);
    } catch (error) {
      throw invalidArgument(`annotation ${key}=${value} value parse error: ${(error as Error).message}`);
    }
    if (!/[a-z]Sec$/.test(name) || name.endsWith("USec")) return [[name, parsed]];
    if (typeof parsed.value !== "number" && typeof parsed.value !== "bigint")
      throw invalidArgument(`annotation ${key}=${value} value parse error: it is not a number of seconds`);
    return [[name.replace(/Sec$/, "USec"), u64(Math.round(Number(parsed.value) * 1_000_000))]];
  });
}
