// What was made before: key → layers, in SQLite. A key says what was done to what content, so that a record never grows wrong; it may only be lost. What a
// record leads to (a snapshot, layers' content) is kept from garbage collection by a label until the record is pruned.
import type { DatabaseSync } from "node:sqlite";
import type { ManagerClients } from "../../containerd/index.ts";
import { isKind } from "../../lib/errors.ts";
import type { Layer } from "../host.ts";
import type { KeyPart } from "../progress.ts";
import type { Change } from "./workspace.ts";

export const ROOT_LABEL = "containerd.io/gc.root";

/** What the outputs of a vertex were, by index: layers upon the tree that the output grew from. */
export type Outputs = Map<number, Change>;

export type RecordKind = "regular" | "source.local" | "source.git.checkout" | "source.http" | "exec.cachemount" | "internal" | "frontend";

export interface CacheRecord {
  key: string;
  /** Chain id of the (first) output. */
  chainId: string;
  /** The first one; undefined where nothing was changed. */
  layer: Layer | undefined;
  /** Of all outputs. */
  layers: Layer[];
  text: string;
  kind: RecordKind;
  size: number;
  /** Milliseconds since 1970. */
  created: number;
  used: number;
  uses: number;
  /** Keys of the records that it was made from. */
  parents: string[];
  inUse: boolean;
}

export interface About {
  text: string;
  kind: RecordKind;
  parents: string[];
  parts: KeyPart[];
}

export interface Cache {
  /** The outputs, if all that they lead to is still there. */
  find(key: string): Promise<Outputs | undefined>;
  /** What is being made now, by key, so that builds of the same do not make it twice. */
  running: Map<string, Promise<Outputs>>;
  store(key: string, outputs: Outputs, about: About): void;
  /** Keeps layers that came from elsewhere as those that were made here. */
  adopt(outputs: Outputs): Promise<void>;
  /** What the key of the latest record with this text was made of. */
  earlier(text: string, kind: RecordKind): { created: number; parts: KeyPart[] } | undefined;
  /** The text that was first kept under a key: `text` now, or an earlier one. */
  first(key: string, text: string): string;
  /** What sources remember from build to build. */
  memory: { get(name: string): string | undefined; set(name: string, text: string): void };
  /** Marks a record as used by a build until the function that it answers is called. */
  hold(key: string): () => void;
  list(): CacheRecord[];
  /** All keys that lead to what this one leads to: a step has several (by chains, by contents). */
  same(key: string): string[];
  get(key: string): CacheRecord | undefined;
  /** Forgets records (none that a build uses now) and lets go of what they kept; answers those and the bytes. */
  remove(keys: ReadonlySet<string>): Promise<{ records: CacheRecord[]; bytes: number }>;
}

interface Row {
  key: string;
  outputs: string;
  text: string;
  kind: RecordKind;
  size: number;
  created: number;
  used: number;
  uses: number;
  parents: string;
  parts: string;
}

/** Uses are written down together, so long after the first: a build that finds all its steps would wait for a write each. A killed engine forgets them. */
const USES_MS = 1000;

type Stored = [index: number, chainId: string, layers: Layer[]][];

export function openCache(db: DatabaseSync, manager: () => ManagerClients): Cache {
  db.exec(`CREATE TABLE IF NOT EXISTS build_records (key TEXT PRIMARY KEY, outputs TEXT NOT NULL, text TEXT NOT NULL, kind TEXT NOT NULL,
    size INTEGER NOT NULL, created INTEGER NOT NULL, used INTEGER NOT NULL, uses INTEGER NOT NULL, parents TEXT NOT NULL, parts TEXT NOT NULL) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS build_records_text ON build_records (text, created);
    CREATE TABLE IF NOT EXISTS build_times (key TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID`);
  const select = db.prepare("SELECT * FROM build_records WHERE key = ?");
  const insert = db.prepare(
    "INSERT OR REPLACE INTO build_records (key, outputs, text, kind, size, created, used, uses, parents, parts) VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?, ?)",
  );
  const remove = db.prepare("DELETE FROM build_records WHERE key = ?");
  const touch = db.prepare("UPDATE build_records SET used = ?, uses = uses + ? WHERE key = ?");
  const latest = db.prepare("SELECT created, parts FROM build_records WHERE text = ? AND kind = ? ORDER BY created DESC LIMIT 1");
  const twins = db.prepare("SELECT key FROM build_records WHERE text = ? AND kind = ? AND outputs = ?");
  const times = {
    select: db.prepare("SELECT text FROM build_times WHERE key = ?"),
    insert: db.prepare("INSERT OR IGNORE INTO build_times (key, text) VALUES (?, ?)"),
    replace: db.prepare("INSERT OR REPLACE INTO build_times (key, text) VALUES (?, ?)"),
  };
  const held = new Map<string, number>();
  const uses = new Map<string, { at: number; count: number }>();
  let writing: NodeJS.Timeout | undefined;

  function writeUses(): void {
    clearTimeout(writing);
    writing = undefined;
    if (uses.size === 0) return;
    db.exec("BEGIN IMMEDIATE");
    try {
      for (const [key, { at, count }] of uses) touch.run(at, count, key);
      uses.clear();
      db.exec("COMMIT");
    } catch (error) {
      db.exec("ROLLBACK");
      throw error;
    }
  }
  function used(key: string): void {
    uses.set(key, { at: Date.now(), count: (uses.get(key)?.count ?? 0) + 1 });
    writing ??= setTimeout(() => {
      try {
        writeUses();
      } catch {
        // Closed meanwhile, or busy: they are written with the next ones.
        writing = undefined;
      }
    }, USES_MS);
    writing.unref();
  }

  const outputsOf = (row: Row): Outputs =>
    new Map((JSON.parse(row.outputs) as Stored).map(([index, chainId, layers]) => [index, { chainId, layers }]));

  async function isThere(outputs: Outputs): Promise<boolean> {
    const { content } = manager();
    try {
      // A snapshot can be made again of layers; what changed nothing leads to what it was made from, and that is looked at by itself.
      for (const { layers } of outputs.values()) {
        for (const { descriptor } of layers) await content.info({ digest: descriptor.digest });
      }
      return true;
    } catch (error) {
      if (isKind(error, "NotFound") || /not found|does not exist/i.test(String(error))) return false;
      throw error;
    }
  }

  function recordOf(row: Row): CacheRecord {
    const outputs = outputsOf(row);
    const layers = [...outputs.values()].flatMap((output) => output.layers);
    return {
      key: row.key,
      chainId: outputs.get(0)?.chainId ?? [...outputs.values()][0]?.chainId ?? "",
      layer: layers[0],
      layers,
      text: row.text,
      kind: row.kind,
      size: row.size,
      created: row.created,
      used: row.used,
      uses: row.uses,
      parents: JSON.parse(row.parents) as string[],
      inUse: held.has(row.key),
    };
  }
  const list = () => {
    writeUses();
    return (db.prepare("SELECT * FROM build_records ORDER BY used").all() as unknown as Row[]).map(recordOf);
  };

  return {
    running: new Map(),
    async find(key) {
      const row = select.get(key) as unknown as Row | undefined;
      if (!row) return undefined;
      const outputs = outputsOf(row);
      if (!(await isThere(outputs))) {
        remove.run(key);
        return undefined;
      }
      used(key);
      return outputs;
    },
    store(key, outputs, { text, kind, parents, parts }) {
      const now = Date.now();
      const stored: Stored = [...outputs].map(([index, { chainId, layers }]) => [index, chainId, layers]);
      const size = stored.reduce((sum, [, , layers]) => sum + layers.reduce((each, { descriptor }) => each + descriptor.size, 0), 0);
      insert.run(key, JSON.stringify(stored), text, kind, size, now, now, JSON.stringify(parents), JSON.stringify(parts));
    },
    async adopt(outputs) {
      const labels = { [ROOT_LABEL]: new Date().toISOString() };
      const { content } = manager();
      for (const { layers } of outputs.values())
        for (const { descriptor } of layers)
          await content.update({ info: { digest: descriptor.digest, labels }, updateMask: { paths: [`labels.${ROOT_LABEL}`] } });
    },
    earlier(text, kind) {
      const row = latest.get(text, kind) as unknown as Pick<Row, "created" | "parts"> | undefined;
      return row && { created: row.created, parts: JSON.parse(row.parts) as KeyPart[] };
    },
    first(key, text) {
      times.insert.run(key, text);
      return (times.select.get(key) as unknown as { text: string }).text;
    },
    memory: {
      get: (name) => (times.select.get(name) as unknown as { text: string } | undefined)?.text,
      set: (name, text) => void times.replace.run(name, text),
    },
    hold(key) {
      held.set(key, (held.get(key) ?? 0) + 1);
      let over = false;
      return () => {
        if (over) return;
        over = true;
        const left = held.get(key)! - 1;
        if (left > 0) held.set(key, left);
        else held.delete(key);
      };
    },
    list,
    same(key) {
      const row = select.get(key) as unknown as Row | undefined;
      return row ? (twins.all(row.text, row.kind, row.outputs) as unknown as { key: string }[]).map((twin) => twin.key) : [];
    },
    get(key) {
      const row = select.get(key) as unknown as Row | undefined;
      return row && recordOf(row);
    },
    async remove(keys) {
      const all = list();
      const gone = all.filter(({ key, inUse }) => keys.has(key) && !inUse);
      const kept = all.filter((record) => !gone.includes(record));
      const chains = new Set(kept.map(({ chainId }) => chainId));
      const blobs = new Set(kept.flatMap(({ layers }) => layers.map(({ descriptor }) => descriptor.digest)));
      const { snapshots, content, snapshotter } = manager();
      const unlabel = { [ROOT_LABEL]: "" };
      const paths = [`labels.${ROOT_LABEL}`];
      const freed = new Set<string>();
      let bytes = 0;
      const forgotten: CacheRecord[] = [];
      for (const record of gone) {
        const row = select.get(record.key) as unknown as Row | undefined;
        if (!row || held.has(record.key)) continue;
        const outputs = outputsOf(row);
        remove.run(record.key);
        forgotten.push(record);
        for (const { chainId, layers } of outputs.values()) {
          for (const { descriptor } of layers) {
            const { digest, size } = descriptor;
            if (blobs.has(digest) || freed.has(digest)) continue;
            bytes += size;
            freed.add(digest);
            await content.update({ info: { digest, labels: unlabel }, updateMask: { paths } }).catch(() => {});
          }
          if (layers.length > 0 && !chains.has(chainId))
            await snapshots.update({ snapshotter, info: { name: chainId, labels: unlabel }, updateMask: { paths } }).catch(() => {});
        }
      }
      return { records: forgotten, bytes };
    },
  };
}
