// TCP that comes in by IPv6 for a container that has IPv4 only: no packet filter translates between the two, so the bytes pass through here. Docker
// keeps a process per port for it; this is one listening socket on the event loop.
import { close, EPOLLHUP, EPOLLIN, EPOLLOUT, type Watch, watch } from "../linux/index.ts";
import { accept, connected, endSending, receive, send } from "./socket.ts";

const MAX_CONNECTIONS = 1024;

export interface Relay {
  /** Ends all connections; the listening socket stays its owner's. */
  close(): void;
}

/** One side of a connection, and what waits to be sent to it. */
interface Side {
  fd: number;
  watching: Watch | undefined;
  pending: Uint8Array | undefined;
  /** It will send no more. */
  ended: boolean;
  /** It was told that no more comes. */
  told: boolean;
}

function pair(client: number, server: number, done: () => void): { end(): void } {
  const side = (fd: number): Side => ({ fd, watching: undefined, pending: undefined, ended: false, told: false });
  const a = side(client);
  const b = side(server);
  let open = true;
  const end = () => {
    if (!open) return;
    open = false;
    for (const s of [a, b]) {
      s.watching?.close();
      close(s.fd);
    }
    done();
  };
  // a side is read while nothing waits for the other one, and written while something waits for it
  const arm = () => {
    if (!open) return;
    for (const [s, other] of [
      [a, b],
      [b, a],
    ] as const)
      s.watching?.events((s.ended || other.pending ? 0 : EPOLLIN) | (s.pending ? EPOLLOUT : 0));
  };
  /** False where the side is broken. */
  const flush = (to: Side, from: Side): boolean => {
    if (to.pending) {
      const n = send(to.fd, to.pending);
      if (n < 0 && n !== -11) return false;
      to.pending = n > 0 ? (n < to.pending.length ? to.pending.subarray(n) : undefined) : to.pending;
    }
    if (!to.pending && from.ended && !to.told) {
      to.told = true;
      endSending(to.fd);
    }
    return true;
  };
  const ready = (s: Side, other: Side) => (events: number) => {
    if (!open) return;
    if (events & EPOLLOUT && !flush(s, other)) return end();
    if (!s.ended && !other.pending) {
      const data = receive(s.fd);
      if (typeof data === "number") return end();
      if (data) {
        if (data.length === 0) s.ended = true;
        else other.pending = data;
        if (!flush(other, s)) return end();
      }
    }
    if ((a.told && b.told) || (events & EPOLLHUP && s.ended)) return end();
    arm();
  };
  a.watching = watch(client, 0, ready(a, b), { ref: false });
  // the first thing to hear of is that the connection to the container stands
  b.watching = watch(
    server,
    EPOLLOUT,
    (events) => {
      if (!open) return;
      if (b.watching && events & EPOLLHUP && !(events & EPOLLIN)) return end();
      ready(b, a)(events);
    },
    { ref: false },
  );
  return { end };
}

/** Accepts on `listener` and connects each to `port` of `address`. */
export function createRelay(listener: number, address: Uint8Array, port: number): Relay {
  const connections = new Set<() => void>();
  const watching = watch(
    listener,
    EPOLLIN,
    () => {
      const client = accept(listener);
      if (client < 0) return;
      const server = connections.size < MAX_CONNECTIONS ? connected("tcp", address, port) : -1;
      if (server < 0) {
        close(client);
        return;
      }
      const { end } = pair(client, server, () => connections.delete(end));
      connections.add(end);
    },
    { ref: false },
  );
  return {
    close() {
      watching.close();
      for (const end of [...connections]) end();
    },
  };
}
