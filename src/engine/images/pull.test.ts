// Pulls from registries that break off, stall, lie, or are asked while garbage is collected.
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { type Descriptor, digestOf, MEDIA, tarEntry, tarOf } from "../../oci/index.ts";
import { failure, startEngine, statuses, type TestEngine } from "./harness.ts";

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "jubako-pull-"));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** Answers true where it has dealt with the request itself. */
type Twist = (request: IncomingMessage, response: ServerResponse, digest: string | undefined) => boolean;

/** A registry on loopback that has what it is given: blobs and manifests by digest, manifests by "repository:tag". */
function createFake() {
  const blobs = new Map<string, Uint8Array>();
  const types = new Map<string, string>();
  const tags = new Map<string, string>();
  const ranges: (string | undefined)[] = [];
  const asked: string[] = [];
  let twist: Twist = () => false;
  const server: Server = createServer((request, response) => {
    const match = /^\/v2\/(.+)\/(manifests|blobs)\/(.+)$/.exec(request.url ?? "");
    const digest = match && (match[3]!.includes(":") ? match[3]! : tags.get(`${match[1]}:${match[3]}`));
    const bytes = digest ? blobs.get(digest) : undefined;
    if (match?.[2] === "blobs") ranges.push(request.headers.range);
    asked.push(`${request.method} ${request.url}`);
    if (twist(request, response, digest ?? undefined)) return;
    if (!bytes) {
      response.writeHead(404).end('{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}');
      return;
    }
    const from = Number(/bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0);
    response.writeHead(from ? 206 : 200, {
      "content-type": types.get(digest!) ?? "application/octet-stream",
      "content-length": bytes.length - from,
      "docker-content-digest": digest!,
      ...(from ? { "content-range": `bytes ${from}-${bytes.length - 1}/${bytes.length}` } : {}),
    });
    response.end(request.method === "HEAD" ? undefined : bytes.subarray(from));
  });
  const put = (bytes: Uint8Array | string, mediaType: string): Descriptor => {
    const buffer = Buffer.from(bytes as Uint8Array);
    const digest = digestOf(buffer);
    blobs.set(digest, buffer);
    types.set(digest, mediaType);
    return { mediaType, digest, size: buffer.length };
  };
  return {
    blobs,
    ranges,
    asked,
    put,
    tag: (name: string, { digest }: Descriptor) => void tags.set(name, digest),
    manifest: (config: Descriptor, layers: Descriptor[], rest: object = {}) =>
      put(JSON.stringify({ schemaVersion: 2, mediaType: MEDIA.ociManifest, config, layers, ...rest }), MEDIA.ociManifest),
    config: (diffIds: string[], rest: object = {}) =>
      put(
        JSON.stringify({ architecture: "amd64", os: "linux", config: {}, rootfs: { type: "layers", diff_ids: diffIds }, ...rest }),
        MEDIA.ociConfig,
      ),
    twist: (next: Twist) => {
      twist = next;
    },
    server,
  };
}

type Fake = ReturnType<typeof createFake>;

describe.each(["layers", "services"])("by %s", (way) => {
  let own: TestEngine;
  let fake: Fake;
  let host: string;
  beforeAll(async () => {
    own = await startEngine(join(dir, way), { maxDownloadAttempts: 2 });
    if (way === "services") Object.assign(own.engine.manager, { layers: undefined });
    fake = createFake();
    await new Promise<void>((resolve) => fake.server.listen(0, "127.0.0.1", resolve));
    host = `127.0.0.1:${(fake.server.address() as { port: number }).port}`;
  });
  afterEach(() => {
    fake.twist(() => false);
    fake.ranges.length = 0;
  });
  afterAll(async () => {
    fake.server.closeAllConnections();
    fake.server.close();
    await own?.manager.close();
  });

  /** An image of these layers (uncompressed bytes), compressed, under a name. */
  const image = (name: string, layers: Uint8Array[], rest: object = {}) => {
    const packed = layers.map((layer) => fake.put(gzipSync(layer, { level: 1 }), MEDIA.ociLayerGzip));
    const manifest = fake.manifest(
      fake.config(
        layers.map((layer) => digestOf(layer)),
        rest,
      ),
      packed,
    );
    fake.tag(name, manifest);
    return { manifest, layers: packed };
  };
  const noise = (name: string, size: number) => tarOf([{ header: tarEntry(name, "file"), data: randomBytes(size) }]);
  const pull = (name: string, options: { signal?: AbortSignal; rest?: string } = {}) => {
    const [repository, tag] = name.split(":");
    return own.lines(
      "POST",
      `/images/create?fromImage=${host}/${repository}&tag=${tag}${options.rest ?? ""}`,
      options.signal ? { signal: options.signal } : {},
    );
  };
  /** The pull's last line, or what it failed with. */
  const outcome = (name: string, rest = "") =>
    pull(name, { rest }).then(
      (out) => String(statuses(out).at(-1)),
      (error: Error) => error.message,
    );
  const collect = async () => {
    await own.engine.manager.leases.create({ id: "settle" });
    await own.engine.manager.leases.delete({ id: "settle", sync: true });
  };
  const remains = async () => {
    await collect();
    const snapshots: string[] = [];
    for await (const { info } of own.engine.manager.snapshots.list({ snapshotter: "overlayfs" }))
      snapshots.push(...info.map((one) => one.name));
    const content: string[] = [];
    for await (const { info } of own.engine.manager.content.list({})) content.push(...info.map((one) => one.digest));
    return {
      snapshots,
      content: content.sort(),
      ingest: readdirSync(join(dir, way, "containerd/content/ingest")).filter((file) => !file.startsWith("deleted-")),
      leases: (await own.engine.manager.leases.list({})).leases.map((lease) => lease.id),
      images: (await own.engine.manager.images.list({})).images.map((one) => one.name),
    };
  };

  test("a pull that breaks off, or that the client gives up, goes on where it was", async () => {
    const size = 6 << 20;
    for (const how of ["broken", "cancelled"]) {
      const name = `resumed-${how}:1`;
      const { layers } = image(name, [noise(how, size)]);
      const half = layers[0]!.size >> 1;
      const leave = new AbortController();
      let times = 0;
      fake.twist((_, response, digest) => {
        if (digest !== layers[0]!.digest || times++ > 0) {
          if (digest !== layers[0]!.digest) return false;
          // the second attempt of the broken pull gets nothing
          response.destroy();
          return true;
        }
        response.writeHead(200, { "content-length": layers[0]!.size });
        response.write(Buffer.alloc(0));
        response.write(fake.blobs.get(layers[0]!.digest)!.subarray(0, half), () =>
          setTimeout(() => (how === "broken" ? response.destroy() : leave.abort()), 150),
        );
        return true;
      });
      const first = pull(name, { signal: leave.signal }).then(
        (out) => String(statuses(out).at(-1)),
        (error: Error) => error.message,
      );
      expect(await first).not.toContain("Downloaded");
      const kept = (await remains()).ingest;
      expect([how, kept.length]).toEqual([how, 1]);
      fake.twist(() => false);
      fake.ranges.length = 0;
      expect(await outcome(name)).toBe(`Status: Downloaded newer image for ${host}/${name}`);
      const [from] = fake.ranges.filter(Boolean);
      expect(Number(/bytes=(\d+)-/.exec(from!)![1])).toBeGreaterThan(half - (1 << 20));
      expect((await remains()).ingest).toEqual([]);
    }
  }, 20_000);

  test("a foreign image that is no index is taken with a warning; another operating system is not", async () => {
    image("arm:1", [noise("arm", 100)], { architecture: "arm64" });
    const wanted = statuses(await pull("arm:1", { rest: "&platform=linux/s390x" }));
    expect(wanted).toContain(
      `WARNING: image with reference ${host}/arm:1 was found but its platform (linux/arm64) does not match the specified platform (linux/s390x)`,
    );
    expect(wanted.at(-1)).toContain("Downloaded newer image");
    expect(statuses(await pull("arm:1", { rest: "&platform=linux/arm64" })).join()).not.toContain("WARNING");
    image("windows:1", [], { os: "windows" });
    expect(await outcome("windows:1", "&platform=linux/amd64")).toBe(
      'cannot download image with operating system "windows" when requesting "linux"',
    );
    const { manifest } = image("some:1", [noise("some", 100)]);
    fake.tag(
      "multi:1",
      fake.put(
        JSON.stringify({
          schemaVersion: 2,
          mediaType: MEDIA.ociIndex,
          manifests: [{ ...manifest, platform: { os: "linux", architecture: "amd64" } }],
        }),
        MEDIA.ociIndex,
      ),
    );
    expect(await outcome("multi:1", "&platform=linux/s390x")).toBe(
      `no matching manifest for linux/s390x in the manifest list entries: ${host}/multi:1`,
    );
  });

  test("hostile manifests are refused with a reason, and nothing of them stays", async () => {
    const layer = noise("x", 1000);
    const good = fake.put(gzipSync(layer), MEDIA.ociLayerGzip);
    const config = fake.config([digestOf(layer)]);
    const before = await remains();
    const cases: [name: string, manifest: Descriptor, message: RegExp][] = [];
    const refuse = (name: string, manifest: Descriptor, message: RegExp) => cases.push([name, manifest, message]);
    refuse("size-short", fake.manifest(config, [{ ...good, size: good.size - 1 }]), /longer than|bytes long|unexpected/);
    refuse("size-long", fake.manifest(config, [{ ...good, size: good.size + 1 }]), /unexpected EOF|range|bytes/);
    refuse("size-none", fake.put(JSON.stringify({ schemaVersion: 2, config, layers: [{ ...good, size: -1 }] }), MEDIA.ociManifest), /size/);
    refuse(
      "size-huge",
      fake.put(
        `{"schemaVersion":2,"config":${JSON.stringify(config)},"layers":[{"mediaType":"${MEDIA.ociLayer}","digest":"${good.digest}","size":1e30}]}`,
        MEDIA.ociManifest,
      ),
      /size/,
    );
    refuse("digest-wrong", fake.manifest(config, [{ ...good, digest: `sha256:${"0".repeat(64)}` }]), /not found|unknown/);
    refuse("digest-odd", fake.manifest(config, [{ ...good, digest: "sha256:../../etc/passwd" }]), /digest/);
    refuse("diff-id", fake.manifest(fake.config([`sha256:${"1".repeat(64)}`]), [good]), /diff id/);
    refuse("count", fake.manifest(fake.config([digestOf(layer), digestOf(layer)]), [good]), /layers from manifest don't match/);
    refuse("many", fake.manifest(fake.config(Array(1500).fill(digestOf(layer))), Array(1500).fill(good)), /layers/);
    refuse(
      "artifact",
      fake.manifest(fake.put("{}", "application/vnd.oci.empty.v1+json"), [fake.put("text", "text/plain")], { artifactType: "text/x" }),
      /unsupported layer media type text\/plain/,
    );
    refuse("no-config", fake.manifest(fake.put("not json", MEDIA.ociConfig), [good]), /config/);
    refuse("config-huge", fake.manifest({ ...config, size: 2 ** 40 }, [good]), /the limit is/);
    refuse("both", fake.put(JSON.stringify({ schemaVersion: 2, config, layers: [good], manifests: [good] }), MEDIA.ociManifest), /both/);
    refuse("schema1", fake.put(JSON.stringify({ schemaVersion: 1, fsLayers: [] }), MEDIA.dockerSchema1Signed), /schema 1/);
    refuse("not-json", fake.put("[[[[", MEDIA.ociManifest), /manifest/);
    refuse("deep", fake.put("[".repeat(1 << 20), MEDIA.ociManifest), /manifest/);
    refuse(
      "no-tar",
      fake.manifest(fake.config([digestOf("no tar at all, but long enough to be one ".repeat(50))]), [
        fake.put(gzipSync("no tar at all, but long enough to be one ".repeat(50)), MEDIA.ociLayerGzip),
      ]),
      /tar|checksum/,
    );
    let nested = fake.manifest(config, [good]);
    for (let i = 0; i < 10; i++)
      nested = fake.put(
        JSON.stringify({ schemaVersion: 2, manifests: [{ ...nested, platform: { os: "linux", architecture: "amd64" } }] }),
        MEDIA.ociIndex,
      );
    refuse("nested", nested, /nested too deeply/);
    const sneaky = tarOf([{ header: tarEntry("../../../../escape", "file"), data: Buffer.from("x") }]);
    refuse("outside", fake.manifest(fake.config([digestOf(sneaky)]), [fake.put(sneaky, MEDIA.ociLayer)]), /outside of the layer/);
    for (const [name, manifest, message] of cases) {
      fake.tag(`${name}:1`, manifest);
      const said = await outcome(`${name}:1`);
      expect([name, said]).toEqual([name, expect.stringMatching(message)]);
    }
    // what broke off may be gone on with
    expect({ ...(await remains()), ingest: [] }).toEqual({ ...before, ingest: [] });
  }, 60_000);

  test("what is up to date costs one question, which registries do not count as a pull", async () => {
    image("same:1", [noise("same", 100)]);
    await pull("same:1");
    fake.asked.length = 0;
    expect(statuses(await pull("same:1"))).toEqual([
      "Pulling from same",
      expect.stringMatching(/^Digest: sha256:/),
      `Status: Image is up to date for ${host}/same:1`,
    ]);
    expect(fake.asked).toEqual(["HEAD /v2/same/manifests/1"]);
    image("same:1", [noise("same", 101)]);
    expect(await outcome("same:1")).toContain("Downloaded newer image");
  });

  test("an index of one platform with its attestations is kept whole", async () => {
    const { manifest } = image("attested:1", [noise("attested", 100)]);
    const statement = fake.put('{"_type":"https://in-toto.io/Statement/v0.1"}', "application/vnd.in-toto+json");
    const about = fake.manifest(fake.config([statement.digest], { architecture: "unknown", os: "unknown" }), [statement]);
    const annotations = { "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": manifest.digest };
    const index = fake.put(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: MEDIA.ociIndex,
        manifests: [
          { ...manifest, platform: { os: "linux", architecture: "amd64" } },
          { ...about, platform: { os: "unknown", architecture: "unknown" }, annotations },
          { ...manifest, digest: `sha256:${"5".repeat(64)}`, annotations, platform: { os: "unknown", architecture: "unknown" } },
        ].slice(0, way === "layers" ? 2 : 3),
      }),
      MEDIA.ociIndex,
    );
    fake.tag("attested:1", index);
    expect(await outcome("attested:1")).toContain("Downloaded newer image");
    await collect();
    for (const { digest } of [index, about, statement]) await own.engine.manager.content.info({ digest });
    const { stream } = (await own.ask("GET", `/images/get?names=${host}/attested:1`)) as { stream: AsyncIterable<Uint8Array> };
    const tar = Buffer.concat(await Array.fromAsync(stream)).toString("latin1");
    for (const { digest } of [index, about, statement, manifest]) expect(tar).toContain(`blobs/sha256/${digest.slice(7)}`);
  });

  test("so many layers at a time as the configuration says; the others wait, and say so", async () => {
    const { layers } = image(
      "limited:1",
      Array.from({ length: 8 }, (_, i) => noise(`limited${i}`, 20_000)),
    );
    const digests = new Set(layers.map(({ digest }) => digest));
    let running = 0;
    let most = 0;
    fake.twist((_, response, digest) => {
      if (!digest || !digests.has(digest)) return false;
      most = Math.max(most, ++running);
      setTimeout(() => {
        running--;
        response.end(fake.blobs.get(digest));
      }, 40);
      return true;
    });
    const out = statuses(await pull("limited:1"));
    expect(most).toBe(3);
    expect(out.filter((line) => line === "Waiting").length).toBe(5);
    expect(out.filter((line) => line === "Pull complete").length).toBe(8);
  });

  test("a search asks the registry that the term names, and filters what it says", async () => {
    const results = [
      { name: "one", description: "first", star_count: 50, is_official: true },
      { name: "two", description: "", star_count: 5, is_official: false, is_automated: true },
      { name: 3, star_count: "many" },
    ];
    const urls: string[] = [];
    fake.twist((request, response) => {
      if (!request.url!.startsWith("/v1/search")) return false;
      urls.push(request.url!);
      response.end(JSON.stringify({ results }));
      return true;
    });
    const search = (query: string) => own.json<{ name: string }[]>("GET", `/images/search?term=${host}/some&${query}`);
    const filter = (filters: object) => `filters=${encodeURIComponent(JSON.stringify(filters))}`;
    expect(await search("limit=10")).toEqual([
      { name: "one", description: "first", star_count: 50, is_official: true, is_automated: false },
      { name: "two", description: "", star_count: 5, is_official: false, is_automated: true },
      { name: "", description: "", star_count: 0, is_official: false, is_automated: false },
    ] as never);
    expect(urls).toEqual(["/v1/search?q=some&n=10"]);
    expect((await search(filter({ "is-official": ["true"] }))).map(({ name }) => name)).toEqual(["one"]);
    expect((await search(filter({ stars: ["5"] }))).map(({ name }) => name)).toEqual(["one", "two"]);
    expect(await failure(search("limit=101"))).toEqual(["InvalidArgument", "limit 101 is outside the range of [1, 100]"]);
    expect(await failure(search(filter({ stars: ["x"] })))).toEqual(["InvalidArgument", "invalid filter 'stars=[x]'"]);
  });

  test("hundreds of layers are pulled, or refused where the kernel can't stack them, in bounded time", async () => {
    const layers = Array.from({ length: 120 }, (_, i) => tarOf([{ header: tarEntry(`f${i}`, "file"), data: Buffer.from(String(i)) }]));
    image("hundred:1", layers);
    expect(await outcome("hundred:1")).toContain("Downloaded newer image");
  }, 60_000);

  test("a registry that stalls or never ends is given up", async () => {
    const { layers } = image("endless:1", [noise("e", 2000)]);
    fake.twist((_, response, digest) => {
      if (digest !== layers[0]!.digest) return false;
      response.writeHead(200);
      const more = () => {
        while (!response.destroyed && response.write(Buffer.alloc(64 << 10)));
        if (!response.destroyed) response.once("drain", more);
      };
      more();
      return true;
    });
    expect(await outcome("endless:1")).toMatch(/longer than/);
    fake.twist((request, response) => {
      if (!request.url!.includes("/manifests/")) return false;
      response.writeHead(200, { "content-type": MEDIA.ociManifest });
      const more = () => {
        while (!response.destroyed && response.write(Buffer.alloc(64 << 10, " ")));
        if (!response.destroyed) response.once("drain", more);
      };
      more();
      return true;
    });
    expect(await outcome("endless:1")).toMatch(/the limit is/);
  }, 20_000);

  test("garbage is collected all the while: pulls that share layers come out whole", async () => {
    const shared = noise("shared", 300_000);
    const names = Array.from({ length: 6 }, (_, i) => `together-${i}:1`);
    const made = names.map((name, i) =>
      image(name, [shared, noise(name, 200_000), i % 2 ? noise(`${name}-more`, 50_000) : shared].slice(0, i % 2 ? 3 : 2)),
    );
    fake.twist((_, response, digest) => {
      // slow, so that collections come in between
      const bytes = digest ? fake.blobs.get(digest) : undefined;
      if (!bytes || bytes.length < 10_000) return false;
      response.writeHead(200, { "content-length": bytes.length });
      const send = (at: number) => {
        if (at >= bytes.length) response.end();
        else response.write(bytes.subarray(at, at + 60_000), () => setTimeout(() => send(at + 60_000), 15));
      };
      send(0);
      return true;
    });
    let collecting = true;
    const collector = (async () => {
      while (collecting) {
        await collect();
        await Bun.sleep(5);
      }
    })();
    const outcomes = await Promise.all(names.map((name) => outcome(name)));
    collecting = false;
    await collector;
    expect(outcomes).toEqual(names.map((name) => `Status: Downloaded newer image for ${host}/${name}`));
    await collect();
    for (const [i, name] of names.entries()) {
      const { chainId } = await own.engine.images.resolve(`${host}/${name}`);
      await own.engine.manager.snapshots.stat({ snapshotter: "overlayfs", key: chainId });
      for (const layer of made[i]!.layers) await own.engine.manager.content.info({ digest: layer.digest });
    }
    // and what is taken away goes, but what the others need
    await own.ask("DELETE", `/images/${host}/${names[0]}`);
    await collect();
    const left = (await remains()).content;
    expect(left).toContain(made[1]!.layers[0]!.digest);
    expect(left).not.toContain(made[0]!.layers[1]!.digest);
  }, 30_000);
});
