// What a registry meets in its life: a full disk, everybody at once, an upstream that dies, a certificate that is renewed.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import { digestOf, MEDIA } from "../oci/index.ts";
import { createLayout } from "./layout.ts";
import { codes, pushBlob, pushImage, type Served, serveRegistry } from "./testing.ts";

const dir = mkdtempSync(join(tmpdir(), "jubako-registry-adversity-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const stored = (served: Served, digest: string) => existsSync(createLayout(served.root).blob(digest));
const files = (root: string) => readdirSync(root, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile()).length;

describe("a full disk", () => {
  const root = join(dir, "full");
  beforeAll(() => {
    mkdirSync(root);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=6m", "jubako-registry-test", root]);
  });
  afterAll(() => execFileSync("umount", ["-l", root]));

  test("is told as such; what is there is served; what did not fit leaves nothing, and room is room again", async () => {
    await using served = await serveRegistry({ root, graceMs: 0, uploadAgeMs: 0 });
    const image = await pushImage(served, "a/b", "v1", "small enough");
    const kept = files(root);
    const large = randomBytes(8 << 20);
    for (const attempt of ["POST", "PUT", "PATCH"]) {
      const begun = attempt === "POST" ? undefined : await served.ask("POST", "/v2/a/b/blobs/uploads/");
      const location = begun?.headers.get("location") ?? `/v2/a/b/blobs/uploads/`;
      const path = location.replace(served.base, "");
      const response = await served.ask(
        attempt,
        attempt === "PATCH" ? path : `${path}${path.includes("?") ? "&" : "?"}digest=${digestOf(large)}`,
        large,
        { "content-type": "application/octet-stream" },
      );
      expect([attempt, response.status, await codes(response)]).toEqual([attempt, 507, ["UNKNOWN"]]);
      expect(stored(served, digestOf(large))).toBe(false);
      expect(await (await served.ask("GET", "/v2/a/b/manifests/v1")).text()).toBe(image.bytes);
      expect(await (await served.ask("GET", `/v2/a/b/blobs/${image.layer}`)).text()).toBe("small enough");
      if (begun) await served.ask("DELETE", path);
      await served.registry.collect({ dryRun: false, deleteUntagged: false });
      expect(files(root)).toBe(kept);
    }
    expect(await pushBlob(served, "a/b", randomBytes(3 << 20))).toMatch(/^sha256:/);
  });
});

test("the same blob from eight clients at once is one blob, whole", async () => {
  await using served = await serveRegistry();
  const bytes = randomBytes(3 << 20);
  const digest = digestOf(bytes);
  const begun = await Promise.all(Array.from({ length: 8 }, (_, i) => served.ask("POST", `/v2/a/b${i % 2}/blobs/uploads/`)));
  const statuses = await Promise.all(
    begun.map(async (response) => {
      const path = response.headers.get("location")!.replace(served.base, "");
      const half = bytes.length >> 1;
      const first = await served.ask("PATCH", path, bytes.subarray(0, half), { "content-range": `0-${half - 1}` });
      const next = first.headers.get("location")!.replace(served.base, "");
      return (await served.ask("PUT", `${next}${next.includes("?") ? "&" : "?"}digest=${digest}`, bytes.subarray(half))).status;
    }),
  );
  expect(statuses).toEqual(begun.map(() => 201));
  for (const name of ["a/b0", "a/b1"])
    expect(digestOf(new Uint8Array(await (await served.ask("GET", `/v2/${name}/blobs/${digest}`)).arrayBuffer()))).toBe(digest);
  expect(readdirSync(join(served.root, "docker/registry/v2/repositories/a/b0/_uploads"), { recursive: true })).toEqual([]);
});

test("what is deleted and collected while a client pulls it comes whole, once", async () => {
  await using served = await serveRegistry({ graceMs: 0 });
  const bytes = randomBytes(24 << 20);
  const digest = await pushBlob(served, "a/b", bytes);
  const [host, port] = served.registry.address.split(":");
  const got: Buffer[] = [];
  const socket = connect(Number(port), host, () =>
    socket.write(`GET /v2/a/b/blobs/${digest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`),
  );
  await new Promise<void>((resolve) =>
    socket.once("data", (piece) => {
      got.push(piece);
      socket.pause();
      resolve();
    }),
  );
  expect((await served.ask("DELETE", `/v2/a/b/blobs/${digest}`)).status).toBe(202);
  await served.registry.collect({ dryRun: false, deleteUntagged: true });
  expect(stored(served, digest)).toBe(false);
  socket.on("data", (piece) => got.push(piece));
  socket.resume();
  await new Promise((resolve) => socket.once("close", resolve));
  const all = Buffer.concat(got);
  expect(digestOf(all.subarray(all.indexOf("\r\n\r\n") + 4))).toBe(digest);
  expect((await served.ask("GET", `/v2/a/b/blobs/${digest}`)).status).toBe(404);
});

test("an upstream that dies in the middle of a blob: nobody takes a part for the whole, and it is fetched anew", async () => {
  const bytes = randomBytes(4 << 20);
  const digest = digestOf(bytes);
  let healthy = false;
  const upstream = createServer((request, response) => {
    if (!request.url!.includes("/blobs/")) return void response.end("{}");
    response.writeHead(200, { "content-length": bytes.length });
    if (request.method === "HEAD") response.end();
    else if (healthy) response.end(bytes);
    else response.write(bytes.subarray(0, 3 << 20), () => setTimeout(() => response.destroy(), 50));
  });
  await new Promise<void>((resolve) => upstream.listen(0, "127.0.0.1", resolve));
  try {
    const remote = `http://127.0.0.1:${(upstream.address() as AddressInfo).port}`;
    await using cache = await serveRegistry({ proxy: { remote, username: "", password: "", ttlMs: 0 } });
    const get = async () => {
      const response = await cache.ask("GET", `/v2/a/b/blobs/${digest}`);
      return response.status === 200 ? new Uint8Array(await response.arrayBuffer()) : new Uint8Array();
    };
    const broken = await Promise.all([get(), get()].map((one) => one.catch(() => new Uint8Array())));
    for (const one of broken) expect(one.length).toBeLessThan(bytes.length);
    expect(stored(cache, digest)).toBe(false);
    healthy = true;
    expect(digestOf(await get())).toBe(digest);
    expect(stored(cache, digest)).toBe(true);
  } finally {
    upstream.closeAllConnections();
    upstream.close();
  }
}, 30_000);

test("pushes, pulls, deletions and collections of the same repositories side by side: nobody sees half of anything", async () => {
  // longer than a busy disk holds up a push between a manifest and its tag
  await using served = await serveRegistry({ graceMs: 1000 });
  let collected = 0;
  let state = 5;
  const random = (n: number) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
  const layers = Array.from({ length: 6 }, (_, i) => `layer ${i} `.repeat(5000));
  const until = Date.now() + 2500;
  const failures: string[] = [];
  let pulled = 0;
  const worker = async (i: number) => {
    while (Date.now() < until) {
      const name = `side/${random(3)}`;
      const tag = `t${i}`;
      const image = await pushImage(served, name, tag, layers[random(layers.length)], { annotations: { i: String(random(1000)) } });
      const manifest = await served.ask("GET", `/v2/${name}/manifests/${tag}`, undefined, { accept: MEDIA.ociManifest });
      if (manifest.status !== 200) failures.push(`${name}:${tag} is ${manifest.status}`);
      else if ((await manifest.text()) !== image.bytes) failures.push(`${name}:${tag} is another`);
      const blob = await served.ask("GET", `/v2/${name}/blobs/${image.layer}`);
      if (blob.status !== 200 || digestOf(await blob.text()) !== image.layer) failures.push(`${name}: blob ${blob.status}`);
      pulled++;
      if (random(2)) await served.ask("DELETE", `/v2/${name}/manifests/${tag}`);
    }
  };
  const collecting = (async () => {
    while (Date.now() < until) {
      const { manifests, blobs } = await served.registry.collect({ dryRun: false, deleteUntagged: true });
      collected += manifests + blobs;
      await Bun.sleep(20);
    }
  })();
  await Promise.all([...Array.from({ length: 6 }, (_, i) => worker(i)), collecting]);
  expect(failures).toEqual([]);
  expect([pulled > 20, collected > 0]).toEqual([true, true]);
});

const openssl = Bun.which("openssl");
if (!openssl) console.log("skip: openssl not installed");
test.skipIf(!openssl)("a renewed certificate is taken up, for new connections; a bad one is not", async () => {
  const at = (name: string) => join(dir, name);
  for (const name of ["one", "two"])
    execFileSync(
      openssl!,
      [
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        `/CN=${name}`,
        "-days",
        "1",
        "-keyout",
        at(`${name}.key`),
        "-out",
        at(`${name}.crt`),
      ],
      { stdio: "ignore" },
    );
  const use = (certificate: string, key = certificate) => {
    cpSync(at(`${certificate}.crt`), at("used.crt"));
    cpSync(at(`${key}.key`), at("used.key"));
  };
  use("one");
  const tls = { certificate: at("used.crt"), key: at("used.key"), clientCAs: [], minimum: "TLSv1.2" as const, http2: true };
  await using served = await serveRegistry({ tls });
  const [host, port] = served.registry.address.split(":");
  const open = () =>
    new Promise<import("node:tls").TLSSocket>((resolve, reject) => {
      const socket = connectTls({ host, port: Number(port), rejectUnauthorized: false }, () => resolve(socket));
      socket.on("error", reject);
    });
  const shown = async () => {
    const socket = await open();
    const { subject } = socket.getPeerCertificate();
    socket.destroy();
    return subject.CN;
  };
  expect(await shown()).toBe("one");
  const old = await open();
  use("two");
  served.registry.reload();
  expect(await shown()).toBe("two");
  const answer = new Promise<string>((resolve) => old.once("data", (piece) => resolve(piece.toString())));
  old.write("GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n");
  expect(await answer).toStartWith("HTTP/1.1 200");
  old.destroy();
  use("one", "two");
  served.registry.reload();
  expect(served.logged.at(-1)).toContain("is not the key of");
  rmSync(at("used.key"));
  served.registry.reload();
  expect(served.logged.at(-1)).toMatch(/^error: certificate: .*ENOENT/);
  expect(await shown()).toBe("two");
});
