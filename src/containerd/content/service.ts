// The content service: the store's door. Write is a conversation: each request says STAT, WRITE or COMMIT and is answered by one status.

import { open } from "node:fs/promises";
import { Code, ConnectError } from "@connectrpc/connect";
import { Content, WriteAction, type WriteContentRequest } from "../../gen/containerd/services/content/v1_pb.ts";
import { invalidArgument } from "../../lib/errors.ts";
import { timestamp } from "../database.ts";
import { labelField, parseFilters } from "../filters.ts";
import { setLabel } from "../namespaces.ts";
import { type Call, namespaceOf, required, type Service, service } from "../service.ts";
import type { State } from "../state.ts";
import { checkDigest } from "./blobs.ts";
import type { BlobInfo, ContentStore, IngestStatus, Writer } from "./store.ts";

const CHUNK = 1 << 20;

const infoMessage = (info: BlobInfo) => ({
  digest: info.digest,
  size: BigInt(info.size),
  createdAt: timestamp(info.created),
  updatedAt: timestamp(info.updated),
  labels: info.labels,
});

const statusMessage = (status: IngestStatus) => ({
  ref: status.ref,
  offset: BigInt(status.offset),
  total: BigInt(status.total),
  expected: status.expected,
  startedAt: timestamp(status.started),
  updatedAt: timestamp(status.updated),
});

export function contentService(state: State, store: ContentStore): Service {
  return service(Content, {
    info({ digest }, call) {
      checkDigest(digest);
      return { info: infoMessage(store.info(namespaceOf(call), digest)) };
    },
    update({ info, updateMask }, call) {
      const { digest, labels: wanted } = required(info, "info");
      checkDigest(digest);
      const paths = updateMask?.paths ?? [];
      const updated = store.setLabels(namespaceOf(call), digest, (current) => {
        let labels = paths.length === 0 ? wanted : current;
        for (const path of paths) {
          if (path === "labels") labels = wanted;
          else if (path.startsWith("labels.")) setLabel(labels, path.slice(7), wanted);
          else throw invalidArgument(`cannot update "${path}" field on content info "${digest}"`);
        }
        return labels;
      });
      return { info: infoMessage(updated) };
    },
    async *list({ filters }, call) {
      const filter = parseFilters(filters);
      const infos = store.list(namespaceOf(call)).filter((info) =>
        filter(([head, ...rest]) => {
          if (head === "digest") return info.digest;
          if (head === "size") return String(info.size);
          return head === "labels" ? labelField(info.labels, rest) : undefined;
        }),
      );
      for (let i = 0; i < infos.length; i += 100) yield { info: infos.slice(i, i + 100).map(infoMessage) };
    },
    delete({ digest }, call) {
      checkDigest(digest);
      store.delete(namespaceOf(call), digest);
      void state.collect();
      return {};
    },
    async *read({ digest, offset, size }, call) {
      checkDigest(digest);
      const namespace = namespaceOf(call);
      const path = store.path(namespace, digest);
      const length = store.info(namespace, digest).size;
      let at = Number(offset);
      if (at < 0 || size < 0n) throw invalidArgument("read offset and size must not be negative");
      if (at > length) throw new ConnectError(`read past object length ${length} bytes`, Code.OutOfRange);
      const end = size === 0n ? length : at + Number(size);
      if (end > length) throw new ConnectError(`read past object length ${length} bytes`, Code.OutOfRange);
      // opened for each chunk: a reader that goes away in the middle then holds no descriptor
      while (at < end && !call.signal.aborted) {
        const data = new Uint8Array(Math.min(CHUNK, end - at));
        const file = await open(path, "r");
        const { bytesRead } = await file.read(data, 0, data.length, at).finally(() => file.close());
        if (bytesRead === 0) throw new Error(`the file of ${digest} is shorter than it was`);
        yield { offset: BigInt(at), data: data.subarray(0, bytesRead) };
        at += bytesRead;
      }
    },
    async status({ ref }, call) {
      return { status: statusMessage(await store.status(namespaceOf(call), ref)) };
    },
    async listStatuses({ filters }, call) {
      const filter = parseFilters(filters);
      const statuses = (await store.statuses(namespaceOf(call))).filter((status) =>
        filter(([head]) => (head === "ref" ? status.ref : undefined)),
      );
      return { statuses: statuses.map(statusMessage) };
    },
    write: (requests, call) => write(store, requests, call),
    async abort({ ref }, call) {
      await store.abort(namespaceOf(call), ref);
      return {};
    },
  });
}

async function* write(store: ContentStore, requests: AsyncIterable<WriteContentRequest>, call: Call) {
  const namespace = namespaceOf(call);
  let writer: Writer | undefined;
  let expected = "";
  let total = 0;
  try {
    for await (const request of requests) {
      if (request.expected !== "") expected = request.expected;
      if (request.total > 0n) total = Number(request.total);
      if (!writer) {
        if (request.ref === "") throw invalidArgument("first message must have a reference");
        writer = await store.writer({ namespace, ref: request.ref, expected, total, lease: call.lease });
      }
      const before = writer.status();
      if (request.action !== WriteAction.STAT) {
        const offset = Number(request.offset);
        if (offset === 0 && before.offset > 0 && request.action === WriteAction.WRITE) await writer.restart();
        else if (offset > 0 && offset !== before.offset) {
          throw new ConnectError(`write @${offset} must occur at current offset ${before.offset}`, Code.OutOfRange);
        }
        if (request.data.length > 0) await writer.write(request.data);
      }
      let digest = "";
      if (request.action === WriteAction.COMMIT) digest = await writer.commit({ size: total, expected, labels: request.labels });
      else if (request.action === WriteAction.STAT) digest = writer.digest();
      const status = writer.status();
      yield {
        action: request.action,
        startedAt: timestamp(status.started),
        updatedAt: timestamp(status.updated),
        offset: BigInt(status.offset),
        total: BigInt(total || status.total),
        digest,
      };
      if (request.action === WriteAction.COMMIT) return;
    }
  } finally {
    await writer?.close();
  }
}
