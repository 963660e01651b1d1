// What the OCI distribution specification 1.1 asks of a registry, request by request, of any registry: each check cites the section that it is of. A MUST that
// is not met fails; a SHOULD or MAY that is not taken up is told apart.
import { createHash } from "node:crypto";

export interface Result {
  /** Section, and what of it. */
  check: string;
  result: "passed" | "failed" | "left out";
  why?: string;
}

const MANIFEST = "application/vnd.oci.image.manifest.v1+json";
const INDEX = "application/vnd.oci.image.index.v1+json";
const EMPTY = { mediaType: "application/vnd.oci.empty.v1+json", digest: digestOf("{}"), size: 2 };

function digestOf(bytes: string | Uint8Array, algorithm = "sha256"): string {
  return `${algorithm}:${createHash(algorithm).update(bytes).digest("hex")}`;
}

class LeftOut extends Error {}

/** Asks everything of the registry at `base` ("http://host:port"), in repositories of its own. */
export async function checkRegistry(base: string): Promise<Result[]> {
  const results: Result[] = [];
  const name = "checks/one";
  const other = "checks/another";

  const ask = (method: string, path: string, body?: string | Uint8Array, headers: Record<string, string> = {}) =>
    fetch(new URL(path, base), {
      method,
      headers: { ...(body === undefined ? {} : { "content-type": "application/octet-stream" }), ...headers },
      redirect: "manual",
      ...(body === undefined ? {} : { body: body as NonNullable<RequestInit["body"]> }),
    });
  const is = (what: string, actual: unknown, ...wanted: unknown[]) => {
    if (!wanted.some((one) => Bun.deepEquals(actual, one)))
      throw new Error(`${what} is ${JSON.stringify(actual)}, not ${JSON.stringify(wanted[0])}`);
  };
  const answers = async (response: Response, ...statuses: number[]) => {
    if (!statuses.includes(response.status))
      throw new Error(`${response.status} instead of ${statuses.join(" or ")}: ${(await response.text()).slice(0, 200)}`);
    return response;
  };
  const optional = async (response: Response, statuses: number[], without: number[]) => {
    if (without.includes(response.status)) throw new LeftOut(`answers ${response.status}`);
    return answers(response, ...statuses);
  };
  const check = async (title: string, work: () => Promise<void>) => {
    try {
      await work();
      results.push({ check: title, result: "passed" });
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      results.push({ check: title, result: error instanceof LeftOut ? "left out" : "failed", why });
    }
  };
  const locationOf = (response: Response): string => {
    const location = response.headers.get("location");
    if (!location) throw new Error("no Location");
    return new URL(location, base).href;
  };
  const withDigest = (location: string, digest: string) => {
    const url = new URL(location);
    url.searchParams.set("digest", digest);
    return url.href;
  };
  const begin = async (repository = name) => locationOf(await answers(await ask("POST", `/v2/${repository}/blobs/uploads/`, ""), 202));
  const putBlob = async (bytes: string | Uint8Array, repository = name, algorithm = "sha256") => {
    const digest = digestOf(bytes, algorithm);
    await answers(await ask("PUT", withDigest(await begin(repository), digest), bytes), 201);
    return digest;
  };
  const manifestOf = (more: Record<string, unknown> = {}, layers: string[] = []) =>
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MANIFEST,
      config: { ...EMPTY, mediaType: "application/vnd.oci.image.config.v1+json" },
      layers: layers.map((layer) => ({
        mediaType: "application/vnd.oci.image.layer.v1.tar",
        digest: digestOf(layer),
        size: Buffer.byteLength(layer),
      })),
      ...more,
    });
  const putManifest = async (document: string, reference = digestOf(document), type = MANIFEST, repository = name) =>
    answers(await ask("PUT", `/v2/${repository}/manifests/${reference}`, document, { "content-type": type }), 201);
  const blobUrl = (digest: string, repository = name) => `/v2/${repository}/blobs/${digest}`;
  const manifestUrl = (reference: string, repository = name) => `/v2/${repository}/manifests/${reference}`;
  const accept = { accept: `${MANIFEST}, ${INDEX}` };
  const code = async (response: Response) => ((await response.json()) as { errors: { code: string }[] }).errors[0]?.code;

  const blob = "a blob of the checks\n".repeat(1000);
  const layer = "a layer";
  const document = manifestOf({}, [layer]);
  const missing = digestOf("what nobody pushed");

  await check("Determining Support: GET /v2/ is 200", async () => void (await answers(await ask("GET", "/v2/"), 200)));

  // ---- Push
  await check("Pushing blobs: POST is 202 with a Location; PUT is 201 with the blob's", async () => {
    const response = await answers(await ask("PUT", withDigest(await begin(), digestOf(blob)), blob), 201);
    const got = await answers(await ask("GET", locationOf(response)), 200);
    is("blob", await got.text(), blob);
  });
  await check("Pushing blobs: a single POST", async () => {
    const bytes = "in one request";
    const response = await answers(await ask("POST", `/v2/${name}/blobs/uploads/?digest=${digestOf(bytes)}`, bytes), 201, 202);
    if (response.status === 202) {
      await answers(await ask("PUT", withDigest(locationOf(response), digestOf(bytes)), bytes), 201);
      throw new LeftOut("begins an upload instead");
    }
    is("blob", await (await ask("GET", locationOf(response))).text(), bytes);
  });
  await check("Pushing blobs: a body of unknown length by PATCH", async () => {
    const pieces = async function* () {
      yield Buffer.from("streamed ");
      yield Buffer.from("bytes");
    };
    const headers = { "content-type": "application/octet-stream" };
    const patched = await answers(await fetch(await begin(), { method: "PATCH", headers, body: pieces() as never }), 202);
    await answers(await ask("PUT", withDigest(locationOf(patched), digestOf("streamed bytes"))), 201);
  });
  await check("Pushing blobs: a digest that the bytes have not is 400 DIGEST_INVALID, and no blob", async () => {
    is("code", await code(await answers(await ask("PUT", withDigest(await begin(), missing), "something else"), 400)), "DIGEST_INVALID");
    await answers(await ask("HEAD", blobUrl(missing)), 404);
  });
  await check("Pushing blobs: an invalid digest is 400", async () => {
    await answers(await ask("PUT", withDigest(await begin(), "sha256:totally-wrong"), "x"), 400);
  });
  await check(
    "Pushing blobs: no digest in the closing PUT is 400",
    async () => void (await answers(await ask("PUT", await begin(), "x"), 400)),
  );
  await check("Pushing blobs: an empty blob", async () => {
    await putBlob("");
    is("blob", await (await answers(await ask("GET", blobUrl(digestOf(""))), 200)).text(), "");
  });
  await check("Pushing blobs: by a digest of sha512", async () => {
    const digest = await putBlob("hashed differently", name, "sha512");
    is("blob", await (await answers(await ask("GET", blobUrl(digest)), 200)).text(), "hashed differently");
  });

  const chunks = ["first chunk,", "second chunk,", "third"];
  const rangeOf = (i: number) => {
    const start = chunks.slice(0, i).join("").length;
    return `${start}-${start + chunks[i]!.length - 1}`;
  };
  const patch = (location: string, i: number) => ask("PATCH", location, chunks[i], { "content-range": rangeOf(i) });
  await check("Pushing a blob in chunks: PATCH is 202 with Location and Range; the last by PUT", async () => {
    let response = await answers(await patch(await begin(), 0), 202);
    is("Range", response.headers.get("range"), "0-11");
    response = await answers(await patch(locationOf(response), 1), 202);
    is("Range", response.headers.get("range"), "0-24");
    const all = digestOf(chunks.join(""));
    await answers(await ask("PUT", withDigest(locationOf(response), all), chunks[2], { "content-range": rangeOf(2) }), 201);
    is("blob", await (await ask("GET", blobUrl(all))).text(), chunks.join(""));
  });
  await check("Pushing a blob in chunks: the last by PATCH, closed by an empty PUT", async () => {
    let location = await begin();
    for (const i of [0, 1, 2]) location = locationOf(await answers(await patch(location, i), 202));
    await answers(await ask("PUT", withDigest(location, digestOf(chunks.join("")))), 201);
  });
  await check("Pushing a blob in chunks: a first chunk that does not begin at 0 is 416", async () => {
    await answers(await patch(await begin(), 1), 416);
  });
  await check("Pushing a blob in chunks: a gap is 416, and changes nothing", async () => {
    const location = locationOf(await answers(await patch(await begin(), 0), 202));
    await answers(await patch(location, 2), 416);
    const status = await answers(await ask("GET", location), 204);
    is("Range", status.headers.get("range"), "0-11");
    await answers(await patch(locationOf(status), 1), 202);
  });
  await check("Pushing a blob in chunks: the same chunk again is 416", async () => {
    const location = locationOf(await answers(await patch(await begin(), 0), 202));
    await answers(await patch(location, 0), 416);
  });
  await check("Pushing a blob in chunks: GET tells where it stands: 204 with Location and Range", async () => {
    const location = locationOf(await answers(await patch(await begin(), 0), 202));
    const status = await answers(await ask("GET", location), 204);
    is("Range", status.headers.get("range"), "0-11");
    locationOf(status);
  });
  await check("Pushing blobs: an upload that is cancelled is not there", async () => {
    const location = await begin();
    await optional(await ask("DELETE", location), [204], [405]);
    await answers(await ask("GET", location), 404);
  });
  await check("Mounting a blob: 201 with its Location, or an upload", async () => {
    const response = await answers(await ask("POST", `/v2/${other}/blobs/uploads/?mount=${digestOf(blob)}&from=${name}`, ""), 201, 202);
    if (response.status === 202) throw new LeftOut("begins an upload instead");
    is("blob", await (await answers(await ask("GET", locationOf(response)), 200)).text(), blob);
  });
  await check("Mounting a blob: what is not there begins an upload: 202", async () => {
    locationOf(await answers(await ask("POST", `/v2/${other}/blobs/uploads/?mount=${missing}&from=${name}`, ""), 202));
    locationOf(await answers(await ask("POST", `/v2/${other}/blobs/uploads/?mount=${digestOf(layer)}&from=no/such`, ""), 202));
  });
  await check("Mounting a blob: without saying from where, 201 or 202", async () => {
    const response = await answers(await ask("POST", `/v2/checks/third/blobs/uploads/?mount=${digestOf(blob)}`, ""), 201, 202);
    locationOf(response);
  });

  await check("Pushing Manifests: by tag, 201 with a Location where it is", async () => {
    await putBlob("{}");
    await putBlob(layer);
    const response = await putManifest(document, "one");
    is("manifest", await (await answers(await ask("GET", locationOf(response), undefined, accept), 200)).text(), document);
  });
  await check("Pushing Manifests: by digest; the answer's Docker-Content-Digest is it", async () => {
    const text = manifestOf({ annotations: { by: "digest" } });
    const response = await putManifest(text);
    is("Docker-Content-Digest", response.headers.get("docker-content-digest"), digestOf(text), null);
  });
  await check("Pushing Manifests: the bytes stay as they were", async () => {
    const text = `${JSON.stringify(JSON.parse(manifestOf({ "x-unknown": { b: 1, a: [] } })), null, 7)}\n\n`;
    await putManifest(text);
    is("manifest", await (await ask("GET", manifestUrl(digestOf(text)), undefined, accept)).text(), text);
  });
  await check("Pushing Manifests: without layers", async () => void (await putManifest(manifestOf({ layers: [] }), "no-layers")));
  await check("Pushing Manifests: an artifact, with an artifactType and the empty config", async () => {
    await putManifest(manifestOf({ artifactType: "application/vnd.checks", config: EMPTY, layers: [EMPTY] }), "artifact");
  });
  await check("Pushing Manifests: an index", async () => {
    const index = JSON.stringify({
      schemaVersion: 2,
      mediaType: INDEX,
      manifests: [{ mediaType: MANIFEST, digest: digestOf(document), size: document.length }],
    });
    await putManifest(index, "index", INDEX);
    const got = await answers(await ask("GET", manifestUrl("index"), undefined, accept), 200);
    is("Content-Type", got.headers.get("content-type"), INDEX);
  });
  await check("Pushing Manifests: Content-Type's parameters are ignored", async () => {
    await putManifest(document, "parameters", `${MANIFEST}; charset=utf-8`);
    is("Content-Type", (await ask("GET", manifestUrl("parameters"), undefined, accept)).headers.get("content-type"), MANIFEST);
  });
  await check("Pushing Manifests: one with a subject that is not there is accepted", async () => {
    const subject = { mediaType: MANIFEST, digest: missing, size: 7 };
    await putManifest(manifestOf({ subject, config: EMPTY, artifactType: "application/vnd.checks" }));
  });
  await check("Pushing Manifests: blobs that are missing are MANIFEST_BLOB_UNKNOWN, or accepted", async () => {
    const response = await answers(
      await ask("PUT", manifestUrl("lacking"), manifestOf({}, ["missing layer"]), { "content-type": MANIFEST }),
      201,
      400,
      404,
    );
    if (response.status === 201) throw new LeftOut("accepts it");
    is("code", await code(response), "MANIFEST_BLOB_UNKNOWN");
  });
  await check("Pushing Manifests: a digest that the bytes have not is refused", async () => {
    await answers(await ask("PUT", manifestUrl(missing), document, { "content-type": MANIFEST }), 400);
  });
  await check("Pushing Manifests: no manifest is 400", async () => {
    await answers(await ask("PUT", manifestUrl("broken"), "{", { "content-type": MANIFEST }), 400);
  });
  await check("Pushing Manifests: one of nearly four megabytes", async () => {
    await putManifest(manifestOf({ annotations: { long: "x".repeat((4 << 20) - 1000) } }), "large");
  });
  await check("Pushing Manifests: by a digest of sha512", async () => {
    const text = manifestOf({ annotations: { by: "sha512" } });
    const response = await ask("PUT", manifestUrl(digestOf(text, "sha512")), text, { "content-type": MANIFEST });
    await answers(response, 201);
    is("manifest", await (await answers(await ask("GET", manifestUrl(digestOf(text, "sha512")), undefined, accept), 200)).text(), text);
  });
  await check("Pushing Manifests: names and references out of the grammar are 4xx", async () => {
    for (const [repository, reference] of [
      ["Upper/case", "a"],
      ["-begins", "a"],
      ["a//b", "a"],
      [name, ".begins"],
      [name, "x".repeat(129)],
      [name, "sha256:short"],
    ]) {
      const { status } = await ask("PUT", `/v2/${repository}/manifests/${reference}`, document, { "content-type": MANIFEST });
      if (status < 400 || status > 499) throw new Error(`${repository}:${reference} is answered ${status}`);
    }
  });

  // ---- Pull
  const same = async (method: string, url: string, body: string, type?: string) => {
    const response = await answers(await ask(method, url, undefined, accept), 200);
    is("Docker-Content-Digest", response.headers.get("docker-content-digest"), digestOf(body));
    is("Content-Length", response.headers.get("content-length"), String(Buffer.byteLength(body)));
    if (type) is("Content-Type", response.headers.get("content-type"), type);
    is("body", await response.text(), method === "HEAD" ? "" : body);
  };
  for (const method of ["HEAD", "GET"]) {
    await check(`Pulling manifests: ${method} by tag`, () => same(method, manifestUrl("one"), document, MANIFEST));
    await check(`Pulling manifests: ${method} by digest`, () => same(method, manifestUrl(digestOf(document)), document, MANIFEST));
    await check(`Pulling blobs: ${method}`, () => same(method, blobUrl(digestOf(blob)), blob));
    await check(`Pulling manifests: ${method} of what is not there is 404`, async () => {
      await answers(await ask(method, manifestUrl("none"), undefined, accept), 404);
      await answers(await ask(method, manifestUrl(missing), undefined, accept), 404);
      await answers(await ask(method, manifestUrl("one", "no/such"), undefined, accept), 404);
    });
    await check(`Pulling blobs: ${method} of what is not there is 404`, async () => {
      await answers(await ask(method, blobUrl(missing)), 404);
      await answers(await ask(method, blobUrl(digestOf(blob), "no/such")), 404);
    });
  }
  await check("Error Codes: of what is not there", async () => {
    is("code", await code(await ask("GET", manifestUrl("none"), undefined, accept)), "MANIFEST_UNKNOWN");
    is("code", await code(await ask("GET", blobUrl(missing))), "BLOB_UNKNOWN");
    is("code", await code(await ask("GET", "/v2/no/such/tags/list")), "NAME_UNKNOWN");
  });
  await check("Pulling manifests: a reference out of the grammar is 4xx", async () => {
    const { status } = await ask("GET", manifestUrl("sha256:wrong"), undefined, accept);
    if (status < 400 || status > 499) throw new Error(`answered ${status}`);
  });
  await check("Pulling blobs: Range of a part, of the end, of what is not there", async () => {
    const url = blobUrl(digestOf(blob));
    const part = await optional(await ask("GET", url, undefined, { range: "bytes=5-9" }), [206], [200]);
    is("part", await part.text(), blob.slice(5, 10));
    is("Content-Range", part.headers.get("content-range"), `bytes 5-9/${blob.length}`);
    is("end", await (await answers(await ask("GET", url, undefined, { range: "bytes=-4" }), 206)).text(), blob.slice(-4));
    is("rest", await (await answers(await ask("GET", url, undefined, { range: "bytes=20990-" }), 206)).text(), blob.slice(20990));
    await answers(await ask("GET", url, undefined, { range: `bytes=${blob.length}-` }), 416);
  });

  // ---- Content Discovery
  const tagsOf = async (query = "", repository = "checks/tags") => {
    const response = await answers(await ask("GET", `/v2/${repository}/tags/list${query}`), 200);
    return { ...((await response.json()) as { name: string; tags: string[] | null }), link: response.headers.get("link") };
  };
  const tags = ["1", "10", "2", "a-b", "a.b", "a_b", "latest", "v1"];
  await check("Listing Tags: all, in order", async () => {
    await putBlob("{}", "checks/tags");
    for (const tag of [...tags].reverse()) await putManifest(manifestOf(), tag, MANIFEST, "checks/tags");
    const listed = await tagsOf();
    is("name", listed.name, "checks/tags");
    is("tags", listed.tags, tags);
  });
  await check("Listing Tags: n, and the Link to the next", async () => {
    const first = await tagsOf("?n=3");
    is("tags", first.tags, tags.slice(0, 3));
    const next = /<([^>]+)>;\s*rel="?next"?/.exec(first.link ?? "");
    if (!next) throw new LeftOut("gives no Link");
    const more = (await (await ask("GET", next[1]!)).json()) as { tags: string[] };
    is("tags", more.tags, tags.slice(3, 6));
  });
  await check("Listing Tags: n and last", async () => is("tags", (await tagsOf("?n=2&last=10")).tags, tags.slice(2, 4)));
  await check("Listing Tags: last alone", async () => is("tags", (await tagsOf("?last=a_b")).tags, tags.slice(6)));
  await check("Listing Tags: n is 0: none, and no Link", async () => {
    const listed = await tagsOf("?n=0");
    is("tags", listed.tags, [], null);
    is("Link", listed.link, null);
  });
  await check("Listing Tags: more than there are", async () => is("tags", (await tagsOf("?n=100")).tags, tags));
  await check("Listing Tags: of no repository is 404", async () => void (await answers(await ask("GET", "/v2/no/such/tags/list"), 404)));

  const subject = { mediaType: MANIFEST, digest: digestOf(document), size: document.length };
  const sbom = manifestOf({
    subject,
    artifactType: "application/vnd.checks.sbom",
    config: EMPTY,
    layers: [EMPTY],
    annotations: { is: "sbom" },
  });
  const signature = manifestOf({ subject, config: { ...EMPTY, mediaType: "application/vnd.checks.signature" }, layers: [EMPTY] });
  const signed = JSON.stringify({ schemaVersion: 2, mediaType: INDEX, manifests: [], subject, annotations: { is: "index" } });
  const referrers = async (digest: string, query = "") => {
    const response = await optional(await ask("GET", `/v2/${name}/referrers/${digest}${query}`), [200], [404]);
    is("Content-Type", response.headers.get("content-type"), INDEX);
    const index = (await response.json()) as { schemaVersion: number; mediaType: string; manifests: { digest: string }[] };
    is("mediaType", [index.schemaVersion, index.mediaType], [2, INDEX]);
    return {
      manifests: index.manifests.toSorted((a, b) => (a.digest < b.digest ? -1 : 1)),
      filtered: response.headers.get("oci-filters-applied"),
    };
  };
  const descriptor = (text: string, type: string, artifactType: string | undefined, annotations?: object) => ({
    mediaType: type,
    digest: digestOf(text),
    size: text.length,
    ...(artifactType ? { artifactType } : {}),
    ...(annotations ? { annotations } : {}),
  });
  const listed = [
    descriptor(sbom, MANIFEST, "application/vnd.checks.sbom", { is: "sbom" }),
    descriptor(signature, MANIFEST, "application/vnd.checks.signature"),
    descriptor(signed, INDEX, undefined, { is: "index" }),
  ].sort((a, b) => (a.digest < b.digest ? -1 : 1));
  await check("Pushing Manifests with Subject: OCI-Subject is answered", async () => {
    const response = await putManifest(sbom);
    const said = response.headers.get("oci-subject");
    if (said === null) throw new LeftOut("says no OCI-Subject");
    is("OCI-Subject", said, subject.digest);
  });
  await check("Listing Referrers: each with its type and annotations", async () => {
    await putManifest(signature);
    await putManifest(signed, undefined, INDEX);
    is("manifests", (await referrers(subject.digest)).manifests, listed);
  });
  await check("Listing Referrers: by artifactType", async () => {
    const { manifests, filtered } = await referrers(subject.digest, `?artifactType=${encodeURIComponent("application/vnd.checks.sbom")}`);
    if (filtered === null) throw new LeftOut("does not filter");
    is("OCI-Filters-Applied", filtered, "artifactType");
    is("manifests", manifests, [listed.find((one) => one.artifactType === "application/vnd.checks.sbom")]);
  });
  await check("Listing Referrers: of a subject that is not there", async () => is("count", (await referrers(missing)).manifests.length, 1));
  await check("Listing Referrers: none is an empty list", async () =>
    is("manifests", (await referrers(digestOf("nothing"))).manifests, []),
  );
  await check("Listing Referrers: a digest out of the grammar is 400", async () => {
    await optional(await ask("GET", `/v2/${name}/referrers/sha256:short`), [400], [404]);
  });

  // ---- Content Management
  await check("Deleting tags: 202, the tag is gone, the manifest is there", async () => {
    const text = manifestOf({ annotations: { tagged: "twice" } });
    await putManifest(text, "twice");
    await putManifest(text, "again");
    await optional(await ask("DELETE", manifestUrl("twice")), [202], [400, 405]);
    await answers(await ask("GET", manifestUrl("twice"), undefined, accept), 404);
    await answers(await ask("GET", manifestUrl("again"), undefined, accept), 200);
    await answers(await ask("GET", manifestUrl(digestOf(text)), undefined, accept), 200);
  });
  await check("Deleting Manifests: 202, it and its tags are gone", async () => {
    const text = manifestOf({ annotations: { to: "delete" } });
    await putManifest(text, "doomed");
    await optional(await ask("DELETE", manifestUrl(digestOf(text))), [202], [400, 405]);
    await answers(await ask("GET", manifestUrl(digestOf(text)), undefined, accept), 404);
    await answers(await ask("GET", manifestUrl("doomed"), undefined, accept), 404);
    is("tag", (await tagsOf("", name)).tags?.includes("doomed"), false);
  });
  await check("Deleting Manifests: a referrer is no longer listed", async () => {
    await optional(await ask("DELETE", manifestUrl(digestOf(sbom))), [202], [400, 405]);
    is("count", (await referrers(subject.digest)).manifests.length, 2);
  });
  await check("Deleting Manifests: of what is not there is 404", async () => {
    await optional(await ask("DELETE", manifestUrl(missing)), [404], [400, 405]);
    await optional(await ask("DELETE", manifestUrl(missing, "no/such")), [404], [400, 405]);
  });
  await check("Deleting Blobs: 202, it is gone here and nowhere else", async () => {
    const digest = await putBlob("to be deleted");
    await putBlob("to be deleted", other);
    await optional(await ask("DELETE", blobUrl(digest)), [202], [400, 405]);
    await answers(await ask("GET", blobUrl(digest)), 404);
    await answers(await ask("GET", blobUrl(digest, other)), 200);
  });
  await check("Deleting Blobs: of what is not there is 404", async () => {
    await optional(await ask("DELETE", blobUrl(missing)), [404], [400, 405]);
  });
  return results;
}
