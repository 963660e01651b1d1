// One pass over a layer, synchronously, inside a worker: read → hash what is stored → decompress → hash what it holds → extract.
import { closeSync, openSync, readSync } from "node:fs";
import { cancelled, invalidArgument } from "../../lib/errors.ts";
import { createDigester } from "../digest.ts";
import { createDecoder, type Decoder, detectCompression } from "./decode.ts";
import { checkExpansion, type ExpansionLimit } from "./expansion.ts";
import { createExtractor, type Whiteouts } from "./extract.ts";
import { COUNT, FLAG, viewsOf } from "./progress.ts";
import { createTarReader } from "./tar-reader.ts";

/** What a worker is told. */
export interface UnpackJob {
  /** File that holds the blob, or is growing into it. */
  file: string;
  /** Shared with whoever writes the file (progress.ts); where `following`, the file's end is where the writer says. */
  shared: SharedArrayBuffer;
  following: boolean;
  root: string;
  whiteouts: Whiteouts;
  parents: readonly string[];
  maxBytes: number | undefined;
  maxEntries: number;
  expansion: ExpansionLimit;
  algorithm: string;
  /** What the blob's digest must be; undefined: whatever it is. */
  expected: string | undefined;
}

export interface Unpacked {
  /** Digest and length of the blob as it is stored. */
  digest: string;
  size: number;
  /** Digest of the uncompressed tar. */
  diffId: string;
  /** Bytes of the files. */
  bytes: number;
  entries: number;
  /** Directories that were made without being named in the archive and without a model in `parents`; see adoptParents. */
  implied: string[];
}

const CHUNK = 512 << 10;

export function unpack(job: UnpackJob): Unpacked {
  const { flags, counts } = viewsOf(job.shared);
  const fd = openSync(job.file, "r");
  const extractor = createExtractor({
    root: job.root,
    whiteouts: job.whiteouts,
    parents: job.parents,
    maxBytes: job.maxBytes,
    maxEntries: job.maxEntries,
  });
  let decoder: Decoder | undefined;
  try {
    const reader = createTarReader(extractor);
    const stored = createDigester(job.algorithm);
    const plain = createDigester("sha256");
    let separate = true;
    let failure: unknown;
    let taken = 0;
    let produced = 0;
    const output = (buffer: Uint8Array, offset: number, length: number) => {
      produced += length;
      checkExpansion("layer", taken, produced, job.expansion);
      plain.update(offset === 0 && length === buffer.length ? buffer : buffer.subarray(offset, offset + length));
      reader.push(buffer, offset, length);
    };
    const input = new Uint8Array(CHUNK);
    let at = 0;
    const consume = (length: number) => {
      if (!decoder) {
        const compression = detectCompression(input.subarray(0, length));
        separate = compression !== "none" || job.algorithm !== "sha256";
        decoder = createDecoder(compression, output);
      }
      if (separate) stored.update(input.subarray(0, length));
      taken += length;
      try {
        if (failure === undefined) decoder.push(input, 0, length);
        else if (!separate) plain.update(input.subarray(0, length));
      } catch (error) {
        // Bytes that are not what was promised explain more than what is wrong with them as an archive: hash on to the end, then tell.
        if (job.expected === undefined) throw error;
        failure = error;
      }
      at += length;
      Atomics.store(counts, COUNT.read, BigInt(at));
    };
    for (;;) {
      const sequence = Atomics.load(flags, FLAG.sequence);
      if (Atomics.load(flags, FLAG.aborted)) throw cancelled("unpacking was cancelled");
      let want = CHUNK;
      if (job.following) {
        const ended = Atomics.load(flags, FLAG.ended);
        const available = Number(Atomics.load(counts, COUNT.available));
        want = Math.min(CHUNK, available - at);
        // Waiting for a good piece saves small reads; the very first bytes tell the compression.
        if (!ended && want < 64 << 10) {
          Atomics.wait(flags, FLAG.sequence, sequence, 1000);
          continue;
        }
        if (want === 0) break;
      }
      const n = readSync(fd, input, 0, want, at);
      if (n === 0) {
        if (job.following) throw invalidArgument(`${job.file} is shorter than its writer said`);
        break;
      }
      consume(n);
    }
    try {
      if (failure === undefined) {
        decoder?.end();
        reader.end();
        extractor.complete();
      }
    } catch (error) {
      failure = error;
    }
    if (failure !== undefined) {
      const digest = separate ? stored.digest() : plain.digest();
      if (job.expected === undefined || digest === job.expected) throw failure;
      throw invalidArgument(`unexpected digest ${digest} of layer, expected ${job.expected}`, failure);
    }
    const diffId = plain.digest();
    return {
      digest: separate ? stored.digest() : diffId,
      size: at,
      diffId,
      bytes: extractor.bytes,
      entries: extractor.entries,
      implied: extractor.implied,
    };
  } finally {
    decoder?.close();
    extractor.close();
    closeSync(fd);
  }
}
