// Writing blobs through the content service, in memory or over a socket, as those above the manager do.
import { randomBytes } from "node:crypto";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { WriteAction, type WriteContentRequestSchema } from "../../gen/containerd/services/content/v1_pb.ts";
import { isKind } from "../../lib/errors.ts";
import { createDigester, type Descriptor, type Digest } from "../../oci/index.ts";
import type { ManagerClients } from "../index.ts";
import { isThere } from "./client.ts";

type Request = MessageInitShape<typeof WriteContentRequestSchema>;

/** As containerd's own client: larger messages stall over HTTP/2 under Bun. */
const PIECE = 64 << 10;
/** How long another writer of the same blob is waited for, in tenths of a second. */
const PATIENCE = 600;

export interface SendOptions {
  /** What it must be, which the manager verifies; undefined: it is found out. */
  expected: Pick<Descriptor, "digest" | "size"> | undefined;
  /** What came before an attempt failed is kept for the next one. Needs to be known what is expected. */
  resume?: boolean;
  labels: Record<string, string>;
  /** Of the call: they may name a lease. */
  headers: Record<string, string>;
  signal?: AbortSignal | undefined;
  /** So many bytes of the blob are there. */
  onProgress?: ((bytes: number) => void) | undefined;
}

/** Sets labels of content, leaving others as they are. */
export async function labelBlob(manager: ManagerClients, digest: string, labels: Record<string, string>, headers = {}): Promise<void> {
  const paths = Object.keys(labels).map((key) => `labels.${key}`);
  if (paths.length) await manager.content.update({ info: { digest, labels }, updateMask: { paths } }, { headers });
}

/** Writes a blob from `open(offset)`; answers what it was. What is there already only gets the labels. */
export async function sendBlob(
  manager: ManagerClients,
  options: SendOptions,
  open: (offset: number) => AsyncIterable<Uint8Array>,
): Promise<{ digest: Digest; size: number }> {
  const { expected, resume } = options;
  const ref = resume && expected ? `layer-${expected.digest}` : `jubako-${randomBytes(8).toString("hex")}`;
  const found = { digest: expected?.digest ?? "", size: expected?.size ?? 0 };
  for (let tries = 0; ; tries++) {
    try {
      await attempt(manager, ref, options, found, open);
      return found;
    } catch (error) {
      if (isThere(error)) {
        await labelBlob(manager, found.digest, options.labels, options.headers);
        const { info } = await manager.content.info({ digest: found.digest });
        return { digest: found.digest, size: Number(info?.size ?? found.size) };
      }
      // someone else writes the same blob: wait for them
      if (!resume || !isBusy(error) || tries >= PATIENCE || !/locked/.test(String(error))) {
        if (!resume) await manager.content.abort({ ref }).catch(() => {});
        throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
      options.signal?.throwIfAborted();
    }
  }
}

/** Takes away what earlier processes began to write and nobody will go on with. To be called where the namespace's owner writes nothing yet. */
export async function dropUnfinished(manager: ManagerClients): Promise<void> {
  for (const { ref } of (await manager.content.listStatuses({})).statuses) await manager.content.abort({ ref }).catch(() => {});
}

function isBusy(error: unknown): boolean {
  return isKind(error, "Unavailable") || (error instanceof ConnectError && error.code === Code.Unavailable);
}

/** The same bytes in pieces of at most `limit`. */
async function* cut(pieces: AsyncIterable<Uint8Array>, limit: number): AsyncGenerator<Uint8Array> {
  for await (const piece of pieces) for (let at = 0; at < piece.length; at += limit) yield piece.subarray(at, at + limit);
}

async function attempt(
  manager: ManagerClients,
  ref: string,
  options: SendOptions,
  found: { digest: Digest; size: number },
  open: (offset: number) => AsyncIterable<Uint8Array>,
): Promise<void> {
  const { expected, labels, headers, signal, onProgress } = options;
  const common = { ref, total: BigInt(expected?.size ?? 0), expected: expected?.digest ?? "" };
  const digester = expected ? undefined : createDigester();
  await converse(manager, { headers, ...(signal ? { signal } : {}) }, async function* (reply) {
    yield { action: WriteAction.STAT, ...common };
    let offset = await reply();
    // An older attempt of another kind may have left more than there is.
    if (offset > (expected?.size ?? 0)) offset = 0;
    let kept: Uint8Array[] = [];
    let length = 0;
    const flush = (): Request => {
      const data = kept.length === 1 ? kept[0]! : Buffer.concat(kept);
      const request: Request = { action: WriteAction.WRITE, ...common, offset: BigInt(offset), data };
      offset += length;
      kept = [];
      length = 0;
      return request;
    };
    for await (const piece of cut(open(offset), PIECE)) {
      digester?.update(piece);
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
    if (digester) {
      found.digest = digester.digest();
      found.size = offset;
    }
    yield { action: WriteAction.COMMIT, ref, total: BigInt(found.size), expected: found.digest, offset: BigInt(offset), labels };
  });
}

/**
 * One call of Content.Write. As containerd's own client: a request goes out when the one before it is answered. Sent ahead, they stall over HTTP/2 under Bun.
 * What the requests' own making fails with is what this fails with.
 */
async function converse(
  manager: ManagerClients,
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
