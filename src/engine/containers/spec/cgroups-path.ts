// Where a container's cgroup is to be: a path, or with systemd's driver SLICE:PREFIX:NAME, as dockerd names them.
import { invalidArgument } from "../../../lib/errors.ts";
import type { EngineConfig } from "../../context.ts";

export function cgroupsPathOf(
  { cgroupDriver, cgroupParent }: Pick<EngineConfig, "cgroupDriver" | "cgroupParent">,
  own: string | undefined,
  id: string,
): string {
  const parent = own || cgroupParent;
  if (cgroupDriver === "cgroupfs") return `${parent || "/jubako"}/${id}`.replace(/^\/*/, "/");
  if (parent && !parent.endsWith(".slice"))
    throw invalidArgument('cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"');
  return `${parent || "system.slice"}:docker:${id}`;
}
