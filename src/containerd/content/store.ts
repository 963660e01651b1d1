// The content store: a plain directory of blobs by digest, ROOT/content/blobs/ALGORITHM/HEX, shared by all namespaces; which namespace sees which
// blob, and its labels, is in the database. A blob is written as an *ingest* (ROOT/content/ingest/N), known by its caller's ref, resumable until
// it is committed or aborted, hashed while it is written. A blob that is there has been verified, and is on disk (fsync) before it has its name.
import { createHash, type Hash } from "node:crypto";
import { mkdirSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { type FileHandle, open, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { ContentCreateSchema, ContentDeleteSchema } from "../../gen/containerd/events_pb.ts";
import { alreadyExists, failedPrecondition, invalidArgument, notFound, unavailable } from "../../lib/errors.ts";
import { microseconds, parseLabels } from "../database.ts";
import { checkLabels } from "../identifiers.ts";
import { addToLease, makeDirectory, type State, touchNamespace } from "../state.ts";

export interface BlobInfo {
  digest: string;
  size: number;
  labels: Record<string, string>;
  created: number;
  updated: number;
}

export interface IngestStatus {
  ref: string;
  offset: number;
  total: number;
  expected: string;
  started: number;
  updated: number;
}

export interface WriterOptions {
  namespace: string;
  ref: string;
  /** The digest it shall have; "" where unknown. AlreadyExists where the namespace has it. */
  expected: string;
  /** Its size in bytes; 0 where unknown. */
  total: number;
  lease: string;
}

export interface Writer {
  status(): IngestStatus;
  /** Digest of what was written so far. */
  digest(): string;
  /** Appends. One call at a time. */
  write(data: Uint8Array): Promise<void>;
  /** Begins anew. */
  restart(): Promise<void>;
  /** Verifies size and digest and makes it a blob; FailedPrecondition where they are not as expected: the ingest is then gone, as it can never become right. */
  commit(options: { size: number; expected: string; labels: Record<string, string> }): Promise<string>;
  /** Lets the ingest go, for someone to resume. */
  close(): Promise<void>;
}

export interface ContentStore {
  /** NotFound where the namespace does not see it. */
  info(namespace: string, digest: string): BlobInfo;
  /** The file of a blob, for reading only. NotFound where the namespace does not see it. */
  path(namespace: string, digest: string): string;
  list(namespace: string): BlobInfo[];
  setLabels(namespace: string, digest: string, change: (labels: Record<string, string>) => Record<string, string>): BlobInfo;
  /** The namespace forgets it; the file goes with the last one that saw it. */
  delete(namespace: string, digest: string): void;
  /** Unavailable where another writer has the ref. */
  writer(options: WriterOptions): Promise<Writer>;
  /** Takes over a file of the same file system that the caller has hashed itself; false where the namespace had it already (the file is then removed). */
  adopt(
    namespace: string,
    file: string,
    blob: { digest: string; size: number; labels: Record<string, string>; lease: string },
  ): Promise<boolean>;
  /** Keeps the part of a blob that is in a file of the same file system as the ingest `ref`, for a later attempt; where there is such an ingest already, the file is removed. */
  setAside(namespace: string, file: string, ingest: { ref: string; expected: string; total: number }): Promise<void>;
  /** Moves what an earlier attempt left under `ref` to `file`, and answers how many bytes that are; 0 where there is nothing, or somebody is writing it. */
  takeUp(namespace: string, ref: string, file: string): Promise<number>;
  status(namespace: string, ref: string): Promise<IngestStatus>;
  statuses(namespace: string): Promise<IngestStatus[]>;
  abort(namespace: string, ref: string): Promise<void>;
  /** Removes ingests that nobody touched for a day. */
  expire(): void;
}

const DAY = 24 * 3600 * 1e6;
const digestPattern = /^(sha256:[a-f0-9]{64}|sha384:[a-f0-9]{96}|sha512:[a-f0-9]{128})$/;

export function checkDigest(digest: string): void {
  if (!digestPattern.test(digest)) throw invalidArgument(`"${digest}" is no digest: invalid checksum digest format`);
}

interface ContentRow {
  digest: string;
  size: number;
  labels: string;
  created: number;
  updated: number;
}
interface IngestRow {
  id: number;
  ref: string;
  expected: string;
  total: number;
  started: number;
  updated: number;
}

const SELECT = "select c.digest, b.size, c.labels, c.created, c.updated from content c join blobs b on b.digest = c.digest";

export function createContentStore(state: State): ContentStore {
  const { db, events } = state;
  const blobs = makeDirectory(join(state.root, "content/blobs"));
  const ingests = makeDirectory(join(state.root, "content/ingest"));
  const busy = new Set<string>();

  const blobPath = (digest: string): string => {
    checkDigest(digest);
    return join(blobs, digest.replace(":", "/"));
  };
  const ingestPath = (id: number) => join(ingests, String(id));
  const lockName = (namespace: string, ref: string) => `${namespace}\0${ref}`;

  reconcile();

  // After a kill -9: files of no row are removed (a blob that was renamed but not recorded, too), rows of no file forgotten.
  function reconcile(): void {
    const known = new Set(db.all<{ digest: string }>("select digest from blobs").map((row) => row.digest));
    const found = new Set<string>();
    for (const algorithm of readdirSync(blobs)) {
      for (const hex of readdirSync(join(blobs, algorithm))) {
        const digest = `${algorithm}:${hex}`;
        if (known.has(digest)) found.add(digest);
        else rmSync(join(blobs, algorithm, hex), { force: true });
      }
    }
    const ids = new Set(db.all<{ id: number }>("select id from ingests").map((row) => row.id));
    for (const name of readdirSync(ingests)) if (!ids.has(Number(name))) rmSync(join(ingests, name), { force: true });
    db.transaction(() => {
      for (const digest of known) {
        if (found.has(digest)) continue;
        state.log("warn", `the file of ${digest} is gone; it is forgotten`);
        db.run("delete from content where digest = ?", digest);
        db.run("delete from blobs where digest = ?", digest);
      }
    });
  }

  const infoOf = (row: ContentRow): BlobInfo => ({ ...row, labels: parseLabels(row.labels) });
  const find = (namespace: string, digest: string): BlobInfo => {
    const row = db.get<ContentRow>(`${SELECT} where c.namespace = ? and c.digest = ?`, namespace, digest);
    if (!row) throw notFound(`content digest ${digest}`);
    return infoOf(row);
  };

  let discarded = 0;
  /** Out of the way at once; freeing a large file takes its time. */
  const discard = (digest: string): void => {
    const trash = join(ingests, `deleted-${process.pid}-${discarded++}`);
    renameSync(blobPath(digest), trash);
    void rm(trash, { force: true }).catch((error) => state.log("warn", `${trash} is not deleted yet`, { error: String(error) }));
  };

  /** The namespace sees a blob whose file is in place. AlreadyExists where it did before. */
  const record = (
    namespace: string,
    digest: string,
    size: number,
    labels: Record<string, string>,
    lease: string,
    ingest?: number,
  ): void => {
    let added = 0;
    const now = microseconds();
    db.transaction(() => {
      touchNamespace(db, namespace);
      db.run("insert or ignore into blobs (digest, size) values (?, ?)", digest, size);
      added = db.run(
        "insert or ignore into content (namespace, digest, labels, created, updated) values (?, ?, ?, ?, ?)",
        namespace,
        digest,
        JSON.stringify(labels),
        now,
        now,
      ).changes;
      addToLease(db, namespace, lease, "content", digest);
      if (ingest !== undefined) db.run("delete from ingests where id = ?", ingest);
    });
    if (added === 0) throw alreadyExists(`content ${digest}`);
    events.publish(namespace, "/content/create", ContentCreateSchema, { digest, size: BigInt(size) });
  };

  /** Puts a finished file at its digest's place; off the event loop, durable before it is visible. */
  const place = async (file: string, digest: string): Promise<void> => {
    const target = blobPath(digest);
    mkdirSync(dirname(target), { recursive: true, mode: 0o755 });
    await rename(file, target);
    const directory = await open(dirname(target), "r");
    await directory.sync().finally(() => directory.close());
  };

  const findIngest = (namespace: string, ref: string): IngestRow | undefined =>
    db.get<IngestRow>("select id, ref, expected, total, started, updated from ingests where namespace = ? and ref = ?", namespace, ref);
  const statusOf = async (row: IngestRow): Promise<IngestStatus> => {
    const file = await stat(ingestPath(row.id)).catch(() => undefined);
    const { ref, total, expected, started } = row;
    return { ref, total, expected, started, offset: file?.size ?? 0, updated: file ? Math.round(file.mtimeMs * 1000) : row.updated };
  };
  const drop = (id: number): void => {
    db.run("delete from ingests where id = ?", id);
    rmSync(ingestPath(id), { force: true });
  };

  async function writer(options: WriterOptions): Promise<Writer> {
    const { namespace, ref, lease } = options;
    if (ref === "") throw invalidArgument("ref must not be empty");
    if (options.expected !== "") {
      checkDigest(options.expected);
      if (db.get("select 1 from content where namespace = ? and digest = ?", namespace, options.expected)) {
        if (lease !== "") db.transaction(() => addToLease(db, namespace, lease, "content", options.expected));
        throw alreadyExists(`content ${options.expected}`);
      }
      const shared = db.get<{ size: number }>("select size from blobs where digest = ?", options.expected);
      if (shared) return sharedWriter(options, shared.size);
    }
    const lock = lockName(namespace, ref);
    if (busy.has(lock)) throw unavailable(`ref ${ref} locked by another writer`);
    busy.add(lock);
    let file: FileHandle | undefined;
    try {
      const now = microseconds();
      const row = db.transaction(() => {
        touchNamespace(db, namespace);
        const found = findIngest(namespace, ref);
        if (found) return found;
        const { id } = db.run(
          "insert into ingests (namespace, ref, expected, total, started, updated, lease) values (?, ?, ?, ?, ?, ?, ?)",
          namespace,
          ref,
          options.expected,
          options.total,
          now,
          now,
          lease,
        );
        addToLease(db, namespace, lease, "ingests", ref);
        return { id, ref, expected: options.expected, total: options.total, started: now, updated: now };
      });
      file = await open(ingestPath(row.id), "a+", 0o644);
      return await openWriter(options, row, file, () => busy.delete(lock));
    } catch (error) {
      await file?.close();
      busy.delete(lock);
      throw error;
    }
  }

  async function openWriter(options: WriterOptions, row: IngestRow, file: FileHandle, unlock: () => void): Promise<Writer> {
    const { namespace, lease } = options;
    const algorithm = (options.expected || row.expected).split(":")[0] || "sha256";
    let hash: Hash = createHash(algorithm);
    let offset = 0;
    let updated = row.updated;
    let closed = false;
    // what an earlier writer left is hashed again
    const buffer = new Uint8Array(1 << 20);
    for (;;) {
      const { bytesRead } = await file.read(buffer, 0, buffer.length, offset);
      if (bytesRead === 0) break;
      hash.update(buffer.subarray(0, bytesRead));
      offset += bytesRead;
    }
    const total = () => options.total || row.total;
    const digest = () => `${algorithm}:${hash.copy().digest("hex")}`;
    const close = async (): Promise<void> => {
      if (closed) return;
      closed = true;
      unlock();
      await file.close();
    };
    return {
      status: () => ({ ref: row.ref, offset, total: total(), expected: options.expected || row.expected, started: row.started, updated }),
      digest,
      async write(data) {
        for (let done = 0; done < data.length; ) done += (await file.write(data, done, data.length - done)).bytesWritten;
        hash.update(data);
        offset += data.length;
        updated = microseconds();
      },
      async restart() {
        await file.truncate(0);
        hash = createHash(algorithm);
        offset = 0;
      },
      async commit({ size, expected, labels }) {
        checkLabels(labels);
        const actual = digest();
        const wanted = expected || options.expected || row.expected;
        const fail = async (message: string): Promise<never> => {
          await close();
          drop(row.id);
          throw failedPrecondition(message);
        };
        if (size > 0 && size !== offset) return fail(`unexpected commit size ${offset}, expected ${size}`);
        if (wanted !== "" && wanted !== actual) return fail(`unexpected commit digest ${actual}, expected ${wanted}`);
        try {
          await file.sync();
          await file.chmod(0o444);
          await place(ingestPath(row.id), actual);
          record(namespace, actual, offset, labels, lease, row.id);
        } catch (error) {
          drop(row.id);
          throw error;
        } finally {
          await close();
        }
        return actual;
      },
      close,
    };
  }

  /** Another namespace has the blob: nothing needs to be written, only recorded. What is written all the same is ignored. */
  function sharedWriter({ namespace, ref, expected, lease }: WriterOptions, size: number): Writer {
    const now = microseconds();
    return {
      status: () => ({ ref, offset: size, total: size, expected, started: now, updated: now }),
      digest: () => expected,
      write: async () => {},
      restart: async () => {},
      async commit(options) {
        if (options.size > 0 && options.size !== size) throw failedPrecondition(`unexpected commit size ${size}, expected ${options.size}`);
        if (options.expected !== "" && options.expected !== expected) {
          throw failedPrecondition(`unexpected commit digest ${expected}, expected ${options.expected}`);
        }
        checkLabels(options.labels);
        record(namespace, expected, size, options.labels, lease);
        return expected;
      },
      close: async () => {},
    };
  }

  return {
    info: find,
    path(namespace, digest) {
      find(namespace, digest);
      return blobPath(digest);
    },
    list: (namespace) => db.all<ContentRow>(`${SELECT} where c.namespace = ? order by c.digest`, namespace).map(infoOf),
    setLabels: (namespace, digest, change) =>
      db.transaction(() => {
        const info = find(namespace, digest);
        info.labels = change(info.labels);
        checkLabels(info.labels);
        info.updated = microseconds();
        db.run(
          "update content set labels = ?, updated = ? where namespace = ? and digest = ?",
          JSON.stringify(info.labels),
          info.updated,
          namespace,
          digest,
        );
        return info;
      }),
    delete(namespace, digest) {
      const last = db.transaction(() => {
        find(namespace, digest);
        db.run("delete from content where namespace = ? and digest = ?", namespace, digest);
        db.run("delete from lease_resources where namespace = ? and type = 'content' and resource = ?", namespace, digest);
        if (db.get("select 1 from content where digest = ? limit 1", digest)) return false;
        db.run("delete from blobs where digest = ?", digest);
        return true;
      });
      if (last) discard(digest);
      events.publish(namespace, "/content/delete", ContentDeleteSchema, { digest });
    },
    writer,
    async adopt(namespace, file, { digest, size, labels, lease }) {
      checkLabels(labels);
      if (db.get("select 1 from content where namespace = ? and digest = ?", namespace, digest)) {
        if (lease !== "") db.transaction(() => addToLease(db, namespace, lease, "content", digest));
        await rm(file, { force: true });
        return false;
      }
      const handle = await open(file, "r");
      await handle.sync().finally(() => handle.close());
      await place(file, digest);
      try {
        record(namespace, digest, size, labels, lease);
      } catch (error) {
        if ((error as Error).name === "AlreadyExists") return false;
        throw error;
      }
      return true;
    },
    async setAside(namespace, file, { ref, expected, total }) {
      const now = microseconds();
      const id = db.transaction(() => {
        touchNamespace(db, namespace);
        if (findIngest(namespace, ref)) return undefined;
        return db.run(
          "insert into ingests (namespace, ref, expected, total, started, updated, lease) values (?, ?, ?, ?, ?, ?, '')",
          namespace,
          ref,
          expected,
          total,
          now,
          now,
        ).id;
      });
      if (id === undefined) await rm(file, { force: true });
      else await rename(file, ingestPath(Number(id)));
    },
    async takeUp(namespace, ref, file) {
      const row = findIngest(namespace, ref);
      if (!row || busy.has(lockName(namespace, ref))) return 0;
      const size = (await stat(ingestPath(row.id)).catch(() => undefined))?.size ?? 0;
      if (size === 0 || findIngest(namespace, ref)?.id !== row.id) return 0;
      renameSync(ingestPath(row.id), file);
      drop(row.id);
      return size;
    },
    async status(namespace, ref) {
      const row = findIngest(namespace, ref);
      if (!row) throw notFound(`ingest ref ${ref}`);
      return statusOf(row);
    },
    statuses: (namespace) =>
      Promise.all(
        db
          .all<IngestRow>("select id, ref, expected, total, started, updated from ingests where namespace = ? order by ref", namespace)
          .map(statusOf),
      ),
    async abort(namespace, ref) {
      const row = findIngest(namespace, ref);
      if (!row) throw notFound(`ingest ref ${ref}`);
      if (busy.has(lockName(namespace, ref))) throw unavailable(`ref ${ref} locked by another writer`);
      drop(row.id);
      db.run("delete from lease_resources where namespace = ? and type = 'ingests' and resource = ?", namespace, ref);
    },
    expire() {
      const rows = db.all<{ id: number; namespace: string; ref: string; started: number }>(
        "select id, namespace, ref, started from ingests",
      );
      for (const { id, namespace, ref, started } of rows) {
        if (busy.has(lockName(namespace, ref))) continue;
        let touched = started;
        try {
          touched = statSync(ingestPath(id)).mtimeMs * 1000;
        } catch {
          // never written to
        }
        if (touched < microseconds() - DAY) drop(id);
      }
    },
  };
}
