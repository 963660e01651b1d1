// POST /build/prune, and the build cache of `docker system df`.
import type { BuildCache } from "../../api/types.ts";
import type { Builder, PruneOptions, UsageRecord } from "../../build/index.ts";
import { invalidArgument } from "../../lib/errors.ts";
import { parseFilters } from "../events/filter.ts";
import { parseUntil } from "../networks/until.ts";

const FILTERS = ["id", "parent", "type", "description", "inuse", "shared", "private", "until", "unused-for"];

const shortId = (id: string): string => id.replace(/^sha256:/, "").slice(0, 25);

function bytesOf(query: URLSearchParams, ...names: string[]): number {
  for (const name of names) {
    const text = query.get(name);
    if (!text) continue;
    if (!/^\d{1,18}$/.test(text)) throw invalidArgument(`${name} is in bytes and expects an integer, got ${text}`);
    return Number(text);
  }
  return 0;
}

/** What a request means. InvalidArgument. */
function pruneOptions(query: URLSearchParams, directory: string): PruneOptions {
  const filters = parseFilters(query.get("filters"), FILTERS);
  const times = [...(filters.get("until") ?? []), ...(filters.get("unused-for") ?? [])];
  if (times.length > 1) throw invalidArgument("more than one until filter specified");
  const keepDurationMs = times[0] === undefined ? 0 : Math.max(1, Date.now() - parseUntil(times[0]));
  const tests: ((record: UsageRecord) => boolean)[] = [];
  const oneOf = (name: string, of: (record: UsageRecord) => string[]) => {
    const wanted = filters.get(name);
    if (wanted) tests.push((record) => of(record).some((each) => wanted.includes(each)));
  };
  oneOf("id", ({ id }) => [id, shortId(id)]);
  oneOf("parent", ({ parents }) => parents.flatMap((each) => [each, shortId(each)]));
  oneOf("type", ({ kind }) => [kind]);
  oneOf("description", ({ description }) => [description]);
  if (filters.has("shared")) tests.push(({ shared }) => shared);
  if (filters.has("private")) tests.push(({ shared }) => !shared);
  // What is in use is never let go.
  if (filters.has("inuse")) tests.push(() => false);
  return {
    filter: (record) => tests.every((test) => test(record)),
    keepDurationMs,
    reservedSpace: bytesOf(query, "reserved-space", "keep-storage"),
    maxUsedSpace: bytesOf(query, "max-used-space"),
    minFreeSpace: bytesOf(query, "min-free-space"),
    directory,
  };
}

export async function pruneBuilds(builder: Builder, query: URLSearchParams, directory: string) {
  const { records, bytes } = await builder.reclaim(pruneOptions(query, directory));
  return { CachesDeleted: records.map(({ id }) => shortId(id)), SpaceReclaimed: bytes };
}

/** All that the cache keeps. */
export async function cacheItems(builder: Builder): Promise<BuildCache[]> {
  return (await builder.usage()).map(({ id, kind, description, inUse, shared, size, created, used, uses, parents }) => ({
    ID: shortId(id),
    Parents: parents.length > 0 ? parents.map(shortId) : null,
    Type: kind === "source.http" ? ("regular" as const) : kind,
    Description: description,
    InUse: inUse,
    Shared: shared,
    Size: size,
    CreatedAt: new Date(created).toISOString(),
    LastUsedAt: new Date(used).toISOString(),
    UsageCount: uses,
  }));
}
