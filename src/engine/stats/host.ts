// The host's side of stats: processor time, memory, and the counters of a network namespace.
import { readFileSync } from "node:fs";
import { availableParallelism, totalmem } from "node:os";
import type { ContainerNetworkStats } from "../../api/types.ts";

/** Jiffies a second that /proc/stat counts in (USER_HZ): 100 on every Linux. */
const USER_HZ = 100;

/** Processor time of the whole machine since boot, in nanoseconds: user, nice, system, idle, iowait, irq, softirq. */
export function systemCpuUsage(stat = readFileSync("/proc/stat", "utf8")): number {
  const fields = stat.slice(0, stat.indexOf("\n")).split(/\s+/).slice(1, 8);
  return fields.reduce((sum, field) => sum + Number(field), 0) * (1e9 / USER_HZ);
}

export const onlineCpus = availableParallelism;
export const machineMemory = totalmem;

/** The interfaces of the network namespace of `pid`, without loopback; undefined where the process is gone. */
export function networkStats(pid: number): Record<string, ContainerNetworkStats> | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/net/dev`, "utf8");
  } catch {
    return undefined;
  }
  const out: Record<string, ContainerNetworkStats> = {};
  for (const line of text.split("\n").slice(2)) {
    const colon = line.indexOf(":");
    const name = line.slice(0, colon).trim();
    if (colon < 0 || name === "lo") continue;
    const n = line
      .slice(colon + 1)
      .trim()
      .split(/\s+/)
      .map(Number);
    out[name] = {
      rx_bytes: n[0]!,
      rx_packets: n[1]!,
      rx_errors: n[2]!,
      rx_dropped: n[3]!,
      tx_bytes: n[8]!,
      tx_packets: n[9]!,
      tx_errors: n[10]!,
      tx_dropped: n[11]!,
    };
  }
  return out;
}
