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
import { createDecoder, encodeFields, type Fields } from "./hpack.ts";
import { createOutput } from "./output.ts";
import { broken, ConnectionFailure, createReader, unpadded } from "./reader.ts";

export type { Fields } from "./hpack.ts";

/** What carries the bytes. It calls receive() and end() of the connection. */
export interface Wire {
  /** False: enough for now; drained() resolves when there is room. */
  write(bytes: Uint8Array): boolean;
  drained(): Promise<void>;
  /** After what was written. */
  end(): void;
  destroy(): void;
}

/** What a stream hears. */
export interface StreamListener {
  /** The head of a message, or its trailers. `last`: the peer sends no more. */
  fields(fields: Fields, last: boolean): void;
  data(bytes: Uint8Array, last: boolean): void;
  /** There is room for more again. */
  drained(): void;
  /** It is over, once: undefined where both sides ended it, or the peer was done and reset it without an error. */
  closed(error: Error | undefined): void;
}

export interface Stream {
  readonly id: number;
  fields(fields: Fields, last: boolean): void;
  /** False: enough for now, see drained(). */
  write(bytes: Uint8Array, last: boolean): boolean;
  /** Trailers, behind all that was written. A peer that still sends is told to stop. */
  end(trailers: Fields): void;
  reset(code: number): void;
  pause(): void;
  resume(): void;
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
/** What a stream holds before it asks its writer to wait. */
const MAX_HELD = 256 << 10;

interface State {
  stream: Stream;
  listener: StreamListener;
  sendWindow: number;
  /** Received and not yet given back as credit. */
  taken: number;
  paused: boolean;
  held: Uint8Array[];
  heldBytes: number;
  /** The last of what is held ends our side. */
  ending: boolean;
  trailers: Fields | undefined;
  full: boolean;
  sentEnd: boolean;
  gotEnd: boolean;
  gotHead: boolean;
  over: boolean;
}

export function createConnection(wire: Wire, role: "client" | "server", options: ConnectionOptions): Connection {
  const streams = new Map<number, State>();
  const decoder = createDecoder();
  let over = false;
  let block: { id: number; parts: Uint8Array[]; bytes: number; flags: number } | undefined;
  let next = 1;
  let lastPeer = 0;
  let firstBlock = true;
  let sendWindow = FIRST_WINDOW;
  let taken = 0;
  let peerWindow = FIRST_WINDOW;
  let peerFrame = FRAME_SIZE;
  let resets = 0;
  let resetsSince = 0;
  let goingAway = false;

  // ---- sending

  const output = createOutput(wire, sendHeld, () => finish(broken("the peer reads nothing", ERROR.ENHANCE_YOUR_CALM)));
  const { put } = output;

  /** Sends what a stream holds as far as the windows allow. */
  function sendOf(state: State): void {
    while (!state.over && !output.blocked && (state.held.length > 0 || (state.ending && !state.sentEnd))) {
      const [piece] = state.held;
      if (!piece || piece.length === 0) {
        if (piece) state.held.shift();
        if (state.held.length > 0) continue;
        if (!state.ending) break;
        if (state.trailers) sendFields(state.stream.id, state.trailers, true);
        else put(frameHead(TYPE.DATA, FLAG.END_STREAM, state.stream.id, 0));
        state.sentEnd = true;
        break;
      }
      const length = Math.min(piece.length, peerFrame, state.sendWindow, sendWindow);
      if (length <= 0) return;
      const whole = length === piece.length;
      const last = whole && state.held.length === 1 && state.ending && !state.trailers;
      put(frameHead(TYPE.DATA, last ? FLAG.END_STREAM : 0, state.stream.id, length));
      put(whole ? piece : piece.subarray(0, length));
      if (whole) state.held.shift();
      else state.held[0] = piece.subarray(length);
      state.heldBytes -= length;
      state.sendWindow -= length;
      sendWindow -= length;
      state.sentEnd = last;
    }
    if (state.over) return;
    if (state.full && !output.blocked && state.heldBytes < MAX_HELD) {
      state.full = false;
      state.listener.drained();
    }
    if (!state.sentEnd) return;
    if (state.trailers && !state.gotEnd) put(frame(TYPE.RST_STREAM, 0, state.stream.id, number32(ERROR.NO_ERROR)));
    if (state.trailers || state.gotEnd) closeStream(state, undefined);
  }
  function sendHeld(): void {
    for (const state of [...streams.values()]) sendOf(state);
  }

  function closeStream(state: State, error: Error | undefined): void {
    if (state.over) return;
    state.over = true;
    state.held = [];
    streams.delete(state.stream.id);
    state.listener.closed(error);
  }

  function finish(error?: Error): void {
    if (over) return;
    const reason = error instanceof ConnectionFailure ? error.code : undefined;
    output.last(reason === undefined ? undefined : frame(TYPE.GOAWAY, 0, 0, Buffer.concat([number32(lastPeer), number32(reason)])));
    over = true;
    for (const state of [...streams.values()]) closeStream(state, error ?? new Error("the connection is over"));
    if (error) wire.destroy();
    else wire.end();
    options.closed(error);
  }

  function sendFields(id: number, fields: Fields, last: boolean): void {
    const bytes = encodeFields(fields, firstBlock);
    firstBlock = false;
    for (let at = 0; at === 0 || at < bytes.length; at += peerFrame) {
      const flags = (at + peerFrame >= bytes.length ? FLAG.END_HEADERS : 0) | (last && at === 0 ? FLAG.END_STREAM : 0);
      put(frame(at === 0 ? TYPE.HEADERS : TYPE.CONTINUATION, flags, id, bytes.subarray(at, at + peerFrame)));
    }
  }

  function makeStream(id: number, listenerOf: (stream: Stream) => StreamListener): State {
    const stream: Stream = {
      id,
      fields(fields, last) {
        if (state.over || state.sentEnd) return;
        sendFields(id, fields, last);
        if (!last) return;
        state.sentEnd = true;
        if (state.gotEnd) closeStream(state, undefined);
      },
      write(bytes, last) {
        if (state.over || state.ending) return true;
        state.held.push(bytes);
        state.heldBytes += bytes.length;
        state.ending = last;
        sendOf(state);
        if (!state.over && (output.blocked || state.heldBytes >= MAX_HELD)) state.full = true;
        return !state.full;
      },
      end(trailers) {
        if (state.over || state.ending) return;
        state.ending = true;
        state.trailers = trailers;
        sendOf(state);
      },
      reset(code) {
        if (state.over) return;
        put(frame(TYPE.RST_STREAM, 0, id, number32(code)));
        closeStream(state, code === ERROR.NO_ERROR ? undefined : new Error("the stream was cancelled"));
      },
      pause() {
        state.paused = true;
      },
      resume() {
        state.paused = false;
        credit(state);
      },
    };
    const state: State = {
      stream,
      listener: undefined as unknown as StreamListener,
      sendWindow: peerWindow,
      taken: 0,
      paused: false,
      held: [],
      heldBytes: 0,
      ending: false,
      trailers: undefined,
      full: false,
      sentEnd: false,
      gotEnd: false,
      gotHead: false,
      over: false,
    };
    state.listener = listenerOf(stream);
    streams.set(id, state);
    return state;
  }

  // ---- receiving

  function credit(state: State): void {
    if (state.paused || state.over || state.gotEnd || state.taken < options.window / 2) return;
    put(frame(TYPE.WINDOW_UPDATE, 0, state.stream.id, number32(state.taken)));
    state.taken = 0;
  }

  function dataFrame(id: number, flags: number, payload: Buffer): void {
    taken += payload.length;
    if (taken >= CONNECTION_WINDOW / 2) {
      put(frame(TYPE.WINDOW_UPDATE, 0, 0, number32(taken)));
      taken = 0;
    }
    const state = streams.get(id);
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
    credit(state);
    state.listener.data(unpadded(payload, (flags & FLAG.PADDED) !== 0), last);
    if (last && state.sentEnd) closeStream(state, undefined);
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
    let state = streams.get(id);
    if (!state) {
      if (role === "client") {
        if (id >= next || id % 2 === 0) throw broken("an answer to no request");
        return;
      }
      if (id % 2 === 0) throw broken("a stream with an even number");
      // What belongs to a stream that is over may still have been on its way.
      if (id <= lastPeer) return;
      lastPeer = id;
      if (streams.size >= MAX_STREAMS) {
        put(frame(TYPE.RST_STREAM, 0, id, number32(ERROR.REFUSED_STREAM)));
        return;
      }
      state = makeStream(id, options.accept!);
    }
    if (state.gotEnd) {
      state.stream.reset(ERROR.STREAM_CLOSED);
      return;
    }
    state.gotHead = true;
    state.gotEnd = last;
    state.listener.fields(fields, last);
    if (last && state.sentEnd) closeStream(state, undefined);
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
          for (const state of streams.values()) state.sendWindow += value - peerWindow;
          peerWindow = value;
          break;
        case SETTING.MAX_FRAME_SIZE:
          if (value < FRAME_SIZE || value > 0xffffff) throw broken("a frame size out of range");
          peerFrame = Math.min(value, MAX_FRAME);
      }
    }
    put(frameHead(TYPE.SETTINGS, FLAG.ACK, 0, 0));
    sendHeld();
  }

  function windowUpdate(id: number, _: number, payload: Buffer): void {
    if (payload.length !== 4) throw broken("a window update of a wrong length", ERROR.FRAME_SIZE_ERROR);
    const more = payload.readUInt32BE(0) & MAX_WINDOW;
    if (id === 0) {
      sendWindow += more;
      if (more === 0 || sendWindow > MAX_WINDOW) throw broken("a window that is too large", ERROR.FLOW_CONTROL_ERROR);
      sendHeld();
      return;
    }
    const state = streams.get(id);
    if (!state) return;
    state.sendWindow += more;
    if (more === 0 || state.sendWindow > MAX_WINDOW) state.stream.reset(ERROR.FLOW_CONTROL_ERROR);
    else sendOf(state);
  }

  function resetFrame(id: number, _: number, payload: Buffer): void {
    if (payload.length !== 4 || id === 0) throw broken("a reset of a wrong length", ERROR.FRAME_SIZE_ERROR);
    const now = performance.now();
    if (now - resetsSince > 1000) {
      resetsSince = now;
      resets = 0;
    }
    if (role === "server" && ++resets > MAX_RESETS) throw broken("too many resets", ERROR.ENHANCE_YOUR_CALM);
    const state = streams.get(id);
    if (!state) return;
    const code = payload.readUInt32BE(0);
    // A server that has answered all may tell us to stop sending (8.1).
    const done = state.gotEnd && code === ERROR.NO_ERROR;
    closeStream(
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
    for (const state of [...streams.values()]) if (state.stream.id > last) closeStream(state, new Error("the peer is going away"));
    if (streams.size === 0) finish();
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
    end: (error) => finish(error ?? (streams.size > 0 ? new Error("the peer closed the connection") : undefined)),
    open(listener) {
      if (over || goingAway) throw new Error("the connection is over");
      const { stream } = makeStream(next, () => listener);
      next += 2;
      return stream;
    },
    close: () => finish(),
  };
}
