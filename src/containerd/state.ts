// What the manager's services share.
import { mkdirSync } from "node:fs";
import { notFound } from "../lib/errors.ts";
import type { Database } from "./database.ts";
import type { Exchange } from "./events.ts";

export type Log = (level: "debug" | "info" | "warn" | "error", message: string, fields?: Record<string, unknown>) => void;

export interface State {
  /** Data that stays: the database, content, snapshots. */
  root: string;
  /** What lives until the machine restarts: bundles, sockets. */
  state: string;
  db: Database;
  events: Exchange;
  log: Log;
  /** Asks for a garbage collection soon; with `now`, resolves when one that began after the call is done. */
  collect(now?: boolean): Promise<void>;
}

/** Adds the namespace where it is not there yet: the first thing made in it makes it. Inside the caller's transaction. */
export function touchNamespace(db: Database, namespace: string): void {
  if (!db.get("select 1 from namespaces where name = ?", namespace)) {
    db.run("insert into namespaces (name, labels) values (?, '{}')", namespace);
  }
}

/** Makes what was just made part of the caller's lease, where it brought one. Inside the caller's transaction. */
export function addToLease(db: Database, namespace: string, lease: string, type: string, resource: string): void {
  if (lease === "") return;
  if (!db.get("select 1 from leases where namespace = ? and id = ?", namespace, lease)) throw notFound(`lease "${lease}"`);
  db.run("insert or ignore into lease_resources (namespace, lease, type, resource) values (?, ?, ?, ?)", namespace, lease, type, resource);
}

export function makeDirectory(path: string, mode = 0o711): string {
  mkdirSync(path, { recursive: true, mode });
  return path;
}
