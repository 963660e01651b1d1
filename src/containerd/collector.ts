// The garbage collector: marks what images, containers, leases and labels lead to, and sweeps the rest: content, snapshots and the leases that expired.
// Its language are containerd's labels (docs/garbage-collection.md):
//
//   containerd.io/gc.root                        the object is kept for its own sake
//   containerd.io/gc.ref.content[.X|/X] = DIGEST  the object needs this content; gc.ref.snapshot.NAME[/X] = KEY, gc.ref.image… likewise
//   containerd.io/gc.expire = TIME                the lease is over then;  containerd.io/gc.flat: the lease keeps its resources, not what they refer to
//
// Mark and sweep are one synchronous pass over the database: no call comes between, so that nothing can be referred to in the middle. Files are
// deleted afterwards. What is younger than GRACE and in no lease is left for the next time: its maker may be about to refer to it, unless that was gone with
// an earlier manager. A collection that somebody waits for spares only young active snapshots, which are of containers that are just being made.
import { fromBinary } from "@bufbuild/protobuf";
import { ContainerSchema } from "../gen/containerd/services/containers/v1_pb.ts";
import { ImageSchema } from "../gen/containerd/services/images/v1_pb.ts";
import { isKind, messageOf } from "../lib/errors.ts";
import type { ContentStore } from "./content/store.ts";
import { microseconds, parseLabels } from "./database.ts";
import type { Snapshotter } from "./snapshots/snapshotter.ts";
import type { State } from "./state.ts";

export interface Collector {
  /** Asks for a collection soon; with `now`, resolves when one that began after the call is done. */
  collect(now?: boolean): Promise<void>;
  close(): void;
}

const DELAY_MS = 100;
const PAUSE_MS = 1000;
const GRACE = 15e6;
/** Leases expire and ingests grow old without anybody's call. */
const EVERY_MS = 10 * 60_000;

const ROOT = "containerd.io/gc.root";
const CONTENT_REF = /^containerd\.io\/gc\.ref\.content(?:[./]|$)/;
const SNAPSHOT_REF = /^containerd\.io\/gc\.ref\.snapshot\.([^/]+)(?:\/|$)/;
const IMAGE_REF = /^containerd\.io\/gc\.ref\.image(?:[./]|$)/;

interface Node {
  labels: Record<string, string>;
  created: number;
  parent: string;
  /** It cannot change any more: content, or a committed snapshot. */
  committed: boolean;
}

/** Everything of one namespace that can be kept or swept. */
interface Graph {
  content: Map<string, Node>;
  /** By key; one snapshotter. */
  snapshots: Map<string, Node>;
  images: Map<string, { digest: string; labels: Record<string, string> }>;
}

type Kind = "content" | "snapshots" | "images";

export function createCollector(state: State, content: ContentStore, snapshotter: Snapshotter): Collector {
  const { db, log } = state;
  const started = microseconds();

  const load = (namespace: string): Graph => {
    const nodes = (sql: string) =>
      new Map(
        db.all<{ key: string; labels: string; created: number; parent: string | null; committed: number }>(sql, namespace).map((row) => {
          const { key, labels, created, parent, committed } = row;
          return [key, { labels: parseLabels(labels), created, parent: parent ?? "", committed: committed === 1 }];
        }),
      );
    const images = db.all<{ name: string; message: Uint8Array }>("select name, message from images where namespace = ?", namespace);
    return {
      content: nodes("select digest as key, labels, created, null as parent, 1 as committed from content where namespace = ?"),
      snapshots: nodes(
        "select s.key, s.labels, s.created, p.key as parent, s.kind = 3 as committed from snapshots s left join snapshots p on p.id = s.parent where s.namespace = ?",
      ),
      images: new Map(
        images.map(({ name, message }) => {
          const image = fromBinary(ImageSchema, message);
          return [name, { digest: image.target?.digest ?? "", labels: image.labels }];
        }),
      ),
    };
  };

  /** Marks from the namespace's roots; answers what is reached, and how much was spared for its youth. */
  const mark = (namespace: string, graph: Graph, waited: boolean): { content: Set<string>; snapshots: Set<string>; spared: number } => {
    const marked = { content: new Set<string>(), snapshots: new Set<string>(), images: new Set<string>() };
    const queue: [Kind, string][] = [];
    const reach = (kind: Kind, key: string): void => {
      if (key === "" || marked[kind].has(key)) return;
      marked[kind].add(key);
      queue.push([kind, key]);
    };
    const follow = (labels: Record<string, string>): void => {
      for (const [label, value] of Object.entries(labels)) {
        if (!label.startsWith("containerd.io/gc.ref.")) continue;
        if (CONTENT_REF.test(label)) reach("content", value);
        else if (IMAGE_REF.test(label)) reach("images", value);
        else if (SNAPSHOT_REF.exec(label)?.[1] === snapshotter.name) reach("snapshots", value);
      }
    };
    const spread = (): void => {
      for (let next = queue.pop(); next; next = queue.pop()) {
        const [kind, key] = next;
        if (kind === "images") {
          const image = graph.images.get(key);
          if (image) {
            reach("content", image.digest);
            follow(image.labels);
          }
          continue;
        }
        const node = graph[kind].get(key);
        if (!node) continue;
        reach("snapshots", node.parent);
        follow(node.labels);
      }
    };

    for (const name of graph.images.keys()) reach("images", name);
    const containers = db.all<{ snapshotter: string; key: string; message: Uint8Array }>(
      "select snapshotter, snapshot_key as key, message from containers where namespace = ?",
      namespace,
    );
    for (const container of containers) {
      if (container.snapshotter === snapshotter.name) reach("snapshots", container.key);
      follow(fromBinary(ContainerSchema, container.message).labels);
    }
    for (const kind of ["content", "snapshots"] as const) {
      for (const [key, node] of graph[kind]) if (ROOT in node.labels) reach(kind, key);
    }
    // an ingest that will be this content needs nothing; the one that holds a place for its expected digest does
    for (const { expected } of db.all<{ expected: string }>("select expected from ingests where namespace = ?", namespace)) {
      reach("content", expected);
    }
    const flat: [Kind, string][] = [];
    const resources = db.all<{ lease: string; type: string; resource: string; labels: string }>(
      "select r.lease, r.type, r.resource, l.labels from lease_resources r join leases l on l.namespace = r.namespace and l.id = r.lease where r.namespace = ?",
      namespace,
    );
    for (const { type, resource, labels } of resources) {
      const kind = type.startsWith("snapshots/") ? "snapshots" : type;
      if (kind !== "content" && kind !== "snapshots" && kind !== "images") continue;
      if ("containerd.io/gc.flat" in parseLabels(labels)) flat.push([kind, resource]);
      else reach(kind, resource);
    }
    spread();

    const young = Math.max(microseconds() - GRACE, started);
    let spared = 0;
    for (const kind of ["content", "snapshots"] as const) {
      for (const [key, node] of graph[kind]) {
        if (marked[kind].has(key) || node.created < young || (waited && node.committed)) continue;
        spared++;
        reach(kind, key);
      }
    }
    spread();
    for (const [kind, key] of flat) marked[kind].add(key);
    return { content: marked.content, snapshots: marked.snapshots, spared };
  };

  const expireLeases = (): void => {
    const now = Date.now();
    for (const { namespace, id, labels } of db.all<{ namespace: string; id: string; labels: string }>(
      "select namespace, id, labels from leases",
    )) {
      const expire = parseLabels(labels)["containerd.io/gc.expire"];
      if (expire === undefined || !(Date.parse(expire) <= now)) continue;
      db.run("delete from lease_resources where namespace = ? and lease = ?", namespace, id);
      db.run("delete from leases where namespace = ? and id = ?", namespace, id);
    }
  };

  /** A snapshot can go once what stands on it has gone: children first. */
  const sweepSnapshots = (namespace: string, graph: Graph, kept: Set<string>): number => {
    let swept = 0;
    const children = new Map<string, string[]>();
    for (const [key, node] of graph.snapshots) children.set(node.parent, [...(children.get(node.parent) ?? []), key]);
    const remove = (key: string): void => {
      for (const child of children.get(key) ?? []) remove(child);
      if (kept.has(key)) return;
      snapshotter.remove(namespace, key);
      swept++;
    };
    for (const key of children.get("") ?? []) remove(key);
    return swept;
  };

  /** One collection; true where something was spared and another one is due. */
  const run = (waited: boolean): boolean => {
    const begin = performance.now();
    let swept = 0;
    let spared = 0;
    db.transaction(expireLeases);
    content.expire();
    for (const { name } of db.all<{ name: string }>("select name from namespaces")) {
      const graph = load(name);
      const marked = mark(name, graph, waited);
      spared += marked.spared;
      for (const digest of graph.content.keys()) {
        if (marked.content.has(digest)) continue;
        content.delete(name, digest);
        swept++;
      }
      swept += sweepSnapshots(name, graph, marked.snapshots);
    }
    log("debug", "garbage collected", { swept, spared, ms: Math.round((performance.now() - begin) * 10) / 10 });
    return spared > 0;
  };

  let timer: ReturnType<typeof setTimeout> | undefined;
  let due = 0;
  let closed = false;
  let waiting: (() => void)[] = [];

  const schedule = (ms: number): void => {
    if (closed) return;
    const at = performance.now() + ms;
    if (timer && due <= at) return;
    clearTimeout(timer);
    due = at;
    timer = setTimeout(collectNow, ms);
    timer.unref();
  };
  let last = 0;
  function collectNow(): void {
    timer = undefined;
    const done = waiting;
    waiting = [];
    try {
      if (!closed && run(done.length > 0)) schedule(GRACE / 1000);
    } catch (error) {
      log("error", "garbage collection failed", { error: messageOf(error), kind: isKind(error, "NotFound") ? "NotFound" : "" });
    }
    last = performance.now();
    for (const resolve of done) resolve();
  }
  const periodic = setInterval(() => schedule(0), EVERY_MS);
  periodic.unref();
  // what a manager that was killed left
  schedule(PAUSE_MS);

  return {
    collect(now = false) {
      if (closed) return Promise.resolve();
      if (!now) {
        // many deletions in a row are one collection
        schedule(Math.max(DELAY_MS, PAUSE_MS - (performance.now() - last)));
        return Promise.resolve();
      }
      return new Promise((resolve) => {
        waiting.push(resolve);
        schedule(0);
      });
    },
    close() {
      closed = true;
      clearTimeout(timer);
      clearInterval(periodic);
      for (const resolve of waiting) resolve();
    },
  };
}
