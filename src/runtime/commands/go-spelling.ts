// Go's decoder does not tell capitals from others in the names of members, and who writes limits for runc by hand may rely on it. Of the limits these are
// the names; where one is there twice, the second adds to the first, and wins.
import type { Resources } from "../../oci/runtime-spec.ts";

const inside: Record<string, readonly string[]> = {
  memory: [
    ...["limit", "reservation", "swap", "kernel", "kernelTCP", "swappiness", "disableOOMKiller"],
    ...["useHierarchy", "checkBeforeUpdate"],
  ],
  cpu: ["shares", "quota", "burst", "period", "realtimeRuntime", "realtimePeriod", "cpus", "mems", "idle"],
  pids: ["limit"],
  blockIO: [
    ...["weight", "leafWeight", "weightDevice", "throttleReadBpsDevice", "throttleWriteBpsDevice"],
    ...["throttleReadIOPSDevice", "throttleWriteIOPSDevice"],
  ],
};
const names = [...Object.keys(inside), "devices", "hugepageLimits", "network", "rdma", "unified"];

type Members = Record<string, unknown>;
const isMembers = (value: unknown): value is Members => typeof value === "object" && value !== null && !Array.isArray(value);

function renamed(value: Members, known: readonly string[]): Members {
  if (Object.keys(value).every((key) => known.includes(key))) return value;
  const result: Members = {};
  for (const [key, member] of Object.entries(value)) {
    const lower = key.toLowerCase();
    const name = known.find((each) => each.toLowerCase() === lower) ?? key;
    const first = result[name];
    result[name] = isMembers(first) && isMembers(member) ? { ...first, ...member } : member;
  }
  return result;
}

/** The same where all is written as the specification has it. */
export function resourcesOf(value: Members): Resources {
  const resources = renamed(value, names);
  for (const [name, known] of Object.entries(inside)) {
    const member = resources[name];
    if (!isMembers(member)) continue;
    const own = renamed(member, known);
    if (own !== member) resources[name] = own;
  }
  const { hugepageLimits } = resources;
  if (Array.isArray(hugepageLimits)) for (const limit of hugepageLimits.filter(isMembers)) limit.pageSize ??= limit.pagesize;
  return resources as Resources;
}
