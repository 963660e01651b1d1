// Digests (https://github.com/opencontainers/image-spec/blob/main/descriptor.md#digests): "sha256:" and 64 hex digits, or "sha512:" and 128.
import { createHash } from "node:crypto";
import { invalidArgument } from "../lib/errors.ts";

/** "sha256:…" or "sha512:…", checked. */
export type Digest = string;

const LENGTHS: Record<string, number> = { sha256: 64, sha384: 96, sha512: 128 };
const FORM = /^[A-Za-z0-9]+(?:[.+_-][A-Za-z0-9]+)*:[A-Fa-f0-9]+$/;

/** What is wrong with a digest, in the words of Docker; undefined where nothing is. */
function fault(text: string): string | undefined {
  if (text.length > 256 || !FORM.test(text)) return "invalid checksum digest format";
  const colon = text.indexOf(":");
  const length = LENGTHS[text.slice(0, colon)];
  if (length === undefined) return "unsupported digest algorithm";
  if (text.length - colon - 1 !== length) return "invalid checksum digest length";
  return /^[a-f0-9]+$/.test(text.slice(colon + 1)) ? undefined : "invalid checksum digest format";
}

export function isDigest(text: string): boolean {
  return fault(text) === undefined;
}

/** The digest, or InvalidArgument. */
export function parseDigest(text: string): Digest {
  const wrong = fault(text);
  if (wrong) throw invalidArgument(wrong);
  return text;
}

/** "sha256" of "sha256:…". */
export function algorithmOf(digest: Digest): string {
  return digest.slice(0, digest.indexOf(":"));
}

/** The hex digits of a digest. */
export function hexOf(digest: Digest): string {
  return digest.slice(digest.indexOf(":") + 1);
}

/** Digest of bytes; sha256 unless said. */
export function digestOf(bytes: Uint8Array | string, algorithm = "sha256"): Digest {
  return `${algorithm}:${createHash(algorithm).update(bytes).digest("hex")}`;
}

/** Whether the bytes are the ones that the digest names. */
export function matches(bytes: Uint8Array, digest: Digest): boolean {
  return digestOf(bytes, algorithmOf(digest)) === digest;
}

/** A digest computed piece by piece. */
export interface Digester {
  update(bytes: Uint8Array): void;
  digest(): Digest;
}

export function createDigester(algorithm = "sha256"): Digester {
  const hash = createHash(algorithm);
  return {
    update: (bytes) => void hash.update(bytes),
    digest: () => `${algorithm}:${hash.digest("hex")}`,
  };
}

/**
 * Chain ids of a stack of layers, lowest first (image-spec config.md, "Layer ChainID"): what a snapshot of the first n layers is called.
 */
export function chainIds(diffIds: readonly Digest[]): Digest[] {
  const chain: Digest[] = [];
  for (const diffId of diffIds) {
    const below = chain.at(-1);
    chain.push(below === undefined ? diffId : digestOf(`${below} ${diffId}`));
  }
  return chain;
}

/** Chain id of the whole stack; "" where there is no layer. */
export function chainId(diffIds: readonly Digest[]): Digest {
  return chainIds(diffIds).at(-1) ?? "";
}
