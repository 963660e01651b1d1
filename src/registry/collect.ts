// Garbage collection while serving. What it may remove, and why that is safe beside pushes and pulls:
//   uploads      that nobody continued for their age
//   manifests    (where asked for) that no tag, no index and no subject leads to, older than the grace time
//   blob links   of a repository that none of its manifests names, older than the grace time and not leased
//   blobs        that no repository links, older than the grace time and not leased
// A lease is taken before a handler looks whether a blob is there (see leases.ts); here the look at the lease and the unlink are one synchronous
// step. Leases of the time before a restart are unknown: until the grace time since the start has passed, all that is younger than start counts as leased.
import { rmSync, statSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type Digest, isDigest } from "../oci/index.ts";
import { type Document, documentOf } from "./document.ts";
import { isAbsent, namesIn, orAbsent } from "./files.ts";
import type { Store } from "./store.ts";
import type { Uploads } from "./uploads.ts";

export interface CollectOptions {
  dryRun: boolean;
  deleteUntagged: boolean;
  uploadAgeMs: number;
  /** What each removal is told to. */
  report?: (line: string) => void;
}

export interface Collected {
  uploads: number;
  manifests: number;
  links: number;
  blobs: number;
  bytes: number;
}

/** Facts of a manifest; undefined for one of a kind that is not understood (schema 1, from a former registry): what it names is not known. */
function readable(bytes: Uint8Array): Document | undefined {
  try {
    return documentOf(bytes);
  } catch {
    return undefined;
  }
}

/** Age in milliseconds, or undefined where the file is gone. */
function ageOf(path: string): { age: number; size: number } | undefined {
  try {
    const { mtimeMs, size } = statSync(path);
    return { age: Date.now() - mtimeMs, size };
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw error;
  }
}

export async function collect(store: Store, uploads: Uploads, options: CollectOptions): Promise<Collected> {
  const { layout, leases } = store;
  const { dryRun, report = () => {} } = options;
  const done: Collected = { uploads: 0, manifests: 0, links: 0, blobs: 0, bytes: 0 };
  const began = Date.now();
  const leased = (digest: Digest) => leases.held(digest, began);
  const young = (age: number) => age < leases.graceMs;
  /** The leases that a former process gave out are forgotten, but not broken. */
  const justBegun = () => Date.now() - store.began < leases.graceMs;

  if (options.uploadAgeMs > 0) done.uploads = await uploads.purge(options.uploadAgeMs, dryRun);

  const linked = new Set<Digest>();
  // A repository that can't be read ends it here: nothing is swept on incomplete knowledge.
  for (const name of await store.repositories()) await repository(name);
  await sweep();
  return done;

  async function repository(name: string): Promise<void> {
    const revisions = new Set(await store.manifests(name));
    if (options.deleteUntagged) await untagged(name, revisions);
    const named = new Set<Digest>();
    let unreadable = false;
    for (const digest of revisions) {
      linked.add(digest);
      const bytes = await store.manifest(name, digest);
      const document = bytes && readable(bytes);
      if (document) for (const blob of document.blobs) named.add(blob.digest);
      else unreadable = true;
    }
    for (const digest of await store.layers(name)) {
      if (named.has(digest) || unreadable) {
        linked.add(digest);
        continue;
      }
      const path = layout.layer(name, digest);
      const found = ageOf(path);
      if (!found) continue;
      if (young(found.age) || leased(digest) || justBegun() || dryRun) {
        const goes = dryRun && !young(found.age) && !leased(digest);
        if (!goes) linked.add(digest);
        else {
          done.links++;
          report(`${name}: blob link eligible for deletion: ${digest}`);
        }
        continue;
      }
      store.forget(name, digest);
      rmSync(dirname(path), { recursive: true, force: true });
      done.links++;
      report(`${name}: blob link deleted: ${digest}`);
    }
  }

  async function untagged(name: string, revisions: Set<Digest>): Promise<void> {
    const kept = new Set<Digest>();
    const subjects = new Map<Digest, Digest[]>();
    const queue: Digest[] = [];
    for (const tag of (await store.tags(name)) ?? []) {
      const digest = await store.tag(name, tag);
      if (digest) queue.push(digest);
    }
    for (const digest of revisions) {
      const bytes = await store.manifest(name, digest);
      const subject = bytes && readable(bytes)?.subject;
      if (subject) subjects.set(subject.digest, [...(subjects.get(subject.digest) ?? []), digest]);
      const found = ageOf(layout.revision(name, digest));
      if (!found || young(found.age) || leased(digest) || (justBegun() && !dryRun)) queue.push(digest);
    }
    for (let digest = queue.pop(); digest !== undefined; digest = queue.pop()) {
      if (kept.has(digest)) continue;
      kept.add(digest);
      const bytes = await store.manifest(name, digest);
      if (bytes) queue.push(...(readable(bytes)?.manifests ?? []));
      queue.push(...(subjects.get(digest) ?? []));
    }
    for (const digest of revisions) {
      if (kept.has(digest)) continue;
      const bytes = await store.manifest(name, digest);
      // Since the tags were listed someone may have brought it again, which renews its lease.
      if (leased(digest)) continue;
      revisions.delete(digest);
      done.manifests++;
      report(`${name}: manifest ${dryRun ? "eligible for deletion" : "deleted"}: ${digest}`);
      if (dryRun) continue;
      store.forget(name, digest);
      rmSync(dirname(layout.revision(name, digest)), { recursive: true, force: true });
      const subject = bytes && readable(bytes)?.subject;
      if (subject) await store.removeReferrer(name, subject.digest, digest);
    }
  }

  async function sweep(): Promise<void> {
    for (const algorithm of await namesIn(layout.blobs)) {
      for (const two of await namesIn(join(layout.blobs, algorithm))) {
        const entries = (await orAbsent(readdir(join(layout.blobs, algorithm, two)))) ?? [];
        for (const hex of entries) {
          const digest = `${algorithm}:${hex}`;
          if (!isDigest(digest) || linked.has(digest)) continue;
          const found = ageOf(layout.blob(digest));
          if (!found || young(found.age) || leased(digest) || (justBegun() && !dryRun)) continue;
          done.blobs++;
          done.bytes += found.size;
          report(`blob ${dryRun ? "eligible for deletion" : "deleted"}: ${digest}`);
          if (dryRun) continue;
          store.forget(undefined, digest);
          rmSync(dirname(layout.blob(digest)), { recursive: true, force: true });
        }
      }
    }
  }
}
