// The registry: the server side of the OCI distribution specification 1.1, with Docker's additions (schema 2, catalog, headers). It keeps blobs by digest
// and repositories of links to them, in a directory laid out as the CNCF registry's, and hands them out. It must never know what an image is for: no
// layer is opened here, no platform chosen. Protocol at its door: HTTP/1.1, with or without TLS, HTTP/2 with it.
//
// Nouns. Blob: bytes by digest, kept once for all repositories. Manifest: a blob that names others; a repository's *revision*. Tag: a repository's
// name for a manifest. Referrer: a manifest with a subject. Upload: a blob on its way, which a client may leave and resume. Link: a repository's right
// to a blob or manifest. Lease: a blob's safety from garbage collection for the grace time after someone brought it or asked for it.
//
// A blob's life: upload (a file of the repository) → checked, synced, renamed to its digest → linked → named by a manifest; unlinked by garbage collection
// when no manifest of the repository names it and no lease holds it, removed when no repository links it.
//
//   await using registry = await createRegistry({ ...defaults(), root: "/srv/registry", address: "127.0.0.1:0" }, log);
//   // skopeo copy oci:image docker://127.0.0.1:PORT/a/b:1:
//   //   POST /v2/a/b/blobs/uploads/ → PATCH → PUT ?digest=…, for each blob; PUT /v2/a/b/manifests/1
//   await registry.collect({ deleteUntagged: false, dryRun: false });
export type { Config } from "./config.ts";
export { defaults, parseConfig } from "./config.ts";
export { createRegistry, type Registry } from "./registry.ts";
export type { Log } from "./server.ts";
