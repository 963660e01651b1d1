// containerd's filter language (pkg/filters), which its clients send to every List and Subscribe:
//
//   filter   = selector *( "," selector )          all must hold
//   selector = fieldpath [ operator value ]        without an operator: the field is there
//   fieldpath = field *( "." field ) ; a field may be quoted: labels."com.example/x"
//   operator = "==" | "!=" | "~="                  the last one is a regular expression
//
// Of several filters one must hold; no filter lets everything through.
import { invalidArgument } from "../lib/errors.ts";

/** The value at a field path, or undefined where the thing has no such field. */
export type Field = (path: string[]) => string | undefined;
export type Filter = (field: Field) => boolean;

type Selector = (field: Field) => boolean;

export function parseFilters(filters: string[]): Filter {
  if (filters.length === 0) return () => true;
  const parsed = filters.map(parseFilter);
  return (field) => parsed.some((filter) => filter(field));
}

export function parseFilter(text: string): Filter {
  if (text === "") return () => true;
  const selectors: Selector[] = [];
  let at = 0;
  const bad = (what: string): never => {
    throw invalidArgument(`filters: parse error: [${text.slice(0, at)} >|${text.slice(at, at + 1)}|< ${text.slice(at + 1)}]: ${what}`);
  };

  const quoted = (quotes: string): string | undefined => {
    const quote = text[at];
    if (quote === undefined || !quotes.includes(quote)) return undefined;
    let out = "";
    for (at++; ; at++) {
      const c = text[at];
      if (c === undefined) return bad("unclosed quote");
      if (c === quote) break;
      if (c === "\\") {
        at++;
        const next = text[at];
        if (next === undefined) return bad("unclosed quote");
        const known: Record<string, string> = { n: "\n", t: "\t", r: "\r", "\\": "\\", [quote]: quote };
        // inside a regular expression's own quotes a backslash belongs to the expression
        out += quote !== '"' && next !== quote ? `\\${next}` : (known[next] ?? `\\${next}`);
      } else out += c;
    }
    at++;
    return out;
  };
  const match = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at;
    const found = pattern.exec(text)?.[0];
    if (found !== undefined) at += found.length;
    return found;
  };
  const field = (): string => quoted('"') ?? match(/[A-Za-z_][A-Za-z0-9_]*/y) ?? bad("expected field or quoted");

  for (;;) {
    match(/[ \t]+/y);
    const path = [field()];
    while (text[at] === ".") {
      at++;
      path.push(field());
    }
    match(/[ \t]+/y);
    const operator = match(/==|!=|~=/y);
    if (operator === undefined) {
      selectors.push((f) => f(path) !== undefined);
    } else {
      match(/[ \t]+/y);
      const value = quoted(operator === "~=" ? '"|/' : '"') ?? match(/[^\s,"]+/y) ?? bad("expected value or quoted");
      if (operator === "==") selectors.push((f) => f(path) === value);
      else if (operator === "!=") selectors.push((f) => f(path) !== value);
      else {
        const expression = regular(value, bad);
        selectors.push((f) => {
          const found = f(path);
          return found !== undefined && expression.test(found);
        });
      }
    }
    match(/[ \t]+/y);
    if (at >= text.length) break;
    if (text[at] !== ",") bad("expected a separator ',' or end of input");
    at++;
  }
  return (f) => selectors.every((selector) => selector(f));
}

/** Go's syntax is JavaScript's but for flags in front and \z. */
function regular(source: string, bad: (what: string) => never): RegExp {
  const flags = /^\(\?([ims]+)\)/.exec(source);
  const body = (flags ? source.slice(flags[0].length) : source).replace(/\\A/g, "^").replace(/\\z/g, "$");
  try {
    return new RegExp(body, flags?.[1] ?? "");
  } catch (error) {
    return bad((error as Error).message);
  }
}

/** Field access for labels: labels."a.b" and labels.a.b are the same. */
export function labelField(labels: Record<string, string>, path: string[]): string | undefined {
  return labels[path.join(".")];
}
