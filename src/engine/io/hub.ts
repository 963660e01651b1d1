// The meeting place of a container's streams: its output goes to every client attached at the moment, their input goes to its stdin.
// A hub lives from the first attach or start to the removal of the container; the process' FIFOs come and go with each start.
//
// A client that reads slowly slows the process down (it is a pipe, after all), as with dockerd; one that takes nothing at all for
// STALLED_MS is let go, so that a frozen terminal does not stop a container for good.
import type { Stream } from "../logs/driver.ts";

/** Bytes that may wait for one client before the process has to wait. */
const HIGH_WATER = 1024 * 1024;
const STALLED_MS = 10 * 60 * 1000;

export interface Client {
  stdout: boolean;
  stderr: boolean;
  /** Takes the bytes; they are the client's. */
  write(stream: Stream, bytes: Buffer): void;
  /** Bytes written but not yet taken by the connection. */
  pending(): number;
  /** Calls back once when `pending` fell. */
  onDrain(callback: () => void): void;
  /** The process' output ended, or the client was let go. */
  end(): void;
}

export interface Hub {
  /** Adds a client; the answer takes it away again. */
  add(client: Client): () => void;
  readonly clients: number;
  /** Hands output to the clients. */
  emit(stream: Stream, bytes: Uint8Array): void;
  /** Whether a client is behind, so that no more should be read now. */
  readonly blocked: boolean;
  /** Called when `blocked` became false. */
  onUnblock: (() => void) | undefined;
  /** Ends all clients: the output is over. */
  end(): void;
}

export function createHub(): Hub {
  const clients = new Set<Client>();
  const slow = new Map<Client, NodeJS.Timeout>();

  function caughtUp(client: Client): void {
    const timer = slow.get(client);
    if (timer === undefined) return;
    clearTimeout(timer);
    slow.delete(client);
    if (slow.size === 0) hub.onUnblock?.();
  }

  function stalled(client: Client, pending: number): void {
    if (client.pending() < pending) {
      watchSlow(client);
      return;
    }
    remove(client);
    client.end();
  }

  function watchSlow(client: Client): void {
    const pending = client.pending();
    const timer = setTimeout(() => stalled(client, pending), STALLED_MS);
    timer.unref();
    slow.set(client, timer);
  }

  function remove(client: Client): void {
    clients.delete(client);
    caughtUp(client);
  }

  const hub: Hub = {
    add(client) {
      clients.add(client);
      return () => remove(client);
    },
    get clients() {
      return clients.size;
    },
    emit(stream, bytes) {
      for (const client of clients) {
        if (!(stream === "stdout" ? client.stdout : client.stderr)) continue;
        client.write(stream, Buffer.from(bytes));
        if (client.pending() <= HIGH_WATER || slow.has(client)) continue;
        watchSlow(client);
        client.onDrain(() => caughtUp(client));
      }
    },
    get blocked() {
      return slow.size > 0;
    },
    onUnblock: undefined,
    end() {
      for (const client of [...clients]) {
        remove(client);
        client.end();
      }
    },
  };
  return hub;
}
