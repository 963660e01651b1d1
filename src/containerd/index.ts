// The manager, containerd's role: it keeps content, images, snapshots and containers as metadata, and has shims run tasks. Its door is containerd's
// v1 API, a set of gRPC services (api/containerd/services); each is written once here and reached in memory by an engine in the same process, or
// over HTTP/2 on a unix socket by everyone else (ctr, nerdctl, dockerd, crictl). It must never know of the Engine API, of networks, volumes, logs
// or restart policies: a container's network arrives as a path in its runtime spec, its output goes to FIFOs that somebody else made.
//
// Nouns and their life. A *namespace* holds all others; it comes to be with the first thing made in it. *Content* is a blob by digest: written as an
// ingest, verified, committed, immutable. An *image* is a name for a descriptor of content. A *snapshot* is a file tree: active → committed, or a
// view (snapshots/snapshotter.ts). A *container* is metadata: a runtime spec, a runtime's name, a snapshot's key. A *task* is a container's running
// process: created → running → stopped → deleted, kept by a shim; an *exec* is a further process of a task. A *lease* keeps what nothing refers to
// yet; whatever no image, container, lease or label (containerd.io/gc.…) leads to is collected as garbage. *Events* say what happened, in order.
//
// Worked sequence, a container from an unpacked image (the engine's run):
//
//   snapshots.prepare({ snapshotter, key: id, parent: chainId })     → mounts
//   containers.create({ container: { id, runtime, spec, snapshotter, snapshotKey: id } })
//   tasks.create({ containerId: id, rootfs: mounts, stdin, stdout, stderr })   → pid; everything is set up, the program waits
//   tasks.start({ containerId: id });  tasks.wait({ containerId: id })         → exit status
//   tasks.delete({ containerId: id }); containers.delete({ id }); snapshots.remove({ snapshotter, key: id })
//
// Errors are Failures (lib/errors.ts) in memory and over a socket alike; servers map them to gRPC codes with containerd's texts.
import { type Client, createClient, type Transport } from "@connectrpc/connect";
import { Containers } from "../gen/containerd/services/containers/v1_pb.ts";
import { Content } from "../gen/containerd/services/content/v1_pb.ts";
import { Diff } from "../gen/containerd/services/diff/v1_pb.ts";
import { Events } from "../gen/containerd/services/events/v1_pb.ts";
import { Images } from "../gen/containerd/services/images/v1_pb.ts";
import { Introspection } from "../gen/containerd/services/introspection/v1_pb.ts";
import { Leases } from "../gen/containerd/services/leases/v1_pb.ts";
import { Namespaces } from "../gen/containerd/services/namespaces/v1_pb.ts";
import { Snapshots } from "../gen/containerd/services/snapshots/v1_pb.ts";
import { Tasks } from "../gen/containerd/services/tasks/v1_pb.ts";
import { Version } from "../gen/containerd/services/version/v1_pb.ts";
import { createLayerReceiver, type LayerReceiver } from "./layers.ts";
import type { Manager } from "./manager.ts";
import { memoryTransport } from "./memory.ts";

export { hasBlob, isMissing, isThere, readBlob, streamBlob } from "./content/client.ts";
export { childLabels } from "./content/references.ts";
export { dropUnfinished, labelBlob, type SendOptions, sendBlob } from "./content/send.ts";
export type { ContentStore } from "./content/store.ts";
export type { LayerReceiver, ReceivedLayer, ReceiveOptions } from "./layers.ts";
export { createManager, type Manager, type ManagerOptions } from "./manager.ts";
export { type MountInstruction, openDetached } from "./snapshots/detached.ts";
export type { Snapshotter } from "./snapshots/snapshotter.ts";

/** The services' clients, every call in one namespace. */
export interface ManagerClients {
  containers: Client<typeof Containers>;
  tasks: Client<typeof Tasks>;
  images: Client<typeof Images>;
  content: Client<typeof Content>;
  snapshots: Client<typeof Snapshots>;
  diff: Client<typeof Diff>;
  leases: Client<typeof Leases>;
  events: Client<typeof Events>;
  namespaces: Client<typeof Namespaces>;
  version: Client<typeof Version>;
  introspection: Client<typeof Introspection>;
  /** Name of the snapshotter to use. */
  snapshotter: string;
  /** Layers in one pass; only where the manager is in this process. */
  layers?: LayerReceiver;
  close(): Promise<void>;
}

function clients(transport: Transport, close: () => Promise<void>): ManagerClients {
  return {
    containers: createClient(Containers, transport),
    tasks: createClient(Tasks, transport),
    images: createClient(Images, transport),
    content: createClient(Content, transport),
    snapshots: createClient(Snapshots, transport),
    diff: createClient(Diff, transport),
    leases: createClient(Leases, transport),
    events: createClient(Events, transport),
    namespaces: createClient(Namespaces, transport),
    version: createClient(Version, transport),
    introspection: createClient(Introspection, transport),
    snapshotter: "overlayfs",
    close,
  };
}

/** A transport that calls the manager's functions; a call costs microseconds. */
export function inMemoryTransport(manager: Manager, namespace: string): Transport {
  return memoryTransport(manager.services, namespace);
}

/** Clients of a manager in this process. Closing them closes nothing: the manager is closed by whoever created it. */
export function inMemoryClients(manager: Manager, namespace: string): ManagerClients {
  return { ...clients(inMemoryTransport(manager, namespace), async () => {}), layers: createLayerReceiver(manager, namespace) };
}

/** Clients of a containerd on a unix socket: ours, or the real one. Unavailable where nobody answers. */
export async function connectManager(address: string, namespace: string): Promise<ManagerClients> {
  const { socketTransport } = await import("./socket.ts");
  const { transport, close } = socketTransport(address, namespace);
  const result = clients(transport, close);
  await result.version.version({}, { timeoutMs: 10_000 });
  return result;
}

/** Serves the manager's gRPC on the unix socket `address`, until closed. */
export async function serve(manager: Manager, address: string): Promise<{ close(): Promise<void> }> {
  const { serveSocket } = await import("./socket.ts");
  return serveSocket(manager.services, address);
}
