import type { Spec } from "../../oci/runtime-spec.ts";

/** Whether something is to be done from outside once the process' namespaces are there, and before its root is: hooks, network devices. */
export function pausesBeforePivot({ hooks, linux }: Spec): boolean {
  if (!hooks && !linux?.netDevices) return false;
  const before = [hooks?.prestart, hooks?.createRuntime, hooks?.createContainer];
  return before.some((list) => list?.length) || Object.keys(linux?.netDevices ?? {}).length > 0;
}
