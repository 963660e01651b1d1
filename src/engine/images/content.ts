// Content through the manager's service, as containerd's own client does it: blobs as a whole, blobs written from a stream (resumed where an earlier
// attempt ended), labels that keep a tree of content together, leases that keep what nothing refers to yet.

import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { isThere } from "../../containerd/index.ts";
import { WriteAction, type WriteContentRequestSchema } from "../../gen/containerd/services/content/v1_pb.ts";
import { isKind } from "../../lib/errors.ts";
import { createDigester, type Descriptor, type Digest, digestOf } from "../../oci/index.ts";
import type { Manager } from "../context.ts";

export { hasBlob, isMissing, isThere, readBlob, streamBlob } from "../../containerd/index.ts";

type Request = MessageInitShape<typeof WriteContentRequestSchema>;

const PIECE = 64 << 10;

/** Call options that put what is made under a lease. */
export interface Lease {
  id: string;
  headers: Record<string, string>;
}

function isBusy(error: unknown): boolean {
  return isKind(error, "Unavailable") || (error instanceof ConnectError && error.code === Code.Unavailable);
}

let leases = 0;

/** Runs `work` with a lease: what it makes is kept until it ends, and at most a day should this process die. */
export async function withLease<T>(manager: Manager, work: (lease: Lease) => Promise<T>): Promise<T> {
  const id = `jubako-${process.pid}-${Date.now()}-${++leases}`;
  const expire = new Date(Date.now() + 24 * 3600_000).toISOString().replace(/\.\d+Z$/, "Z");
  await manager.leases.create({ id, labels: { "containerd.io/gc.expire": expire } });
  try {
    return await work({ id, headers: { "containerd-lease": id } });
  } finally {
    await manager.leases.delete({ id }).catch(() => {});
  }
}

/** Sets labels of content, leaving others as they are. */
export async function labelBlob(manager: Manager, digest: string, labels: Record<string, string>): Promise<void> {
  const paths = Object.keys(labels).map((key) => `labels.${key}`);
  if (paths.length) await manager.content.update({ info: { digest, labels }, updateMask: { paths } });
}

export interface WriteOptions {
  descriptor: Pick<Descriptor, "digest" | "size">;
  labels: Record<string, string>;
  lease: Lease;
  signal?: AbortSignal | undefined;
  /** So many bytes of the blob are there. */
  onProgress?: ((bytes: number) => void) | undefined;
}

/**
 * Writes a blob from `open(offset)`, beginning where an earlier attempt under the same digest ended. The manager verifies size and digest.
 */
export async function writeBlob(
  manager: Manager,
  options: WriteOptions,
  open: (offset: number) => AsyncIterable<Uint8Array>,
): Promise<void> {
  for (let tries = 0; ; tries++) {
    try {
      await writeOnce(manager, options, open);
      return;
    } catch (error) {
      if (isThere(error)) {
        await labelBlob(manager, options.descriptor.digest, options.labels);
        return;
      }
      // someone else writes the same blob: wait for them
      if (!isBusy(error) || tries >= 600 || !/locked/.test(String(error))) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
      options.signal?.throwIfAborted();
    }
  }
}

/** The same bytes in pieces of at most `limit`. */
async function* cut(pieces: AsyncIterable<Uint8Array>, limit: number): AsyncGenerator<Uint8Array> {
  for await (const piece of pieces) for (let at = 0; at < piece.length; at += limit) yield piece.subarray(at, at + limit);
}

/**
 * One call of Content.Write. As containerd's own client: a request goes out when the one before it is answered. Sent ahead, or larger, they stall over HTTP/2
 * under Bun. What the requests' own making fails with is what this fails with.
 */
async function converse(
  manager: Manager,
  call: { headers: Record<string, string>; signal?: AbortSignal },
  make: (reply: () => Promise<number>) => AsyncGenerator<Request>,
): Promise<void> {
  let answered = Promise.withResolvers<number>();
  const reply = async (): Promise<number> => {
    const offset = await answered.promise;
    answered = Promise.withResolvers<number>();
    return offset;
  };
  let failure: { error: unknown } | undefined;
  async function* requests(): AsyncGenerator<Request> {
    try {
      yield* make(reply);
    } catch (error) {
      failure = { error };
      throw error;
    }
  }
  try {
    for await (const { offset } of manager.content.write(requests(), call)) answered.resolve(Number(offset));
  } catch (error) {
    throw failure ? failure.error : error;
  }
}

async function writeOnce(manager: Manager, options: WriteOptions, open: (offset: number) => AsyncIterable<Uint8Array>): Promise<void> {
  const { descriptor, labels, lease, signal, onProgress } = options;
  const ref = `layer-${descriptor.digest}`;
  const total = BigInt(descriptor.size);
  const expected = descriptor.digest;
  await converse(manager, { headers: lease.headers, ...(signal ? { signal } : {}) }, async function* (reply) {
    yield { action: WriteAction.STAT, ref, total, expected };
    let offset = await reply();
    // An older attempt of another kind may have left more than there is.
    if (offset > descriptor.size) offset = 0;
    let kept: Uint8Array[] = [];
    let length = 0;
    const flush = (): Request => {
      const data = kept.length === 1 ? kept[0]! : Buffer.concat(kept);
      const request: Request = { action: WriteAction.WRITE, ref, total, expected, offset: BigInt(offset), data };
      offset += length;
      kept = [];
      length = 0;
      return request;
    };
    for await (const piece of cut(open(offset), PIECE)) {
      kept.push(piece);
      length += piece.length;
      if (length < PIECE) continue;
      yield flush();
      await reply();
      onProgress?.(offset);
    }
    if (length > 0) {
      yield flush();
      await reply();
    }
    onProgress?.(offset);
    yield { action: WriteAction.COMMIT, ref, total, expected, offset: BigInt(offset), labels };
  });
}

/** Writes a stream whose digest nobody knows yet, under a ref of its own; answers what it was. */
export async function writeStream(
  manager: Manager,
  ref: string,
  pieces: AsyncIterable<Uint8Array>,
  labels: Record<string, string>,
  lease: Lease,
): Promise<{ digest: Digest; size: number }> {
  const digester = createDigester();
  let digest: Digest = "";
  let size = 0;
  // what an earlier attempt left is of no use
  await manager.content.abort({ ref }).catch(() => {});
  try {
    await converse(manager, { headers: lease.headers }, async function* (reply) {
      yield { action: WriteAction.STAT, ref };
      await reply();
      for await (const data of cut(pieces, PIECE)) {
        digester.update(data);
        yield { action: WriteAction.WRITE, ref, offset: BigInt(size), data };
        size += data.length;
        await reply();
      }
      digest = digester.digest();
      yield { action: WriteAction.COMMIT, ref, offset: BigInt(size), total: BigInt(size), expected: digest, labels };
    });
  } catch (error) {
    if (!isThere(error)) throw error;
    await labelBlob(manager, digest, labels);
  }
  return { digest, size };
}

/** Writes bytes that are at hand; answers their descriptor. */
export async function writeBytes(
  manager: Manager,
  bytes: Uint8Array,
  mediaType: string,
  labels: Record<string, string>,
  lease: Lease,
): Promise<Descriptor> {
  const descriptor: Descriptor = { mediaType, digest: digestOf(bytes), size: bytes.length };
  await writeBlob(manager, { descriptor, labels, lease }, async function* (offset) {
    yield bytes.subarray(offset);
  });
  return descriptor;
}

/** The labels by which the manager's garbage collector follows an index or a manifest to what it needs. */
export function childLabels(kind: "index" | "manifest", children: readonly Descriptor[]): Record<string, string> {
  const labels: Record<string, string> = {};
  children.forEach((child, i) => {
    const key = kind === "index" ? `m.${i}` : i === 0 ? "config" : `l.${i - 1}`;
    labels[`containerd.io/gc.ref.content.${key}`] = child.digest;
  });
  return labels;
}
