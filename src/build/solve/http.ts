// ADD of an address: fetched into a directory of its own, verified where a checksum was given.
import { createHash } from "node:crypto";
import { mkdirSync } from "node:fs";
import { mkdtemp, open, rm, utimes } from "node:fs/promises";
import { join, posix } from "node:path";
import { failedPrecondition, invalidArgument, messageOf, unavailable } from "../../lib/errors.ts";
import { parseDigest } from "../../oci/index.ts";

/** A file may not be longer. */
const MAX_FETCH = 16 * 2 ** 30;
const PATIENCE_MS = 60_000;

/** The name a file gets: the last part of the address' path. */
export function nameOfUrl(address: string): string {
  const name = posix.basename(decodeURIComponent(new URL(address).pathname));
  if (name === "" || name === "/" || name === "." || name === "..") throw invalidArgument(`cannot determine filename from url: ${address}`);
  return name.replace(/[/\0]/g, "_");
}

export async function fetchSource(
  dataDir: string,
  address: string,
  checksum: string | undefined,
  signal: AbortSignal,
): Promise<{ directory: string; digest: string }> {
  const wanted = checksum === undefined ? undefined : parseDigest(checksum);
  const name = nameOfUrl(address);
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  const directory = await mkdtemp(join(dataDir, "fetch-"));
  try {
    let answer: Response;
    try {
      answer = await fetch(address, { signal: AbortSignal.any([signal, AbortSignal.timeout(PATIENCE_MS * 10)]), redirect: "follow" });
    } catch (error) {
      throw unavailable(`ADD failed: ${address}: ${messageOf(error)}`, error);
    }
    if (!answer.ok || !answer.body) throw failedPrecondition(`ADD failed: invalid response status ${answer.status} of ${address}`);
    const hash = createHash(wanted?.split(":")[0] ?? "sha256");
    const path = join(directory, name);
    const file = await open(path, "wx", 0o600);
    let length = 0;
    try {
      for await (const piece of answer.body as unknown as AsyncIterable<Uint8Array>) {
        length += piece.length;
        if (length > MAX_FETCH) throw failedPrecondition(`ADD failed: ${address} is longer than ${MAX_FETCH} bytes`);
        hash.update(piece);
        await file.write(piece);
      }
    } finally {
      await file.close();
    }
    const modified = Date.parse(answer.headers.get("last-modified") ?? "");
    if (Number.isFinite(modified)) await utimes(path, modified / 1000, modified / 1000);
    const digest = `${wanted?.split(":")[0] ?? "sha256"}:${hash.digest("hex")}`;
    if (wanted !== undefined && digest !== wanted) throw failedPrecondition(`digest mismatch ${digest} != ${wanted}`);
    return { directory, digest };
  } catch (error) {
    await rm(directory, { recursive: true, force: true });
    throw error;
  }
}
