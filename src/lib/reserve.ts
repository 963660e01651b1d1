// Room that a SQLite database keeps for the day the disk is full: what frees space (removing a container) must itself be written down first.
import type { DatabaseSync } from "node:sqlite";

const ROOM = 768 * 1024;

/**
 * Makes the database file and its write-ahead log larger than they need be, once at opening: free pages in the one, and a log that is begun again from
 * its start long before its end (checkpoints after 100 pages; SQLite reuses the file and does not shrink it). Transactions then go on for a while on a full
 * disk. Costs about 1.5 MB of disk and a few milliseconds; fails with ENOSPC's words where there is no room to begin with, which is for the caller to ignore.
 */
export function reserveRoom(db: DatabaseSync): void {
  db.exec("PRAGMA wal_autocheckpoint = 100");
  db.exec(`BEGIN; CREATE TABLE reserve (room BLOB); INSERT INTO reserve VALUES (zeroblob(${ROOM})); COMMIT`);
  db.exec("DROP TABLE reserve");
  db.prepare("PRAGMA wal_checkpoint(RESTART)").all();
}
