// A map of bounded weight that forgets what was not asked for longest.

export interface Cache<V> {
  get(key: string): V | undefined;
  set(key: string, value: V): void;
  delete(key: string): void;
  clear(): void;
}

/** `weigh` says what a value costs; 1 unless given. */
export function createCache<V>(limit: number, weigh: (value: V) => number = () => 1): Cache<V> {
  const map = new Map<string, V>();
  let weight = 0;
  const forget = (key: string) => {
    const value = map.get(key);
    if (value === undefined) return;
    map.delete(key);
    weight -= weigh(value);
  };
  return {
    get(key) {
      const value = map.get(key);
      if (value === undefined) return undefined;
      // Only a full cache pays for keeping the order of use.
      if (weight * 2 > limit) {
        map.delete(key);
        map.set(key, value);
      }
      return value;
    },
    set(key, value) {
      forget(key);
      const more = weigh(value);
      if (more > limit) return;
      map.set(key, value);
      weight += more;
      for (const oldest of map.keys()) {
        if (weight <= limit) break;
        forget(oldest);
      }
    },
    delete: forget,
    clear() {
      map.clear();
      weight = 0;
    },
  };
}
