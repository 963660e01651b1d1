// Reading blobs through the content service, in memory or over a socket, as those above the manager do.
import { Code, ConnectError } from "@connectrpc/connect";
import { isKind, notFound, resourceExhausted } from "../../lib/errors.ts";
import type { ManagerClients } from "../index.ts";

/** The kind of an error of the manager, in memory or over a socket. */
export function isMissing(error: unknown): boolean {
  return isKind(error, "NotFound") || (error instanceof ConnectError && error.code === Code.NotFound);
}
export function isThere(error: unknown): boolean {
  return isKind(error, "AlreadyExists") || (error instanceof ConnectError && error.code === Code.AlreadyExists);
}

export async function hasBlob(manager: ManagerClients, digest: string): Promise<boolean> {
  try {
    await manager.content.info({ digest });
    return true;
  } catch (error) {
    if (isMissing(error)) return false;
    throw error;
  }
}

export async function* streamBlob(manager: ManagerClients, digest: string, offset = 0): AsyncGenerator<Uint8Array, void> {
  for await (const { data } of manager.content.read({ digest, offset: BigInt(offset) })) yield data;
}

/** A whole blob; NotFound where it is not there, ResourceExhausted where it is longer than `limit` bytes. */
export async function readBlob(manager: ManagerClients, digest: string, limit: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  try {
    for await (const data of streamBlob(manager, digest)) {
      length += data.length;
      if (length > limit) throw resourceExhausted(`content ${digest} is longer than ${limit} bytes`);
      chunks.push(data);
    }
  } catch (error) {
    throw isMissing(error) ? notFound(`content ${digest} is not there`, error) : error;
  }
  return chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks);
}
