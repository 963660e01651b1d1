// Blobs in the manager's content store, through its service.
import { randomBytes } from "node:crypto";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { isThere, type ManagerClients } from "../containerd/index.ts";
import { WriteAction, type WriteContentRequestSchema } from "../gen/containerd/services/content/v1_pb.ts";
import { createDigester, type Descriptor, digestOf } from "../oci/index.ts";
import type { Lease } from "./host.ts";

export { hasBlob, readBlob, streamBlob } from "../containerd/index.ts";

type Request = MessageInitShape<typeof WriteContentRequestSchema>;

/** As containerd's own client: larger messages stall over HTTP/2 under Bun. */
const PIECE = 64 << 10;

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
  const ref = `build-${randomBytes(8).toString("hex")}`;
  const total = BigInt(expected?.size ?? 0);
  const wanted = expected?.digest ?? "";
  const digester = createDigester();
  let size = 0;
  let digest = wanted;
  // A request goes out when the one before it is answered.
  let answered = Promise.withResolvers<void>();
  const reply = async () => {
    await answered.promise;
    answered = Promise.withResolvers<void>();
  };
  let failure: { error: unknown } | undefined;
  async function* requests(): AsyncGenerator<Request> {
    yield { action: WriteAction.STAT, ref, total, expected: wanted };
    await reply();
    try {
      for await (const piece of pieces) {
        for (let at = 0; at < piece.length; at += PIECE) {
          const data = piece.subarray(at, at + PIECE);
          digester.update(data);
          yield { action: WriteAction.WRITE, ref, total, expected: wanted, offset: BigInt(size), data };
          size += data.length;
          await reply();
        }
      }
    } catch (error) {
      failure = { error };
      throw error;
    }
    digest ||= digester.digest();
    yield { action: WriteAction.COMMIT, ref, total: BigInt(size), expected: digest, offset: BigInt(size), labels };
  }
  try {
    for await (const _ of manager.content.write(requests(), { headers: lease.headers, ...(signal ? { signal } : {}) })) answered.resolve();
  } catch (error) {
    if (failure) throw failure.error;
    if (!isThere(error)) {
      await manager.content.abort({ ref }).catch(() => {});
      throw error;
    }
    const paths = Object.keys(labels).map((name) => `labels.${name}`);
    if (paths.length > 0) await manager.content.update({ info: { digest, labels }, updateMask: { paths } }, { headers: lease.headers });
    const { info } = await manager.content.info({ digest });
    size = Number(info?.size ?? size);
  }
  return { mediaType, digest, size };
}

/** The same for bytes at hand: what is there already costs no file. */
export function writeBytes(manager: ManagerClients, bytes: Uint8Array, options: WriteOptions): Promise<Descriptor> {
  async function* pieces() {
    yield bytes;
  }
  return writeBlob(manager, pieces(), { expected: { digest: digestOf(bytes), size: bytes.length }, ...options });
}

/** The labels by which the manager's garbage collector follows an index or a manifest to what it needs. */
export function childLabels(kind: "index" | "manifest", children: readonly Descriptor[]): Record<string, string> {
  const keys = children.map((_, i) => (kind === "index" ? `m.${i}` : i === 0 ? "config" : `l.${i - 1}`));
  return Object.fromEntries(children.map(({ digest }, i) => [`containerd.io/gc.ref.content.${keys[i]}`, digest]));
}
