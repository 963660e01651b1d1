// Manifests: pull, push and removal ("Pulling manifests", "Pushing Manifests", "Deleting Manifests", "Deleting tags").
import { algorithmOf, type Digest, digestOf, MAX_MANIFEST } from "../oci/index.ts";
import { acceptDocument, documentOf } from "./document.ts";
import { refuse } from "./errors.ts";
import type { Notify } from "./events.ts";
import { type Exchange, send, wholeBody } from "./exchange.ts";
import { notModified } from "./range.ts";
import type { Store } from "./store.ts";

/** What a manifest's path ends with. */
export type Reference = { tag: string; digest?: undefined } | { digest: Digest; tag?: undefined };

export interface Manifests {
  get(exchange: Exchange, name: string, reference: Reference): Promise<void>;
  put(exchange: Exchange, name: string, reference: Reference): Promise<void>;
  remove(exchange: Exchange, name: string, reference: Reference): Promise<void>;
}

export function createManifests(store: Store, notify: Notify, maxManifest = MAX_MANIFEST): Manifests {
  const unknown = (name: string, reference: Reference) =>
    reference.tag !== undefined
      ? refuse("MANIFEST_UNKNOWN", { detail: { name, Tag: reference.tag } })
      : refuse("MANIFEST_UNKNOWN", { message: `manifest unknown`, detail: { name, digest: reference.digest } });

  /** Everything that the manifest names must be in the repository already. The leases are taken before one looks. */
  const check = async (name: string, bytes: Uint8Array, contentType: string) => {
    const document = acceptDocument(bytes, contentType);
    const missing: Digest[] = [];
    for (const digest of document.manifests) store.leases.take(digest);
    await Promise.all(
      document.blobs.map(async ({ digest, optional }) => {
        if ((await store.blobSize(name, digest)) === undefined && !optional) missing.push(digest);
      }),
    );
    await Promise.all(
      document.manifests.map(async (digest) => {
        if ((await store.manifest(name, digest)) === undefined) missing.push(digest);
      }),
    );
    if (missing.length) throw refuse("MANIFEST_BLOB_UNKNOWN", { detail: { digest: missing[0], all: missing.slice(0, 20) } });
    return document;
  };

  return {
    async get(exchange, name, reference) {
      let digest = reference.digest;
      if (digest === undefined) {
        const named = store.tag(name, reference.tag!);
        digest = named instanceof Promise ? await named : named;
        if (digest === undefined) throw unknown(name, reference);
      }
      const found = store.manifest(name, digest);
      const bytes = found instanceof Promise ? await found : found;
      if (bytes === undefined) throw unknown(name, reference);
      const { mediaType } = documentOf(bytes);
      const etag = `"${digest}"`;
      const headers: Record<string, string> = { "content-type": mediaType, "docker-content-digest": digest, etag };
      if (notModified(exchange.request.headers, etag)) return send(exchange, 304, headers);
      send(exchange, 200, headers, bytes);
      notify(exchange, {
        action: "pull",
        repository: name,
        digest,
        size: bytes.length,
        mediaType,
        ...(reference.tag === undefined ? {} : { tag: reference.tag }),
      });
    },

    async put(exchange, name, reference) {
      const bytes = await wholeBody(exchange.request, maxManifest);
      const digest = reference.digest ?? digestOf(bytes);
      const actual = reference.digest === undefined ? digest : digestOf(bytes, algorithmOf(digest));
      if (actual !== digest) throw refuse("DIGEST_INVALID", { detail: { expected: digest, actual } });
      const document = await check(name, bytes, exchange.request.headers["content-type"] ?? "");
      const { subject, mediaType } = document;
      await store.putManifest(name, digest, bytes);
      if (subject) await store.putReferrer(name, subject.digest, digest);
      if (reference.tag !== undefined) await store.putTag(name, reference.tag, digest);
      send(exchange, 201, {
        location: `/v2/${name}/manifests/${digest}`,
        "docker-content-digest": digest,
        ...(subject ? { "oci-subject": subject.digest } : {}),
      });
      notify(exchange, {
        action: "push",
        repository: name,
        digest,
        size: bytes.length,
        mediaType,
        ...(reference.tag === undefined ? {} : { tag: reference.tag }),
      });
    },

    async remove(exchange, name, reference) {
      if (reference.tag !== undefined) {
        if (!(await store.removeTag(name, reference.tag))) throw unknown(name, reference);
        send(exchange, 202, {});
        notify(exchange, { action: "delete", repository: name, tag: reference.tag });
        return;
      }
      const { digest } = reference;
      const bytes = await store.manifest(name, digest);
      // Tags go first: a crash in between leaves a manifest without tags, not tags without a manifest.
      const tags: string[] = [];
      for (const tag of (await store.tags(name)) ?? []) {
        if ((await store.tag(name, tag)) === digest && (await store.removeTag(name, tag))) tags.push(tag);
      }
      const subject = bytes && documentOf(bytes).subject;
      if (!(await store.removeManifest(name, digest))) throw unknown(name, reference);
      if (subject) await store.removeReferrer(name, subject.digest, digest);
      send(exchange, 202, {});
      notify(exchange, { action: "delete", repository: name, digest });
      for (const tag of tags) notify(exchange, { action: "delete", repository: name, tag });
    },
  };
}
