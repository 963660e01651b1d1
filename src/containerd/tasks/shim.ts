// Connections to shims. A namespace's containers of the built-in runtime share one shim, started once and kept connected; when its connection
// ends, another one is started at once and has adopted everything when it answers. Any other runtime has a shim process for each container.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Any } from "@bufbuild/protobuf/wkt";
import { Task as TaskV2 } from "../../gen/containerd/task/v2_pb.ts";
import { Task as TaskV3 } from "../../gen/containerd/task/v3_pb.ts";
import { messageOf, unavailable } from "../../lib/errors.ts";
import { binding, close, EPOLLIN, O_NONBLOCK, O_RDWR, open, read, SYS, type Watch, watch } from "../../linux/index.ts";
import { createTtrpcClient, survivingClient, type TaskClient } from "../../shim/index.ts";
import type { Log } from "../state.ts";
import { type Bootstrap, type ShimProgram, startShim } from "./bootstrap.ts";

export interface Shim {
  namespace: string;
  /** Shared by all containers of the namespace that have the built-in runtime. */
  shared: boolean;
  /** unix://…; with a number in front for a task service of version 3: what is written down to find it again. */
  address: string;
  task: TaskClient;
  /** When it was connected to, in milliseconds of performance.now(). */
  since: number;
  /** The connection has ended. */
  gone: boolean;
  /** Lets go of the connection; the shim goes on. */
  disconnect(): void;
}

export interface ShimOptions {
  /** The built-in shim's program. */
  shimBinary: string[];
  state: string;
  /** What shims are told. */
  address: string;
  ttrpcAddress: string;
  log: Log;
  /** A shim's connection ended without being asked to. */
  onGone(shim: Shim): void;
}

export interface Shims {
  /** The namespace's shared shim, started where there is none. Concurrent calls share the start. */
  shared(namespace: string): Promise<Shim>;
  /** A shim of its own for one container; `bundle` exists. */
  start(binary: string, namespace: string, id: string, bundle: string, options: Any | undefined): Promise<Shim>;
  /** Connects to a shim that was written down. Unavailable where it does not answer. */
  reconnect(namespace: string, address: string, bundle: string): Promise<Shim>;
  /** The program of a container's own shim, for its clean-up. */
  program(argv: string[], namespace: string, id: string, bundle: string, options?: Any): ShimProgram;
  /** Ends the shared shims of namespaces that have no task (`idle`), and lets go of all others. */
  close(idle: (shim: Shim) => boolean): Promise<void>;
}

const CONNECT_MS = 5000;

export function createShims(options: ShimOptions): Shims {
  const { log } = options;
  const open = new Set<Shim>();
  const shared = new Map<string, Promise<Shim>>();
  let closing = false;

  const program = (argv: string[], namespace: string, id: string, bundle: string, any?: Any): ShimProgram => ({
    argv,
    namespace,
    id,
    bundle,
    address: options.address,
    ttrpcAddress: options.ttrpcAddress,
    options: any,
  });

  const connectTo = ({ address, version }: Bootstrap, namespace: string, isShared: boolean, logDirectory?: string): Shim => {
    const client = (version === 3 ? createTtrpcClient(TaskV3, address) : createTtrpcClient(TaskV2, address)) as unknown as TaskClient;
    const task = isShared ? survivingClient(client, () => next(namespace)) : client;
    const logs = logDirectory === undefined ? undefined : followLog(logDirectory, log);
    const shim: Shim = {
      namespace,
      shared: isShared,
      address: version === 3 ? `3 ${address}` : address,
      task,
      since: performance.now(),
      gone: false,
      disconnect() {
        shim.gone = true;
        open.delete(shim);
        logs?.();
        task.close();
      },
    };
    open.add(shim);
    void task.closed.then(() => {
      logs?.();
      open.delete(shim);
      if (shim.gone) return;
      shim.gone = true;
      if (shim.shared) shared.delete(namespace);
      if (!closing) options.onGone(shim);
    });
    return shim;
  };

  /** The client of the shim that follows one that is gone. */
  const next = async (namespace: string): Promise<TaskClient> => {
    if (closing) throw unavailable("the manager is closing");
    return (await shims.shared(namespace)).task;
  };

  const answers = async (shim: Shim, id: string): Promise<Shim> => {
    try {
      await shim.task.connect({ id }, { timeoutMs: CONNECT_MS });
    } catch (error) {
      // it answers, but does not know this container: that is an answer
      if ((error as Error).name !== "NotFound") {
        shim.disconnect();
        throw error;
      }
    }
    return shim;
  };

  const shims: Shims = {
    program,
    shared(namespace) {
      let shim = shared.get(namespace);
      if (!shim) {
        const directory = join(options.state, "shims", namespace);
        mkdirSync(directory, { recursive: true, mode: 0o711 });
        shim = startShim(program(options.shimBinary, namespace, namespace, directory)).then((bootstrap) =>
          connectTo(bootstrap, namespace, true),
        );
        shared.set(namespace, shim);
        shim.catch((error) => {
          log("error", "the shared shim does not start", { namespace, error: messageOf(error) });
          shared.delete(namespace);
        });
      }
      return shim;
    },
    async start(binary, namespace, id, bundle, any) {
      // the shim opens this FIFO for its log and waits for a reader
      const stop = followLog(bundle, log);
      try {
        const bootstrap = await startShim(program([binary], namespace, id, bundle, any));
        // one that hangs is found out here, and not by the deadline of making a container
        return await answers(connectTo(bootstrap, namespace, false, bundle), id);
      } finally {
        stop();
      }
    },
    reconnect(namespace, address, bundle) {
      const version = address.startsWith("3 ") ? 3 : 2;
      const bootstrap = { address: address.replace(/^3 /, ""), version };
      return answers(connectTo(bootstrap, namespace, false, bundle), "");
    },
    async close(idle) {
      closing = true;
      // one that is just being started would else stay for ever
      await Promise.allSettled(shared.values());
      const ending = [...open].map(async (shim) => {
        if (shim.shared && idle(shim)) await shim.task.shutdown({ id: shim.namespace }, { timeoutMs: 1000 }).catch(() => {});
        shim.disconnect();
      });
      await Promise.all(ending);
    },
  };
  return shims;
}

/** Reads a shim's log FIFO, so that it never blocks; its lines are of interest only when something is wrong. */
function followLog(bundle: string, log: Log): () => void {
  const path = join(bundle, "log");
  const S_IFIFO = 0o010000;
  binding.syscall(SYS.mknod, path, S_IFIFO | 0o600, 0);
  let fd: number;
  try {
    fd = open(path, O_RDWR | O_NONBLOCK);
  } catch (error) {
    log("warn", "a shim's log is not read", { path, error: messageOf(error) });
    return () => {};
  }
  const buffer = new Uint8Array(8192);
  let watching: Watch | undefined = watch(
    fd,
    EPOLLIN,
    () => {
      const n = read(fd, buffer);
      if (n) log("debug", Buffer.from(buffer.subarray(0, n)).toString().trimEnd(), { shim: bundle });
    },
    { ref: false },
  );
  return () => {
    if (!watching) return;
    watching.close();
    watching = undefined;
    close(fd);
  };
}
