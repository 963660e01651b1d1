// The sequence of keys that detaches a terminal from its container: "ctrl-p,ctrl-q" unless said otherwise.
import { invalidArgument } from "../../lib/errors.ts";

/** "ctrl-p,ctrl-q", "a", "ctrl-@,x" as bytes. InvalidArgument for anything else. */
export function parseDetachKeys(text: string): Uint8Array {
  const keys = text.split(",").map((key) => {
    if ([...key].length === 1 && key.charCodeAt(0) < 128) return key.charCodeAt(0);
    const control = /^ctrl-([a-zA-Z@[\\\]^_])$/.exec(key);
    if (!control) throw invalidArgument(`Invalid detach keys (${text}) provided`);
    return control[1]!.toLowerCase().charCodeAt(0) >= 97 ? control[1]!.toLowerCase().charCodeAt(0) - 96 : control[1]!.charCodeAt(0) - 64;
  });
  return Uint8Array.from(keys);
}

export const DEFAULT_DETACH_KEYS = Uint8Array.of(16, 17);

/** Passes input on and looks for the sequence, over the borders of chunks too; keys of a sequence begun in vain are passed on late. */
export function escapeFilter(keys: Uint8Array): (chunk: Uint8Array) => { bytes: Uint8Array; detach: boolean } {
  let matched = 0;
  return (chunk) => {
    if (matched === 0 && !chunk.includes(keys[0]!)) return { bytes: chunk, detach: false };
    const out: number[] = [];
    for (const byte of chunk) {
      if (byte === keys[matched]) {
        if (++matched === keys.length) return { bytes: Uint8Array.from(out), detach: true };
        continue;
      }
      for (let i = 0; i < matched; i++) out.push(keys[i]!);
      matched = 0;
      if (byte === keys[0]) matched = 1;
      else out.push(byte);
    }
    return { bytes: Uint8Array.from(out), detach: false };
  };
}
