// Names of images, as Docker reads them (the grammar of distribution/reference): [domain[:port]/]path[:tag][@digest]. "busybox" is
// docker.io/library/busybox; the familiar form is the short one again.
import { invalidArgument } from "../lib/errors.ts";
import { isDigest, parseDigest } from "./digest.ts";

export interface Reference {
  /** "docker.io", "localhost:5000". */
  domain: string;
  /** "library/busybox". */
  path: string;
  tag?: string;
  digest?: string;
}

const DEFAULT_DOMAIN = "docker.io";
const LEGACY_DOMAIN = "index.docker.io";
const OFFICIAL = "library/";
export const DEFAULT_TAG = "latest";
const MAX_NAME = 255;

const LABEL = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
const DOMAIN = `(?:${LABEL}(?:\\.${LABEL})*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?`;
const COMPONENT = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*";
const REFERENCE = new RegExp(
  `^((?:${DOMAIN}/)?${COMPONENT}(?:/${COMPONENT})*)(?::([\\w][\\w.-]{0,127}))?(?:@([A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9A-Fa-f]{32,}))?$`,
);
const TAG = /^[\w][\w.-]{0,127}$/;

/** Domain and the rest, by Docker's rule: the first component is a domain only if it looks like one. */
function splitDomain(name: string): [domain: string, rest: string] {
  const slash = name.indexOf("/");
  const first = slash < 0 ? "" : name.slice(0, slash);
  let domain = DEFAULT_DOMAIN;
  let rest = name;
  if (slash >= 0 && (/[.:]/.test(first) || first === "localhost" || first.toLowerCase() !== first)) {
    domain = first === LEGACY_DOMAIN ? DEFAULT_DOMAIN : first;
    rest = name.slice(slash + 1);
  }
  if (domain === DEFAULT_DOMAIN && !rest.includes("/")) rest = OFFICIAL + rest;
  return [domain, rest];
}

/** Reads a name in any form and completes domain and "library/"; no tag is added. InvalidArgument in Docker's words. */
export function parseReference(text: string): Reference {
  if (text === "") throw invalidArgument("invalid reference format");
  if (text.length > 1024) throw invalidArgument("invalid reference format");
  if (/^[a-f0-9]{64}$/.test(text)) throw invalidArgument(`invalid repository name (${text}), cannot specify 64-byte hexadecimal strings`);
  const [domain, rest] = splitDomain(text);
  const end = rest.indexOf(":");
  const remote = end < 0 ? rest : rest.slice(0, end);
  if (remote.toLowerCase() !== remote) throw invalidArgument(`invalid reference format: repository name (${remote}) must be lowercase`);
  const match = REFERENCE.exec(`${domain}/${rest}`);
  if (!match) {
    const lowercase = REFERENCE.test(`${domain}/${rest}`.toLowerCase());
    throw invalidArgument(lowercase ? "repository name must be lowercase" : "invalid reference format");
  }
  const path = match[1]!.slice(domain.length + 1);
  if (path === "" || !match[1]!.startsWith(`${domain}/`)) throw invalidArgument("invalid reference format");
  if (path.length > MAX_NAME) throw invalidArgument(`repository name must not be more than ${MAX_NAME} characters`);
  const reference: Reference = { domain, path };
  if (match[2] !== undefined) reference.tag = match[2];
  if (match[3] !== undefined) reference.digest = parseDigest(match[3]);
  return reference;
}

/** The same, with "latest" where there is neither tag nor digest. */
export function parseTagged(text: string): Reference {
  return withDefaultTag(parseReference(text));
}

export function withDefaultTag(reference: Reference): Reference {
  return reference.tag === undefined && reference.digest === undefined ? { ...reference, tag: DEFAULT_TAG } : reference;
}

/** Checks a tag: InvalidArgument "invalid tag format". */
export function parseTag(text: string): string {
  if (!TAG.test(text)) throw invalidArgument("invalid tag format");
  return text;
}

/** "docker.io/library/busybox" */
export function nameOf(reference: Reference): string {
  return `${reference.domain}/${reference.path}`;
}

const suffix = (reference: Reference): string =>
  (reference.tag === undefined ? "" : `:${reference.tag}`) + (reference.digest === undefined ? "" : `@${reference.digest}`);

/** "docker.io/library/busybox:latest" */
export function formatReference(reference: Reference): string {
  return nameOf(reference) + suffix(reference);
}

/** The familiar name without tag and digest: "busybox", "host:5000/a/b". */
export function familiarName(reference: Reference): string {
  if (reference.domain !== DEFAULT_DOMAIN) return nameOf(reference);
  const official = reference.path.startsWith(OFFICIAL) && !reference.path.slice(OFFICIAL.length).includes("/");
  return official ? reference.path.slice(OFFICIAL.length) : reference.path;
}

/** The familiar form: "busybox:latest". */
export function familiarReference(reference: Reference): string {
  return familiarName(reference) + suffix(reference);
}

/** What `docker images X` or `docker rmi X` may mean besides a name: an image id, or the beginning of one. */
export function asImageId(text: string): { digest?: string; prefix?: string } {
  if (isDigest(text)) return { digest: text };
  const hex = text.startsWith("sha256:") ? text.slice(7) : text;
  return /^[a-f0-9]{1,64}$/.test(hex) ? { prefix: hex } : {};
}
