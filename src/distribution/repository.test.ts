import { afterEach, expect, test } from "bun:test";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { digestOf, MEDIA, parseTagged } from "../oci/index.ts";
import { parseChallenges } from "./auth.ts";
import { pullFailure } from "./errors.ts";
import { isInsecure } from "./hosts.ts";
import { openRepository } from "./index.ts";

const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

type Handler = (request: IncomingMessage, response: ServerResponse, n: number) => void;

/** A registry on loopback that behaves as `handle` says; `n` counts its requests. */
async function serve(handle: Handler): Promise<{ host: string; seen: IncomingMessage[] }> {
  const seen: IncomingMessage[] = [];
  const server = createServer((request, response) => {
    seen.push(request);
    handle(request, response, seen.length);
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { host: `127.0.0.1:${(server.address() as AddressInfo).port}`, seen };
}

const config = { insecure: [], mirrors: [], timeoutMs: 400 };
const open = (host: string, credentials?: object) => openRepository(parseTagged(`${host}/a/b:1`), config, credentials);
const failure = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => "no failure",
    (error: Error) => error.message,
  );
const BLOB = Buffer.from("0123456789".repeat(20_000));
const LAYER = { mediaType: MEDIA.ociLayer, digest: digestOf(BLOB), size: BLOB.length };

async function collect(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of stream) parts.push(part);
  return Buffer.concat(parts);
}

test("a manifest is verified, bounded, and its absence told as Docker tells it", async () => {
  const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, config: { digest: LAYER.digest, size: 1 }, layers: [] }));
  const { host } = await serve((request, response) => {
    if (request.url === "/v2/a/b/manifests/1") response.setHeader("content-type", MEDIA.ociManifest).end(manifest);
    else if (request.url?.includes("sha256:")) response.end("something else");
    else if (request.url?.endsWith("/big")) response.end(Buffer.alloc(5 << 20));
    else if (request.url?.endsWith("/secret"))
      response.writeHead(403).end('{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}');
    else response.writeHead(404).end('{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}');
  });
  const repository = open(host);
  const { descriptor, bytes } = await repository.manifest("1");
  expect([descriptor.digest, descriptor.mediaType, bytes.length]).toEqual([digestOf(manifest), MEDIA.ociManifest, manifest.length]);
  expect(await failure(repository.manifest(descriptor.digest))).toContain("verification failed");
  expect(await failure(repository.manifest("big"))).toContain("the limit is");
  const said = async (tag: string) => {
    const error = (await repository.manifest(tag).catch((e) => pullFailure(e, parseTagged(`${host}/a/b:${tag}`)))) as Error;
    return [error.name, error.message];
  };
  expect(await said("none")).toEqual(["NotFound", `manifest for ${host}/a/b:none not found: manifest unknown: manifest unknown`]);
  expect(await said("secret")).toEqual([
    "NotFound",
    `pull access denied for ${host}/a/b, repository does not exist or may require 'docker login': denied: requested access to the resource is denied`,
  ]);
});

test("a blob that breaks off is resumed where it broke, with and without ranges", async () => {
  for (const ranges of [true, false]) {
    let at = 0;
    const { host, seen } = await serve((request, response, n) => {
      const from = ranges ? Number(/bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0) : 0;
      if (from > 0)
        response.writeHead(206, {
          "content-range": `bytes ${from}-${BLOB.length - 1}/${BLOB.length}`,
          "content-length": BLOB.length - from,
        });
      else response.writeHead(200, { "content-length": BLOB.length });
      if (n < 3) {
        at += 60_000;
        response.write(BLOB.subarray(from, at), () => setTimeout(() => request.socket.destroy(), 20));
      } else response.end(BLOB.subarray(from));
    });
    const retries: number[] = [];
    const got = await collect(open(host).stream(LAYER, { onRetry: (_, delay) => retries.push(delay) }));
    expect(got.equals(BLOB)).toBe(true);
    expect(seen.length).toBe(3);
    expect(retries.length).toBe(2);
    if (ranges) expect(seen[1]!.headers.range).toStartWith("bytes=");
  }
}, 20_000);

test("a wrong digest, a wrong length, and a server that stays silent end the fetch", async () => {
  const other = Buffer.from(BLOB);
  other[5] = 0;
  const wrong = await serve((_, response) => response.end(other));
  expect(await failure(collect(open(wrong.host).stream(LAYER)))).toContain("verification failed");
  const long = await serve((_, response) => response.end(Buffer.concat([BLOB, BLOB])));
  expect(await failure(collect(open(long.host).stream(LAYER)))).toContain("longer than");
  const missing = await serve((_, response) => response.writeHead(404).end());
  expect(await failure(collect(open(missing.host).stream(LAYER)))).toContain("not found");
  const silent = await serve(() => {});
  const begin = Date.now();
  expect(await failure(open(silent.host).manifest("1"))).toContain("no answer in 0.4 seconds");
  expect(Date.now() - begin).toBeLessThan(5000);
});

test("a registry that stalls in the middle is given up after a few attempts", async () => {
  const { host, seen } = await serve((request, response) => {
    const from = Number(/bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0);
    response.writeHead(from ? 206 : 200, {
      "content-range": `bytes ${from}-${BLOB.length - 1}/${BLOB.length}`,
      "content-length": BLOB.length - from,
    });
    if (from === 0) response.write(BLOB.subarray(0, 1000));
    else response.flushHeaders();
  });
  const controller = new AbortController();
  const got = failure(collect(open(host).stream(LAYER, { signal: controller.signal })));
  await Bun.sleep(2500);
  expect(seen.length).toBeGreaterThan(1);
  controller.abort(new Error("given up"));
  expect(await got).toContain("given up");
}, 10_000);

test("a registry that trickles is given up after a few attempts", async () => {
  const { host, seen } = await serve((request, response) => {
    const from = Number(/bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0);
    response.writeHead(from > 0 ? 206 : 200, from > 0 ? { "content-range": `bytes ${from}-${BLOB.length - 1}/${BLOB.length}` } : {});
    let at = from;
    const timer = setInterval(() => response.write(BLOB.subarray(at, ++at)), 20);
    response.on("close", () => clearInterval(timer));
  });
  const slow = openRepository(parseTagged(`${host}/a/b`), { ...config, timeoutMs: 500, attempts: 2 });
  const began = performance.now();
  expect(await failure(collect(slow.stream(LAYER)))).toMatch(/only \d+ bytes in \d+ seconds/);
  expect(seen.length).toBe(2);
  expect(performance.now() - began).toBeLessThan(5000);
});

test("credentials go to the registry and its token service, and to no other host", async () => {
  const elsewhere = await serve((_, response) => response.end(BLOB));
  const token = await serve((_, response) => response.end('{"token":"T0KEN","expires_in":300}'));
  const { host, seen } = await serve((request, response) => {
    if (request.headers.authorization !== "Bearer T0KEN") {
      response
        .writeHead(401, { "www-authenticate": `Bearer realm="http://${token.host}/token",service="reg",scope="repository:a/b:pull"` })
        .end();
    } else response.writeHead(307, { location: `http://${elsewhere.host}/data` }).end();
  });
  const repository = open(host, { username: "me", password: "secret" });
  expect((await collect(repository.stream(LAYER))).equals(BLOB)).toBe(true);
  expect((await collect(repository.stream(LAYER))).equals(BLOB)).toBe(true);
  expect(token.seen.length).toBe(1);
  expect(token.seen[0]!.headers.authorization).toBe(`Basic ${Buffer.from("me:secret").toString("base64")}`);
  expect(token.seen[0]!.url).toContain("scope=repository%3Aa%2Fb%3Apull");
  expect(seen.length).toBe(3);
  for (const request of elsewhere.seen) expect(request.headers.authorization).toBeUndefined();
  const basic = await serve((request, response) => {
    if (request.headers.authorization?.startsWith("Basic ")) response.end(BLOB);
    else response.writeHead(401, { "www-authenticate": 'Basic realm="x"' }).end();
  });
  expect((await collect(open(basic.host, { username: "me", password: "p" }).stream(LAYER))).length).toBe(BLOB.length);
  expect(await failure(collect(open(basic.host).stream(LAYER)))).toContain("unauthorized");
});

test("redirects to other schemes, endless ones and token services without TLS are refused", async () => {
  const file = await serve((_, response) => response.writeHead(302, { location: "file:///etc/passwd" }).end());
  expect(await failure(open(file.host).manifest("1"))).toContain("refusing to follow");
  const loop = await serve((_, response) => response.writeHead(302, { location: "/again" }).end());
  expect(await failure(open(loop.host).manifest("1"))).toContain("10 redirects");
});

test("a mirror is asked first, and its failure is not the end", async () => {
  expect(await failure(openRepository(parseTagged("busybox"), { ...config, mirrors: ["http://127.0.0.1:9"] }).manifest("latest"))).toMatch(
    /registry-1\.docker\.io|no such host|no answer/,
  );
  const mirror = await serve((_, response) => response.setHeader("content-type", MEDIA.ociIndex).end('{"schemaVersion":2,"manifests":[]}'));
  const { descriptor } = await openRepository(parseTagged("busybox"), { ...config, mirrors: [`http://${mirror.host}`] }).manifest("latest");
  expect(descriptor.mediaType).toBe(MEDIA.ociIndex);
  expect(mirror.seen[0]!.url).toBe("/v2/library/busybox/manifests/latest");
});

test("nobody there is told at once, in Go's words", async () => {
  expect(await failure(openRepository(parseTagged("127.0.0.1:9/x"), config).manifest("1"))).toBe(
    'Get "http://127.0.0.1:9/v2/": dial tcp 127.0.0.1:9: connect: connection refused',
  );
});

test("a foreign layer comes from where its descriptor says, without credentials; other layers do not", async () => {
  const other = await serve((request, response) => {
    if (request.url === "/moved") response.writeHead(302, { location: "/layer" }).end();
    else if (request.url === "/layer") response.end(BLOB);
    else response.writeHead(404).end();
  });
  const { host } = await serve((_, response) => response.writeHead(404).end('{"errors":[{"code":"BLOB_UNKNOWN","message":"no"}]}'));
  const urls = ["file:///etc/passwd", `http://${other.host}/none`, `http://${other.host}/moved`];
  const repository = open(host, { username: "me", password: "secret" });
  const mediaType = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
  expect((await collect(repository.stream({ ...LAYER, mediaType, urls }))).equals(BLOB)).toBe(true);
  expect(other.seen.map(({ url, headers }) => [url, headers.authorization])).toEqual([
    ["/none", undefined],
    ["/moved", undefined],
    ["/layer", undefined],
  ]);
  const lying = `sha256:${"0".repeat(64)}`;
  expect(await failure(collect(repository.stream({ ...LAYER, digest: lying, mediaType, urls })))).toContain("verification failed");
  expect(await failure(collect(repository.stream({ ...LAYER, urls })))).toContain("blob unknown");
  expect(await failure(collect(repository.stream({ ...LAYER, mediaType, urls: [urls[0]!] })))).toContain("blob unknown");
});

test("a referrer is listed under its subject's tag where the registry keeps no list", async () => {
  const kept = new Map<string, { body: Buffer; type: string }>();
  let lists = false;
  const { host } = await serve((request, response) => {
    const at = request.url!.split("/").at(-1)!;
    if (request.method === "PUT") {
      const parts: Buffer[] = [];
      request.on("data", (part) => parts.push(part));
      request.on("end", () => {
        kept.set(at, { body: Buffer.concat(parts), type: request.headers["content-type"]! });
        response.writeHead(201, lists ? { "oci-subject": LAYER.digest } : {}).end();
      });
    } else if (kept.has(at)) response.setHeader("content-type", kept.get(at)!.type).end(kept.get(at)!.body);
    else response.writeHead(404).end('{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}');
  });
  const repository = open(host);
  const push = (more: object, mediaType: string = MEDIA.ociManifest) => {
    const subject = { mediaType: MEDIA.ociManifest, digest: LAYER.digest, size: 1 };
    const config =
      mediaType === MEDIA.ociManifest ? { config: { mediaType: "application/vnd.config", digest: LAYER.digest, size: 1 } } : {};
    const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, ...config, subject, ...more }));
    return repository.pushManifest({ mediaType, digest: digestOf(bytes), size: bytes.length }, bytes, undefined);
  };
  const tag = LAYER.digest.replace(":", "-");
  const listed = () => JSON.parse(kept.get(tag)!.body.toString());
  const first = await push({ layers: [] });
  expect(listed()).toMatchObject({ schemaVersion: 2, mediaType: MEDIA.ociIndex });
  expect(listed().manifests).toMatchObject([{ mediaType: MEDIA.ociManifest, digest: first, artifactType: "application/vnd.config" }]);
  await push({ layers: [] });
  expect(listed().manifests.length).toBe(1);
  const second = await push({ layers: [], artifactType: "application/vnd.sbom", annotations: { a: "b" } });
  const third = await push({ manifests: [] }, MEDIA.ociIndex);
  const { manifests } = listed();
  expect(manifests.map((one: { digest: string }) => one.digest)).toEqual([first, second, third]);
  expect(manifests[1]).toMatchObject({ artifactType: "application/vnd.sbom", annotations: { a: "b" } });
  expect("artifactType" in manifests[2]).toBe(false);
  lists = true;
  await push({ layers: [], annotations: { c: "d" } });
  expect(listed().manifests.length).toBe(3);
  lists = false;
  kept.set(tag, { body: Buffer.from('{"schemaVersion":2,"config":{},"layers":[]}'), type: MEDIA.ociManifest });
  expect(await failure(push({ layers: [], annotations: { e: "f" } }))).toContain("the tag for the list of referrers names something else");
});

test("challenges and insecure hosts", () => {
  expect(parseChallenges('Bearer realm="https://a/t?x=1,2",service="s \\"q\\"", scope=abc, Basic realm="r"')).toEqual([
    { scheme: "bearer", parameters: { realm: "https://a/t?x=1,2", service: 's "q"', scope: "abc" } },
    { scheme: "basic", parameters: { realm: "r" } },
  ]);
  expect(parseChallenges("Negotiate, Basic")).toEqual([{ scheme: "basic", parameters: {} }]);
  expect(parseChallenges(`${"a=".repeat(5000)}"`)).toEqual([]);
  const insecure = ["10.0.0.0/8", "reg.example:5000"];
  expect(["localhost:5000", "127.9.9.9", "10.1.2.3:80", "reg.example:5000"].every((host) => isInsecure(host, { insecure }))).toBe(true);
  expect(["reg.example", "11.0.0.1", "localhost.example", "docker.io"].some((host) => isInsecure(host, { insecure }))).toBe(false);
});
