// What builds keep on disk, in BuildKit's words: what the builder's cache holds, and directories that clients sent (source.local).
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Builder, PruneOptions, UsageRecord } from "../../build/index.ts";
import type { PruneRequest, UsageRecordSchema } from "../../gen/moby/buildkit/v1_pb.ts";
import { invalidArgument } from "../../lib/errors.ts";
import type { BuildKit } from "./index.ts";
import type { LocalRecord, Locals } from "./locals.ts";
import { timestamp } from "./status.ts";

type Usage = MessageInitShape<typeof UsageRecordSchema>;

const ofLocal = ({ id, name, size, created, used, inUse }: LocalRecord): UsageRecord => ({
  id,
  kind: "source.local",
  description: `local source for ${name}`,
  size,
  created,
  used,
  uses: 1,
  parents: [],
  inUse,
  shared: false,
  mutable: true,
});

/** The builder with what the doors keep for it among its records. */
export function withLocals(builder: Builder, locals: Locals): Builder {
  const records = () => locals.list().map(ofLocal);
  return {
    ...builder,
    usage: async () => [...(await builder.usage()), ...records()].sort((a, b) => a.used - b.used),
    async reclaim(options: PruneOptions) {
      const { filter, keepDurationMs = 0, reservedSpace = 0, maxUsedSpace = 0 } = options;
      const before = Date.now() - keepDurationMs;
      const limit = Math.max(reservedSpace, maxUsedSpace);
      let total = [...(await builder.usage()), ...records()].reduce((sum, { size }) => sum + size, 0);
      const going = new Map<string, UsageRecord>();
      for (const record of records().sort((a, b) => a.used - b.used)) {
        if (limit > 0 && total <= limit) break;
        if (record.inUse || (keepDurationMs > 0 && record.used > before) || (filter && !filter(record))) continue;
        going.set(record.id, record);
        total -= record.size;
      }
      const gone = (await locals.prune(({ id }) => !going.has(id))).map(ofLocal);
      // What is left of them counts within the limits.
      const left = records().reduce((sum, { size }) => sum + size, 0);
      const lower = (bytes: number) => (bytes > 0 ? Math.max(1, bytes - left) : 0);
      const inner = await builder.reclaim({ ...options, reservedSpace: lower(reservedSpace), maxUsedSpace: lower(maxUsedSpace) });
      return { records: [...gone, ...inner.records], bytes: inner.bytes + gone.reduce((sum, { size }) => sum + size, 0) };
    },
  };
}

const shortId = (id: string): string =>
  id
    .replace(/^sha256:/, "")
    .replace("-", "")
    .slice(0, 25);

function messageOf(record: UsageRecord): Usage {
  return {
    ID: shortId(record.id),
    Mutable: record.mutable,
    InUse: record.inUse,
    Size: BigInt(record.size),
    Parents: record.parents.map(shortId),
    CreatedAt: timestamp(record.created),
    LastUsedAt: timestamp(record.used),
    UsageCount: BigInt(record.uses),
    Description: record.description,
    RecordType: record.kind,
    Shared: record.shared,
  };
}

/** Filters of `buildx du` and `prune`: "type==source.local", "id~=…", "inuse". */
export function usageFilter(filters: readonly string[]): (record: UsageRecord) => boolean {
  const fields: Record<string, (record: UsageRecord) => string[] | boolean> = {
    id: ({ id }) => [id, shortId(id)],
    type: ({ kind }) => [kind],
    description: ({ description }) => [description],
    inuse: ({ inUse }) => inUse,
    shared: ({ shared }) => shared,
    private: ({ shared }) => !shared,
    mutable: ({ mutable }) => mutable,
    immutable: ({ mutable }) => !mutable,
    parent: ({ parents }) => parents.flatMap((each) => [each, shortId(each)]),
    parents: ({ parents }) => parents.flatMap((each) => [each, shortId(each)]),
  };
  const tests = filters.filter(Boolean).flatMap((filter) =>
    filter.split(",").map((text) => {
      const match = /^([\w.]+)(?:(==|!=|~=)"?(.*?)"?)?$/.exec(text.trim());
      const field = match && fields[match[1]!.toLowerCase()];
      if (!field) throw invalidArgument(`invalid filter: ${text}`);
      const [, , operator, wanted = ""] = match;
      return (record: UsageRecord): boolean => {
        const have = field(record);
        if (operator === undefined) return have === true || (Array.isArray(have) && have.some(Boolean));
        const list = Array.isArray(have) ? have : [String(have)];
        if (operator === "~=") return list.some((each) => each.includes(wanted));
        return list.includes(wanted) === (operator === "==");
      };
    }),
  );
  return (record) => tests.every((test) => test(record));
}

export async function usageRecords(kit: BuildKit, filters: readonly string[]): Promise<Usage[]> {
  const fits = usageFilter(filters);
  return (await kit.builder.usage()).filter(fits).map(messageOf);
}

/** Removes what may go and answers what went. */
export async function pruneUsage(kit: BuildKit, request: PruneRequest): Promise<Usage[]> {
  const { records } = await kit.builder.reclaim({
    filter: usageFilter(request.filter),
    keepDurationMs: Number(request.keepDuration) / 1e6,
    reservedSpace: Number(request.reservedSpace),
    maxUsedSpace: Number(request.maxUsedSpace),
    minFreeSpace: Number(request.minFreeSpace),
    directory: kit.engine.config.dataRoot,
  });
  return records.map(messageOf);
}
