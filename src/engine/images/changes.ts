// Dockerfile instructions as `docker import -c` and `docker commit -c` take them, applied to an image's config.
import type { HealthConfig } from "../../api/types.ts";
import { invalidArgument } from "../../lib/errors.ts";

export type Config = Record<string, unknown>;

/** Words of shell-like text: quotes group, a backslash takes the next character as it is. */
function words(text: string): string[] {
  const out: string[] = [];
  let word: string | undefined;
  let quote = "";
  for (let i = 0; i < text.length; i++) {
    const c = text[i]!;
    if (quote) {
      if (c === quote) quote = "";
      else if (c === "\\" && quote === '"' && i + 1 < text.length) word += text[++i]!;
      else word += c;
    } else if (c === '"' || c === "'") {
      quote = c;
      word ??= "";
    } else if (c === "\\" && i + 1 < text.length) word = (word ?? "") + text[++i]!;
    else if (/\s/.test(c)) {
      if (word !== undefined) out.push(word);
      word = undefined;
    } else word = (word ?? "") + c;
  }
  if (word !== undefined) out.push(word);
  return out;
}

/** ["exec", "form"] or a shell line. */
function command(text: string): string[] {
  if (text.startsWith("[")) {
    try {
      const list: unknown = JSON.parse(text);
      if (Array.isArray(list) && list.every((item) => typeof item === "string")) return list;
    } catch {
      // then it is a shell line that begins with a bracket
    }
  }
  return ["/bin/sh", "-c", text];
}

function pairs(instruction: string, text: string): [string, string][] {
  const list = words(text);
  if (list.length === 0) throw invalidArgument(`${instruction} requires at least one argument`);
  if (!list[0]!.includes("=")) {
    if (list.length < 2) throw invalidArgument(`${instruction} must have two arguments`);
    return [[list[0]!, text.slice(text.indexOf(list[0]!) + list[0]!.length).trim()]];
  }
  return list.map((word) => {
    const cut = word.indexOf("=");
    if (cut < 1) throw invalidArgument(`Syntax error - can't find = in "${word}". Must be of the form: name=value`);
    return [word.slice(0, cut), word.slice(cut + 1)];
  });
}

/** Nanoseconds of "1m30s". */
function duration(text: string): number {
  let total = 0;
  let rest = text;
  const units: Record<string, number> = { h: 3600e9, m: 60e9, s: 1e9, ms: 1e6, us: 1e3, ns: 1 };
  while (rest) {
    const match = /^(\d+(?:\.\d+)?)(h|ms|us|ns|m|s)/.exec(rest);
    if (!match) throw invalidArgument(`invalid duration "${text}"`);
    total += Number(match[1]) * units[match[2]!]!;
    rest = rest.slice(match[0].length);
  }
  return total;
}

function healthcheck(text: string): HealthConfig {
  const health: HealthConfig = {};
  let rest = text;
  for (let match = /^--([a-z-]+)=(\S+)\s+/.exec(rest); match; match = /^--([a-z-]+)=(\S+)\s+/.exec(rest)) {
    const [, name, value] = match;
    if (name === "interval") health.Interval = duration(value!);
    else if (name === "timeout") health.Timeout = duration(value!);
    else if (name === "start-period") health.StartPeriod = duration(value!);
    else if (name === "start-interval") health.StartInterval = duration(value!);
    else if (name === "retries") health.Retries = Number(value);
    else throw invalidArgument(`unknown flag: --${name}`);
    rest = rest.slice(match[0].length);
  }
  if (/^none$/i.test(rest.trim())) return { Test: ["NONE"] };
  const body = /^cmd\s+(.*)$/is.exec(rest.trim());
  if (!body) throw invalidArgument(`Unknown type ${JSON.stringify(rest.trim().split(/\s/)[0] ?? "")} in HEALTHCHECK (try CMD)`);
  health.Test = body[1]!.startsWith("[") ? ["CMD", ...command(body[1]!)] : ["CMD-SHELL", body[1]!];
  return health;
}

/** A changed copy of the config; InvalidArgument in Docker's words. */
export function applyChanges(config: Config, changes: readonly string[]): Config {
  const out: Config = structuredClone(config);
  const add = (key: string, name: string, value: unknown) => {
    out[key] = { ...(out[key] as object | undefined), [name]: value };
  };
  for (const line of changes.flatMap((change) => change.split("\n")).map((change) => change.trim())) {
    if (line === "" || line.startsWith("#")) continue;
    const cut = line.search(/\s/);
    const instruction = (cut < 0 ? line : line.slice(0, cut)).toUpperCase();
    const text = cut < 0 ? "" : line.slice(cut).trim();
    if (text === "" && instruction !== "CMD") throw invalidArgument(`${instruction} requires at least one argument`);
    switch (instruction) {
      case "CMD":
        out.Cmd = command(text);
        break;
      case "ENTRYPOINT":
        out.Entrypoint = command(text);
        break;
      case "ENV": {
        const env = ((out.Env as string[] | undefined) ?? []).slice();
        for (const [name, value] of pairs("ENV", text)) {
          const at = env.findIndex((entry) => entry.startsWith(`${name}=`));
          if (at < 0) env.push(`${name}=${value}`);
          else env[at] = `${name}=${value}`;
        }
        out.Env = env;
        break;
      }
      case "LABEL":
        for (const [name, value] of pairs("LABEL", text)) add("Labels", name, value);
        break;
      case "EXPOSE":
        for (const port of words(text)) {
          if (!/^\d+(-\d+)?(\/(tcp|udp|sctp))?$/.test(port)) throw invalidArgument(`invalid containerPort: ${port}`);
          add("ExposedPorts", port.includes("/") ? port : `${port}/tcp`, {});
        }
        break;
      case "VOLUME": {
        const list = text.startsWith("[") ? command(text) : words(text);
        for (const path of list) add("Volumes", path, {});
        break;
      }
      case "USER":
        out.User = text;
        break;
      case "WORKDIR": {
        const before = typeof out.WorkingDir === "string" ? out.WorkingDir : "/";
        out.WorkingDir = text.startsWith("/") ? text : `${before.replace(/\/$/, "")}/${text}`;
        break;
      }
      case "STOPSIGNAL":
        out.StopSignal = text;
        break;
      case "ONBUILD":
        out.OnBuild = [...((out.OnBuild as string[] | undefined) ?? []), text];
        break;
      case "HEALTHCHECK":
        out.Healthcheck = healthcheck(text);
        break;
      case "SHELL":
        out.Shell = command(text);
        break;
      default:
        throw invalidArgument(`${instruction.toLowerCase()} is not a valid change command`);
    }
  }
  return out;
}
