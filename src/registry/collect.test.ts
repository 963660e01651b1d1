import { expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { existsSync, rmSync, utimesSync } from "node:fs";
import { programCommand } from "../lib/program.ts";
import { digestOf, MEDIA } from "../oci/index.ts";
import { createLayout } from "./layout.ts";
import { pushBlob, pushImage, type Served, serveRegistry } from "./testing.ts";

/** The grace time of these tests: long passed for what was made old, not for what is new. */
const GRACE = 500;

const has = (served: Served, digest: string) => existsSync(createLayout(served.root).blob(digest));
const all = { dryRun: false, deleteUntagged: false };

test("what no manifest names goes when the grace time is over; what one names stays", async () => {
  await using served = await serveRegistry({ graceMs: GRACE });
  const image = await pushImage(served, "gc/a", "v1", "kept");
  const orphan = await pushBlob(served, "gc/a", "orphan");
  const dropped = await pushImage(served, "gc/b", "v1", "dropped");
  expect((await served.ask("DELETE", `/v2/gc/b/manifests/${dropped.digest}`)).status).toBe(202);
  expect(await served.registry.collect(all)).toMatchObject({ blobs: 0, links: 0 });
  await Bun.sleep(GRACE + 100);
  expect(await served.registry.collect({ ...all, dryRun: true })).toMatchObject({ blobs: 3, manifests: 0 });
  expect([orphan, dropped.layer].every((digest) => has(served, digest))).toBe(true);
  expect(await served.registry.collect(all)).toMatchObject({ blobs: 3, links: 3 });
  expect([orphan, dropped.layer, dropped.digest, image.layer, image.config, image.digest].map((digest) => has(served, digest))).toEqual([
    false,
    false,
    false,
    true,
    true,
    true,
  ]);
  expect((await served.ask("GET", `/v2/gc/a/blobs/${image.layer}`)).status).toBe(200);
  expect((await served.ask("GET", `/v2/gc/b/blobs/${dropped.layer}`)).status).toBe(404);
  expect((await served.ask("HEAD", `/v2/gc/a/blobs/${orphan}`)).status).toBe(404);
  // And it can come back.
  await pushBlob(served, "gc/a", "orphan");
  expect(await (await served.ask("GET", `/v2/gc/a/blobs/${orphan}`)).text()).toBe("orphan");
});

test("a blob that a client was told is there outlives the collection, and its manifest can be pushed", async () => {
  await using served = await serveRegistry({ graceMs: GRACE });
  const config = await pushBlob(served, "gc/lease", "{}");
  const layer = await pushBlob(served, "gc/lease", "layer");
  await Bun.sleep(GRACE + 100);
  for (const digest of [config, layer]) expect((await served.ask("HEAD", `/v2/gc/lease/blobs/${digest}`)).status).toBe(200);
  expect(await served.registry.collect(all)).toMatchObject({ blobs: 0, links: 0 });
  await pushImage(served, "gc/lease", "v1");
});

test("pushes of the same layers while collections run: no push fails, no tagged image is damaged", async () => {
  await using served = await serveRegistry({ graceMs: 400 });
  let running = true;
  const collecting = (async () => {
    while (running) {
      await served.registry.collect({ dryRun: false, deleteUntagged: true });
      await Bun.sleep(5);
    }
  })();
  const pushers = [0, 1, 2].map(async (who) => {
    for (let i = 0; i < 25; i++) {
      const name = `gc/race${who}`;
      const layer = `layer ${i % 4}`;
      await pushImage(served, name, "latest", layer);
      const response = await served.ask("GET", `/v2/${name}/manifests/latest`);
      expect(response.status).toBe(200);
      const manifest = (await response.json()) as { layers: { digest: string }[] };
      const got = await served.ask("GET", `/v2/${name}/blobs/${manifest.layers[0]!.digest}`);
      expect([got.status, await got.text()]).toEqual([200, layer]);
      if (i % 3 === 2) await served.ask("DELETE", `/v2/${name}/manifests/latest`);
      await Bun.sleep(40);
    }
  });
  await Promise.all(pushers);
  running = false;
  await collecting;
});

test("untagged manifests go only where asked for; indexes and referrers hold what they belong to", async () => {
  await using served = await serveRegistry({ graceMs: GRACE });
  const name = "gc/untagged";
  const child = await pushImage(served, name, "@", "child");
  const index = JSON.stringify({
    schemaVersion: 2,
    mediaType: MEDIA.ociIndex,
    manifests: [{ mediaType: MEDIA.ociManifest, digest: child.digest, size: child.bytes.length }],
  });
  expect((await served.ask("PUT", `/v2/${name}/manifests/multi`, index, { "content-type": MEDIA.ociIndex })).status).toBe(201);
  const subject = (digest: string) => ({ subject: { mediaType: MEDIA.ociManifest, digest, size: 1 } });
  const signature = await pushImage(served, name, "@", "signature", subject(digestOf(index)));
  const old = await pushImage(served, name, "v", "old");
  const lonely = await pushImage(served, name, "@", "lonely", subject(old.digest));
  await pushImage(served, name, "v", "new");
  await Bun.sleep(GRACE + 100);
  expect(await served.registry.collect(all)).toMatchObject({ manifests: 0, blobs: 0 });
  expect(await served.registry.collect({ ...all, deleteUntagged: true })).toMatchObject({ manifests: 2, blobs: 4 });
  for (const [digest, status] of [
    [child.digest, 200],
    [signature.digest, 200],
    [old.digest, 404],
    [lonely.digest, 404],
  ] as const)
    expect((await served.ask("GET", `/v2/${name}/manifests/${digest}`)).status).toBe(status);
});

test("uploads that nobody continues are removed", async () => {
  await using served = await serveRegistry({ uploadAgeMs: 3_600_000 });
  const begin = async () => (await served.ask("POST", "/v2/gc/uploads/blobs/uploads/")).headers.get("location")!;
  const [left, fresh] = [await begin(), await begin()];
  const data = `${createLayout(served.root).upload("gc/uploads", left.split("/").at(-1)!)}/data`;
  utimesSync(data, new Date(0), new Date(0));
  expect(await served.registry.collect(all)).toMatchObject({ uploads: 1 });
  expect((await served.ask("GET", left)).status).toBe(404);
  expect((await served.ask("GET", fresh)).status).toBe(204);
});

test("garbage-collect from the command line: while it is served, and after", async () => {
  const root = `/tmp/jubako-registry-gc-${process.pid}-${"x".repeat(80)}`;
  const run = (...args: string[]) => {
    const [program, ...rest] = programCommand("jubako-registry");
    return Bun.spawn([program!, ...rest, "garbage-collect", "--root", root, ...args], { stdout: "pipe", stderr: "pipe" });
  };
  try {
    {
      await using served = await serveRegistry({ root, graceMs: 0 });
      const orphan = await pushBlob(served, "gc/cli", "orphan");
      const child = run();
      const text = await new Response(child.stdout).text();
      expect([await child.exited, text.includes(`blob deleted: ${orphan}`), text.includes("deleted: 1 blobs of 6 bytes")]).toEqual([
        0,
        true,
        true,
      ]);
      await pushBlob(served, "gc/cli", "another");
    }
    const [program, ...rest] = programCommand("jubako-registry");
    const after = spawnSync(program!, [...rest, "garbage-collect", "--root", root, "--grace", "0"], { encoding: "utf8" });
    expect([after.status, after.stdout.includes("deleted: 1 blobs of 7 bytes")]).toEqual([0, true]);
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
});
