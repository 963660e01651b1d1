// .dockerignore (Dockerfile reference, ".dockerignore file"): one pattern a line, "!" makes an exception, the last that fits wins; what lies below a match
// is matched, too. Patterns are Go's filepath.Match and "**".
import { posix } from "node:path";
import { invalidArgument } from "./errors.ts";

export type Matcher = (path: string) => boolean;

const MAX_PATTERNS = 10_000;

/** Patterns of a file: comments and empty lines gone, cleaned, relative. */
export function ignorePatterns(text: string): string[] {
  const patterns: string[] = [];
  for (const raw of text.replace(/^\uFEFF/, "").split("\n")) {
    if (raw.startsWith("#")) continue;
    let pattern = raw.trim();
    if (pattern === "") continue;
    const exception = pattern.startsWith("!");
    if (exception) pattern = pattern.slice(1).trim();
    if (pattern !== "") {
      pattern = posix.normalize(pattern).replace(/(.)\/+$/, "$1");
      if (pattern.length > 1) pattern = pattern.replace(/^\//, "");
    }
    patterns.push(exception ? `!${pattern}` : pattern);
    if (patterns.length > MAX_PATTERNS) throw invalidArgument(`.dockerignore has more than ${MAX_PATTERNS} patterns`);
  }
  return patterns;
}

/** A pattern as a regular expression over the whole path. InvalidArgument: "syntax error in pattern". */
export function patternExpression(pattern: string): RegExp {
  let out = "";
  for (let i = 0; i < pattern.length; i++) {
    const c = pattern[i]!;
    if (c === "*") {
      if (pattern[i + 1] !== "*") {
        out += "[^/]*";
        continue;
      }
      while (pattern[i + 1] === "*") i++;
      if (pattern[i + 1] === "/") i++;
      out += i + 1 >= pattern.length ? ".*" : "(?:.*/)?";
    } else if (c === "?") out += "[^/]";
    else if (c === "[") {
      const end = pattern.indexOf("]", i + 2);
      if (end < 0) throw invalidArgument(`syntax error in pattern: ${pattern}`);
      out += `[${pattern.slice(i + 1, end).replace(/[\\\]]/g, "\\$&")}]`;
      i = end;
    } else if (c === "\\") {
      if (++i >= pattern.length) throw invalidArgument(`syntax error in pattern: ${pattern}`);
      out += pattern[i]!.replace(/[\^$.*+?()[\]{}|\\/]/g, "\\$&");
    } else out += c.replace(/[\^$.*+?()[\]{}|\\]/g, "\\$&");
  }
  try {
    return new RegExp(`^${out}$`, "su");
  } catch {
    throw invalidArgument(`syntax error in pattern: ${pattern}`);
  }
}

/** Whether a path (relative, clean) is ignored. */
export function createMatcher(patterns: readonly string[]): Matcher {
  const compiled = patterns.map((pattern) => {
    const exception = pattern.startsWith("!");
    const text = exception ? pattern.slice(1) : pattern;
    if (text === "") throw invalidArgument('illegal exclusion pattern: "!"');
    return { exception, expression: patternExpression(text) };
  });
  return (path) => {
    const parents: string[] = [];
    for (let at = path.indexOf("/"); at >= 0; at = path.indexOf("/", at + 1)) parents.push(path.slice(0, at));
    let ignored = false;
    for (const { exception, expression } of compiled) {
      // what would change nothing need not be tried
      if (exception !== ignored) continue;
      if (expression.test(path) || parents.some((parent) => expression.test(parent))) ignored = !exception;
    }
    return ignored;
  };
}
