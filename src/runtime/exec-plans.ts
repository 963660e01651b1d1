// Plans of further processes, kept for the next that is the same: health checks and scripts run one program again and again, and a plan
// costs more than anything else that this side does for it.
import type { CgroupPlan } from "./cgroups/index.ts";
import type { Planned } from "./create-plans.ts";
import { facts } from "./facts.ts";
import { type ExecInput, planExec } from "./plan/exec.ts";
import { compileSeccomp } from "./seccomp.ts";

type Input = Omit<ExecInput, "seccomp" | "cgroup"> & { cgroup: CgroupPlan };

/** Each is about 100 KB. */
const MOST = 8;
const kept = new Map<string, Planned>();
let containers = 0;

/** The plans of one container, whose specification stays what it is. */
export function execPlans(): (input: Input) => Planned {
  const container = ++containers;
  return (input) => {
    const { spec, ...rest } = input;
    const key = `${container} ${JSON.stringify(rest)}`;
    let planned = kept.get(key);
    if (planned) kept.delete(key);
    else {
      const plan = planExec({ ...input, seccomp: spec.linux?.seccomp ? compileSeccomp(spec.linux.seccomp) : undefined }, facts());
      planned = { encoded: plan.tape.encode(), plan: () => plan };
      for (const oldest of kept.keys()) if (kept.size >= MOST) kept.delete(oldest);
    }
    kept.set(key, planned);
    return planned;
  };
}
