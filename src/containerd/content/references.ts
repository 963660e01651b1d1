// The labels by which the garbage collector follows an index or a manifest to what it needs (containerd's docs/garbage-collection.md).
import type { Descriptor } from "../../oci/index.ts";

/** `children`: of an index its manifests, of a manifest its config and then its layers. */
export function childLabels(kind: "index" | "manifest", children: readonly Descriptor[]): Record<string, string> {
  const key = (i: number) => (kind === "index" ? `m.${i}` : i === 0 ? "config" : `l.${i - 1}`);
  return Object.fromEntries(children.map(({ digest }, i) => [`containerd.io/gc.ref.content.${key(i)}`, digest]));
}
