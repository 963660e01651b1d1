// What a process may use, and when it runs: resource limits, i/o priority, scheduling policy.
import { invalidArgument } from "../../lib/errors.ts";
import { SYS } from "../../linux/index.ts";
import type { Process } from "../../oci/runtime-spec.ts";
import { RLIMITS } from "./constants.ts";
import type { Planner } from "./planner.ts";

export function planLimits(p: Planner, process: Process): void {
  for (const { type, soft, hard } of process.rlimits ?? []) {
    const number = RLIMITS.indexOf(type as (typeof RLIMITS)[number]);
    if (number < 0) throw invalidArgument(`unknown rlimit ${JSON.stringify(type)}`);
    const limit = p.tape.structure([bits64(soft), bits64(hard)], `{soft=${soft}, hard=${hard}}`);
    p.tape.step(SYS.prlimit64, [0, { value: number, name: type }, limit, 0], { why: `set ${type}` });
  }
}

/** JSON's 18446744073709551615 (unlimited) became 2^64 as a double. */
function bits64(value: number): bigint {
  return value < 0 || value >= 2 ** 64 ? 0xffffffffffffffffn : BigInt(Math.floor(value));
}

const ioClasses = { IOPRIO_CLASS_RT: 1, IOPRIO_CLASS_BE: 2, IOPRIO_CLASS_IDLE: 3 };
const policies: Record<string, number> = {
  SCHED_OTHER: 0,
  SCHED_FIFO: 1,
  SCHED_RR: 2,
  SCHED_BATCH: 3,
  SCHED_ISO: 4,
  SCHED_IDLE: 5,
  SCHED_DEADLINE: 6,
};
const schedulerFlags: Record<string, number> = {
  SCHED_FLAG_RESET_ON_FORK: 1,
  SCHED_FLAG_RECLAIM: 2,
  SCHED_FLAG_DL_OVERRUN: 4,
  SCHED_FLAG_KEEP_POLICY: 8,
  SCHED_FLAG_KEEP_PARAMS: 16,
  SCHED_FLAG_UTIL_CLAMP_MIN: 32,
  SCHED_FLAG_UTIL_CLAMP_MAX: 64,
};

export function planScheduling(p: Planner, process: Process): void {
  const { ioPriority, scheduler } = process;
  if (ioPriority) {
    const known = ioClasses[ioPriority.class];
    if (known === undefined) throw invalidArgument(`unknown i/o priority class ${JSON.stringify(ioPriority.class)}`);
    const priority = (known << 13) | (ioPriority.priority ?? 0);
    p.tape.step(SYS.ioprio_set, [1, 0, { value: priority, name: `${ioPriority.class} ${ioPriority.priority ?? 0}` }], {
      why: "set the i/o priority",
    });
  }
  if (scheduler) {
    const policy = policies[scheduler.policy];
    if (policy === undefined) throw invalidArgument(`unknown scheduler policy ${JSON.stringify(scheduler.policy)}`);
    const unknown = scheduler.flags?.find((flag) => !Object.hasOwn(schedulerFlags, flag));
    if (unknown !== undefined) throw invalidArgument(`unknown scheduler flag ${JSON.stringify(unknown)}`);
    const attr = new DataView(new ArrayBuffer(48));
    attr.setUint32(0, 48, true);
    attr.setUint32(4, policy, true);
    attr.setBigUint64(8, BigInt((scheduler.flags ?? []).reduce((n, f) => n | (schedulerFlags[f] ?? 0), 0)), true);
    attr.setInt32(16, scheduler.nice ?? 0, true);
    attr.setUint32(20, scheduler.priority ?? 0, true);
    attr.setBigUint64(24, BigInt(scheduler.runtime ?? 0), true);
    attr.setBigUint64(32, BigInt(scheduler.deadline ?? 0), true);
    attr.setBigUint64(40, BigInt(scheduler.period ?? 0), true);
    const block = p.tape.bytes(new Uint8Array(attr.buffer), `{${scheduler.policy}}`);
    p.tape.step(SYS.sched_setattr, [0, block, 0], { why: "set the scheduling policy" });
  }
}
