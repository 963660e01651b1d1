// Sparse files in tars, in each form that GNU tar writes, and damaged.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { execFileSync } from "node:child_process";
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { digestOf } from "../digest.ts";
import { applyLayer } from "./apply.ts";
import { createTarReader, type TarEntry } from "./tar-reader.ts";

let dir: string;
const FORMS: [name: string, flags: string[]][] = [
  ["GNU", ["--format=gnu"]],
  ["pax 0.0", ["--format=pax", "--sparse-version=0.0"]],
  ["pax 0.1", ["--format=pax", "--sparse-version=0.1"]],
  ["pax 1.0", ["--format=pax", "--sparse-version=1.0"]],
];

/** Pieces of data at these places of a file that is so long. */
function sparse(name: string, size: number, places: number[]): void {
  const fd = openSync(join(dir, "src", name), "w");
  for (const place of places) writeSync(fd, Buffer.from(`data at ${place} `.repeat(300)), 0, undefined, place);
  ftruncateSync(fd, size);
  closeSync(fd);
}

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "jubako-sparse-"));
  mkdirSync(join(dir, "src"));
  sparse("hole", 10 << 20, []);
  sparse("middle", 50 << 20, [20 << 20]);
  sparse("ends", (4 << 20) + 5000, [0, 4 << 20]);
  // more pieces than a header of the old form has place for, and than one block of the list of pax 1.0
  sparse(
    "many",
    64 << 20,
    Array.from({ length: 60 }, (_, i) => i << 20),
  );
  writeFileSync(join(dir, "src/plain"), "not sparse");
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const archive = (flags: string[]): Buffer =>
  execFileSync("tar", ["-C", join(dir, "src"), "-S", ...flags, "-cf", "-", "."], { maxBuffer: 64 << 20 });

test.each(FORMS)("%s: the same files, and the holes are holes", async (name, flags) => {
  const tar = archive(flags);
  const file = join(dir, `${name}.tar`);
  const root = join(dir, name);
  writeFileSync(file, tar);
  mkdirSync(root);
  const { diffId, bytes } = await applyLayer({ file, root, maxBytes: 4 << 20 });
  expect(diffId).toBe(digestOf(tar));
  expect(bytes).toBeLessThan(1 << 20);
  expect(readdirSync(root).sort()).toEqual(["ends", "hole", "many", "middle", "plain"]);
  for (const one of readdirSync(root)) {
    execFileSync("cmp", [join(root, one), join(dir, "src", one)]);
    expect(statSync(join(root, one)).blocks).toBeLessThanOrEqual(statSync(join(dir, "src", one)).blocks + 16);
  }
});

/** Reads an archive in pieces of a size; answers each file's length as it was told. */
function read(tar: Uint8Array, step: number): Map<string, number> {
  const lengths = new Map<string, number>();
  let current: TarEntry;
  const add = (n: number) => lengths.set(current.name, (lengths.get(current.name) ?? 0) + n);
  const reader = createTarReader({
    entry(entry) {
      current = entry;
      lengths.set(entry.name, 0);
    },
    data: (_, __, length) => add(length),
    hole: add,
    finish() {
      if (current.sparse) expect(lengths.get(current.name)).toBe(current.size);
    },
  });
  for (let at = 0; at < tar.length; at += step) reader.push(tar, at, Math.min(step, tar.length - at));
  reader.end();
  return lengths;
}

test("however the bytes come, data and holes add up to the file's length, or the archive is refused", () => {
  let state = 5;
  const random = (limit: number) => {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
    return (state >> 8) % limit;
  };
  for (const [, flags] of FORMS) {
    const tar = archive(flags);
    const whole = read(tar, tar.length);
    for (const step of [1000, 513, 4096]) expect(read(tar, step)).toEqual(whole);
    const headers: number[] = [];
    for (let at = 0; at < tar.length; at += 512) if (tar.toString("latin1", at + 257, at + 262) === "ustar") headers.push(at);
    const refused = { times: 0 };
    for (let i = 0; i < 60; i++) {
      const copy = Buffer.from(tar);
      for (let k = random(4); k >= 0; k--) {
        // a header, or a list behind it
        const at = headers[random(headers.length)]! + random(1024);
        copy[at] = 0x30 + random(10);
        const block = at - (at % 512);
        if (copy.toString("latin1", block + 257, block + 262) !== "ustar") continue;
        let sum = 8 * 32;
        for (let j = 0; j < 512; j++) if (j < 148 || j >= 156) sum += copy[block + j]!;
        copy.write(`${sum.toString(8).padStart(6, "0")}\0 `, block + 148, "latin1");
      }
      try {
        read(copy, 8192);
      } catch (error) {
        expect((error as Error).name).toBe("InvalidArgument");
        refused.times++;
      }
    }
    expect(refused.times).toBeGreaterThan(0);
  }
});
