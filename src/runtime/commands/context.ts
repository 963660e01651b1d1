// What every command gets.
import type { Store } from "./store.ts";

export interface Context {
  store: Store;
  /** cgroups that cannot be had are gone without. */
  rootless: boolean;
  /** cgroups are units of systemd's. */
  systemdCgroup: boolean;
  warn(message: string): void;
}
