// Makes the base images (recipes.ts) in build/test-bases: each a layer on the one below, made in an overlay by debootstrap or by apt in a chroot, and put
// into a registry's directory. What is there already stays. Run as a program; one at a time (index.ts).
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { layerTar } from "../../src/containerd/diff/layer-tar.ts";
import { type Descriptor, digestOf, hostPlatform, MEDIA } from "../../src/oci/index.ts";
import { createRegistry, defaults } from "../../src/registry/index.ts";
import { applyToTree, type Tree } from "../support/layer-tree.ts";
import { type ImageSettings, RECIPES, REPOSITORY } from "./recipes.ts";

const root = new URL("../../", import.meta.url).pathname;
const place = join(root, "build/test-bases");
const MIRROR = process.env.JUBAKO_TEST_MIRROR ?? "http://deb.debian.org/debian";
const NPM = "npm@10.9.2";
const DEBIAN = "debian:bookworm-slim";
/** How many are made at once. */
const WIDTH = 2;

interface Made {
  /** Of the recipe and all below it. */
  key: string;
  /** Topmost last. */
  layers: { descriptor: Descriptor; diffId: string }[];
}

const recordOf = (name: string) => join(place, `${name.replace(":", "_")}.json`);
/** What the image holds, for comparisons: lines by path (support/layer-tree.ts). */
const treeOf = (name: string) => join(place, `${name.replace(":", "_")}.tree`);
/** The layer's directory: an overlay's upper one. */
const filesOf = (name: string) => join(place, "files", name.replace(":", "_"));

function read(name: string): Made | undefined {
  try {
    return JSON.parse(readFileSync(recordOf(name), "utf8")) as Made;
  } catch {
    return undefined;
  }
}

function keyOf(name: string): string {
  const recipe = RECIPES[name]!;
  const below = recipe.on ? keyOf(recipe.on) : MIRROR;
  return createHash("sha256")
    .update(JSON.stringify(["1", name, recipe, below, name.startsWith("node") ? NPM : ""]))
    .digest("hex");
}

const keyOfRepository = () => `${keyOf(DEBIAN)} ${REPOSITORY.join(" ")}`;

/** From the top down. */
function chain(name: string): string[] {
  const { on } = RECIPES[name]!;
  return on ? [name, ...chain(on)] : [name];
}

/** In a mount namespace of its own: what is mounted there is gone when the script ends, however it ends. */
function script(lines: string, env: Record<string, string>): Promise<void> {
  const child = spawn("unshare", ["--mount", "--propagation", "private", "bash", "-euo", "pipefail", "-c", lines], {
    stdio: ["ignore", "pipe", "pipe"],
    // A test's directory for what is temporary is not there inside.
    env: { ...process.env, TMPDIR: "/tmp", LC_ALL: "C.UTF-8", DEBIAN_FRONTEND: "noninteractive", ...env },
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (chunk: Buffer) => {
      output = (output + chunk.toString()).slice(-8000);
    });
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => (code === 0 ? resolve() : reject(new Error(`exit status ${code}:\n${output}`))));
  });
}

/** An overlay without syncs: what is half done is thrown away anyhow. */
const MOUNT = `
mkdir -p "$UPPER" "$WORK/work" "$WORK/root" "$WORK/archives/partial" "$WORK/empty"
mount -t overlay -o "lowerdir=\${LOWER:-$WORK/empty},upperdir=$UPPER,workdir=$WORK/work,volatile" jubako-test "$WORK/root"
cd "$WORK/root"
inside() { chroot . "$@"; }`;
const ENTER = `
mount --bind "$LISTS" var/lib/apt/lists; mount --bind "$WORK/archives" var/cache/apt/archives
mount --bind /etc/resolv.conf etc/resolv.conf
mkdir -p usr/share/man/man1 # where Java's packages make links, whatever dpkg leaves out
mount -t proc proc proc; mount -t tmpfs tmpfs dev; mount -t tmpfs tmpfs run
for node in null zero full random urandom; do cp -a "/dev/$node" dev/; done; ln -s /proc/self/fd dev/fd`;
const LEAVE = `
umount -R var/lib/apt/lists var/cache/apt/archives etc/resolv.conf proc dev run
rm -rf usr/share/man/* var/log/*.log var/log/apt/* var/cache/apt/*.bin var/cache/ldconfig/aux-cache var/cache/debconf/*-old var/lib/dpkg/*-old tmp/*`;
// apt's own downloads, as root: its user can't write into our directories; and debs are kept until all is made
const INSTALL = `inside apt-get -qq -y --no-install-recommends -o APT::Sandbox::User=root -o DPkg::Post-Invoke::= install`;

/** The lists of what Debian has, for as long as this program runs. */
let lists: Promise<void> | undefined;
const updated = () => {
  lists ??= script(
    `${MOUNT}
mkdir -p "$LISTS/partial"; mount --bind "$LISTS" var/lib/apt/lists; mount --bind /etc/resolv.conf etc/resolv.conf
inside apt-get -qq -o APT::Sandbox::User=root update`,
    environment("lists", join(place, "work/lists/upper"), filesOf(DEBIAN)),
  );
  return lists;
};

const environment = (what: string, upper: string, lower: string) => ({
  WORK: join(place, "work", what.replace(":", "_")),
  UPPER: upper,
  LOWER: lower,
  LISTS: join(place, "work/apt-lists"),
  CACHE: place,
  MIRROR,
  HOST_BUN: process.execPath,
});

async function makeFiles(name: string): Promise<void> {
  const recipe = RECIPES[name]!;
  const upper = filesOf(name);
  rmSync(upper, { recursive: true, force: true });
  if (recipe.on) await updated();
  const lines = recipe.on
    ? [MOUNT, ENTER, recipe.packages ? `${INSTALL} ${recipe.packages.join(" ")} >&2` : "", recipe.script ?? "", LEAVE]
    : [MOUNT, `debootstrap --variant=minbase bookworm . "$MIRROR"`, recipe.script ?? ""];
  await script(lines.join("\n"), environment(name, upper, chain(name).slice(1).map(filesOf).join(":")));
}

/** The packages of the repository, and its index: what `apt-ftparchive packages` would write. */
async function makeRepository(): Promise<void> {
  await updated();
  await script(
    `${MOUNT}${ENTER}
${INSTALL} --download-only ${REPOSITORY.join(" ")} >&2
cd "$WORK/archives"
for deb in *.deb; do
  file=\${deb//%3a/.}; [ "$deb" = "$file" ] || mv "$deb" "$file"
  dpkg-deb -f "$file"; printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$file" "$(stat -c %s "$file")" "$(sha256sum "$file" | cut -d" " -f1)"
done > Packages
rm -rf "$CACHE/debs"; mkdir "$CACHE/debs"; mv Packages *.deb "$CACHE/debs"; echo "$KEY" > "$CACHE/debs/key"`,
    { ...environment("debs", join(place, "work/debs/upper"), filesOf(DEBIAN)), KEY: keyOfRepository() },
  );
}

async function layerOf(name: string): Promise<Buffer> {
  const below = chain(name).slice(1).map(filesOf);
  const tar = layerTar(below, [filesOf(name), ...below], { epoch: undefined, signal: new AbortController().signal });
  return Buffer.concat(await Array.fromAsync(tar));
}

/** The registry's side: monolithic uploads (distribution spec, "Single POST" is optional, so POST and PUT). */
async function upload(address: string, repository: string, bytes: Uint8Array): Promise<string> {
  const digest = digestOf(bytes);
  const opened = await fetch(`http://${address}/v2/${repository}/blobs/uploads/`, { method: "POST" });
  const where = new URL(opened.headers.get("location") ?? "", `http://${address}`);
  where.searchParams.set("digest", digest);
  const put = await fetch(where, { method: "PUT", body: Buffer.from(bytes) });
  if (put.status !== 201) throw new Error(`${where}: ${put.status} ${await put.text()}`);
  return digest;
}

const CREATED = "2023-06-10T00:00:00Z";

async function publish(address: string, name: string): Promise<void> {
  const { on, packages, config: settings } = RECIPES[name]!;
  const [repository, tag] = name.split(":") as [string, string];
  const tar = await layerOf(name);
  const packed = gzipSync(tar, { level: 1 });
  const descriptor = { mediaType: MEDIA.ociLayerGzip, digest: digestOf(packed), size: packed.length };
  const layers = [...(on ? read(on)!.layers : []), { descriptor, diffId: digestOf(tar) }];
  for (const [i, layer] of layers.entries()) {
    if (i === layers.length - 1) await upload(address, repository, packed);
    else {
      const mounted = await fetch(
        `http://${address}/v2/${repository}/blobs/uploads/?mount=${layer.descriptor.digest}&from=${chain(name)[layers.length - 1 - i]!.split(":")[0]}`,
        { method: "POST" },
      );
      if (mounted.status !== 201) throw new Error(`mount of ${layer.descriptor.digest} into ${repository}: ${mounted.status}`);
    }
  }
  const inherited: ImageSettings = {};
  for (const one of [...chain(name)].reverse()) Object.assign(inherited, RECIPES[one]!.config);
  const { architecture, os } = hostPlatform();
  const config = Buffer.from(
    JSON.stringify({
      created: CREATED,
      architecture,
      os,
      config: { ...inherited, ...settings },
      rootfs: { type: "layers", diff_ids: layers.map(({ diffId }) => diffId) },
      history: [...chain(name)].reverse().map((one) => ({ created: CREATED, created_by: `# ${RECIPES[one]!.packages?.join(" ") ?? one}` })),
    }),
  );
  const manifest = {
    schemaVersion: 2,
    mediaType: MEDIA.ociManifest,
    config: { mediaType: MEDIA.ociConfig, digest: await upload(address, repository, config), size: config.length },
    layers: layers.map((layer) => layer.descriptor),
  };
  const put = await fetch(`http://${address}/v2/${repository}/manifests/${tag}`, {
    method: "PUT",
    headers: { "content-type": MEDIA.ociManifest },
    body: JSON.stringify(manifest),
  });
  if (put.status !== 201) throw new Error(`${name}: ${put.status} ${await put.text()}`);
  const tree: Tree = new Map(on ? Object.entries(JSON.parse(readFileSync(treeOf(on), "utf8")) as Record<string, string>) : []);
  applyToTree(tree, tar);
  writeFileSync(treeOf(name), JSON.stringify(Object.fromEntries(tree)));
  writeFileSync(`${recordOf(name)}.new`, JSON.stringify({ key: keyOf(name), layers } satisfies Made));
  renameSync(`${recordOf(name)}.new`, recordOf(name));
  console.log(`${name}: ${packages?.join(" ") ?? ""} ${Math.round(tar.length / 1e6)} MB`);
}

/** What is to be made, each after the one below it; a failure takes those above it along, and no others. */
async function make(names: string[], address: string): Promise<string[]> {
  const failures: string[] = [];
  const started = new Map<string, Promise<boolean>>();
  const waiting: (() => void)[] = [];
  let running = 0;
  const one = async (name: string): Promise<boolean> => {
    const { on } = RECIPES[name]!;
    if (on && started.has(on) && !(await started.get(on))) return false;
    while (running >= WIDTH) await new Promise<void>((resolve) => waiting.push(resolve));
    running++;
    try {
      await makeFiles(name);
      await publish(address, name);
      return true;
    } catch (error) {
      failures.push(`${name}: ${error instanceof Error ? error.message : error}`);
      return false;
    } finally {
      running--;
      waiting.shift()?.();
    }
  };
  for (const name of names) started.set(name, one(name));
  await Promise.all(started.values());
  return failures;
}

/** A layer's files stay where another layer lies on them. */
const carries = (name: string) => name === DEBIAN || Object.values(RECIPES).some((recipe) => recipe.on === name);
const isThere = (name: string): boolean => read(name)?.key === keyOf(name) && (!carries(name) || existsSync(filesOf(name)));

mkdirSync(place, { recursive: true });
const wanted = Object.keys(RECIPES);
const missing = wanted.filter((name) => chain(name).some((one) => !isThere(one)));
const repository = existsSync(join(place, "debs/key")) && readFileSync(join(place, "debs/key"), "utf8").trim() === keyOfRepository();
if (missing.length > 0 || !repository) {
  const work = join(place, "work");
  rmSync(work, { recursive: true, force: true });
  mkdirSync(work);
  if (missing.includes("node:18") && !existsSync(join(place, "npm.tgz")))
    await script(`cd "$CACHE"; npm pack --silent ${NPM}; mv npm-*.tgz npm.tgz`, { CACHE: place }).catch((error) =>
      console.error(String(error)),
    );
  const settings = { ...defaults(), root: join(place, "registry"), address: "127.0.0.1:0", graceMs: 0 };
  await using registry = await createRegistry(settings, () => {});
  const failures = await make(missing, registry.address);
  if (!repository) await makeRepository().catch((error) => failures.push(`packages: ${error.message}`));
  for (const name of wanted) if (!carries(name)) rmSync(filesOf(name), { recursive: true, force: true });
  rmSync(work, { recursive: true, force: true });
  await registry.collect({ deleteUntagged: true, dryRun: false });
  for (const failure of failures) console.error(failure);
  if (failures.length > 0) process.exitCode = 1;
}
