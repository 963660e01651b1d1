// Blobs: a file by digest for all namespaces, and in the database which namespace sees it, with which labels.
import { mkdirSync, readdirSync, renameSync, rmSync } from "node:fs";
import { open, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { ContentCreateSchema, ContentDeleteSchema } from "../../gen/containerd/events_pb.ts";
import { alreadyExists, invalidArgument, notFound } from "../../lib/errors.ts";
import { microseconds, parseLabels } from "../database.ts";
import { checkLabels } from "../identifiers.ts";
import { addToLease, makeDirectory, type State, touchNamespace } from "../state.ts";
import type { BlobInfo, ContentStore } from "./store.ts";

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

const SELECT = "select c.digest, b.size, c.labels, c.created, c.updated from content c join blobs b on b.digest = c.digest";

export interface Blobs extends Pick<ContentStore, "info" | "path" | "list" | "setLabels" | "delete" | "adopt"> {
  /** The size of a blob that any namespace has. */
  sizeOf(digest: string): number | undefined;
  /** Whether the namespace sees it; then the lease holds it, too. */
  hold(namespace: string, digest: string, lease: string): boolean;
  /** Puts a finished file at its digest's place; off the event loop, durable before it is visible. */
  place(file: string, digest: string): Promise<void>;
  /** The namespace sees a blob whose file is in place, and the ingest it comes from is over. AlreadyExists where it did before. */
  record(namespace: string, digest: string, size: number, labels: Record<string, string>, lease: string, ingest?: number): void;
}

/** `trash`: a directory of the same file system that is emptied at the next start. */
export function createBlobs(state: State, trash: string): Blobs {
  const { db, events } = state;
  const blobs = makeDirectory(join(state.root, "content/blobs"));

  const blobPath = (digest: string): string => {
    checkDigest(digest);
    return join(blobs, digest.replace(":", "/"));
  };
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
    const file = join(trash, `deleted-${process.pid}-${discarded++}`);
    renameSync(blobPath(digest), file);
    void rm(file, { force: true }).catch((error) => state.log("warn", `${file} is not deleted yet`, { error: String(error) }));
  };

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

  const place = async (file: string, digest: string): Promise<void> => {
    const target = blobPath(digest);
    mkdirSync(dirname(target), { recursive: true, mode: 0o755 });
    await rename(file, target);
    const directory = await open(dirname(target), "r");
    await directory.sync().finally(() => directory.close());
  };

  const hold = (namespace: string, digest: string, lease: string): boolean => {
    if (!db.get("select 1 from content where namespace = ? and digest = ?", namespace, digest)) return false;
    if (lease !== "") db.transaction(() => addToLease(db, namespace, lease, "content", digest));
    return true;
  };

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
    async adopt(namespace, file, { digest, size, labels, lease }) {
      checkLabels(labels);
      if (hold(namespace, digest, lease)) {
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
    sizeOf: (digest) => db.get<{ size: number }>("select size from blobs where digest = ?", digest)?.size,
    hold,
    place,
    record,
  };
}
