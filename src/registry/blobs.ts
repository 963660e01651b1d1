// Blobs: pull ("Pulling blobs"), push ("Pushing blobs": whole, in chunks, by mounting) and removal ("Deleting Blobs").
import { createReadStream } from "node:fs";
import { open, readFile } from "node:fs/promises";
import type { ServerResponse } from "node:http";
import type { Readable } from "node:stream";
import { algorithmOf, type Digest } from "../oci/index.ts";
import { refuse } from "./errors.ts";
import type { Notify } from "./events.ts";
import { contentLength, type Exchange, isHead, send } from "./exchange.ts";
import { orAbsent } from "./files.ts";
import { notModified, parseContentRange, parseRange } from "./range.ts";
import { digestParameter, isName } from "./route.ts";
import type { Store } from "./store.ts";
import type { Upload, Uploads } from "./uploads.ts";

export interface Blobs {
  get(exchange: Exchange, name: string, digest: Digest): Promise<void>;
  remove(exchange: Exchange, name: string, digest: Digest): Promise<void>;
  /** `mayMount`: whether the client may read in that repository; asked without one, whether in all of them. */
  begin(exchange: Exchange, name: string, mayMount: (from: string | undefined) => Promise<boolean>): Promise<void>;
  status(exchange: Exchange, name: string, id: string): Promise<void>;
  patch(exchange: Exchange, name: string, id: string): Promise<void>;
  put(exchange: Exchange, name: string, id: string): Promise<void>;
  cancel(exchange: Exchange, name: string, id: string): Promise<void>;
}

/** Below, one read brings the whole blob; above, it streams. */
const SMALL = 128 << 10;
const PIECE = 1 << 20;
const BLOB_TYPE = "application/octet-stream";

export const blobHeaders = (digest: Digest, etag: string): Record<string, string> => ({
  "content-type": BLOB_TYPE,
  "docker-content-digest": digest,
  etag,
  "cache-control": "max-age=31536000",
  "accept-ranges": "bytes",
});

/** Sends a stream as the answer's body and ends with it; a client that goes away ends the stream. */
export function pour(source: Readable, response: ServerResponse): Promise<void> {
  return new Promise((resolve, reject) => {
    response.once("close", () => {
      source.destroy();
      resolve();
    });
    source.once("error", (error) => {
      response.destroy();
      reject(error);
    });
    source.pipe(response);
  });
}

export function createBlobs(store: Store, uploads: Uploads, notify: Notify): Blobs {
  const unknownBlob = (digest: Digest) => refuse("BLOB_UNKNOWN", { detail: digest });

  const uploadHeaders = (upload: Upload): Record<string, string> => ({
    location: `/v2/${upload.name}/blobs/uploads/${upload.id}`,
    range: `0-${Math.max(0, upload.offset - 1)}`,
    "docker-upload-uuid": upload.id,
  });

  const created = (exchange: Exchange, name: string, digest: Digest) =>
    send(exchange, 201, { location: `/v2/${name}/blobs/${digest}`, "docker-content-digest": digest });

  const incoming = (exchange: Exchange) => ({ body: exchange.request, length: contentLength(exchange.request) });

  /** Where the next chunk belongs, for a client that sent another. */
  const outOfOrder = (upload: Upload, message: string) => refuse("RANGE_INVALID", { message, headers: uploadHeaders(upload) });

  const checkRange = (exchange: Exchange, upload: Upload) => {
    const text = exchange.request.headers["content-range"];
    if (text === undefined) return;
    const range = parseContentRange(text);
    if (!range) throw outOfOrder(upload, "the content range has not the form FIRST-LAST");
    if (range.start !== upload.offset) throw outOfOrder(upload, `the next chunk begins at ${upload.offset}, not at ${range.start}`);
    const length = contentLength(exchange.request);
    if (length !== undefined && length !== range.end - range.start + 1) throw refuse("SIZE_INVALID");
  };

  return {
    async get(exchange, name, digest) {
      const { request, response } = exchange;
      const size = store.knownBlobSize(name, digest) ?? (await store.blobSize(name, digest));
      if (size === undefined) throw unknownBlob(digest);
      const etag = `"${digest}"`;
      const headers = blobHeaders(digest, etag);
      if (notModified(request.headers, etag)) return send(exchange, 304, headers);
      const range = parseRange(request.headers, size, etag);
      const { start, end } = range ?? { start: 0, end: size - 1 };
      const length = end - start + 1;
      const status = range ? 206 : 200;
      headers["content-length"] = String(length);
      if (range) headers["content-range"] = `bytes ${start}-${end}/${size}`;
      if (isHead(exchange)) return send(exchange, status, headers);
      const path = store.layout.blob(digest);
      if (size <= SMALL) {
        const bytes = await orAbsent(readFile(path));
        if (bytes?.length !== size) {
          store.forget(name, digest);
          throw unknownBlob(digest);
        }
        send(exchange, status, headers, range ? bytes.subarray(start, end + 1) : bytes);
      } else {
        const handle = await orAbsent(open(path, "r"));
        if (!handle) {
          store.forget(name, digest);
          throw unknownBlob(digest);
        }
        response.writeHead(status, headers);
        await pour(createReadStream("", { fd: handle, start, end, highWaterMark: PIECE }), response);
      }
      notify(exchange, { action: "pull", repository: name, digest, size, mediaType: BLOB_TYPE });
    },

    async remove(exchange, name, digest) {
      if (!(await store.unlinkBlob(name, digest))) throw unknownBlob(digest);
      send(exchange, 202, {});
      notify(exchange, { action: "delete", repository: name, digest });
    },

    async begin(exchange, name, mayMount) {
      const { query } = exchange;
      const mount = query.get("mount");
      const from = query.get("from") || undefined;
      if (mount && (from === undefined || isName(from))) {
        const digest = digestParameter(mount);
        const mayRead = await mayMount(from);
        const size = mayRead ? await (from === undefined ? store.anyBlobSize(digest) : store.blobSize(from, digest)) : undefined;
        if (size !== undefined) {
          await store.linkBlob(name, digest, size);
          created(exchange, name, digest);
          const source = from === undefined ? {} : { fromRepository: from };
          notify(exchange, { action: "mount", repository: name, digest, size, mediaType: BLOB_TYPE, ...source });
          return;
        }
      }
      const text = query.get("digest");
      const digest = text ? digestParameter(text) : undefined;
      const upload = await uploads.begin(name, digest ? algorithmOf(digest) : undefined);
      if (!digest) return send(exchange, 202, uploadHeaders(upload));
      try {
        await uploads.append(upload, incoming(exchange));
      } catch (error) {
        await uploads.cancel(upload);
        throw error;
      }
      await uploads.finish(upload, digest);
      created(exchange, name, digest);
      notify(exchange, { action: "push", repository: name, digest, size: upload.offset, mediaType: BLOB_TYPE });
    },

    async status(exchange, name, id) {
      send(exchange, 204, uploadHeaders(await uploads.find(name, id)));
    },

    async patch(exchange, name, id) {
      const upload = await uploads.find(name, id);
      checkRange(exchange, upload);
      await uploads.append(upload, incoming(exchange));
      send(exchange, 202, uploadHeaders(upload));
    },

    async put(exchange, name, id) {
      const text = exchange.query.get("digest");
      if (!text) throw refuse("DIGEST_INVALID", { message: "the parameter digest is missing" });
      const digest = digestParameter(text);
      const upload = await uploads.find(name, id);
      checkRange(exchange, upload);
      await uploads.append(upload, incoming(exchange));
      await uploads.finish(upload, digest);
      created(exchange, name, digest);
      notify(exchange, { action: "push", repository: name, digest, size: upload.offset, mediaType: BLOB_TYPE });
    },

    async cancel(exchange, name, id) {
      await uploads.cancel(await uploads.find(name, id));
      send(exchange, 204, {});
    },
  };
}
