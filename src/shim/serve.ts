// A shim at work in this process: the Task service on a socket, the tasks of one group behind it.
import { createServer, type Socket } from "node:net";
import { publisher } from "./events.ts";
import { taskServices } from "./service.ts";
import { createTasks } from "./tasks.ts";

export interface ServeOptions {
  namespace: string;
  /** The group's state directory: what an earlier shim left there is adopted. */
  state: string;
  /** Where to listen: a path, or a listening descriptor that was inherited. */
  listen: string | number;
  /** ttrpc address of the manager's Events service; without one no events are sent. */
  events?: string | undefined;
  /** Called for each task made. */
  onCreate?: ((id: string) => void) | undefined;
  /** Called when the last task is gone and a Shutdown asks, for task `id`, to end. Without it, the shim stays. */
  onShutdown?: ((id: string) => void) | undefined;
}

export interface Shim {
  /** Number of tasks. */
  size(): number;
  /** Sends what events are queued, for at most `ms`, and ends the service. The containers stay. */
  close(ms?: number): Promise<void>;
}

/** Starts the service; resolves when it answers, with all that was left behind adopted. */
export async function serveShim(options: ServeOptions): Promise<Shim> {
  const events = publisher(options.events, options.namespace);
  const tasks = createTasks({ namespace: options.namespace, state: options.state, events });
  await tasks.adopt();
  const services = taskServices(tasks, options.onCreate, (id) => {
    const { onShutdown } = options;
    if (tasks.size() === 0 && onShutdown) setImmediate(() => onShutdown(id));
  });
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    services.connection(socket);
  });
  await new Promise<void>((resolve, reject) => {
    server.on("error", reject);
    if (typeof options.listen === "number") server.listen({ fd: options.listen }, resolve);
    else server.listen(options.listen, resolve);
  });
  return {
    size: tasks.size,
    async close(ms = 1000) {
      await events.flush(ms);
      events.close();
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}
