// What the registry keeps: blobs by digest, and the repositories' links to them. One process owns a root (it holds a lock on it), therefore what is
// known about links may be remembered: a manifest that was asked for before is answered without touching the disk.
import { closeSync, mkdirSync, openSync } from "node:fs";
import { readdir, unlink, utimes } from "node:fs/promises";
import { join } from "node:path";
import { failedPrecondition } from "../lib/errors.ts";
import { binding, SYS } from "../linux/index.ts";
import { type Digest, isDigest, MAX_MANIFEST, matches } from "../oci/index.ts";
import { createCache } from "./cache.ts";
import { makeDirectory, namesIn, orAbsent, place, read, remove, sizeOf, writeWhole } from "./files.ts";
import { createLayout, type Layout, linkTarget } from "./layout.ts";
import { createLeases, type Leases } from "./leases.ts";
import { isName } from "./route.ts";

export type LinkKind = "layer" | "revision";

export interface Store {
  readonly layout: Layout;
  readonly leases: Leases;
  /** When this process began to serve the root, in milliseconds: leases from before are not known. */
  readonly began: number;
  /** Size of a blob that the repository has; undefined where it does not. Takes a lease. */
  blobSize(name: string, digest: Digest): Promise<number | undefined>;
  /** Size of a blob that is there, in whichever repository. Takes a lease. */
  anyBlobSize(digest: Digest): Promise<number | undefined>;
  /** The size from memory alone; undefined also where the disk would have to be asked. */
  knownBlobSize(name: string, digest: Digest): number | undefined;
  /** Moves a synced file to its place as the blob (whose digest the caller has checked) and links it to the repository. */
  commitBlob(file: string, name: string, digest: Digest, size: number): Promise<void>;
  /** Links a blob that is there, in whichever repository, to this one. */
  linkBlob(name: string, digest: Digest, size: number): Promise<void>;
  /** Takes the link away; false where there was none. */
  unlinkBlob(name: string, digest: Digest): Promise<boolean>;
  /** A manifest's bytes: the promise's or, where they are in memory, at once. */
  manifest(name: string, digest: Digest): Uint8Array | Promise<Uint8Array | undefined>;
  putManifest(name: string, digest: Digest, bytes: Uint8Array): Promise<void>;
  /** Takes the link away; false where there was none. */
  removeManifest(name: string, digest: Digest): Promise<boolean>;
  tag(name: string, tag: string): Digest | Promise<Digest | undefined>;
  putTag(name: string, tag: string, digest: Digest): Promise<void>;
  removeTag(name: string, tag: string): Promise<boolean>;
  /** All tags, sorted by bytes; undefined where there is no such repository. */
  tags(name: string): Promise<string[] | undefined>;
  /** Digests of the manifests that a repository has. */
  manifests(name: string): Promise<Digest[]>;
  layers(name: string): Promise<Digest[]>;
  putReferrer(name: string, subject: Digest, digest: Digest): Promise<void>;
  removeReferrer(name: string, subject: Digest, digest: Digest): Promise<void>;
  referrers(name: string, subject: Digest): Promise<Digest[]>;
  /** Names of all repositories that hold something, sorted by bytes; with those that only have uploads in progress where asked for. */
  repositories(uploads?: boolean): Promise<string[]>;
  /** Renews a link's time, from which its age is counted. */
  touch(name: string, kind: LinkKind, digest: Digest): Promise<void>;
  /** Forgets what it remembers about a link or a blob that was taken away from under it. */
  forget(name: string | undefined, digest: Digest): void;
  close(): Promise<void>;
}

const LOCK_EX_NB = 2 | 4;
const MANIFEST_MEMORY = 32 << 20;
const LINK_MEMORY = 100_000;
const MAX_DEPTH = 128;

const byBytes = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

/** Holds the root for this process, or says who would be disturbed. */
function lock(path: string, root: string): () => void {
  const fd = openSync(path, "a", 0o600);
  if (binding.syscall(SYS.flock, fd, LOCK_EX_NB) < 0) {
    closeSync(fd);
    throw failedPrecondition(`${root} is served by another jubako-registry`);
  }
  return () => closeSync(fd);
}

/** Digests in a directory ALGORITHM/HEX/link. */
async function digestsIn(dir: string): Promise<Digest[]> {
  const digests: Digest[] = [];
  for (const algorithm of await namesIn(dir)) {
    for (const hex of await namesIn(join(dir, algorithm))) {
      const digest = `${algorithm}:${hex}`;
      if (isDigest(digest)) digests.push(digest);
    }
  }
  return digests;
}

/** `began`: see Store; 0 where no one was served lately. */
export async function openStore(root: string, graceMs: number, began = Date.now()): Promise<Store> {
  const layout = createLayout(root);
  mkdirSync(join(root, "jubako"), { recursive: true, mode: 0o700 });
  const unlock = lock(layout.lock, root);
  await remove(layout.temporary);
  await makeDirectory(layout.temporary);
  await makeDirectory(layout.blobs);
  await makeDirectory(layout.repositories);
  const leases = createLeases(graceMs);
  const sizes = createCache<{ size: number }>(LINK_MEMORY);
  const manifests = createCache<Uint8Array>(MANIFEST_MEMORY, (bytes) => bytes.length + 200);
  const revisions = createCache<true>(LINK_MEMORY);
  const tags = createCache<Digest>(LINK_MEMORY);
  const key = (name: string, rest: string) => `${name}@${rest}`;
  /** Changes of one tag, one after the other: the last answer sent is the one that stays. */
  const chains = new Map<string, Promise<unknown>>();

  const inTurn = <T>(what: string, fn: () => Promise<T>): Promise<T> => {
    const before = chains.get(what) ?? Promise.resolve();
    const mine = before.then(fn, fn);
    const settled = mine.catch(() => {});
    chains.set(what, settled);
    void settled.then(() => {
      if (chains.get(what) === settled) chains.delete(what);
    });
    return mine;
  };

  const writeLink = (path: string, digest: Digest) => writeWhole(layout.temporary, path, digest);

  const linkBlob: Store["linkBlob"] = async (name, digest, size) => {
    leases.take(digest);
    await writeLink(layout.layer(name, digest), digest);
    sizes.set(key(name, digest), { size });
  };

  const readTag = async (name: string, tag: string): Promise<Digest | undefined> => {
    const text = await read(layout.tagLink(name, tag));
    const digest = text && linkTarget(text.toString("latin1"));
    if (digest) tags.set(key(name, tag), digest);
    return digest;
  };

  const readManifest = async (name: string, digest: Digest): Promise<Uint8Array | undefined> => {
    if (!revisions.get(key(name, digest))) {
      if ((await read(layout.revision(name, digest))) === undefined) return undefined;
    }
    const known = manifests.get(digest);
    if (known) {
      revisions.set(key(name, digest), true);
      return known;
    }
    const path = layout.blob(digest);
    const size = await sizeOf(path);
    if (size === undefined || size > MAX_MANIFEST) return undefined;
    const bytes = await read(path);
    // A manifest that rotted on disk is not served: its digest is a promise.
    if (!bytes || !matches(bytes, digest)) return undefined;
    manifests.set(digest, bytes);
    revisions.set(key(name, digest), true);
    return bytes;
  };

  const walk = async (dir: string, prefix: string, depth: number, uploads: boolean, found: Set<string>): Promise<void> => {
    for (const entry of (await orAbsent(readdir(dir, { withFileTypes: true }))) ?? []) {
      if (!entry.isDirectory()) continue;
      if (entry.name.startsWith("_")) {
        if ((entry.name !== "_uploads" || uploads) && isName(prefix)) found.add(prefix);
      } else if (depth < MAX_DEPTH) {
        await walk(join(dir, entry.name), prefix ? `${prefix}/${entry.name}` : entry.name, depth + 1, uploads, found);
      }
    }
  };

  return {
    layout,
    leases,
    began,
    knownBlobSize(name, digest) {
      const known = sizes.get(key(name, digest));
      if (known) leases.take(digest);
      return known?.size;
    },
    async blobSize(name, digest) {
      const lease = leases.take(digest);
      const known = sizes.get(key(name, digest));
      if (known) return known.size;
      const linked = (await read(layout.layer(name, digest))) !== undefined;
      const size = linked ? await sizeOf(layout.blob(digest)) : undefined;
      if (size === undefined) leases.drop(digest, lease);
      else sizes.set(key(name, digest), { size });
      return size;
    },
    async anyBlobSize(digest) {
      const lease = leases.take(digest);
      const size = await sizeOf(layout.blob(digest));
      if (size === undefined) leases.drop(digest, lease);
      return size;
    },
    async commitBlob(file, name, digest, size) {
      leases.take(digest);
      const path = layout.blob(digest);
      // What is there already stays: someone may be reading it, and it is the same.
      if ((await sizeOf(path)) === size) await unlink(file);
      else await place(file, path);
      await linkBlob(name, digest, size);
    },
    linkBlob,
    async unlinkBlob(name, digest) {
      sizes.delete(key(name, digest));
      const path = layout.layer(name, digest);
      if ((await read(path)) === undefined) return false;
      await remove(join(path, ".."));
      sizes.delete(key(name, digest));
      return true;
    },
    manifest(name, digest) {
      if (revisions.get(key(name, digest))) {
        const bytes = manifests.get(digest);
        if (bytes) return bytes;
      }
      return readManifest(name, digest);
    },
    async putManifest(name, digest, bytes) {
      leases.take(digest);
      const path = layout.blob(digest);
      if ((await sizeOf(path)) !== bytes.length) await writeWhole(layout.temporary, path, bytes);
      await writeLink(layout.revision(name, digest), digest);
      manifests.set(digest, bytes);
      revisions.set(key(name, digest), true);
    },
    async removeManifest(name, digest) {
      revisions.delete(key(name, digest));
      const path = layout.revision(name, digest);
      if ((await read(path)) === undefined) return false;
      await remove(join(path, ".."));
      revisions.delete(key(name, digest));
      return true;
    },
    tag: (name, tag) => tags.get(key(name, tag)) ?? readTag(name, tag),
    putTag: (name, tag, digest) =>
      inTurn(key(name, tag), async () => {
        await writeLink(layout.tagIndex(name, tag, digest), digest);
        await writeLink(layout.tagLink(name, tag), digest);
        tags.set(key(name, tag), digest);
      }),
    removeTag: (name, tag) =>
      inTurn(key(name, tag), async () => {
        tags.delete(key(name, tag));
        if ((await read(layout.tagLink(name, tag))) === undefined) return false;
        await unlink(layout.tagLink(name, tag));
        await remove(layout.tag(name, tag));
        tags.delete(key(name, tag));
        return true;
      }),
    async tags(name) {
      const names = await orAbsent(readdir(layout.tags(name)));
      if (names) {
        const current: string[] = [];
        for (const tag of names) {
          if (tags.get(key(name, tag)) ?? (await sizeOf(layout.tagLink(name, tag))) !== undefined) current.push(tag);
        }
        return current.sort(byBytes);
      }
      const known = (await sizeOf(`${layout.repository(name)}/_manifests`)) ?? (await sizeOf(layout.layers(name)));
      return known === undefined ? undefined : [];
    },
    manifests: (name) => digestsIn(layout.revisions(name)),
    layers: (name) => digestsIn(layout.layers(name)),
    putReferrer: (name, subject, digest) => writeLink(layout.referrer(name, subject, digest), digest),
    removeReferrer: (name, subject, digest) => remove(join(layout.referrer(name, subject, digest), "..")),
    referrers: async (name, subject) => (await digestsIn(layout.referrers(name, subject))).sort(byBytes),
    async repositories(uploads = false) {
      const found = new Set<string>();
      await walk(layout.repositories, "", 0, uploads, found);
      return [...found].sort(byBytes);
    },
    async touch(name, kind, digest) {
      const now = new Date();
      await orAbsent(utimes(kind === "layer" ? layout.layer(name, digest) : layout.revision(name, digest), now, now));
    },
    forget(name, digest) {
      manifests.delete(digest);
      if (name === undefined) return;
      sizes.delete(key(name, digest));
      revisions.delete(key(name, digest));
    },
    async close() {
      unlock();
    },
  };
}
