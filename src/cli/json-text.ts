// JSON as text: indented without parsing, so that keys, numbers and escapes stay as the engine sent them.

/** Go's json.Indent: four spaces a level, {} and [] when empty. */
export function indentJson(text: string, indent = "    "): string {
  let out = "";
  let depth = 0;
  let pendingOpen = false;
  const newline = () => `\n${indent.repeat(depth)}`;
  for (let i = 0; i < text.length; i++) {
    const c = text[i]!;
    if (c === " " || c === "\n" || c === "\t" || c === "\r") continue;
    if (pendingOpen && c !== "}" && c !== "]") {
      pendingOpen = false;
      depth++;
      out += newline();
    }
    if (c === '"') {
      let end = i + 1;
      while (end < text.length && text[end] !== '"') end += text[end] === "\\" ? 2 : 1;
      out += text.slice(i, end + 1);
      i = end;
    } else if (c === "{" || c === "[") {
      out += c;
      pendingOpen = true;
    } else if (c === "}" || c === "]") {
      if (pendingOpen) pendingOpen = false;
      else {
        depth--;
        out += newline();
      }
      out += c;
    } else if (c === ",") {
      out += c + newline();
    } else if (c === ":") {
      out += ": ";
    } else {
      out += c;
    }
  }
  return out;
}

/** JSON.parse with integers beyond 2^53 as bigint, so that they print as they are. */
export function parseExact(text: string): unknown {
  const reviver = (_key: string, value: unknown, context?: { source?: string }) =>
    typeof value === "number" && !Number.isSafeInteger(value) && context?.source !== undefined && /^-?\d+$/.test(context.source)
      ? BigInt(context.source)
      : value;
  return JSON.parse(text, reviver as (key: string, value: unknown) => unknown);
}
