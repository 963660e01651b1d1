// The content store: a plain directory of blobs by digest, ROOT/content/blobs/ALGORITHM/HEX, shared by all namespaces; which namespace sees which
// blob, and its labels, is in the database. A blob is written as an *ingest* (ROOT/content/ingest/N), known by its caller's ref, resumable until
// it is committed or aborted, hashed while it is written. A blob that is there has been verified, and is on disk (fsync) before it has its name.
import { join } from "node:path";
import { makeDirectory, type State } from "../state.ts";
import { createBlobs } from "./blobs.ts";
import { createIngests } from "./ingests.ts";

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

export function createContentStore(state: State): ContentStore {
  const ingests = makeDirectory(join(state.root, "content/ingest"));
  const blobs = createBlobs(state, ingests);
  return { ...blobs, ...createIngests(state, blobs, ingests) };
}
