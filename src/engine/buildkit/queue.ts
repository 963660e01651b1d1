// Messages that are pushed at one end and awaited at the other: the sending side of a call.

export interface Queue<T> extends AsyncIterable<T> {
  push(value: T): void;
  /** Resolves when what waits is little enough for more. */
  room(): Promise<void>;
  end(): void;
}

export function createQueue<T>(limit = 64): Queue<T> {
  let held: T[] = [];
  let at = 0;
  let ended = false;
  let abandoned = false;
  let wake: (() => void) | undefined;
  const free: (() => void)[] = [];
  const freed = () => {
    for (const each of free.splice(0)) each();
  };
  async function* values(): AsyncGenerator<T> {
    try {
      for (;;) {
        if (at < held.length) {
          const value = held[at++]!;
          if (at === held.length) {
            held = [];
            at = 0;
          }
          if (held.length - at < limit) freed();
          yield value;
        } else if (ended) return;
        else
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
      }
    } finally {
      abandoned = true;
      held = [];
      freed();
    }
  }
  const iterator = values();
  return {
    push(value) {
      if (ended || abandoned) return;
      held.push(value);
      wake?.();
    },
    room: () =>
      abandoned || held.length - at < limit
        ? Promise.resolve()
        : new Promise<void>((resolve) => {
            free.push(resolve);
          }),
    end() {
      ended = true;
      wake?.();
    },
    [Symbol.asyncIterator]: () => iterator,
  };
}
