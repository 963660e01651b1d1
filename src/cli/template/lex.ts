// Tokens of Go's text/template (https://pkg.go.dev/text/template): text, and within {{ }} fields, names, literals and punctuation.

export type TokenKind =
  | "text" | "left" | "right" | "field" | "variable" | "word" | "string" | "char" | "number"
  | "(" | ")" | "|" | "," | ":=" | "=" | "." | "space" | "eof"; // biome-ignore format: a table

export interface Token {
  kind: TokenKind;
  text: string;
  /** Offset in the template. */
  at: number;
}

/** A template that can't be parsed; the message begins with "template: NAME:LINE: ". */
export class TemplateSyntaxError extends Error {
  override name = "TemplateSyntaxError";
}

export function lineOf(source: string, at: number): number {
  let line = 1;
  for (let i = 0; i < at && i < source.length; i++) if (source.charCodeAt(i) === 10) line++;
  return line;
}

const SPACE = /[ \t\r\n]/;
const NUMBER = /^[+-]?(0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|(\d[\d_]*)?\.?\d+([eE][+-]?\d+)?|\d[\d_]*\.?)/;

export function lex(source: string, name: string): Token[] {
  const tokens: Token[] = [];
  const fail = (at: number, message: string): never => {
    throw new TemplateSyntaxError(`template: ${name}:${lineOf(source, at)}: ${message}`);
  };
  let at = 0;
  let trimNext = false;
  while (at < source.length) {
    const open = source.indexOf("{{", at);
    let text = source.slice(at, open < 0 ? undefined : open);
    if (trimNext) text = text.replace(/^[ \t\r\n]+/, "");
    trimNext = false;
    const trimLeft = open >= 0 && source[open + 2] === "-" && SPACE.test(source[open + 3] ?? "");
    if (trimLeft) text = text.replace(/[ \t\r\n]+$/, "");
    if (text) tokens.push({ kind: "text", text, at });
    if (open < 0) break;
    at = open + 2 + (trimLeft ? 1 : 0);
    const comment = /^\s*\/\*/.exec(source.slice(at, at + 8));
    if (comment) {
      const close = source.indexOf("*/", at + comment[0].length);
      if (close < 0) fail(open, "unclosed comment");
      const end = /^(\s+-)?\}\}/.exec(source.slice(close + 2));
      if (!end) fail(open, "comment ends before closing delimiter");
      trimNext = end![1] !== undefined;
      at = close + 2 + end![0].length;
      continue;
    }
    tokens.push({ kind: "left", text: "{{", at: open });
    at = lexAction(source, at, tokens, fail);
    trimNext = tokens.at(-1)!.text === " -}}";
  }
  tokens.push({ kind: "eof", text: "", at: source.length });
  return tokens;
}

/** The tokens of one action up to and with "}}"; returns the offset behind it. */
function lexAction(source: string, start: number, tokens: Token[], fail: (at: number, message: string) => never): number {
  let at = start;
  let depth = 0;
  const push = (kind: TokenKind, text: string) => {
    tokens.push({ kind, text, at });
    at += text.length;
  };
  const closing = () => source.startsWith("}}", at) || (SPACE.test(source[at] ?? "") && /^[ \t\r\n]+-\}\}/.test(source.slice(at)));
  for (;;) {
    const c = source[at];
    if (c === undefined) return fail(start, "unclosed action");
    if (closing()) {
      if (depth > 0) fail(at, "unclosed left paren");
      const trim = source[at] !== "}";
      const end = source.indexOf("}}", at) + 2;
      tokens.push({ kind: "right", text: trim ? " -}}" : "}}", at });
      return end;
    }
    if (SPACE.test(c)) {
      let end = at;
      while (SPACE.test(source[end] ?? "") && !/^[ \t\r\n]+-\}\}/.test(source.slice(end))) end++;
      push("space", source.slice(at, Math.max(end, at + 1)));
    } else if (c === '"') {
      const match = /^"(\\.|[^"\\\n])*"/.exec(source.slice(at));
      if (!match) fail(at, "unterminated quoted string");
      push("string", match![0]);
    } else if (c === "`") {
      const end = source.indexOf("`", at + 1);
      if (end < 0) fail(at, "unterminated raw quoted string");
      push("string", source.slice(at, end + 1));
    } else if (c === "'") {
      const match = /^'(\\.|[^'\\\n])+'/.exec(source.slice(at));
      if (!match) fail(at, "unterminated character constant");
      push("char", match![0]);
    } else if (c === "$" || c === ".") {
      const rest = source.slice(at + 1);
      if (c === "." && /^\d/.test(rest)) {
        push("number", NUMBER.exec(source.slice(at))![0]);
      } else {
        const word = /^[\p{L}\p{Nd}_]*/u.exec(rest)![0];
        if (c === "." && word === "") push(".", ".");
        else push(c === "." ? "field" : "variable", c + word);
        checkEnd(source, at, fail);
      }
    } else if (/[+\-\d]/.test(c)) {
      const match = NUMBER.exec(source.slice(at));
      if (!match || /[\p{L}\p{Nd}_]/u.test(source[at + match[0].length] ?? "")) {
        fail(at, `bad number syntax: ${JSON.stringify(/^[+-]?[\w.]*/.exec(source.slice(at))![0])}`);
      }
      push("number", match![0]);
    } else if (/[\p{L}_]/u.test(c)) {
      push("word", /^[\p{L}\p{Nd}_]+/u.exec(source.slice(at))![0]);
      checkEnd(source, at, fail);
    } else if (c === ":" && source[at + 1] === "=") {
      push(":=", ":=");
    } else if (c === ":") {
      fail(at, "expected :=");
    } else if (c === "=" || c === "|" || c === ",") {
      push(c, c);
    } else if (c === "(") {
      depth++;
      push("(", c);
    } else if (c === ")") {
      if (--depth < 0) fail(at, "unexpected right paren");
      push(")", c);
    } else {
      fail(at, `unrecognized character in action: U+${c.codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0")} '${c}'`);
    }
  }
}

function checkEnd(source: string, at: number, fail: (at: number, message: string) => never): void {
  const c = source[at];
  if (c === undefined || /[ \t\r\n.,|:()=]/.test(c) || source.startsWith("}}", at)) return;
  fail(at, `bad character U+${c.codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0")} '${c}'`);
}
