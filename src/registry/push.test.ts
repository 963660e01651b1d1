// distribution-spec, "Push".
import { afterAll, beforeAll, expect, test } from "bun:test";
import { existsSync, readdirSync } from "node:fs";
import { digestOf, MEDIA } from "../oci/index.ts";
import { codes, pushBlob, pushImage, raw, type Served, serveRegistry } from "./testing.ts";

let served: Served;
beforeAll(async () => {
  served = await serveRegistry({ limits: { blob: 8 << 20, manifest: 4 << 20, uploads: 50, catalog: 100 } });
});
afterAll(() => served[Symbol.asyncDispose]());

const get = async (name: string, digest: string) => (await served.ask("GET", `/v2/${name}/blobs/${digest}`)).text();

async function begin(name: string): Promise<string> {
  const response = await served.ask("POST", `/v2/${name}/blobs/uploads/`);
  expect(response.status).toBe(202);
  return response.headers.get("location")!;
}

test("Pushing a blob monolithically: POST then PUT", async () => {
  const location = await begin("push/whole");
  const digest = digestOf("hello");
  const response = await served.ask("PUT", `${location}?digest=${digest}`, "hello", { "content-type": "application/octet-stream" });
  expect([response.status, response.headers.get("location")]).toEqual([201, `/v2/push/whole/blobs/${digest}`]);
  expect(await get("push/whole", digest)).toBe("hello");
  expect(readdirSync(`${served.root}/docker/registry/v2/repositories/push/whole/_uploads`)).toEqual([]);
});

test("Pushing a blob monolithically: single POST", async () => {
  const digest = await pushBlob(served, "push/single", "in one go");
  expect(await get("push/single", digest)).toBe("in one go");
});

test("an empty blob", async () => {
  const digest = await pushBlob(served, "push/empty", "");
  const response = await served.ask("GET", `/v2/push/empty/blobs/${digest}`);
  expect([response.status, await response.text()]).toEqual([200, ""]);
});

test("a digest that the content has not is refused, and nothing is left", async () => {
  const wrong = digestOf("something else");
  for (const path of [`/v2/push/wrong/blobs/uploads/?digest=${wrong}`, undefined]) {
    const response = path
      ? await served.ask("POST", path, "bytes")
      : await served.ask("PUT", `${await begin("push/wrong")}?digest=${wrong}`, "bytes");
    expect([response.status, await codes(response)]).toEqual([400, ["DIGEST_INVALID"]]);
  }
  expect((await served.ask("HEAD", `/v2/push/wrong/blobs/${wrong}`)).status).toBe(404);
  expect(readdirSync(`${served.root}/docker/registry/v2/repositories/push/wrong/_uploads`)).toEqual([]);
});

test("Pushing a blob in chunks: in order, with Content-Range, and the last with PUT", async () => {
  const location = await begin("push/chunks");
  const first = await served.ask("PATCH", location, "01234", { "content-range": "0-4", "content-type": "application/octet-stream" });
  expect([first.status, first.headers.get("range"), first.headers.get("location")]).toEqual([202, "0-4", location]);
  const second = await served.ask("PATCH", location, "56789", { "content-range": "5-9" });
  expect([second.status, second.headers.get("range")]).toEqual([202, "0-9"]);
  const digest = digestOf("0123456789ab");
  const last = await served.ask("PUT", `${location}?digest=${digest}`, "ab", { "content-range": "10-11" });
  expect(last.status).toBe(201);
  expect(await get("push/chunks", digest)).toBe("0123456789ab");
});

test("Pushing a blob in chunks: out of order is 416 and changes nothing", async () => {
  const location = await begin("push/order");
  await served.ask("PATCH", location, "01234", { "content-range": "0-4" });
  for (const range of ["0-4", "6-10", "nonsense", "4-0"]) {
    const response = await served.ask("PATCH", location, "01234", { "content-range": range });
    expect([range, response.status, response.headers.get("range")]).toEqual([range, 416, "0-4"]);
    await response.text();
  }
  const short = await served.ask("PATCH", location, "567", { "content-range": "5-9" });
  expect([short.status, await codes(short)]).toEqual([400, ["SIZE_INVALID"]]);
  const status = await served.ask("GET", location);
  expect([status.status, status.headers.get("range")]).toEqual([204, "0-4"]);
  const digest = digestOf("01234");
  expect((await served.ask("PUT", `${location}?digest=${digest}`)).status).toBe(201);
});

test("a broken chunk is resumed where it broke; also after a restart", async () => {
  const bytes = Buffer.alloc(3_000_000, "resumed ");
  const digest = digestOf(bytes);
  const root = `${served.root}-resume`;
  const { rmSync } = await import("node:fs");
  try {
    let location: string;
    let at: number;
    {
      await using before = await serveRegistry({ root });
      location = (await before.ask("POST", "/v2/push/resume/blobs/uploads/")).headers.get("location")!;
      const head = `PATCH ${location} HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\nContent-Length: ${bytes.length}\r\n\r\n`;
      await raw(before, Buffer.concat([Buffer.from(head), bytes.subarray(0, 2_000_000)]), { hangUpAfterMs: 300 });
      const status = await before.ask("GET", location);
      expect(status.status).toBe(204);
      at = Number(status.headers.get("range")!.split("-")[1]) + 1;
      expect(at).toBeGreaterThan(0);
      const half = await before.ask("PATCH", location, bytes.subarray(at, at + 1000), { "content-range": `${at}-${at + 999}` });
      expect(half.status).toBe(202);
      await half.text();
    }
    await using after = await serveRegistry({ root });
    const status = await after.ask("GET", location);
    expect(status.headers.get("range")).toBe(`0-${at + 999}`);
    const put = await after.ask("PUT", `${location}?digest=${digest}`, bytes.subarray(at + 1000), {
      "content-range": `${at + 1000}-${bytes.length - 1}`,
    });
    expect(put.status).toBe(201);
    const back = await after.ask("GET", `/v2/push/resume/blobs/${digest}`);
    expect(digestOf(new Uint8Array(await back.arrayBuffer()))).toBe(digest);
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
});

test("a truncated PUT makes no blob; a truncated chunked body neither", async () => {
  const digest = digestOf("0123456789");
  const location = await begin("push/cut");
  await raw(served, `PUT ${location}?digest=${digest} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n01234`, { hangUpAfterMs: 200 });
  expect((await served.ask("HEAD", `/v2/push/cut/blobs/${digest}`)).status).toBe(404);
  const half = digestOf("01234");
  const other = await begin("push/cut");
  await raw(served, `PUT ${other}?digest=${half} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n`, {
    hangUpAfterMs: 200,
  });
  expect((await served.ask("HEAD", `/v2/push/cut/blobs/${half}`)).status).toBe(404);
});

test("a new request takes over an upload whose writer hangs", async () => {
  const location = await begin("push/hang");
  const hanging = raw(served, `PATCH ${location} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc`);
  await Bun.sleep(100);
  const digest = digestOf("abcdef");
  const put = await served.ask("PUT", `${location}?digest=${digest}`, "def");
  expect(put.status).toBe(201);
  await hanging;
});

test("Cancel an upload; what was never begun is BLOB_UPLOAD_UNKNOWN", async () => {
  const location = await begin("push/cancel");
  expect((await served.ask("DELETE", location)).status).toBe(204);
  for (const path of [location, "/v2/push/cancel/blobs/uploads/00000000-0000-4000-8000-000000000000", "/v2/push/cancel/blobs/uploads/x"]) {
    const response = await served.ask("GET", path);
    expect([response.status, await codes(response)]).toEqual([404, ["BLOB_UPLOAD_UNKNOWN"]]);
  }
  const foreign = (await begin("push/cancel")).replace("push/cancel", "push/other");
  expect((await served.ask("PATCH", foreign, "x")).status).toBe(404);
});

test("Mounting a blob from another repository; what can't be mounted begins an upload", async () => {
  const digest = await pushBlob(served, "push/from", "mounted");
  const mounted = await served.ask("POST", `/v2/push/to/blobs/uploads/?mount=${digest}&from=push/from`);
  expect([mounted.status, mounted.headers.get("location")]).toEqual([201, `/v2/push/to/blobs/${digest}`]);
  expect(await get("push/to", digest)).toBe("mounted");
  for (const query of [
    `mount=${digestOf("none")}&from=push/from`,
    `mount=${digestOf("none")}`,
    `mount=${digest}&from=push/none`,
    `mount=${digest}&from=../push/from`,
  ]) {
    const response = await served.ask("POST", `/v2/push/fresh/blobs/uploads/?${query}`);
    expect([query, response.status]).toEqual([query, 202]);
  }
});

test("Mounting a blob without saying from where: where all may read everything, it is found", async () => {
  const digest = await pushBlob(served, "push/from", "found");
  const mounted = await served.ask("POST", `/v2/push/automatic/blobs/uploads/?mount=${digest}`);
  expect([mounted.status, mounted.headers.get("location")]).toEqual([201, `/v2/push/automatic/blobs/${digest}`]);
  expect(await get("push/automatic", digest)).toBe("found");
});

test("Pushing Manifests: of the size that every registry must take, by digests of both algorithms", async () => {
  const { bytes } = await pushImage(served, "push/large", "v1");
  const whole = JSON.stringify({ ...JSON.parse(bytes), annotations: { pad: "" } });
  const large = whole.replace('"pad":""', `"pad":"${"x".repeat((4 << 20) - whole.length)}"`);
  expect(large.length).toBe(4 << 20);
  for (const digest of [digestOf(large), digestOf(large, "sha512")]) {
    const put = await served.ask("PUT", `/v2/push/large/manifests/${digest}`, large, { "content-type": MEDIA.ociManifest });
    expect([put.status, put.headers.get("location"), put.headers.get("docker-content-digest")]).toEqual([
      201,
      `/v2/push/large/manifests/${digest}`,
      digest,
    ]);
    const got = await served.ask("GET", `/v2/push/large/manifests/${digest}`);
    expect([got.headers.get("docker-content-digest"), (await got.text()) === large]).toEqual([digest, true]);
  }
});

test("Pushing Manifests: with tag, with digest; the type must agree", async () => {
  const image = await pushImage(served, "push/manifests", "v1");
  const wrong = await served.ask("PUT", "/v2/push/manifests/manifests/v2", image.bytes, { "content-type": MEDIA.dockerManifest });
  expect([wrong.status, await codes(wrong)]).toEqual([400, ["MANIFEST_INVALID"]]);
  const digest = await served.ask("PUT", `/v2/push/manifests/manifests/sha256:${"1".repeat(64)}`, image.bytes, {
    "content-type": MEDIA.ociManifest,
  });
  expect([digest.status, await codes(digest)]).toEqual([400, ["DIGEST_INVALID"]]);
});

test("Pushing Manifests: blobs and manifests that are missing are named", async () => {
  const config = await pushBlob(served, "push/missing", "{}");
  const layer = digestOf("never pushed");
  const manifest = (layers: object[]) =>
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MEDIA.ociManifest,
      config: { mediaType: MEDIA.ociConfig, digest: config, size: 2 },
      layers,
    });
  const refused = await served.ask(
    "PUT",
    "/v2/push/missing/manifests/v1",
    manifest([{ mediaType: MEDIA.ociLayer, digest: layer, size: 12 }]),
  );
  expect([refused.status, await codes(refused)]).toEqual([404, ["MANIFEST_BLOB_UNKNOWN"]]);
  const foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar";
  expect(
    (await served.ask("PUT", "/v2/push/missing/manifests/v1", manifest([{ mediaType: foreign, digest: layer, size: 12 }]))).status,
  ).toBe(201);
  const index = { schemaVersion: 2, mediaType: MEDIA.ociIndex, manifests: [{ mediaType: MEDIA.ociManifest, digest: layer, size: 12 }] };
  const indexed = await served.ask("PUT", "/v2/push/missing/manifests/i", JSON.stringify(index), { "content-type": MEDIA.ociIndex });
  expect([indexed.status, await codes(indexed)]).toEqual([404, ["MANIFEST_BLOB_UNKNOWN"]]);
});

test("Docker schema 2 manifests and lists; schema 1 is refused", async () => {
  const name = "push/docker";
  const config = await pushBlob(served, name, "{}");
  const layer = await pushBlob(served, name, "layer");
  const manifest = JSON.stringify({
    schemaVersion: 2,
    mediaType: MEDIA.dockerManifest,
    config: { mediaType: MEDIA.dockerConfig, digest: config, size: 2 },
    layers: [{ mediaType: MEDIA.dockerLayerGzip, digest: layer, size: 5 }],
  });
  expect((await served.ask("PUT", `/v2/${name}/manifests/m`, manifest, { "content-type": MEDIA.dockerManifest })).status).toBe(201);
  const entry = {
    mediaType: MEDIA.dockerManifest,
    digest: digestOf(manifest),
    size: manifest.length,
    platform: { os: "linux", architecture: "amd64" },
  };
  const list = JSON.stringify({ schemaVersion: 2, mediaType: MEDIA.dockerList, manifests: [entry] });
  expect((await served.ask("PUT", `/v2/${name}/manifests/l`, list, { "content-type": MEDIA.dockerList })).status).toBe(201);
  for (const [tag, type] of [
    ["m", MEDIA.dockerManifest],
    ["l", MEDIA.dockerList],
  ])
    expect((await served.ask("HEAD", `/v2/${name}/manifests/${tag}`)).headers.get("content-type")).toBe(type!);
  const old = await served.ask("PUT", `/v2/${name}/manifests/o`, '{"schemaVersion":1}', { "content-type": MEDIA.dockerSchema1Signed });
  expect([old.status, await codes(old)]).toEqual([400, ["MANIFEST_INVALID"]]);
});

test("Pushing Manifests with Subject: answers OCI-Subject, also where the subject is not there", async () => {
  const subject = { mediaType: MEDIA.ociManifest, digest: digestOf("not there"), size: 9 };
  const { bytes } = await pushImage(served, "push/subject", "v1");
  const manifest = JSON.stringify({ ...JSON.parse(bytes), subject });
  const response = await served.ask("PUT", `/v2/push/subject/manifests/${digestOf(manifest)}`, manifest, {
    "content-type": MEDIA.ociManifest,
  });
  expect([response.status, response.headers.get("oci-subject")]).toEqual([201, subject.digest]);
});

test("limits: more uploads at a time than are taken wait their turn", async () => {
  await using busy = await serveRegistry({ limits: { blob: 8 << 20, manifest: 4 << 20, uploads: 1, catalog: 100 } });
  const begun = async () => (await busy.ask("POST", "/v2/push/busy/blobs/uploads/")).headers.get("location")!;
  const hanging = raw(busy, `PATCH ${await begun()} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc`, { hangUpAfterMs: 500 });
  await Bun.sleep(100);
  const refused = await busy.ask("PATCH", await begun(), "x");
  expect([refused.status, refused.headers.get("retry-after"), await codes(refused)]).toEqual([429, "1", ["TOOMANYREQUESTS"]]);
  await hanging;
  expect((await busy.ask("PATCH", await begun(), "x")).status).toBe(202);
});

test("limits: blobs and manifests that are too large", async () => {
  const big = Buffer.alloc((8 << 20) + 1);
  const announced = await served.ask("POST", `/v2/push/big/blobs/uploads/?digest=${digestOf(big)}`, big);
  expect([announced.status, await codes(announced)]).toEqual([413, ["SIZE_INVALID"]]);
  const location = await begin("push/big");
  const stream = new ReadableStream<Uint8Array>({
    start(controller) {
      for (let i = 0; i < 9; i++) controller.enqueue(new Uint8Array(1 << 20));
      controller.close();
    },
  });
  const chunked = await fetch(served.base + location, { method: "PATCH", body: stream });
  expect([chunked.status, await codes(chunked)]).toEqual([413, ["SIZE_INVALID"]]);
  const manifest = await served.ask("PUT", "/v2/push/big/manifests/v1", Buffer.alloc((4 << 20) + 1, 32), {
    "content-type": MEDIA.ociManifest,
  });
  expect([manifest.status, await codes(manifest)]).toEqual([413, ["SIZE_INVALID"]]);
});

test("hostile names, references and digests", async () => {
  const request = async (method: string, path: string) => {
    const back = await raw(served, `${method} ${path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
    return Number(/^HTTP\/1\.1 (\d+)/.exec(back)?.[1]);
  };
  for (const [path, status] of [
    ["/v2/../../etc/manifests/x", 400],
    ["/v2/a/../b/blobs/uploads/", 400],
    ["/v2/a%2f..%2f..%2fb/blobs/uploads/", 400],
    ["/v2/%2e%2e/blobs/uploads/", 400],
    ["/v2/A/blobs/uploads/", 400],
    ["/v2/a//b/blobs/uploads/", 400],
    ["/v2/_uploads/blobs/uploads/", 400],
    ["/v2/a/_layers/blobs/uploads/", 400],
    ["/v2/a%00b/blobs/uploads/", 400],
    ["/v2/%ff/blobs/uploads/", 400],
    [`/v2/${"a/".repeat(200)}a/blobs/uploads/`, 400],
  ] as [string, number][])
    expect([path, await request("POST", path)]).toEqual([path, status]);
  for (const path of ["/v2/a/manifests/..%2f..%2fx", "/v2/a/manifests/.hidden", `/v2/a/manifests/${"t".repeat(129)}`])
    expect([path, await request("GET", path)]).toEqual([path, 404]);
  for (const digest of [
    "sha256:..",
    `sha256:${"A".repeat(64)}`,
    `md5:${"0".repeat(32)}`,
    "sha256:",
    `sha256:${"0".repeat(63)}`,
    `../sha256:${"0".repeat(64)}`,
  ])
    expect([digest, [400, 404].includes(await request("GET", `/v2/a/blobs/${digest}`))]).toEqual([digest, true]);
  expect(existsSync(`${served.root}/docker/registry/v2/repositories/a`)).toBe(false);
  expect(await request("POST", "/v2/a/blobs/uploads/?digest=nonsense")).toBe(400);
});

test("manifests that are no manifests", async () => {
  for (const body of [
    "",
    "[]",
    "null",
    "{",
    '{"schemaVersion":2}',
    `{"schemaVersion":2,"config":{"digest":"sha256:../..","size":1}}`,
    `${"[".repeat(100_000)}`,
  ]) {
    const response = await served.ask("PUT", "/v2/push/nonsense/manifests/v1", body, { "content-type": MEDIA.ociManifest });
    expect([response.status, await codes(response)]).toEqual([400, ["MANIFEST_INVALID"]]);
  }
});

test("methods that are not there are 405 with those that are", async () => {
  const response = await served.ask("PATCH", "/v2/a/tags/list");
  expect([response.status, response.headers.get("allow"), await codes(response)]).toEqual([405, "GET", ["UNSUPPORTED"]]);
});
