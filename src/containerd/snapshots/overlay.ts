// Snapshots as overlayfs layers. Each has a directory ROOT/snapshots/N with `fs`, its own difference, and, where it is active, `work` for the
// kernel; N is its row in the database. A removed one is renamed into ROOT/trash and deleted in the background, one at a time.
//
// The directories follow the database: a directory is there before its row, a row is gone before its directory, and what a kill -9 leaves in between
// is put right by reconcile() at the next start.
import { existsSync, lchownSync, lstatSync, readdirSync, renameSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { type Mount, MountSchema } from "../../gen/containerd/types_pb.ts";
import { alreadyExists, failedPrecondition, invalidArgument, notFound } from "../../lib/errors.ts";
import { microseconds, parseLabels } from "../database.ts";
import { checkLabels } from "../identifiers.ts";
import { setLabel } from "../namespaces.ts";
import { addToLease, makeDirectory, type State, touchNamespace } from "../state.ts";
import { diskUsage } from "./disk-usage.ts";
import type { Info, Kind, Snapshotter, Usage } from "./snapshotter.ts";
import { createSpares } from "./spares.ts";

const VIEW = 1;
const ACTIVE = 2;
const COMMITTED = 3;
const kinds: Record<number, Kind> = { [VIEW]: "view", [ACTIVE]: "active", [COMMITTED]: "committed" };

interface Row {
  id: number;
  key: string;
  parent: number | null;
  parent_key: string | null;
  kind: number;
  labels: string;
  created: number;
  updated: number;
  size: number | null;
  inodes: number | null;
}

const SELECT =
  "select s.id, s.key, s.parent, p.key as parent_key, s.kind, s.labels, s.created, s.updated, s.size, s.inodes from snapshots s left join snapshots p on p.id = s.parent";

export const OVERLAY = "overlayfs";

export interface Overlay extends Snapshotter {
  /** The directory of a snapshot's own difference. */
  directory(namespace: string, key: string): string;
  /** Lets go of what was made ahead, when nobody calls any more. */
  close(): Promise<void>;
}

export function createOverlay(state: State): Overlay {
  const { db } = state;
  const snapshots = makeDirectory(join(state.root, "snapshots"), 0o700);
  const trash = makeDirectory(join(state.root, "trash"), 0o700);
  // an overlay with an index would refuse to be mounted twice with the same upper directory, as containerd also avoids
  const indexOff = existsSync("/sys/module/overlay/parameters/index") ? ["index=off"] : [];
  let trashed = 0;
  let deleting: Promise<void> = Promise.resolve();

  const emptyTrash = (): Promise<void> => {
    deleting = deleting.then(async () => {
      for (const name of readdirSync(trash)) {
        await rm(join(trash, name), { recursive: true, force: true }).catch((error) =>
          state.log("warn", `removed snapshot ${name} is not deleted yet`, { error: String(error) }),
        );
      }
    });
    return deleting;
  };
  const discard = (id: number | string): void => {
    try {
      renameSync(join(snapshots, String(id)), join(trash, `${id}-${process.pid}-${trashed++}`));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    }
  };

  reconcile();
  void emptyTrash();
  const last = db.get<{ seq: number }>("select seq from sqlite_sequence where name = 'snapshots'")?.seq ?? 0;
  const highest = readdirSync(snapshots).reduce((max, name) => Math.max(max, Number(name) || 0), last);
  const spares = createSpares(snapshots, highest + 1, state.log);
  spares.fill();

  function reconcile(): void {
    const rows = new Map(
      db.all<{ id: number; parent: number | null }>("select id, parent from snapshots order by id").map((row) => [row.id, row]),
    );
    const directories = new Set(readdirSync(snapshots));
    for (const name of directories) if (!rows.has(Number(name))) discard(name);
    // A row without its directory is lost with all that stands on it; only a power cut can do that.
    const lost: number[] = [];
    for (const { id, parent } of rows.values()) {
      if (!directories.has(String(id)) || (parent !== null && lost.includes(parent))) lost.push(id);
    }
    if (lost.length === 0) return;
    state.log("warn", `${lost.length} snapshots have lost their directory and are forgotten`);
    db.transaction(() => {
      for (const id of lost.reverse()) db.run("delete from snapshots where id = ?", id);
    });
    for (const id of lost) discard(id);
  }

  const find = (namespace: string, key: string): Row => {
    const row = db.get<Row>(`${SELECT} where s.namespace = ? and s.key = ?`, namespace, key);
    if (!row) throw notFound(`snapshot ${key} does not exist`);
    return row;
  };
  const infoOf = (row: Row): Info => ({
    name: row.key,
    parent: row.parent_key ?? "",
    kind: kinds[row.kind]!,
    labels: parseLabels(row.labels),
    created: row.created,
    updated: row.updated,
  });
  const upper = (id: number) => join(snapshots, String(id), "fs");

  // The ids of a snapshot's ancestors never change while it exists: what stands on a parent keeps it.
  const chains = new Map<number, number[]>();
  const ancestors = (parent: number | null): number[] => {
    if (parent === null) return [];
    let chain = chains.get(parent);
    if (!chain) {
      const row = db.get<{ parent: number | null }>("select parent from snapshots where id = ?", parent)!;
      chain = [parent, ...ancestors(row.parent)];
      chains.set(parent, chain);
    }
    return chain;
  };

  const mountsOf = (id: number, kind: number, parents: number[]): Mount[] => {
    const bind = (source: string, mode: "ro" | "rw") => [create(MountSchema, { type: "bind", source, options: [mode, "rbind"] })];
    if (parents.length === 0) return bind(upper(id), kind === VIEW ? "ro" : "rw");
    if (kind === VIEW && parents.length === 1) return bind(upper(parents[0]!), "ro");
    const own = kind === ACTIVE ? [`workdir=${join(snapshots, String(id), "work")}`, `upperdir=${upper(id)}`] : [];
    const options = [...indexOff, ...own, `lowerdir=${parents.map(upper).join(":")}`];
    return [create(MountSchema, { type: "overlay", source: "overlay", options })];
  };

  function make(kind: number, namespace: string, key: string, parent: string, labels: Record<string, string>, lease: string): Mount[] {
    if (key === "") throw invalidArgument("snapshot key must not be empty");
    checkLabels(labels);
    let made: number | undefined;
    try {
      return db.transaction(() => {
        touchNamespace(db, namespace);
        let parentId: number | null = null;
        if (parent !== "") {
          const row = db.get<{ id: number; kind: number }>(
            "select id, kind from snapshots where namespace = ? and key = ?",
            namespace,
            parent,
          );
          if (!row) throw notFound(`parent snapshot ${parent} does not exist`);
          if (row.kind !== COMMITTED) throw invalidArgument(`parent "${parent}" is not committed snapshot`);
          parentId = row.id;
        }
        if (db.get("select 1 from snapshots where namespace = ? and key = ?", namespace, key)) throw alreadyExists(`snapshot ${key}`);
        const now = microseconds();
        const id = spares.take();
        made = id;
        db.run(
          "insert into snapshots (id, namespace, key, parent, kind, labels, created, updated) values (?, ?, ?, ?, ?, ?, ?, ?)",
          id,
          namespace,
          key,
          parentId,
          kind,
          JSON.stringify(labels),
          now,
          now,
        );
        addToLease(db, namespace, lease, `snapshots/${OVERLAY}`, key);
        const parents = ancestors(parentId);
        if (parentId !== null) inheritOwner(upper(parentId), upper(id));
        return mountsOf(id, kind, parents);
      });
    } catch (error) {
      if (made !== undefined) discard(made);
      throw error;
    }
  }

  const self: Overlay = {
    name: OVERLAY,
    stat: (namespace, key) => infoOf(find(namespace, key)),
    update(namespace, info, paths) {
      checkLabels(info.labels);
      return db.transaction(() => {
        const row = find(namespace, info.name);
        let labels = parseLabels(row.labels);
        if (paths.length === 0) labels = info.labels;
        for (const path of paths) {
          if (path === "labels") labels = info.labels;
          else if (path.startsWith("labels.")) setLabel(labels, path.slice(7), info.labels);
          else throw invalidArgument(`cannot update "${path}" field on snapshot "${info.name}"`);
        }
        const updated = microseconds();
        db.run("update snapshots set labels = ?, updated = ? where id = ?", JSON.stringify(labels), updated, row.id);
        return infoOf({ ...row, labels: JSON.stringify(labels), updated });
      });
    },
    async usage(namespace, key): Promise<Usage> {
      const row = find(namespace, key);
      if (row.size !== null && row.inodes !== null) return { size: row.size, inodes: row.inodes };
      const usage = await diskUsage(upper(row.id));
      if (row.kind === COMMITTED) db.run("update snapshots set size = ?, inodes = ? where id = ?", usage.size, usage.inodes, row.id);
      return usage;
    },
    mounts(namespace, key) {
      const row = find(namespace, key);
      if (row.kind === COMMITTED) throw failedPrecondition(`snapshot ${key} is committed and has no mounts`);
      return mountsOf(row.id, row.kind, ancestors(row.parent));
    },
    prepare: (...args) => make(ACTIVE, ...args),
    view: (...args) => make(VIEW, ...args),
    commit(namespace, name, key, labels, lease, parent = "") {
      if (name === "") throw invalidArgument("snapshot name must not be empty");
      checkLabels(labels);
      const id = db.transaction(() => {
        if (db.get("select 1 from snapshots where namespace = ? and key = ?", namespace, name)) throw alreadyExists(`snapshot ${name}`);
        const row = find(namespace, key);
        if (row.kind !== ACTIVE) throw failedPrecondition(`snapshot ${key} is not active`);
        let parentId = row.parent;
        if (parent !== "" && parent !== row.parent_key) {
          if (parentId !== null) throw failedPrecondition(`snapshot ${key} already has the parent ${row.parent_key}`);
          const below = find(namespace, parent);
          if (below.kind !== COMMITTED) throw invalidArgument(`parent "${parent}" is not committed snapshot`);
          parentId = below.id;
        }
        const now = microseconds();
        db.run(
          "update snapshots set key = ?, parent = ?, kind = ?, labels = ?, created = ?, updated = ? where id = ?",
          name,
          parentId,
          COMMITTED,
          JSON.stringify(labels),
          now,
          now,
          row.id,
        );
        db.run("delete from lease_resources where namespace = ? and type = ? and resource = ?", namespace, `snapshots/${OVERLAY}`, key);
        addToLease(db, namespace, lease, `snapshots/${OVERLAY}`, name);
        return row.id;
      });
      // the kernel's scratch directory is of no use any more
      void rm(join(snapshots, String(id), "work"), { recursive: true, force: true }).catch(() => {});
    },
    remove(namespace, key) {
      const id = db.transaction(() => {
        const row = find(namespace, key);
        if (db.get("select 1 from snapshots where parent = ?", row.id))
          throw failedPrecondition(`cannot remove snapshot ${key} with child`);
        db.run("delete from snapshots where id = ?", row.id);
        db.run("delete from lease_resources where namespace = ? and type = ? and resource = ?", namespace, `snapshots/${OVERLAY}`, key);
        return row.id;
      });
      chains.delete(id);
      discard(id);
      void emptyTrash();
    },
    list: (namespace) => db.all<Row>(`${SELECT} where s.namespace = ? order by s.key`, namespace).map(infoOf),
    cleanup: emptyTrash,
    async close() {
      await spares.close();
      await emptyTrash();
    },
    directory: (namespace, key) => upper(find(namespace, key).id),
  };
  return self;
}

/** The root of the new tree looks like its parent's: overlayfs shows the attributes of the upper directory. */
function inheritOwner(from: string, to: string): void {
  const stat = lstatSync(from);
  if (stat.uid !== 0 || stat.gid !== 0) lchownSync(to, stat.uid, stat.gid);
}
