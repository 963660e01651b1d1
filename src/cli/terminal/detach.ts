// Detach keys: "ctrl-p,ctrl-q". The engine recognises them in the stream; the client must notice too, to say "read escape sequence".

/** The bytes of a key sequence; throws where a key is unknown. */
export function parseKeys(keys: string): number[] {
  return keys.split(",").map((key) => {
    if ([...key].length === 1) return key.codePointAt(0)!;
    const match = /^ctrl-([a-z@[\\\]^_])$/i.exec(key);
    if (!match) throw new Error(`Unknown character: '${key}'`);
    const letter = match[1]!.toLowerCase();
    const special: Record<string, number> = { "@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, _: 31 };
    return special[letter] ?? letter.charCodeAt(0) - 96;
  });
}

export const DEFAULT_KEYS = "ctrl-p,ctrl-q";

/** Passes input on and holds back what may become the sequence; `detached` once it is complete: nothing after it is passed on. */
export function keyWatcher(keys: number[]): (input: Uint8Array) => { pass: Uint8Array; detached: boolean } {
  let matched = 0;
  return (input) => {
    const pass: number[] = [];
    for (const byte of input) {
      if (byte === keys[matched]) {
        matched++;
        if (matched === keys.length) return { pass: Uint8Array.from(pass), detached: true };
        continue;
      }
      if (matched > 0) {
        pass.push(...keys.slice(0, matched));
        matched = 0;
        if (byte === keys[0]) {
          matched = 1;
          continue;
        }
      }
      pass.push(byte);
    }
    return { pass: pass.length === input.length ? input : Uint8Array.from(pass), detached: false };
  };
}
