// What a connection sends: gathered within one turn of the event loop, held while the wire is full.

export interface Output {
  put(bytes: Uint8Array): void;
  flush(): void;
  /** The wire takes nothing now. */
  readonly blocked: boolean;
  /** Puts it in front of nothing and sends all, whatever the wire says: the last words. */
  last(bytes: Uint8Array | undefined): void;
}

interface Wire {
  write(bytes: Uint8Array): boolean;
  drained(): Promise<void>;
}

/** Answers to pings and settings that wait for a peer that reads nothing. */
const MAX_WAITING = 4 << 20;
/** More is not copied into one piece. */
const MAX_JOINED = 128 << 10;

/** `unblocked`: the wire takes more. `stuck`: too much waits. */
export function createOutput(wire: Wire, unblocked: () => void, stuck: () => void): Output {
  let held: Uint8Array[] = [];
  let bytes = 0;
  let scheduled = false;
  let blocked = false;
  let over = false;

  function flush(): void {
    scheduled = false;
    if (held.length === 0 || blocked) return;
    const pieces = held;
    const join = bytes <= MAX_JOINED;
    held = [];
    bytes = 0;
    let room = true;
    if (join) room = wire.write(pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces));
    else for (const piece of pieces) room = wire.write(piece);
    if (room || over) return;
    blocked = true;
    wire.drained().then(unblock, unblock);
  }
  function unblock(): void {
    if (over) return;
    blocked = false;
    flush();
    unblocked();
  }

  return {
    get blocked() {
      return blocked;
    },
    put(piece) {
      if (over) return;
      held.push(piece);
      bytes += piece.length;
      if (blocked && bytes > MAX_WAITING) {
        stuck();
        return;
      }
      if (scheduled) return;
      scheduled = true;
      queueMicrotask(flush);
    },
    flush,
    last(piece) {
      if (over) return;
      over = true;
      if (piece) {
        held.push(piece);
        blocked = false;
      }
      flush();
    },
  };
}
