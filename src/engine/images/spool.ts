// A place for an uploaded archive while it is taken apart: DATA/tmp/NAME, removed at the end, and at the next start should this process die.
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { open, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { createDigester, type Digest } from "../../oci/index.ts";
import type { Engine } from "../context.ts";

const PREFIX = "images-";

export interface Spool {
  path(name: string): string;
  [Symbol.asyncDispose](): Promise<void>;
}

const cleaned = new WeakSet<Engine>();

export function createSpool(engine: Engine): Spool {
  const root = join(engine.config.dataRoot, "tmp", "images");
  if (!cleaned.has(engine)) {
    rmSync(root, { recursive: true, force: true });
    cleaned.add(engine);
  }
  mkdirSync(root, { recursive: true, mode: 0o700 });
  const dir = mkdtempSync(join(root, PREFIX));
  return {
    path: (name) => join(dir, name),
    [Symbol.asyncDispose]: () => rm(dir, { recursive: true, force: true }),
  };
}

/** Writes a stream into a file and hashes it on the way. */
export async function spoolFile(
  path: string,
  stream: Readable | AsyncIterable<Uint8Array>,
  signal: AbortSignal,
  onProgress?: (bytes: number) => void,
): Promise<{ digest: Digest; size: number; head: Uint8Array }> {
  const file = await open(path, "wx", 0o600);
  const digester = createDigester();
  let size = 0;
  let head: Uint8Array = new Uint8Array(0);
  try {
    for await (const chunk of stream as AsyncIterable<Uint8Array>) {
      signal.throwIfAborted();
      if (head.length < 8) head = Buffer.concat([head, chunk.subarray(0, 8)]);
      digester.update(chunk);
      for (let done = 0; done < chunk.length; ) done += (await file.write(chunk, done, chunk.length - done)).bytesWritten;
      size += chunk.length;
      onProgress?.(size);
    }
  } finally {
    await file.close();
  }
  return { digest: digester.digest(), size, head };
}

/** A part of a file, piece by piece. */
export async function* filePieces(path: string, offset = 0, length = Number.MAX_SAFE_INTEGER): AsyncGenerator<Uint8Array, void> {
  const file = await open(path, "r");
  try {
    let left = length;
    let at = offset;
    while (left > 0) {
      const buffer = new Uint8Array(Math.min(left, 512 << 10));
      const { bytesRead } = await file.read(buffer, 0, buffer.length, at);
      if (bytesRead === 0) return;
      at += bytesRead;
      left -= bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  } finally {
    await file.close();
  }
}
