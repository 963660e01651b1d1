// What every command gets.
import type { Store } from "./store.ts";

export interface Context {
  store: Store;
  /** --root: it has to be there. */
  rootGiven: boolean;
  /** cgroups that cannot be had are gone without. */
  rootless: boolean;
  /** cgroups are units of systemd's. */
  systemdCgroup: boolean;
  /** --criu: the program, instead of that in $PATH. */
  criu?: string | undefined;
  warn(message: string): void;
  /** --debug; the words that people search for in runc's logs are in ours. */
  debug?: ((message: string) => void) | undefined;
}
