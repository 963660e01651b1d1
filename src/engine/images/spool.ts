// A place for an uploaded archive while it is taken apart: DATA/tmp/NAME, removed at the end, and at the next start should this process die.
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { open, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Readable } from "node:stream";
import { createRoom } from "../../lib/room.ts";
import { createDigester, type Digest } from "../../oci/index.ts";
import type { Engine } from "../context.ts";

const PREFIX = "images-";

export interface Spool {
  path(name: string): string;
  [Symbol.asyncDispose](): Promise<void>;
}

const rootOf = (engine: Engine) => join(engine.config.dataRoot, "tmp", "images");

/** At the engine's start: what a killed one left. */
export function clearSpools(engine: Engine): void {
  rmSync(rootOf(engine), { recursive: true, force: true });
}

export function createSpool(engine: Engine): Spool {
  const root = rootOf(engine);
  mkdirSync(root, { recursive: true, mode: 0o700 });
  const dir = mkdtempSync(join(root, PREFIX));
  return {
    path: (name) => join(dir, name),
    [Symbol.asyncDispose]: () => rm(dir, { recursive: true, force: true }),
  };
}

export interface FilePart {
  offset: number;
  size: number;
}

/** Writes a stream to the end of a file; answers where it is. ResourceExhausted before the disk is full. */
export async function appendFile(
  path: string,
  stream: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
  onPiece?: (piece: Uint8Array) => void,
): Promise<FilePart> {
  const file = await open(path, "a", 0o600);
  try {
    const room = createRoom(dirname(path));
    const offset = (await file.stat()).size;
    let size = 0;
    for await (const piece of stream) {
      signal.throwIfAborted();
      onPiece?.(piece);
      room(piece.length);
      for (let done = 0; done < piece.length; ) done += (await file.write(piece, done)).bytesWritten;
      size += piece.length;
    }
    return { offset, size };
  } finally {
    await file.close();
  }
}

/** Writes a stream into a file and hashes it on the way. */
export async function spoolFile(
  path: string,
  stream: Readable | AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<{ digest: Digest; size: number; head: Uint8Array }> {
  const digester = createDigester();
  let head: Uint8Array = new Uint8Array(0);
  const { size } = await appendFile(path, stream as AsyncIterable<Uint8Array>, signal, (piece) => {
    if (head.length < 8) head = Buffer.concat([head, piece.subarray(0, 8)]);
    digester.update(piece);
  });
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
