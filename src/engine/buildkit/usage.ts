// What the builder keeps on disk, in BuildKit's words: layers that steps made (regular), directories that clients sent (source.local).
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { CacheRecord } from "../../build/index.ts";
import type { PruneRequest, UsageRecordSchema } from "../../gen/moby/buildkit/v1_pb.ts";
import { invalidArgument } from "../../lib/errors.ts";
import type { BuildKit } from "./index.ts";
import type { LocalRecord } from "./locals.ts";
import { timestamp } from "./status.ts";

type Usage = MessageInitShape<typeof UsageRecordSchema>;

export const usageId = (record: CacheRecord): string => record.key.replace(/^sha256:/, "").slice(0, 25);

function ofLayer(record: CacheRecord): Usage {
  return {
    ID: usageId(record),
    Mutable: false,
    InUse: false,
    Size: BigInt(record.size),
    CreatedAt: timestamp(record.created),
    LastUsedAt: timestamp(record.used),
    UsageCount: 1n,
    Description: record.text,
    RecordType: "regular",
    Shared: false,
  };
}

function ofLocal(record: LocalRecord): Usage {
  return {
    ID: record.id.replace("-", "").slice(0, 25),
    Mutable: true,
    InUse: record.inUse,
    Size: BigInt(record.size),
    CreatedAt: timestamp(record.created),
    LastUsedAt: timestamp(record.used),
    UsageCount: 1n,
    Description: `local source for ${record.name}`,
    RecordType: "source.local",
    Shared: false,
  };
}

/** A filter of `buildx du` and `prune`: "type==source.local", "id=…", "until"… is a duration in its own field. */
export function usageFilter(filters: readonly string[]): (record: Usage) => boolean {
  const tests = filters.filter(Boolean).flatMap((filter) =>
    filter.split(",").map((text) => {
      const match = /^([\w.]+)(==|!=|~=)?(.*)$/.exec(text.trim());
      if (!match) throw invalidArgument(`invalid filter: ${text}`);
      const [, name = "", operator = "", value = ""] = match;
      const field = (record: Usage): string | boolean => {
        switch (name.toLowerCase()) {
          case "id":
            return record.ID ?? "";
          case "type":
            return record.RecordType ?? "";
          case "description":
            return record.Description ?? "";
          case "inuse":
            return record.InUse ?? false;
          case "shared":
            return record.Shared ?? false;
          case "mutable":
            return record.Mutable ?? false;
          case "immutable":
            return !record.Mutable;
          case "private":
            return !record.Shared;
          case "parent":
          case "parents":
            return "";
          default:
            throw invalidArgument(`invalid filter: ${text}`);
        }
      };
      return (record: Usage): boolean => {
        const have = field(record);
        if (operator === "") return have === true || (typeof have === "string" && have !== "");
        const wanted = value.replace(/^"|"$/g, "");
        if (operator === "~=") return String(have).includes(wanted);
        return (String(have) === wanted) === (operator === "==");
      };
    }),
  );
  return (record) => tests.every((test) => test(record));
}

export async function usageRecords(kit: BuildKit, filters: readonly string[]): Promise<Usage[]> {
  const fits = usageFilter(filters);
  const builder = await kit.builder();
  return [...builder.cache().map(ofLayer), ...kit.locals.list().map(ofLocal)].filter(fits);
}

/** Removes what may go, the longest unused first, and answers what went. */
export async function pruneUsage(
  kit: BuildKit,
  request: Pick<PruneRequest, "filter" | "keepDuration" | "reservedSpace" | "maxUsedSpace">,
): Promise<Usage[]> {
  const fits = usageFilter(request.filter);
  const builder = await kit.builder();
  const before = Date.now() - Number(request.keepDuration) / 1e6;
  const layers = builder.cache();
  const locals = kit.locals.list().filter(({ inUse }) => !inUse);
  // Without a limit all goes; with one, only what is above it.
  const limit = Number(request.maxUsedSpace || request.reservedSpace);
  let total = [...layers, ...locals].reduce((sum, { size }) => sum + size, 0);
  const going = new Set<string>();
  const all = [
    ...layers.map((record) => ({ key: record.key, used: record.used, size: record.size, usage: ofLayer(record) })),
    ...locals.map((record) => ({ key: record.id, used: record.used, size: record.size, usage: ofLocal(record) })),
  ].sort((a, b) => a.used - b.used);
  const gone: Usage[] = [];
  for (const { key, used, size, usage } of all) {
    if (!fits(usage) || (request.keepDuration > 0n && used > before) || (limit > 0 && total <= limit)) continue;
    total -= size;
    going.add(key);
    gone.push(usage);
  }
  await builder.prune(({ key }) => !going.has(key));
  await kit.locals.prune(({ id }) => !going.has(id));
  return gone;
}
