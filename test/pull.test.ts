// Pull from a real registry on loopback, filled by skopeo, and from ones that misbehave.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash, randomBytes } from "node:crypto";
import { readdirSync, statSync, truncateSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { busyboxTar, lacks, sh, startEngine, type TestEngine, until } from "./support/engine.ts";
import { startRegistry, type TestRegistry } from "./support/registry.ts";

describe.skipIf(lacks("docker", "docker-registry", "skopeo"))("pull", () => {
  let engine: TestEngine;
  let registry: TestRegistry;
  beforeAll(async () => {
    [engine, registry] = await Promise.all([startEngine({ image: false }), startRegistry()]);
  });
  afterAll(async () => {
    await engine?.stop();
    await registry?.[Symbol.asyncDispose]();
  });

  test("pulls, says so as Docker does, runs, and is up to date the second time", () => {
    registry.push("some/busybox:1");
    const name = `${registry.address}/some/busybox:1`;
    const first = engine.docker("pull", name);
    expect(first.status).toBe(0);
    expect(first.stdout).toContain("1: Pulling from some/busybox\n");
    expect(first.stdout).toMatch(/[0-9a-f]{12}: Pull complete\n/);
    expect(first.stdout).toMatch(/Digest: sha256:[0-9a-f]{64}\n/);
    expect(first.stdout).toContain(`Status: Downloaded newer image for ${name}\n`);
    expect(engine.docker("run", "--rm", name, "echo", "pulled").stdout).toBe("pulled\n");
    expect(engine.docker("pull", name).stdout).toContain(`Status: Image is up to date for ${name}\n`);
    const digest = engine.docker("inspect", "-f", "{{index .RepoDigests 0}}", name).stdout.trim();
    expect(engine.docker("pull", digest).status).toBe(0);
    expect(engine.docker("rmi", "-f", name, digest).status).toBe(0);
    expect(engine.docker("images", "-q").stdout).toBe("");
  });

  test("a run pulls what is missing", () => {
    registry.push("auto:latest");
    const result = engine.docker("run", "--rm", `${registry.address}/auto`, "echo", "ran");
    expect(result.stdout).toBe("ran\n");
    expect(result.stderr).toContain(`Unable to find image '${registry.address}/auto:latest' locally`);
  });

  test("zstd layers, OCI manifests", () => {
    registry.push("zstd:1", "--format", "oci", "--dest-compress", "--dest-compress-format", "zstd");
    const pulled = engine.docker("pull", `${registry.address}/zstd:1`);
    expect(pulled.stderr).toBe("");
    expect(engine.docker("run", "--rm", `${registry.address}/zstd:1`, "echo", "z").stdout).toBe("z\n");
  });

  test("all tags of a repository", () => {
    registry.push("many:1");
    registry.push("many:two");
    expect(engine.docker("pull", "-a", `${registry.address}/many`).stderr).toBe("");
    expect(engine.docker("images", "--format", "{{.Tag}}", `${registry.address}/many`).stdout).toBe("1\ntwo\n");
    expect(engine.docker("rmi", `${registry.address}/many:1`, `${registry.address}/many:two`).status).toBe(0);
    expect(engine.docker("pull", "-a", `${registry.address}/none`).stderr).toContain("not found");
  });

  test("what is not there is said as Docker says it", () => {
    const missing = engine.docker("pull", `${registry.address}/some/busybox:nope`);
    expect(missing.status).toBe(1);
    expect(missing.stderr).toMatch(/manifest for .*some\/busybox:nope not found: manifest unknown/);
    const refused = engine.docker("pull", "127.0.0.1:1/x:y");
    expect(refused.status).toBe(1);
    expect(refused.stderr).toContain("connection refused");
    expect(engine.docker("pull", "upper/CASE").stderr).toMatch(/repository name .*must be lowercase/);
  });

  test("a layer that is truncated on the registry's disk fails the pull and leaves nothing", () => {
    registry.push("broken:1");
    const blobs = join(registry.dir, "data/docker/registry/v2/blobs/sha256");
    const files = readdirSync(blobs, { recursive: true, encoding: "utf8" })
      .filter((f) => f.endsWith("/data"))
      .map((f) => join(blobs, f));
    const largest = files.sort((a, b) => statSync(b).size - statSync(a).size)[0]!;
    engine.docker("rmi", "-f", ...engine.docker("images", "-q").stdout.split("\n").filter(Boolean));
    engine.docker("image", "prune", "-af");
    truncateSync(largest, statSync(largest).size >> 1);
    const pulled = engine.docker("pull", `${registry.address}/broken:1`);
    expect(pulled.status).toBe(1);
    expect(engine.docker("images", "-q").stdout).toBe("");
  });

  test("a layer whose bytes do not match its digest is refused", async () => {
    const layer = Buffer.from("not what was promised");
    await using server = await serveImage(layer, { promised: digestOf(Buffer.from("something else, equally long")) });
    const pulling = await engine.dockerAsync("pull", `${server.address}/liar:1`);
    expect(pulling.status).toBe(1);
    expect(pulling.stderr).toMatch(/digest|verif/i);
    expect(engine.docker("images", "-q").stdout).toBe("");
  });

  test("a registry that goes down in the middle of a layer fails the pull in bounded time, and no image stays", async () => {
    const server = await serveImage(randomBytes(4 << 20), { half: () => server[Symbol.asyncDispose]() });
    const pulled = await engine.dockerAsync("pull", `${server.address}/gone:1`);
    expect(pulled.status).toBe(1);
    expect(pulled.stderr).toMatch(/EOF|refused|reset|closed/i);
    expect(engine.docker("images", "-q").stdout).toBe("");
  }, 30_000);

  test("an engine that is killed in the middle of a pull has nothing half done when it is back", async () => {
    const content = join(engine.dir, "root/containerd");
    const before = count(content);
    const half = Promise.withResolvers<void>();
    await using server = await serveImage(randomBytes(8 << 20), { half: half.resolve });
    const pulling = engine.dockerAsync("pull", `${server.address}/cut:1`);
    await half.promise;
    await Bun.sleep(200);
    await engine.kill();
    expect((await pulling).status).not.toBe(0);
    await engine.start();
    await until("what was half done is gone", () => count(content) <= before);
    expect(engine.docker("images", "-q").stdout).toBe("");
    expect(engine.dockerWith({ input: busyboxTar() }, "load").stdout).toBe("Loaded image: busybox:latest\n");
    expect(engine.docker("run", "--rm", "busybox", "echo", "whole").stdout).toBe("whole\n");
  }, 30_000);
});

const digestOf = (bytes: Uint8Array) => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

/** Files and directories of content and snapshots below the manager's root; directories that are made ahead of need are empty and not counted. */
function count(root: string): number {
  return Number(sh(`find ${root}/content ${root}/snapshots ${root}/io.containerd* -type f 2>/dev/null | wc -l`).stdout.trim());
}

interface ImageServer {
  address: string;
  [Symbol.asyncDispose](): Promise<void>;
}

/** A registry with one image of one plain layer: its digest may be `promised` to be another, and of its bytes only `half` come. */
async function serveImage(layer: Buffer, options: { promised?: string; half?: () => void }): Promise<ImageServer> {
  const promised = options.promised ?? digestOf(layer);
  const config = Buffer.from(
    JSON.stringify({ architecture: "amd64", os: "linux", config: {}, rootfs: { type: "layers", diff_ids: [promised] } }),
  );
  const type = (name: string) => `application/vnd.oci.image.${name}`;
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: type("manifest.v1+json"),
      config: { mediaType: type("config.v1+json"), digest: digestOf(config), size: config.length },
      layers: [{ mediaType: type("layer.v1.tar"), digest: promised, size: layer.length }],
    }),
  );
  const server = createServer((request, response) => {
    const url = request.url ?? "";
    const isManifest = url.includes("/manifests/");
    const body = isManifest ? manifest : url.endsWith(digestOf(config)) ? config : url.endsWith(promised) ? layer : Buffer.alloc(0);
    response.setHeader("content-type", isManifest ? type("manifest.v1+json") : "application/octet-stream");
    response.setHeader("docker-content-digest", digestOf(manifest));
    response.setHeader("content-length", body.length);
    if (body === layer && options.half) response.write(layer.subarray(0, layer.length >> 1), options.half);
    else response.end(request.method === "HEAD" ? undefined : body);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    address: `127.0.0.1:${(server.address() as { port: number }).port}`,
    async [Symbol.asyncDispose]() {
      server.close();
      server.closeAllConnections();
    },
  };
}
