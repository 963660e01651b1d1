// The player's executable, in the place of src/runtime/player-file.ts: it lies behind the lean host.
import { host } from "./host.ts";

export const playerBytes = (): Uint8Array => new Uint8Array(host.load("player") as ArrayBuffer);
