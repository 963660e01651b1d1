// What FROM lines can use: predefined platforms and the ARGs before the first FROM; and what they say with it.
import { formatPlatform, type Platform, parsePlatform, parseReference } from "../../oci/index.ts";
import { type Dockerfile, DockerfileError, expandWord, type Linter, type Range, suggestion } from "../dockerfile/index.ts";
import { descriptionOf, stageOf } from "./stages.ts";
import { expander } from "./state.ts";

export interface ArgInfo {
  name: string;
  value: string | undefined;
  description: string;
  range: Range;
}

export interface GlobalOptions {
  platform: Platform;
  buildPlatform: Platform;
  buildArgs: ReadonlyMap<string, string>;
}

function platformArgs(platform: Platform, prefix: string): [string, string][] {
  const { os, architecture, variant = "" } = platform;
  return [
    [`${prefix}PLATFORM`, formatPlatform(platform)],
    [`${prefix}OS`, os],
    [`${prefix}OSVERSION`, platform["os.version"] ?? ""],
    [`${prefix}ARCH`, architecture],
    [`${prefix}VARIANT`, variant],
  ];
}

export interface Globals {
  values: Map<string, string>;
  /** What they are without the client's arguments. */
  defaults: Map<string, string>;
  declared: Set<string>;
  infos: Map<string, ArgInfo>;
}

export function globalsOf(file: Dockerfile, options: GlobalOptions, stage: string, used: Set<string>): Globals {
  const predefined = new Map([
    ...platformArgs(options.buildPlatform, "BUILD"),
    ...platformArgs(options.platform, "TARGET"),
    ["TARGETSTAGE", stage] as const,
  ]);
  const defaults = new Map(predefined);
  for (const name of predefined.keys()) predefined.set(name, options.buildArgs.get(name) ?? predefined.get(name)!);
  const values = predefined;
  const declared = new Set(predefined.keys());
  const infos = new Map<string, ArgInfo>();
  for (const { pairs, range, comments } of file.globals) {
    for (const { name, value } of pairs) {
      used.add(name);
      declared.add(name);
      const expand = (from: Map<string, string>) =>
        value === undefined ? undefined : expander(file.directives.escape, range, (each) => from.get(each)).word(value);
      const final = options.buildArgs.get(name) ?? expand(values);
      const byDefault = expand(defaults);
      if (final !== undefined) values.set(name, final);
      if (byDefault !== undefined) defaults.set(name, byDefault);
      infos.set(name, { name, value: final, description: descriptionOf(comments, name), range });
    }
  }
  return { values, defaults, declared, infos };
}

export interface Base {
  name: string;
  platform: Platform | undefined;
}

export function basesOf(file: Dockerfile, globals: Globals, linter: Linter): Base[] {
  const escapeChar = file.directives.escape;
  return file.stages.map(({ from }, index) => {
    const { range } = from;
    const expand = expander(escapeChar, range, (name, plain) => {
      if (plain && !globals.declared.has(name)) {
        const near = suggestion(name, globals.declared);
        linter.warn("UndefinedArgInFrom", range, `FROM argument '${name}' is not declared${near ? ` (did you mean ${near}?)` : ""}`);
      }
      return globals.values.get(name);
    });
    const name = expand.word(from.image);
    if (name === "") throw new DockerfileError(`base name (${from.image}) should not be blank`, range);
    if (from.image.includes("$") && !isName(expandOr(from.image, escapeChar, globals.defaults)))
      linter.warn("InvalidDefaultArgInFrom", range, `Default value for ARG ${from.image} results in empty or invalid base image name`);
    const platform = from.platform === undefined ? "" : expand.word(from.platform);
    if (from.platform !== undefined && platform === "" && stageOf(file, name, index) < 0)
      throw new DockerfileError(`empty platform value from expression ${from.platform}`, range);
    try {
      return { name, platform: platform === "" ? undefined : parsePlatform(platform) };
    } catch {
      throw new DockerfileError(`failed to parse platform ${platform}`, range);
    }
  });
}

function expandOr(text: string, escapeChar: string, from: ReadonlyMap<string, string>): string {
  try {
    return expandWord(text, escapeChar, (name) => from.get(name));
  } catch {
    return "";
  }
}

function isName(text: string): boolean {
  if (text === "") return false;
  try {
    parseReference(text);
    return true;
  } catch {
    return false;
  }
}
