// The manager's state: one SQLite database in WAL mode. Every change of state is one transaction. Statements are prepared once.
import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite";
import { reserveRoom } from "../lib/reserve.ts";

export interface Database {
  /** The first row, or undefined. */
  get<T>(sql: string, ...values: SQLInputValue[]): T | undefined;
  all<T>(sql: string, ...values: SQLInputValue[]): T[];
  /** Number of rows changed, and the row id of the last insert. */
  run(sql: string, ...values: SQLInputValue[]): { changes: number; id: number };
  /** All or nothing; a transaction inside another is part of it. Synchronous, so that no other call comes between. */
  transaction<T>(fn: () => T): T;
  close(): void;
}

// Times are microseconds since 1970; labels and other maps are JSON. A container or image is stored as its own protobuf message, beside the
// columns that others look for.
const schema = `
create table if not exists meta (key text primary key, value text not null) strict;
create table if not exists namespaces (name text primary key, labels text not null) strict;
create table if not exists containers (
  namespace text not null, id text not null, snapshotter text not null, snapshot_key text not null, message blob not null,
  primary key (namespace, id)) strict, without rowid;
create table if not exists images (
  namespace text not null, name text not null, digest text not null, message blob not null,
  primary key (namespace, name)) strict, without rowid;
create table if not exists blobs (digest text primary key, size integer not null) strict, without rowid;
create table if not exists content (
  namespace text not null, digest text not null, labels text not null, created integer not null, updated integer not null,
  primary key (namespace, digest)) strict, without rowid;
create index if not exists content_by_digest on content (digest);
create table if not exists ingests (
  id integer primary key autoincrement, namespace text not null, ref text not null, expected text not null, total integer not null,
  started integer not null, updated integer not null, lease text not null, unique (namespace, ref)) strict;
create table if not exists snapshots (
  id integer primary key autoincrement, namespace text not null, key text not null, parent integer references snapshots (id),
  kind integer not null, labels text not null, created integer not null, updated integer not null, size integer, inodes integer,
  unique (namespace, key)) strict;
create index if not exists snapshots_by_parent on snapshots (parent);
create table if not exists leases (
  namespace text not null, id text not null, labels text not null, created integer not null,
  primary key (namespace, id)) strict, without rowid;
create table if not exists lease_resources (
  namespace text not null, lease text not null, type text not null, resource text not null,
  primary key (namespace, lease, type, resource)) strict, without rowid;
create table if not exists shims (
  namespace text not null, id text not null, runtime text not null, address text not null, pid integer not null, bundle text not null,
  primary key (namespace, id)) strict, without rowid;
`;

export function openDatabase(path: string): Database {
  const db = new DatabaseSync(path);
  db.exec("pragma journal_mode = wal; pragma synchronous = normal; pragma foreign_keys = on; pragma busy_timeout = 2000;");
  db.exec(schema);
  try {
    reserveRoom(db);
  } catch {
    // The disk is full already; what has room goes on.
  }
  const statements = new Map<string, StatementSync>();
  const prepare = (sql: string): StatementSync => {
    let statement = statements.get(sql);
    if (!statement) {
      statement = db.prepare(sql);
      statements.set(sql, statement);
    }
    return statement;
  };
  let depth = 0;
  return {
    get: <T>(sql: string, ...values: SQLInputValue[]) => (prepare(sql).get(...values) ?? undefined) as T | undefined,
    all: <T>(sql: string, ...values: SQLInputValue[]) => prepare(sql).all(...values) as T[],
    run(sql, ...values) {
      const result = prepare(sql).run(...values);
      return { changes: Number(result.changes), id: Number(result.lastInsertRowid) };
    },
    transaction(fn) {
      if (depth > 0) return fn();
      prepare("begin immediate").run();
      depth++;
      let result: ReturnType<typeof fn>;
      try {
        result = fn();
        prepare("commit").run();
      } catch (error) {
        prepare("rollback").run();
        throw error;
      } finally {
        depth--;
      }
      return result;
    },
    close() {
      statements.clear();
      db.close();
    },
  };
}

/** Microseconds since 1970: a number that SQLite and JavaScript both keep exactly. */
export function microseconds(): number {
  return Math.round((performance.timeOrigin + performance.now()) * 1000);
}

export function timestamp(us: number): { seconds: bigint; nanos: number } {
  const seconds = Math.floor(us / 1e6);
  return { seconds: BigInt(seconds), nanos: (us - seconds * 1e6) * 1000 };
}

export function parseLabels(json: string): Record<string, string> {
  return json === "{}" ? {} : (JSON.parse(json) as Record<string, string>);
}
