// Content through the manager's service, as containerd's own client does it: blobs as a whole, blobs written from a stream (resumed where an earlier
// attempt ended), labels that keep a tree of content together, leases that keep what nothing refers to yet.
import { dropUnfinished, sendBlob } from "../../containerd/index.ts";
import { type Descriptor, type Digest, digestOf } from "../../oci/index.ts";
import type { Manager } from "../context.ts";

export { childLabels, hasBlob, isMissing, isThere, labelBlob, readBlob, streamBlob } from "../../containerd/index.ts";

/** Call options that put what is made under a lease. */
export interface Lease {
  id: string;
  headers: Record<string, string>;
}

const LEASE = "jubako-";
let leases = 0;

/** At the engine's start, when nothing is under way yet: what a killed one had begun may go. */
export async function dropHalfDone(manager: Manager): Promise<void> {
  await dropUnfinished(manager);
  for (const { id } of (await manager.leases.list({})).leases)
    if (id.startsWith(LEASE)) await manager.leases.delete({ id }).catch(() => {});
}

/** Runs `work` with a lease: what it makes is kept until it ends, and at most a day should this process die. */
export async function withLease<T>(manager: Manager, work: (lease: Lease) => Promise<T>): Promise<T> {
  const id = `${LEASE}${process.pid}-${Date.now()}-${++leases}`;
  const expire = new Date(Date.now() + 24 * 3600_000).toISOString().replace(/\.\d+Z$/, "Z");
  await manager.leases.create({ id, labels: { "containerd.io/gc.expire": expire } });
  try {
    return await work({ id, headers: { "containerd-lease": id } });
  } finally {
    await manager.leases.delete({ id }).catch(() => {});
  }
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
  { descriptor, lease, ...rest }: WriteOptions,
  open: (offset: number) => AsyncIterable<Uint8Array>,
): Promise<void> {
  await sendBlob(manager, { expected: descriptor, resume: true, headers: lease.headers, ...rest }, open);
}

/** Writes a stream whose digest nobody knows yet; answers what it was. */
export function writeStream(
  manager: Manager,
  pieces: AsyncIterable<Uint8Array>,
  labels: Record<string, string>,
  lease: Lease,
): Promise<{ digest: Digest; size: number }> {
  return sendBlob(manager, { expected: undefined, labels, headers: lease.headers }, () => pieces);
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
