// The engine's containers: every record in memory, and in the database as one JSON document each. Look-ups never wait.
import type { DatabaseSync } from "node:sqlite";
import { conflict, invalidArgument, notFound } from "../../lib/errors.ts";
import type { ContainerRecord, ProcessIo } from "../context.ts";

/** What is known of a container beside its record, as long as this engine lives. */
export interface Entry {
  record: ContainerRecord;
  /** The last of the changes that wait for each other: start, remove, rename. */
  tail: Promise<unknown>;
  /** While a start is under way; an exit is handled after it. */
  starting: Promise<void> | undefined;
  /** After an exit: until its addresses, ports and streams are free. */
  cleanup: Promise<void> | undefined;
  /** After an exit: until the manager has forgotten its task. */
  ending: Promise<void> | undefined;
  /** Set where a task is being waited for: resolves when its exit has been handled. */
  exited: Promise<void> | undefined;
  io: ProcessIo | undefined;
  oomKilled: boolean;
  /** SIGKILL was sent to what runs: it must not be frozen any more, as a frozen process does not die. */
  killed: boolean;
  /** It is being restarted: neither its restart policy nor --rm acts on its exit. */
  keep: boolean;
  removing: Promise<void> | undefined;
  restart: { timer: NodeJS.Timeout | undefined; delay: number; startedAt: number };
  /** Called at each exit, and when the container is gone. */
  waiters: Set<Waiter>;
}

export interface Waiter {
  exit?(status: number, error: string): void;
  removed(status: number, error: string): void;
}

export interface Book {
  find(ref: string): Entry;
  byId(id: string): Entry | undefined;
  byName(name: string): Entry | undefined;
  /** Newest first. */
  entries(): Entry[];
  /** Holds a name for a container about to be; 409 where it is taken. */
  reserve(name: string, id: string): void;
  release(name: string, id: string): void;
  taken(name: string): boolean;
  add(record: ContainerRecord): Entry;
  save(entry: Entry): void;
  rename(entry: Entry, name: string): void;
  remove(entry: Entry): void;
}

export function newEntry(record: ContainerRecord): Entry {
  return {
    record,
    tail: Promise.resolve(),
    starting: undefined,
    cleanup: undefined,
    ending: undefined,
    exited: undefined,
    io: undefined,
    oomKilled: false,
    killed: false,
    keep: false,
    removing: undefined,
    restart: { timer: undefined, delay: 0, startedAt: 0 },
    waiters: new Set(),
  };
}

/** Runs `change` after the changes of the same container that were asked for before. */
export function locked<T>(entry: Entry, change: () => Promise<T>): Promise<T> {
  const run = entry.tail.then(change, change);
  entry.tail = run.catch(() => {});
  return run;
}

export function openBook(db: DatabaseSync): Book {
  db.exec("CREATE TABLE IF NOT EXISTS containers (id TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID");
  const insert = db.prepare("INSERT INTO containers (id, record) VALUES (?, ?)");
  const update = db.prepare("UPDATE containers SET record = ? WHERE id = ?");
  const erase = db.prepare("DELETE FROM containers WHERE id = ?");

  const entries = new Map<string, Entry>();
  const names = new Map<string, string>();
  for (const row of db.prepare("SELECT record FROM containers").all() as { record: string }[]) {
    const record = JSON.parse(row.record) as ContainerRecord;
    entries.set(record.id, newEntry(record));
    names.set(record.name, record.id);
  }

  let sorted: Entry[] | undefined;

  const reserve = (name: string, id: string) => {
    const owner = names.get(name);
    if (owner !== undefined && owner !== id) {
      throw conflict(
        `Conflict. The container name "/${name}" is already in use by container "${owner}". You have to remove (or rename) that container to be able to reuse that name.`,
      );
    }
    names.set(name, id);
  };
  const release = (name: string, id: string) => {
    if (names.get(name) === id) names.delete(name);
  };

  return {
    find(ref) {
      const exact = entries.get(ref);
      if (exact) return exact;
      const named = names.get(ref.startsWith("/") ? ref.slice(1) : ref);
      const entry = named === undefined ? undefined : entries.get(named);
      if (entry) return entry;
      if (/^[0-9a-f]{1,64}$/.test(ref)) {
        let found: Entry | undefined;
        for (const [id, each] of entries) {
          if (!id.startsWith(ref)) continue;
          if (found) throw invalidArgument(`Multiple IDs found with provided prefix: ${ref}`);
          found = each;
        }
        if (found) return found;
      }
      throw notFound(`No such container: ${ref}`);
    },
    byId: (id) => entries.get(id),
    byName: (name) => entries.get(names.get(name) ?? ""),
    entries() {
      sorted ??= [...entries.values()].sort((a, b) => (a.record.created < b.record.created ? 1 : -1));
      return sorted;
    },
    reserve,
    release,
    taken: (name) => names.has(name),
    add(record) {
      insert.run(record.id, JSON.stringify(record));
      const entry = newEntry(record);
      entries.set(record.id, entry);
      sorted = undefined;
      return entry;
    },
    save(entry) {
      if (entries.get(entry.record.id) === entry) update.run(JSON.stringify(entry.record), entry.record.id);
    },
    rename(entry, name) {
      reserve(name, entry.record.id);
      release(entry.record.name, entry.record.id);
      entry.record.name = name;
      update.run(JSON.stringify(entry.record), entry.record.id);
    },
    remove(entry) {
      erase.run(entry.record.id);
      entries.delete(entry.record.id);
      release(entry.record.name, entry.record.id);
      sorted = undefined;
    },
  };
}
