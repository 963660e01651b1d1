// A snapshot is a file tree, and the difference to the tree it came from. This file is the idea; overlay.ts is one way to do it.
//
// A snapshot has a kind. *Active*: made by prepare(), writable, known by a key that its user invents. *Committed*: immutable, known by a name
// (for image layers, the chain id); commit() makes one of an active one, whose key is then free. *View*: a read-only look at a committed one, made
// by view(). Only a committed snapshot can be a parent, an empty parent ("") is the empty tree, and parents form a forest: nothing may be removed
// while another snapshot stands on it. Keys and names share one space within a namespace; two namespaces see nothing of each other.
//
// Nothing here mounts anything: prepare(), view() and mounts() answer mount instructions, which whoever uses the tree performs where it needs it
// (a container, in its own mount namespace). A tree that is mounted when its snapshot is removed stays valid until it is unmounted.
//
// Worked sequence, an image of two layers and a container from it:
//
//   prepare(ns, "extract-1", "")        → mounts; unpack layer 1 there
//   commit(ns, CHAIN1, "extract-1")       now immutable
//   prepare(ns, "extract-2", CHAIN1)    → mounts show layer 1; unpack layer 2 over it
//   commit(ns, CHAIN2, "extract-2")
//   prepare(ns, "my-container", CHAIN2) → mounts; the container's root, which it may write
//   remove(ns, "my-container")            CHAIN2 can be removed only after this
import type { Mount } from "../../gen/containerd/types_pb.ts";

export type Kind = "view" | "active" | "committed";

export interface Info {
  /** Key of an active snapshot or view, name of a committed one. */
  name: string;
  /** Name of the parent; "" without one. */
  parent: string;
  kind: Kind;
  labels: Record<string, string>;
  /** Microseconds since 1970. */
  created: number;
  updated: number;
}

/** What a snapshot adds to its parent. */
export interface Usage {
  /** Bytes on disk, in whole blocks; hard links count once. */
  size: number;
  inodes: number;
}

export interface Snapshotter {
  /** "overlayfs": what clients call it. */
  readonly name: string;
  /** NotFound where there is none of this key or name. Cheap. */
  stat(namespace: string, key: string): Info;
  /** Replaces labels; `paths` as in containerd's field mask ("labels", "labels.KEY"; empty: all labels). */
  update(namespace: string, info: { name: string; labels: Record<string, string> }, paths: string[]): Info;
  /**
   * Bytes and inodes of a snapshot's own difference, without its parents. Of a committed snapshot it is measured once and then remembered; of an
   * active one it walks the tree every time.
   */
  usage(namespace: string, key: string): Promise<Usage>;
  /** The mounts of an active snapshot or a view, as prepare() or view() answered them. FailedPrecondition for a committed one. Cheap. */
  mounts(namespace: string, key: string): Mount[];
  /** Makes an active snapshot. AlreadyExists where the key is taken, NotFound where the parent is not there, InvalidArgument where it is not committed. Well below a millisecond. */
  prepare(namespace: string, key: string, parent: string, labels: Record<string, string>, lease: string): Mount[];
  /** Makes a view; as prepare(). */
  view(namespace: string, key: string, parent: string, labels: Record<string, string>, lease: string): Mount[];
  /**
   * Turns the active snapshot `key` into the committed snapshot `name`. AlreadyExists where the name is taken: the active one then stays. One that was
   * prepared without a parent may be put upon `parent` now: so layers unpack side by side.
   */
  commit(namespace: string, name: string, key: string, labels: Record<string, string>, lease: string, parent?: string): void;
  /** Forgets the snapshot at once and deletes its files later. FailedPrecondition where another one stands on it, NotFound the second time. */
  remove(namespace: string, key: string): void;
  /** All of a namespace, by name. */
  list(namespace: string): Info[];
  /** Resolves when the files of all removed snapshots are gone. */
  cleanup(): Promise<void>;
}
