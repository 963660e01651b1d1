// How Go prints values: %v, the verbs of Printf, and encoding/json's text.

/** Marks objects that stand for a Go struct: printed {a b}, and a missing field is an error. */
export const STRUCT = Symbol("struct");

type GoStruct = { [STRUCT]?: string };

export function typeName(value: unknown): string {
  if (value === null || value === undefined) return "<nil>";
  if (typeof value === "string") return "string";
  if (typeof value === "boolean") return "bool";
  if (typeof value === "bigint") return "int64";
  if (typeof value === "number") return Number.isInteger(value) ? "int" : "float64";
  if (Array.isArray(value)) return value.every((v) => typeof v === "string") ? "[]string" : "[]interface {}";
  return (value as GoStruct)[STRUCT] ?? "map[string]interface {}";
}

/** %v. Keys of a map in order; a struct's fields as they stand. */
export function print(value: unknown, nested = false): string {
  if (value === undefined) return nested ? "<nil>" : "<no value>";
  if (value === null) return "<nil>";
  if (typeof value === "number") return printNumber(value);
  if (Array.isArray(value)) return `[${value.map((v) => print(v, true)).join(" ")}]`;
  if (typeof value === "function") return print((value as () => unknown)(), nested);
  if (typeof value === "object") {
    const entries = Object.entries(value);
    if ((value as GoStruct)[STRUCT] !== undefined) return `{${entries.map(([, v]) => print(v, true)).join(" ")}}`;
    return `map[${entries
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([k, v]) => `${k}:${print(v, true)}`)
      .join(" ")}]`;
  }
  return String(value);
}

function printNumber(value: number): string {
  if (Number.isInteger(value) && Math.abs(value) < 2 ** 63) return String(BigInt(value));
  const magnitude = Math.abs(value);
  if (magnitude !== 0 && (magnitude < 1e-4 || magnitude >= 1e21)) return value.toExponential().replace(/e([+-])(\d)$/, "e$10$2");
  return String(value);
}

/** encoding/json's text: keys as they stand. `escapeHtml`: <, > and & as \u003c, …, which is Marshal's default. */
export function json(value: unknown, escapeHtml = false): string {
  const text =
    JSON.stringify(value, (_key, v: unknown) =>
      typeof v === "bigint" ? Number(v) : typeof v === "function" ? (v as () => unknown)() : v,
    ) ?? "null";
  const escaped = text.replace(/[\u2028\u2029\b\f]|\\b|\\f/g, (c) =>
    c === "\\b" ? "\\u0008" : c === "\\f" ? "\\u000c" : `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
  return escapeHtml ? escaped.replace(/[<>&]/g, (c) => `\\u00${c.charCodeAt(0).toString(16)}`) : escaped;
}

/** Go's %q for a string. */
export function quote(text: string): string {
  return JSON.stringify(text).replace(/\\u00([01][0-9a-f])/g, (_, h: string) => ({ "07": "\\a", "0b": "\\v" })[h] ?? `\\x${h}`);
}

/** Sprintf with Go's verbs and its marks for mistakes: %!d(string=x), %!v(MISSING), %!(EXTRA int=1). */
export function sprintf(format: string, args: unknown[]): string {
  let used = 0;
  const out = format.replace(
    /%([-+# 0]*)(\*|\d+)?(?:\.(\*|\d+)?)?(.)?/gsu,
    (whole, flags: string, width: string | undefined, precision: string | undefined, verb: string | undefined) => {
      if (verb === undefined) return "%!(NOVERB)";
      if (verb === "%") return "%";
      const number = (text: string | undefined) => (text === "*" ? Number(args[used++]) : text === undefined ? undefined : Number(text));
      const w = number(width);
      const p = number(precision) ?? (whole.includes(".") ? 0 : undefined);
      if (used >= args.length) return `%!${verb}(MISSING)`;
      return pad(formatVerb(verb, args[used++], flags, p), w, flags);
    },
  );
  if (used >= args.length) return out;
  return `${out}%!(EXTRA ${args
    .slice(used)
    .map((a) => (a == null ? "<nil>" : `${typeName(a)}=${print(a)}`))
    .join(", ")})`;
}

function pad(text: string, width: number | undefined, flags: string): string {
  if (width === undefined) return text;
  if (flags.includes("-")) return text.padEnd(width);
  if (flags.includes("0") && /^[+-]?[\d.]+$/.test(text)) {
    const sign = /^[+-]/.exec(text)?.[0] ?? "";
    return sign + text.slice(sign.length).padStart(width - sign.length, "0");
  }
  return text.padStart(width);
}

function formatVerb(verb: string, value: unknown, flags: string, precision: number | undefined): string {
  const wrong = () => (value == null ? `%!${verb}(<nil>)` : `%!${verb}(${typeName(value)}=${print(value)})`);
  const isNumber = typeof value === "number" || typeof value === "bigint";
  const signed = (text: string) =>
    flags.includes("+") && !text.startsWith("-") ? `+${text}` : flags.includes(" ") && !text.startsWith("-") ? ` ${text}` : text;
  switch (verb) {
    case "v":
      if (flags.includes("#")) return typeof value === "string" ? quote(value) : print(value, true);
      return isNumber ? signed(print(value, true)) : print(value, true);
    case "s":
      if (Array.isArray(value)) return `[${value.map((v) => formatVerb("s", v, flags, precision)).join(" ")}]`;
      if (typeof value === "string") return precision === undefined ? value : [...value].slice(0, precision).join("");
      return typeof value === "object" && value !== null ? print(value, true) : wrong();
    case "q":
      if (Array.isArray(value)) return `[${value.map((v) => formatVerb("q", v, flags, precision)).join(" ")}]`;
      return typeof value === "string" ? quote(value) : wrong();
    case "d":
      return isNumber && (typeof value === "bigint" || Number.isInteger(value)) ? signed(String(BigInt(value))) : wrong();
    case "x":
    case "X": {
      const hex =
        typeof value === "string"
          ? [...new TextEncoder().encode(value)].map((b) => b.toString(16).padStart(2, "0")).join("")
          : isNumber
            ? BigInt(value as number).toString(16)
            : undefined;
      if (hex === undefined) return wrong();
      const prefixed = flags.includes("#") ? `0x${hex}` : hex;
      return verb === "X" ? prefixed.toUpperCase() : prefixed;
    }
    case "o":
      return isNumber ? BigInt(value as number).toString(8) : wrong();
    case "b":
      return isNumber ? BigInt(value as number).toString(2) : wrong();
    case "c":
      return isNumber ? String.fromCodePoint(Number(value)) : wrong();
    case "U":
      return isNumber ? `U+${Number(value).toString(16).toUpperCase().padStart(4, "0")}` : wrong();
    case "t":
      return typeof value === "boolean" ? String(value) : wrong();
    case "f":
    case "F":
      return typeof value === "number" ? signed(value.toFixed(precision ?? 6)) : wrong();
    case "e":
      return typeof value === "number" ? signed(value.toExponential(precision ?? 6).replace(/e([+-])(\d)$/, "e$10$2")) : wrong();
    case "g":
      return typeof value === "number"
        ? signed(precision === undefined ? print(value) : String(Number(value.toPrecision(Math.max(1, precision)))))
        : wrong();
    case "T":
      return typeName(value);
    default:
      return wrong();
  }
}
