// Names of images as users write them (https://github.com/distribution/reference): "busybox", "host:5000/a/b:tag", "a@sha256:…".

export interface Reference {
  /** "docker.io". */
  domain: string;
  /** "library/busybox". */
  path: string;
  tag: string | undefined;
  digest: string | undefined;
}

const COMPONENT = /^[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*$/;
const DOMAIN =
  /^(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[a-fA-F0-9:]+\])(?::\d+)?$/;

/** Throws Docker's sentence where it is no name. */
export function parseReference(text: string): Reference {
  if (/^[a-f0-9]{64}$/.test(text)) throw new Error(`invalid repository name (${text}), cannot specify 64-byte hexadecimal strings`);
  const at = text.indexOf("@");
  const digest = at < 0 ? undefined : text.slice(at + 1);
  let rest = at < 0 ? text : text.slice(0, at);
  let tag: string | undefined;
  const colon = rest.lastIndexOf(":");
  if (colon > rest.lastIndexOf("/")) {
    tag = rest.slice(colon + 1);
    rest = rest.slice(0, colon);
  }
  const slash = rest.indexOf("/");
  const first = slash < 0 ? "" : rest.slice(0, slash);
  const hasDomain = slash > 0 && (/[.:]/.test(first) || first === "localhost" || first !== first.toLowerCase());
  let domain = hasDomain ? first : "docker.io";
  if (domain === "index.docker.io") domain = "docker.io";
  let path = hasDomain ? rest.slice(slash + 1) : rest;
  if (path !== path.toLowerCase())
    throw new Error(
      `invalid reference format: repository name (${domain === "docker.io" && !path.includes("/") ? `library/${path}` : path}) must be lowercase`,
    );
  if (domain === "docker.io" && !path.includes("/")) path = `library/${path}`;
  const bad =
    !DOMAIN.test(domain) ||
    path.split("/").some((part) => !COMPONENT.test(part)) ||
    (tag !== undefined && !/^\w[\w.-]{0,127}$/.test(tag)) ||
    (digest !== undefined && !/^[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}$/.test(digest));
  if (bad) throw new Error("invalid reference format");
  if (path.length + domain.length > 255) throw new Error("repository name must not be more than 255 characters");
  return { domain, path, tag, digest };
}

/** "busybox", "a/b", "host:5000/a". */
export function familiarName({ domain, path }: Reference): string {
  if (domain !== "docker.io") return `${domain}/${path}`;
  return path.startsWith("library/") && !path.slice(8).includes("/") ? path.slice(8) : path;
}

/** With ":latest" where neither tag nor digest is there. */
export function withTag(reference: Reference): Reference {
  return reference.tag === undefined && reference.digest === undefined ? { ...reference, tag: "latest" } : reference;
}

const suffix = ({ tag, digest }: Reference) => `${tag === undefined ? "" : `:${tag}`}${digest === undefined ? "" : `@${digest}`}`;

export const familiarString = (reference: Reference): string => familiarName(reference) + suffix(reference);
export const fullString = (reference: Reference): string => `${reference.domain}/${reference.path}${suffix(reference)}`;
