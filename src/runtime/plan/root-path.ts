import type { Spec } from "../../oci/runtime-spec.ts";

/** The root file system's path on the host. */
export function rootPathOf(spec: Spec, bundle: string): string {
  const path = spec.root?.path ?? "rootfs";
  return path.startsWith("/") ? path : `${bundle}/${path}`;
}
