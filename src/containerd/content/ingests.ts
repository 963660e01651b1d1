// Ingests: blobs while they are written, each a file that is known by its caller's ref, and a row in the database.
import { createHash, type Hash } from "node:crypto";
import { readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { type FileHandle, open, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { alreadyExists, failedPrecondition, invalidArgument, notFound, unavailable } from "../../lib/errors.ts";
import { microseconds } from "../database.ts";
import { checkLabels } from "../identifiers.ts";
import { addToLease, type State, touchNamespace } from "../state.ts";
import { type Blobs, checkDigest } from "./blobs.ts";
import type { ContentStore, IngestStatus, Writer, WriterOptions } from "./store.ts";

const DAY = 24 * 3600 * 1e6;

interface IngestRow {
  id: number;
  ref: string;
  expected: string;
  total: number;
  started: number;
  updated: number;
}

type Ingests = Pick<ContentStore, "writer" | "setAside" | "takeUp" | "status" | "statuses" | "abort" | "expire">;

export function createIngests(state: State, blobs: Blobs, ingests: string): Ingests {
  const { db } = state;
  const busy = new Set<string>();

  const ingestPath = (id: number) => join(ingests, String(id));
  const lockName = (namespace: string, ref: string) => `${namespace}\0${ref}`;

  // After a kill -9: files of no row are removed.
  const ids = new Set(db.all<{ id: number }>("select id from ingests").map((row) => row.id));
  for (const name of readdirSync(ingests)) if (!ids.has(Number(name))) rmSync(join(ingests, name), { force: true });

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
      if (blobs.hold(namespace, options.expected, lease)) throw alreadyExists(`content ${options.expected}`);
      const shared = blobs.sizeOf(options.expected);
      if (shared !== undefined) return sharedWriter(options, shared);
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
          await blobs.place(ingestPath(row.id), actual);
          blobs.record(namespace, actual, offset, labels, lease, row.id);
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
        blobs.record(namespace, expected, size, options.labels, lease);
        return expected;
      },
      close: async () => {},
    };
  }

  return {
    writer,
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
