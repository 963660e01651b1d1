// http(s):// sources: one file, fetched into a directory of its own, verified where a checksum was given.
import { createHash } from "node:crypto";
import { open, rm } from "node:fs/promises";
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
  /** What the server said of the file before. */
  validators?: Validators | undefined;
}

export interface Validators {
  etag: string | undefined;
  lastModified: string | undefined;
  digest: string;
  filename: string;
}

/** What an earlier build remembered; undefined where it can't be read. */
export function parseValidators(text: string | undefined): Validators | undefined {
  if (text === undefined) return undefined;
  const { etag, lastModified, digest, filename } = JSON.parse(text) as Record<string, string | undefined>;
  return digest !== undefined && filename !== undefined ? { etag, lastModified, digest, filename } : undefined;
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
  filename: string;
  digest: string;
  etag: string | undefined;
  lastModified: Date | undefined;
}

/** Fetches a file into a directory; with validators, only if it is another one now. Unavailable, FailedPrecondition (status, digest). */
export async function fetchSource(
  directory: string,
  source: HttpSource,
  options: {
    signal: AbortSignal;
    status?: (status: Status) => void;
    /** Instead of the network. */
    upload?: ((url: string, signal: AbortSignal) => AsyncIterable<Uint8Array>) | undefined;
  },
): Promise<Fetched | "unchanged"> {
  const { url, checksum, validators } = source;
  const conditions: Record<string, string> = {
    ...(validators?.etag ? { "if-none-match": validators.etag } : {}),
    ...(validators?.lastModified && !validators.etag ? { "if-modified-since": validators.lastModified } : {}),
  };
  let answer: Response;
  const silence = AbortSignal.timeout(PATIENCE_MS * 10);
  try {
    answer = options.upload
      ? new Response(options.upload(url, options.signal))
      : await fetch(url, {
          signal: AbortSignal.any([options.signal, silence]),
          redirect: "follow",
          headers: { "user-agent": "buildkit/jubako", ...source.headers, ...conditions },
        });
  } catch (error) {
    throw unavailable(`ADD failed: ${url}: ${messageOf(error)}`, error);
  }
  if (answer.status === 304 && validators) return "unchanged";
  if (!answer.ok || !answer.body) throw failedPrecondition(`ADD failed: invalid response status ${answer.status} of ${url}`);
  const algorithm = checksum?.split(":")[0] ?? "sha256";
  const hash = createHash(algorithm);
  const filename = source.filename || nameOf(answer.url || url, answer.headers.get("content-disposition"));
  const total = Number(answer.headers.get("content-length") ?? 0) || 0;
  const path = join(directory, filename);
  const file = await open(path, "wx", 0o600);
  let length = 0;
  let lastModified: Date | undefined;
  const tell = (completed: boolean) =>
    options.status?.({ id: `downloading ${filename}`, name: `downloading ${filename}`, current: length, total, completed });
  try {
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
    const etag = answer.headers.get("etag") ?? undefined;
    return { filename, digest, etag, lastModified };
  } catch (error) {
    await rm(path, { force: true });
    throw error;
  }
}
