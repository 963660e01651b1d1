// A container's numbers in the form that `runc events` prints (runc's types/events.go): what is zero is left out where runc leaves it out.
import { readNumber, readText } from "../cgroups/files.ts";
import type { CgroupLocation } from "../cgroups/index.ts";
import type { CgroupStats, Counter } from "../face.ts";

/** Go's omitempty. */
function present<T extends object>(values: T): Partial<T> {
  const empty = (value: unknown) => value === undefined || value === 0 || (Array.isArray(value) && value.length === 0);
  return Object.fromEntries(Object.entries(values).filter(([, value]) => !empty(value))) as Partial<T>;
}

function entry(counter: Counter | undefined): object {
  const { limit = 0, usage, max, failcnt = 0 } = counter ?? ({} as Partial<Counter>);
  return { limit, ...present({ usage, max }), failcnt };
}

/** v1 counts swap with memory, and so do clients. */
function swapOf({ version, memory }: CgroupStats): Counter | undefined {
  const swap = memory?.swap;
  if (version === 1 || !swap || !memory) return swap;
  const limit = swap.limit >= Number.MAX_SAFE_INTEGER ? swap.limit : swap.limit + memory.limit;
  return { ...swap, usage: swap.usage + memory.usage, limit };
}

/** "0-2,5" */
function numbers(list: string): number[] {
  return list
    .trim()
    .split(",")
    .filter(Boolean)
    .flatMap((range) => {
      const [first = 0, last = first] = range.split("-").map(Number);
      return Array.from({ length: last - first + 1 }, (_, i) => first + i);
    });
}

function cpusetOf({ version, directories }: CgroupLocation): object {
  const directory = version === 1 ? directories.cpuset : undefined;
  const value = (name: string) => (directory && readNumber(`${directory}/cpuset.${name}`)) || 0;
  const list = (name: string) => (directory ? numbers(readText(`${directory}/cpuset.${name}`) ?? "") : []);
  const flags = ["mem_hardwall", "mem_exclusive", "memory_migrate", "memory_spread_page", "memory_spread_slab", "memory_pressure"];
  return {
    ...present({ cpus: list("cpus") }),
    cpu_exclusive: value("cpu_exclusive"),
    ...present({ mems: list("mems") }),
    ...Object.fromEntries([...flags, "sched_load_balance", "sched_relax_domain_level"].map((name) => [name, value(name)])),
  };
}

/** cpuacct.usage_all: a line for each cpu, after a head: its number, user's and the kernel's nanoseconds. */
function perCpu({ version, directories }: CgroupLocation): { user: number[]; kernel: number[] } {
  const text = version === 1 && directories.cpuacct ? (readText(`${directories.cpuacct}/cpuacct.usage_all`) ?? "") : "";
  const rows = text
    .trim()
    .split("\n")
    .slice(1)
    .map((line) => line.split(" ").map(Number));
  return { user: rows.map(([, user = 0]) => user), kernel: rows.map(([, , kernel = 0]) => kernel) };
}

function statsOf(stats: CgroupStats, location: CgroupLocation): object {
  const { memory, cpu, pids, blkio, hugetlb } = stats;
  const io = (kind: string) =>
    (blkio ?? []).filter((e) => e.kind === kind).map(({ major, minor, op, value }) => present({ major, minor, op, value }));
  const usage = memory && { usage: memory.usage, max: memory.maxUsage, limit: memory.limit, failcnt: memory.failcnt };
  const { user, kernel } = perCpu(location);
  return {
    cpu: {
      usage: {
        ...present({ total: cpu?.usage, percpu: cpu?.perCpu, percpu_kernel: kernel, percpu_user: user }),
        kernel: cpu?.system ?? 0,
        user: cpu?.user ?? 0,
      },
      throttling: present({ periods: cpu?.periods, throttledPeriods: cpu?.throttledPeriods, throttledTime: cpu?.throttledTime }),
    },
    cpuset: cpusetOf(location),
    memory: {
      ...present({ cache: memory?.stat.cache ?? memory?.stat.file }),
      usage: entry(usage),
      swap: entry(swapOf(stats)),
      kernel: entry(memory?.kernel),
      kernelTCP: entry(memory?.kernelTcp),
      ...(memory ? { raw: memory.stat } : {}),
    },
    pids: present({ current: pids?.current, limit: pids?.limit }),
    blkio: present({ ioServiceBytesRecursive: io("serviceBytes"), ioServicedRecursive: io("serviced") }),
    hugetlb: Object.fromEntries(
      Object.entries(hugetlb ?? {}).map(([size, each]) => [
        size,
        { ...present({ usage: each.usage, max: each.max }), failcnt: each.failcnt },
      ]),
    ),
    intel_rdt: {},
    network_interfaces: null,
  };
}

/** One line of JSON. Numbers beyond 2^53 keep all their digits; "max" of v2 is the largest there is. */
export function statsLine(id: string, stats: CgroupStats, location: CgroupLocation): string {
  const digits = (value: number) => (value === Number.MAX_SAFE_INTEGER ? "18446744073709551615" : String(BigInt(value)));
  const large = (_: string, value: unknown) =>
    typeof value === "number" && value >= Number.MAX_SAFE_INTEGER ? `#${digits(value)}#` : value;
  return JSON.stringify({ type: "stats", id, data: statsOf(stats, location) }, large).replace(/"#(\d+)#"/g, "$1");
}
