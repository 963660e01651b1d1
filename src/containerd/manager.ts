// Puts the manager together: state, stores and services; and takes it apart.
import { randomUUID } from "node:crypto";
import { closeSync, openSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { Mounts } from "../gen/containerd/services/mounts/v1_pb.ts";
import { Controller, Store } from "../gen/containerd/services/sandbox/v1_pb.ts";
import { failedPrecondition } from "../lib/errors.ts";
import { programCommand } from "../lib/program.ts";
import { binding, errno, SYS } from "../linux/index.ts";
import { createCollector } from "./collector.ts";
import { containersService } from "./containers.ts";
import { contentService } from "./content/service.ts";
import { type ContentStore, createContentStore } from "./content/store.ts";
import { type Database, openDatabase } from "./database.ts";
import { diffService } from "./diff/service.ts";
import { createExchange, type Exchange, eventsService } from "./events.ts";
import { createImageStore, type ImageStore, imagesService } from "./images.ts";
import { leasesService } from "./leases.ts";
import { namespacesService } from "./namespaces.ts";
import { absent, type Service } from "./service.ts";
import { createOverlay } from "./snapshots/overlay.ts";
import { snapshotsService } from "./snapshots/service.ts";
import type { Snapshotter } from "./snapshots/snapshotter.ts";
import { type Log, makeDirectory, type State } from "./state.ts";
import { createKeeper } from "./tasks/keeper.ts";
import { tasksService } from "./tasks/service.ts";
import { transferService } from "./transfer/service.ts";
import { createStreams } from "./transfer/streams.ts";
import { introspectionService, versionService } from "./version.ts";

export interface ManagerOptions {
  /** Data that stays: ROOT/meta.db, ROOT/content, ROOT/snapshots. One manager a root at a time. */
  root: string;
  /** What lives until the machine restarts: bundles, sockets of shims. */
  state: string;
  /** Address of the gRPC socket that this manager will be served on; shims are told it. */
  address?: string;
  /** Program of the built-in shim, with arguments before the flags; default: this executable by the shim's name. */
  shimBinary?: string[];
  /** Namespaces whose shared shim is started ahead of need. */
  warm?: string[];
  log?: Log;
}

/** A running manager. Its services are called through a transport: see index.ts. */
export interface Manager {
  services: Service[];
  root: string;
  state: string;
  content: ContentStore;
  images: ImageStore;
  snapshotters: Map<string, Snapshotter>;
  events: Exchange;
  /** Ends subscriptions and closes what is open; containers go on. */
  close(): Promise<void>;
}

export async function createManager(options: ManagerOptions): Promise<Manager> {
  const root = makeDirectory(options.root);
  const stateDirectory = makeDirectory(options.state);
  const unlock = lockRoot(root);
  const closing = new AbortController();
  const db = openDatabase(join(root, "meta.db"));
  const state: State = {
    root,
    state: stateDirectory,
    db,
    events: createExchange(),
    log: options.log ?? (() => {}),
    collect: async () => {},
  };
  const content = createContentStore(state);
  const images = createImageStore(state);
  const overlay = createOverlay(state);
  const collector = createCollector(state, content, overlay);
  state.collect = collector.collect;
  const snapshotters = new Map<string, Snapshotter>([[overlay.name, overlay]]);
  const address = options.address ?? join(stateDirectory, "manager.sock");
  const keeper = createKeeper(state, { shimBinary: options.shimBinary ?? programCommand("jubako-shim"), address });
  const streaming = createStreams();
  const services = [
    versionService(),
    introspectionService(root, serverId(db), pidNamespace()),
    namespacesService(state),
    containersService(state),
    imagesService(state, images),
    contentService(state, content),
    snapshotsService(state, snapshotters),
    leasesService(state),
    eventsService(state.events, closing.signal),
    tasksService(state, keeper, content),
    diffService(content),
    streaming.service,
    transferService(state, { content, images, snapshotters, streams: streaming.streams }),
    absent(Mounts),
    absent(Store),
    absent(Controller),
  ];
  await keeper.start();
  for (const namespace of options.warm ?? []) void keeper.shims.shared(namespace).catch(() => {});
  return {
    services,
    root,
    state: stateDirectory,
    content,
    images,
    snapshotters,
    events: state.events,
    async close() {
      closing.abort();
      collector.close();
      await keeper.close();
      await overlay.close();
      db.close();
      unlock();
    },
  };
}

/** Two managers on one root would destroy each other's state. */
function lockRoot(root: string): () => void {
  const LOCK_EX_NB = 2 | 4;
  const fd = openSync(join(root, "lock"), "a");
  const result = binding.syscall(SYS.flock, fd, LOCK_EX_NB);
  if (result < 0) {
    closeSync(fd);
    throw failedPrecondition(result === -errno.EAGAIN ? `another manager works on ${root}` : `cannot lock ${root}: errno ${-result}`);
  }
  return () => closeSync(fd);
}

function serverId(db: Database): string {
  db.run("insert or ignore into meta (key, value) values ('uuid', ?)", randomUUID());
  return db.get<{ value: string }>("select value from meta where key = 'uuid'")!.value;
}

function pidNamespace(): bigint {
  return BigInt(/\d+/.exec(readlinkSync("/proc/self/ns/pid"))?.[0] ?? "0");
}
