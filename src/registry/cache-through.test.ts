import { afterEach, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { digestOf, MEDIA } from "../oci/index.ts";
import type { ProxyConfig } from "./config.ts";
import { createLayout } from "./layout.ts";
import { codes, pushBlob, pushImage, type Served, serveRegistry } from "./testing.ts";

const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

const proxyOf = (base: string, more: Partial<ProxyConfig> = {}): ProxyConfig => ({
  remote: base,
  username: "",
  password: "",
  ttlMs: 0,
  ...more,
});
const kept = (served: Served, digest: string) => existsSync(createLayout(served.root).blob(digest));
const text = async (served: Served, path: string) => (await served.ask("GET", path)).text();

test("pulls through, keeps, and serves what it keeps while upstream is away", async () => {
  const upstream = await serveRegistry();
  await using cache = await serveRegistry({ proxy: proxyOf(upstream.base) });
  const layer = "layer ".repeat(400_000);
  const image = await pushImage(upstream, "lib/app", "v1", layer);
  expect(await text(cache, "/v2/lib/app/manifests/v1")).toBe(image.bytes);
  const head = await cache.ask("HEAD", `/v2/lib/app/blobs/${image.layer}`);
  expect([head.status, head.headers.get("content-length"), kept(cache, image.layer)]).toEqual([200, String(layer.length), false]);
  expect(digestOf(await text(cache, `/v2/lib/app/blobs/${image.layer}`))).toBe(image.layer);
  expect(await text(cache, `/v2/lib/app/blobs/${image.config}`)).toBe("{}");
  const moved = await pushImage(upstream, "lib/app", "v1", "new layer");
  expect(await text(cache, "/v2/lib/app/manifests/v1")).toBe(moved.bytes);
  const none = await cache.ask("GET", "/v2/lib/app/manifests/none");
  expect([none.status, await codes(none)]).toEqual([404, ["MANIFEST_UNKNOWN"]]);
  const blob = await cache.ask("GET", `/v2/lib/app/blobs/${digestOf("nowhere")}`);
  expect([blob.status, await codes(blob)]).toEqual([404, ["BLOB_UNKNOWN"]]);
  await upstream[Symbol.asyncDispose]();
  expect(await text(cache, "/v2/lib/app/manifests/v1")).toBe(moved.bytes);
  expect(await text(cache, `/v2/lib/app/manifests/${image.digest}`)).toBe(image.bytes);
  expect(digestOf(await text(cache, `/v2/lib/app/blobs/${image.layer}`))).toBe(image.layer);
  const unreached = await cache.ask("GET", "/v2/lib/app/manifests/v2");
  expect([unreached.status, await codes(unreached)]).toEqual([502, ["UNAVAILABLE"]]);
}, 30_000);

test("takes no pushes; asks upstream with its credentials", async () => {
  const { mkdtempSync, rmSync, writeFileSync } = await import("node:fs");
  const dir = mkdtempSync("/tmp/jubako-registry-proxy-");
  try {
    writeFileSync(`${dir}/users`, `alice:${await Bun.password.hash("secret", { algorithm: "bcrypt", cost: 4 })}\n`);
    await using upstream = await serveRegistry({ htpasswd: { realm: "r", path: `${dir}/users` } });
    const authorization = `Basic ${Buffer.from("alice:secret").toString("base64")}`;
    const own = {
      ...upstream,
      ask: (m: string, p: string, b?: Uint8Array | string, h = {}) => upstream.ask(m, p, b, { ...h, authorization }),
    };
    const image = await pushImage(own, "private/app", "v1");
    await using cache = await serveRegistry({ proxy: proxyOf(upstream.base, { username: "alice", password: "secret" }) });
    expect(await text(cache, "/v2/private/app/manifests/v1")).toBe(image.bytes);
    expect(await text(cache, `/v2/private/app/blobs/${image.layer}`)).toBe("layer");
    const push = await cache.ask("POST", "/v2/private/app/blobs/uploads/");
    expect([push.status, await codes(push)]).toEqual([405, ["UNSUPPORTED"]]);
    await using stranger = await serveRegistry({ proxy: proxyOf(upstream.base) });
    const denied = await stranger.ask("GET", "/v2/private/app/manifests/v1");
    expect([denied.status, await codes(denied)]).toEqual([403, ["DENIED"]]);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});

/** An upstream that has one blob and sends it as `send` says. */
async function upstreamOf(bytes: Buffer, send: (respond: import("node:http").ServerResponse, n: number) => void) {
  let n = 0;
  const server = createServer((request, response) => {
    if (request.method === "HEAD") response.writeHead(200, { "content-length": bytes.length }).end();
    else if (request.url?.includes("/blobs/")) send(response, ++n);
    else response.writeHead(404).end();
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { base: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked: () => n };
}

test("one download serves all who wait, from where each of them wants", async () => {
  const bytes = Buffer.alloc(6 << 20, "0123456789");
  const digest = digestOf(bytes);
  const upstream = await upstreamOf(bytes, async (response) => {
    response.writeHead(200, { "content-length": bytes.length });
    for (let at = 0; at < bytes.length; at += 1 << 20) {
      response.write(bytes.subarray(at, at + (1 << 20)));
      await Bun.sleep(20);
    }
    response.end();
  });
  await using cache = await serveRegistry({ proxy: proxyOf(upstream.base) });
  const get = (headers = {}) => cache.ask("GET", `/v2/a/b/blobs/${digest}`, undefined, headers);
  const wholes = [get(), get(), get()];
  const part = get({ range: "bytes=5000000-5000009" });
  for (const one of wholes) expect(digestOf(new Uint8Array(await (await one).arrayBuffer()))).toBe(digest);
  expect([(await part).status, await (await part).text()]).toEqual([206, "0123456789"]);
  expect([upstream.asked(), kept(cache, digest)]).toEqual([1, true]);
});

test("an upstream that lies: the client never gets the whole of it, and nothing is kept", async () => {
  const bytes = Buffer.alloc(3 << 20, "honest ");
  const upstream = await upstreamOf(bytes, (response) =>
    response.writeHead(200, { "content-length": bytes.length }).end(Buffer.alloc(bytes.length, "lies ")),
  );
  await using cache = await serveRegistry({ proxy: proxyOf(upstream.base) });
  const digest = digestOf(bytes);
  const got = await cache
    .ask("GET", `/v2/a/b/blobs/${digest}`)
    .then(
      async (response) => (response.status === 200 ? (await response.arrayBuffer()).byteLength : 0),
      () => 0,
    )
    .catch(() => 0);
  expect([got < bytes.length, kept(cache, digest)]).toEqual([true, false]);
});

test("what nobody asks for in the time to live is forgotten", async () => {
  await using upstream = await serveRegistry();
  const image = await pushImage(upstream, "a/b", "v1");
  await using cache = await serveRegistry({ proxy: proxyOf(upstream.base, { ttlMs: 300 }), graceMs: 100 });
  await text(cache, "/v2/a/b/manifests/v1");
  await text(cache, `/v2/a/b/blobs/${image.layer}`);
  const there = () => [image.digest, image.layer].map((digest) => kept(cache, digest));
  expect(there()).toEqual([true, true]);
  await Bun.sleep(400);
  // the registry does so by itself, too
  await cache.registry.expire();
  await cache.registry.collect({ dryRun: false, deleteUntagged: false });
  expect(there()).toEqual([false, false]);
  expect(await text(cache, "/v2/a/b/manifests/v1")).toBe(image.bytes);
  expect(await text(cache, `/v2/a/b/blobs/${image.layer}`)).toBe("layer");
});

test("indexes and what they name", async () => {
  await using upstream = await serveRegistry();
  const child = await pushImage(upstream, "a/multi", "@");
  const index = JSON.stringify({
    schemaVersion: 2,
    mediaType: MEDIA.ociIndex,
    manifests: [{ mediaType: MEDIA.ociManifest, digest: child.digest, size: child.bytes.length }],
  });
  await upstream.ask("PUT", "/v2/a/multi/manifests/v1", index, { "content-type": MEDIA.ociIndex });
  await pushBlob(upstream, "a/multi", "x");
  await using cache = await serveRegistry({ proxy: proxyOf(upstream.base) });
  expect(await text(cache, "/v2/a/multi/manifests/v1")).toBe(index);
  expect(await text(cache, `/v2/a/multi/manifests/${child.digest}`)).toBe(child.bytes);
});
