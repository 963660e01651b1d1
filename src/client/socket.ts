// One connection to an engine, beneath HTTP: bytes both ways, half-close, backpressure. On Bun a plain socket is opened with Bun.connect, which
// saves the 3 ms that loading node:net costs at start-up; TLS, descriptors, ssh, and all of it on Node, go through the node: modules.
import { Buffer } from "node:buffer";
import type { Duplex } from "node:stream";
import type { Endpoint } from "./endpoint.ts";

export interface Connection {
  /** Queues bytes; false where the kernel's buffer is full: then `drained()` says when to go on. */
  write(data: Uint8Array | string): boolean;
  drained(): Promise<void>;
  /** Sends what is queued, then ends our sending side; the other side may go on. */
  endWrites(): void;
  /** Closes both sides now. */
  destroy(): void;
  pause(): void;
  resume(): void;
  readonly closed: boolean;
  /** Called with each chunk; the bytes are the callee's. */
  onData: (chunk: Buffer) => void;
  /** Called once: the other side sends no more (no error), or the connection broke. */
  onEnd: (error?: Error) => void;
}

const ignore = () => {};

/** Opens a connection. Rejects with the system's error (`code` is ENOENT, ECONNREFUSED, EACCES, …). */
export function connect(endpoint: Endpoint): Promise<Connection> {
  if (typeof Bun !== "undefined" && (endpoint.kind === "unix" || (endpoint.kind === "tcp" && !endpoint.tls))) return connectBun(endpoint);
  return connectNode(endpoint);
}

async function connectBun(endpoint: { kind: "unix"; path: string } | { kind: "tcp"; host: string; port: number }): Promise<Connection> {
  const queue: Uint8Array[] = [];
  let wakeUp = ignore;
  let drain: Promise<void> | undefined;
  let ending = false;
  let ended = false;
  let closed = false;
  const finish = (error?: Error) => {
    if (ended) return;
    ended = true;
    connection.onEnd(error);
  };
  const flush = () => {
    while (queue.length > 0) {
      const chunk = queue[0]!;
      const written = socket.write(chunk);
      if (written < 0) return;
      if (written < chunk.length) {
        queue[0] = chunk.subarray(written);
        return;
      }
      queue.shift();
    }
    wakeUp();
    drain = undefined;
    wakeUp = ignore;
    if (ending && !closed) socket.shutdown();
  };
  const handlers = {
    data: (_socket: unknown, chunk: Buffer) => connection.onData(chunk),
    drain: () => flush(),
    end: () => finish(),
    close: (_socket: unknown, error?: Error) => {
      closed = true;
      queue.length = 0;
      wakeUp();
      finish(error ?? undefined);
    },
    error: (_socket: unknown, error: Error) => finish(error),
  };
  const connection: Connection = {
    write(data) {
      if (closed || ending) return true;
      const bytes = typeof data === "string" ? Buffer.from(data) : data;
      if (queue.length === 0) {
        const written = Math.max(0, socket.write(bytes));
        if (written === bytes.length) return true;
        // A copy, as the caller may reuse its buffer.
        queue.push(Uint8Array.prototype.slice.call(bytes, written));
      } else {
        queue.push(Uint8Array.prototype.slice.call(bytes));
      }
      drain ??= new Promise((resolve) => {
        wakeUp = resolve;
      });
      return false;
    },
    drained: () => drain ?? Promise.resolve(),
    endWrites() {
      if (ending || closed) return;
      ending = true;
      if (queue.length === 0) socket.shutdown();
    },
    destroy() {
      if (closed) return;
      closed = true;
      ended = true;
      socket.terminate();
      wakeUp();
    },
    pause: () => void (closed || socket.pause()),
    resume: () => void (closed || socket.resume()),
    get closed() {
      return closed;
    },
    onData: ignore,
    onEnd: ignore,
  };
  const options = { allowHalfOpen: true, socket: { binaryType: "buffer", ...handlers } } as const;
  const socket = await (endpoint.kind === "unix"
    ? Bun.connect({ ...options, unix: endpoint.path })
    : Bun.connect({ ...options, hostname: endpoint.host, port: endpoint.port }));
  return connection;
}

async function connectNode(endpoint: Endpoint): Promise<Connection> {
  return wrap(await openStream(endpoint));
}

/** The connection as a stream, once it stands. */
async function openStream(endpoint: Endpoint): Promise<Duplex> {
  if (endpoint.kind === "ssh") {
    const { sshStream } = await import("./ssh.ts");
    return sshStream(endpoint);
  }
  const net = await import("node:net");
  if (endpoint.kind === "fd") return new net.Socket({ fd: endpoint.fd, readable: true, writable: true });
  if (endpoint.kind === "tcp" && endpoint.tls) {
    const { ca, cert, key, verify } = endpoint.tls;
    const tls = await import("node:tls");
    const socket = tls.connect({
      host: endpoint.host,
      port: endpoint.port,
      ...(net.isIP(endpoint.host) ? {} : { servername: endpoint.host }),
      ...(ca ? { ca } : {}),
      ...(cert ? { cert } : {}),
      ...(key ? { key } : {}),
      rejectUnauthorized: verify,
    });
    await opened(socket, "secureConnect");
    return socket;
  }
  const socket =
    endpoint.kind === "unix"
      ? net.connect({ path: endpoint.path, allowHalfOpen: true })
      : net.connect({ host: endpoint.host, port: endpoint.port, allowHalfOpen: true });
  await opened(socket, "connect");
  return socket;
}

function opened(socket: Duplex, event: string): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once(event, () => {
      socket.off("error", reject);
      resolve();
    });
    socket.once("error", reject);
  });
}

function wrap(stream: Duplex): Connection {
  let ended = false;
  let closed = false;
  const finish = (error?: Error) => {
    if (ended) return;
    ended = true;
    connection.onEnd(error);
  };
  const connection: Connection = {
    write: (data) => closed || stream.write(data),
    drained: () =>
      new Promise((resolve) => {
        if (closed || !stream.writableNeedDrain) return resolve();
        stream.once("drain", resolve);
        stream.once("close", resolve);
      }),
    endWrites: () => void stream.end(),
    destroy() {
      closed = true;
      ended = true;
      stream.destroy();
    },
    pause: () => void stream.pause(),
    resume: () => void stream.resume(),
    get closed() {
      return closed;
    },
    onData: ignore,
    onEnd: ignore,
  };
  stream.on("data", (chunk: Buffer) => connection.onData(chunk));
  stream.on("end", () => finish());
  stream.on("error", (error) => finish(error));
  stream.on("close", () => {
    closed = true;
    finish();
  });
  return connection;
}
