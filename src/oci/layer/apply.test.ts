import { afterAll, beforeAll, expect, test } from "bun:test";
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  appendFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { binding, SYS } from "../../linux/index.ts";
import { digestOf } from "../digest.ts";
import { adoptParents } from "./adopt.ts";
import { type ApplyOptions, applyLayer } from "./apply.ts";
import { createProgress } from "./progress.ts";
import { type TarHeader, tarEntry, tarOf } from "./tar-writer.ts";

let dir: string;
let n = 0;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "jubako-oci-"));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

type File = { header: TarHeader; data?: Uint8Array };
const file = (name: string, text = "x", rest: Partial<TarHeader> = {}): File => ({
  header: tarEntry(name, "file", rest),
  data: Buffer.from(text),
});
const entry = (name: string, type: Parameters<typeof tarEntry>[1], rest: Partial<TarHeader> = {}): File => ({
  header: tarEntry(name, type, rest),
});

/** The message of what a promise fails with. (`expect().rejects` waits inside the callback of the message it waits for.) */
const failure = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => "no failure",
    (error: Error) => error.message,
  );

async function apply(blob: Uint8Array, options: Partial<ApplyOptions> = {}) {
  const path = join(dir, `blob${++n}`);
  const root = options.root ?? join(dir, `root${n}`);
  writeFileSync(path, blob);
  mkdirSync(root, { recursive: true });
  return { root, ...(await applyLayer({ file: path, root, ...options })) };
}
const xattr = (path: string, name: string) => execFileSync("getfattr", ["-h", "--only-values", "-n", name, path]).toString();

test("files, links, devices, owners, modes, times, attributes and odd names arrive as they were", async () => {
  const odd = "d/caf\xe9\xff";
  const { root, digest, size, diffId } = await apply(
    tarOf([
      entry("./", "directory", { mode: 0o711, mtimeSec: 5 }),
      entry("d/", "directory", { mode: 0o2755, uid: 3, gid: 4, mtimeSec: 1000 }),
      file("d/f", "hello", { mode: 0o4755, uid: 7, gid: 8, mtimeSec: 1_700_000_000, mtimeNsec: 123_456_789 }),
      file(odd, "bytes"),
      file("d/neg", "", { mtimeSec: -2, mtimeNsec: 500_000_000 }),
      entry("d/link", "link", { linkname: "d/f" }),
      entry("d/sym", "symlink", { linkname: "../../etc/passwd", uid: 9 }),
      entry("d/fifo", "fifo", { mode: 0o600 }),
      entry("d/null", "char", { mode: 0o666, major: 1, minor: 3 }),
      file(`${"long/".repeat(60)}name`, "deep"),
      file("cap", "", {
        xattrs: [
          ["security.capability", "\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"],
          ["user.note", "caf\xc3\xa9"],
        ],
      }),
      file("redirect", "", { xattrs: [["trusted.overlay.redirect", "/etc"]] }),
    ]),
  );
  expect(size).toBeGreaterThan(0);
  expect(digest).toBe(diffId);
  expect(statSync(root).mode & 0o7777).toBe(0o711);
  const f = statSync(join(root, "d/f"), { bigint: true });
  expect([f.mode & 0o7777n, f.uid, f.gid, f.nlink, f.mtimeNs]).toEqual([0o4755n, 7n, 8n, 2n, 1_700_000_000_123_456_789n]);
  const d = statSync(join(root, "d"));
  expect([d.mode & 0o7777, d.uid, d.gid, d.mtimeMs]).toEqual([0o2755, 3, 4, 1_000_000]);
  expect(statSync(join(root, "d/neg"), { bigint: true }).mtimeNs).toBe(-1_500_000_000n);
  // a setgid directory must not give its group to what is made in it
  expect(statSync(join(root, "d/neg")).gid).toBe(0);
  expect(readlinkSync(join(root, "d/sym"))).toBe("../../etc/passwd");
  expect(lstatSync(join(root, "d/sym")).uid).toBe(9);
  expect(statSync(join(root, "d/null")).rdev).toBe(0x103);
  expect(statSync(join(root, "d/fifo")).isFIFO()).toBe(true);
  expect(readFileSync(join(root, `${"long/".repeat(60)}name`), "utf8")).toBe("deep");
  expect(
    (readdirSync(join(root, "d"), { encoding: "buffer" }) as Buffer[]).some((name) => name.equals(Buffer.from("caf\xe9\xff", "latin1"))),
  ).toBe(true);
  if (Bun.which("getfattr")) {
    expect(xattr(join(root, "cap"), "user.note")).toBe("café");
    expect(xattr(join(root, "cap"), "security.capability").length).toBeGreaterThan(10);
    expect(() => execFileSync("getfattr", ["-n", "trusted.overlay.redirect", join(root, "redirect")], { stdio: "ignore" })).toThrow();
  }
});

test("gzip, several gzip members, zstd and plain tars give the same tree and diff id", async () => {
  const tar = tarOf([file("a", "1".repeat(100_000)), file("b", randomBytes(3 << 20).toString("latin1"))]);
  const half = 1 << 20;
  const forms = [tar, gzipSync(tar), Buffer.concat([gzipSync(tar.subarray(0, half)), gzipSync(tar.subarray(half))]), zstdCompressSync(tar)];
  for (const blob of forms) {
    const result = await apply(blob, { digest: digestOf(blob), diffId: digestOf(tar), size: blob.length });
    expect(result.diffId).toBe(digestOf(tar));
    expect(statSync(join(result.root, "a")).size).toBe(100_000);
  }
  const sha512 = await apply(tar, { digest: digestOf(tar, "sha512") });
  expect(sha512.digest).toBe(digestOf(tar, "sha512"));
});

test("what GNU tar writes is read: long names, base-256 owners", async () => {
  const src = join(dir, "src");
  mkdirSync(join(src, "x".repeat(120)), { recursive: true });
  writeFileSync(join(src, "x".repeat(120), "y".repeat(120)), "gnu");
  execFileSync("tar", ["-C", src, "--format=gnu", "--owner=3000000", "-cf", join(dir, "gnu.tar"), "."]);
  const { root } = await apply(readFileSync(join(dir, "gnu.tar")));
  const made = join(root, "x".repeat(120), "y".repeat(120));
  expect(readFileSync(made, "utf8")).toBe("gnu");
  expect(statSync(made).uid).toBe(3_000_000);
});

test("what we write, GNU tar reads", async () => {
  const name = `${"p".repeat(90)}/${"é".repeat(80)}`;
  const out = join(dir, "theirs");
  mkdirSync(out);
  writeFileSync(
    join(dir, "ours.tar"),
    tarOf([file(name, "data", { mtimeSec: 10, mtimeNsec: 5 }), entry("s", "symlink", { linkname: "l".repeat(150) })]),
  );
  execFileSync("tar", ["-C", out, "-xf", join(dir, "ours.tar")]);
  expect(readlinkSync(join(out, "s"))).toBe("l".repeat(150));
  expect(readdirSync(out).length).toBe(2);
});

test("whiteouts become overlayfs deletions, or deletions", async () => {
  const tar = tarOf([
    entry("d/", "directory"),
    file("d/.wh.gone", ""),
    entry("o/", "directory"),
    file("o/.wh..wh..opq", ""),
    file("o/new"),
    file(".wh..wh.plnk", ""),
  ]);
  const { root } = await apply(tar);
  const gone = lstatSync(join(root, "d/gone"));
  expect([gone.isCharacterDevice(), gone.rdev]).toEqual([true, 0]);
  expect(readdirSync(root).sort()).toEqual(["d", "o"]);
  if (Bun.which("getfattr")) expect(xattr(join(root, "o"), "trusted.overlay.opaque")).toBe("y");

  const plain = join(dir, "plain");
  for (const sub of ["d/gone/deep", "o/old/deep"]) mkdirSync(join(plain, sub), { recursive: true });
  writeFileSync(join(plain, "d/stays"), "");
  await apply(tar, { root: plain, whiteouts: "remove" });
  expect(readdirSync(join(plain, "d"))).toEqual(["stays"]);
  expect(readdirSync(join(plain, "o"))).toEqual(["new"]);
});

test("a directory that a layer does not name looks as it does below: mode, owner, times, attributes", async () => {
  const below = await apply(
    tarOf([
      entry("d/", "directory", { mode: 0o2710, uid: 3, gid: 4, mtimeSec: 1000, mtimeNsec: 7, xattrs: [["user.note", "dir"]] }),
      file("d/old"),
    ]),
  );
  const tar = tarOf([file("d/new")]);
  const named = await apply(tar, { parents: [below.root] });
  const later = await apply(tar);
  expect([named.implied, later.implied]).toEqual([[], ["d"]]);
  adoptParents(later.root, [below.root], later.implied);
  for (const { root } of [named, later]) {
    const stat = statSync(join(root, "d"), { bigint: true });
    expect([stat.mode & 0o7777n, stat.uid, stat.gid, stat.mtimeNs]).toEqual([0o2710n, 3n, 4n, 1_000_000_000_007n]);
    const value = new Uint8Array(16);
    const n = binding.syscall(SYS.lgetxattr, join(root, "d"), "user.note", value, value.length);
    expect(Buffer.from(value.subarray(0, n)).toString()).toBe("dir");
  }
});

test("hostile archives do not get out of the directory", async () => {
  const outside = join(dir, "outside");
  mkdirSync(outside, { recursive: true });
  writeFileSync(join(outside, "victim"), "safe", { mode: 0o600 });
  const attempts: Record<string, File[]> = {
    "dot dot": [file("../outside/pwned")],
    "dot dot inside": [file("a/../../outside/pwned")],
    absolute: [file(`${outside}/pwned`)],
    "symlinked directory": [entry("l", "symlink", { linkname: outside }), file("l/pwned")],
    "relative symlink": [entry("l", "symlink", { linkname: "../outside" }), file("l/pwned")],
    "symlink chain": [
      entry("a", "symlink", { linkname: "b" }),
      entry("b", "symlink", { linkname: "../../../../../../" }),
      file(`a${outside}/pwned`),
    ],
    "file through symlink": [entry("f", "symlink", { linkname: `${outside}/victim` }), file("f", "pwned")],
    "hard link out": [entry("h", "link", { linkname: `../outside/victim` }), file("h", "pwned")],
    "hard link absolute": [entry("h", "link", { linkname: `${outside}/victim` }), file("h", "pwned")],
    "hard link through symlink": [
      entry("l", "symlink", { linkname: outside }),
      entry("h", "link", { linkname: "l/victim" }),
      file("h", "pwned"),
    ],
    "hard link to symlink": [
      entry("l", "symlink", { linkname: `${outside}/victim` }),
      entry("h", "link", { linkname: "l" }),
      file("h", "pwned"),
    ],
    "directory over symlink": [
      entry("l", "symlink", { linkname: outside }),
      entry("l", "directory", { mode: 0o777, uid: 1 }),
      file("l/pwned"),
    ],
    "whiteout of dot dot": [file(".wh...")],
    "whiteout in symlink": [entry("l", "symlink", { linkname: outside }), file("l/.wh.victim")],
    "opaque in symlink": [entry("l", "symlink", { linkname: outside }), file("l/.wh..wh..opq")],
    "replaced directory": [entry("d", "directory"), file("d/x"), entry("d", "symlink", { linkname: outside }), file("d/pwned")],
    "magic link": [entry("p", "symlink", { linkname: "/proc/self/root" }), file(`p${outside}/pwned`)],
  };
  for (const [what, files] of Object.entries(attempts)) {
    for (const whiteouts of ["overlay", "remove"] as const) {
      await apply(tarOf(files), { whiteouts }).catch(() => {});
      expect([what, readdirSync(outside)]).toEqual([what, ["victim"]]);
      expect([what, readFileSync(join(outside, "victim"), "utf8")]).toEqual([what, "safe"]);
      const stat = lstatSync(join(outside, "victim"));
      expect([what, stat.mode & 0o777, stat.uid, statSync(outside).uid]).toEqual([what, 0o600, 0, 0]);
    }
  }
  expect(existsSync("/pwned")).toBe(false);
});

test("broken archives are refused with a reason, and descriptors are given back", async () => {
  const tar = tarOf([file("a", "data".repeat(1000)), file("b")]);
  const gz = gzipSync(tar);
  const corrupt = Buffer.from(tar);
  corrupt[3] = 0xff;
  const cases: [Uint8Array, Partial<ApplyOptions>, string][] = [
    [gz.subarray(0, gz.length - 20), {}, "decompressed"],
    [tar.subarray(0, 2000), {}, "truncated"],
    [corrupt, {}, "checksum"],
    [Buffer.from("not a tar at all".repeat(100)), {}, "checksum is not a number"],
    [gz, { digest: `sha256:${"0".repeat(64)}` }, "unexpected digest"],
    [gz, { diffId: `sha256:${"0".repeat(64)}` }, "wrong diff id"],
    [gz, { size: 3 }, "bytes long, expected 3"],
    [tar, { maxBytes: 100 }, "larger than 100 bytes"],
    [tar, { maxEntries: 1 }, "more than 1 entries"],
    [Buffer.concat([Buffer.from([0x42, 0x5a, 0x68]), tar]), {}, "bzip2"],
  ];
  const before = readdirSync("/proc/self/fd").length;
  for (const [blob, options, message] of cases) expect(await failure(apply(blob, options))).toContain(message);
  await apply(tar);
  expect(readdirSync("/proc/self/fd").length).toBeLessThan(before + 15);
});

test("a full file system says so", async () => {
  const small = join(dir, "small");
  mkdirSync(small);
  execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "jubako-test", small]);
  try {
    const error = await apply(tarOf([file("big", "x".repeat(3 << 20))]), { root: small, maxBytes: 1 << 30 }).catch((e) => e);
    expect([error.name, error.message]).toEqual(["ResourceExhausted", expect.stringContaining("no space left on device")]);
  } finally {
    execFileSync("umount", [small]);
  }
});

test("a bomb is refused by how far it expands, and leaves the file system room", async () => {
  const zeros = tarOf([file("zeros", "\0".repeat(4 << 20))]);
  const expansion = { free: 1 << 20, ratio: 200 };
  for (const blob of [gzipSync(zeros), zstdCompressSync(zeros)]) {
    expect(await failure(apply(blob, { expansion }))).toContain("layer expands to more than 200 times its size");
    expect(await failure(apply(blob, { expansion, digest: digestOf(blob), size: blob.length }))).toContain("decompression bomb");
    expect((await apply(blob, { expansion: { free: 5 << 20, ratio: 1 } })).bytes).toBe(4 << 20);
  }
  // what is not compressed may be as large as it is
  await apply(zeros, { expansion: { free: 0, ratio: 1 } });
  const small = join(dir, "reserved");
  mkdirSync(small);
  execFileSync("mount", ["-t", "tmpfs", "-o", "size=4m", "jubako-test", small]);
  try {
    const error = await apply(zeros, { root: small }).catch((e) => e);
    expect([error.name, error.message]).toEqual(["ResourceExhausted", expect.stringContaining("no space left on device")]);
    expect(readdirSync(small)).toEqual([]);
    await apply(tarOf([file("most", "x".repeat(3 << 20))]), { root: small });
  } finally {
    execFileSync("umount", [small]);
  }
});

test("a file is unpacked while it grows, and not after it was given up", async () => {
  const blob = gzipSync(tarOf([file("a", randomBytes(2 << 20).toString("latin1")), file("b")]));
  const path = join(dir, "growing");
  const root = join(dir, "grown");
  mkdirSync(root);
  writeFileSync(path, "");
  const progress = createProgress();
  const done = applyLayer({ file: path, root, progress, digest: digestOf(blob) });
  for (let at = 0; at < blob.length; ) {
    const next = Math.min(blob.length, at + 300_000);
    appendFileSync(path, blob.subarray(at, next));
    at = next;
    progress.available(at);
    await Bun.sleep(2);
  }
  progress.end();
  expect((await done).size).toBe(blob.length);
  expect(readdirSync(root).sort()).toEqual(["a", "b"]);

  const controller = new AbortController();
  const stuck = applyLayer({ file: path, root, progress: createProgress(), signal: controller.signal });
  setTimeout(() => controller.abort(), 20);
  expect(await failure(stuck)).toContain("cancelled");
});

test("random damage never escapes and never hangs", async () => {
  const good = tarOf([
    entry("d/", "directory"),
    file("d/f", "hello"),
    entry("l", "symlink", { linkname: "d" }),
    file("l/g"),
    entry("h", "link", { linkname: "d/f" }),
  ]);
  let seed = 11;
  const random = (limit: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
    return seed % limit;
  };
  for (let i = 0; i < 150; i++) {
    const copy = Buffer.from(good);
    for (let k = random(3); k >= 0; k--) {
      const at = random(copy.length);
      copy[at] = random(256);
      // most damage is caught by the checksum: repair it, so that the fields themselves are tried
      const block = at - (at % 512);
      let sum = 8 * 32;
      for (let j = 0; j < 512; j++) if (j < 148 || j >= 156) sum += copy[block + j]!;
      copy.write(`${sum.toString(8).padStart(6, "0")}\0 `, block + 148, "latin1");
    }
    await apply(copy).catch(() => {});
  }
});
