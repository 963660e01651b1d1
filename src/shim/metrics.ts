// Cgroup numbers as the messages that containerd's clients read: io.containerd.cgroups.v1.Metrics and io.containerd.cgroups.v2.Metrics.
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { MetricsSchema as MetricsSchema1 } from "../gen/io/containerd/cgroups/v1_pb.ts";
import { MetricsSchema as MetricsSchema2 } from "../gen/io/containerd/cgroups/v2_pb.ts";
import type { CgroupStats } from "../runtime/face.ts";

const MAX_UINT64 = (1n << 64n) - 1n;

function uint64(value: number | undefined): bigint {
  if (value === undefined || Number.isNaN(value) || value <= 0) return 0n;
  if (value >= 2 ** 64) return MAX_UINT64;
  return BigInt(Math.floor(value));
}

/** For a limit where "unlimited" is told as 0. */
function limitOrZero(value: number): bigint {
  return value >= 2 ** 63 ? 0n : uint64(value);
}

/** For a limit of version 2, where "max" is told as the largest number. */
function limitOrMax(value: number): bigint {
  return value >= Number.MAX_SAFE_INTEGER ? MAX_UINT64 : uint64(value);
}

/** The metrics with their type's name. */
export function metricsAny(stats: CgroupStats): { typeUrl: string; value: Uint8Array } {
  if (stats.version === 1)
    return { typeUrl: MetricsSchema1.typeName, value: toBinary(MetricsSchema1, create(MetricsSchema1, version1(stats))) };
  return { typeUrl: MetricsSchema2.typeName, value: toBinary(MetricsSchema2, create(MetricsSchema2, version2(stats))) };
}

function version1({ memory, cpu, pids, blkio }: CgroupStats): MessageInitShape<typeof MetricsSchema1> {
  const out: MessageInitShape<typeof MetricsSchema1> = {};
  if (pids) out.pids = { current: uint64(pids.current), limit: limitOrZero(pids.limit) };
  if (cpu)
    out.cpu = {
      usage: { total: uint64(cpu.usage), user: uint64(cpu.user), kernel: uint64(cpu.system), perCpu: cpu.perCpu.map(uint64) },
      throttling: {
        periods: uint64(cpu.periods),
        throttledPeriods: uint64(cpu.throttledPeriods),
        throttledTime: uint64(cpu.throttledTime),
      },
    };
  if (memory) {
    const s = memory.stat;
    out.memory = {
      cache: uint64(s.cache),
      rss: uint64(s.rss),
      rssHuge: uint64(s.rss_huge),
      mappedFile: uint64(s.mapped_file),
      dirty: uint64(s.dirty),
      writeback: uint64(s.writeback),
      pgPgIn: uint64(s.pgpgin),
      pgPgOut: uint64(s.pgpgout),
      pgFault: uint64(s.pgfault),
      pgMajFault: uint64(s.pgmajfault),
      inactiveAnon: uint64(s.inactive_anon),
      activeAnon: uint64(s.active_anon),
      inactiveFile: uint64(s.inactive_file),
      activeFile: uint64(s.active_file),
      unevictable: uint64(s.unevictable),
      hierarchicalMemoryLimit: uint64(s.hierarchical_memory_limit),
      hierarchicalSwapLimit: uint64(s.hierarchical_memsw_limit),
      totalCache: uint64(s.total_cache),
      totalRss: uint64(s.total_rss),
      totalRssHuge: uint64(s.total_rss_huge),
      totalMappedFile: uint64(s.total_mapped_file),
      totalDirty: uint64(s.total_dirty),
      totalWriteback: uint64(s.total_writeback),
      totalPgPgIn: uint64(s.total_pgpgin),
      totalPgPgOut: uint64(s.total_pgpgout),
      totalPgFault: uint64(s.total_pgfault),
      totalPgMajFault: uint64(s.total_pgmajfault),
      totalInactiveAnon: uint64(s.total_inactive_anon),
      totalActiveAnon: uint64(s.total_active_anon),
      totalInactiveFile: uint64(s.total_inactive_file),
      totalActiveFile: uint64(s.total_active_file),
      totalUnevictable: uint64(s.total_unevictable),
      usage: { usage: uint64(memory.usage), max: uint64(memory.maxUsage), limit: uint64(memory.limit), failcnt: uint64(memory.failcnt) },
    };
  }
  if (blkio) {
    const entries = (kind: "serviceBytes" | "serviced") =>
      blkio
        .filter((entry) => entry.kind === kind)
        .map((entry) => ({ op: entry.op, major: uint64(entry.major), minor: uint64(entry.minor), value: uint64(entry.value) }));
    out.blkio = { ioServiceBytesRecursive: entries("serviceBytes"), ioServicedRecursive: entries("serviced") };
  }
  return out;
}

function version2({ memory, cpu, pids, blkio }: CgroupStats): MessageInitShape<typeof MetricsSchema2> {
  const out: MessageInitShape<typeof MetricsSchema2> = {};
  if (pids) out.pids = { current: uint64(pids.current), limit: limitOrZero(pids.limit) };
  if (cpu)
    out.cpu = {
      usageUsec: uint64(cpu.usage / 1000),
      userUsec: uint64(cpu.user / 1000),
      systemUsec: uint64(cpu.system / 1000),
      nrPeriods: uint64(cpu.periods),
      nrThrottled: uint64(cpu.throttledPeriods),
      throttledUsec: uint64(cpu.throttledTime / 1000),
    };
  if (memory) {
    const s = memory.stat;
    out.memory = {
      anon: uint64(s.anon),
      file: uint64(s.file),
      kernelStack: uint64(s.kernel_stack),
      slab: uint64(s.slab),
      sock: uint64(s.sock),
      shmem: uint64(s.shmem),
      fileMapped: uint64(s.file_mapped),
      fileDirty: uint64(s.file_dirty),
      fileWriteback: uint64(s.file_writeback),
      anonThp: uint64(s.anon_thp),
      inactiveAnon: uint64(s.inactive_anon),
      activeAnon: uint64(s.active_anon),
      inactiveFile: uint64(s.inactive_file),
      activeFile: uint64(s.active_file),
      unevictable: uint64(s.unevictable),
      slabReclaimable: uint64(s.slab_reclaimable),
      slabUnreclaimable: uint64(s.slab_unreclaimable),
      pgfault: uint64(s.pgfault),
      pgmajfault: uint64(s.pgmajfault),
      pgrefill: uint64(s.pgrefill),
      pgscan: uint64(s.pgscan),
      pgsteal: uint64(s.pgsteal),
      pgactivate: uint64(s.pgactivate),
      pgdeactivate: uint64(s.pgdeactivate),
      pglazyfree: uint64(s.pglazyfree),
      pglazyfreed: uint64(s.pglazyfreed),
      thpFaultAlloc: uint64(s.thp_fault_alloc),
      thpCollapseAlloc: uint64(s.thp_collapse_alloc),
      workingsetRefault: uint64((s.workingset_refault_anon ?? 0) + (s.workingset_refault_file ?? 0)),
      workingsetActivate: uint64((s.workingset_activate_anon ?? 0) + (s.workingset_activate_file ?? 0)),
      workingsetNodereclaim: uint64(s.workingset_nodereclaim),
      usage: uint64(memory.usage),
      usageLimit: limitOrMax(memory.limit),
      maxUsage: uint64(memory.maxUsage),
      ...(memory.swap ? { swapUsage: uint64(memory.swap.usage), swapLimit: limitOrMax(memory.swap.limit) } : {}),
    };
    const { events } = memory;
    if (events)
      out.memoryEvents = {
        low: uint64(events.low),
        high: uint64(events.high),
        max: uint64(events.max),
        oom: uint64(events.oom),
        oomKill: uint64(events.oom_kill),
        oomGroupKill: uint64(events.oom_group_kill),
      };
  }
  if (blkio && blkio.length > 0) {
    const devices = new Map<string, { major: bigint; minor: bigint; rbytes: bigint; wbytes: bigint; rios: bigint; wios: bigint }>();
    for (const entry of blkio) {
      const key = `${entry.major}:${entry.minor}`;
      const device = devices.get(key) ?? {
        major: uint64(entry.major),
        minor: uint64(entry.minor),
        rbytes: 0n,
        wbytes: 0n,
        rios: 0n,
        wios: 0n,
      };
      devices.set(key, device);
      const read = entry.op.toLowerCase().startsWith("r");
      const written = entry.op.toLowerCase().startsWith("w");
      if (entry.kind === "serviceBytes" && read) device.rbytes = uint64(entry.value);
      else if (entry.kind === "serviceBytes" && written) device.wbytes = uint64(entry.value);
      else if (read) device.rios = uint64(entry.value);
      else if (written) device.wios = uint64(entry.value);
    }
    out.io = { usage: [...devices.values()] };
  }
  return out;
}
