// distribution-spec, "Content Discovery" and "Content Management", with the catalog, which is Docker's.
import { afterAll, beforeAll, expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { digestOf, MEDIA } from "../oci/index.ts";
import { codes, pushBlob, pushImage, type Served, serveRegistry } from "./testing.ts";

let served: Served;
beforeAll(async () => {
  served = await serveRegistry();
});
afterAll(() => served[Symbol.asyncDispose]());

const list = async (path: string) => {
  const response = await served.ask("GET", path);
  const body = (await response.json()) as {
    tags?: string[];
    repositories?: string[];
    manifests?: { digest: string; artifactType?: string; annotations?: object }[];
  };
  return { status: response.status, headers: response.headers, ...body };
};

test("Listing Tags: sorted by bytes, in pages with Link", async () => {
  for (const tag of ["b", "a", "B", "v10", "v9", "_x"]) await pushImage(served, "list/tags", tag);
  const all = ["B", "_x", "a", "b", "v10", "v9"];
  expect((await list("/v2/list/tags/tags/list")).tags).toEqual(all);
  const found: string[] = [];
  let path: string | undefined = "/v2/list/tags/tags/list?n=2";
  for (let pages = 0; path; pages++) {
    expect(pages).toBeLessThan(4);
    const page = await list(path);
    expect(page.tags!.length).toBe(2);
    found.push(...page.tags!);
    path = /^<([^>]+)>; rel="next"$/.exec(page.headers.get("link") ?? "")?.[1];
  }
  expect(found).toEqual(all);
  expect((await list("/v2/list/tags/tags/list?last=az")).tags).toEqual(["b", "v10", "v9"]);
  const none = await list("/v2/list/tags/tags/list?n=0");
  expect([none.tags, none.headers.get("link")]).toEqual([[], null]);
  for (const n of ["-1", "x", "1e3"]) {
    const wrong = await served.ask("GET", `/v2/list/tags/tags/list?n=${n}`);
    expect([wrong.status, await codes(wrong)]).toEqual([400, ["PAGINATION_NUMBER_INVALID"]]);
  }
  const unknown = await served.ask("GET", "/v2/list/none/tags/list");
  expect([unknown.status, await codes(unknown)]).toEqual([404, ["NAME_UNKNOWN"]]);
});

test("catalog: all repositories, nested ones too, in pages", async () => {
  await pushImage(served, "catalog", "v1");
  await pushImage(served, "catalog/nested/deep", "v1");
  const all = (await list("/v2/_catalog")).repositories!;
  expect(all).toEqual([...all].sort());
  expect(all.filter((name) => name.startsWith("catalog"))).toEqual(["catalog", "catalog/nested/deep"]);
  const page = await list("/v2/_catalog?n=1&last=catalog");
  expect(page.repositories).toEqual(["catalog/nested/deep"]);
});

test("Listing Referrers: an index of what has the subject, filtered by type", async () => {
  const name = "list/referrers";
  const image = await pushImage(served, name, "v1");
  const empty = await list(`/v2/${name}/referrers/${image.digest}`);
  expect([empty.status, empty.headers.get("content-type"), empty.manifests]).toEqual([200, MEDIA.ociIndex, []]);
  const subject = { mediaType: MEDIA.ociManifest, digest: image.digest, size: image.bytes.length };
  const signature = await pushImage(served, name, "@", "s", {
    subject,
    artifactType: "application/x.signature",
    annotations: { by: "me" },
  });
  const plain = await pushImage(served, name, "@", "p", { subject });
  const index = JSON.stringify({ schemaVersion: 2, mediaType: MEDIA.ociIndex, artifactType: "application/x.list", manifests: [], subject });
  const put = await served.ask("PUT", `/v2/${name}/manifests/${digestOf(index)}`, index, { "content-type": MEDIA.ociIndex });
  expect([put.status, put.headers.get("oci-subject")]).toEqual([201, image.digest]);
  const all = await list(`/v2/${name}/referrers/${image.digest}`);
  expect(new Map(all.manifests!.map(({ digest, artifactType }) => [digest, artifactType]))).toEqual(
    new Map([
      [signature.digest, "application/x.signature"],
      [plain.digest, MEDIA.ociConfig],
      [digestOf(index), "application/x.list"],
    ]),
  );
  const filtered = await list(`/v2/${name}/referrers/${image.digest}?artifactType=application/x.signature`);
  expect([filtered.headers.get("oci-filters-applied"), filtered.manifests!.length, filtered.manifests![0]!.annotations]).toEqual([
    "artifactType",
    1,
    { by: "me" },
  ]);
  const first = await list(`/v2/${name}/referrers/${image.digest}?n=2`);
  const rest = await list(/<([^>]+)>/.exec(first.headers.get("link")!)![1]!);
  expect([first.manifests!.length, rest.manifests!.length, rest.headers.get("link")]).toEqual([2, 1, null]);
  expect((await served.ask("DELETE", `/v2/${name}/manifests/${signature.digest}`)).status).toBe(202);
  expect((await list(`/v2/${name}/referrers/${image.digest}`)).manifests!.length).toBe(2);
  const wrong = await served.ask("GET", `/v2/${name}/referrers/nonsense`);
  expect([wrong.status, await codes(wrong)]).toEqual([400, ["DIGEST_INVALID"]]);
});

test("Listing Referrers: those of a client that kept them under a tag, from before the registry had referrers", async () => {
  const name = "list/fallback";
  const image = await pushImage(served, name, "v1");
  const subject = { mediaType: MEDIA.ociManifest, digest: image.digest, size: image.bytes.length };
  const signature = await pushImage(served, name, "@", "s", { subject, artifactType: "application/x.signature" });
  const other = await pushImage(served, name, "@", "o", { subject: { ...subject, digest: digestOf("another") } });
  // As if it had come to a registry that knew nothing of subjects.
  rmSync(`${served.root}/docker/registry/v2/repositories/${name}/_manifests/referrers`, { recursive: true });
  expect((await list(`/v2/${name}/referrers/${image.digest}`)).manifests).toEqual([]);
  const entry = (pushed: { digest: string; bytes: string }) => ({
    mediaType: MEDIA.ociManifest,
    digest: pushed.digest,
    size: pushed.bytes.length,
  });
  const index = JSON.stringify({ schemaVersion: 2, mediaType: MEDIA.ociIndex, manifests: [entry(signature), entry(other)] });
  const tag = image.digest.replace(":", "-");
  expect((await served.ask("PUT", `/v2/${name}/manifests/${tag}`, index, { "content-type": MEDIA.ociIndex })).status).toBe(201);
  const listed = await list(`/v2/${name}/referrers/${image.digest}`);
  expect(listed.manifests).toEqual([{ ...entry(signature), artifactType: "application/x.signature" }]);
});

test("Listing Referrers: of what is not there, an empty index", async () => {
  const none = await list(`/v2/list/nowhere/referrers/${digestOf("nothing")}`);
  expect([none.status, none.manifests]).toEqual([200, []]);
});

test("Deleting tags: the tag goes, the manifest stays", async () => {
  const image = await pushImage(served, "delete/tags", "v1");
  await pushImage(served, "delete/tags", "v2");
  expect((await served.ask("DELETE", "/v2/delete/tags/manifests/v1")).status).toBe(202);
  expect((await served.ask("GET", "/v2/delete/tags/manifests/v1")).status).toBe(404);
  expect((await served.ask("GET", `/v2/delete/tags/manifests/${image.digest}`)).status).toBe(200);
  expect((await list("/v2/delete/tags/tags/list")).tags).toEqual(["v2"]);
  const again = await served.ask("DELETE", "/v2/delete/tags/manifests/v1");
  expect([again.status, await codes(again)]).toEqual([404, ["MANIFEST_UNKNOWN"]]);
});

test("Deleting Manifests: with all its tags", async () => {
  const image = await pushImage(served, "delete/manifests", "v1");
  await pushImage(served, "delete/manifests", "v2");
  await pushImage(served, "delete/manifests", "other", "other layer");
  expect((await served.ask("DELETE", `/v2/delete/manifests/manifests/${image.digest}`)).status).toBe(202);
  for (const reference of ["v1", "v2", image.digest])
    expect((await served.ask("GET", `/v2/delete/manifests/manifests/${reference}`)).status).toBe(404);
  expect((await list("/v2/delete/manifests/tags/list")).tags).toEqual(["other"]);
  expect((await served.ask("DELETE", `/v2/delete/manifests/manifests/${image.digest}`)).status).toBe(404);
});

test("Deleting Blobs: of this repository alone", async () => {
  const digest = await pushBlob(served, "delete/blobs", "bytes");
  await pushBlob(served, "delete/others", "bytes");
  expect((await served.ask("DELETE", `/v2/delete/blobs/blobs/${digest}`)).status).toBe(202);
  expect((await served.ask("GET", `/v2/delete/blobs/blobs/${digest}`)).status).toBe(404);
  expect((await served.ask("GET", `/v2/delete/others/blobs/${digest}`)).status).toBe(200);
  const again = await served.ask("DELETE", `/v2/delete/blobs/blobs/${digest}`);
  expect([again.status, await codes(again)]).toEqual([404, ["BLOB_UNKNOWN"]]);
});

test("read-only, and without deletion", async () => {
  const { root } = served;
  await served.stop();
  {
    await using readOnly = await serveRegistry({ root, readOnly: true });
    expect((await readOnly.ask("GET", "/v2/list/tags/manifests/a")).status).toBe(200);
    for (const [method, path] of [
      ["POST", "/v2/a/blobs/uploads/"],
      ["PUT", "/v2/a/manifests/x"],
      ["DELETE", "/v2/list/tags/manifests/a"],
    ] as const) {
      const response = await readOnly.ask(method, path);
      expect([response.status, await codes(response)]).toEqual([405, ["UNSUPPORTED"]]);
    }
  }
  await using keeping = await serveRegistry({ root, mayDelete: false });
  const response = await keeping.ask("DELETE", "/v2/list/tags/manifests/a");
  expect([response.status, await codes(response)]).toEqual([405, ["UNSUPPORTED"]]);
  const begun = await keeping.ask("POST", "/v2/list/tags/blobs/uploads/");
  expect((await keeping.ask("DELETE", begun.headers.get("location")!)).status).toBe(204);
  await expect(serveRegistry({ root })).rejects.toThrow("is served by another jubako-registry");
});
