// Pull from a real registry on loopback, filled by skopeo, and from ones that misbehave.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash, randomBytes } from "node:crypto";
import { readdirSync, statSync, truncateSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { join } from "node:path";
import { lacks, startEngine, type TestEngine } from "./support/engine.ts";
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
    const promised = `sha256:${createHash("sha256").update("something else, equally long").digest("hex")}`;
    const config = Buffer.from(
      JSON.stringify({ architecture: "amd64", os: "linux", config: {}, rootfs: { type: "layers", diff_ids: [promised] } }),
    );
    const digestOf = (b: Buffer) => `sha256:${createHash("sha256").update(b).digest("hex")}`;
    const manifest = Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: "application/vnd.oci.image.manifest.v1+json",
        config: { mediaType: "application/vnd.oci.image.config.v1+json", digest: digestOf(config), size: config.length },
        layers: [{ mediaType: "application/vnd.oci.image.layer.v1.tar+gzip", digest: promised, size: layer.length }],
      }),
    );
    const server: Server = createServer((request, response) => {
      const url = request.url ?? "";
      const body = url.includes("/manifests/")
        ? manifest
        : url.endsWith(digestOf(config))
          ? config
          : url.includes("/blobs/")
            ? layer
            : Buffer.alloc(0);
      response.setHeader(
        "content-type",
        url.includes("/manifests/") ? "application/vnd.oci.image.manifest.v1+json" : "application/octet-stream",
      );
      response.setHeader("docker-content-digest", digestOf(manifest));
      response.setHeader("content-length", body.length);
      response.end(request.method === "HEAD" ? undefined : body);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as { port: number };
    const pulling = await engine.dockerAsync("pull", `127.0.0.1:${port}/liar:1`);
    server.close();
    server.closeAllConnections();
    expect(pulling.status).toBe(1);
    expect(pulling.stderr).toMatch(/digest|verif/i);
    expect(engine.docker("images", "-q").stdout).toBe("");
  });

  test("a registry that goes down in the middle of a layer fails the pull in bounded time, and nothing of it stays", async () => {
    const layer = randomBytes(4 << 20);
    const digestOf = (b: Buffer) => `sha256:${createHash("sha256").update(b).digest("hex")}`;
    const config = Buffer.from(
      JSON.stringify({ architecture: "amd64", os: "linux", config: {}, rootfs: { type: "layers", diff_ids: [digestOf(layer)] } }),
    );
    const descriptor = (mediaType: string, bytes: Buffer) => ({ mediaType, digest: digestOf(bytes), size: bytes.length });
    const manifest = Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: "application/vnd.oci.image.manifest.v1+json",
        config: descriptor("application/vnd.oci.image.config.v1+json", config),
        layers: [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
      }),
    );
    const server: Server = createServer((request, response) => {
      const url = request.url ?? "";
      if (url.endsWith(digestOf(layer))) {
        response.setHeader("content-length", layer.length);
        response.write(layer.subarray(0, layer.length >> 1), () => {
          server.close();
          server.closeAllConnections();
        });
        return;
      }
      const body = url.includes("/manifests/") ? manifest : url.endsWith(digestOf(config)) ? config : Buffer.alloc(0);
      response.setHeader(
        "content-type",
        url.includes("/manifests/") ? "application/vnd.oci.image.manifest.v1+json" : "application/octet-stream",
      );
      response.setHeader("docker-content-digest", digestOf(manifest));
      response.setHeader("content-length", body.length);
      response.end(request.method === "HEAD" ? undefined : body);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as { port: number };
    const pulled = await engine.dockerAsync("pull", `127.0.0.1:${port}/gone:1`);
    expect(pulled.status).toBe(1);
    expect(pulled.stderr).toMatch(/EOF|refused|reset|closed/i);
    expect(engine.docker("images", "-q").stdout).toBe("");
    const busy = readdirSync(join(engine.dir, "root"), { recursive: true, encoding: "utf8" }).filter((path) =>
      /ingest.*\/data$/.test(path),
    );
    expect(busy).toEqual([]);
  }, 30_000);
});
