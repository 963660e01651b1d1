// Command line flags in the manner of runc's: one or two dashes, "--name value" or "--name=value", up to the first word that is none.
import { Failure } from "../../lib/errors.ts";

/** Name → kind; a short name names its long one. */
export type FlagTable = Record<string, "value" | "values" | "boolean" | { short: string }>;

export interface Flags {
  value(name: string): string | undefined;
  values(name: string): string[];
  on(name: string): boolean;
  number(name: string): number | undefined;
  rest: string[];
}

export const usageError = (message: string) => new Failure("InvalidArgument", message);

export function parseFlags(argv: string[], table: FlagTable): Flags {
  const found = new Map<string, string[]>();
  let i = 0;
  for (; i < argv.length; i++) {
    const word = argv[i]!;
    if (word === "--") {
      i++;
      break;
    }
    if (word[0] !== "-" || word.length < (word[1] === "-" ? 3 : 2)) break;
    const equals = word.indexOf("=");
    let name = word.slice(word.startsWith("--") ? 2 : 1, equals < 0 ? undefined : equals);
    let kind = Object.hasOwn(table, name) ? table[name] : undefined;
    if (typeof kind === "object") {
      name = kind.short;
      kind = table[name];
    }
    if (kind === undefined) throw usageError(`flag provided but not defined: -${name}`);
    let value = equals < 0 ? undefined : word.slice(equals + 1);
    if (kind === "boolean") value ??= "true";
    else if (value === undefined) {
      value = argv[++i];
      if (value === undefined) throw usageError(`flag needs an argument: -${name}`);
    }
    const values = found.get(name);
    if (values) values.push(value);
    else found.set(name, [value]);
  }
  const last = (name: string) => {
    const values = found.get(name);
    return values?.[values.length - 1];
  };
  return {
    value: last,
    values: (name) => found.get(name) ?? [],
    on: (name) => last(name) === "true" || last(name) === "1",
    number(name) {
      const text = last(name);
      if (text === undefined) return undefined;
      if (!/^-?\d+$/.test(text)) throw usageError(`invalid value ${JSON.stringify(text)} for flag -${name}: parse error`);
      return Number(text);
    },
    rest: argv.slice(i),
  };
}

/** The one container id that a command takes. */
export function idOf(command: string, flags: Flags): string {
  if (flags.rest.length !== 1) throw usageError(`jubako-runtime: "${command}" requires exactly 1 argument(s)`);
  return flags.rest[0]!;
}
