// A client that outlives its shim. The next shim of the group has adopted every task, so a call that was under way when the shim died is made
// again there; where the dead one may have done it already, the task's state says so.
import { Status } from "../gen/containerd/v1/types_pb.ts";
import { isKind } from "../lib/errors.ts";
import type { TaskClient } from "./index.ts";

/** Calls of `first` that end with Unavailable are repeated with the client that `next` gives, once `first`'s connection is known to be gone. */
export function survivingClient(first: TaskClient, next: () => Promise<TaskClient>): TaskClient {
  const again = async <T>(error: unknown, repeat: (client: TaskClient) => Promise<T>): Promise<T> => {
    if (!isKind(error, "Unavailable")) throw error;
    await first.closed;
    const client = await next().catch(() => undefined);
    if (!client) throw error;
    return repeat(client);
  };
  const repeated =
    <R, O, T>(call: (client: TaskClient) => (request: R, options?: O) => Promise<T>) =>
    (request: R, options?: O): Promise<T> =>
      call(first)(request, options).catch((error) => again(error, (client) => call(client)(request, options)));

  return {
    state: repeated((client) => client.state),
    create: (request, options) =>
      first.create(request, options).catch((error) =>
        again(error, async (client) => {
          try {
            return { $typeName: "containerd.task.v2.CreateTaskResponse", pid: (await client.state({ id: request.id ?? "" }, options)).pid };
          } catch (second) {
            if (!isKind(second, "NotFound")) throw second;
            return client.create(request, options);
          }
        }),
      ),
    start: (request, options) =>
      first.start(request, options).catch((error) =>
        again(error, async (client) => {
          const { status, pid } = await client.state({ id: request.id ?? "", execId: request.execId ?? "" }, options);
          if (status === Status.CREATED) return client.start(request, options);
          return { $typeName: "containerd.task.v2.StartResponse", pid };
        }),
      ),
    exec: (request, options) =>
      first.exec(request, options).catch((error) =>
        again(error, async (client) => {
          try {
            return await client.exec(request, options);
          } catch (second) {
            if (!isKind(second, "AlreadyExists")) throw second;
            return { $typeName: "google.protobuf.Empty" };
          }
        }),
      ),
    delete: repeated((client) => client.delete),
    pids: repeated((client) => client.pids),
    pause: repeated((client) => client.pause),
    resume: repeated((client) => client.resume),
    checkpoint: repeated((client) => client.checkpoint),
    kill: repeated((client) => client.kill),
    resizePty: repeated((client) => client.resizePty),
    closeIO: repeated((client) => client.closeIO),
    update: repeated((client) => client.update),
    wait: repeated((client) => client.wait),
    stats: repeated((client) => client.stats),
    connect: (request, options) => first.connect(request, options),
    shutdown: (request, options) => first.shutdown(request, options),
    close: first.close,
    closed: first.closed,
  };
}
