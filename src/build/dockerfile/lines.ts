// From text to logical lines: parser directives, comments, continuation lines, here-documents (Dockerfile reference, "Format", "Parser directives",
// "Here-Documents"). What the words of a line mean is not known here.
import { invalidArgument } from "../../lib/errors.ts";
import { DockerfileError, type Range } from "./source.ts";
import { rawWords, unquote } from "./words.ts";

export interface Heredoc {
  name: string;
  /** What lies between, every line with its end. */
  content: string;
  /** Variables are expanded: the name was not quoted. */
  expand: boolean;
  /** Leading tabs are taken away ("<<-"). */
  chomp: boolean;
}

/** One instruction as it was written. */
export interface Line {
  /** In upper case. */
  instruction: string;
  /** The instruction as it was written. */
  keyword: string;
  /** Comments that stand directly above, without their "#". */
  comments: string[];
  /** What follows the instruction and its flags, continuation lines joined. */
  text: string;
  /** `--name=value` before the arguments, in their order; without "=" the value is undefined. */
  flags: { name: string; value: string | undefined }[];
  heredocs: Heredoc[];
  range: Range;
  /** The joined line without its here-documents, for people. */
  original: string;
}

export interface Directives {
  escape: string;
  syntax: string | undefined;
  check: string | undefined;
}

/** A Dockerfile may not be longer. */
export const MAX_DOCKERFILE = 4 << 20;
const MAX_INSTRUCTIONS = 5000;
const WITH_HEREDOC = new Set(["ADD", "COPY", "RUN"]);

export function parseDirectives(lines: readonly string[]): { directives: Directives; rest: number } {
  const directives: Directives = { escape: "\\", syntax: undefined, check: undefined };
  const seen = new Set<string>();
  let n = 0;
  for (; n < lines.length; n++) {
    const match = /^\s*#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*$/.exec(lines[n]!);
    const name = match ? match[1]!.toLowerCase() : "";
    if (!match || (name !== "escape" && name !== "syntax" && name !== "check")) break;
    if (seen.has(name)) throw new DockerfileError(`only one ${name} parser directive can be used`, { start: n + 1, end: n + 1 });
    seen.add(name);
    if (name === "escape" && match[2] !== "\\" && match[2] !== "`")
      throw new DockerfileError(`invalid escape token '${match[2]}' does not match \` or \\`, { start: n + 1, end: n + 1 });
    directives[name] = match[2]!;
  }
  return { directives, rest: n };
}

/** The flags at the beginning of an instruction's arguments, quotes and escapes resolved. */
function takeFlags(text: string, escapeChar: string): { flags: Line["flags"]; rest: string } {
  const flags: Line["flags"] = [];
  let at = 0;
  for (;;) {
    while (at < text.length && /\s/.test(text[at]!)) at++;
    if (!text.startsWith("--", at)) break;
    let word = "";
    let quote = "";
    for (; at < text.length; at++) {
      const c = text[at]!;
      if (quote === "" && /\s/.test(c)) break;
      if (c === escapeChar && quote !== "'") {
        // a variable's escape is for the expansion that comes later
        if (text[at + 1] === "$") word += c;
        word += text[++at] ?? "";
      } else if (quote === "" && (c === "'" || c === '"')) quote = c;
      else if (c === quote) quote = "";
      else word += c;
    }
    if (word === "--") return { flags, rest: text.slice(at).trim() };
    const equals = word.indexOf("=");
    flags.push(equals < 0 ? { name: word.slice(2), value: undefined } : { name: word.slice(2, equals), value: word.slice(equals + 1) });
  }
  return { flags, rest: text.slice(at).trim() };
}

const HEREDOC = /^(\d*)<<(-?)([^<]+)$/s;

/** The here-documents that a line announces, without their content. */
/** The frontend that a text asks for, whatever it is written in: "# syntax=…", or "// syntax=…", which other languages have for comments. */
export function syntaxOf(text: string): string | undefined {
  const lines = text
    .slice(0, 64 << 10)
    .split("\n", 1000)
    .map((line) => line.replace(/\r$/, ""));
  if (lines[0]?.startsWith("#!")) lines.shift();
  const slashes = lines.findIndex((line) => !line.startsWith("//"));
  const plain = slashes > 0 ? lines.slice(0, slashes).map((line) => line.replace(/^\/\//, "#")) : lines;
  return parseDirectives(plain).directives.syntax;
}

export function heredocsOf(text: string, escapeChar: string): Omit<Heredoc, "content">[] {
  if (!text.includes("<<")) return [];
  return rawWords(text, escapeChar).flatMap((word) => {
    const match = HEREDOC.exec(word);
    if (!match) return [];
    const name = unquote(match[3]!, escapeChar);
    if (name === "" || /\s/.test(name)) return [];
    return [{ name, expand: name === match[3], chomp: match[2] === "-" }];
  });
}

export interface Split {
  lines: Line[];
  directives: Directives;
  /** Instructions with empty lines between their continuation lines, which will be errors one day. */
  emptyContinuations: Range[];
}

export function splitLines(text: string): Split {
  if (text.length > MAX_DOCKERFILE) throw invalidArgument(`the Dockerfile is longer than ${MAX_DOCKERFILE} bytes`);
  const raw = text.replace(/^\uFEFF/, "").split("\n");
  const { directives, rest } = parseDirectives(raw.map((line) => line.replace(/\r$/, "")));
  const escapeChar = directives.escape;
  const quoted = escapeChar === "\\" ? "\\\\" : escapeChar;
  const continued = new RegExp(`(?:^|[^${quoted}])${quoted}[ \\t]*$`);
  const cut = new RegExp(`${quoted}[ \\t]*$`);
  const isComment = (line: string) => /^\s*#/.test(line);
  const lines: Line[] = [];
  const emptyContinuations: Range[] = [];
  let comments: string[] = [];
  let n = rest;
  while (n < raw.length) {
    const first = raw[n]!.replace(/\r$/, "").trimStart();
    if (first === "" || isComment(first)) {
      if (first === "") comments = [];
      else comments.push(first.slice(1).trim());
      n++;
      continue;
    }
    const start = n + 1;
    let joined = "";
    let end = start;
    let empty = false;
    for (let line = first; ; ) {
      const more = continued.test(line);
      joined += more ? line.replace(cut, "") : line;
      end = n + 1;
      n++;
      if (!more) break;
      while (n < raw.length && (raw[n]!.trim() === "" || isComment(raw[n]!))) if (raw[n++]!.trim() === "" && n < raw.length) empty = true;
      if (n >= raw.length) break;
      line = raw[n]!.replace(/\r$/, "");
    }
    const original = joined.trim();
    const match = /^(\S+)\s*([\s\S]*)$/.exec(original);
    // nothing but the escape character
    if (!match) continue;
    const instruction = match[1]!.toUpperCase();
    const { flags, rest: args } = takeFlags(match[2]!, escapeChar);
    const range = { start, end };
    if (empty) emptyContinuations.push(range);
    const heredocs: Heredoc[] = [];
    const bearer = instruction === "ONBUILD" ? (/^(\S+)/.exec(args)?.[1] ?? "").toUpperCase() : instruction;
    if (WITH_HEREDOC.has(bearer) && !args.startsWith("[")) {
      for (const announced of heredocsOf(args, escapeChar)) {
        let content = "";
        let closed = false;
        while (n < raw.length) {
          const line = raw[n++]!;
          const plain = announced.chomp ? line.replace(/^\t+/, "") : line;
          if (plain.replace(/\r$/, "") === announced.name) {
            closed = true;
            break;
          }
          content += `${plain}\n`;
        }
        if (!closed) throw new DockerfileError("unterminated heredoc", range);
        heredocs.push({ ...announced, content });
        range.end = n;
      }
    }
    lines.push({ instruction, keyword: match[1]!, comments, text: args, flags, heredocs, range, original });
    comments = [];
    if (lines.length > MAX_INSTRUCTIONS) throw new DockerfileError(`more than ${MAX_INSTRUCTIONS} instructions`, range);
  }
  return { lines, directives, emptyContinuations };
}
