import { resolve } from "../../lib/paths.ts";
import type { Spec } from "../../oci/runtime-spec.ts";

/** The root file system's path on the host. */
export function rootPathOf(spec: Spec, bundle: string): string {
  const path = spec.root?.path ?? "rootfs";
  return path.startsWith("/") ? path : `${bundle}/${path}`;
}

/** A path without its `.`, `..` and empty parts, by its name alone, with a slash at its end. */
export function directoryName(path: string): string {
  const name = `${path}/`;
  return path.startsWith("/") && /\/\.|\/\//.test(name) ? `${resolve(path)}/`.replace("//", "/") : name;
}

/** `path` as seen from the root file system at `root`, where it lies below it by its name. */
export function insideRoot(root: string, path: string): string | undefined {
  const place = directoryName(root);
  const there = directoryName(path);
  return place !== "/" && there.startsWith(place) ? `/${there.slice(place.length, -1)}` : undefined;
}
