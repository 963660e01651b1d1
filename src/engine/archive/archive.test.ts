import { afterAll, expect, test } from "bun:test";
import { execFileSync } from "node:child_process";
import { existsSync, lstatSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { Readable } from "node:stream";
import { gzipSync } from "node:zlib";
import { close, O_DIRECTORY, O_RDONLY, open } from "../../linux/index.ts";
import { tarEntry, tarOf } from "../../oci/index.ts";
import { packPath, packTree } from "./pack.ts";
import { cleanPath, goMode, statPath } from "./paths.ts";
import { type UnpackOptions, unpackInto } from "./unpack.ts";

const dir = mkdtempSync("/tmp/jubako-archive-");
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const PLAIN: UnpackOptions = { noOverwriteDirNonDir: false, owner: undefined };

async function collect(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of stream) parts.push(Buffer.from(part));
  return Buffer.concat(parts);
}

async function unpack(into: string, tar: Buffer, options = PLAIN): Promise<void> {
  const fd = open(into, O_RDONLY | O_DIRECTORY);
  try {
    await unpackInto(fd, Readable.from([tar]), options);
  } finally {
    close(fd);
  }
}

test("a tree goes through pack and unpack with everything that belongs to it", async () => {
  const from = `${dir}/from`;
  mkdirSync(from);
  const script = `cd ${from}; mkdir -m 2750 d; echo x >d/f; chown 12:34 d/f; chmod 4755 d/f; ln d/f hard; ln -s ../../etc link; mkfifo p; mknod null c 1 3; head -c 700000 /dev/urandom >big; touch -d @1000000000 d`;
  execFileSync("sh", ["-c", script]);
  const fd = open(from, O_RDONLY | O_DIRECTORY);
  const tar = await collect(packTree(fd, { oneFileSystem: true }));
  close(fd);
  const to = `${dir}/to`;
  mkdirSync(to);
  await unpack(to, tar);
  const f = lstatSync(`${to}/d/f`);
  expect([f.uid, f.gid, f.mode & 0o7777, f.nlink]).toEqual([12, 34, 0o4755, 2]);
  expect([lstatSync(`${to}/d`).mode & 0o7777, lstatSync(`${to}/d`).mtimeMs]).toEqual([0o2750, 1e12]);
  expect(lstatSync(`${to}/null`).rdev).toBe(lstatSync("/dev/null").rdev);
  expect(readFileSync(`${to}/big`).equals(readFileSync(`${from}/big`))).toBe(true);
  expect(execFileSync("tar", ["-t"], { input: gzipSync(tar).length > 0 ? tar : "" }).toString()).toContain("d/f\n");
});

test("hostile archives stay inside", async () => {
  const root = `${dir}/victim`;
  mkdirSync(root);
  writeFileSync(`${dir}/outside`, "safe");
  const evil = tarOf([
    { header: tarEntry("../../escape", "file"), data: Buffer.from("1") },
    { header: tarEntry("out", "symlink", { linkname: "../" }) },
    { header: tarEntry("out/outside", "file"), data: Buffer.from("evil") },
    { header: tarEntry("abs", "symlink", { linkname: dir }) },
    { header: tarEntry("abs/planted", "file"), data: Buffer.from("evil") },
  ]);
  await unpack(root, evil).catch(() => {});
  expect(readFileSync(`${dir}/outside`, "utf8")).toBe("safe");
  expect(existsSync(`${dir}/planted`)).toBe(false);
  expect(existsSync(`${dir}/escape`)).toBe(false);
  expect(readFileSync(`${root}/escape`, "utf8")).toBe("1");
});

test("owner, overwriting and compression are as asked", async () => {
  const root = `${dir}/options`;
  mkdirSync(`${root}/sub`, { recursive: true });
  const mode = lstatSync(root).mode;
  await unpack(
    root,
    gzipSync(tarOf([{ header: tarEntry("./", "directory", { mode: 0o700 }) }, { header: tarEntry("f", "file"), data: Buffer.from("x") }])),
    {
      noOverwriteDirNonDir: true,
      owner: { uid: 7, gid: 8 },
    },
  );
  expect([lstatSync(`${root}/f`).uid, lstatSync(`${root}/f`).gid]).toEqual([7, 8]);
  expect(lstatSync(root).mode).toBe(mode);
  const over = tarOf([{ header: tarEntry("sub", "file"), data: Buffer.from("x") }]);
  expect(unpack(root, over, { noOverwriteDirNonDir: true, owner: undefined })).rejects.toThrow(
    'cannot overwrite directory "/sub" with non-directory "sub"',
  );
  await unpack(root, over);
  expect(lstatSync(`${root}/sub`).isFile()).toBe(true);
  expect(unpack(root, over.subarray(0, 300))).rejects.toThrow("unexpected EOF");
});

test("stat of a path says what a client of docker cp needs", async () => {
  const root = `${dir}/stat`;
  mkdirSync(`${root}/d`, { recursive: true });
  execFileSync("sh", ["-c", `cd ${root}; ln -s /d/../d l; ln -s /nope broken; echo 12345 >f`]);
  const fd = open(root, O_RDONLY | O_DIRECTORY);
  try {
    expect(statPath(fd, "/f", "c").answer).toMatchObject({ name: "f", size: 6, linkTarget: "" });
    expect(statPath(fd, "l", "c").answer).toMatchObject({ name: "l", linkTarget: "/d" });
    expect(statPath(fd, "l/", "c").answer.mode).toBe(2 ** 31 + 0o755);
    expect(statPath(fd, "broken", "c").answer.linkTarget).toBe("/nope");
    expect(() => statPath(fd, "nope/x", "c")).toThrow("Could not find the file nope/x in container c");
    const one = await collect(packPath(fd, "f", "renamed", { oneFileSystem: false }));
    expect(one.toString("latin1", 0, 7)).toBe("renamed");
  } finally {
    close(fd);
  }
  expect(goMode(0o120777)).toBe(2 ** 27 + 0o777);
  expect([cleanPath("a/../b/"), cleanPath("/x/."), cleanPath("")]).toEqual(["/b/", "/x/.", "/"]);
});
