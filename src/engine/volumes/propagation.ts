// Whether mounts propagate between a place of the host and what is bound of it (proc(5), mountinfo's optional fields; mount_namespaces(7)).
import { readFileSync, realpathSync } from "node:fs";
import { invalidArgument } from "../../lib/errors.ts";

/** mountinfo writes space, tab, newline and backslash as octal numbers. */
const decoded = (path: string): string =>
  path.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));

/** The mount that `path`, without links, lies in: its place and its optional fields. */
export function mountOf(mountinfo: string, path: string): { place: string; fields: string[] } | undefined {
  let best: { place: string; fields: string[] } | undefined;
  for (const line of mountinfo.split("\n")) {
    const words = line.split(" ");
    const dash = words.indexOf("-");
    if (dash < 6) continue;
    const place = decoded(words[4]!);
    const below = place === "/" || path === place || path.startsWith(`${place}/`);
    // a later mount at the same place hides an earlier one
    if (below && place.length >= (best?.place.length ?? 0)) best = { place, fields: words.slice(6, dash) };
  }
  return best;
}

/** Refuses a bind that shall propagate from or to a mount of the host that does not, as Docker does. */
export function checkPropagation(source: string, propagation: string): void {
  if (!/^r?(shared|slave)$/.test(propagation)) return;
  const found = mountOf(readFileSync("/proc/self/mountinfo", "utf8"), realpathSync(source));
  const has = (kind: string) => found?.fields.some((field) => field.startsWith(kind)) ?? false;
  const shared = has("shared:");
  if (shared || (propagation.endsWith("slave") && has("master:"))) return;
  const wanted = propagation.endsWith("slave") ? "shared or slave" : "shared";
  throw invalidArgument(`path ${source} is mounted on ${found?.place ?? "nothing"} but it is not a ${wanted} mount`);
}
