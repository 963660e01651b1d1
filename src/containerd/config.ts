// jubako-containerd's configuration: containerd's config.toml, of which it knows root, state, and [grpc] address; and its flags. TOML is read in the
// subset that such files use: tables, strings, numbers, booleans, arrays of these. What it does not know it names, instead of ignoring it.
import { invalidArgument } from "../lib/errors.ts";

export interface Config {
  root: string;
  state: string;
  address: string;
  logLevel: string;
}

export const defaults: Config = {
  root: "/var/lib/jubako/containerd",
  state: "/run/jubako/containerd",
  address: "/run/jubako/containerd.sock",
  logLevel: "info",
};

export type Value = string | number | boolean | Value[];

/** Keys with their tables in front: `grpc.address`. InvalidArgument with the line where it is no TOML of this subset. */
export function parseToml(text: string): Map<string, Value> {
  const values = new Map<string, Value>();
  let table = "";
  const lines = text.split("\n");
  for (let i = 0; i < lines.length; i++) {
    const bad = (what: string): never => {
      throw invalidArgument(`config line ${i + 1}: ${what}: ${lines[i]!.trim()}`);
    };
    let line = withoutComment(lines[i]!).trim();
    if (line === "") continue;
    if (line.startsWith("[[")) bad("arrays of tables are not known");
    if (line.startsWith("[")) {
      if (!line.endsWith("]")) bad("unclosed table");
      table = keyPath(line.slice(1, -1), bad);
      continue;
    }
    const key = /^((?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+))*)\s*=\s*/.exec(line);
    if (!key) return bad("expected KEY = VALUE");
    // an array may go on over lines
    let source = line.slice(key[0].length);
    while (source.startsWith("[") && !balanced(source) && i + 1 < lines.length) source += ` ${withoutComment(lines[++i]!).trim()}`;
    line = source;
    const name = keyPath(key[1]!, bad);
    values.set(table === "" ? name : `${table}.${name}`, value(source, bad));
  }
  return values;
}

function withoutComment(line: string): string {
  const match = /^(?:[^#"']|"(?:\\.|[^"\\])*"|'[^']*')*/.exec(line);
  return match![0].length < line.length && line[match![0].length] === "#" ? match![0] : line;
}

const balanced = (source: string): boolean => {
  const bare = source.replace(/"(?:\\.|[^"\\])*"|'[^']*'/g, "");
  return bare.split("[").length === bare.split("]").length;
};

const keyPath = (source: string, bad: (what: string) => never): string => {
  const parts = source.match(/"[^"]*"|'[^']*'|[A-Za-z0-9_-]+/g);
  if (!parts) return bad("expected a key");
  return parts.map((part) => part.replace(/^["']|["']$/g, "")).join(".");
};

function value(source: string, bad: (what: string) => never): Value {
  let at = 0;
  const one = (): Value => {
    const rest = source.slice(at);
    const token = /^(?:"(?:\\.|[^"\\])*"|'[^']*'|true\b|false\b|[+-]?[0-9][0-9_]*(?:\.[0-9]+)?(?![0-9A-Za-z:-]))/.exec(rest)?.[0];
    if (token !== undefined) {
      at += token.length;
      if (token.startsWith('"')) return JSON.parse(token) as string;
      if (token.startsWith("'")) return token.slice(1, -1);
      if (token === "true" || token === "false") return token === "true";
      return Number(token.replaceAll("_", ""));
    }
    if (rest[0] !== "[") return bad("expected a string, number, boolean or array");
    at++;
    const list: Value[] = [];
    for (;;) {
      at += /^[\s,]*/.exec(source.slice(at))![0].length;
      if (source[at] === "]") break;
      if (at >= source.length) return bad("unclosed array");
      list.push(one());
    }
    at++;
    return list;
  };
  const result = one();
  if (source.slice(at).trim() !== "") bad("unexpected text behind the value");
  return result;
}

/** The configuration in the file's text, and sentences on what of it is not known here. */
export function readConfig(text: string): { config: Partial<Config>; unknown: string[] } {
  const config: Partial<Config> = {};
  const unknown: string[] = [];
  for (const [key, found] of parseToml(text)) {
    const string = (): string => {
      if (typeof found !== "string") throw invalidArgument(`config: ${key} must be a string`);
      return found;
    };
    if (key === "version") {
      if (found !== 2 && found !== 3) throw invalidArgument(`config: version ${String(found)} is not known; 2 and 3 are`);
    } else if (key === "root") config.root = string();
    else if (key === "state") config.state = string();
    else if (key === "grpc.address") config.address = string();
    else if (key === "debug.level") config.logLevel = string() || defaults.logLevel;
    else unknown.push(`config: ${key} is not known to jubako-containerd and has no effect`);
  }
  return { config, unknown };
}

export function printDefaults(): string {
  return [
    "version = 2",
    `root = ${JSON.stringify(defaults.root)}`,
    `state = ${JSON.stringify(defaults.state)}`,
    "",
    "[grpc]",
    `  address = ${JSON.stringify(defaults.address)}`,
    "",
    "[debug]",
    `  level = ${JSON.stringify(defaults.logLevel)}`,
    "",
  ].join("\n");
}
