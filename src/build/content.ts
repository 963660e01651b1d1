// Blobs in the manager's content store, through its service.
import { type ManagerClients, sendBlob } from "../containerd/index.ts";
import { type Descriptor, digestOf } from "../oci/index.ts";
import type { Lease } from "./host.ts";

export { childLabels, hasBlob, readBlob, streamBlob } from "../containerd/index.ts";

export interface WriteOptions {
  mediaType: string;
  labels: Record<string, string>;
  lease: Lease;
  signal?: AbortSignal;
  /** What it must be; undefined: it is found out. */
  expected?: { digest: string; size: number };
}

/** Writes a blob; answers its descriptor. What is there already only gets the labels. The manager verifies what is expected. */
export async function writeBlob(manager: ManagerClients, pieces: AsyncIterable<Uint8Array>, options: WriteOptions): Promise<Descriptor> {
  const { mediaType, labels, lease, expected, signal } = options;
  return { mediaType, ...(await sendBlob(manager, { expected, labels, headers: lease.headers, signal }, () => pieces)) };
}

/** The same for bytes at hand: what is there already costs no file. */
export function writeBytes(manager: ManagerClients, bytes: Uint8Array, options: WriteOptions): Promise<Descriptor> {
  async function* pieces() {
    yield bytes;
  }
  return writeBlob(manager, pieces(), { expected: { digest: digestOf(bytes), size: bytes.length }, ...options });
}
