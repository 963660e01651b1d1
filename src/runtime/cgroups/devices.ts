// Device rules: what the spec says, and after it what every container may do, as runc has it.
import type { DeviceRule } from "../../oci/runtime-spec.ts";

/** Making any node (which opens nothing), and the harmless ones: null, zero, full, random, urandom, tty, console, ptmx, pts/*. */
export const alwaysAllowed: DeviceRule[] = [
  { allow: true, type: "c", access: "m" },
  { allow: true, type: "b", access: "m" },
  { allow: true, type: "c", major: 1, minor: 3, access: "rwm" },
  { allow: true, type: "c", major: 1, minor: 8, access: "rwm" },
  { allow: true, type: "c", major: 1, minor: 7, access: "rwm" },
  { allow: true, type: "c", major: 5, minor: 0, access: "rwm" },
  { allow: true, type: "c", major: 1, minor: 5, access: "rwm" },
  { allow: true, type: "c", major: 1, minor: 9, access: "rwm" },
  { allow: true, type: "c", major: 136, access: "rwm" },
  { allow: true, type: "c", major: 5, minor: 2, access: "rwm" },
];

function isAll(rule: DeviceRule): boolean {
  return (rule.type ?? "a") === "a";
}

/** The rules that count: everything before the last rule for all devices is void; a container starts with nothing allowed. */
export function effectiveRules(rules: readonly DeviceRule[]): { allowAll: boolean; rules: DeviceRule[] } {
  const last = rules.findLastIndex(isAll);
  const allowAll = last >= 0 && rules[last]!.allow;
  const rest = rules.slice(last + 1);
  return { allowAll, rules: allowAll ? rest.filter((rule) => !rule.allow) : [...rest, ...alwaysAllowed] };
}

/** "c 1:3 rwm", as v1's devices.allow takes it. */
export function ruleText(rule: DeviceRule): string {
  const number = (n: number | undefined) => (n === undefined || n < 0 ? "*" : String(n));
  return `${rule.type ?? "a"} ${number(rule.major)}:${number(rule.minor)} ${rule.access || "rwm"}`;
}
