import { afterAll, expect, test } from "bun:test";
import { execFileSync } from "node:child_process";
import { lstatSync, mkdirSync, mkdtempSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { close, O_DIRECTORY, O_RDONLY, open } from "../../linux/index.ts";
import { copyTree } from "./copy.ts";
import { parseBind, parseMount, parseVolumesFrom } from "./parse.ts";

const dir = mkdtempSync("/tmp/jubako-volumes-");
afterAll(() => rmSync(dir, { recursive: true, force: true }));

test("-v in its forms", () => {
  expect(parseBind("/data", undefined)).toMatchObject({ type: "volume", source: "", destination: "/data", readOnly: false, mode: "" });
  expect(parseBind("name:/data/", undefined)).toMatchObject({ type: "volume", source: "name", destination: "/data", mode: "z" });
  expect(parseBind("/host:/data:ro,rslave", undefined)).toMatchObject({
    type: "bind",
    source: "/host",
    readOnly: true,
    propagation: "rslave",
  });
  expect(parseBind("name:/data:nocopy", undefined).noCopy).toBe(true);
});

test("-v is refused with dockerd's sentences", () => {
  const refuse = (raw: string, text: string) => expect(() => parseBind(raw, undefined)).toThrow(text);
  refuse("a:b:c:d", "invalid volume specification: 'a:b:c:d'");
  refuse("/a:rw", "invalid volume specification: '/a:rw'");
  refuse("/a:/b:xx", "invalid mode: xx");
  refuse("/a:/b:ro,rw", "invalid mode: ro,rw");
  refuse("name:/b:rslave", "invalid mode: rslave");
  refuse(
    "name:b",
    `invalid volume specification: 'name:b': invalid mount config for type "volume": invalid mount path: 'b' mount path must be absolute`,
  );
  refuse("/a:/", "invalid specification: destination can't be '/'");
  refuse("../x:/b", "includes invalid characters for a local volume name");
});

test("--mount is refused with dockerd's sentences", () => {
  const refuse = (mount: object, text: string) => expect(() => parseMount(mount)).toThrow(text);
  refuse({ Type: "bind", Target: "/a" }, 'invalid mount config for type "bind": field Source must not be empty');
  refuse({ Type: "bind", Source: "rel", Target: "/a" }, "invalid mount path: 'rel' mount path must be absolute");
  refuse({ Type: "tmpfs", Source: "x", Target: "/a" }, "field Source must not be specified");
  refuse({ Type: "volume", Source: "vol" }, "field Target must not be empty");
  refuse({ Type: "volume", Target: "/a", ReadOnly: true }, "must not set ReadOnly mode when using anonymous volumes");
  refuse({ Type: "volume", Source: "vol", Target: "/a", VolumeOptions: { Subpath: "../x" } }, "invalid subpath");
  refuse({ Type: "what", Target: "/a" }, 'invalid mount config for type "what": mount type unknown');
  expect(parseVolumesFrom("abc:ro")).toEqual({ container: "abc", readOnly: true, mode: "ro" });
});

test("a tree is copied with owners, modes, links, times and attributes", async () => {
  const from = `${dir}/from`;
  const to = `${dir}/to`;
  mkdirSync(from);
  mkdirSync(to);
  const script = `cd ${from}; echo x >f; chown 12:34 f; chmod 4750 f; ln f hard; ln -s /etc/passwd out; mkdir -p d/e; mkfifo d/p; chmod 1777 d; chown 5 d/e; touch -d @1000000000 d/e; chmod 700 .`;
  execFileSync("sh", ["-c", script]);
  const fd = open(from, O_RDONLY | O_DIRECTORY);
  await copyTree(fd, to);
  close(fd);
  const f = lstatSync(`${to}/f`);
  expect([f.uid, f.gid, f.mode & 0o7777, f.nlink]).toEqual([12, 34, 0o4750, 2]);
  expect(lstatSync(`${to}/hard`).ino).toBe(f.ino);
  expect(readlinkSync(`${to}/out`)).toBe("/etc/passwd");
  expect(lstatSync(`${to}/d`).mode & 0o7777).toBe(0o1777);
  expect(lstatSync(`${to}/d/p`).isFIFO()).toBe(true);
  expect([lstatSync(`${to}/d/e`).uid, lstatSync(`${to}/d/e`).mtimeMs]).toEqual([5, 1e12]);
  expect(lstatSync(to).mode & 0o7777).toBe(0o700);
  expect(readFileSync(`${to}/f`, "utf8")).toBe("x\n");
});
