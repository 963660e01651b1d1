import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { type Stat, StatSchema } from "../../gen/fsutil/types_pb.ts";
import { fromGoMode, toGoMode } from "../../lib/go-mode.ts";
import { close, O_DIRECTORY, O_RDONLY, open } from "../../linux/index.ts";
import { createTreeWriter, type TreeIndex } from "./tree-writer.ts";

const DIR = 0x8000_0000;
const LINK = 0x0800_0000;

const stat = (path: string, fields: { mode?: number; size?: number; linkname?: string; modTime?: bigint } = {}): Stat =>
  create(StatSchema, {
    path,
    mode: fields.mode ?? 0o644,
    size: BigInt(fields.size ?? 0),
    linkname: fields.linkname ?? "",
    modTime: fields.modTime ?? 1_000_000_000_500_000_000n,
  });
const directory = (path: string) => stat(path, { mode: (DIR | 0o755) >>> 0 });
const link = (path: string, linkname: string) => stat(path, { mode: (LINK | 0o777) >>> 0, linkname });

describe.skipIf(process.getuid?.() !== 0)("what a client sends becomes a directory", () => {
  let top: string;
  let tree: string;
  let root: number;
  beforeEach(() => {
    top = mkdtempSync(join(tmpdir(), "jubako-tree-"));
    tree = join(top, "tree");
    mkdirSync(tree);
    root = open(tree, O_RDONLY | O_DIRECTORY);
  });
  afterEach(() => {
    close(root);
    rmSync(top, { recursive: true, force: true });
  });

  /** Plays descriptions; contents are their own paths. Answers which contents were asked for. */
  function play(stats: Stat[], before: TreeIndex = new Map(), trust = true): { index: TreeIndex; wanted: string[] } {
    const writer = createTreeWriter(root, before, trust);
    try {
      const wanted: string[] = [];
      for (const [id, each] of stats.entries()) {
        if (!writer.put(each)) continue;
        wanted.push(each.path);
        writer.data(id, Buffer.from(each.path));
        writer.data(id, Buffer.alloc(0));
      }
      writer.described();
      return { index: writer.finish(), wanted };
    } finally {
      writer.close();
    }
  }

  test("files, directories, links, times", () => {
    const file = (path: string) => stat(path, { size: path.length });
    play([file("a"), directory("d"), file("d/b"), stat("d/hard", { linkname: "a", size: 1 }), link("d/l", "../a"), stat("empty")]);
    expect(readFileSync(join(tree, "d/b"), "utf8")).toBe("d/b");
    expect(readFileSync(join(tree, "empty"), "utf8")).toBe("");
    expect(readlinkSync(join(tree, "d/l"))).toBe("../a");
    expect(lstatSync(join(tree, "d/hard")).ino).toBe(lstatSync(join(tree, "a")).ino);
    for (const path of ["a", "d", "d/b", "d/l"])
      expect(lstatSync(join(tree, path), { bigint: true }).mtimeNs).toBe(1_000_000_000_500_000_000n);
  });

  test("a second time only what changed is asked for, and what is gone goes", () => {
    const file = (path: string, modTime = 1n) => stat(path, { size: path.length, modTime });
    const { index } = play([file("a"), file("b"), directory("d"), file("d/x"), file("e")]);
    const again = play([file("a"), file("b", 2n), file("d"), file("f")], index);
    expect(again.wanted).toEqual(["b", "d", "f"]);
    expect(readdirSync(tree).sort()).toEqual(["a", "b", "d", "f"]);
    expect(readFileSync(join(tree, "d"), "utf8")).toBe("d");
    expect(play([file("a")], again.index, false).wanted).toEqual(["a"]);
    expect(readdirSync(tree)).toEqual(["a"]);
  });

  test("nothing outside of the directory is touched", () => {
    writeFileSync(join(top, "victim"), "safe");
    const file = (path: string) => stat(path, { size: 1 });
    for (const path of ["../victim", "/etc/x", "a/../../victim", "..", ".", "", "a//b", "a/", "a\0b", "nodir/x"])
      expect(() => play([file(path)])).toThrow();
    // through a link that the client made
    expect(() => play([link("l", ".."), file("l/victim")])).toThrow(/out of order/);
    // through a link that was there although the client does not know
    symlinkSync("..", join(tree, "out"));
    expect(() => play([directory("out"), file("out/victim")])).toThrow();
    expect(() => play([stat("h", { linkname: "../victim" })])).toThrow(/invalid link/);
    expect(() => play([link("s", "/etc/passwd"), stat("t", { linkname: "s" })])).toThrow(/invalid link/);
    expect(readFileSync(join(top, "victim"), "utf8")).toBe("safe");
    expect(existsSync(join(top, "x"))).toBe(false);
  });

  test("files out of order, twice, or contents that nobody asked for are refused", () => {
    const file = (path: string) => stat(path, { size: 1 });
    expect(() => play([file("b"), file("a")])).toThrow(/out of order/);
    expect(() => play([file("a"), file("a")])).toThrow(/out of order/);
    expect(() => play([directory("d"), file("e"), file("d/x")])).toThrow(/out of order/);
    const writer = createTreeWriter(root, new Map(), true);
    expect(() => writer.data(7, Buffer.from("x"))).toThrow(/not asked for/);
    writer.close();
  });

  test("Go's modes", () => {
    for (const mode of [0o100644, 0o104755, 0o041777, 0o120777, 0o020600, 0o060600, 0o010600])
      expect(fromGoMode(toGoMode(mode))).toBe(mode);
    expect(fromGoMode(0x0008_0000)).toBeUndefined();
  });
});
