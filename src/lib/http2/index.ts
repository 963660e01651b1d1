// HTTP/2 (RFC 9113) on a connection that exists already, in either role: what gRPC needs of it, and nothing else (no push, no priorities, no upgrade). node:http2 takes
// 4 ms to load, and under Bun some hundred microseconds for each stream, which is most of what a build costs that has nothing to do.
//
// A connection gathers what is written within one turn of the event loop and sends it at once. What a stream receives it hears at once; a stream that is paused gets no
// more credit, so that the peer stops. The peer is hostile: header blocks, streams, resets and what waits for a peer that doesn't read are bounded.
import {
  ERROR,
  FIRST_WINDOW,
  FLAG,
  FRAME_SIZE,
  frame,
  frameHead,
  MAX_FRAME,
  MAX_WINDOW,
  number32,
  PREFACE,
  SETTING,
  settings,
  TYPE,
} from "./frames.ts";
import { createDecoder } from "./hpack.ts";
import { createOutput } from "./output.ts";
import { broken, ConnectionFailure, createReader, unpadded } from "./reader.ts";
import { createStreams, type Stream, type StreamListener } from "./streams.ts";

export type { Fields } from "./hpack.ts";
export type { Stream, StreamListener } from "./streams.ts";

/** What carries the bytes. It calls receive() and end() of the connection. */
export interface Wire {
  /** False: enough for now; drained() resolves when there is room. */
  write(bytes: Uint8Array): boolean;
  drained(): Promise<void>;
  /** After what was written. */
  end(): void;
  destroy(): void;
}

export interface ConnectionOptions {
  /** Takes a stream that the peer began, a server's; its listener hears the head next. */
  accept?: (stream: Stream) => StreamListener;
  /** What a stream may send us before we have read it. */
  window: number;
  /** It is over; streams have heard before. */
  closed(error: Error | undefined): void;
}

export interface Connection {
  receive(bytes: Buffer): void;
  /** The peer sends nothing more. */
  end(error?: Error): void;
  /** Begins a stream, a client's. Throws where the connection is over. */
  open(listener: StreamListener): Stream;
  close(): void;
}

/** Of all streams together: never what holds one up. */
const CONNECTION_WINDOW = 64 << 20;
const MAX_STREAMS = 4096;
/** Of a header block, as bytes and as fields. */
const MAX_BLOCK = 1 << 20;
const MAX_FIELDS = 4 << 20;
/** Streams that a peer may reset within a second (CVE-2023-44487). */
const MAX_RESETS = 2000;

export function createConnection(wire: Wire, role: "client" | "server", options: ConnectionOptions): Connection {
  const decoder = createDecoder();
  let over = false;
  let block: { id: number; parts: Uint8Array[]; bytes: number; flags: number } | undefined;
  let next = 1;
  let lastPeer = 0;
  let taken = 0;
  let resets = 0;
  let resetsSince = 0;
  let goingAway = false;

  const output = createOutput(
    wire,
    () => streams.sendAll(),
    () => finish(broken("the peer reads nothing", ERROR.ENHANCE_YOUR_CALM)),
  );
  const { put } = output;
  const streams = createStreams(output, options.window);
  const { allowed, open } = streams;

  function finish(error?: Error): void {
    if (over) return;
    const reason = error instanceof ConnectionFailure ? error.code : undefined;
    output.last(reason === undefined ? undefined : frame(TYPE.GOAWAY, 0, 0, Buffer.concat([number32(lastPeer), number32(reason)])));
    over = true;
    for (const state of [...open.values()]) streams.close(state, error ?? new Error("the connection is over"));
    if (error) wire.destroy();
    else wire.end();
    options.closed(error);
  }

  function dataFrame(id: number, flags: number, payload: Buffer): void {
    taken += payload.length;
    if (taken >= CONNECTION_WINDOW / 2) {
      put(frame(TYPE.WINDOW_UPDATE, 0, 0, number32(taken)));
      taken = 0;
    }
    const state = open.get(id);
    if (!state) {
      if (id === 0 || (role === "client" ? id >= next : id > lastPeer)) throw broken("data of a stream that was never opened");
      return;
    }
    if (state.gotEnd || !state.gotHead) {
      state.stream.reset(ERROR.STREAM_CLOSED);
      return;
    }
    state.taken += payload.length;
    if (state.taken > options.window + MAX_FRAME) throw broken("more data than its window allows", ERROR.FLOW_CONTROL_ERROR);
    const last = (flags & FLAG.END_STREAM) !== 0;
    state.gotEnd = last;
    streams.credit(state);
    state.listener.data(unpadded(payload, (flags & FLAG.PADDED) !== 0), last);
    if (last && state.sentEnd) streams.close(state, undefined);
  }

  function blockDone(): void {
    const { id, parts, flags } = block!;
    block = undefined;
    let fields: [string, string][];
    try {
      fields = decoder.decode(parts.length === 1 ? parts[0]! : Buffer.concat(parts), MAX_FIELDS);
    } catch (error) {
      throw broken((error as Error).message, ERROR.COMPRESSION_ERROR);
    }
    const last = (flags & FLAG.END_STREAM) !== 0;
    let state = open.get(id);
    if (!state) {
      if (role === "client") {
        if (id >= next || id % 2 === 0) throw broken("an answer to no request");
        return;
      }
      if (id % 2 === 0) throw broken("a stream with an even number");
      // What belongs to a stream that is over may still have been on its way.
      if (id <= lastPeer) return;
      lastPeer = id;
      if (open.size >= MAX_STREAMS) {
        put(frame(TYPE.RST_STREAM, 0, id, number32(ERROR.REFUSED_STREAM)));
        return;
      }
      state = streams.make(id, options.accept!);
    }
    if (state.gotEnd) {
      state.stream.reset(ERROR.STREAM_CLOSED);
      return;
    }
    state.gotHead = true;
    state.gotEnd = last;
    state.listener.fields(fields, last);
    if (last && state.sentEnd) streams.close(state, undefined);
  }

  function headersFrame(id: number, flags: number, frameBytes: Buffer): void {
    if (id === 0) throw broken("headers of no stream");
    let payload = unpadded(frameBytes, (flags & FLAG.PADDED) !== 0);
    if (flags & FLAG.PRIORITY) {
      if (payload.length < 5) throw broken("a short frame", ERROR.FRAME_SIZE_ERROR);
      payload = payload.subarray(5);
    }
    block = { id, parts: [payload], bytes: payload.length, flags };
    if (flags & FLAG.END_HEADERS) blockDone();
  }

  function continuation(id: number, flags: number, payload: Buffer): void {
    if (block?.id !== id) throw broken("a continuation of nothing");
    block.bytes += payload.length;
    // Frames without content cost as well.
    if (block.bytes > MAX_BLOCK || block.parts.length > 1024) throw broken("the header fields are too long", ERROR.ENHANCE_YOUR_CALM);
    block.parts.push(payload);
    if (flags & FLAG.END_HEADERS) blockDone();
  }

  function settingsFrame(_: number, flags: number, payload: Buffer): void {
    if (flags & FLAG.ACK) return;
    if (payload.length % 6 !== 0) throw broken("settings of a wrong length", ERROR.FRAME_SIZE_ERROR);
    for (let at = 0; at < payload.length; at += 6) {
      const value = payload.readUInt32BE(at + 2);
      switch (payload.readUInt16BE(at)) {
        case SETTING.INITIAL_WINDOW_SIZE:
          if (value > MAX_WINDOW) throw broken("a window that is too large", ERROR.FLOW_CONTROL_ERROR);
          for (const state of open.values()) state.sendWindow += value - allowed.stream;
          allowed.stream = value;
          break;
        case SETTING.MAX_FRAME_SIZE:
          if (value < FRAME_SIZE || value > 0xffffff) throw broken("a frame size out of range");
          allowed.frame = Math.min(value, MAX_FRAME);
      }
    }
    put(frameHead(TYPE.SETTINGS, FLAG.ACK, 0, 0));
    streams.sendAll();
  }

  function windowUpdate(id: number, _: number, payload: Buffer): void {
    if (payload.length !== 4) throw broken("a window update of a wrong length", ERROR.FRAME_SIZE_ERROR);
    const more = payload.readUInt32BE(0) & MAX_WINDOW;
    if (id === 0) {
      allowed.all += more;
      if (more === 0 || allowed.all > MAX_WINDOW) throw broken("a window that is too large", ERROR.FLOW_CONTROL_ERROR);
      streams.sendAll();
      return;
    }
    const state = open.get(id);
    if (!state) return;
    state.sendWindow += more;
    if (more === 0 || state.sendWindow > MAX_WINDOW) state.stream.reset(ERROR.FLOW_CONTROL_ERROR);
    else streams.send(state);
  }

  function resetFrame(id: number, _: number, payload: Buffer): void {
    if (payload.length !== 4 || id === 0) throw broken("a reset of a wrong length", ERROR.FRAME_SIZE_ERROR);
    const now = performance.now();
    if (now - resetsSince > 1000) {
      resetsSince = now;
      resets = 0;
    }
    if (role === "server" && ++resets > MAX_RESETS) throw broken("too many resets", ERROR.ENHANCE_YOUR_CALM);
    const state = open.get(id);
    if (!state) return;
    const code = payload.readUInt32BE(0);
    // A server that has answered all may tell us to stop sending (8.1).
    const done = state.gotEnd && code === ERROR.NO_ERROR;
    streams.close(
      state,
      done ? undefined : new Error(code === ERROR.REFUSED_STREAM ? "the peer refused the stream" : `the peer reset the stream (${code})`),
    );
  }

  function goAway(_: number, __: number, payload: Buffer): void {
    if (payload.length < 8) throw broken("a short frame", ERROR.FRAME_SIZE_ERROR);
    // Of a client it says only that it takes no pushes.
    if (role === "server") return;
    goingAway = true;
    const last = payload.readUInt32BE(0) & MAX_WINDOW;
    for (const state of [...open.values()]) if (state.stream.id > last) streams.close(state, new Error("the peer is going away"));
    if (open.size === 0) finish();
  }

  function ping(id: number, flags: number, payload: Buffer): void {
    if (payload.length !== 8 || id !== 0) throw broken("a ping of a wrong length", ERROR.FRAME_SIZE_ERROR);
    if (!(flags & FLAG.ACK)) put(frame(TYPE.PING, FLAG.ACK, 0, payload));
  }

  // Priorities, and kinds that we don't know, mean nothing (5.5).
  const kinds: Record<number, (id: number, flags: number, payload: Buffer) => void> = {
    [TYPE.DATA]: dataFrame,
    [TYPE.HEADERS]: headersFrame,
    [TYPE.CONTINUATION]: continuation,
    [TYPE.SETTINGS]: settingsFrame,
    [TYPE.WINDOW_UPDATE]: windowUpdate,
    [TYPE.RST_STREAM]: resetFrame,
    [TYPE.PING]: ping,
    [TYPE.GOAWAY]: goAway,
    [TYPE.PUSH_PROMISE]() {
      throw broken("a push that nobody asked for");
    },
  };

  const read = createReader(role === "server", (type, flags, id, payload) => {
    if (block && type !== TYPE.CONTINUATION) throw broken("something between the frames of a header block");
    kinds[type]?.(id, flags, payload);
    return !over;
  });

  if (role === "client") put(PREFACE);
  put(
    settings([
      ...(role === "client" ? [[SETTING.ENABLE_PUSH, 0] as const] : [[SETTING.MAX_CONCURRENT_STREAMS, MAX_STREAMS] as const]),
      [SETTING.INITIAL_WINDOW_SIZE, options.window],
      [SETTING.MAX_FRAME_SIZE, MAX_FRAME],
      [SETTING.MAX_HEADER_LIST_SIZE, MAX_FIELDS],
    ]),
  );
  put(frame(TYPE.WINDOW_UPDATE, 0, 0, number32(CONNECTION_WINDOW - FIRST_WINDOW)));

  return {
    receive(bytes) {
      if (over) return;
      try {
        read(bytes);
      } catch (error) {
        if (!(error instanceof ConnectionFailure)) throw error;
        finish(error);
      }
    },
    end: (error) => finish(error ?? (open.size > 0 ? new Error("the peer closed the connection") : undefined)),
    open(listener) {
      if (over || goingAway) throw new Error("the connection is over");
      const { stream } = streams.make(next, () => listener);
      next += 2;
      return stream;
    },
    close: () => finish(),
  };
}
