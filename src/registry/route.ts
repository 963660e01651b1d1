// The paths of the distribution specification ("Endpoints"), parsed once into what they name. A name's components are checked here, so that nothing
// else ever meets a path trick: "..", empty components and capitals are no names.
import { type Digest, isDigest } from "../oci/index.ts";
import { refuse } from "./errors.ts";

export type Route =
  | { kind: "base" }
  | { kind: "catalog" }
  | { kind: "manifest"; name: string; tag: string; digest?: undefined }
  | { kind: "manifest"; name: string; digest: Digest; tag?: undefined }
  | { kind: "blob"; name: string; digest: Digest }
  | { kind: "uploads"; name: string }
  | { kind: "upload"; name: string; id: string }
  | { kind: "tags"; name: string }
  | { kind: "referrers"; name: string; digest: Digest };

const COMPONENT = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*";
const NAME = new RegExp(`^${COMPONENT}(?:/${COMPONENT})*$`);
const TAG = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/;
const MAX_NAME = 255;
/** The greedy first group finds the last place where a suffix fits: components may be called "blobs" or "tags" too. */
const PATH = /^\/v2\/(.*)\/(?:(manifests)\/([^/]+)|(blobs)\/uploads(?:\/([^/]*))?|(blobs)\/([^/]+)|(tags)\/list|(referrers)\/([^/]+))\/?$/s;

export function isName(text: string): boolean {
  return text.length <= MAX_NAME && NAME.test(text);
}

export function parseName(text: string): string {
  if (!isName(text)) throw refuse("NAME_INVALID", { detail: { name: text.slice(0, MAX_NAME) } });
  return text;
}

export function digestParameter(text: string): Digest {
  if (!isDigest(text))
    throw refuse("DIGEST_INVALID", { message: "the digest is not a digest of a supported algorithm", detail: text.slice(0, 256) });
  return text;
}

/** The route of a path (without its query); undefined where the specification has none of that form. */
export function parseRoute(raw: string): Route | undefined {
  let path = raw;
  if (path.includes("%")) {
    try {
      path = decodeURIComponent(path);
    } catch {
      throw refuse("NAME_INVALID", { message: "the path is not valid UTF-8 in percent encoding" });
    }
  }
  if (path === "/v2/" || path === "/v2") return { kind: "base" };
  if (path === "/v2/_catalog" || path === "/v2/_catalog/") return { kind: "catalog" };
  const match = PATH.exec(path);
  if (!match) return undefined;
  const [, first, manifests, reference, uploads, id, blobs, blob, tags, referrers, subject] = match;
  const name = parseName(first!);
  if (manifests) {
    if (reference!.includes(":")) return { kind: "manifest", name, digest: digestParameter(reference!) };
    if (!TAG.test(reference!)) throw refuse("TAG_INVALID", { status: 404, message: "the reference is neither a tag nor a digest" });
    return { kind: "manifest", name, tag: reference! };
  }
  if (uploads) return id ? { kind: "upload", name, id } : { kind: "uploads", name };
  if (blobs) return { kind: "blob", name, digest: digestParameter(blob!) };
  if (tags) return { kind: "tags", name };
  if (referrers) return { kind: "referrers", name, digest: digestParameter(subject!) };
  return undefined;
}
