// Where things are on disk: the layout of the CNCF registry ("docker/registry/v2"), so that a directory filled by that one can be served by this one
// and the other way round. Blobs lie once, by digest; a repository has links: files that hold a digest.
//
//   blobs/sha256/ab/abcd…/data
//   repositories/NAME/_layers/sha256/HEX/link                    the repository has this blob
//   repositories/NAME/_manifests/revisions/sha256/HEX/link       … this manifest
//   repositories/NAME/_manifests/tags/TAG/current/link           what the tag names; tags/TAG/index/sha256/HEX/link: what it ever named
//   repositories/NAME/_manifests/referrers/sha256/HEX/sha256/HEX/link    ours alone: manifest (second) whose subject is the first
//   repositories/NAME/_uploads/UUID/{data,startedat}
import { algorithmOf, type Digest, hexOf, isDigest } from "../oci/index.ts";

export interface Layout {
  /** Files on their way to their place; emptied at start. */
  temporary: string;
  lock: string;
  /** Directory of the lock and the control socket. */
  own: string;
  blobs: string;
  repositories: string;
  blob(digest: Digest): string;
  repository(name: string): string;
  layers(name: string): string;
  layer(name: string, digest: Digest): string;
  revisions(name: string): string;
  revision(name: string, digest: Digest): string;
  tags(name: string): string;
  tag(name: string, tag: string): string;
  tagLink(name: string, tag: string): string;
  tagIndex(name: string, tag: string, digest: Digest): string;
  referrers(name: string, subject: Digest): string;
  referrer(name: string, subject: Digest, digest: Digest): string;
  uploads(name: string): string;
  upload(name: string, id: string): string;
}

const part = (digest: Digest): string => `${algorithmOf(digest)}/${hexOf(digest)}`;

export function createLayout(root: string): Layout {
  const base = `${root}/docker/registry/v2`;
  const repository = (name: string) => `${base}/repositories/${name}`;
  return {
    temporary: `${root}/jubako/tmp`,
    lock: `${root}/jubako/lock`,
    own: `${root}/jubako`,
    blobs: `${base}/blobs`,
    repositories: `${base}/repositories`,
    blob: (digest) => `${base}/blobs/${algorithmOf(digest)}/${hexOf(digest).slice(0, 2)}/${hexOf(digest)}/data`,
    repository,
    layers: (name) => `${repository(name)}/_layers`,
    layer: (name, digest) => `${repository(name)}/_layers/${part(digest)}/link`,
    revisions: (name) => `${repository(name)}/_manifests/revisions`,
    revision: (name, digest) => `${repository(name)}/_manifests/revisions/${part(digest)}/link`,
    tags: (name) => `${repository(name)}/_manifests/tags`,
    tag: (name, tag) => `${repository(name)}/_manifests/tags/${tag}`,
    tagLink: (name, tag) => `${repository(name)}/_manifests/tags/${tag}/current/link`,
    tagIndex: (name, tag, digest) => `${repository(name)}/_manifests/tags/${tag}/index/${part(digest)}/link`,
    referrers: (name, subject) => `${repository(name)}/_manifests/referrers/${part(subject)}`,
    referrer: (name, subject, digest) => `${repository(name)}/_manifests/referrers/${part(subject)}/${part(digest)}/link`,
    uploads: (name) => `${repository(name)}/_uploads`,
    upload: (name, id) => `${repository(name)}/_uploads/${id}`,
  };
}

/** What a link's file says; undefined where that is no digest (a torn or foreign file). */
export function linkTarget(text: string): Digest | undefined {
  const digest = text.trim();
  return isDigest(digest) ? digest : undefined;
}
