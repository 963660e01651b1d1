// http(s):// sources: one file, fetched into a directory of its own, verified where a checksum was given.
import { createHash } from "node:crypto";
import { mkdirSync } from "node:fs";
import { mkdtemp, open, rm } from "node:fs/promises";
import { join, posix } from "node:path";
import { failedPrecondition, invalidArgument, messageOf, unavailable } from "../../lib/errors.ts";
import { parseDigest } from "../../oci/index.ts";
import type { Status } from "../host.ts";

/** A file may not be longer. */
const MAX_FETCH = 16 * 2 ** 30;
const PATIENCE_MS = 60_000;

export interface HttpSource {
  url: string;
  checksum: string | undefined;
  /** "": as the server or the address names it. */
  filename: string;
  mode: number;
  uid: number;
  gid: number;
  headers: Record<string, string>;
}

/** A source's attributes, parsed. InvalidArgument. */
export function httpSource(identifier: string, attrs: Record<string, string>): HttpSource {
  const number = (name: string, absent: number, radix: number) => {
    const text = attrs[name];
    if (text === undefined || text === "") return absent;
    if (!(radix === 8 ? /^[0-7]{1,5}$/ : /^\d{1,10}$/).test(text)) throw invalidArgument(`invalid ${name} ${text}`);
    return Number.parseInt(text, radix);
  };
  const filename = attrs["http.filename"] ?? "";
  if (/[/\0]/.test(filename) || filename === "." || filename === "..") throw invalidArgument(`invalid http.filename ${filename}`);
  const headers = Object.entries(attrs)
    .filter(([name]) => name.startsWith("http.header."))
    .map(([name, value]) => [name.slice("http.header.".length), value]);
  return {
    url: identifier,
    checksum: attrs["http.checksum"] ? parseDigest(attrs["http.checksum"]) : undefined,
    filename,
    mode: number("http.perm", 0o600, 8),
    uid: number("http.uid", 0, 10),
    gid: number("http.gid", 0, 10),
    headers: Object.fromEntries(headers) as Record<string, string>,
  };
}

/** The name a file gets: what the server says, or the last part of the address' path. */
function nameOf(address: string, disposition: string | null): string {
  const said = /filename="?([^";]+)"?/i.exec(disposition ?? "")?.[1];
  const name = posix.basename(said ?? decodeURIComponent(new URL(address).pathname));
  if (name === "" || name === "/" || name === "." || name === "..") return "download";
  return name.replace(/[/\0]/g, "_");
}

export interface Fetched {
  directory: string;
  filename: string;
  digest: string;
  lastModified: Date | undefined;
}

/** Fetches a file. Unavailable, FailedPrecondition (status, digest). The directory is the caller's to remove. */
export async function fetchSource(
  dataDir: string,
  source: HttpSource,
  options: { signal: AbortSignal; status?: (status: Status) => void },
): Promise<Fetched> {
  const { url, checksum } = source;
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  const directory = await mkdtemp(join(dataDir, "fetch-"));
  try {
    let answer: Response;
    const silence = AbortSignal.timeout(PATIENCE_MS * 10);
    try {
      answer = await fetch(url, {
        signal: AbortSignal.any([options.signal, silence]),
        redirect: "follow",
        headers: { "user-agent": "buildkit/jubako", ...source.headers },
      });
    } catch (error) {
      throw unavailable(`ADD failed: ${url}: ${messageOf(error)}`, error);
    }
    if (!answer.ok || !answer.body) throw failedPrecondition(`ADD failed: invalid response status ${answer.status} of ${url}`);
    const algorithm = checksum?.split(":")[0] ?? "sha256";
    const hash = createHash(algorithm);
    const filename = source.filename || nameOf(answer.url || url, answer.headers.get("content-disposition"));
    const total = Number(answer.headers.get("content-length") ?? 0) || 0;
    const file = await open(join(directory, filename), "wx", 0o600);
    let length = 0;
    let lastModified: Date | undefined;
    const tell = (completed: boolean) =>
      options.status?.({ id: `downloading ${filename}`, name: `downloading ${filename}`, current: length, total, completed });
    try {
      for await (const piece of answer.body as unknown as AsyncIterable<Uint8Array>) {
        length += piece.length;
        if (length > MAX_FETCH) throw failedPrecondition(`ADD failed: ${url} is longer than ${MAX_FETCH} bytes`);
        hash.update(piece);
        await file.write(piece);
        tell(false);
      }
      tell(true);
      await file.chown(source.uid, source.gid);
      await file.chmod(source.mode & 0o7777);
      const modified = Date.parse(answer.headers.get("last-modified") ?? "");
      if (Number.isFinite(modified)) {
        lastModified = new Date(modified);
        await file.utimes(modified / 1000, modified / 1000);
      }
    } finally {
      await file.close();
    }
    const digest = `${algorithm}:${hash.digest("hex")}`;
    if (checksum !== undefined && digest !== checksum) throw failedPrecondition(`digest mismatch ${digest} != ${checksum}`);
    return { directory, filename, digest, lastModified };
  } catch (error) {
    await rm(directory, { recursive: true, force: true });
    throw error;
  }
}
