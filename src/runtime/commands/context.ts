// What every command gets.
import type { Store } from "./store.ts";

export interface Context {
  store: Store;
  warn(message: string): void;
}
