// Finds the entries of a tar file without reading their data.
import type { FileHandle } from "node:fs/promises";
import { invalidArgument } from "../../lib/errors.ts";
import { shown } from "./kernel.ts";
import { createTarReader, type TarEntry } from "./tar-reader.ts";

const BLOCK = 512;
const PIECE = 64 << 10;

/** Calls `found` for each entry with the place of its data in the file. InvalidArgument where the archive is broken or truncated. */
export async function scanTar(file: FileHandle, found: (entry: TarEntry, offset: number) => void): Promise<void> {
  const { size } = await file.stat();
  const buffer = new Uint8Array(PIECE);
  let at = 0;
  /** Set when an entry with data begins: the piece being read is then left for where its data ends. */
  let skipTo = -1;
  let current: TarEntry | undefined;
  const make = () =>
    createTarReader({
      entry(entry) {
        current = entry;
      },
      data() {},
      hole() {},
      finish() {},
    });
  let reader = make();
  while (at < size) {
    const { bytesRead } = await file.read(buffer, 0, PIECE, at);
    if (bytesRead === 0) break;
    let used = 0;
    while (used + BLOCK <= bytesRead && skipTo < 0 && !reader.ended) {
      reader.push(buffer, used, BLOCK);
      used += BLOCK;
      if (current) {
        const entry = current as TarEntry;
        current = undefined;
        const data = at + used;
        if (entry.sparse) throw invalidArgument(`tar: ${shown(entry.name)} is a sparse file, which this archive may not hold`);
        found(entry, data);
        if (entry.size > 0) {
          skipTo = data + Math.ceil(entry.size / BLOCK) * BLOCK;
          if (data + entry.size > size) throw invalidArgument("tar: unexpected EOF (the archive is truncated)");
        }
      }
    }
    if (reader.ended) return;
    if (skipTo >= 0) {
      at = skipTo;
      skipTo = -1;
      // the next header begins a reader of its own: what an entry needs from before (pax, long names) came with it
      reader = make();
    } else if (used === 0) {
      throw invalidArgument("tar: unexpected EOF (the archive is truncated)");
    } else at += used;
  }
}
