import { afterAll, beforeAll, expect, test } from "bun:test";
import { type ChildProcess, execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ImageDeleteResponseItem, ImageInspect, ImageSummary } from "../../api/types.ts";
import { hostPlatform } from "../../oci/index.ts";
import type { ContainerRecord, Engine } from "../context.ts";
import { failure, startEngine, startRegistry, statuses, type TestEngine } from "./harness.ts";
import { busyboxArchive } from "./seed.ts";

const missing = ["skopeo", "docker-registry", "umoci"].filter((program) => !Bun.which(program));
const needs = test.skipIf(missing.length > 0);
if (missing.length) console.log(`some image tests are skipped: ${missing.join(", ")} not installed`);

let dir: string;
let own: TestEngine;
let engine: Engine;
let registry: ChildProcess | undefined;
let host = "";
const containers: ContainerRecord[] = [];
const ask: TestEngine["ask"] = (...args) => own.ask(...args);
const json = <T>(method: string, path: string) => own.json<T>(method, path);
const lines: TestEngine["lines"] = (...args) => own.lines(...args);
const ARCHIVE = busyboxArchive(Buffer.from("#!not really busybox\n".repeat(2000)), ["sh", "ls", "busybox"], hostPlatform());

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "jubako-images-"));
  own = await startEngine(dir, {}, containers);
  engine = own.engine;
  if (missing.length) return;
  ({ host, child: registry } = await startRegistry(join(dir, "registry")));
});
afterAll(async () => {
  registry?.kill();
  await own?.manager.close();
  rmSync(dir, { recursive: true, force: true });
});

const skopeo = (...args: string[]) => execFileSync("skopeo", args, { stdio: "pipe" });
/** What a failed pull must leave alone. */
const remains = async () => {
  // what earlier steps made garbage is collected first, so that only the step in between counts
  await engine.manager.leases.create({ id: "settle" });
  await engine.manager.leases.delete({ id: "settle", sync: true });
  const snapshots: string[] = [];
  for await (const { info } of engine.manager.snapshots.list({ snapshotter: "overlayfs" })) snapshots.push(...info.map((one) => one.name));
  const content: string[] = [];
  for await (const { info } of engine.manager.content.list({})) content.push(...info.map((one) => one.digest));
  return {
    snapshots,
    content: content.sort(),
    ingest: readdirSync(join(dir, "containerd/content/ingest")).filter((name) => !name.startsWith("deleted-")),
    leases: (await engine.manager.leases.list({})).leases.map((lease) => lease.id),
    images: (await engine.manager.images.list({})).images.map((image) => image.name),
  };
};

test("an archive is loaded, listed, inspected, tagged, saved and removed", async () => {
  expect(statuses(await lines("POST", "/images/load?quiet=1", { body: ARCHIVE }))).toEqual(["Loaded image: busybox:latest\n"]);
  const [summary] = await json<ImageSummary[]>("GET", "/images/json");
  expect(summary!.RepoTags).toEqual(["busybox:latest"]);
  expect(summary!.RepoDigests).toEqual([]);
  expect(summary!.Size).toBeGreaterThan(40_000);
  const image = await engine.images.resolve("busybox");
  expect(image.id).toBe(summary!.Id);
  expect(image.names).toEqual(["docker.io/library/busybox:latest"]);
  expect(image.config.Cmd).toEqual(["sh"]);
  for (const ref of [image.id, image.id.slice(7, 19), "docker.io/busybox:latest", image.id.slice(0, 20)])
    expect((await engine.images.resolve(ref)).id).toBe(image.id);
  expect(await failure(engine.images.resolve("nosuch"))).toEqual(["NotFound", "No such image: nosuch:latest"]);
  expect(await failure(engine.images.resolve("Bad Name"))).toEqual([
    "InvalidArgument",
    expect.stringContaining("invalid reference format"),
  ]);
  expect([engine.images.familiar("docker.io/library/busybox:latest"), engine.images.familiar("h:5/a:b")]).toEqual(["busybox", "h:5/a:b"]);
  expect(await engine.images.layerSize(image.chainId)).toBe(summary!.Size);

  await ask("POST", "/images/busybox/tag?repo=localhost:1/x/y&tag=v1");
  expect(await failure(ask("POST", "/images/busybox/tag?repo=UPPER"))).toEqual([
    "InvalidArgument",
    expect.stringContaining("must be lowercase"),
  ]);
  const inspected = await json<ImageInspect>("GET", "/images/busybox/json");
  expect(inspected.RepoTags).toEqual(["busybox:latest", "localhost:1/x/y:v1"]);
  expect((await json<{ Id: string }[]>("GET", "/images/busybox/history"))[0]!.Id).toBe(image.id);
  const names = (query: string) =>
    json<ImageSummary[]>("GET", `/images/json?filters=${encodeURIComponent(query)}`).then((list) => list.flatMap((one) => one.RepoTags));
  expect(await names('{"reference":["busy*"]}')).toEqual(["busybox:latest"]);
  expect(await names('{"reference":["localhost:1/*/*"]}')).toEqual(["localhost:1/x/y:v1"]);
  expect(await names('{"dangling":["true"]}')).toEqual([]);
  expect(await failure(names('{"nonsense":["true"]}'))).toEqual(["InvalidArgument", expect.stringContaining("invalid filter")]);

  const saved = (await ask("GET", "/images/get?names=busybox&names=localhost:1/x/y:v1")) as unknown as {
    stream: AsyncIterable<Uint8Array>;
  };
  const parts: Uint8Array[] = [];
  for await (const part of saved.stream) parts.push(part);
  writeFileSync(join(dir, "saved.tar"), Buffer.concat(parts));

  containers.push({ id: "c".repeat(64), image: { id: image.id }, state: { Running: true } } as unknown as ContainerRecord);
  expect(await failure(ask("DELETE", `/images/${image.id.slice(7, 19)}`))).toEqual([
    "Conflict",
    `conflict: unable to delete ${image.id.slice(7, 19)} (cannot be forced) - image is being used by running container cccccccccccc`,
  ]);
  await ask("DELETE", "/images/localhost:1/x/y:v1");
  expect(await failure(ask("DELETE", "/images/busybox"))).toEqual([
    "Conflict",
    expect.stringContaining('unable to remove repository reference "busybox" (must force)'),
  ]);
  containers.pop();
  const gone = await json<ImageDeleteResponseItem[]>("DELETE", "/images/busybox");
  expect(gone[0]).toEqual({ Untagged: "busybox:latest" });
  expect(gone[1]).toEqual({ Deleted: image.id });
  expect(await json<ImageSummary[]>("GET", "/images/json")).toEqual([]);

  // what was saved comes back as it was
  expect(statuses(await lines("POST", "/images/load", { body: readFileSync(join(dir, "saved.tar")) })).at(-1)).toBe(
    "Loaded image: localhost:1/x/y:v1\n",
  );
  expect((await engine.images.resolve("busybox")).id).toBe(image.id);
});

test("import makes an image of a tar, with changes", async () => {
  const src = join(dir, "import");
  mkdirSync(join(src, "bin"), { recursive: true });
  writeFileSync(join(src, "bin/app"), "app");
  execFileSync("tar", ["-C", src, "-czf", join(dir, "import.tgz"), "."]);
  const changes = ["CMD app", 'ENV A=1 B="two words"', "EXPOSE 80", "LABEL x=y", 'ENTRYPOINT ["/bin/app"]', "WORKDIR /w"];
  const query = new URLSearchParams({ fromSrc: "-", repo: "imported", tag: "1", message: "note" });
  for (const change of changes) query.append("changes", change);
  const out = await lines("POST", `/images/create?${query}`, { body: readFileSync(join(dir, "import.tgz")) });
  const image = await json<ImageInspect>("GET", "/images/imported:1/json");
  expect(out).toEqual([{ status: image.Id! }]);
  expect(image.Comment).toBe("note");
  expect(image.Config).toEqual({
    Cmd: ["/bin/sh", "-c", "app"],
    Env: ["A=1", "B=two words"],
    ExposedPorts: { "80/tcp": {} },
    Labels: { x: "y" },
    Entrypoint: ["/bin/app"],
    WorkingDir: "/w",
  });
  expect(await failure(ask("POST", "/images/create?fromSrc=-&changes=RUN%20x", { body: new Uint8Array(0) }))).toEqual([
    "InvalidArgument",
    "run is not a valid change command",
  ]);
  // taken over by another image, it stays without a name until it is pruned
  await ask("POST", "/images/busybox/tag?repo=imported&tag=1");
  const dangling = await json<ImageSummary[]>("GET", `/images/json?filters=${encodeURIComponent('{"dangling":["true"]}')}`);
  expect(dangling.map((one) => one.Id)).toEqual([image.Id!]);
  const pruned = await json<{ ImagesDeleted: ImageDeleteResponseItem[] }>("POST", "/images/prune");
  expect(pruned.ImagesDeleted[0]).toEqual({ Deleted: image.Id! });
});

test("what is no image archive is refused, and leaves nothing", async () => {
  const before = await remains();
  for (const [body, message] of [
    [Buffer.from("rubbish".repeat(200)), "checksum"],
    [ARCHIVE.subarray(0, 20_000), "truncated"],
    [execFileSync("tar", ["-C", dir, "-c", "--exclude=./*/*", "./containerd"], { stdio: "pipe" }), "manifest.json"],
  ] as const)
    expect((await failure(lines("POST", "/images/load", { body }))).join()).toContain(message);
  expect(await remains()).toEqual(before);
  expect(readdirSync(join(dir, "data/tmp/images"))).toEqual([]);
});

needs("an image is pulled from a real registry in every form, again, and by digest", async () => {
  const archive = join(dir, "busybox.tar");
  writeFileSync(archive, ARCHIVE);
  skopeo("copy", "--dest-tls-verify=false", `docker-archive:${archive}`, `docker://${host}/lib/bb:v2s2`);
  skopeo("copy", "--dest-tls-verify=false", "--format=oci", `docker-archive:${archive}`, `docker://${host}/lib/bb:oci`);
  await json("DELETE", "/images/busybox?force=1");
  for (const { Id } of await json<ImageSummary[]>("GET", "/images/json")) await ask("DELETE", `/images/${Id}?force=1`);
  const out = await lines("POST", `/images/create?fromImage=${host}/lib/bb&tag=v2s2`);
  expect(statuses(out)).toEqual([
    "Pulling from lib/bb",
    "Pulling fs layer",
    "Downloading",
    "Verifying Checksum",
    "Download complete",
    "Extracting",
    "Pull complete",
    expect.stringContaining("Digest: sha256:"),
    `Status: Downloaded newer image for ${host}/lib/bb:v2s2`,
  ]);
  expect(statuses(await lines("POST", `/images/create?fromImage=${host}/lib/bb&tag=v2s2`)).at(-1)).toBe(
    `Status: Image is up to date for ${host}/lib/bb:v2s2`,
  );
  const [summary] = await json<ImageSummary[]>("GET", "/images/json");
  const digest = summary!.RepoDigests[0]!.split("@")[1]!;
  expect(statuses(await lines("POST", `/images/create?fromImage=${host}/lib/bb&tag=${digest}`)).at(-1)).toContain("Image is up to date");
  expect(statuses(await lines("POST", `/images/create?fromImage=${host}/lib/bb&tag=oci`))[1]).toBe("Already exists");
  expect((await engine.images.resolve(`${host}/lib/bb@${digest}`)).id).toBe(summary!.Id);
  const found = await json<{ Descriptor: { digest: string }; Platforms: unknown[] }>("GET", `/distribution/${host}/lib/bb:v2s2/json`);
  expect([found.Descriptor.digest, found.Platforms]).toEqual([digest, [{ os: "linux", architecture: hostPlatform().architecture }]]);
  expect(await failure(ask("POST", `/images/create?fromImage=${host}/lib/none&tag=1`))).toEqual([
    "NotFound",
    `manifest for ${host}/lib/none:1 not found: manifest unknown: manifest unknown`,
  ]);
});

needs(
  "what umoci builds comes by zstd and gzip, through either way of unpacking, with deletions",
  async () => {
    const layout = join(dir, "layout");
    const run = (...args: string[]) => execFileSync("umoci", args, { stdio: "pipe" });
    run("init", "--layout", layout);
    run("new", "--image", `${layout}:x`);
    for (const step of ["one", "two"]) {
      const bundle = join(dir, `bundle-${step}`);
      run("unpack", "--image", `${layout}:x`, bundle);
      mkdirSync(join(bundle, "rootfs/d"), { recursive: true });
      writeFileSync(join(bundle, `rootfs/d/${step}`), step.repeat(50_000));
      if (step === "two") rmSync(join(bundle, "rootfs/d/one"));
      run("repack", "--image", `${layout}:x`, bundle);
    }
    skopeo("copy", "--dest-tls-verify=false", `oci:${layout}:x`, `docker://${host}/umoci:gzip`);
    skopeo(
      "copy",
      "--dest-tls-verify=false",
      "--dest-compress-format=zstd",
      "--dest-compress",
      `oci:${layout}:x`,
      `docker://${host}/umoci:zstd`,
    );
    for (const way of ["layers", "services"]) {
      const root = join(dir, way);
      const other = await startEngine(root);
      if (way === "services") Object.assign(other.engine.manager, { layers: undefined });
      try {
        for (const tag of ["gzip", "zstd"]) {
          const out = await other.lines("POST", `/images/create?fromImage=${host}/umoci&tag=${tag}`);
          expect([way, tag, statuses(out).at(-1)]).toEqual([way, tag, `Status: Downloaded newer image for ${host}/umoci:${tag}`]);
        }
        const { chainId } = await other.engine.images.resolve(`${host}/umoci:gzip`);
        const { mounts } = await other.engine.manager.snapshots.view({ snapshotter: "overlayfs", key: "look", parent: chainId });
        const at = join(root, "mnt");
        mkdirSync(at);
        execFileSync("mount", ["-t", "overlay", "-o", mounts[0]!.options.filter((o) => o !== "ro").join(","), "overlay", at]);
        try {
          expect(readdirSync(join(at, "d"))).toEqual(["two"]);
          expect(statSync(join(at, "d/two")).size).toBe(150_000);
        } finally {
          execFileSync("umount", [at]);
        }
      } finally {
        await other.manager.close();
      }
    }
  },
  20_000,
);

needs("a pushed image is what was there, and pushing again sends nothing", async () => {
  await lines("POST", "/images/load", { body: ARCHIVE });
  await ask("POST", `/images/busybox/tag?repo=${host}/pushed&tag=1`);
  const out = await lines("POST", `/images/${host}/pushed/push?tag=1`);
  expect(statuses(out)).toContain("Pushed");
  expect(out.at(-1)!.aux).toEqual({ Tag: "1", Digest: expect.stringContaining("sha256:"), Size: expect.any(Number) });
  expect(statuses(await lines("POST", `/images/${host}/pushed/push?tag=1`))).toContain("Layer already exists");
  const config = JSON.parse(skopeo("inspect", "--tls-verify=false", "--config", `docker://${host}/pushed:1`).toString());
  expect(config.config.Cmd).toEqual(["sh"]);
  expect(await failure(ask("POST", "/images/nosuch/push?tag=1"))).toEqual([
    "NotFound",
    "An image does not exist locally with the tag: nosuch",
  ]);
});

needs("skopeo reads what is saved", async () => {
  expect(JSON.parse(skopeo("inspect", `docker-archive:${join(dir, "saved.tar")}:busybox:latest`).toString()).Os).toBe("linux");
  expect(JSON.parse(skopeo("inspect", `oci-archive:${join(dir, "saved.tar")}:latest`).toString()).Os).toBe("linux");
});

needs(
  "a damaged layer, a registry that dies and a client that leaves fail the pull and leave nothing behind",
  async () => {
    const layer = join(dir, "damage.tar");
    execFileSync("tar", ["-C", "/usr/lib", "-cf", layer, "os-release", "locale"].slice(0, existsSync("/usr/lib/locale") ? 6 : 5));
    const query = new URLSearchParams({ fromSrc: "-", repo: `${host}/damage`, tag: "1" });
    await lines("POST", `/images/create?${query}`, { body: readFileSync(layer) });
    await lines("POST", `/images/${host}/damage/push?tag=1`);
    await ask("DELETE", `/images/${host}/damage:1`);
    const blobs = execFileSync("find", [join(dir, "registry/data"), "-name", "data", "-size", "+10k", "-newer", layer])
      .toString()
      .trim()
      .split("\n");
    const original = blobs.map((path) => readFileSync(path));
    const before = await remains();
    const pull = () => lines("POST", `/images/create?fromImage=${host}/damage&tag=1`);

    blobs.forEach((path, i) => {
      const bytes = Buffer.from(original[i]!);
      bytes[bytes.length >> 1]! ^= 0xff;
      writeFileSync(path, bytes);
    });
    expect(String(statuses(await pull()).at(-1))).toMatch(/digest|decompressed|tar:|checksum/);
    expect(await remains()).toEqual(before);

    blobs.forEach((path, i) => {
      writeFileSync(path, original[i]!);
    });
    const gone = new AbortController();
    gone.abort();
    expect((await failure(lines("POST", `/images/create?fromImage=${host}/damage&tag=1`, { signal: gone.signal }))).join()).not.toBe(
      "none,",
    );
    await Bun.sleep(50);
    expect(await remains()).toEqual(before);

    expect(String(statuses(await pull()).at(-1))).toContain("Downloaded newer image");
    registry!.kill("SIGKILL");
    await Bun.sleep(50);
    expect((await failure(pull()))[1]).toContain("connection refused");
  },
  30_000,
);
