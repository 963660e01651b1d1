// Trees as layers and back, bit by bit: ours against umoci and containerd, in both directions. The small tree holds one of everything; with
// JUBAKO_TEST_ROOTFS=DIR (a debootstrap root: test/round-trip.test.ts) the same is done with that in a copy of the directory.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
  type BigIntStats,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { binding, SYS } from "../../linux/index.ts";
import { applyLayer, type Descriptor, digestOf, MEDIA } from "../../oci/index.ts";
import { layerTar } from "./layer-tar.ts";

const has = (...programs: string[]) => {
  const missing = programs.filter((program) => !Bun.which(program));
  if (missing.length) console.log(`skip: ${missing.join(", ")} not installed`);
  return missing.length === 0;
};

let dir: string;

/** A script for a shell in the tree's root: bytes that are no UTF-8 by printf. */
const ODD = "$(printf 'caf\\351\\377')";
const BASE = `
set -e
mkdir -p usr/bin usr/lib/deep/er etc/conf.d var/log var/cache/x opaque/sub gone/dir/below 'sp ace' dev tmp
printf '#!/bin/sh\\n' > usr/bin/tool; chmod 4755 usr/bin/tool; ln usr/bin/tool usr/bin/tool2; ln usr/bin/tool usr/bin/tool3
head -c 300000 /dev/urandom > usr/lib/big; printf text > etc/file; printf old > etc/conf.d/a; : > etc/empty; printf k > etc/kept
ln -s ../bin/tool usr/lib/link; ln -s /etc/file usr/lib/abs; ln -s nowhere usr/lib/dangling
ln -s "$(printf 'x%.0s' $(seq 150))" usr/lib/longlink
mkfifo var/pipe; mknod dev/null c 1 3; mknod dev/sda b 8 0; mknod dev/high c 300 70000
printf odd > ${ODD}; mkdir -p "d${ODD}/in"; printf deep > "d${ODD}/in/${ODD}"
long=$(printf 'n%.0s' $(seq 200)); mkdir -p "$long/$long"; printf long > "$long/$long/$long"
printf 'ü' > 'ünï'; printf nl > "$(printf 'new\\nline')"
truncate -s 2M var/sparse; printf end >> var/sparse
chown 1000:1001 etc/file; chown 3000000:4000000 etc/empty; chown -h 5:6 usr/lib/link; chmod 1777 tmp; chmod 2750 var/log; chmod 000 etc/conf.d/a
printf g > gone/dir/below/f; printf o > opaque/old; printf o > opaque/sub/old; printf s > 'sp ace/f'; printf r > var/cache/x/r
find . -mindepth 1 -print0 | xargs -0 touch -h -d '2020-02-03 04:05:06.123456789'
touch -h -d '1969-12-31 23:59:58.5 UTC' etc/conf.d/a; touch -d '2106-02-07 06:28:20.000000001 UTC' var/cache/x/r; touch -h -d '2001-01-01 00:00:00' usr/lib/link
touch -h -d '2020-02-03 04:05:06.123456789' usr/lib etc/conf.d var/cache/x etc
`;
const CHANGES = `
set -e
printf changed >> etc/file; printf new > etc/new; rm etc/conf.d/a; printf b > etc/conf.d/b
rm -r gone; rm -r opaque; mkdir opaque; printf n > opaque/new
rm usr/bin/tool3; ln usr/lib/big usr/lib/big2; printf m > usr/bin/more; ln usr/bin/more usr/bin/more2
rm -r 'sp ace'; printf now-a-file > 'sp ace'; rm etc/empty; mkdir etc/empty; printf in > etc/empty/in
ln -sfn elsewhere usr/lib/link; rm usr/lib/dangling; chmod 600 usr/lib/big; chown 7:8 var/cache/x; chmod 700 var/log; touch -d '2021-01-01 00:00:00.987654321' var/cache/x/r
rm dev/sda; mknod dev/sda c 8 1; rm var/pipe; mkfifo -m 600 var/pipe2; printf x > "d${ODD}/in/more"; rm ${ODD}; mv 'ünï' moved
ln etc/kept a-link; ln etc/kept z-link
mkdir -p new/a/b; printf c > new/a/b/c; chown -R 9:9 new; touch -d '2022-02-02 02:02:02.2' new/a
`;

/** cap_net_raw and cap_chown, effective and permitted (struct vfs_cap_data, revision 2). */
const NET_RAW = "0100000200200000000000000000000000000000";
const CHOWN = "0100000201000000000000000000000000000000";
/** path, name, value in hex; none takes the attribute away. Before the times are set, as some file systems count it as a change. */
type Attribute = [path: string, name: string, value: string | undefined];
const BASE_XATTRS: Attribute[] = [
  ["etc/file", "user.note", "68656c6c6f"],
  ["usr/lib", "user.bin", "00ff0a61"],
  ["etc/empty", "trusted.mark", "31"],
  ["usr/lib/big", "security.capability", NET_RAW],
];
const CHANGED_XATTRS: Attribute[] = [
  ["etc/file", "user.note", undefined],
  ["etc/file", "user.more", "74776f"],
  ["usr/lib/big", "security.capability", CHOWN],
];

function setAttributes(root: string, attributes: Attribute[]): void {
  for (const [path, name, value] of attributes) {
    const at = `${root}/${path}`;
    const bytes = Buffer.from(value ?? "", "hex");
    const result =
      value === undefined ? binding.syscall(SYS.lremovexattr, at, name) : binding.syscall(SYS.lsetxattr, at, name, bytes, bytes.length, 0);
    if (result < 0) throw new Error(`${path}: ${name}: ${result}`);
  }
}

const sh = (cwd: string, script: string) => execFileSync("sh", ["-c", script], { cwd, stdio: "pipe", maxBuffer: 64 << 20 });

/** What another program can't keep, and is left out of the comparison therefore. */
interface Compared {
  /** How it writes times down: umoci rounds to seconds, containerd cuts them off. */
  time?: (ns: bigint) => bigint;
  /** Extended attributes that it keeps. */
  xattrs?: RegExp;
}

const SECOND = 1_000_000_000n;
const floor = (ns: bigint) => ns / SECOND - (ns % SECOND < 0n ? 1n : 0n);
const rounded: Compared = { time: (ns) => floor(ns + SECOND / 2n) };
/** Times before 1970 become 1970; attributes of the namespace "trusted" are dropped. */
const unpackedByContainerd: Compared = { time: (ns) => (ns < 0n ? 0n : ns), xattrs: /^(user|security)\./ };
const diffedByContainerd: Compared = { time: (ns) => (ns < 0n ? 0n : floor(ns)), xattrs: /^security\.capability$/ };

const space = new Uint8Array(64 << 10);
function xattrsOf(path: Buffer, counting: RegExp): string {
  const at = Buffer.concat([path, Buffer.alloc(1)]);
  const length = binding.syscall(SYS.llistxattr, at, space, space.length);
  if (length <= 0) return "";
  const names = Buffer.from(space.subarray(0, length)).toString("latin1").split("\0").filter(Boolean).sort();
  return names
    .filter((name) => counting.test(name) && !/^(trusted|user)\.overlay\./.test(name))
    .map((name) => {
      const n = binding.syscall(SYS.lgetxattr, at, name, space, space.length);
      return `${name}=${Buffer.from(space.subarray(0, Math.max(0, n))).toString("hex")}`;
    })
    .join(" ");
}

/** Everything of a tree that a layer carries, a line each name; the root itself left out. */
function listing(root: string, { time = (ns) => ns, xattrs = /./ }: Compared = {}): string[] {
  const lines: string[] = [];
  const links = new Map<string, string>();
  const walk = (path: Buffer, shown: string) => {
    for (const name of (readdirSync(path, { encoding: "buffer" }) as Buffer[]).sort(Buffer.compare)) {
      const full = Buffer.concat([path, Buffer.from("/"), name]);
      const at = `${shown}/${name.toString("latin1")}`;
      const stat = lstatSync(full, { bigint: true }) as BigIntStats;
      if (stat.isSocket()) continue;
      let what = "";
      if (stat.isFile()) what = `${stat.size} ${createHash("sha256").update(readFileSync(full)).digest("hex").slice(0, 16)}`;
      else if (stat.isSymbolicLink()) what = readlinkSync(full, { encoding: "buffer" }).toString("latin1");
      else if (stat.isCharacterDevice() || stat.isBlockDevice()) what = String(stat.rdev);
      // which names are one file, of those that are here
      let one = "";
      if (!stat.isDirectory() && stat.nlink > 1n) {
        const identity = `${stat.dev}:${stat.ino}`;
        const first = links.get(identity);
        if (first === undefined) links.set(identity, at);
        else one = `= ${first}`;
      }
      lines.push([at, stat.mode.toString(8), stat.uid, stat.gid, time(stat.mtimeNs), what, one, xattrsOf(full, xattrs)].join(" ").trim());
      if (stat.isDirectory()) walk(full, at);
    }
  };
  walk(Buffer.from(root), "");
  return lines;
}

const made = (name: string): string => {
  const path = join(dir, name);
  mkdirSync(path, { recursive: true });
  return path;
};

function overlay(name: string, lower: string[], upper: string): string {
  const at = made(`${name}.mnt`);
  const options = [
    `lowerdir=${lower.join(":")}`,
    `upperdir=${upper}`,
    `workdir=${made(`${name}.work`)}`,
    "metacopy=off",
    "redirect_dir=off",
    "index=off",
  ];
  execFileSync("mount", ["-t", "overlay", "-o", options.join(","), "jubako-test", at]);
  return at;
}

async function tarOf(left: string[], right: string[]): Promise<Buffer> {
  const { signal } = new AbortController();
  return Buffer.concat(await Array.fromAsync(layerTar(left, right, { epoch: undefined, signal })));
}

let files = 0;
async function apply(tar: Uint8Array, root: string, rest: Partial<Parameters<typeof applyLayer>[0]> = {}): Promise<void> {
  const file = join(dir, `layer${files++}`);
  writeFileSync(file, tar);
  await applyLayer({ file, root, ...rest });
  rmSync(file);
}

/** An image layout of these layers, tagged "x". */
function layoutOf(name: string, layers: Buffer[]): string {
  const layout = made(name);
  const blobs = made(`${name}/blobs/sha256`);
  const put = (bytes: Uint8Array | string, mediaType: string): Descriptor => {
    const digest = digestOf(bytes);
    writeFileSync(join(blobs, digest.slice(7)), bytes);
    return { mediaType, digest, size: Buffer.byteLength(bytes as string) };
  };
  const descriptors = layers.map((layer) => put(layer, MEDIA.ociLayer));
  const rootfs = { type: "layers", diff_ids: descriptors.map(({ digest }) => digest) };
  const config = put(JSON.stringify({ architecture: "amd64", os: "linux", config: {}, rootfs, history: [] }), MEDIA.ociConfig);
  const manifest = put(JSON.stringify({ schemaVersion: 2, mediaType: MEDIA.ociManifest, config, layers: descriptors }), MEDIA.ociManifest);
  const annotations = { "org.opencontainers.image.ref.name": "x", "io.containerd.image.name": `example.com/${name}:x` };
  writeFileSync(join(layout, "index.json"), JSON.stringify({ schemaVersion: 2, manifests: [{ ...manifest, annotations }] }));
  writeFileSync(join(layout, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
  return layout;
}

const rootfs = process.env.JUBAKO_TEST_ROOTFS;
type Step = (at: string) => void;
const makeBase: Step = (at) => {
  sh(at, BASE);
  setAttributes(at, BASE_XATTRS);
};
const makeChanges: Step = (at) => {
  sh(at, CHANGES);
  setAttributes(at, CHANGED_XATTRS);
};
const TREES: [name: string, make: Step, change: Step][] = [];
if (!rootfs) TREES.push(["one of everything", makeBase, makeChanges]);
else
  TREES.push([
    "a whole system",
    (at) => {
      execFileSync("cp", ["-a", `${rootfs}/.`, at]);
      mkdirSync(join(at, "jubako-test"));
      makeBase(join(at, "jubako-test"));
    },
    (at) => {
      makeChanges(join(at, "jubako-test"));
      sh(
        at,
        "rm -rf usr/share/doc usr/share/man; chmod -R g+w usr/share/zoneinfo || :; printf x >> etc/passwd; mv usr/games usr/games2 || :; ln usr/bin/perl usr/perl || :",
      );
    },
  ]);

describe.each(TREES)("%s", (_, make, change) => {
  const timeout = rootfs ? 600_000 : 60_000;
  let base: string;
  let upper: string;
  let merged: string;
  let wanted: string[];
  let baseTar: Buffer;
  let changeTar: Buffer;
  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), "jubako-round-"));
    base = made("base");
    make(base);
    upper = made("upper");
    merged = overlay("merged", [base], upper);
    change(merged);
    wanted = listing(merged);
    baseTar = await tarOf([], [base]);
    changeTar = await tarOf([base], [upper, base]);
  }, timeout);
  afterAll(() => {
    // containerd 2 has mounts of its own there, too
    const mounted = readFileSync("/proc/self/mounts", "utf8")
      .split("\n")
      .map((line) => line.split(" ")[1] ?? "");
    for (const at of mounted.filter((path) => path.startsWith(`${dir}/`)).reverse()) execFileSync("umount", ["-l", at]);
    rmSync(dir, { recursive: true, force: true });
  });

  test(
    "ours: applied with deletions carried out, and as an overlay's directory",
    async () => {
      const plain = made("plain");
      await apply(baseTar, plain);
      expect(listing(plain)).toEqual(listing(base));
      const directory = made("upper2");
      await apply(changeTar, directory, { parents: [plain] });
      expect(listing(overlay("again", [plain], directory))).toEqual(wanted);
      await apply(changeTar, plain, { whiteouts: "remove" });
      expect(listing(plain)).toEqual(wanted);
    },
    timeout,
  );

  test(
    "ours: two trees compared, and the same bytes the second time",
    async () => {
      expect((await tarOf([base], [upper, base])).equals(changeTar)).toBe(true);
      const other = made("compared");
      await apply(baseTar, other);
      await apply(await tarOf([base], [plainCopy(merged)]), other, { whiteouts: "remove" });
      expect(listing(other)).toEqual(wanted);
    },
    timeout,
  );

  test.skipIf(!has("umoci"))(
    "umoci unpacks what we diff; we apply what it repacks",
    async () => {
      const layout = layoutOf("umoci", [baseTar, changeTar]);
      const bundle = join(dir, "bundle");
      execFileSync("umoci", ["unpack", "--image", `${layout}:x`, bundle], { stdio: "pipe" });
      expect(listing(join(bundle, "rootfs"))).toEqual(wanted);

      const second = layoutOf("umoci2", [baseTar]);
      const work = join(dir, "bundle2");
      execFileSync("umoci", ["unpack", "--image", `${second}:x`, work], { stdio: "pipe" });
      expect(listing(join(work, "rootfs"))).toEqual(listing(base));
      change(join(work, "rootfs"));
      const changed = listing(join(work, "rootfs"), rounded);
      execFileSync("umoci", ["repack", "--image", `${second}:y`, work], { stdio: "pipe" });
      const ours = made("from-umoci");
      for (const [i, layer] of layersOf(second, "y").entries()) await apply(layer, ours, { whiteouts: i === 0 ? "ignore" : "remove" });
      expect(listing(ours, rounded)).toEqual(changed);
    },
    timeout,
  );

  describe.skipIf(!has("containerd", "ctr"))("containerd", () => {
    let daemon: ChildProcess;
    const ctr = (...args: string[]) =>
      execFileSync("ctr", ["-a", join(dir, "containerd.sock"), "-n", "jubako-test", ...args], { stdio: "pipe", maxBuffer: 1 << 30 });
    beforeAll(async () => {
      writeFileSync(
        join(dir, "containerd.toml"),
        'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]\n',
      );
      const args = [
        "--config",
        join(dir, "containerd.toml"),
        "--root",
        made("containerd"),
        "--state",
        made("containerd-state"),
        "-a",
        join(dir, "containerd.sock"),
      ];
      daemon = spawn("containerd", args, { stdio: "ignore" });
      for (let tries = 0; tries < 200; tries++) {
        try {
          ctr("version");
          break;
        } catch {
          await Bun.sleep(50);
        }
      }
    });
    afterAll(async () => {
      const exited = new Promise((resolve) => daemon.once("exit", resolve));
      daemon.kill("SIGTERM");
      await exited;
    });

    test(
      "it unpacks what we diff; we apply what it diffs",
      async () => {
        const archive = join(dir, "image.tar");
        execFileSync("tar", ["-C", layoutOf("theirs", [baseTar, changeTar]), "-cf", archive, "."]);
        ctr("image", "import", "--no-unpack", archive);
        const at = made("theirs.mnt");
        ctr("image", "mount", "example.com/theirs:x", at);
        expect(listing(at, unpackedByContainerd)).toEqual(listing(merged, unpackedByContainerd));

        // its own diff of the same changes: it keeps whole seconds, and of attributes only capabilities
        execFileSync("tar", ["-C", layoutOf("theirs2", [baseTar]), "-cf", archive, "."]);
        ctr("image", "import", "--no-unpack", archive);
        const before = made("theirs2.mnt");
        ctr("image", "mount", "example.com/theirs2:x", before);
        expect(listing(before, unpackedByContainerd)).toEqual(listing(base, unpackedByContainerd));
        const work = made("work.mnt");
        for (const command of ctr("snapshots", "prepare", "--target", work, "jubako-work", digestOf(baseTar)).toString().trim().split("\n"))
          if (command.startsWith("mount")) sh("/", command);
        change(work);
        const changed = listing(work, diffedByContainerd);
        const layer = ctr("snapshots", "diff", "--media-type", MEDIA.ociLayer, digestOf(baseTar), "jubako-work");
        const ours = made("from-containerd");
        await apply(baseTar, ours);
        await apply(layer, ours, { whiteouts: "remove" });
        expect(listing(ours, diffedByContainerd)).toEqual(changed);
      },
      timeout,
    );
  });

  /** The tree of a mount, mounted nowhere. */
  function plainCopy(from: string): string {
    const to = made("copy");
    execFileSync("cp", ["-a", `${from}/.`, to]);
    return to;
  }
});

/** The layers of a tag, uncompressed. */
function layersOf(layout: string, tag: string): Buffer[] {
  const read = (digest: string) => readFileSync(join(layout, "blobs/sha256", digest.slice(7)));
  const index = JSON.parse(readFileSync(join(layout, "index.json"), "utf8")) as { manifests: Descriptor[] };
  const top = index.manifests.find((one) => one.annotations?.["org.opencontainers.image.ref.name"] === tag)!;
  const manifest = JSON.parse(read(top.digest).toString()) as { layers: Descriptor[] };
  return manifest.layers.map((layer) => read(layer.digest));
}
