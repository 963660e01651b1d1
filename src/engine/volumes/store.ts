// Volumes as the engine keeps them: a row each, and DATA/volumes/NAME/_data.
import { randomBytes } from "node:crypto";
import { mkdirSync } from "node:fs";
import { rename, rm } from "node:fs/promises";
import type { DatabaseSync } from "node:sqlite";
import type { Volume } from "../../api/types.ts";

export interface StoredVolume {
  name: string;
  driver: string;
  labels: Record<string, string>;
  options: Record<string, string>;
  created: string;
  anonymous: boolean;
}

interface Row {
  name: string;
  driver: string;
  labels: string;
  options: string;
  created: string;
  anonymous: number;
}

export interface VolumeStore {
  get(name: string): StoredVolume | undefined;
  list(): StoredVolume[];
  add(volume: StoredVolume): void;
  /** Forgets it at once; its files are renamed away and deleted behind. */
  remove(name: string): Promise<void>;
  path(name: string): string;
  toApi(volume: StoredVolume): Volume;
}

export function openStore(db: DatabaseSync, dataRoot: string): VolumeStore {
  db.exec(
    "CREATE TABLE IF NOT EXISTS volumes (name TEXT PRIMARY KEY, driver TEXT NOT NULL, labels TEXT NOT NULL, options TEXT NOT NULL, created TEXT NOT NULL, anonymous INTEGER NOT NULL) STRICT",
  );
  const insert = db.prepare("INSERT INTO volumes VALUES (?, ?, ?, ?, ?, ?)");
  const erase = db.prepare("DELETE FROM volumes WHERE name = ?");
  const root = `${dataRoot}/volumes`;
  const trash = `${root}/.trash`;
  const all = new Map<string, StoredVolume>();
  for (const row of db.prepare("SELECT * FROM volumes").all() as unknown as Row[]) {
    const { name, driver, labels, options, created, anonymous } = row;
    all.set(name, { name, driver, labels: JSON.parse(labels), options: JSON.parse(options), created, anonymous: anonymous !== 0 });
  }
  // What an engine before us had renamed away and not deleted.
  void rm(trash, { recursive: true, force: true });

  const path = (name: string) => `${root}/${name}/_data`;
  return {
    get: (name) => all.get(name),
    list: () => [...all.values()],
    add(volume) {
      mkdirSync(path(volume.name), { recursive: true, mode: 0o755 });
      const { name, driver, labels, options, created, anonymous } = volume;
      insert.run(name, driver, JSON.stringify(labels), JSON.stringify(options), created, anonymous ? 1 : 0);
      all.set(name, volume);
    },
    async remove(name) {
      erase.run(name);
      all.delete(name);
      const away = `${trash}/${name}.${randomBytes(4).toString("hex")}`;
      mkdirSync(trash, { recursive: true, mode: 0o700 });
      await rename(`${root}/${name}`, away).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== "ENOENT") throw error;
      });
      void rm(away, { recursive: true, force: true }).catch(() => {});
    },
    path,
    toApi: (volume) => ({
      CreatedAt: volume.created,
      Driver: volume.driver,
      Labels: (Object.keys(volume.labels).length > 0 ? volume.labels : null) as Record<string, string>,
      Mountpoint: path(volume.name),
      Name: volume.name,
      Options: (Object.keys(volume.options).length > 0 ? volume.options : null) as Record<string, string>,
      Scope: "local",
    }),
  };
}
