// The player's executable.
import playerText from "../../build/player.b64" with { type: "text" };

export const playerBytes = (): Uint8Array => Uint8Array.fromBase64(playerText);
