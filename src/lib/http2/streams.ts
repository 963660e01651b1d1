// The streams of a connection, and our side of them: what waits for the peer's windows is held here and goes on when they open.
import { ERROR, FIRST_WINDOW, FLAG, FRAME_SIZE, frame, frameHead, number32, TYPE } from "./frames.ts";
import { encodeFields, type Fields } from "./hpack.ts";
import type { Output } from "./output.ts";

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

/** What a stream holds before it asks its writer to wait. */
const MAX_HELD = 256 << 10;

export interface State {
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

export interface Streams {
  readonly open: Map<number, State>;
  /** What the peer allows: of all streams together, of a new one, of a frame. */
  readonly allowed: { all: number; stream: number; frame: number };
  make(id: number, listenerOf: (stream: Stream) => StreamListener): State;
  /** Sends what a stream holds as far as the windows allow. */
  send(state: State): void;
  sendAll(): void;
  /** Gives back as credit what a stream has received, `window` being what it may receive before. */
  credit(state: State): void;
  close(state: State, error: Error | undefined): void;
}

export function createStreams(output: Output, window: number): Streams {
  const { put } = output;
  const open = new Map<number, State>();
  const allowed = { all: FIRST_WINDOW, stream: FIRST_WINDOW, frame: FRAME_SIZE };
  let firstBlock = true;

  function send(state: State): void {
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
      const length = Math.min(piece.length, allowed.frame, state.sendWindow, allowed.all);
      if (length <= 0) return;
      const whole = length === piece.length;
      const last = whole && state.held.length === 1 && state.ending && !state.trailers;
      put(frameHead(TYPE.DATA, last ? FLAG.END_STREAM : 0, state.stream.id, length));
      put(whole ? piece : piece.subarray(0, length));
      if (whole) state.held.shift();
      else state.held[0] = piece.subarray(length);
      state.heldBytes -= length;
      state.sendWindow -= length;
      allowed.all -= length;
      state.sentEnd = last;
    }
    if (state.over) return;
    if (state.full && !output.blocked && state.heldBytes < MAX_HELD) {
      state.full = false;
      state.listener.drained();
    }
    if (!state.sentEnd) return;
    if (state.trailers && !state.gotEnd) put(frame(TYPE.RST_STREAM, 0, state.stream.id, number32(ERROR.NO_ERROR)));
    if (state.trailers || state.gotEnd) close(state, undefined);
  }
  function sendAll(): void {
    for (const state of [...open.values()]) send(state);
  }

  function close(state: State, error: Error | undefined): void {
    if (state.over) return;
    state.over = true;
    state.held = [];
    open.delete(state.stream.id);
    state.listener.closed(error);
  }

  function sendFields(id: number, fields: Fields, last: boolean): void {
    const bytes = encodeFields(fields, firstBlock);
    firstBlock = false;
    for (let at = 0; at === 0 || at < bytes.length; at += allowed.frame) {
      const flags = (at + allowed.frame >= bytes.length ? FLAG.END_HEADERS : 0) | (last && at === 0 ? FLAG.END_STREAM : 0);
      put(frame(at === 0 ? TYPE.HEADERS : TYPE.CONTINUATION, flags, id, bytes.subarray(at, at + allowed.frame)));
    }
  }

  function make(id: number, listenerOf: (stream: Stream) => StreamListener): State {
    const stream: Stream = {
      id,
      fields(fields, last) {
        if (state.over || state.sentEnd) return;
        sendFields(id, fields, last);
        if (!last) return;
        state.sentEnd = true;
        if (state.gotEnd) close(state, undefined);
      },
      write(bytes, last) {
        if (state.over || state.ending) return true;
        state.held.push(bytes);
        state.heldBytes += bytes.length;
        state.ending = last;
        send(state);
        if (!state.over && (output.blocked || state.heldBytes >= MAX_HELD)) state.full = true;
        return !state.full;
      },
      end(trailers) {
        if (state.over || state.ending) return;
        state.ending = true;
        state.trailers = trailers;
        send(state);
      },
      reset(code) {
        if (state.over) return;
        put(frame(TYPE.RST_STREAM, 0, id, number32(code)));
        close(state, code === ERROR.NO_ERROR ? undefined : new Error("the stream was cancelled"));
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
      sendWindow: allowed.stream,
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
    open.set(id, state);
    return state;
  }

  function credit(state: State): void {
    if (state.paused || state.over || state.gotEnd || state.taken < window / 2) return;
    put(frame(TYPE.WINDOW_UPDATE, 0, state.stream.id, number32(state.taken)));
    state.taken = 0;
  }

  return { open, allowed, make, send, sendAll, credit, close };
}
