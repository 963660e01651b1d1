// Uploads in progress: a file that grows, and the digest of what it holds so far. The digest lives in memory; where it was lost (restart, broken write),
// the file is read again. One request at a time writes to an upload: a newer one ends the older, whose client has gone away unnoticed.
import { randomUUID } from "node:crypto";
import { closeSync, createReadStream, openSync } from "node:fs";
import { type FileHandle, open, stat, writeFile } from "node:fs/promises";
import type { Readable } from "node:stream";
import { algorithmOf, createDigester, type Digest, type Digester } from "../oci/index.ts";
import { refuse } from "./errors.ts";
import { makeDirectory, namesIn, orAbsent, remove, writeAll } from "./files.ts";
import type { Store } from "./store.ts";

export interface Upload {
  readonly id: string;
  readonly name: string;
  /** Bytes that are in the file. */
  offset: number;
}

export interface Incoming {
  body: Readable;
  /** What the request says it brings; undefined for chunked transfer. */
  length: number | undefined;
  /** More bytes are in the file. */
  onProgress?: () => void;
}

export interface Uploads {
  begin(name: string, algorithm?: string): Promise<Upload>;
  /** BLOB_UPLOAD_UNKNOWN where there is none. Where a request still writes, it is given a moment to end: a client that asks has lost that one. */
  find(name: string, id: string): Promise<Upload>;
  /** Appends a request's body. What arrived before a failure stays, to be resumed. SIZE_INVALID where it is more or less than announced. */
  append(upload: Upload, incoming: Incoming): Promise<void>;
  /** Makes a blob of it: DIGEST_INVALID (and the upload is gone) where it has another digest. */
  finish(upload: Upload, digest: Digest): Promise<void>;
  cancel(upload: Upload): Promise<void>;
  /** The file that grows. */
  file(upload: Upload): string;
  /** Removes uploads that nothing was appended to for so long; answers how many. */
  purge(olderThanMs: number, dryRun?: boolean): Promise<number>;
  /** How many requests write now. */
  active(): number;
}

interface State extends Upload {
  digester: Digester | undefined;
  algorithm: string;
  writer: { stop(): void; done: Promise<void> } | undefined;
}

export interface UploadLimits {
  /** Bytes of one blob. */
  maxBlob: number;
  /** Requests that write at the same time. */
  maxActive: number;
}

const ID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const BATCH = 1 << 20;
/** Bytes after which the disk is told to begin writing. */
const WRITE_BACK = 16 << 20;
const SETTLE_MS = 250;
/** Digests in memory; the ones longest unused are computed again from the file. */
const MAX_STATES = 2000;

export function createUploads(store: Store, limits: UploadLimits): Uploads {
  const states = new Map<string, State>();
  let active = 0;
  const dataOf = (upload: Upload) => `${store.layout.upload(upload.name, upload.id)}/data`;
  const unknown = (id: string) => refuse("BLOB_UPLOAD_UNKNOWN", { detail: { id: id.slice(0, 100) } });

  const remember = (state: State): State => {
    states.delete(state.id);
    states.set(state.id, state);
    if (states.size > MAX_STATES) {
      for (const [id, old] of states) {
        if (!old.writer) {
          states.delete(id);
          break;
        }
      }
    }
    return state;
  };

  const stateOf = async (name: string, id: string): Promise<State> => {
    if (!ID.test(id)) throw unknown(id);
    const known = states.get(id);
    if (known) {
      if (known.name !== name) throw unknown(id);
      return known;
    }
    const found = await orAbsent(stat(dataOf({ id, name, offset: 0 })));
    if (!found) throw unknown(id);
    return states.get(id) ?? remember({ id, name, offset: found.size, digester: undefined, algorithm: "sha256", writer: undefined });
  };

  /** Reads the file again for its digest. */
  const rehash = async (state: State, algorithm: string): Promise<Digester> => {
    const digester = createDigester(algorithm);
    if (state.offset > 0) {
      for await (const piece of createReadStream(dataOf(state), { end: state.offset - 1, highWaterMark: BATCH }))
        digester.update(piece as Buffer);
    }
    state.digester = digester;
    state.algorithm = algorithm;
    return digester;
  };

  /** Writes the body to the file; batches, so that a write is worth its call, one under way while the next gathers. */
  const receive = async (state: State, handle: FileHandle, incoming: Incoming, stopped: () => boolean): Promise<void> => {
    let received = 0;
    let at = state.offset;
    let gathered: Uint8Array[] = [];
    let weight = 0;
    let writing: Promise<void> | undefined;
    const digester = state.digester!;
    // Until all is in the file, the digest may be ahead of it.
    state.digester = undefined;
    let started = at;
    let settling: Promise<unknown> | undefined;
    /** Lets the disk begin while the rest is still on its way: the sync at the end then has little left to wait for. */
    const writeBack = () => {
      if (settling || state.offset - started < WRITE_BACK) return;
      started = state.offset;
      settling = handle.datasync().then(() => {
        settling = undefined;
      });
      // An error is told once only, and not to the sync at the end: it stays, and is met when this is waited for.
      settling.catch(() => {});
    };
    const flush = async () => {
      await writing;
      if (state.offset !== at) {
        state.offset = at;
        incoming.onProgress?.();
      }
      if (weight === 0) return;
      const pieces = gathered;
      writing = writeAll(handle, pieces, at).then(() => writeBack());
      writing.catch(() => {});
      at += weight;
      gathered = [];
      weight = 0;
    };
    let failure: unknown;
    try {
      for await (const piece of incoming.body as AsyncIterable<Buffer>) {
        if (stopped()) break;
        received += piece.length;
        if (incoming.length !== undefined && received > incoming.length) throw refuse("SIZE_INVALID");
        if (at + weight + piece.length > limits.maxBlob)
          throw refuse("SIZE_INVALID", { status: 413, message: `blob is larger than the limit of ${limits.maxBlob} bytes` });
        digester.update(piece);
        gathered.push(piece);
        weight += piece.length;
        if (weight >= BATCH) await flush();
      }
    } catch (error) {
      failure = error;
    }
    await flush();
    await flush();
    await settling;
    state.digester = digester;
    if (failure !== undefined && (failure as { code?: string }).code !== "ECONNRESET") throw failure;
    if (stopped()) throw refuse("BLOB_UPLOAD_INVALID", { status: 409, message: "another request took this upload over" });
    if (failure !== undefined || (incoming.length !== undefined && received !== incoming.length)) throw refuse("SIZE_INVALID");
  };

  return {
    active: () => active,
    file: dataOf,
    async begin(name, algorithm = "sha256") {
      const id = randomUUID();
      const state: State = { id, name, offset: 0, digester: createDigester(algorithm), algorithm, writer: undefined };
      await makeDirectory(store.layout.upload(name, id));
      closeSync(openSync(dataOf(state), "wx", 0o644));
      await writeFile(`${store.layout.upload(name, id)}/startedat`, new Date().toISOString());
      return remember(state);
    },
    async find(name, id) {
      const state = await stateOf(name, id);
      if (state.writer) await Promise.race([state.writer.done, new Promise((resolve) => setTimeout(resolve, SETTLE_MS))]);
      return state;
    },
    async append(upload, incoming) {
      const state = upload as State;
      if (incoming.length !== undefined && state.offset + incoming.length > limits.maxBlob)
        throw refuse("SIZE_INVALID", { status: 413, message: `blob is larger than the limit of ${limits.maxBlob} bytes` });
      while (state.writer) {
        state.writer.stop();
        await state.writer.done;
      }
      if (active >= limits.maxActive)
        throw refuse("TOOMANYREQUESTS", {
          message: `${active} uploads are being written; that is the limit`,
          headers: { "retry-after": "1" },
        });
      let stopped = false;
      let done = () => {};
      state.writer = {
        stop() {
          stopped = true;
          incoming.body.destroy();
        },
        done: new Promise<void>((resolve) => {
          done = resolve;
        }),
      };
      active++;
      try {
        remember(state);
        const handle = await orAbsent(open(dataOf(state), "r+"));
        if (!handle) throw unknown(state.id);
        try {
          if (!state.digester) await rehash(state, state.algorithm);
          await receive(state, handle, incoming, () => stopped);
        } catch (error) {
          // What the file holds beyond the last batch that is known to be whole is cut off.
          await handle.truncate(state.offset).catch(() => {});
          throw error;
        } finally {
          await handle.close();
        }
      } finally {
        active--;
        state.writer = undefined;
        done();
      }
    },
    async finish(upload, digest) {
      const state = upload as State;
      const algorithm = algorithmOf(digest);
      const digester = state.digester && state.algorithm === algorithm ? state.digester : await rehash(state, algorithm);
      const actual = digester.digest();
      state.digester = undefined;
      const path = dataOf(state);
      try {
        if (actual !== digest) throw refuse("DIGEST_INVALID", { detail: { expected: digest, actual } });
        const handle = await orAbsent(open(path, "r+"));
        if (!handle) throw unknown(state.id);
        try {
          await handle.sync();
        } finally {
          await handle.close();
        }
        await store.commitBlob(path, state.name, digest, state.offset);
      } finally {
        states.delete(state.id);
        await remove(store.layout.upload(state.name, state.id));
      }
    },
    async cancel(upload) {
      const state = upload as State;
      states.delete(state.id);
      state.writer?.stop();
      await state.writer?.done;
      await remove(store.layout.upload(state.name, state.id));
    },
    async purge(olderThanMs, dryRun = false) {
      let purged = 0;
      const limit = Date.now() - olderThanMs;
      for (const name of await store.repositories(true)) {
        for (const id of await namesIn(store.layout.uploads(name))) {
          if (states.get(id)?.writer) continue;
          const dir = store.layout.upload(name, id);
          const found = (await orAbsent(stat(`${dir}/data`))) ?? (await orAbsent(stat(dir)));
          if (!found || found.mtimeMs > limit || states.get(id)?.writer) continue;
          purged++;
          if (dryRun) continue;
          states.delete(id);
          await remove(dir);
        }
      }
      return purged;
    },
  };
}
