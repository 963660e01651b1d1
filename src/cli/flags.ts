// Flags as data. Parsing is pflag's: --name value, --name=value, -n value, -nvalue, -abc bundles, `--` ends; a command may end flags at its
// first argument.
import { parseBytes, parseDuration } from "./units.ts";

export interface Flag<T = unknown> {
  /** Shown in help: "list", "bytes"; "" for a switch. */
  type: string;
  short: string;
  help: string;
  initial: T;
  /** The value with one more occurrence; throws with a sentence. */
  add(current: T, text: string): T;
  /** Shown in help where not empty. */
  shownDefault: string;
  hidden?: boolean;
  /** Takes no value unless by "=". */
  switch?: boolean;
}

export type Flags = Record<string, Flag<never> | Flag<unknown>>;
export type Values<F> = { [K in keyof F]: F[K] extends Flag<infer T> ? T : never };

/** A mistake on the command line: exit status 125, with the command's usage. */
export class FlagError extends Error {
  override name = "FlagError";
}

/** --help was asked for. */
export class HelpAsked extends Error {
  override name = "HelpAsked";
}

function make<T>(type: string, short: string, help: string, initial: T, add: (current: T, text: string) => T, shownDefault = ""): Flag<T> {
  return { type, short, help, initial, add, shownDefault };
}

const goBool = (text: string): boolean => {
  if (["1", "t", "T", "TRUE", "true", "True"].includes(text)) return true;
  if (["0", "f", "F", "FALSE", "false", "False"].includes(text)) return false;
  throw new Error(`strconv.ParseBool: parsing ${JSON.stringify(text)}: invalid syntax`);
};

const goInt = (text: string, unsigned = false, bits = 64): number => {
  const fn = unsigned ? "ParseUint" : "ParseInt";
  if (!(unsigned ? /^(0x[0-9a-f]+|\d+)$/i : /^[+-]?(0x[0-9a-f]+|\d+)$/i).test(text))
    throw new Error(`strconv.${fn}: parsing ${JSON.stringify(text)}: invalid syntax`);
  const value = text.startsWith("-") ? -Number(text.slice(1)) : Number(text.replace(/^\+/, ""));
  const limit = 2 ** (unsigned ? bits : bits - 1);
  if (value >= limit || value < (unsigned ? 0 : -limit))
    throw new Error(`strconv.${fn}: parsing ${JSON.stringify(text)}: value out of range`);
  return value;
};

export const bool = (short: string, help: string, initial = false): Flag<boolean> => ({
  ...make("", short, help, initial, (_, text) => goBool(text), initial ? "true" : ""),
  switch: true,
});

export const string = (short: string, help: string, initial = "", type = "string"): Flag<string> =>
  make(type, short, help, initial, (_, text) => text, initial && JSON.stringify(initial));

export const int = (short: string, help: string, initial = 0): Flag<number> =>
  make("int", short, help, initial, (_, text) => goInt(text), initial === 0 ? "" : String(initial));

export const uint = (short: string, help: string, bits: 16 | 32 | 64 = 64): Flag<number> =>
  make(bits === 64 ? "uint" : `uint${bits}`, short, help, 0, (_, text) => goInt(text, true, bits));

/** One value an occurrence; `check` refuses or changes it. */
export const list = (short: string, help: string, check: (text: string) => string = (text) => text, type = "list"): Flag<string[]> =>
  make<string[]>(type, short, help, [], (current, text) => [...current, check(text)]);

/** Several values an occurrence, separated by commas. */
export const strings = (short: string, help: string): Flag<string[]> =>
  make<string[]>("strings", short, help, [], (current, text) => [...current, ...csvFields(text)]);

/** key=value pairs. */
export const map = (short: string, help: string, check: (text: string) => string = (text) => text): Flag<Record<string, string>> =>
  make<Record<string, string>>(
    "map",
    short,
    help,
    {},
    (current, given) => {
      const text = check(given);
      const at = text.indexOf("=");
      return { ...current, [at < 0 ? text : text.slice(0, at)]: at < 0 ? "" : text.slice(at + 1) };
    },
    "map[]",
  );

export const duration = (short: string, help: string): Flag<number> =>
  make("duration", short, help, 0, (_, text) => parseDuration(text), "0s");

export const bytes = (short: string, help: string, negative = false): Flag<number> =>
  make("bytes", short, help, 0, (_, text) => {
    if (negative && text === "-1") return -1;
    const value = parseBytes(text);
    if (value === undefined) throw new Error(`invalid size: '${text}'`);
    return value;
  });

/** CPUs as a decimal, in billionths. */
export const cpus = (short: string, help: string): Flag<number> =>
  make("decimal", short, help, 0, (_, text) => {
    const match = /^[+-]?(\d+\.?\d*|\.\d+)(?:\/(\d+))?$/.exec(text);
    if (!match) throw new Error(`failed to parse ${text} as a rational number`);
    const value = match[2] ? (Number(text.split("/")[0]) / Number(match[2])) * 1e9 : Number(text) * 1e9;
    if (Math.abs(value - Math.round(value)) > 1e-6) throw new Error("value is too precise");
    return Math.round(value);
  });

/** --filter name=value. */
export const filter = (help: string, short = "f"): Flag<Record<string, string[]>> =>
  make<Record<string, string[]>>("filter", short, help, {}, (current, text) => {
    if (text === "") return current;
    const at = text.indexOf("=");
    if (at < 0) throw new Error("bad format of filter (expected name=value)");
    const key = text.slice(0, at).trim().toLowerCase();
    const value = text.slice(at + 1).trim();
    return { ...current, [key]: [...(current[key] ?? []), value].filter((v, i, all) => all.indexOf(v) === i) };
  });

/** Any type by its own parser. */
export const custom = <T>(
  type: string,
  short: string,
  help: string,
  initial: T,
  add: (current: T, text: string) => T,
  shownDefault = "",
): Flag<T> => make(type, short, help, initial, add, shownDefault);

export const hidden = <T>(flag: Flag<T>): Flag<T> => ({ ...flag, hidden: true });

/** The fields of one line of comma-separated values, with "quotes" as in RFC 4180. */
export function csvFields(line: string): string[] {
  if (line === "") return [];
  const fields: string[] = [];
  let at = 0;
  for (;;) {
    let field = "";
    if (line[at] === '"') {
      at++;
      for (;;) {
        const end = line.indexOf('"', at);
        if (end < 0) throw new Error('parse error on line 1, column 1: extraneous or missing " in quoted-field');
        field += line.slice(at, end);
        at = end + 1;
        if (line[at] !== '"') break;
        field += '"';
        at++;
      }
      if (at < line.length && line[at] !== ",") throw new Error('parse error on line 1, column 1: extraneous or missing " in quoted-field');
    } else {
      const end = line.indexOf(",", at);
      field = line.slice(at, end < 0 ? undefined : end);
      if (field.includes('"')) throw new Error('parse error on line 1, column 1: bare " in non-quoted-field');
      at = end < 0 ? line.length : end;
    }
    fields.push(field);
    if (at >= line.length) return fields;
    at++;
    if (at === line.length) {
      fields.push("");
      return fields;
    }
  }
}

export interface Parsed<F> {
  values: Values<F>;
  args: string[];
  /** Names of the flags that were given. */
  changed: Set<string>;
}

/** FlagError for an unknown flag or a bad value; HelpAsked for --help (and -h where the command has no -h of its own). */
export function parseFlags<F extends Flags>(flags: F, argv: string[], interspersed = true): Parsed<F> {
  const values: Record<string, unknown> = {};
  for (const [name, flag] of Object.entries(flags)) values[name] = flag.initial;
  const byShort = new Map(Object.entries(flags).flatMap(([name, flag]) => (flag.short ? [[flag.short, name] as const] : [])));
  const changed = new Set<string>();
  const args: string[] = [];
  const set = (name: string, text: string) => {
    const flag = flags[name] as Flag<unknown>;
    try {
      values[name] = flag.add(values[name], text);
    } catch (error) {
      const shown = flag.short ? `-${flag.short}, --${name}` : `--${name}`;
      throw new FlagError(`invalid argument ${JSON.stringify(text)} for "${shown}" flag: ${(error as Error).message}`);
    }
    changed.add(name);
  };
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i]!;
    if (word === "--") {
      args.push(...argv.slice(i + 1));
      break;
    }
    if (word.length < 2 || !word.startsWith("-")) {
      args.push(word);
      if (!interspersed) {
        args.push(...argv.slice(i + 1));
        break;
      }
      continue;
    }
    if (word.startsWith("--")) {
      const equals = word.indexOf("=");
      const name = equals < 0 ? word.slice(2) : word.slice(2, equals);
      if (name === "" || name.startsWith("-")) throw new FlagError(`bad flag syntax: ${word}`);
      const flag = flags[name];
      if (!flag) {
        if (name === "help") throw new HelpAsked();
        throw new FlagError(`unknown flag: --${name}`);
      }
      if (equals >= 0) set(name, word.slice(equals + 1));
      else if (flag.switch) set(name, "true");
      else if (i + 1 < argv.length) set(name, argv[++i]!);
      else throw new FlagError(`flag needs an argument: --${name}`);
      continue;
    }
    for (let j = 1; j < word.length; j++) {
      const letter = word[j]!;
      const name = byShort.get(letter);
      if (name === undefined) {
        if (letter === "h") throw new HelpAsked();
        throw new FlagError(`unknown shorthand flag: '${letter}' in -${word.slice(j)}`);
      }
      const rest = word.slice(j + 1);
      if (rest.startsWith("=")) {
        set(name, rest.slice(1));
        break;
      }
      if (flags[name]!.switch) {
        set(name, "true");
        continue;
      }
      if (rest !== "") set(name, rest);
      else if (i + 1 < argv.length) set(name, argv[++i]!);
      else throw new FlagError(`flag needs an argument: '${letter}' in -${word.slice(j)}`);
      break;
    }
  }
  return { values: values as Values<F>, args, changed };
}
