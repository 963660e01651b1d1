// What was made before: key → layer, in SQLite. A key says what was done to what content, so that an entry never grows wrong; it may only be lost. What an
// entry leads to (a snapshot, a layer's content) is kept from garbage collection by a label until the entry is pruned.
import type { DatabaseSync } from "node:sqlite";
import type { ManagerClients } from "../../containerd/index.ts";
import { isKind } from "../../lib/errors.ts";
import type { Layer } from "../host.ts";

export const ROOT_LABEL = "containerd.io/gc.root";

export interface CacheEntry {
  /** Chain id of the tree after the step; "" is the empty tree. */
  chainId: string;
  /** Undefined where the step changed nothing. */
  layer: Layer | undefined;
}

export interface CacheRecord {
  key: string;
  chainId: string;
  layer: Layer | undefined;
  text: string;
  size: number;
  /** Milliseconds since 1970. */
  created: number;
  used: number;
}

export interface Cache {
  /** The entry, if all that it leads to is still there. */
  find(key: string): Promise<CacheEntry | undefined>;
  /** What is being made now, by key, so that builds of the same do not make it twice. */
  running: Map<string, Promise<CacheEntry>>;
  store(key: string, entry: CacheEntry, text: string): void;
  /** The text that was first kept under a key: `text` now, or an earlier one. */
  first(key: string, text: string): string;
  list(): CacheRecord[];
  /** Forgets entries and lets go of what they kept; answers the keys and the bytes. */
  prune(keep: (record: CacheRecord) => boolean): Promise<{ keys: string[]; bytes: number }>;
}

interface Row {
  key: string;
  chain: string;
  layer: string | null;
  text: string;
  size: number;
  created: number;
  used: number;
}

export function openCache(db: DatabaseSync, manager: () => ManagerClients): Cache {
  db.exec(
    "CREATE TABLE IF NOT EXISTS build_cache (key TEXT PRIMARY KEY, chain TEXT NOT NULL, layer TEXT, text TEXT NOT NULL, size INTEGER NOT NULL, created INTEGER NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID",
  );
  const select = db.prepare("SELECT * FROM build_cache WHERE key = ?");
  const insert = db.prepare(
    "INSERT OR REPLACE INTO build_cache (key, chain, layer, text, size, created, used) VALUES (?, ?, ?, ?, ?, ?, ?)",
  );
  const remove = db.prepare("DELETE FROM build_cache WHERE key = ?");
  const touch = db.prepare("UPDATE build_cache SET used = ? WHERE key = ?");
  const layerOf = (row: Row): Layer | undefined => (row.layer === null ? undefined : (JSON.parse(row.layer) as Layer));

  async function isThere(row: Row): Promise<boolean> {
    const { snapshots, content, snapshotter } = manager();
    const layer = layerOf(row);
    try {
      if (row.chain !== "") await snapshots.stat({ snapshotter, key: row.chain });
      if (layer) await content.info({ digest: layer.descriptor.digest });
      return true;
    } catch (error) {
      if (isKind(error, "NotFound") || /not found|does not exist/i.test(String(error))) return false;
      throw error;
    }
  }

  const list = (): CacheRecord[] =>
    (db.prepare("SELECT * FROM build_cache ORDER BY used").all() as unknown as Row[]).map((row) => ({
      key: row.key,
      chainId: row.chain,
      layer: layerOf(row),
      text: row.text,
      size: row.size,
      created: row.created,
      used: row.used,
    }));

  return {
    running: new Map(),
    async find(key) {
      const row = select.get(key) as unknown as Row | undefined;
      if (!row) return undefined;
      if (!(await isThere(row))) {
        remove.run(key);
        return undefined;
      }
      touch.run(Date.now(), key);
      return { chainId: row.chain, layer: layerOf(row) };
    },
    store(key, { chainId, layer }, text) {
      const now = Date.now();
      insert.run(key, chainId, layer ? JSON.stringify(layer) : null, text, layer?.descriptor.size ?? 0, now, now);
    },
    first(key, text) {
      const row = select.get(key) as unknown as Row | undefined;
      if (row) return row.text;
      const now = Date.now();
      insert.run(key, "", null, text, 0, now, now);
      return text;
    },
    list,
    async prune(keep) {
      const all = list();
      const gone = all.filter((record) => !keep(record));
      const kept = all.filter(keep);
      const chains = new Set(kept.map(({ chainId }) => chainId));
      const blobs = new Set(kept.map(({ layer }) => layer?.descriptor.digest));
      const { snapshots, content, snapshotter } = manager();
      const unlabel = { [ROOT_LABEL]: "" };
      const paths = [`labels.${ROOT_LABEL}`];
      const freed = new Set<string>();
      let bytes = 0;
      for (const { key, chainId, layer, size } of gone) {
        remove.run(key);
        if (layer && !blobs.has(layer.descriptor.digest)) {
          if (!freed.has(layer.descriptor.digest)) bytes += size;
          freed.add(layer.descriptor.digest);
          await content.update({ info: { digest: layer.descriptor.digest, labels: unlabel }, updateMask: { paths } }).catch(() => {});
        }
        if (layer && !chains.has(chainId))
          await snapshots.update({ snapshotter, info: { name: chainId, labels: unlabel }, updateMask: { paths } }).catch(() => {});
      }
      return { keys: gone.map(({ key }) => key), bytes };
    },
  };
}
