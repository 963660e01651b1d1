// HTTP/1.1 as far as an Engine API client needs it, over socket.ts: kept-alive connections, chunked and sized bodies both ways, and the
// upgrade that turns a connection into a raw stream. Written here because node:http costs 5 ms at start-up, and hides the upgraded socket.
import { Buffer } from "node:buffer";
import { unavailable } from "../lib/errors.ts";
import type { Endpoint } from "./endpoint.ts";
import { type Connection, connect } from "./socket.ts";

export interface HttpRequest {
  method: string;
  /** With the query. */
  path: string;
  /** A list is a header that is sent several times. */
  headers?: Record<string, string | readonly string[]>;
  body?: string | Uint8Array | AsyncIterable<Uint8Array> | undefined;
  /** Asks for a raw stream: `upgraded` of the response is then set where the server agreed. */
  upgrade?: boolean | undefined;
  /** What the connection is to speak then; "tcp" where it is not said. */
  protocol?: string | undefined;
  signal?: AbortSignal | undefined;
}

export interface HttpResponse {
  status: number;
  /** Names in lower case. */
  headers: Record<string, string>;
  /** The body in chunks as they come; leaving the loop early closes the connection. */
  body: AsyncIterable<Buffer>;
  text(): Promise<string>;
  /** The raw connection after 101, or after 200 on a request that asked to upgrade. `early`: bytes that came along with the head. */
  upgraded: { connection: Connection; early: Buffer } | undefined;
}

const HEAD_LIMIT = 1 << 20;
const QUEUE_LIMIT = 1 << 20;

export interface HttpClient {
  request(request: HttpRequest): Promise<HttpResponse>;
  /** Closes all connections, also those in use. */
  close(): void;
}

export function createHttp(endpoint: Endpoint): HttpClient {
  const idle: Connection[] = [];
  const all = new Set<Connection>();
  let closed = false;
  const host = endpoint.kind === "tcp" ? `${endpoint.host}:${endpoint.port}` : "api.jubako.localhost";
  const base = endpoint.kind === "tcp" ? endpoint.basePath : "";

  const release = (connection: Connection) => {
    if (closed || connection.closed) return connection.destroy();
    connection.onData = () => connection.destroy();
    connection.onEnd = () => connection.destroy();
    idle.push(connection);
  };

  const attempt = async (request: HttpRequest, connection: Connection): Promise<HttpResponse> => {
    const answer = readResponse(connection, request, release);
    try {
      await send(connection, request, host, base);
    } catch (error) {
      connection.destroy();
      answer.catch(() => {});
      throw error;
    }
    return answer;
  };

  return {
    async request(request) {
      request.signal?.throwIfAborted();
      for (;;) {
        let connection = idle.pop();
        while (connection?.closed) connection = idle.pop();
        if (!connection) {
          const fresh = await connect(endpoint);
          if (all.size > 16) for (const old of all) if (old.closed) all.delete(old);
          all.add(fresh);
          return attempt(request, fresh);
        }
        try {
          return await attempt(request, connection);
        } catch (error) {
          // The server closed an idle connection as we took it: nothing of this request was answered, so it goes out again on another one.
          if (error !== connectionLost || typeof request.body === "object") throw error === connectionLost ? unavailable("EOF") : error;
        }
      }
    },
    close() {
      closed = true;
      for (const connection of all) connection.destroy();
      all.clear();
    },
  };
}

const connectionLost = new Error("the connection was closed before an answer came");

async function send(connection: Connection, request: HttpRequest, host: string, base: string): Promise<void> {
  let head = `${request.method} ${base}${request.path} HTTP/1.1\r\nHost: ${host}\r\n`;
  for (const [name, values] of Object.entries(request.headers ?? {}))
    for (const value of typeof values === "string" ? [values] : values) head += `${name}: ${value.replace(/[\r\n]/g, " ")}\r\n`;
  if (request.upgrade) head += `Connection: Upgrade\r\nUpgrade: ${request.protocol ?? "tcp"}\r\n`;
  const { body } = request;
  if (body === undefined) {
    connection.write(`${head}${request.method === "POST" || request.method === "PUT" ? "Content-Length: 0\r\n" : ""}\r\n`);
  } else if (typeof body === "string") {
    connection.write(`${head}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
  } else if (body instanceof Uint8Array) {
    connection.write(`${head}Content-Length: ${body.length}\r\n\r\n`);
    connection.write(body);
  } else {
    connection.write(`${head}Transfer-Encoding: chunked\r\n\r\n`);
    // Sent while the answer is read: a server may answer, or refuse, before it has all.
    void sendChunks(connection, body);
  }
}

async function sendChunks(connection: Connection, body: AsyncIterable<Uint8Array>): Promise<void> {
  try {
    for await (const chunk of body) {
      if (connection.closed) return;
      if (chunk.length === 0) continue;
      connection.write(`${chunk.length.toString(16)}\r\n`);
      connection.write(chunk);
      if (!connection.write("\r\n")) await connection.drained();
    }
    connection.write("0\r\n\r\n");
  } catch (error) {
    connection.onEnd(error as Error);
    connection.destroy();
  }
}

type Framing = { kind: "none" } | { kind: "length"; left: number } | { kind: "chunked" } | { kind: "close" };

function readResponse(connection: Connection, request: HttpRequest, release: (connection: Connection) => void): Promise<HttpResponse> {
  return new Promise((resolve, reject) => {
    let pending: Buffer = empty;
    const abort = () => {
      connection.destroy();
      reject(request.signal?.reason ?? new Error("aborted"));
    };
    request.signal?.addEventListener("abort", abort, { once: true });
    const fail = (error: Error) => {
      request.signal?.removeEventListener("abort", abort);
      connection.destroy();
      reject(error);
    };
    connection.onEnd = (error) =>
      fail(error ?? (pending.length === 0 ? connectionLost : unavailable("unexpected EOF in the answer's head")));
    connection.onData = (chunk) => {
      pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
      for (;;) {
        const end = pending.indexOf("\r\n\r\n");
        if (end < 0) {
          if (pending.length > HEAD_LIMIT) fail(unavailable("the answer's head is larger than 1 MiB"));
          return;
        }
        const head = parseHead(pending.toString("latin1", 0, end));
        if (!head) return fail(unavailable("malformed HTTP response"));
        pending = pending.subarray(end + 4);
        if (head.status >= 100 && head.status < 200 && head.status !== 101) continue;
        request.signal?.removeEventListener("abort", abort);
        return resolve(respond(connection, request, head, pending, release));
      }
    };
  });
}

const empty: Buffer = Buffer.alloc(0);

function parseHead(text: string): { status: number; headers: Record<string, string> } | undefined {
  const lines = text.split("\r\n");
  const match = /^HTTP\/1\.[01] (\d{3})/.exec(lines[0]!);
  if (!match) return undefined;
  const headers: Record<string, string> = Object.create(null);
  for (const line of lines.slice(1)) {
    const colon = line.indexOf(":");
    if (colon <= 0) return undefined;
    const name = line.slice(0, colon).trim().toLowerCase();
    const value = line.slice(colon + 1).trim();
    headers[name] = name in headers ? `${headers[name]}, ${value}` : value;
  }
  return { status: Number(match[1]), headers };
}

function framingOf(request: HttpRequest, status: number, headers: Record<string, string>): Framing {
  if (request.method === "HEAD" || status === 204 || status === 304) return { kind: "none" };
  if (headers["transfer-encoding"]?.toLowerCase().includes("chunked")) return { kind: "chunked" };
  const length = headers["content-length"];
  if (length !== undefined) {
    const left = Number(length);
    if (!Number.isSafeInteger(left) || left < 0) throw unavailable(`malformed Content-Length "${length}"`);
    return left === 0 ? { kind: "none" } : { kind: "length", left };
  }
  return { kind: "close" };
}

function respond(
  connection: Connection,
  request: HttpRequest,
  head: { status: number; headers: Record<string, string> },
  early: Buffer,
  release: (connection: Connection) => void,
): HttpResponse {
  const { status, headers } = head;
  if (request.upgrade && (status === 101 || (status === 200 && !("content-length" in headers) && !("transfer-encoding" in headers)))) {
    connection.pause();
    return { status, headers, body: nothing(), text: async () => "", upgraded: { connection, early } };
  }
  const framing = framingOf(request, status, headers);
  const reusable = framing.kind !== "close" && headers.connection?.toLowerCase() !== "close";
  const queue = chunkQueue(connection, request.signal);
  const parse = bodyParser(framing, queue.push, () => {
    connection.onData = () => connection.destroy();
    if (reusable) release(connection);
    else connection.destroy();
    queue.end();
  });
  connection.onEnd = (error) => {
    if (framing.kind === "close" && !error) {
      connection.destroy();
      queue.end();
    } else {
      connection.destroy();
      queue.end(error ?? unavailable("unexpected EOF"));
    }
  };
  connection.onData = (chunk) => {
    try {
      parse(chunk);
    } catch (error) {
      connection.destroy();
      queue.end(error as Error);
    }
  };
  if (framing.kind === "none") parse(empty);
  else if (early.length > 0) connection.onData(early);
  const body = queue.iterable;
  return {
    status,
    headers,
    body,
    async text() {
      const chunks: Buffer[] = [];
      for await (const chunk of body) chunks.push(chunk);
      return (chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks)).toString("utf8");
    },
    upgraded: undefined,
  };
}

async function* nothing(): AsyncGenerator<Buffer> {}

/** Takes the bytes of a response and gives the bytes of its body. */
function bodyParser(framing: Framing, push: (chunk: Buffer) => void, done: () => void): (chunk: Buffer) => void {
  if (framing.kind === "none") return () => done();
  if (framing.kind === "close") return push;
  if (framing.kind === "length") {
    let { left } = framing;
    return (chunk) => {
      const part = chunk.length > left ? chunk.subarray(0, left) : chunk;
      left -= part.length;
      if (part.length > 0) push(part);
      if (left === 0) done();
    };
  }
  // Chunked (RFC 9112, section 7.1): SIZE CRLF DATA CRLF … 0 CRLF trailers CRLF.
  let state: "size" | "data" | "crlf" | "trailer" | "end" = "size";
  let line = "";
  let left = 0;
  return (chunk) => {
    let at = 0;
    while (at < chunk.length && state !== "end") {
      if (state === "data") {
        const part = chunk.subarray(at, at + left);
        at += part.length;
        left -= part.length;
        push(part);
        if (left === 0) state = "crlf";
        continue;
      }
      const newline = chunk.indexOf(10, at);
      line += chunk.toString("latin1", at, newline < 0 ? chunk.length : newline);
      if (line.length > 65536) throw unavailable("malformed chunked encoding");
      if (newline < 0) return;
      at = newline + 1;
      const text = line.trim();
      line = "";
      if (state === "crlf") {
        if (text !== "") throw unavailable("malformed chunked encoding");
        state = "size";
      } else if (state === "size") {
        const digits = text.split(";")[0]!.trim();
        if (!/^[0-9a-f]{1,12}$/i.test(digits)) throw unavailable("malformed chunked encoding");
        left = Number.parseInt(digits, 16);
        state = left === 0 ? "trailer" : "data";
      } else if (text === "") {
        state = "end";
      }
    }
    if (state === "end") done();
  };
}

/** Chunks from callbacks to a loop; the connection is paused while more than 1 MiB waits. */
function chunkQueue(connection: Connection, signal: AbortSignal | undefined) {
  const waiting: Buffer[] = [];
  let size = 0;
  let paused = false;
  let ended = false;
  let failure: Error | undefined;
  let wake: (() => void) | undefined;
  const notify = () => {
    wake?.();
    wake = undefined;
  };
  const end = (error?: Error) => {
    if (ended) return;
    ended = true;
    failure = error;
    signal?.removeEventListener("abort", abort);
    notify();
  };
  const abort = () => {
    connection.destroy();
    end(signal?.reason instanceof Error ? signal.reason : new Error("aborted"));
  };
  signal?.addEventListener("abort", abort, { once: true });
  async function* iterate(): AsyncGenerator<Buffer> {
    try {
      for (;;) {
        const chunk = waiting.shift();
        if (chunk) {
          size -= chunk.length;
          if (paused && size < QUEUE_LIMIT / 2) {
            paused = false;
            connection.resume();
          }
          yield chunk;
        } else if (ended) {
          if (failure) throw failure;
          return;
        } else {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      }
    } finally {
      if (!ended) {
        connection.destroy();
        end();
      }
    }
  }
  return {
    push(chunk: Buffer) {
      waiting.push(chunk);
      size += chunk.length;
      if (size > QUEUE_LIMIT && !paused) {
        paused = true;
        connection.pause();
      }
      notify();
    },
    end,
    iterable: iterate(),
  };
}
