// The functions of templates: Go's own (https://pkg.go.dev/text/template#hdr-Functions) and those that docker adds.
import { json, print, STRUCT, sprintf, typeName } from "./print.ts";

export type TemplateFunction = (...args: unknown[]) => unknown;

/** Go's truth: false, 0, nil, and what is empty are not. */
export function truth(value: unknown): boolean {
  if (value === undefined || value === null) return false;
  if (typeof value === "boolean") return value;
  if (typeof value === "number" || typeof value === "bigint") return value !== 0 && value !== 0n;
  if (typeof value === "string") return value !== "";
  if (Array.isArray(value)) return value.length > 0;
  if (typeof value === "object" && STRUCT in value) return true;
  return Object.keys(value as object).length > 0;
}

function text(value: unknown): string {
  if (typeof value !== "string") throw new Error(`wrong type for value; expected string; got ${typeName(value)}`);
  return value;
}

function integer(value: unknown): number {
  if (typeof value !== "number" || !Number.isInteger(value)) throw new Error(`expected integer; found ${print(value)}`);
  return value;
}

function kind(value: unknown): "bool" | "number" | "string" | "nil" | "other" {
  if (value === undefined || value === null) return "nil";
  if (typeof value === "boolean") return "bool";
  if (typeof value === "number" || typeof value === "bigint") return "number";
  return typeof value === "string" ? "string" : "other";
}

function equal(a: unknown, b: unknown): boolean {
  const [ka, kb] = [kind(a), kind(b)];
  if (ka === "nil" || kb === "nil") return ka === kb;
  if (ka !== kb) throw new Error("incompatible types for comparison");
  if (ka === "other") throw new Error(`non-comparable type ${print(a)}: ${typeName(a)}`);
  // biome-ignore lint/suspicious/noDoubleEquals: a bigint equals the number of the same value
  return a == b;
}

function less(a: unknown, b: unknown): boolean {
  const [ka, kb] = [kind(a), kind(b)];
  if (ka !== kb) throw new Error("incompatible types for comparison");
  if (ka !== "number" && ka !== "string") throw new Error("invalid type for comparison");
  return (a as number) < (b as number);
}

function at(value: unknown, index: unknown): unknown {
  if (value === undefined || value === null) throw new Error("index of nil pointer");
  if (Array.isArray(value) || typeof value === "string") {
    if (typeof index !== "number") throw new Error(`cannot index slice/array with type ${typeName(index)}`);
    if (index < 0 || index >= value.length) throw new Error(`index out of range: ${index}`);
    return typeof value === "string" ? value.charCodeAt(index) : value[index];
  }
  if (typeof value !== "object" || STRUCT in value) throw new Error(`can't index item of type ${typeName(value)}`);
  if (typeof index !== "string") throw new Error(`value has type ${typeName(index)}; should be string`);
  // A map of strings answers "" for a key that it lacks.
  return Object.hasOwn(value, index) ? (value as Record<string, unknown>)[index] : "";
}

/** Sprint: a space between two operands where neither is a string. */
export function sprint(args: unknown[]): string {
  let out = "";
  args.forEach((arg, i) => {
    if (i > 0 && typeof arg !== "string" && typeof args[i - 1] !== "string") out += " ";
    out += print(arg, true);
  });
  return out;
}

const htmlEscapes: Record<string, string> = { "<": "&lt;", ">": "&gt;", "&": "&amp;", '"': "&#34;", "'": "&#39;", "\0": "\uFFFD" };

export const functions: Record<string, TemplateFunction> = {
  // `and` and `or` are evaluated lazily by the executor; these entries say that they exist.
  and: (...args) => args.find((a) => !truth(a)) ?? args.at(-1),
  or: (...args) => args.find(truth) ?? args.at(-1),
  not: (value) => !truth(value),
  len: (value) => {
    if (typeof value === "string") return new TextEncoder().encode(value).length;
    if (Array.isArray(value)) return value.length;
    if (typeof value === "object" && value !== null && !(STRUCT in value)) return Object.keys(value).length;
    throw new Error(value == null ? "len of nil pointer" : `len of type ${typeName(value)}`);
  },
  index: (value, ...indexes) => indexes.reduce(at, value),
  slice: (value, ...bounds) => {
    if (typeof value !== "string" && !Array.isArray(value))
      throw new Error(value == null ? "slice of untyped nil" : `can't slice item of type ${typeName(value)}`);
    const [from = 0, to = value.length] = bounds.map(integer);
    for (const bound of [from, to]) if (bound < 0 || bound > value.length) throw new Error(`index out of range: ${bound}`);
    if (from > to) throw new Error(`invalid slice index: ${from} > ${to}`);
    return value.slice(from, to);
  },
  print: (...args) => sprint(args),
  printf: (format, ...args) => sprintf(text(format), args),
  println: (...args) => `${args.map((a) => print(a, true)).join(" ")}\n`,
  html: (...args) => sprint(args).replace(/[<>&"'\0]/g, (c) => htmlEscapes[c]!),
  js: (...args) =>
    JSON.stringify(sprint(args))
      .slice(1, -1)
      .replace(/['<>&=]/g, (c) => (c === "'" ? "\\'" : `\\u00${c.charCodeAt(0).toString(16).toUpperCase()}`)),
  urlquery: (...args) => encodeURIComponent(sprint(args)).replace(/%20/g, "+"),
  call: (fn, ...args) => {
    if (typeof fn !== "function") throw new Error(`non-function of type ${typeName(fn)}`);
    return (fn as TemplateFunction)(...args);
  },
  eq: (first, ...others) => {
    if (others.length === 0) throw new Error("missing argument for comparison");
    return others.some((other) => equal(first, other));
  },
  ne: (a, b) => !equal(a, b),
  lt: (a, b) => less(a, b),
  le: (a, b) => less(a, b) || equal(a, b),
  gt: (a, b) => !less(a, b) && !equal(a, b),
  ge: (a, b) => !less(a, b),
  json: (value) => json(value),
  split: (value, separator) => text(value).split(text(separator)),
  join: (list, separator) => {
    if (list !== null && !Array.isArray(list)) throw new Error(`wrong type for value; expected []string; got ${typeName(list)}`);
    return (list ?? []).map((v: unknown) => print(v)).join(text(separator));
  },
  title: (value) =>
    text(value).replace(/(^|[^\p{L}\p{N}_'])(\p{L})/gu, (_, before: string, letter: string) => before + letter.toUpperCase()),
  lower: (value) => text(value).toLowerCase(),
  upper: (value) => text(value).toUpperCase(),
  pad: (value, before, after) => (text(value) === "" ? "" : " ".repeat(integer(before)) + text(value) + " ".repeat(integer(after))),
  truncate: (value, length) => text(value).slice(0, Math.max(0, integer(length))),
};

/** How many arguments each takes, where it is fixed: [least, most]. */
export const arity: Record<string, [number, number]> = {
  not: [1, 1],
  len: [1, 1],
  ne: [2, 2],
  lt: [2, 2],
  le: [2, 2],
  gt: [2, 2],
  ge: [2, 2],
  json: [1, 1],
  split: [2, 2],
  join: [2, 2],
  title: [1, 1],
  lower: [1, 1],
  upper: [1, 1],
  pad: [3, 3],
  truncate: [2, 2],
};
