// The uploaded archive of `docker load`, taken apart: each file of the tar is found again by its name. The tar is kept as one spooled file (decompressed where
// it came compressed); entries are ranges of it, so that nothing is copied twice.
import { open } from "node:fs/promises";
import { posix } from "node:path";
import type { Readable } from "node:stream";
import { invalidArgument } from "../../lib/errors.ts";
import { decompressed, scanTar } from "../../oci/index.ts";
import { appendFile, type FilePart, filePieces, type Spool, spoolFile } from "./spool.ts";

export type ArchiveFile = FilePart;

export interface Archive {
  has(name: string): boolean;
  /** Where a file's bytes are; a link inside the archive is followed. InvalidArgument where it is not there. */
  find(name: string): ArchiveFile;
  /** A whole file of at most `limit` bytes. */
  read(name: string, limit: number): Promise<Uint8Array>;
  pieces(file: ArchiveFile, offset?: number): AsyncIterable<Uint8Array>;
  /** Under this name are its bytes uncompressed from now on. */
  expand(name: string): Promise<void>;
}

const MAX_FILES = 50_000;

export async function openArchive(body: Readable, spool: Spool, signal: AbortSignal): Promise<Archive> {
  const path = spool.path("archive.tar");
  await spoolFile(path, decompressed(body), signal);
  const files = new Map<string, ArchiveFile>();
  const links = new Map<string, string>();
  const handle = await open(path, "r");
  try {
    await scanTar(handle, (entry, offset) => {
      if (files.size + links.size >= MAX_FILES) throw invalidArgument(`archive has more than ${MAX_FILES} files`);
      const name = posix.normalize(entry.name).replace(/^(\.?\/)+/, "");
      if (entry.type === "file") files.set(name, { offset, size: entry.size });
      else if (entry.type === "symlink") links.set(name, posix.normalize(posix.join(posix.dirname(name), entry.linkname)));
      else if (entry.type === "link") links.set(name, posix.normalize(entry.linkname));
    });
  } finally {
    await handle.close();
  }
  const expanded = new Map<string, ArchiveFile>();
  const find = (name: string): ArchiveFile => {
    const plain = expanded.get(name);
    if (plain) return plain;
    let at = posix.normalize(name);
    for (let hops = 0; hops < 10; hops++) {
      const file = files.get(at);
      if (file) return file;
      const next = links.get(at);
      if (next === undefined) break;
      at = next;
    }
    throw invalidArgument(`open ${name}: no such file or directory in the archive`);
  };
  return {
    has: (name) => files.has(name) || links.has(name),
    find,
    async read(name, limit) {
      const file = find(name);
      if (file.size > limit) throw invalidArgument(`${name} is ${file.size} bytes long; the limit is ${limit}`);
      const chunks: Uint8Array[] = [];
      for await (const piece of filePieces(path, file.offset, file.size)) chunks.push(piece);
      return Buffer.concat(chunks);
    },
    pieces: (file, offset = 0) => filePieces(path, file.offset + offset, file.size - offset),
    async expand(name) {
      const file = find(name);
      expanded.set(name, await appendFile(path, decompressed(filePieces(path, file.offset, file.size)), signal));
    },
  };
}
