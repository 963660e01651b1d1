// distribution-spec, "Pull".
import { afterAll, beforeAll, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { digestOf, MEDIA } from "../oci/index.ts";
import { codes, pushBlob, pushImage, type Served, serveRegistry } from "./testing.ts";

let served: Served;
beforeAll(async () => {
  served = await serveRegistry();
});
afterAll(() => served[Symbol.asyncDispose]());

const ABSENT = `sha256:${"0".repeat(64)}`;

test("Determining Support: GET /v2/ answers 200", async () => {
  const response = await served.ask("GET", "/v2/");
  expect([response.status, await response.text(), response.headers.get("docker-distribution-api-version")]).toEqual([
    200,
    "{}",
    "registry/2.0",
  ]);
});

test("Pulling manifests: by tag and by digest, GET and HEAD, with type and digest", async () => {
  const image = await pushImage(served, "pull/manifests", "v1");
  for (const reference of ["v1", image.digest]) {
    const response = await served.ask("GET", `/v2/pull/manifests/manifests/${reference}`);
    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toBe(MEDIA.ociManifest);
    expect(response.headers.get("docker-content-digest")).toBe(image.digest);
    expect(await response.text()).toBe(image.bytes);
    const head = await served.ask("HEAD", `/v2/pull/manifests/manifests/${reference}`);
    expect([head.status, head.headers.get("content-length"), await head.text()]).toEqual([200, String(image.bytes.length), ""]);
  }
  const again = await served.ask("GET", "/v2/pull/manifests/manifests/v1", undefined, { "if-none-match": `"${image.digest}"` });
  expect([again.status, await again.text()]).toEqual([304, ""]);
});

test("Pulling manifests: what is not there is 404 MANIFEST_UNKNOWN", async () => {
  for (const reference of ["none", ABSENT]) {
    const response = await served.ask("GET", `/v2/pull/manifests/manifests/${reference}`);
    expect([response.status, await codes(response)]).toEqual([404, ["MANIFEST_UNKNOWN"]]);
    const head = await served.ask("HEAD", `/v2/pull/manifests/manifests/${reference}`);
    expect([head.status, await head.text()]).toEqual([404, ""]);
  }
});

test("Pulling blobs: GET and HEAD; 404 BLOB_UNKNOWN where another repository has it", async () => {
  const digest = await pushBlob(served, "pull/blobs", "some bytes");
  const response = await served.ask("GET", `/v2/pull/blobs/blobs/${digest}`);
  expect([response.status, response.headers.get("docker-content-digest"), await response.text()]).toEqual([200, digest, "some bytes"]);
  const head = await served.ask("HEAD", `/v2/pull/blobs/blobs/${digest}`);
  expect([head.status, head.headers.get("content-length"), head.headers.get("accept-ranges")]).toEqual([200, "10", "bytes"]);
  const other = await served.ask("GET", `/v2/pull/other/blobs/${digest}`);
  expect([other.status, await codes(other)]).toEqual([404, ["BLOB_UNKNOWN"]]);
});

test("Pulling blobs: ranges, of small blobs and of streamed ones", async () => {
  const big = Buffer.alloc(3 << 20, "0123456789abcdef");
  for (const bytes of [Buffer.from("0123456789"), big]) {
    const digest = await pushBlob(served, "pull/ranges", bytes);
    const get = (range: string, more = {}) => served.ask("GET", `/v2/pull/ranges/blobs/${digest}`, undefined, { range, ...more });
    const middle = await get("bytes=2-5");
    expect([middle.status, middle.headers.get("content-range"), await middle.text()]).toEqual([206, `bytes 2-5/${bytes.length}`, "2345"]);
    const tail = await get("bytes=-4");
    expect([tail.status, await tail.text()]).toEqual([206, bytes.subarray(-4).toString()]);
    const rest = await get(`bytes=${bytes.length - 3}-`);
    expect([rest.status, await rest.text()]).toEqual([206, bytes.subarray(-3).toString()]);
    const beyond = await get(`bytes=${bytes.length}-`);
    expect([beyond.status, beyond.headers.get("content-range")]).toEqual([416, `bytes */${bytes.length}`]);
    await beyond.text();
    for (const [range, headers] of [["bytes=5-2"], ["lines=1-2"], ["bytes=0-1,3-4"], ["bytes=2-5", { "if-range": '"other"' }]] as [
      string,
      object?,
    ][]) {
      const whole = await get(range, headers);
      expect([whole.status, digestOf(new Uint8Array(await whole.arrayBuffer()))]).toEqual([200, digest]);
    }
  }
});

test("digests other than sha256", async () => {
  const digest = `sha512:${createHash("sha512").update("long").digest("hex")}`;
  const begun = await served.ask("POST", "/v2/pull/long/blobs/uploads/");
  const put = await served.ask("PUT", `${begun.headers.get("location")}?digest=${digest}`, "long");
  expect([put.status, put.headers.get("docker-content-digest")]).toEqual([201, digest]);
  expect(await (await served.ask("GET", `/v2/pull/long/blobs/${digest}`)).text()).toBe("long");
});

test("a client that leaves in the middle of a blob leaves nothing open", async () => {
  const digest = await pushBlob(served, "pull/leave", Buffer.alloc(32 << 20, 7));
  const { readdirSync, readlinkSync } = await import("node:fs");
  const opened = () =>
    readdirSync("/proc/self/fd").filter((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`).startsWith(served.root);
      } catch {
        return false;
      }
    }).length;
  const before = opened();
  for (let i = 0; i < 5; i++) {
    const controller = new AbortController();
    const response = await fetch(`${served.base}/v2/pull/leave/blobs/${digest}`, { signal: controller.signal });
    const reader = response.body!.getReader();
    await reader.read();
    controller.abort();
  }
  for (let tries = 0; tries < 50 && opened() > before; tries++) await Bun.sleep(50);
  expect(opened()).toBe(before);
});
