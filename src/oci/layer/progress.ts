// Memory shared between the thread that writes a blob's file and the worker that unpacks the same file while it grows.

export const FLAG = { sequence: 0, ended: 1, aborted: 2 } as const;
export const COUNT = { available: 2, read: 3 } as const;

export function viewsOf(shared: SharedArrayBuffer): { flags: Int32Array<SharedArrayBuffer>; counts: BigInt64Array<SharedArrayBuffer> } {
  return { flags: new Int32Array(shared, 0, 4), counts: new BigInt64Array(shared) };
}

/** The writer's side: says how much of the file is there. */
export interface Progress {
  readonly shared: SharedArrayBuffer;
  /** So many bytes from the beginning are in the file. */
  available(bytes: number): void;
  /** The file is complete. */
  end(): void;
  /** The worker gives up with Cancelled at its next piece. */
  abort(): void;
  /** Bytes of the file that were unpacked. */
  read(): number;
}

export function createProgress(): Progress {
  const shared = new SharedArrayBuffer(32);
  const { flags, counts } = viewsOf(shared);
  const wake = () => {
    Atomics.add(flags, FLAG.sequence, 1);
    Atomics.notify(flags, FLAG.sequence);
  };
  return {
    shared,
    available(bytes) {
      Atomics.store(counts, COUNT.available, BigInt(bytes));
      wake();
    },
    end() {
      Atomics.store(flags, FLAG.ended, 1);
      wake();
    },
    abort() {
      Atomics.store(flags, FLAG.aborted, 1);
      wake();
    },
    read: () => Number(Atomics.load(counts, COUNT.read)),
  };
}
