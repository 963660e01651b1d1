// What the task service measured (cgroup v1 or v2), as the Engine API shows it.
import { fromBinary } from "@bufbuild/protobuf";
import type { Any } from "@bufbuild/protobuf/wkt";
import type { ContainerBlkioStatEntry, ContainerBlkioStats, ContainerMemoryStats, ContainerStatsResponse } from "../../api/types.ts";
import { type BlkIOEntry, MetricsSchema as MetricsV1 } from "../../gen/io/containerd/cgroups/v1_pb.ts";
import { MetricsSchema as MetricsV2 } from "../../gen/io/containerd/cgroups/v2_pb.ts";

/** The part of a response that comes from the cgroup. */
export interface Sample {
  cpu: {
    total: number;
    perCpu: number[] | undefined;
    kernel: number;
    user: number;
    periods: number;
    throttledPeriods: number;
    throttledTime: number;
  };
  memory: ContainerMemoryStats;
  pids: { current?: number; limit?: number };
  blkio: ContainerBlkioStats;
}

// Beyond this a number of the kernel means "no limit"; it would not survive as a double either.
const UNLIMITED = 2n ** 62n;

const number = (value: bigint | undefined) => Number(value ?? 0n);
const limit = (value: bigint | undefined, otherwise: number) =>
  value === undefined || value === 0n || value >= UNLIMITED ? otherwise : Number(value);

/** "pgFault" → "pgfault", "totalInactiveFile" → "total_inactive_file": the kernel's own names. */
const kernelName = (name: string) =>
  name
    .replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
    .replace("pg_pg_", "pgpg")
    .replace("pg_maj_fault", "pgmajfault")
    .replace("pg_fault", "pgfault")
    .replace("hierarchical_swap_limit", "hierarchical_memsw_limit");

/** The plain numbers of a message, by their kernel names. */
function numbers(message: object, except: string[]): Record<string, number> {
  const out: Record<string, number> = {};
  for (const [name, value] of Object.entries(message)) {
    if (typeof value !== "bigint" || except.includes(name)) continue;
    out[kernelName(name)] = Number(value >= UNLIMITED ? UNLIMITED : value);
  }
  return out;
}

const entries = (list: BlkIOEntry[]): ContainerBlkioStatEntry[] =>
  list.map(({ major, minor, op, value }) => ({ major: number(major), minor: number(minor), op, value: number(value) }));

const NO_BLKIO: ContainerBlkioStats = {
  io_service_bytes_recursive: null as unknown as ContainerBlkioStatEntry[],
  io_serviced_recursive: null,
  io_queue_recursive: null,
  io_service_time_recursive: null,
  io_wait_time_recursive: null,
  io_merged_recursive: null,
  io_time_recursive: null,
  sectors_recursive: null,
};

function fromV1(bytes: Uint8Array, machineMemory: number): Sample {
  const { cpu, memory, pids, blkio } = fromBinary(MetricsV1, bytes);
  const limited = Math.min(limit(memory?.usage?.limit, machineMemory), machineMemory);
  return {
    cpu: {
      total: number(cpu?.usage?.total),
      perCpu: cpu?.usage?.perCpu.map(Number),
      kernel: number(cpu?.usage?.kernel),
      user: number(cpu?.usage?.user),
      periods: number(cpu?.throttling?.periods),
      throttledPeriods: number(cpu?.throttling?.throttledPeriods),
      throttledTime: number(cpu?.throttling?.throttledTime),
    },
    memory: memory
      ? {
          usage: number(memory.usage?.usage),
          max_usage: number(memory.usage?.max),
          stats: numbers(memory, []),
          failcnt: number(memory.usage?.failcnt),
          limit: limited,
        }
      : {},
    pids: pids ? { current: number(pids.current), limit: limit(pids.limit, 0) } : {},
    blkio: blkio
      ? {
          io_service_bytes_recursive: entries(blkio.ioServiceBytesRecursive),
          io_serviced_recursive: entries(blkio.ioServicedRecursive),
          io_queue_recursive: entries(blkio.ioQueuedRecursive),
          io_service_time_recursive: entries(blkio.ioServiceTimeRecursive),
          io_wait_time_recursive: entries(blkio.ioWaitTimeRecursive),
          io_merged_recursive: entries(blkio.ioMergedRecursive),
          io_time_recursive: entries(blkio.ioTimeRecursive),
          sectors_recursive: entries(blkio.sectorsRecursive),
        }
      : NO_BLKIO,
  };
}

function fromV2(bytes: Uint8Array, machineMemory: number): Sample {
  const { cpu, memory, memoryEvents, pids, io } = fromBinary(MetricsV2, bytes);
  const limited = Math.min(limit(memory?.usageLimit, machineMemory), machineMemory);
  const service = (io?.usage ?? []).flatMap(({ major, minor, rbytes, wbytes }) => [
    { major: number(major), minor: number(minor), op: "read", value: number(rbytes) },
    { major: number(major), minor: number(minor), op: "write", value: number(wbytes) },
  ]);
  return {
    cpu: {
      total: number(cpu?.usageUsec) * 1000,
      perCpu: undefined,
      kernel: number(cpu?.systemUsec) * 1000,
      user: number(cpu?.userUsec) * 1000,
      periods: number(cpu?.nrPeriods),
      throttledPeriods: number(cpu?.nrThrottled),
      throttledTime: number(cpu?.throttledUsec) * 1000,
    },
    memory: memory
      ? {
          usage: number(memory.usage),
          stats: numbers(memory, ["usage", "usageLimit", "swapUsage", "swapLimit", "maxUsage", "swapMaxUsage"]),
          ...(memoryEvents && memoryEvents.oom > 0n ? { failcnt: number(memoryEvents.oom) } : {}),
          limit: limited,
        }
      : {},
    pids: pids ? { current: number(pids.current), limit: limit(pids.limit, 0) } : {},
    blkio: io ? { ...NO_BLKIO, io_service_bytes_recursive: service } : NO_BLKIO,
  };
}

/** Reads the metrics of a task; `undefined` where they are of a kind that we do not know. */
export function readMetrics(data: Any | undefined, machineMemory: number): Sample | undefined {
  if (!data) return undefined;
  if (data.typeUrl.endsWith("io.containerd.cgroups.v1.Metrics")) return fromV1(data.value, machineMemory);
  if (data.typeUrl.endsWith("io.containerd.cgroups.v2.Metrics")) return fromV2(data.value, machineMemory);
  return undefined;
}

export type CpuStats = NonNullable<ContainerStatsResponse["cpu_stats"]>;

export const NO_CPU: CpuStats = {
  cpu_usage: { total_usage: 0, usage_in_kernelmode: 0, usage_in_usermode: 0 },
  throttling_data: { periods: 0, throttled_periods: 0, throttled_time: 0 },
};

export function cpuStats(sample: Sample, systemUsage: number, online: number): CpuStats {
  const { total, perCpu, kernel, user, periods, throttledPeriods, throttledTime } = sample.cpu;
  return {
    cpu_usage: { total_usage: total, ...(perCpu ? { percpu_usage: perCpu } : {}), usage_in_kernelmode: kernel, usage_in_usermode: user },
    system_cpu_usage: systemUsage,
    online_cpus: online,
    throttling_data: { periods, throttled_periods: throttledPeriods, throttled_time: throttledTime },
  };
}
