// Trees and what can be done with them: reading, and making a new one by changing one. A tree is a stack of layers; its snapshot is made (layers fetched,
// unpacked upon each other) only when somebody wants its files. What came from outside as files is a tree without layers: a directory of this host.
import { randomBytes } from "node:crypto";
import { mkdirSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { openDetached } from "../../containerd/index.ts";
import { failedPrecondition, isKind } from "../../lib/errors.ts";
import { close, O_DIRECTORY, O_RDONLY, open, openat2, RESOLVE_IN_ROOT } from "../../linux/index.ts";
import { chainIds } from "../../oci/index.ts";
import type { BuilderHost, Layer, Lease, Status } from "../host.ts";
import { ROOT_LABEL } from "./cache.ts";
import { copySource } from "./copy.ts";

const TAR = "application/vnd.oci.image.layer.v1.tar";
/** A tar that holds nothing. */
const EMPTY_TAR = 1024n;

export interface SnapshotMount {
  type: string;
  source: string;
  options: string[];
}

/** May say how it goes. */
export type Fetch = (status?: (status: Status) => void) => Promise<void>;

export interface Tree {
  layers: Layer[];
  /** Names the stack of layers; "" is the empty tree. */
  chainId: string;
  /** Host directory, which may have to be fetched; then there are no layers. */
  directory: string | undefined;
  /** Of a directory whose content is known without looking: a commit, a file's digest. "" otherwise. */
  digest: string;
  /** Makes the layers' contents, or the directory, be here; undefined where they are. */
  fetch: Fetch | undefined;
  /** Name of a committed snapshot that is not named by the chain id: what a failed step left. */
  snapshot: string | undefined;
}

export const EMPTY: Tree = { layers: [], chainId: "", directory: undefined, digest: "", fetch: undefined, snapshot: undefined };

/** A tree to read from, by descriptor. */
export interface OpenTree {
  root: number;
  /** It is a host directory. */
  outside: boolean;
}

/** What a change made: layers upon those of the tree that was changed. */
export interface Change {
  chainId: string;
  layers: Layer[];
}

export const grown = (parent: Tree, change: Change): Tree =>
  change.layers.length === 0
    ? parent
    : { ...EMPTY, layers: [...parent.layers, ...change.layers], chainId: change.chainId, fetch: parent.fetch };

export const treeOf = (layers: Layer[], fetch?: Fetch): Tree => ({
  ...EMPTY,
  layers,
  chainId: chainIds(layers.map(({ diffId }) => diffId)).at(-1) ?? "",
  fetch,
});

/** Does the work when it is first asked for; again only where it failed. */
export const once = (work: () => Promise<void>): (() => Promise<void>) => {
  let running: Promise<void> | undefined;
  return () => {
    running ??= work().catch((error: unknown) => {
      running = undefined;
      throw error;
    });
    return running;
  };
};

export interface Workspace {
  /** Gives a tree as a descriptor, for reading, while `work` lasts. */
  reading<T>(tree: Tree, work: (open: OpenTree) => Promise<T>): Promise<T>;
  readingAll<T>(trees: readonly Tree[], work: (open: OpenTree[]) => Promise<T>): Promise<T>;
  /** Gives the mounts of a view of a tree, while `work` lasts. */
  viewing<T>(tree: Tree, work: (mounts: SnapshotMount[]) => Promise<T>): Promise<T>;
  /** A new snapshot upon a tree. */
  fork(tree: Tree): Promise<Fork>;
  /** Changes a tree: `work` gets the mounts of a new snapshot upon it; what it changed becomes a layer. All or nothing. */
  changing(parent: Tree, text: string, work: (mounts: SnapshotMount[]) => Promise<void>): Promise<Change>;
  /** The layer that leads from one tree to another. */
  difference(lower: Tree, upper: Tree, text: string): Promise<Change>;
  /** The same tree with layers: a host directory is copied. */
  layered(tree: Tree, text: string): Promise<Tree>;
  /** Makes the tree's snapshot be there. */
  ready(tree: Tree): Promise<void>;
}

/** A snapshot that can be written to. It ends with one of its functions. */
export interface Fork {
  key: string;
  mounts: SnapshotMount[];
  /** What was changed becomes a layer and a committed snapshot. */
  commit(text: string): Promise<Change>;
  /** It is kept under a name of its own, until someone removes it. */
  keep(): Promise<Tree>;
  drop(): Promise<void>;
}

export function createWorkspace(options: { host: BuilderHost; lease: Lease; signal: AbortSignal }): Workspace {
  const { host, lease, signal } = options;
  const { snapshots, diff, content, snapshotter } = host.manager;
  const headers = { headers: lease.headers };
  const newKey = () => `build-${randomBytes(8).toString("hex")}`;
  const unpacking = new Map<string, Promise<void>>();

  async function exists(name: string): Promise<boolean> {
    try {
      await snapshots.stat({ snapshotter, key: name });
      return true;
    } catch (error) {
      if (isKind(error, "NotFound") || /not found|does not exist/i.test(String(error))) return false;
      throw error;
    }
  }

  async function unpack(layer: Layer, parent: string, name: string): Promise<void> {
    const key = newKey();
    const { mounts } = await snapshots.prepare({ snapshotter, key, parent }, headers);
    try {
      const { mediaType, digest, size } = layer.descriptor;
      await diff.apply({ diff: { mediaType, digest, size: BigInt(size) }, mounts }, { ...headers, signal });
      const labels = { "containerd.io/snapshot.ref": name };
      await snapshots.commit({ snapshotter, name, key, labels }, headers);
    } catch (error) {
      await snapshots.remove({ snapshotter, key }).catch(() => {});
      if (!isKind(error, "AlreadyExists") && !/already exists/i.test(String(error))) throw error;
    }
  }

  async function ready(tree: Tree): Promise<void> {
    if (tree.directory !== undefined || tree.chainId === "" || tree.snapshot !== undefined) return;
    if (await exists(tree.chainId)) return;
    let work = unpacking.get(tree.chainId);
    if (!work) {
      work = (async () => {
        await tree.fetch?.();
        const chains = chainIds(tree.layers.map(({ diffId }) => diffId));
        let at = chains.length;
        while (at > 0 && !(await exists(chains[at - 1]!))) at--;
        for (; at < chains.length; at++) await unpack(tree.layers[at]!, at === 0 ? "" : chains[at - 1]!, chains[at]!);
      })();
      unpacking.set(tree.chainId, work);
      const forget = () => void unpacking.delete(tree.chainId);
      work.then(forget, forget);
    }
    await work;
  }

  async function viewing<T>(tree: Tree, work: (mounts: SnapshotMount[]) => Promise<T>): Promise<T> {
    await ready(tree);
    const key = newKey();
    const { mounts } = await snapshots.view({ snapshotter, key, parent: tree.snapshot ?? tree.chainId }, headers);
    try {
      return await work(mounts as unknown as SnapshotMount[]);
    } finally {
      await snapshots.remove({ snapshotter, key });
    }
  }

  async function reading<T>(tree: Tree, work: (copy: OpenTree) => Promise<T>): Promise<T> {
    if (tree.directory !== undefined) {
      await tree.fetch?.();
      const root = open(tree.directory, O_RDONLY | O_DIRECTORY);
      try {
        return await work({ root, outside: true });
      } finally {
        close(root);
      }
    }
    if (tree.chainId === "" && tree.snapshot === undefined) {
      mkdirSync(host.dataDir, { recursive: true, mode: 0o700 });
      const empty = await mkdtemp(join(host.dataDir, "empty-"));
      try {
        return await reading({ ...EMPTY, directory: empty }, (copy) => work({ ...copy, outside: false }));
      } finally {
        await rm(empty, { recursive: true, force: true });
      }
    }
    return viewing(tree, async (mounts) => {
      const mount = openDetached(mounts, { readOnly: true });
      try {
        const root = openat2(mount, ".", O_RDONLY | O_DIRECTORY, { resolve: RESOLVE_IN_ROOT });
        try {
          return await work({ root, outside: false });
        } finally {
          close(root);
        }
      } finally {
        close(mount);
      }
    });
  }

  async function readingAll<T>(trees: readonly Tree[], work: (copies: OpenTree[]) => Promise<T>, done: OpenTree[] = []): Promise<T> {
    const [first, ...rest] = trees;
    return first ? reading(first, (copy) => readingAll(rest, work, [...done, copy])) : work(done);
  }

  /** A layer of the difference between mounts; undefined where there is none. */
  async function layerOf(left: SnapshotMount[], right: SnapshotMount[], ref: string, created: string): Promise<Layer | undefined> {
    const made = await diff.diff({ left, right, mediaType: TAR, ref, labels: { [ROOT_LABEL]: created } }, { ...headers, signal });
    if (!made.diff) throw failedPrecondition("the manager made no layer");
    const { digest, size } = made.diff;
    if (size !== EMPTY_TAR) return { descriptor: { mediaType: TAR, digest, size: Number(size) }, diffId: digest };
    const paths = [`labels.${ROOT_LABEL}`];
    await content.update({ info: { digest, labels: { [ROOT_LABEL]: "" } }, updateMask: { paths } }).catch(() => {});
    return undefined;
  }

  async function fork(parent: Tree): Promise<Fork> {
    const base = parent.directory === undefined ? parent : await layered(parent, "");
    await ready(base);
    const key = newKey();
    const from = base.snapshot ?? base.chainId;
    const { mounts } = await snapshots.prepare({ snapshotter, key, parent: from }, headers);
    let present = true;
    const drop = async () => {
      if (present) await snapshots.remove({ snapshotter, key }).catch(() => {});
      present = false;
    };
    return {
      key,
      mounts: mounts as unknown as SnapshotMount[],
      drop,
      async keep() {
        const name = `${newKey()}-kept`;
        await snapshots.commit({ snapshotter, name, key, labels: { [ROOT_LABEL]: new Date().toISOString() } }, headers);
        present = false;
        return { ...EMPTY, snapshot: name };
      },
      async commit(text) {
        const view = `${key}-below`;
        let viewed = false;
        try {
          signal.throwIfAborted();
          const created = new Date().toISOString();
          const left = from === "" ? [] : (await snapshots.view({ snapshotter, key: view, parent: from }, headers)).mounts;
          viewed = left.length > 0;
          const layer = await layerOf(left as unknown as SnapshotMount[], mounts as unknown as SnapshotMount[], key, created);
          // what was copied from a host directory is part of the change
          const copied = base === parent ? [] : base.layers;
          if (!layer) return { chainId: base.chainId, layers: copied };
          const chainId = chainIds([...base.layers.map(({ diffId }) => diffId), layer.diffId]).at(-1)!;
          const labels = { [ROOT_LABEL]: created, "containerd.io/snapshot.ref": chainId, "jubako.io/build": text.slice(0, 200) };
          if (viewed) await snapshots.remove({ snapshotter, key: view });
          viewed = false;
          try {
            await snapshots.commit({ snapshotter, name: chainId, key, labels }, headers);
            present = false;
          } catch (error) {
            if (!/exist/i.test(String(error))) throw error;
            const paths = [`labels.${ROOT_LABEL}`];
            const info = { name: chainId, labels: { [ROOT_LABEL]: created } };
            await snapshots.update({ snapshotter, info, updateMask: { paths } });
          }
          return { chainId, layers: [...copied, layer] };
        } finally {
          if (viewed) await snapshots.remove({ snapshotter, key: view }).catch(() => {});
          await drop();
        }
      },
    };
  }

  async function changing(parent: Tree, text: string, work: (mounts: SnapshotMount[]) => Promise<void>): Promise<Change> {
    const forked = await fork(parent);
    try {
      await work(forked.mounts);
      return await forked.commit(text);
    } finally {
      await forked.drop();
    }
  }

  async function layered(tree: Tree, text: string): Promise<Tree> {
    if (tree.directory === undefined) return tree;
    const change = await changing(EMPTY, text, (mounts) =>
      reading(tree, async ({ root }) => {
        const mount = openDetached(mounts);
        try {
          const into = openat2(mount, ".", O_RDONLY | O_DIRECTORY, { resolve: RESOLVE_IN_ROOT });
          try {
            await copySource(root, { path: "", directory: true }, into, undefined, {});
          } finally {
            close(into);
          }
        } finally {
          close(mount);
        }
      }),
    );
    return grown(EMPTY, change);
  }

  async function difference(lower: Tree, upper: Tree, text: string): Promise<Change> {
    const [from, to] = [await layered(lower, text), await layered(upper, text)];
    const shared = from.layers.every(({ diffId }, i) => to.layers[i]?.diffId === diffId);
    if (shared) {
      const { layers, chainId } = treeOf(to.layers.slice(from.layers.length));
      return { layers, chainId };
    }
    const mountsOf = <T>(tree: Tree, work: (mounts: SnapshotMount[]) => Promise<T>) =>
      tree.chainId === "" && tree.snapshot === undefined ? work([]) : viewing(tree, work);
    const layer = await mountsOf(from, (left) => mountsOf(to, (right) => layerOf(left, right, newKey(), new Date().toISOString())));
    const { layers, chainId } = treeOf(layer ? [layer] : []);
    return { layers, chainId };
  }

  return { reading, readingAll, viewing, fork, changing, difference, layered, ready };
}
