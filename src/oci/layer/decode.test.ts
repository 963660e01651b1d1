// bzip2 and xz, as the programs of these names write them, and damaged.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { digestOf } from "../digest.ts";
import { applyLayer } from "./apply.ts";
import { createDecoder, detectCompression } from "./decode.ts";
import { decompressed, plainHead } from "./decompress.ts";
import { tarEntry, tarOf } from "./tar-writer.ts";

const COMMANDS = [
  ["xz", "-6"],
  ["xz", "-0", "--check=crc32"],
  ["xz", "-9", "--check=sha256"],
  ["xz", "-1", "--check=none", "--block-size=100000"],
  ["xz", "--lzma2=preset=6,lc=1,lp=2,pb=1"],
  ["bzip2", "-9"],
  ["bzip2", "-1"],
];
const lacking = ["xz", "bzip2"].filter((program) => !Bun.which(program));
if (lacking.length) console.log(`skip: ${lacking.join(", ")} not installed`);

function pack(plain: Uint8Array, [program, ...flags]: string[]): Buffer {
  const result = spawnSync(program!, [...flags, "-c"], { input: plain, maxBuffer: 64 << 20 });
  if (result.status !== 0) throw new Error(`${program}: ${result.stderr}`);
  return result.stdout;
}

function unpack(packed: Uint8Array, step: number): Buffer {
  const parts: Uint8Array[] = [];
  const decoder = createDecoder(detectCompression(packed), (bytes, offset, length) => parts.push(bytes.slice(offset, offset + length)));
  for (let at = 0; at < packed.length; at += step) decoder.push(packed, at, Math.min(step, packed.length - at));
  decoder.end();
  return Buffer.concat(parts);
}

describe.skipIf(lacking.length > 0)("bzip2 and xz", () => {
  let dir: string;
  let text: Buffer;
  let samples: Buffer[];
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), "jubako-decode-"));
    text = readFileSync(new URL("./xz.ts", import.meta.url));
    samples = [
      Buffer.alloc(0),
      Buffer.from("a"),
      text,
      Buffer.concat([randomBytes(300_000), Buffer.alloc(2_000_000, 7), text, randomBytes(70_000), text]),
    ];
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  test.each(COMMANDS.map((command) => [command.join(" "), command] as const))("%s", (_, command) => {
    for (const sample of samples) {
      const packed = pack(sample, command);
      expect(unpack(packed, 1000).equals(sample)).toBe(true);
      // several streams in a row are one
      expect(unpack(Buffer.concat([packed, packed]), packed.length).equals(Buffer.concat([sample, sample]))).toBe(true);
    }
  });

  test("a damaged or truncated stream is refused, never another result", () => {
    let state = 3;
    const random = (limit: number) => {
      state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
      return (state >> 8) % limit;
    };
    for (const command of [COMMANDS[0]!, COMMANDS[5]!]) {
      const packed = pack(text, command);
      for (const cut of [8, 20, packed.length >> 1, packed.length - 1]) expect(() => unpack(packed.subarray(0, cut), 4096)).toThrow();
      for (let i = 0; i < 60; i++) {
        const copy = Buffer.from(packed);
        copy[4 + random(copy.length - 4)]! ^= 1 << random(8);
        try {
          expect(unpack(copy, 4096).equals(text)).toBe(true);
        } catch (error) {
          expect((error as Error).name).toMatch(/InvalidArgument|ResourceExhausted/);
        }
      }
    }
  });

  test("a layer, and a stream off the event loop", async () => {
    const tar = tarOf([{ header: tarEntry("a", "file"), data: samples[3]! }]);
    for (const command of [COMMANDS[0]!, COMMANDS[5]!]) {
      const packed = pack(tar, command);
      const root = join(dir, command[0]!);
      mkdirSync(root);
      writeFileSync(`${root}.tar`, packed);
      const result = await applyLayer({ file: `${root}.tar`, root, digest: digestOf(packed) });
      expect(result.diffId).toBe(digestOf(tar));
      expect(readFileSync(join(root, "a")).equals(samples[3]!)).toBe(true);
      const pieces: Uint8Array[] = [];
      for await (const piece of decompressed(cut(packed))) pieces.push(piece);
      expect(Buffer.concat(pieces).equals(tar)).toBe(true);
      let at = 0;
      const read = (buffer: Uint8Array) => {
        const n = packed.copy(buffer, 0, at);
        at += n;
        return n;
      };
      expect(Buffer.from(plainHead(read, 512)).equals(tar.subarray(0, 512))).toBe(true);
      const broken = decompressed(cut(packed.subarray(0, packed.length >> 1)));
      expect(
        await Array.fromAsync(broken).then(
          () => "no failure",
          (error: Error) => error.name,
        ),
      ).toBe("InvalidArgument");
    }
  });

  test("a bomb waits for its reader", async () => {
    // 200 MB of zeros in a few hundred bytes
    const packed = spawnSync("sh", ["-c", "head -c 200000000 /dev/zero | bzip2 -c"], { maxBuffer: 1 << 20 }).stdout;
    const before = process.memoryUsage().rss;
    let seen = 0;
    for await (const piece of decompressed(cut(packed))) {
      seen += piece.length;
      if (seen > 30_000_000) break;
      if (seen % 7 === 0) await Bun.sleep(1);
    }
    expect(process.memoryUsage().rss - before).toBeLessThan(100 << 20);
    let failure: Error | undefined;
    try {
      for await (const piece of decompressed(cut(packed), [], { free: 10 << 20, ratio: 200 })) seen += piece.length;
    } catch (error) {
      failure = error as Error;
    }
    expect([failure?.name, failure?.message]).toEqual([
      "ResourceExhausted",
      expect.stringContaining("archive expands to more than 200 times"),
    ]);
  });
});

async function* cut(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 5000) yield bytes.subarray(at, at + 5000);
}
