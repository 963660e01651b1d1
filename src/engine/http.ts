// HTTP/1.1 on a stream socket, as the Engine API needs it (RFC 9112): keep-alive, chunked bodies both ways, 100-continue, and above all the
// takeover of the connection by a handler (attach, exec), with or without an upgrade, early data and half-close kept. node:http is not used: under
// Bun it loses a body sent with an upgrade, and answers 400 into a connection that was taken over without one.
//
// One connection is one state machine: head → body → answered → head …, or → raw once taken over. Requests of one connection are answered in turn.
import type { Socket } from "node:net";
import { Readable } from "node:stream";
import { invalidArgument } from "../lib/errors.ts";
import { type Head, headOf, parseHead } from "./http-head.ts";

const MAX_HEAD = 64 * 1024;
const MAX_BUFFERED = 256 * 1024;
/** How much of a body nobody read is swallowed to keep the connection. */
const MAX_DISCARDED = 256 * 1024;
/** How long a connection is kept for a client that sends on after it was answered (net/http waits as long). */
const LINGER_MS = 500;

const EMPTY = Buffer.alloc(0);

export interface Exchange {
  readonly method: string;
  /** Request target as sent: path and query. */
  readonly target: string;
  /** By lower-case name; repeated ones joined with ", ". */
  readonly headers: Record<string, string | undefined>;
  readonly signal: AbortSignal;
  readonly body: Readable;
  readonly answered: boolean;
  readonly takenOver: boolean;
  /** The whole body; InvalidArgument where it is longer than `limit`. */
  bytes(limit: number): Promise<Buffer>;
  /** Answers with a whole body. */
  send(status: number, headers: Record<string, string>, body: string | Uint8Array): void;
  /** Answers in chunks; each is on the wire when the promise resolves, or the client went away (see `signal`). */
  stream(status: number, headers: Record<string, string>, chunks: AsyncIterable<Uint8Array | string>): Promise<void>;
  /** Answers with this head and gives the raw socket; what the client sent early comes first. */
  takeOver(head: string): Socket;
  /** Ends the connection in the middle of an answer, so that the client sees it cut. */
  destroy(): void;
}

interface Body {
  /** Bytes still to come; -1: chunked. */
  remaining: number;
  queue: Buffer[];
  queued: number;
  done: boolean;
  discard: boolean;
  discarded: number;
  error: Error | undefined;
  wake: (() => void) | undefined;
  readable: Readable | undefined;
}

/** How a connection begins that speaks HTTP/2 from the first byte (RFC 9113, 3.4). */
const HTTP2_PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\n");

/**
 * Serves one connection until it ends. `handle` must answer each exchange; what it throws cuts the connection. `common`: header lines of every answer. `http2` takes
 * connections that begin with HTTP/2's preface; without it they are refused.
 */
export function serveConnection(
  socket: Socket,
  handle: (exchange: Exchange) => Promise<void>,
  common: string,
  http2?: (socket: Socket) => void,
): void {
  let buffer: Buffer = EMPTY;
  let state: "head" | "body" | "answering" | "raw" = "head";
  let current: { body: Body; abort: AbortController | undefined; answered: boolean; keepAlive: boolean } | undefined;
  let gone = false;
  let paused = false;
  let drained: (() => void) | undefined;
  let lingering: ReturnType<typeof setTimeout> | undefined;

  const pause = () => {
    if (!paused) {
      paused = true;
      socket.pause();
    }
  };
  const resume = () => {
    if (paused) {
      paused = false;
      socket.resume();
    }
  };

  const leave = () => {
    if (gone) return;
    gone = true;
    drained?.();
    const body = current?.body;
    if (body && !body.done) finishBody(body, new Error("the client closed the connection in the middle of a request body"));
    current?.abort?.abort();
  };

  const onData = (chunk: Buffer) => {
    buffer = buffer.length === 0 ? chunk : Buffer.concat([buffer, chunk]);
    advance();
  };
  const onEnd = () => {
    // As net/http of Go: a client that closed its sending side in the middle of an exchange is gone. Only taken-over connections keep half-close.
    leave();
    socket.end();
  };
  const onClose = () => leave();
  const onError = () => leave();
  const onDrain = () => {
    const wake = drained;
    drained = undefined;
    wake?.();
  };
  socket.on("data", onData);
  socket.on("end", onEnd);
  socket.on("close", onClose);
  socket.on("error", onError);
  socket.on("drain", onDrain);

  /** The connection is someone else's from now on. */
  function letGo(): void {
    socket.off("data", onData);
    socket.off("end", onEnd);
    socket.off("drain", onDrain);
    state = "raw";
    socket.pause();
  }

  function finishBody(body: Body, error?: Error): void {
    body.done = true;
    body.error = error;
    if (body.readable) {
      if (error) body.readable.destroy(error);
      else body.readable.push(null);
    }
    body.wake?.();
  }

  function give(body: Body, chunk: Buffer): void {
    if (chunk.length === 0) return;
    if (body.discard) {
      body.discarded += chunk.length;
      if (body.discarded > MAX_DISCARDED && !lingering) {
        // Closed at once, a client that is still sending would fail in its write before it reads the answer.
        lingering = setTimeout(() => socket.destroy(), LINGER_MS);
        socket.end();
      }
    } else if (body.readable) {
      if (!body.readable.push(chunk)) pause();
    } else {
      body.queue.push(chunk);
      body.queued += chunk.length;
      if (body.queued > MAX_BUFFERED && !body.wake) pause();
      body.wake?.();
    }
  }

  function refuse(status: number, message: string): void {
    const text = `${JSON.stringify({ message })}\n`;
    socket.end(
      `${headOf(status, { "Content-Type": "application/json", "Content-Length": String(Buffer.byteLength(text)) }, common)}Connection: close\r\n\r\n${text}`,
    );
    gone = true;
    state = "raw";
  }

  // The size line of the next chunk is due (0), the chunk's closing line break is due (1), trailers are due (2), or inside a chunk (3).
  let chunkState = 0;
  let chunkLeft = 0;

  /** Decodes what is in `buffer` for the body; false where more is needed. */
  function feed(body: Body): boolean {
    if (body.remaining >= 0) {
      const take = Math.min(body.remaining, buffer.length);
      if (take > 0) {
        const chunk = buffer.subarray(0, take);
        buffer = buffer.subarray(take);
        body.remaining -= take;
        give(body, chunk);
      }
      if (body.remaining > 0) return false;
      finishBody(body);
      return true;
    }
    for (;;) {
      if (chunkState === 3) {
        const take = Math.min(chunkLeft, buffer.length);
        if (take === 0) return false;
        const chunk = buffer.subarray(0, take);
        buffer = buffer.subarray(take);
        chunkLeft -= take;
        if (chunkLeft === 0) chunkState = 1;
        give(body, chunk);
        continue;
      }
      const end = buffer.indexOf("\r\n");
      if (end < 0) {
        if (buffer.length > 8192) throw invalidArgument("malformed chunked body");
        return false;
      }
      const line = buffer.toString("latin1", 0, end);
      buffer = buffer.subarray(end + 2);
      if (chunkState === 0) {
        const size = /^([0-9a-fA-F]{1,12})[ \t]*(;.*)?$/.exec(line);
        if (!size) throw invalidArgument("malformed chunked body");
        chunkLeft = Number.parseInt(size[1]!, 16);
        chunkState = chunkLeft === 0 ? 2 : 3;
      } else if (chunkState === 1) {
        if (line !== "") throw invalidArgument("malformed chunked body");
        chunkState = 0;
      } else if (line === "") {
        finishBody(body);
        return true;
      }
    }
  }

  function advance(): void {
    try {
      for (;;) {
        if (state === "head") {
          if (!takeHead()) return;
        } else if (state === "body") {
          if (!feed(current!.body)) return;
          state = "answering";
          if (current!.answered) nextRequest();
        } else {
          if (state === "answering" && buffer.length > MAX_HEAD) pause();
          return;
        }
      }
    } catch (error) {
      if (current && !current.answered) finishBody(current.body, error as Error);
      else refuse(400, (error as Error).message);
    }
  }

  function takeHead(): boolean {
    // Empty lines before a request are allowed (RFC 9112, 2.2).
    while (buffer.length >= 2 && buffer[0] === 13 && buffer[1] === 10) buffer = buffer.subarray(2);
    const end = buffer.indexOf("\r\n\r\n");
    if (http2 && end === HTTP2_PREFACE.length - 4 && buffer.subarray(0, HTTP2_PREFACE.length).equals(HTTP2_PREFACE)) {
      const early = buffer;
      letGo();
      socket.off("close", onClose);
      socket.off("error", onError);
      socket.unshift(early);
      (socket as { readableFlowing: boolean | null }).readableFlowing = null;
      http2(socket);
      return false;
    }
    if (end < 0 || end > MAX_HEAD) {
      if (buffer.length > MAX_HEAD) refuse(431, "request header fields too large");
      return false;
    }
    const head = parseHead(buffer.toString("latin1", 0, end));
    buffer = buffer.subarray(end + 4);
    const length = head.headers["content-length"];
    const coding = head.headers["transfer-encoding"];
    if (length !== undefined && (coding !== undefined || !/^[0-9]{1,15}$/.test(length))) throw invalidArgument("malformed content length");
    if (coding !== undefined && coding.toLowerCase() !== "chunked") throw invalidArgument(`unsupported transfer encoding ${coding}`);
    const remaining = coding !== undefined ? -1 : Number(length ?? 0);
    chunkState = 0;
    begin(head, remaining);
    return true;
  }

  function begin(head: Head, remaining: number): void {
    const body: Body = {
      remaining,
      queue: [],
      queued: 0,
      done: remaining === 0,
      discard: false,
      discarded: 0,
      error: undefined,
      wake: undefined,
      readable: undefined,
    };
    const connection = head.headers.connection?.toLowerCase() ?? "";
    const keepAlive = head.minor === 1 ? !connection.includes("close") : connection.includes("keep-alive");
    const mine = { body, abort: undefined as AbortController | undefined, answered: false, keepAlive };
    current = mine;
    state = remaining === 0 ? "answering" : "body";
    let awaited = head.headers.expect?.toLowerCase() === "100-continue" && remaining !== 0;
    const wanted = () => {
      if (!awaited || mine.answered) return;
      awaited = false;
      socket.write("HTTP/1.1 100 Continue\r\n\r\n");
    };

    const finish = () => {
      mine.answered = true;
      if (gone) return;
      if (!mine.keepAlive || awaited) {
        socket.end();
        return;
      }
      if (body.done) {
        if (state === "answering") queueMicrotask(() => current === mine && state === "answering" && nextRequest());
        return;
      }
      body.discard = true;
      body.queue = [];
      resume();
    };

    const exchange: Exchange = {
      method: head.method,
      target: head.target,
      headers: head.headers,
      get signal() {
        if (!mine.abort) {
          mine.abort = new AbortController();
          if (gone) mine.abort.abort();
        }
        return mine.abort.signal;
      },
      get answered() {
        return mine.answered;
      },
      get takenOver() {
        return state === "raw";
      },
      get body() {
        if (!body.readable) {
          wanted();
          body.readable = new Readable({ read: resume, highWaterMark: MAX_BUFFERED });
          for (const chunk of body.queue.splice(0)) body.readable.push(chunk);
          if (body.error) body.readable.destroy(body.error);
          else if (body.done) body.readable.push(null);
        }
        return body.readable;
      },
      async bytes(limit) {
        wanted();
        resume();
        while (!body.done && body.queued <= limit) {
          await new Promise<void>((resolve) => {
            body.wake = resolve;
          });
          body.wake = undefined;
        }
        if (body.error) throw body.error;
        if (body.queued > limit) throw invalidArgument(`request body is larger than ${limit} bytes`);
        const chunks = body.queue.splice(0);
        return chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks);
      },
      send(status, headers, content) {
        if (mine.answered || gone) return;
        mine.answered = true;
        let text = headOf(status, headers, common);
        if (!mine.keepAlive || awaited) text += "Connection: close\r\n";
        const bare = status === 204 || status === 304;
        if (!bare && headers["Content-Length"] === undefined) {
          text += `Content-Length: ${typeof content === "string" ? Buffer.byteLength(content) : content.length}\r\n`;
        }
        text += "\r\n";
        if (bare || head.method === "HEAD") socket.write(text);
        else if (typeof content === "string") socket.write(text + content);
        else socket.write(Buffer.concat([Buffer.from(text), content]));
        finish();
      },
      async stream(status, headers, chunks) {
        if (mine.answered || gone) {
          await chunks[Symbol.asyncIterator]().return?.();
          return;
        }
        mine.answered = true;
        const chunked = head.minor === 1;
        if (!chunked) mine.keepAlive = false;
        const closing = mine.keepAlive && !awaited ? "" : "Connection: close\r\n";
        socket.write(`${headOf(status, headers, common)}${closing}${chunked ? "Transfer-Encoding: chunked\r\n" : ""}\r\n`);
        const iterator = chunks[Symbol.asyncIterator]();
        // A producer that waits for something that never comes is let go when the client leaves.
        const left = new Promise<"left">((resolve) => {
          if (exchange.signal.aborted) resolve("left");
          else exchange.signal.addEventListener("abort", () => resolve("left"), { once: true });
        });
        try {
          for (;;) {
            const step = await Promise.race([iterator.next(), left]);
            if (step === "left" || gone) {
              Promise.resolve(iterator.return?.()).catch(() => {});
              return;
            }
            if (step.done) break;
            const chunk = typeof step.value === "string" ? Buffer.from(step.value) : step.value;
            if (chunk.length === 0 || head.method === "HEAD") continue;
            const size = Buffer.from(`${chunk.length.toString(16)}\r\n`);
            let taken: boolean;
            if (!chunked) taken = socket.write(chunk);
            else if (chunk.length < LARGE) taken = socket.write(Buffer.concat([size, chunk, CRLF]));
            else {
              // A copy of each large chunk would pile up faster than it is collected.
              socket.write(size);
              socket.write(chunk);
              taken = socket.write(CRLF);
            }
            if (!taken) {
              await new Promise<void>((resolve) => {
                drained = resolve;
                if (gone) resolve();
              });
            }
          }
        } catch (error) {
          socket.destroy();
          throw error;
        }
        if (chunked) socket.write("0\r\n\r\n");
        finish();
      },
      takeOver(text) {
        letGo();
        mine.answered = true;
        socket.write(text);
        const early = Buffer.concat([...body.queue.splice(0), buffer]);
        buffer = EMPTY;
        if (early.length > 0) socket.unshift(early);
        // As new: the first "data" listener or pipe starts the flow.
        (socket as { readableFlowing: boolean | null }).readableFlowing = null;
        return socket;
      },
      destroy() {
        socket.destroy();
      },
    };
    handle(exchange).catch(() => socket.destroy());
  }

  function nextRequest(): void {
    current = undefined;
    state = "head";
    resume();
    if (buffer.length > 0) advance();
  }
}

const CRLF = Buffer.from("\r\n");
/** A chunk of this size is written as it is, a smaller one together with its framing. */
const LARGE = 32 * 1024;
