// Limits: HostConfig's resources as the runtime specification has them.
import { statSync } from "node:fs";
import type { Resources as ApiResources, HostConfig } from "../../../api/types.ts";
import { invalidArgument } from "../../../lib/errors.ts";
import type { BlockIoResources, CpuResources, MemoryResources, Resources, Rlimit } from "../../../oci/runtime-spec.ts";
import { ULIMITS } from "../../ulimit.ts";

const CPU_PERIOD = 100_000;

export function memoryResources(host: ApiResources): MemoryResources | undefined {
  const memory: MemoryResources = {};
  if (host.Memory) memory.limit = host.Memory;
  if (host.MemoryReservation) memory.reservation = host.MemoryReservation;
  if (host.MemorySwap) memory.swap = host.MemorySwap;
  if (host.MemorySwappiness !== undefined && host.MemorySwappiness !== null && host.MemorySwappiness !== -1)
    memory.swappiness = host.MemorySwappiness;
  if (host.OomKillDisable) memory.disableOOMKiller = true;
  return Object.keys(memory).length > 0 ? memory : undefined;
}

export function cpuResources(host: ApiResources): CpuResources | undefined {
  const cpu: CpuResources = {};
  if (host.CpuShares) cpu.shares = host.CpuShares;
  if (host.NanoCpus) {
    cpu.period = CPU_PERIOD;
    cpu.quota = Math.round((host.NanoCpus * CPU_PERIOD) / 1e9);
  }
  if (host.CpuPeriod) cpu.period = host.CpuPeriod;
  if (host.CpuQuota) cpu.quota = host.CpuQuota;
  if (host.CpuRealtimePeriod) cpu.realtimePeriod = host.CpuRealtimePeriod;
  if (host.CpuRealtimeRuntime) cpu.realtimeRuntime = host.CpuRealtimeRuntime;
  if (host.CpusetCpus) cpu.cpus = host.CpusetCpus;
  if (host.CpusetMems) cpu.mems = host.CpusetMems;
  return Object.keys(cpu).length > 0 ? cpu : undefined;
}

function blockNumbers(path: string): { major: number; minor: number } {
  try {
    const { rdev } = statSync(path);
    return deviceNumbers(rdev);
  } catch {
    throw invalidArgument(`stat ${path}: no such file or directory`);
  }
}

/** Major and minor of a dev_t as stat(2) gives it (glibc's layout). */
export function deviceNumbers(rdev: number): { major: number; minor: number } {
  const value = BigInt(rdev);
  return {
    major: Number(((value >> 8n) & 0xfffn) | ((value >> 32n) & ~0xfffn)),
    minor: Number((value & 0xffn) | ((value >> 12n) & ~0xffn)),
  };
}

function blockIoResources(host: ApiResources): BlockIoResources | undefined {
  const io: BlockIoResources = {};
  if (host.BlkioWeight) io.weight = host.BlkioWeight;
  const throttle = (list: { Path?: string; Rate?: number }[] | undefined | null) =>
    (list ?? []).map((each) => ({ ...blockNumbers(each.Path ?? ""), rate: each.Rate ?? 0 }));
  if (host.BlkioWeightDevice?.length)
    io.weightDevice = host.BlkioWeightDevice.map((each) => ({ ...blockNumbers(each.Path ?? ""), weight: each.Weight ?? 0 }));
  if (host.BlkioDeviceReadBps?.length) io.throttleReadBpsDevice = throttle(host.BlkioDeviceReadBps);
  if (host.BlkioDeviceWriteBps?.length) io.throttleWriteBpsDevice = throttle(host.BlkioDeviceWriteBps);
  if (host.BlkioDeviceReadIOps?.length) io.throttleReadIOPSDevice = throttle(host.BlkioDeviceReadIOps);
  if (host.BlkioDeviceWriteIOps?.length) io.throttleWriteIOPSDevice = throttle(host.BlkioDeviceWriteIOps);
  return Object.keys(io).length > 0 ? io : undefined;
}

/** Everything but the device rules. */
export function resources(host: ApiResources): Resources {
  const result: Resources = {};
  const memory = memoryResources(host);
  if (memory) result.memory = memory;
  const cpu = cpuResources(host);
  if (cpu) result.cpu = cpu;
  if (host.PidsLimit) result.pids = { limit: host.PidsLimit > 0 ? host.PidsLimit : -1 };
  const blockIO = blockIoResources(host);
  if (blockIO) result.blockIO = blockIO;
  return result;
}

export function rlimits(host: HostConfig, defaults: Record<string, { Name: string; Soft: number; Hard: number }>): Rlimit[] {
  const limits = new Map(Object.values(defaults).map((each) => [each.Name, each]));
  for (const { Name = "", Soft = 0, Hard = 0 } of host.Ulimits ?? []) {
    if (!ULIMITS.has(Name)) throw invalidArgument(`invalid ulimit type: ${Name}`);
    limits.set(Name, { Name, Soft, Hard });
  }
  // -1 is RLIM_INFINITY, which has no exact number in JSON: the runtime takes any value from 2^53 on for it.
  const value = (limit: number) => (limit < 0 ? Number.parseInt("18446744073709551615", 10) : limit);
  return [...limits.values()].map(({ Name, Soft, Hard }) => ({
    type: `RLIMIT_${Name.toUpperCase()}`,
    soft: value(Soft),
    hard: value(Hard),
  }));
}
