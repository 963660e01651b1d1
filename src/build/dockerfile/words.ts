// Words and variables as a Dockerfile has them: quotes, escapes and $NAME, ${NAME:-word} and its kin (Dockerfile reference, "Environment replacement").
// Not a shell: no command substitution, no arithmetic.
import { invalidArgument } from "../../lib/errors.ts";

/** `plain`: nothing is said of what there is to be where the variable is not set. */
export type Variables = (name: string, plain?: boolean) => string | undefined;

/** Nested ${…:-${…}} may not be deeper. */
const MAX_DEPTH = 50;
/** An expansion may not be longer. */
const MAX_LENGTH = 4 << 20;

const isSpace = (c: string) => c === " " || c === "\t" || c === "\n" || c === "\r" || c === "\v" || c === "\f";

/** Words apart, quotes and escapes as they stand. */
export function rawWords(text: string, escapeChar: string): string[] {
  const out: string[] = [];
  let word = "";
  let inside = false;
  let quote = "";
  for (let i = 0; i < text.length; i++) {
    const c = text[i]!;
    if (quote === "" && isSpace(c)) {
      if (inside) out.push(word);
      word = "";
      inside = false;
      continue;
    }
    inside = true;
    word += c;
    if (quote !== "'" && c === escapeChar && i + 1 < text.length) word += text[++i]!;
    else if (quote === "" && (c === "'" || c === '"')) quote = c;
    else if (c === quote) quote = "";
  }
  if (inside) out.push(word);
  return out;
}

/** One word without its quotes and escapes; variables stay. */
export function unquote(word: string, escapeChar: string): string {
  let out = "";
  let quote = "";
  for (let i = 0; i < word.length; i++) {
    const c = word[i]!;
    if (c === escapeChar && quote !== "'" && i + 1 < word.length) out += word[++i]!;
    else if (quote === "" && (c === "'" || c === '"')) quote = c;
    else if (c === quote) quote = "";
    else out += c;
  }
  return out;
}

/** Whether a shell pattern (`*`, `?`, escapes) fits the whole text; linear in pattern × text. */
function fits(pattern: readonly string[], text: string): boolean {
  let p = 0;
  let t = 0;
  let star = -1;
  let mark = 0;
  while (t < text.length) {
    const token = pattern[p];
    if (token === "*") {
      star = p++;
      mark = t;
    } else if (token !== undefined && (token === "?" || (token.length === 2 ? token[1] : token) === text[t])) {
      p++;
      t++;
    } else if (star >= 0) {
      p = star + 1;
      t = ++mark;
    } else return false;
  }
  while (pattern[p] === "*") p++;
  return p === pattern.length;
}

/** Characters; an escaped one keeps its backslash, so that it is no wildcard. */
function tokens(pattern: string): string[] {
  const out: string[] = [];
  for (let i = 0; i < pattern.length; i++) out.push(pattern[i] === "\\" && i + 1 < pattern.length ? `\\${pattern[++i]}` : pattern[i]!);
  return out;
}

/** Values that patterns are tried on may not be longer: the search is quadratic. */
const MAX_PATTERN_TEXT = 16 << 10;

function boundPattern(text: string): void {
  if (text.length > MAX_PATTERN_TEXT) throw invalidArgument(`a value of ${text.length} characters is too long for a pattern substitution`);
}

function trimPrefix(text: string, pattern: string, longest: boolean): string {
  boundPattern(text);
  const p = tokens(pattern);
  for (let n = 0; n <= text.length; n++) {
    const length = longest ? text.length - n : n;
    if (fits(p, text.slice(0, length))) return text.slice(length);
  }
  return text;
}

function trimSuffix(text: string, pattern: string, longest: boolean): string {
  boundPattern(text);
  const p = tokens(pattern);
  for (let n = 0; n <= text.length; n++) {
    const from = longest ? n : text.length - n;
    if (fits(p, text.slice(from))) return text.slice(0, from);
  }
  return text;
}

function replace(text: string, pattern: string, by: string, all: boolean): string {
  const p = tokens(pattern);
  if (p.length === 0) return text;
  if (text.length > 2048) boundPattern(text);
  let out = "";
  let at = 0;
  while (at < text.length) {
    let end = -1;
    // without a star, only one length can fit
    const exact = p.includes("*") ? undefined : at + p.length;
    for (let e = exact ?? text.length; e > at && end < 0; e = exact === undefined ? e - 1 : at) if (fits(p, text.slice(at, e))) end = e;
    if (end < 0) out += text[at++];
    else {
      out += by;
      at = end;
      if (!all) break;
    }
  }
  return out + text.slice(at);
}

interface Options {
  escapeChar: string;
  variables: Variables;
  /** Here-documents: quotes are text. */
  quotesAreText?: boolean;
  /** For people: quotes stay, and what names a variable that is not set. */
  shown?: boolean;
}

interface Scanner {
  text: string;
  at: number;
  depth: number;
}

function fail(text: string): never {
  throw invalidArgument(text);
}

function expandVariable(s: Scanner, options: Options): string {
  const start = s.at;
  const [, name] = /^\$\{?([A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*#?\-$!])/.exec(s.text.slice(start, start + 1000)) ?? [];
  const expanded = expansion(s, options);
  return options.shown && name !== undefined && options.variables(name, true) === undefined ? s.text.slice(start, s.at) : expanded;
}

function expansion(s: Scanner, options: Options): string {
  s.at++;
  if (s.text[s.at] !== "{") {
    const name = takeName(s);
    return name === "" ? "$" : (options.variables(name, true) ?? "");
  }
  s.at++;
  if (s.text[s.at] === "}") fail("syntax error: bad substitution");
  if (s.text[s.at] === undefined) fail("syntax error: missing '}'");
  const name = takeName(s);
  if (name === "") fail("syntax error: bad substitution");
  let c = s.text[s.at];
  if (c === undefined) fail("syntax error: missing '}'");
  if (c === "}") {
    s.at++;
    return options.variables(name, true) ?? "";
  }
  const value = options.variables(name);
  const word = () => {
    if (++s.depth > MAX_DEPTH) fail(`substitutions are nested more than ${MAX_DEPTH} deep`);
    const text = scan(s, options, "}");
    s.depth--;
    if (s.text[s.at] !== "}") fail("syntax error: missing '}'");
    s.at++;
    return text;
  };
  let colon = false;
  if (c === ":") {
    colon = true;
    c = s.text[++s.at];
  }
  const empty = value === undefined || (colon && value === "");
  switch (c) {
    case "-":
    case "+":
    case "?": {
      s.at++;
      const text = word();
      if (c === "+") return empty ? "" : text;
      if (!empty) return value;
      if (c === "?") fail(`${name}: ${text || (colon ? "is not allowed to be empty" : "is not allowed to be unset")}`);
      return text;
    }
    case "#":
    case "%": {
      if (colon) break;
      const longest = s.text[s.at + 1] === c;
      s.at += longest ? 2 : 1;
      const pattern = word();
      return (c === "#" ? trimPrefix : trimSuffix)(value ?? "", pattern, longest);
    }
    case "/": {
      if (colon) break;
      const all = s.text[s.at + 1] === "/";
      s.at += all ? 2 : 1;
      const pattern = scan(s, options, "/}");
      let by = "";
      if (s.text[s.at] === "/") {
        s.at++;
        by = word();
      } else if (s.text[s.at] === "}") s.at++;
      else fail("syntax error: missing '}'");
      return replace(value ?? "", pattern, by, all);
    }
  }
  fail(`unsupported modifier (${colon ? ":" : ""}${c ?? ""}) in substitution`);
}

function takeName(s: Scanner): string {
  const rest = /[A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*#?\-$!]/y;
  rest.lastIndex = s.at;
  const match = rest.exec(s.text);
  if (!match) return "";
  s.at += match[0].length;
  return match[0];
}

/** Until one of the characters in `stop` stands outside of quotes, or the end. */
function scan(s: Scanner, options: Options, stop: string): string {
  const { escapeChar, quotesAreText } = options;
  let out = "";
  while (s.at < s.text.length) {
    const c = s.text[s.at]!;
    if (stop.includes(c)) break;
    if (c === "'" && !quotesAreText) {
      const end = s.text.indexOf("'", s.at + 1);
      if (end < 0) fail("unexpected end of statement while looking for matching single-quote");
      out += options.shown ? s.text.slice(s.at, end + 1) : s.text.slice(s.at + 1, end);
      s.at = end + 1;
    } else if (c === '"' && !quotesAreText) out += doubleQuoted(s, options);
    else if (c === "$") out += expandVariable(s, options);
    else if (c === escapeChar) {
      const next = s.text[s.at + 1];
      if (next === undefined) {
        out += c;
        s.at++;
      } else {
        if (quotesAreText && next !== "$" && next !== escapeChar) out += c;
        out += next;
        s.at += 2;
      }
    } else {
      out += c;
      s.at++;
    }
    if (out.length > MAX_LENGTH) fail(`an expansion is longer than ${MAX_LENGTH} characters`);
  }
  return out;
}

function doubleQuoted(s: Scanner, options: Options): string {
  const { escapeChar } = options;
  const quote = options.shown ? '"' : "";
  let out = quote;
  s.at++;
  for (;;) {
    const c = s.text[s.at];
    if (c === undefined) fail("unexpected end of statement while looking for matching double-quote");
    if (c === '"') {
      s.at++;
      return out + quote;
    }
    if (c === "$") out += expandVariable(s, options);
    else if (c === escapeChar) {
      const next = s.text[s.at + 1];
      if (next === undefined) fail("unexpected end of statement while looking for matching double-quote");
      out += next === '"' || next === "$" || next === escapeChar ? next : c + next;
      s.at += 2;
    } else {
      out += c;
      s.at++;
    }
    if (out.length > MAX_LENGTH) fail(`an expansion is longer than ${MAX_LENGTH} characters`);
  }
}

/** One word: variables expanded, quotes and escapes resolved. InvalidArgument where it can't be. */
export function expandWord(word: string, escapeChar: string, variables: Variables): string {
  return scan({ text: word, at: 0, depth: 0 }, { escapeChar, variables }, "");
}

/** The content of a here-document: variables expanded, quotes kept. */
export function expandHeredoc(text: string, escapeChar: string, variables: Variables): string {
  return scan({ text, at: 0, depth: 0 }, { escapeChar, variables, quotesAreText: true }, "");
}

/** A command as people are shown it: with the values of the variables that are set, else as it stands. What can't be expanded stands as it is. */
export function expandShown(text: string, escapeChar: string, values: (name: string) => string | undefined): string {
  try {
    return scan({ text, at: 0, depth: 0 }, { escapeChar, variables: values, shown: true }, "");
  } catch {
    return text;
  }
}

/** A list of words: as expandWord, and what an unquoted variable brings is split at its spaces. */
export function expandWords(text: string, escapeChar: string, variables: Variables): string[] {
  return rawWords(text, escapeChar).flatMap((word) => {
    const expanded = expandWord(word, escapeChar, variables);
    const bare = /^[^'"]*\$[^'"]*$/.test(word) && !word.includes(escapeChar);
    return bare ? expanded.split(/\s+/).filter(Boolean) : [expanded];
  });
}
