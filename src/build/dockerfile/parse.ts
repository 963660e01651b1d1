// From logical lines to typed instructions and stages. Sentences of errors are Docker's.
import { parseDuration } from "./duration.ts";
import { type Line, splitLines } from "./lines.ts";
import { distance } from "./lint.ts";
import { parseMount } from "./mount.ts";
import { DockerfileError } from "./source.ts";
import type { Command, CopyFlags, Dockerfile, Health, Instruction, Of, Pair, Stage } from "./types.ts";
import { rawWords, unquote } from "./words.ts";

const NAMES = [
  "ADD",
  "ARG",
  "CMD",
  "COPY",
  "ENTRYPOINT",
  "ENV",
  "EXPOSE",
  "FROM",
  "HEALTHCHECK",
  "LABEL",
  "MAINTAINER",
  "ONBUILD",
  "RUN",
  "SHELL",
  "STOPSIGNAL",
  "USER",
  "VOLUME",
  "WORKDIR",
]; // prettier-ignore

function unknownInstruction(line: Line): never {
  const name = line.instruction;
  const close = name.length > 20 ? undefined : NAMES.map((each) => [distance(name, each), each] as const).sort((a, b) => a[0] - b[0])[0];
  throw new DockerfileError(`unknown instruction: ${name}${close && close[0] <= 2 ? ` (did you mean ${close[1]}?)` : ""}`, line.range);
}

/** A JSON list of strings; undefined where the text is none. */
function jsonList(text: string): string[] | undefined {
  if (!text.startsWith("[")) return undefined;
  try {
    const list: unknown = JSON.parse(text);
    return Array.isArray(list) && list.every((item) => typeof item === "string") ? list : undefined;
  } catch {
    return undefined;
  }
}

const commandOf = (text: string): Command => {
  const args = jsonList(text);
  return args ? { form: "exec", args } : { form: "shell", line: text };
};

/** Takes the flags of a line, once each unless `many` has them. */
function flagsOf(line: Line, known: readonly string[], many: readonly string[] = []): (name: string) => string[] {
  const found = new Map<string, string[]>();
  for (const { name, value } of line.flags) {
    if (!known.includes(name)) throw new DockerfileError(`unknown flag: ${name}`, line.range);
    const boolean = BOOLEAN.has(name);
    if (value === undefined && !boolean) throw new DockerfileError(`missing a value on flag: ${name}`, line.range);
    const text = value ?? "true";
    if (boolean && text !== "true" && text !== "false")
      throw new DockerfileError(`expecting boolean value for flag ${name}, not: ${text}`, line.range);
    const before = found.get(name);
    if (before && !many.includes(name)) throw new DockerfileError(`duplicate flag specified: ${name}`, line.range);
    if (before) before.push(text);
    else found.set(name, [text]);
  }
  return (name) => found.get(name) ?? [];
}

const BOOLEAN = new Set(["link", "parents", "keep-git-dir", "unpack"]);

function need(line: Line, text = line.text): string {
  if (text === "") throw new DockerfileError(`${line.instruction} requires at least one argument`, line.range);
  return text;
}

function exactlyOne(line: Line): string {
  if (rawWords(line.text, "\\").length === 0) throw new DockerfileError(`${line.instruction} requires exactly one argument`, line.range);
  return line.text;
}

function pairs(line: Line, escapeChar: string): Pair[] {
  const words = rawWords(need(line), escapeChar);
  if (!words[0]!.includes("=")) {
    if (words.length < 2) throw new DockerfileError(`${line.instruction} must have two arguments`, line.range);
    const name = words[0]!;
    return [{ name: unquote(name, escapeChar), value: line.text.slice(name.length).trim() }];
  }
  return words.map((word) => {
    const equals = word.indexOf("=");
    if (equals < 0) throw new DockerfileError(`Syntax error - can't find = in "${word}". Must be of the form: name=value`, line.range);
    if (equals === 0) throw new DockerfileError(`${line.instruction} names can not be blank`, line.range);
    return { name: word.slice(0, equals), value: word.slice(equals + 1) };
  });
}

function args(line: Line, escapeChar: string): Pair[] {
  return rawWords(need(line), escapeChar).map((word) => {
    const equals = word.indexOf("=");
    if (equals === 0) throw new DockerfileError("ARG names can not be blank", line.range);
    return equals < 0
      ? { name: unquote(word, escapeChar), value: undefined }
      : { name: word.slice(0, equals), value: word.slice(equals + 1) };
  });
}

function copy(line: Line, escapeChar: string): Pick<Of<"COPY">, "sources" | "destination" | "flags"> {
  const add = line.instruction === "ADD";
  const known = ["chown", "chmod", "link", "exclude", ...(add ? ["checksum", "keep-git-dir", "unpack"] : ["from", "parents"])];
  const flag = flagsOf(line, known, ["exclude"]);
  const words = jsonList(line.text) ?? rawWords(line.text, escapeChar);
  if (flag("from")[0]?.includes("$"))
    throw new DockerfileError("'from' doesn't support variable expansion, define alias stage instead", line.range);
  if (words.length < 2)
    throw new DockerfileError(
      `${line.instruction} requires at least two arguments, but only one was provided. Destination could not be determined`,
      line.range,
    );
  const unpack = flag("unpack")[0];
  const flags: CopyFlags = {
    from: flag("from")[0],
    chown: flag("chown")[0],
    chmod: flag("chmod")[0],
    link: flag("link")[0] === "true",
    parents: flag("parents")[0] === "true",
    exclude: flag("exclude"),
    checksum: flag("checksum")[0],
    keepGitDir: flag("keep-git-dir")[0] === "true",
    unpack: unpack === undefined ? undefined : unpack === "true",
  };
  return { sources: words.slice(0, -1), destination: words.at(-1)!, flags };
}

function healthcheck(line: Line): Health {
  const flag = flagsOf(line, ["interval", "timeout", "start-period", "start-interval", "retries"]);
  const [kind = "", ...rest] = need(line).split(/\s+/);
  const body = line.text.slice(kind.length).trim();
  if (kind.toUpperCase() === "NONE") {
    if (rest.some(Boolean)) throw new DockerfileError("HEALTHCHECK NONE takes no arguments", line.range);
    return { Test: ["NONE"] };
  }
  if (kind.toUpperCase() !== "CMD") throw new DockerfileError(`Unknown type "${kind.toUpperCase()}" in HEALTHCHECK (try CMD)`, line.range);
  if (body === "") throw new DockerfileError("Missing command after HEALTHCHECK CMD", line.range);
  const command = commandOf(body);
  const health: Health = { Test: command.form === "exec" ? ["CMD", ...command.args] : ["CMD-SHELL", command.line] };
  for (const [name, field] of [
    ["interval", "Interval"],
    ["timeout", "Timeout"],
    ["start-period", "StartPeriod"],
    ["start-interval", "StartInterval"],
  ] as const) {
    const text = flag(name)[0];
    if (text === undefined) continue;
    const value = parseDuration(text);
    if (value === undefined) throw new DockerfileError(`time: invalid duration "${text}"`, line.range);
    if (value < 0) throw new DockerfileError(`Interval "${name}" cannot be negative`, line.range);
    if (value > 0 && value < 1e6) throw new DockerfileError(`Interval "${name}" cannot be less than 1ms`, line.range);
    health[field] = value;
  }
  const retries = flag("retries")[0];
  if (retries !== undefined) {
    if (!/^\d{1,9}$/.test(retries)) throw new DockerfileError(`--retries must be at least 0 (not ${retries})`, line.range);
    health.Retries = Number(retries);
  }
  return health;
}

const STAGE_NAME = /^[a-z][a-z0-9._-]*$/;

function from(line: Line): Pick<Of<"FROM">, "image" | "platform" | "name" | "written"> {
  const platform = flagsOf(line, ["platform"])("platform")[0];
  const words = line.text.split(/\s+/).filter(Boolean);
  if (words.length === 3 && words[1]!.toUpperCase() === "AS") {
    const name = words[2]!.toLowerCase();
    if (!STAGE_NAME.test(name)) {
      throw new DockerfileError(
        `invalid name for build stage: "${words[2]}", name can't start with a number or contain symbols`,
        line.range,
      );
    }
    return { image: words[0]!, platform, name, written: { as: words[1]!, name: words[2]! } };
  }
  if (words.length !== 1) throw new DockerfileError("FROM requires either one or three arguments", line.range);
  return { image: words[0]!, platform, name: undefined, written: undefined };
}

const NO_FLAGS: readonly string[] = [];

export function parseLine(line: Line, escapeChar: string): Instruction {
  const { range, original, heredocs, keyword, comments } = line;
  const base = { range, original, heredocs, keyword, comments };
  const kind = line.instruction;
  switch (kind) {
    case "FROM":
      return { ...base, kind, ...from(line) };
    case "RUN": {
      const flag = flagsOf(line, ["mount", "network", "security", "device"], ["mount"]);
      if (flag("device").length) throw new DockerfileError("RUN --device is not supported", line.range);
      const network = flag("network")[0] ?? "default";
      if (!["default", "none", "host"].includes(network))
        throw new DockerfileError(`unsupported network mode ${JSON.stringify(network)}`, line.range);
      const security = flag("security")[0] ?? "sandbox";
      if (!["sandbox", "insecure"].includes(security))
        throw new DockerfileError(`security ${JSON.stringify(security)} is not supported`, line.range);
      return {
        ...base,
        kind,
        command: commandOf(need(line)),
        mounts: flag("mount").map((each) => parseMount(each, line.range)),
        network,
        security,
      };
    }
    case "COPY":
    case "ADD":
      return { ...base, kind, ...copy(line, escapeChar) };
    case "HEALTHCHECK":
      return { ...base, kind, health: healthcheck(line) };
  }
  flagsOf(line, NO_FLAGS);
  switch (kind) {
    case "CMD":
    case "ENTRYPOINT":
      return { ...base, kind, command: commandOf(kind === "CMD" ? line.text : need(line)) };
    case "ENV":
    case "LABEL":
      return { ...base, kind, pairs: pairs(line, escapeChar), legacy: !rawWords(line.text, escapeChar)[0]!.includes("=") };
    case "ARG":
      return { ...base, kind, pairs: args(line, escapeChar) };
    case "WORKDIR":
    case "USER":
    case "STOPSIGNAL":
    case "MAINTAINER":
      return { ...base, kind, value: exactlyOne(line) };
    case "EXPOSE":
      return { ...base, kind, values: rawWords(need(line), escapeChar) };
    case "VOLUME": {
      const values = jsonList(need(line)) ?? rawWords(line.text, escapeChar);
      if (values.some((value) => value === "")) throw new DockerfileError("VOLUME specified can not be an empty string", line.range);
      return { ...base, kind, values };
    }
    case "SHELL": {
      const shell = jsonList(line.text);
      if (!shell) throw new DockerfileError("SHELL requires the arguments to be in JSON form", line.range);
      if (shell.length === 0) throw new DockerfileError("SHELL requires at least one argument", line.range);
      return { ...base, kind, shell };
    }
    case "ONBUILD": {
      const trigger = (/^(\S+)/.exec(need(line))?.[1] ?? "").toUpperCase();
      if (trigger === "ONBUILD") throw new DockerfileError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed", line.range);
      if (trigger === "MAINTAINER" || trigger === "FROM")
        throw new DockerfileError(`${trigger} isn't allowed as an ONBUILD trigger`, line.range);
      if (!NAMES.includes(trigger)) throw new DockerfileError(`unknown instruction: ${trigger}`, line.range);
      const documents = line.heredocs.map(({ content, name }) => `\n${content}${name}`).join("");
      return { ...base, kind, trigger: line.text + documents };
    }
    default:
      return unknownInstruction(line);
  }
}

/** Parses a Dockerfile. DockerfileError where it is none. */
export function parseDockerfile(text: string): Dockerfile {
  const { lines, directives, emptyContinuations } = splitLines(text);
  if (lines.length === 0) throw new DockerfileError("file with no instructions", { start: 1, end: 1 });
  const globals: Of<"ARG">[] = [];
  const stages: Stage[] = [];
  for (const line of lines) {
    const instruction = parseLine(line, directives.escape);
    const stage = stages.at(-1);
    if (instruction.kind === "FROM") {
      stages.push({ from: instruction, name: instruction.name, instructions: [] });
    } else if (stage) stage.instructions.push(instruction);
    else if (instruction.kind === "ARG") globals.push(instruction as Of<"ARG">);
    else throw new DockerfileError("no build stage in current context", line.range);
  }
  if (stages.length === 0) throw new DockerfileError("file with no instructions", { start: 1, end: 1 });
  return { directives, globals, stages, text, emptyContinuations };
}

/** The instructions of a base image's triggers, as if they stood at `range`. */
export function parseTriggers(triggers: readonly string[], range: Line["range"]): Instruction[] {
  return triggers.flatMap((trigger) => {
    const { lines } = splitLines(trigger);
    return lines.map((line) => {
      if (["ONBUILD", "FROM", "MAINTAINER"].includes(line.instruction))
        throw new DockerfileError(`${line.instruction} isn't allowed as an ONBUILD trigger`, range);
      return parseLine({ ...line, range }, "\\");
    });
  });
}
