// POST /containers/prune: all that do not run.
import { invalidArgument, isKind } from "../../lib/errors.ts";
import type { ContainerRecord } from "../context.ts";
import { type Core, publishPrune } from "./core.ts";
import { sizesOf } from "./inspect.ts";
import { type Filters, labelMatches } from "./list.ts";

export const PRUNE_FILTERS = ["until", "label", "label!"] as const;

/** A time as filters give it: seconds since 1970, RFC 3339, or a duration back from now ("10m", "1h30m"). Milliseconds since 1970. */
export function parseUntil(text: string, now = Date.now()): number {
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text) * 1000;
  const units: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
  if (/^(\d+(\.\d+)?(ms|s|m|h))+$/.test(text)) {
    let back = 0;
    for (const [, value, , unit] of text.matchAll(/(\d+(\.\d+)?)(ms|s|m|h)/g)) back += Number(value) * units[unit!]!;
    return now - back;
  }
  const time = Date.parse(text);
  if (Number.isNaN(time)) throw invalidArgument(`invalid until value: ${text}`);
  return time;
}

export async function pruneContainers(
  core: Core,
  filters: Filters,
): Promise<{ ContainersDeleted: string[] | null; SpaceReclaimed: number }> {
  const until = filters.until?.map((each) => parseUntil(each))[0];
  const wanted = ({ state, created, config }: ContainerRecord) =>
    !state.Running &&
    (until === undefined || Date.parse(created) < until) &&
    labelMatches(config.Labels, filters.label ?? []) &&
    !(filters["label!"] ?? []).some((each) => labelMatches(config.Labels, [each]));
  const deleted: string[] = [];
  let reclaimed = 0;
  for (const entry of core.book.entries()) {
    if (!wanted(entry.record)) continue;
    const size = await sizesOf(core, entry.record).catch(() => undefined);
    try {
      await core.remove(entry, { force: false, volumes: false });
    } catch (error) {
      // Started or removed by somebody else in the meantime.
      if (isKind(error, "Conflict") || isKind(error, "NotFound")) continue;
      throw error;
    }
    deleted.push(entry.record.id);
    reclaimed += size?.SizeRw ?? 0;
  }
  publishPrune(core, reclaimed);
  return { ContainersDeleted: deleted.length > 0 ? deleted : null, SpaceReclaimed: reclaimed };
}
