// What the cache keeps, as one list, and what of it goes: by age, by kind, or until it is small enough, the longest unused first.
import { statfs } from "node:fs/promises";
import type { Cache, RecordKind } from "./cache.ts";
import type { MountCaches } from "./caches.ts";

export interface UsageRecord {
  id: string;
  kind: RecordKind;
  description: string;
  size: number;
  /** Milliseconds since 1970. */
  created: number;
  used: number;
  uses: number;
  parents: string[];
  inUse: boolean;
  /** Its layers are those of another record, too. */
  shared: boolean;
  mutable: boolean;
}

export interface PruneOptions {
  /** Undefined: all that fit the others. */
  filter?: (record: UsageRecord) => boolean;
  /** Only what was not used for so long. */
  keepDurationMs?: number;
  /** So many bytes may stay in any case. */
  reservedSpace?: number;
  /** Bytes that the cache may have; 0: no limit. */
  maxUsedSpace?: number;
  /** Bytes that shall be free on the file system of `directory`. */
  minFreeSpace?: number;
  directory?: string;
}

export interface PruneResult {
  records: UsageRecord[];
  bytes: number;
}

/** Records that have one content (the keys of a step by chain and by files) are one entry, named by the first key. */
export async function usageOf(cache: Cache, caches: MountCaches): Promise<(UsageRecord & { keys: string[] })[]> {
  const found = new Map<string, UsageRecord & { keys: string[] }>();
  const users = new Map<string, Set<string>>();
  for (const record of cache.list()) {
    const name = `${record.text}\0${record.chainId}`;
    for (const { descriptor } of record.layers) {
      const set = users.get(descriptor.digest) ?? new Set();
      users.set(descriptor.digest, set.add(name));
    }
    const there = found.get(name);
    if (there) {
      there.keys.push(record.key);
      there.created = Math.min(there.created, record.created);
      there.used = Math.max(there.used, record.used);
      there.uses = Math.max(there.uses, record.uses);
      there.inUse ||= record.inUse;
      continue;
    }
    const { key, kind, text, size, created, used, uses, parents, inUse } = record;
    found.set(name, {
      id: key,
      kind,
      description: text,
      size,
      created,
      used,
      uses,
      parents,
      inUse,
      shared: false,
      mutable: false,
      keys: [key],
    });
  }
  for (const record of cache.list())
    if (record.layers.some(({ descriptor }) => users.get(descriptor.digest)!.size > 1))
      found.get(`${record.text}\0${record.chainId}`)!.shared = true;
  const list = [...found.values()];
  for (const { key, id, size, created, used, uses, inUse } of await caches.list()) {
    const description = `cached mount ${id} from exec`;
    const kind = "exec.cachemount" as const;
    list.push({ id: key, kind, description, size, created, used, uses, parents: [], inUse, shared: false, mutable: true, keys: [] });
  }
  return list.sort((a, b) => a.used - b.used);
}

export async function pruneCache(cache: Cache, caches: MountCaches, options: PruneOptions): Promise<PruneResult> {
  const { filter, keepDurationMs = 0, reservedSpace = 0, maxUsedSpace = 0, minFreeSpace = 0, directory } = options;
  const all = await usageOf(cache, caches);
  let used = all.reduce((sum, { size }) => sum + size, 0);
  const limited = reservedSpace > 0 || maxUsedSpace > 0 || minFreeSpace > 0;
  // How much may stay: what is reserved, unless a limit is not reached yet.
  let goal = 0;
  if (limited) {
    goal = reservedSpace;
    const limits: number[] = [];
    if (maxUsedSpace > 0) limits.push(maxUsedSpace);
    if (minFreeSpace > 0 && directory !== undefined) {
      const disk = await statfs(directory).catch(() => undefined);
      if (disk) limits.push(Math.max(0, used - Math.max(0, minFreeSpace - disk.bavail * disk.bsize)));
    }
    if (limits.length > 0) goal = Math.max(reservedSpace, Math.min(...limits));
  }
  const before = Date.now() - keepDurationMs;
  const gone: (UsageRecord & { keys: string[] })[] = [];
  for (const record of all) {
    if (limited && used <= goal) break;
    if (record.inUse || (keepDurationMs > 0 && record.used > before) || (filter && !filter(record))) continue;
    gone.push(record);
    used -= record.size;
  }
  const removed = await cache.remove(new Set(gone.flatMap(({ keys }) => keys)));
  let { bytes } = removed;
  const keys = new Set(removed.records.map(({ key }) => key));
  const records: UsageRecord[] = [];
  for (const { keys: own, ...record } of gone) {
    if (record.kind === "exec.cachemount") {
      if (!(await caches.remove(record.id))) continue;
      bytes += record.size;
      records.push(record);
    } else if (own.some((key) => keys.has(key))) records.push(record);
  }
  return { records, bytes };
}
