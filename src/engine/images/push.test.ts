// Pushes to real registries: what is sent, what is not sent twice, all tags, platforms, indexes.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { type ChildProcess, execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openRepository } from "../../distribution/index.ts";
import { type Descriptor, digestOf, type Manifest, MEDIA, parseTagged, tarEntry, tarOf } from "../../oci/index.ts";
import { failure, startEngine, startRegistry, statuses, type TestEngine } from "./harness.ts";

const missing = ["docker-registry"].filter((program) => !Bun.which(program));
if (missing.length) console.log(`skip: ${missing.join(", ")} not installed`);

describe.skipIf(missing.length > 0)("push", () => {
  let dir: string;
  let own: TestEngine;
  let host: string;
  let other: string;
  const registries: ChildProcess[] = [];
  const LAYER = tarOf([{ header: tarEntry("a", "file"), data: Buffer.from("some text, ".repeat(100_000)) }]);
  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), "jubako-push-"));
    own = await startEngine(dir);
    for (const name of ["one", "two"]) {
      const { host: address, child } = await startRegistry(join(dir, name));
      registries.push(child);
      [host, other] = [host ?? address, address];
    }
    await own.lines("POST", "/images/create?fromSrc=-&repo=made&tag=1", { body: LAYER });
  });
  afterAll(async () => {
    for (const child of registries) child.kill();
    await own?.manager.close();
    rmSync(dir, { recursive: true, force: true });
  });

  const collect = async () => {
    await own.engine.manager.leases.create({ id: "settle" });
    await own.engine.manager.leases.delete({ id: "settle", sync: true });
  };
  const remote = async (name: string): Promise<{ descriptor: Descriptor; manifest: Manifest }> => {
    const reference = parseTagged(name);
    const { descriptor, bytes } = await openRepository(reference, { insecure: [], mirrors: [] }).manifest(
      reference.digest ?? reference.tag!,
    );
    return { descriptor, manifest: JSON.parse(Buffer.from(bytes).toString()) };
  };
  const pushed = (out: Record<string, unknown>[]) => (out.findLast((line) => line.aux) as { aux: { Digest: string } }).aux.Digest;

  test("a plain layer is gzipped once; the digest is the same afterwards, in other repositories and after a collection", async () => {
    await own.ask("POST", `/images/made:1/tag?repo=${host}/packed&tag=1`);
    const first = await own.lines("POST", `/images/${host}/packed/push?tag=1`);
    expect(statuses(first)[0]).toBe(`The push refers to repository [${host}/packed]`);
    const { descriptor, manifest } = await remote(`${host}/packed:1`);
    expect(pushed(first)).toBe(descriptor.digest);
    const [layer] = manifest.layers;
    expect([manifest.layers.length, layer!.mediaType]).toEqual([1, MEDIA.ociLayerGzip]);
    expect(layer!.size).toBeLessThan(20_000);
    const inspected = await own.json<{ RepoDigests: string[] }>("GET", "/images/made:1/json");
    expect(inspected.RepoDigests).toEqual([`${host}/packed@${descriptor.digest}`]);

    await collect();
    const written = (await own.engine.manager.content.info({ digest: layer!.digest })).info!.createdAt;
    const second = await own.lines("POST", `/images/${host}/packed/push?tag=1`);
    expect(statuses(second)).toContain("Layer already exists");
    expect(pushed(second)).toBe(descriptor.digest);
    await own.ask("POST", `/images/made:1/tag?repo=${host}/more/packed&tag=2`);
    const third = await own.lines("POST", `/images/${host}/more/packed/push?tag=2`);
    expect(statuses(third)).toContain("Mounted from packed");
    expect(pushed(third)).toBe(descriptor.digest);
    await own.ask("POST", `/images/made:1/tag?repo=${other}/packed&tag=1`);
    expect(statuses(await own.lines("POST", `/images/${other}/packed/push?tag=1`))).toContain("Pushed");
    expect((await own.engine.manager.content.info({ digest: layer!.digest })).info!.createdAt).toEqual(written);

    // what was pushed comes back as the same image
    const again = await startEngine(join(dir, "again"));
    try {
      await again.lines("POST", `/images/create?fromImage=${other}/packed&tag=1`);
      const [a, b] = await Promise.all([
        again.json<{ Id: string }>("GET", `/images/${other}/packed:1/json`),
        own.json<{ Id: string }>("GET", "/images/made:1/json"),
      ]);
      expect(a.Id).toBe(b.Id);
    } finally {
      await again.manager.close();
    }
  });

  test("without a tag all tags of the repository go", async () => {
    for (const tag of ["b", "a"]) await own.ask("POST", `/images/made:1/tag?repo=${host}/all&tag=${tag}`);
    const out = statuses(await own.lines("POST", `/images/${host}/all/push`));
    const digests = out.filter((line) => /^[ab]: digest: sha256:/.test(String(line)));
    expect(digests.map((line) => String(line)[0])).toEqual(["a", "b"]);
    for (const tag of ["a", "b"]) expect((await remote(`${host}/all:${tag}`)).manifest.layers.length).toBe(1);
    expect(await failure(own.ask("POST", `/images/${host}/none/push`))).toEqual([
      "NotFound",
      `An image does not exist locally with the tag: ${host}/none`,
    ]);
  });

  test("an index goes as a whole where all of it is here, one platform where that is asked for", async () => {
    const layout = join(dir, "layout");
    const tree = join(layout, "blobs/sha256");
    mkdirSync(tree, { recursive: true });
    const put = (bytes: Uint8Array | string, mediaType: string): Descriptor => {
      const digest = digestOf(bytes);
      writeFileSync(join(tree, digest.slice(7)), bytes);
      return { mediaType, digest, size: Buffer.byteLength(bytes as string) };
    };
    const images = ["amd64", "arm64"].map((architecture) => {
      const layer = put(tarOf([{ header: tarEntry(architecture, "file") }]), MEDIA.ociLayer);
      const config = put(
        JSON.stringify({ architecture, os: "linux", rootfs: { type: "layers", diff_ids: [layer.digest] } }),
        MEDIA.ociConfig,
      );
      const manifest = put(JSON.stringify({ schemaVersion: 2, mediaType: MEDIA.ociManifest, config, layers: [layer] }), MEDIA.ociManifest);
      return { ...manifest, platform: { os: "linux", architecture } };
    });
    const index = put(JSON.stringify({ schemaVersion: 2, mediaType: MEDIA.ociIndex, manifests: images }), MEDIA.ociIndex);
    const annotations = { "io.containerd.image.name": `${host}/multi:1` };
    writeFileSync(join(layout, "index.json"), JSON.stringify({ schemaVersion: 2, manifests: [{ ...index, annotations }] }));
    writeFileSync(join(layout, "oci-layout"), '{"imageLayoutVersion":"1.0.0"}');
    await own.lines("POST", "/images/load", { body: execFileSync("tar", ["-C", layout, "-c", "."]) });

    const query = (platform: object) => `platform=${encodeURIComponent(JSON.stringify(platform))}`;
    const arm = query({ os: "linux", architecture: "arm64" });
    expect(pushed(await own.lines("POST", `/images/${host}/multi/push?tag=1`))).toBe(index.digest);
    const whole = await openRepository(parseTagged(`${host}/multi:1`), { insecure: [], mirrors: [] }).manifest("1");
    expect(digestOf(whole.bytes)).toBe(index.digest);
    await own.ask("POST", `/images/${host}/multi:1/tag?repo=${other}/arm&tag=1`);
    await own.lines("POST", `/images/${other}/arm/push?tag=1&${arm}`);
    const one = await remote(`${other}/arm:1`);
    expect(one.manifest.config.digest).toBe(JSON.parse(await Bun.file(join(tree, images[1]!.digest.slice(7))).text()).config.digest);
    expect(one.manifest.layers[0]!.mediaType).toBe(MEDIA.ociLayerGzip);
    const missing = statuses(await own.lines("POST", `/images/${other}/arm/push?tag=1&${query({ os: "linux", architecture: "s390x" })}`));
    expect(missing.at(-1)).toContain("does not provide the specified platform (linux/s390x)");
    expect(await failure(own.ask("POST", `/images/${other}/arm/push?tag=1&platform=x`))).toEqual([
      "InvalidArgument",
      "invalid platform: x",
    ]);
  });

  test("a layer that registries may not have is left out", async () => {
    const tar = tarOf([{ header: tarEntry("foreign", "file") }]);
    const mediaType = "application/vnd.oci.image.layer.nondistributable.v1.tar";
    const layer = { mediaType, digest: digestOf(tar), size: tar.length, urls: ["http://192.0.2.1/layer"] };
    const config = Buffer.from(
      JSON.stringify({ architecture: "amd64", os: "linux", rootfs: { type: "layers", diff_ids: [layer.digest] } }),
    );
    const document = Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: MEDIA.ociManifest,
        config: { mediaType: MEDIA.ociConfig, digest: digestOf(config), size: config.length },
        layers: [layer],
      }),
    );
    const top = { mediaType: MEDIA.ociManifest, digest: digestOf(document), size: document.length };
    const asked: string[] = [];
    const server = createServer((request, response) => {
      asked.push(`${request.method} ${request.url}`);
      request.resume();
      request.on("end", () =>
        request.method === "POST"
          ? response.writeHead(202, { location: "/upload" }).end()
          : response.writeHead(request.method === "PUT" ? 201 : 404).end(),
      );
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    try {
      const address = `127.0.0.1:${(server.address() as AddressInfo).port}`;
      const annotations = { "io.containerd.image.name": `${address}/foreign:1` };
      const files: [string, Uint8Array][] = [
        ["oci-layout", Buffer.from('{"imageLayoutVersion":"1.0.0"}')],
        ["index.json", Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: [{ ...top, annotations }] }))],
        ...[document, config, tar].map((bytes): [string, Uint8Array] => [`blobs/sha256/${digestOf(bytes).slice(7)}`, bytes]),
      ];
      await own.lines("POST", "/images/load", {
        body: tarOf(files.map(([name, data]) => ({ header: tarEntry(name, "file", { size: data.length }), data }))),
      });
      const out = await own.lines("POST", `/images/${address}/foreign/push?tag=1`);
      expect(statuses(out)).toContain("Skipped foreign layer");
      expect(pushed(out)).toBe(top.digest);
      expect(asked.filter((one) => one.includes(layer.digest.slice(7)) || one.startsWith("POST"))).toHaveLength(1);
      expect(asked.at(-1)).toBe("PUT /v2/foreign/manifests/1");
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });
});
