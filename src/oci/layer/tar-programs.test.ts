// Random trees, packed by GNU tar in all its formats and by busybox: what we unpack is what GNU tar unpacks.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { execFileSync, spawnSync } from "node:child_process";
import { chmodSync, lchownSync, linkSync, lutimesSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { applyLayer } from "./apply.ts";

const missing = ["tar", "find", "getfattr"].filter((program) => !Bun.which(program));
if (missing.length) console.log(`skip: ${missing.join(", ")} not installed`);

const PACK: [name: string, command: string[]][] = [
  ["gnu", ["tar", "--format=gnu"]],
  ["oldgnu, sparse", ["tar", "--format=oldgnu", "--sparse"]],
  ["pax", ["tar", "--format=posix", "--xattrs", "--xattrs-include=*"]],
  ["pax, sparse", ["tar", "--format=posix", "--sparse", "--xattrs", "--xattrs-include=*"]],
  ["ustar", ["tar", "--format=ustar"]],
  ["v7", ["tar", "--format=v7"]],
  ["busybox", ["busybox", "tar"]],
];

describe.skipIf(missing.length > 0)("random trees", () => {
  let dir: string;
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), "jubako-tar-programs-"));
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  /** `plain`: what the oldest formats can say. */
  function makeTree(root: string, seed: number, plain: boolean, nodes: boolean): void {
    let state = seed;
    const random = (n: number) => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return Math.floor((state / 2 ** 32) * n);
    };
    const name = (i: number) => {
      const kinds = plain
        ? [`f${i}`, `with space ${i}`, `-dash${i}`, `.hidden${i}`]
        : [
            `f${i}`,
            `with space ${i}`,
            `é漢字${i}`,
            `new\nline${i}`,
            `back\\slash${i}`,
            `${"long".repeat(30)}${i}`,
            `${"n".repeat(200)}${i}`,
            `*?[${i}`,
          ];
      return kinds[random(kinds.length)]!;
    };
    const directories = [root];
    const files: string[] = [];
    mkdirSync(root);
    for (let i = 0; i < 60; i++) {
      const path = join(directories[random(directories.length)]!, name(i));
      const kind = random(10);
      if (path.length - root.length > (plain ? 90 : 3000)) continue;
      if (kind < 3) {
        mkdirSync(path, { mode: 0o700 + random(0o100) });
        directories.push(path);
      } else if (kind === 3) symlinkSync(plain ? "../target" : ["../up", "/absolute", "x".repeat(150), "é"][random(4)]!, path);
      else if (kind === 4 && files.length > 0) linkSync(files[random(files.length)]!, path);
      else if (kind === 5 && nodes) execFileSync("mkfifo", [path]);
      else if (kind === 6 && nodes) execFileSync("mknod", [path, random(2) ? "c" : "b", String(random(200)), String(random(200))]);
      else {
        const hole = random(3) === 0 ? Buffer.alloc(random(300_000)) : Buffer.alloc(0);
        writeFileSync(path, Buffer.concat([Buffer.from("x".repeat(random(2000))), hole, Buffer.from("end".repeat(random(600)))]));
        if (!plain && random(3) === 0) execFileSync("setfattr", ["-n", "user.test", "-v", `value ${i}`, path]);
        files.push(path);
      }
      lchownSync(path, random(60_000), random(60_000));
      // after the owner, as a new one takes the set-uid bit away
      if (kind > 6) chmodSync(path, random(0o10000) | 0o400);
      lutimesSync(path, 1e9, 1e9 + random(1e8));
    }
  }

  const look = (root: string, xattrs: boolean) => {
    const listed = spawnSync(
      "sh",
      ["-c", "find . -mindepth 1 -printf '%P\\0%y %m %U %G %n %T@ %l\\0' | sort -z; find . -type f -exec md5sum {} + | sort"],
      {
        cwd: root,
      },
    ).stdout;
    const nodes = spawnSync("sh", ["-c", "find . \\( -type b -o -type c \\) -exec stat -c '%n %t:%T' {} + | sort"], { cwd: root }).stdout;
    const attributes = xattrs ? spawnSync("sh", ["-c", "getfattr -R -h -m - -d . 2>/dev/null | sort"], { cwd: root }).stdout : "";
    return `${listed}${nodes}${attributes}`.replace(/(\d+)\.(\d+) /g, "$1 ").split(/\0|\n/);
  };

  for (const [title, [program, ...flags]] of PACK) {
    test.skipIf(!Bun.which(program!))(
      title,
      async () => {
        for (const seed of [1, 2]) {
          const plain = ["ustar", "v7"].includes(title);
          const tree = join(dir, `${title}-${seed}`);
          makeTree(tree, seed * 7919, plain, title !== "v7");
          const packed = spawnSync(program!, [...flags, "-C", tree, "-cf", "-", "."], { maxBuffer: 64 << 20 });
          expect([packed.status, String(packed.stderr)]).toEqual([0, ""]);
          const [ours, theirs] = [`${tree}-ours`, `${tree}-theirs`];
          mkdirSync(ours);
          mkdirSync(theirs);
          const xattrs = flags.includes("--xattrs");
          execFileSync("tar", ["-C", theirs, "--numeric-owner", "-p", ...(xattrs ? ["--xattrs", "--xattrs-include=*"] : []), "-xf", "-"], {
            input: packed.stdout,
          });
          writeFileSync(`${tree}.tar`, packed.stdout);
          await applyLayer({ file: `${tree}.tar`, root: ours, whiteouts: "ignore" });
          expect(look(ours, xattrs)).toEqual(look(theirs, xattrs));
        }
      },
      30_000,
    );
  }
});
