// A value in GVariant's text format (https://docs.gtk.org/glib/gvariant-text-format.html), as far as units have such properties: strings, numbers,
// booleans, and lists of them. "'x'", "true", "5", "uint64 5", "['a', 'b']", "@as []".
import type { Value, Variant } from "../dbus/wire.ts";

const TYPES: Record<string, string> = {
  boolean: "b",
  byte: "y",
  int16: "n",
  uint16: "q",
  int32: "i",
  uint32: "u",
  int64: "x",
  uint64: "t",
  double: "d",
  string: "s",
  objectpath: "o",
  signature: "g",
};
const RANGES: Record<string, [low: bigint, high: bigint]> = {
  y: [0n, 255n],
  n: [-32768n, 32767n],
  q: [0n, 65535n],
  i: [-2147483648n, 2147483647n],
  u: [0n, 4294967295n],
  x: [-(1n << 63n), (1n << 63n) - 1n],
  t: [0n, (1n << 64n) - 1n],
};
const MAX_LENGTH = 65536;

export function parseVariant(text: string): Variant {
  if (text.length > MAX_LENGTH) throw new SyntaxError("it is too long");
  let at = 0;
  const token = (pattern: RegExp): string | undefined => {
    while (/\s/.test(text[at] ?? "")) at++;
    pattern.lastIndex = at;
    const match = pattern.exec(text);
    if (!match) return undefined;
    at += match[0].length;
    return match[0];
  };
  const wrong = (): never => {
    throw new SyntaxError(`unexpected ${at < text.length ? JSON.stringify(text.slice(at, at + 20)) : "end"}`);
  };

  function number(digits: string, type: string): Variant {
    if (type === "d") return { signature: "d", value: Number(digits) };
    const range = RANGES[type];
    if (!range) return wrong();
    const negative = digits.startsWith("-");
    const value = BigInt(digits.replace(/^[+-]/, "")) * (negative ? -1n : 1n);
    if (value < range[0] || value > range[1]) throw new SyntaxError(`${digits} is out of range`);
    return { signature: type, value: type === "x" || type === "t" ? value : Number(value) };
  }

  function value(type: string | undefined, depth: number): Variant {
    if (depth > 8) return wrong();
    const named = type === undefined ? token(/(?:boolean|byte|u?int(?:16|32|64)|double|string|objectpath|signature)(?=\s)/y) : undefined;
    if (named) return value(TYPES[named], depth + 1);
    const annotated = type === undefined ? token(/@a*[bynqiuxtdsog](?=\s)/y) : undefined;
    if (annotated) return value(annotated.slice(1), depth + 1);
    if (token(/\[/y)) return list(type, depth);
    const quoted = token(/"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'/y);
    if (quoted !== undefined) {
      if (type !== undefined && !"sog".includes(type)) return wrong();
      const unescaped = quoted.slice(1, -1).replace(/\\(.)/g, (_, letter: string) => ({ n: "\n", t: "\t" })[letter] ?? letter);
      return { signature: type ?? "s", value: unescaped };
    }
    const word = token(/true|false/y);
    if (word && (type ?? "b") === "b") return { signature: "b", value: word === "true" };
    const fraction = token(/[+-]?\d+(?:\.\d+(?:e[+-]?\d+)?|e[+-]?\d+)/y);
    if (fraction && (type ?? "d") === "d") return { signature: "d", value: Number(fraction) };
    const digits = token(/[+-]?(?:0x[0-9a-fA-F]+|\d+)/y);
    return digits && !fraction && !word ? number(digits, type ?? "i") : wrong();
  }

  function list(type: string | undefined, depth: number): Variant {
    if (type !== undefined && !type.startsWith("a")) return wrong();
    const values: Value[] = [];
    let element = type?.slice(1);
    while (!token(/\]/y)) {
      if (values.length && !token(/,/y)) return wrong();
      const each = value(element, depth + 1);
      element ??= each.signature;
      values.push(each.value);
    }
    if (element === undefined) throw new SyntaxError("an empty list needs its type");
    return { signature: `a${element}`, value: values };
  }

  const parsed = value(undefined, 0);
  while (/\s/.test(text[at] ?? "")) at++;
  return at === text.length ? parsed : wrong();
}
