// What a client may look through: tags ("Listing Tags"), referrers ("Listing Referrers"), and the catalog of repositories (Docker's, not the spec's).
import { algorithmOf, type Digest, hexOf, MEDIA } from "../oci/index.ts";
import { documentOf } from "./document.ts";
import { refuse } from "./errors.ts";
import { type Exchange, pageOf, parsePage, send, sendJson } from "./exchange.ts";
import type { Store } from "./store.ts";

export interface Listings {
  tags(exchange: Exchange, name: string): Promise<void>;
  referrers(exchange: Exchange, name: string, subject: Digest): Promise<void>;
  catalog(exchange: Exchange): Promise<void>;
}

/** Entries of a page of referrers: with their annotations they must stay a manifest that clients accept (4 MiB). */
const REFERRERS_PAGE = 500;
const REFERRERS_BYTES = 3 << 20;

export function createListings(store: Store, catalogMost: number): Listings {
  /**
   * What has the subject: as the links say, and as an index says that a client kept under the subject's own tag because the registry of that time had no
   * referrers ("Referrers Tag Schema"; to be answered, too: "Enabling the Referrers API").
   */
  const referrersOf = async (name: string, subject: Digest): Promise<Digest[]> => {
    const linked = await store.referrers(name, subject);
    const tagged = await store.tag(name, `${algorithmOf(subject).slice(0, 32)}-${hexOf(subject).slice(0, 64)}`);
    const index = tagged && (await store.manifest(name, tagged));
    if (!index) return linked;
    const all = new Set(linked);
    for (const digest of documentOf(index).manifests) {
      const bytes = await store.manifest(name, digest);
      if (bytes && documentOf(bytes).subject?.digest === subject) all.add(digest);
    }
    return [...all].sort();
  };

  return {
    async tags(exchange, name) {
      const page = parsePage(exchange.query);
      const tags = await store.tags(name);
      if (!tags) throw refuse("NAME_UNKNOWN", { detail: { name } });
      const { items, headers } = pageOf(tags, page, `/v2/${name}/tags/list`);
      sendJson(exchange, { name, tags: items }, headers);
    },

    async referrers(exchange, name, subject) {
      const artifactType = exchange.query.get("artifactType") || undefined;
      const last = exchange.query.get("last") ?? "";
      const n = Math.min(parsePage(exchange.query).n || REFERRERS_PAGE, REFERRERS_PAGE);
      const manifests: object[] = [];
      let weight = 0;
      let link: string | undefined;
      let sent = "";
      for (const digest of await referrersOf(name, subject)) {
        if (digest <= last) continue;
        const bytes = await store.manifest(name, digest);
        if (!bytes) continue;
        const document = documentOf(bytes);
        if (artifactType !== undefined && document.artifactType !== artifactType) continue;
        const { mediaType, annotations } = document;
        const descriptor = {
          mediaType,
          digest,
          size: bytes.length,
          ...(document.artifactType ? { artifactType: document.artifactType } : {}),
          ...(annotations ? { annotations } : {}),
        };
        weight += JSON.stringify(descriptor).length;
        if (manifests.length >= n || (weight > REFERRERS_BYTES && manifests.length > 0)) {
          const query = new URLSearchParams({ ...(artifactType ? { artifactType } : {}), n: String(n), last: sent });
          link = `</v2/${name}/referrers/${subject}?${query}>; rel="next"`;
          break;
        }
        manifests.push(descriptor);
        sent = digest;
      }
      send(
        exchange,
        200,
        {
          "content-type": MEDIA.ociIndex,
          ...(artifactType ? { "oci-filters-applied": "artifactType" } : {}),
          ...(link ? { link } : {}),
        },
        JSON.stringify({ schemaVersion: 2, mediaType: MEDIA.ociIndex, manifests }),
      );
    },

    async catalog(exchange) {
      const page = parsePage(exchange.query, catalogMost);
      const { items, headers } = pageOf(await store.repositories(), page, "/v2/_catalog");
      sendJson(exchange, { repositories: items }, headers);
    },
  };
}
