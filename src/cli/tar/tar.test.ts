import { afterAll, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { type Entry, encodeHeader, padding, TRAILER } from "./format.ts";
import { packTree } from "./pack.ts";
import { unpack } from "./unpack.ts";

const base = mkdtempSync(`${tmpdir()}/jubako-cli-tar-`);
afterAll(() => rmSync(base, { recursive: true, force: true }));

test("a tree there and back", async () => {
  const from = `${base}/from`;
  const to = `${base}/to`;
  mkdirSync(`${from}/d`, { recursive: true });
  mkdirSync(to);
  writeFileSync(`${from}/d/file`, "x".repeat(1000));
  chmodSync(`${from}/d/file`, 0o4751);
  symlinkSync("d/file", `${from}/link`);
  linkSync(`${from}/d/file`, `${from}/z-hard`);
  const long = `${"n".repeat(120)}ü`;
  writeFileSync(`${from}/${long}`, "");
  await unpack(packTree(from, "from"), to, (name) => name.replace(/^from/, "new"));
  expect(readFileSync(`${to}/new/d/file`, "utf8")).toBe("x".repeat(1000));
  expect(statSync(`${to}/new/d/file`).mode & 0o7777).toBe(0o4751);
  expect(readlinkSync(`${to}/new/link`)).toBe("d/file");
  expect(statSync(`${to}/new/z-hard`).ino).toBe(statSync(`${to}/new/d/file`).ino);
  expect(existsSync(`${to}/new/${long}`)).toBe(true);
  expect(lstatSync(`${to}/new/d`).mtimeMs).toBe(Math.floor(lstatSync(`${from}/d`).mtimeMs / 1000) * 1000);
});

const entry = (name: string, type: string, content = "", link = ""): Uint8Array => {
  const header: Entry = { name, type, mode: 0o644, uid: 0, gid: 0, size: content.length, mtime: 1, link, major: 0, minor: 0, pax: {} };
  return Buffer.concat([encodeHeader(header), Buffer.from(content), padding(content.length)]);
};

async function* archive(...parts: Uint8Array[]) {
  for (const part of [...parts, TRAILER]) for (let at = 0; at < part.length; at += 100) yield part.subarray(at, at + 100);
}

test("hostile archives stay inside", async () => {
  const dir = `${base}/jail`;
  mkdirSync(dir);
  await expect(unpack(archive(entry("../evil", "0", "x")), dir)).rejects.toThrow("leads out");
  await expect(unpack(archive(entry("out", "2", "", base), entry("out/evil", "0", "x")), dir)).rejects.toThrow("no directory");
  await expect(unpack(archive(entry("hard", "1", "", "../../etc/passwd")), dir)).rejects.toThrow("leads out");
  await unpack(archive(entry("/abs", "0", "x")), dir);
  expect(readFileSync(`${dir}/abs`, "utf8")).toBe("x");
  // A file replaces a link instead of being written through it.
  await unpack(archive(entry("out", "0", "mine")), dir);
  expect(lstatSync(`${dir}/out`).isFile()).toBe(true);
  expect(existsSync(`${base}/evil`)).toBe(false);
  async function* cut() {
    yield entry("cut", "0", "x".repeat(2000)).subarray(0, 1024);
  }
  await expect(unpack(cut(), dir)).rejects.toThrow("unexpected EOF");
});
