// Leases on blobs: what a client was told is there, or has just brought, stays for a while although no manifest names it yet. A push asks for a blob
// (HEAD), is told that it need not be uploaded, and names it in a manifest minutes later: garbage collection must not come in between.
// A lease is taken before one looks whether the blob is there, and garbage collection looks at the lease and unlinks within one turn of the event loop:
// either the look-up finds the blob and it stays, or it is gone and the client uploads it.
import type { Digest } from "../oci/index.ts";

export interface Lease {
  time: number;
}

export interface Leases {
  /** Holds the blob for the grace time from now. */
  take(digest: Digest): Lease;
  /** Gives back a lease on what turned out not to be there, unless another was taken since. */
  drop(digest: Digest, lease: Lease): void;
  /** Whether a lease is younger than the grace time, or than `since` (milliseconds). */
  held(digest: Digest, since?: number): boolean;
  readonly graceMs: number;
  count(): number;
}

const SWEEP_ABOVE = 10_000;

export function createLeases(graceMs: number, now: () => number = Date.now): Leases {
  const taken = new Map<Digest, Lease>();
  let sweepAt = SWEEP_ABOVE;
  return {
    graceMs,
    take(digest) {
      const lease = { time: now() };
      taken.set(digest, lease);
      if (taken.size >= sweepAt) {
        const limit = lease.time - graceMs;
        for (const [key, { time }] of taken) if (time < limit) taken.delete(key);
        sweepAt = Math.max(SWEEP_ABOVE, taken.size * 2);
      }
      return lease;
    },
    drop(digest, lease) {
      if (taken.get(digest) === lease) taken.delete(digest);
    },
    held(digest, since = Number.POSITIVE_INFINITY) {
      const lease = taken.get(digest);
      return lease !== undefined && lease.time >= Math.min(since, now() - graceMs);
    },
    count: () => taken.size,
  };
}
