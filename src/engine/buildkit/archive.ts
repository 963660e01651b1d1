// Builds that are over, in the engine's database: what was asked, how it ended, what it said, and small documents about it (provenance). Bounded in number, age and
// bytes; the oldest go first, pinned ones last.
import { randomBytes } from "node:crypto";
import type { DatabaseSync } from "node:sqlite";
import { promisify } from "node:util";
import { gunzip, gzip } from "node:zlib";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { sizeDelimitedDecodeStream, sizeDelimitedEncode } from "@bufbuild/protobuf/wire";
import {
  type BuildHistoryRecord,
  BuildHistoryRecordSchema,
  type StatusResponse,
  StatusResponseSchema,
} from "../../gen/moby/buildkit/v1_pb.ts";
import type { Followed } from "./status.ts";

/** A record goes where there are more than so many and it is older than this, as with BuildKit; … */
const MAX_KEPT = 50;
const MAX_AGE_MS = 48 * 3600_000;
/** … and in any case where there is too much of it. */
const MAX_RECORDS = 1000;
const MAX_BYTES = 256 << 20;
const MAX_LOG = 64 << 20;

export interface Document {
  digest: string;
  bytes: Uint8Array;
}

export interface Archive {
  /** Oldest first. */
  records(): BuildHistoryRecord[];
  /** Keeps a build that is over. Answers what had to go for it. */
  add(record: BuildHistoryRecord, progress: Followed, documents: readonly Document[]): Promise<string[]>;
  update(record: BuildHistoryRecord): void;
  remove(ref: string): void;
  /** What a build said. */
  progress(ref: string): Followed;
  document(digest: string): Uint8Array | undefined;
}

const deflate = promisify(gzip);
const inflate = promisify(gunzip);
const millis = (record: BuildHistoryRecord) => Number(record.CompletedAt?.seconds ?? 0n) * 1000;

async function packed(progress: Followed): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const update of progress.follow(new AbortController().signal)) {
    const part = sizeDelimitedEncode(StatusResponseSchema, create(StatusResponseSchema, update as StatusResponse));
    size += part.length;
    if (size > MAX_LOG) break;
    parts.push(part);
  }
  return deflate(Buffer.concat(parts), { level: 1 });
}

export function openArchive(db: DatabaseSync): Archive {
  db.exec(`CREATE TABLE IF NOT EXISTS build_history (
    ref TEXT PRIMARY KEY, completed INTEGER NOT NULL, pinned INTEGER NOT NULL, size INTEGER NOT NULL, record BLOB NOT NULL, log BLOB NOT NULL
  ) STRICT, WITHOUT ROWID`);
  db.exec(`CREATE TABLE IF NOT EXISTS build_documents (
    ref TEXT NOT NULL REFERENCES build_history (ref) ON DELETE CASCADE, digest TEXT NOT NULL, bytes BLOB NOT NULL, PRIMARY KEY (ref, digest)
  ) STRICT, WITHOUT ROWID`);
  db.exec("CREATE INDEX IF NOT EXISTS build_documents_digest ON build_documents (digest)");
  const all = db.prepare("SELECT record FROM build_history ORDER BY completed");
  const sizes = db.prepare("SELECT ref, completed, size FROM build_history ORDER BY pinned, completed");
  const insert = db.prepare("INSERT OR REPLACE INTO build_history (ref, completed, pinned, size, record, log) VALUES (?, ?, ?, ?, ?, ?)");
  const attach = db.prepare("INSERT OR REPLACE INTO build_documents (ref, digest, bytes) VALUES (?, ?, ?)");
  const change = db.prepare("UPDATE build_history SET record = ?, pinned = ? WHERE ref = ?");
  const drop = db.prepare("DELETE FROM build_history WHERE ref = ?");
  const log = db.prepare("SELECT log FROM build_history WHERE ref = ?");
  const found = db.prepare("SELECT bytes FROM build_documents WHERE digest = ? LIMIT 1");
  const bytesOf = (record: BuildHistoryRecord) => toBinary(BuildHistoryRecordSchema, record);

  function trim(now: number): string[] {
    const rows = sizes.all() as { ref: string; completed: number; size: number }[];
    let count = rows.length;
    let bytes = rows.reduce((sum, { size }) => sum + size, 0);
    const gone: string[] = [];
    for (const { ref, completed, size } of rows) {
      const old = count > MAX_KEPT && now - completed > MAX_AGE_MS;
      if (!old && count <= MAX_RECORDS && bytes <= MAX_BYTES) break;
      drop.run(ref);
      gone.push(ref);
      count--;
      bytes -= size;
    }
    return gone;
  }

  return {
    records: () => (all.all() as { record: Uint8Array }[]).map(({ record }) => fromBinary(BuildHistoryRecordSchema, record)),
    async add(record, progress, documents) {
      const said = await packed(progress);
      const bytes = bytesOf(record);
      const size = said.length + bytes.length + documents.reduce((sum, each) => sum + each.bytes.length, 0);
      const savepoint = `history_${randomBytes(4).toString("hex")}`;
      db.exec(`SAVEPOINT ${savepoint}`);
      try {
        insert.run(record.Ref, millis(record), Number(record.pinned), size, bytes, said);
        for (const each of documents) attach.run(record.Ref, each.digest, each.bytes);
        return trim(Date.now());
      } finally {
        db.exec(`RELEASE ${savepoint}`);
      }
    },
    update: (record) => void change.run(bytesOf(record), Number(record.pinned), record.Ref),
    remove: (ref) => void drop.run(ref),
    progress: (ref) => ({
      async *follow() {
        const row = log.get(ref) as { log: Uint8Array } | undefined;
        if (!row) return;
        const bytes = await inflate(row.log);
        async function* one() {
          yield bytes as Uint8Array;
        }
        for await (const update of sizeDelimitedDecodeStream(StatusResponseSchema, one())) yield update as never;
      },
    }),
    document: (digest) => (found.get(digest) as { bytes: Uint8Array } | undefined)?.bytes,
  };
}
