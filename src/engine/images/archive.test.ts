// Archives of several platforms and of other programs, read by us; ours, read by them.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ImageInspect } from "../../api/types.ts";
import { type Descriptor, digestOf, hostPlatform, MEDIA, tarEntry, tarOf } from "../../oci/index.ts";
import { failure, startEngine, statuses, type TestEngine } from "./harness.ts";
import { busyboxArchive } from "./seed.ts";

let dir: string;
let own: TestEngine;
let index: Descriptor;
let images: Descriptor[];
const BUSYBOX = busyboxArchive(Buffer.from("#!not really busybox\n".repeat(2000)), ["sh", "ls"], hostPlatform());
const has = (...programs: string[]) => {
  const missing = programs.filter((program) => !Bun.which(program));
  if (missing.length) console.log(`skip: ${missing.join(", ")} not installed`);
  return missing.length === 0;
};
const query = (architecture: string) => `platform=${encodeURIComponent(JSON.stringify({ os: "linux", architecture }))}`;

/** An image layout of two platforms in a tar, by the name multi:1. */
function makeLayout(): Buffer {
  const layout = join(dir, "layout");
  const tree = join(layout, "blobs/sha256");
  mkdirSync(tree, { recursive: true });
  const put = (bytes: Uint8Array | string, mediaType: string): Descriptor => {
    const digest = digestOf(bytes);
    writeFileSync(join(tree, digest.slice(7)), bytes);
    return { mediaType, digest, size: Buffer.byteLength(bytes as string) };
  };
  images = ["amd64", "arm64"].map((architecture) => {
    const layer = put(tarOf([{ header: tarEntry(architecture, "file") }]), MEDIA.ociLayer);
    const rootfs = { type: "layers", diff_ids: [layer.digest] };
    const history = [{ created_by: `for ${architecture}` }];
    const config = put(JSON.stringify({ architecture, os: "linux", rootfs, history, config: {} }), MEDIA.ociConfig);
    const manifest = put(JSON.stringify({ schemaVersion: 2, mediaType: MEDIA.ociManifest, config, layers: [layer] }), MEDIA.ociManifest);
    return { ...manifest, platform: { os: "linux", architecture } };
  });
  index = put(JSON.stringify({ schemaVersion: 2, mediaType: MEDIA.ociIndex, manifests: images }), MEDIA.ociIndex);
  const annotations = { "io.containerd.image.name": "docker.io/library/multi:1" };
  writeFileSync(join(layout, "index.json"), JSON.stringify({ schemaVersion: 2, manifests: [{ ...index, annotations }] }));
  writeFileSync(join(layout, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
  return execFileSync("tar", ["-C", layout, "-c", "."]);
}

async function saved(name: string, rest = ""): Promise<{ file: string; list: string[]; read: (path: string) => string }> {
  const { stream } = (await own.ask("GET", `/images/get?names=${name}${rest}`)) as { stream: AsyncIterable<Uint8Array> };
  const file = join(dir, `${name.replace(/\W/g, "-")}${rest.length}.tar`);
  writeFileSync(file, Buffer.concat(await Array.fromAsync(stream)));
  return {
    file,
    list: execFileSync("tar", ["-tf", file]).toString().trim().split("\n"),
    read: (path) => execFileSync("tar", ["-xOf", file, path]).toString(),
  };
}

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "jubako-archives-"));
  own = await startEngine(dir);
  await own.lines("POST", "/images/load", { body: makeLayout() });
});
afterAll(async () => {
  await own?.manager.close();
  rmSync(dir, { recursive: true, force: true });
});

test("all platforms of an archive are kept, inspected and saved again", async () => {
  const blob = (digest: string) => `blobs/sha256/${digest.slice(7)}`;
  const shown = await own.json<ImageInspect>("GET", "/images/multi:1/json");
  expect([shown.Architecture, shown.Descriptor!.digest]).toEqual(["amd64", index.digest]);
  const arm = await own.json<ImageInspect>("GET", `/images/multi:1/json?${query("arm64")}`);
  expect([arm.Architecture, arm.Id === shown.Id]).toEqual(["arm64", false]);
  const [step] = await own.json<{ CreatedBy: string }[]>("GET", `/images/multi:1/history?${query("arm64")}`);
  expect(step!.CreatedBy).toBe("for arm64");
  expect(await failure(own.ask("GET", `/images/multi:1/json?${query("s390x")}`))).toEqual([
    "NotFound",
    "image with reference multi:1 was found but its platform (linux/amd64) does not match the specified platform (linux/s390x)",
  ]);

  const whole = await saved("multi:1");
  expect(JSON.parse(whole.read("index.json")).manifests[0].digest).toBe(index.digest);
  for (const { digest } of [index, ...images]) expect(whole.list).toContain(blob(digest));
  expect(JSON.parse(whole.read("manifest.json"))[0].RepoTags).toEqual(["multi:1"]);
  const one = await saved("multi:1", `&${query("arm64")}`);
  expect(JSON.parse(one.read("index.json")).manifests[0].digest).toBe(images[1]!.digest);
  expect(one.list).not.toContain(blob(images[0]!.digest));

  const second = await startEngine(join(dir, "second"));
  try {
    const body = readFileSync(whole.file);
    await second.lines("POST", `/images/load?${query("arm64")}`, { body });
    expect((await second.json<ImageInspect>("GET", "/images/multi:1/json")).Architecture).toBe("arm64");
    expect(await failure(second.lines("POST", `/images/load?${query("s390x")}`, { body }))).toEqual([
      "NotFound",
      "the archive has no image for the platform linux/s390x",
    ]);
    await second.lines("POST", "/images/load", { body });
    expect((await second.json<ImageInspect>("GET", "/images/multi:1/json")).Descriptor!.digest).toBe(index.digest);
  } finally {
    await second.manager.close();
  }
});

test.skipIf(!has("bzip2", "xz", "gzip", "zstd"))("archives come compressed in any way", async () => {
  writeFileSync(join(dir, "plain.tar"), BUSYBOX);
  for (const program of ["gzip", "bzip2", "xz", "zstd"]) {
    const packed = spawnSync(program, ["-c", join(dir, "plain.tar")], { maxBuffer: 64 << 20 }).stdout;
    expect(statuses(await own.lines("POST", "/images/load?quiet=1", { body: packed }))).toEqual(["Loaded image: busybox:latest\n"]);
    const layer = spawnSync(program, ["-c"], { input: tarOf([{ header: tarEntry(program, "file") }]) }).stdout;
    const [id] = statuses(await own.lines("POST", `/images/create?fromSrc=-&repo=from-${program}`, { body: layer }));
    expect(id).toMatch(/^sha256:/);
  }
});

test.skipIf(!has("bzip2", "xz"))("layers inside an archive come compressed in any way", async () => {
  const plain = ["bzip2", "xz", "gzip", "zstd"].map((program) => ({
    program,
    tar: tarOf([{ header: tarEntry(`by-${program}`, "file", { size: 5 }), data: Buffer.from("hello") }]),
  }));
  const layers = plain.map(({ program, tar }) => spawnSync(program, ["-c"], { input: tar }).stdout);
  const rootfs = { type: "layers", diff_ids: plain.map(({ tar }) => digestOf(tar)) };
  const config = Buffer.from(JSON.stringify({ architecture: hostPlatform().architecture, os: "linux", rootfs, config: {} }));
  const files: [string, Uint8Array][] = [
    ...layers.map((bytes, i): [string, Uint8Array] => [`${i}/layer.tar`, bytes]),
    ["config.json", config],
    [
      "manifest.json",
      Buffer.from(JSON.stringify([{ Config: "config.json", RepoTags: ["packed:1"], Layers: layers.map((_, i) => `${i}/layer.tar`) }])),
    ],
  ];
  const archive = (more: [string, Uint8Array][]) =>
    tarOf(more.map(([name, data]) => ({ header: tarEntry(name, "file", { size: data.length }), data })));
  expect(statuses(await own.lines("POST", "/images/load?quiet=1", { body: archive(files) }))).toEqual(["Loaded image: packed:1\n"]);
  const shown = await own.json<ImageInspect>("GET", "/images/packed:1/json");
  expect(shown.RootFS?.Layers).toEqual(rootfs.diff_ids);
  // images have neither: what was in them is kept plain
  const again = await saved("packed:1");
  const manifest = JSON.parse(again.read(`blobs/sha256/${shown.Descriptor?.digest?.slice(7)}`));
  expect(manifest.layers.map((layer: Descriptor) => layer.mediaType)).toEqual([
    MEDIA.ociLayer,
    MEDIA.ociLayer,
    MEDIA.ociLayerGzip,
    MEDIA.ociLayerZstd,
  ]);
  expect(execFileSync("tar", ["-xOf", again.file, `blobs/sha256/${rootfs.diff_ids[1]!.slice(7)}`])).toEqual(
    Buffer.from(plain[1]?.tar ?? ""),
  );

  // a layer of a layout is what its digest says, whatever its media type says of the compression
  const described = (bytes: Uint8Array, mediaType: string) => ({ mediaType, digest: digestOf(bytes), size: bytes.length });
  const document = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MEDIA.ociManifest,
      config: described(config, MEDIA.ociConfig),
      layers: layers.map((bytes) => described(bytes, MEDIA.ociLayerGzip)),
    }),
  );
  const annotations = { "org.opencontainers.image.ref.name": "packed:2" };
  const layout = archive([
    ["oci-layout", Buffer.from('{"imageLayoutVersion":"1.0.0"}')],
    [
      "index.json",
      Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: [{ ...described(document, MEDIA.ociManifest), annotations }] })),
    ],
    ...[document, config, ...layers].map((bytes): [string, Uint8Array] => [`blobs/sha256/${digestOf(bytes).slice(7)}`, bytes]),
  ]);
  expect(statuses(await own.lines("POST", "/images/load?quiet=1", { body: layout }))).toEqual(["Loaded image: packed:2\n"]);
  expect((await own.json<ImageInspect>("GET", "/images/packed:2/json")).Id).toBe(
    shown.Id === digestOf(config) ? shown.Id : digestOf(config),
  );
});

test("archives that were damaged are loaded or refused, and what was refused leaves nothing", async () => {
  const engine = await startEngine(join(dir, "damaged"));
  try {
    const tar = tarOf([{ header: tarEntry("file", "file", { size: 4 }), data: Buffer.from("some") }]);
    const good = [makeLayout(), busyboxArchive(Buffer.from("#!x"), ["sh"], hostPlatform()), tar].map((bytes) => Buffer.from(bytes));
    // where the documents are, damage says most
    const spots = good.map((bytes) => [...bytes.toString("latin1").matchAll(/[{}[\]":,]|sha256|\d/g)].map((match) => match.index));
    let state = 9;
    const random = (n: number) => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return Math.floor((state / 2 ** 32) * n);
    };
    const outcomes = new Map<string, number>();
    for (let i = 0; i < 150; i++) {
      const which = random(2);
      let bytes = Buffer.from(good[which]!);
      for (let n = random(3); n >= 0; n--) {
        const at = random(4) ? spots[which]![random(spots[which]!.length)]! : random(bytes.length);
        const kind = random(3);
        if (kind === 0) bytes[at] = random(256);
        else if (kind === 1) bytes[at] = '{}[]",:0199-e'.charCodeAt(random(13));
        else if (random(8) === 0) bytes = bytes.subarray(0, at);
      }
      const outcome = await engine.lines("POST", "/images/load?quiet=1", { body: bytes }).then(
        (lines) => String((lines.at(-1)?.errorDetail as { message?: string } | undefined) ? "refused" : "loaded"),
        (error: Error) => error.name,
      );
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    }
    expect(
      [...outcomes.keys()].filter((name) => !["loaded", "refused", "InvalidArgument", "NotFound", "FailedPrecondition"].includes(name)),
    ).toEqual([]);
    expect(outcomes.size).toBeGreaterThan(2);
    // whatever was loaded goes with its name; then nothing is there
    for (const { Id } of await engine.json<{ Id: string }[]>("GET", "/images/json?all=1"))
      await engine.ask("DELETE", `/images/${Id}?force=1`);
    await engine.engine.manager.leases.create({ id: "settle" });
    await engine.engine.manager.leases.delete({ id: "settle", sync: true });
    const left: string[] = [];
    for await (const { info } of engine.engine.manager.content.list({})) left.push(...info.map(({ digest }) => digest));
    const snapshots: string[] = [];
    for await (const { info } of engine.engine.manager.snapshots.list({ snapshotter: "overlayfs" }))
      snapshots.push(...info.map(({ name }) => name));
    expect([left, snapshots, (await engine.engine.manager.content.listStatuses({})).statuses]).toEqual([[], [], []]);
    expect(readdirSync(join(dir, "damaged/data/tmp/images"))).toEqual([]);
  } finally {
    await engine.manager.close();
  }
}, 60_000);

test.skipIf(!has("skopeo"))("what skopeo writes we read, and what we write it reads, in every form", async () => {
  await own.lines("POST", "/images/load?quiet=1", { body: BUSYBOX });
  const Id = (await own.json<ImageInspect>("GET", "/images/busybox/json")).Id!;
  const ours = await saved("busybox");
  for (const [from, to] of [
    [`docker-archive:${ours.file}:busybox:latest`, "docker-archive"],
    [`oci-archive:${ours.file}:latest`, "oci-archive"],
  ]) {
    const file = join(dir, `skopeo-${to}.tar`);
    execFileSync("skopeo", ["--insecure-policy", "copy", from!, `${to}:${file}:other/name:2`], { stdio: "pipe" });
    const out = statuses(await own.lines("POST", "/images/load?quiet=1", { body: readFileSync(file) }));
    expect(out).toEqual(["Loaded image: other/name:2\n"]);
    expect((await own.json<ImageInspect>("GET", "/images/other/name:2/json")).Id).toBe(Id);
  }
});

test.skipIf(!has("podman"))("podman loads what we save, and saves what we load", async () => {
  await own.lines("POST", "/images/load?quiet=1", { body: BUSYBOX });
  const Id = (await own.json<ImageInspect>("GET", "/images/busybox/json")).Id!;
  const ours = await saved("busybox");
  const podman = (...args: string[]) =>
    execFileSync("podman", ["--root", join(dir, "podman"), "--runroot", join(dir, "run"), "--storage-driver", "vfs", ...args], {
      stdio: "pipe",
    });
  podman("load", "-i", ours.file);
  expect(podman("images", "--no-trunc", "--format", "{{.ID}}").toString().trim()).toBe(Id);
  for (const format of ["docker-archive", "oci-archive"]) {
    const file = join(dir, `podman-${format}.tar`);
    podman("save", "--format", format, "-o", file, Id.slice(7));
    const before = (await own.json<unknown[]>("GET", "/images/json")).length;
    expect(String(statuses(await own.lines("POST", "/images/load?quiet=1", { body: readFileSync(file) })).at(-1))).toMatch(/^Loaded image/);
    // the same image, as its configuration is the same
    expect((await own.json<unknown[]>("GET", "/images/json")).length).toBe(before);
  }
});
