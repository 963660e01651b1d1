// Cache mounts: directories by name that outlive builds. Shared by all at once, or one user at a time, or a further directory for each that finds the others in use.

import { mkdirSync } from "node:fs";
import { lstat, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { DatabaseSync } from "node:sqlite";
import { CacheSharingOpt } from "../../gen/pb_pb.ts";
import { digestOf, hexOf } from "../../oci/index.ts";

export interface MountCache {
  directory: string;
  release(): void;
}

export interface MountCacheRecord {
  /** Name of its directory. */
  key: string;
  id: string;
  size: number;
  created: number;
  used: number;
  uses: number;
  inUse: boolean;
}

export interface MountCaches {
  /** The cache `id`; `base` names what it begins with, so that another beginning is another cache. */
  take(id: string, base: string, sharing: CacheSharingOpt, signal: AbortSignal): Promise<MountCache>;
  /** Costs a walk through all of them. */
  list(): Promise<MountCacheRecord[]>;
  /** Removes one that is not in use; answers whether it did. */
  remove(key: string): Promise<boolean>;
}

async function sizeOf(directory: string): Promise<number> {
  let sum = 0;
  for (const entry of await readdir(directory, { withFileTypes: true }).catch(() => [])) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) sum += await sizeOf(path);
    else sum += (await lstat(path).catch(() => undefined))?.size ?? 0;
  }
  return sum;
}

export function openMountCaches(db: DatabaseSync, directory: string): MountCaches {
  db.exec(
    "CREATE TABLE IF NOT EXISTS build_mounts (key TEXT PRIMARY KEY, id TEXT NOT NULL, created INTEGER NOT NULL, used INTEGER NOT NULL, uses INTEGER NOT NULL) WITHOUT ROWID",
  );
  const touch = db.prepare(
    "INSERT INTO build_mounts (key, id, created, used, uses) VALUES (?, ?, ?, ?, 1) ON CONFLICT (key) DO UPDATE SET used = excluded.used, uses = uses + 1",
  );
  /** How many use one; a negative number: one that lets no other in. */
  const users = new Map<string, number>();
  const waiting = new Map<string, (() => void)[]>();

  function enter(key: string, id: string, alone: boolean): MountCache {
    users.set(key, alone ? -1 : (users.get(key) ?? 0) + 1);
    const now = Date.now();
    touch.run(key, id, now, now);
    const place = join(directory, key);
    mkdirSync(place, { recursive: true, mode: 0o700 });
    let released = false;
    return {
      directory: place,
      release() {
        if (released) return;
        released = true;
        const left = alone ? 0 : users.get(key)! - 1;
        if (left > 0) users.set(key, left);
        else users.delete(key);
        for (const wake of waiting.get(key)?.splice(0) ?? []) wake();
      },
    };
  }

  return {
    async take(id, base, sharing, signal) {
      const name = hexOf(digestOf(base === "" ? id : JSON.stringify([id, base])));
      if (sharing === CacheSharingOpt.PRIVATE) {
        for (let i = 0; ; i++) {
          const key = i === 0 ? name : `${name}-${i}`;
          if (!users.has(key)) return enter(key, id, true);
        }
      }
      const alone = sharing === CacheSharingOpt.LOCKED;
      const free = () => (alone ? !users.has(name) : (users.get(name) ?? 0) >= 0);
      while (!free()) {
        await new Promise<void>((resolve, reject) => {
          const list = waiting.get(name) ?? [];
          waiting.set(name, list);
          const stop = () => reject(signal.reason);
          signal.addEventListener("abort", stop, { once: true });
          list.push(() => {
            signal.removeEventListener("abort", stop);
            resolve();
          });
          if (signal.aborted) stop();
        });
      }
      return enter(name, id, alone);
    },
    async list() {
      const rows = db.prepare("SELECT * FROM build_mounts ORDER BY used").all() as unknown as Omit<MountCacheRecord, "size" | "inUse">[];
      const found: MountCacheRecord[] = [];
      for (const row of rows) found.push({ ...row, size: await sizeOf(join(directory, row.key)), inUse: users.has(row.key) });
      return found;
    },
    async remove(key) {
      if (users.has(key) || !/^[0-9a-f]{64}(-\d+)?$/.test(key)) return false;
      users.set(key, -1);
      try {
        await rm(join(directory, key), { recursive: true, force: true });
        db.prepare("DELETE FROM build_mounts WHERE key = ?").run(key);
      } finally {
        users.delete(key);
        for (const wake of waiting.get(key)?.splice(0) ?? []) wake();
      }
      return true;
    },
  };
}
