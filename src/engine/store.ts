// The engine's database: DATA/engine.db. Each resource makes its own tables; a change of state is one transaction.
import { mkdirSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { reserveRoom } from "../lib/reserve.ts";

/** Opens the database; survives a kill -9 at any moment (WAL), and loses at most the last transactions when the machine dies. */
export function openStore(dataRoot: string): DatabaseSync {
  mkdirSync(dataRoot, { recursive: true, mode: 0o710 });
  const db = new DatabaseSync(`${dataRoot}/engine.db`);
  db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 5000; PRAGMA foreign_keys = ON");
  db.exec("CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID");
  try {
    reserveRoom(db);
  } catch {
    // The disk is full already; what has room goes on.
  }
  return db;
}

/** A value kept by name: the engine's id, for instance. Made by `make` the first time. */
export function metaValue(db: DatabaseSync, key: string, make: () => string): string {
  const row = db.prepare("SELECT value FROM meta WHERE key = ?").get(key) as { value: string } | undefined;
  if (row) return row.value;
  const value = make();
  db.prepare("INSERT INTO meta (key, value) VALUES (?, ?)").run(key, value);
  return value;
}
