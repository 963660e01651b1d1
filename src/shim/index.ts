// The shim: containerd's shim v2. It keeps the containers of one manager's namespace running while engine and manager come and go.
//
// It must never know images, snapshots, networks or the Engine API: it gets a bundle (a directory with config.json), mounts for the root
// file system, and paths of FIFOs. At its door is ttrpc on a unix socket, with the service containerd.task.v2.Task (and v3); it tells what
// happens to the manager's service containerd.services.events.ttrpc.v1.Events. Below it is the runtime's face (src/runtime).
//
// Nouns and their life:
//   group    all containers of one manager's namespace; one shim process holds them. Its state directory is /run/jubako/shim/GROUP.
//   task     a container made from a bundle: created → running ⇄ paused → stopped → deleted.
//   process  the task's init, or an exec in it: (added →) created → running → stopped → deleted. A keeper, the runtime's, holds each
//            one's descriptors and exit status, so that a shim can be killed at any moment: the next one of the group adopts all.
//   address  unix://…, where the group's shim answers.
//
// One worked sequence, by a manager:
//   $ containerd-shim-jubako-v1 -namespace moby -address /run/jubako/containerd.sock -id ID start      in the bundle; prints the address
//   const shim = connectShim(address);
//   const { pid } = await shim.create({ id, bundle, rootfs, stdout: "/run/…/stdout" });
//   const exit = shim.wait({ id });
//   await shim.start({ id });
//   const { exitStatus } = await exit;
//   await shim.delete({ id });
// When the connection closes (`shim.closed`): start and connect again, and every task is there.
import { Task } from "../gen/containerd/task/v2_pb.ts";
import { type Client, createTtrpcClient } from "./ttrpc/index.ts";

export { type ServeOptions, type Shim, serveShim } from "./serve.ts";
export { survivingClient } from "./surviving.ts";
export {
  type CallContext,
  type CallOptions,
  type Client,
  type Connection,
  connectTtrpc,
  createTtrpcClient,
  type Implementation,
  type Service,
  serveTtrpc,
  ttrpcServices,
} from "./ttrpc/index.ts";

export type TaskClient = Client<typeof Task>;

/** A client of the Task service at `address`. Connecting is lazy: errors come with the calls (Unavailable). */
export function connectShim(address: string): TaskClient {
  return createTtrpcClient(Task, address);
}
