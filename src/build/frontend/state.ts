// What a stage has become after an instruction: a tree, a config, a history, and the variables in force.
import type { ImageConfig } from "../../api/types.ts";
import { messageOf } from "../../lib/errors.ts";
import type { HistoryEntry, Platform } from "../../oci/index.ts";
import { DockerfileError, expandWord, expandWords, type Range, type Variables } from "../dockerfile/index.ts";
import type { Output } from "./nodes.ts";

export interface StageState {
  /** Undefined: the empty tree. */
  output: Output | undefined;
  config: ImageConfig;
  author: string;
  /** `output` is what the entry made; undefined where it made no layer. */
  history: { entry: HistoryEntry; output: Output | undefined }[];
  platform: Platform;
  /** ARGs in force, by name; undefined: declared, but without a value. */
  args: Map<string, string | undefined>;
  /** CMD was said in this stage, so that ENTRYPOINT keeps it. */
  cmdSet: boolean;
  /** Names all that was said so far: the base image's id, then a digest over the instructions. */
  said: string;
  /** A relative WORKDIR is safe from here on. */
  workdirSet: boolean;
}

export const PROXIES = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"].flatMap((name) => [name, name.toLowerCase()]);

/** Where the system's programs are, for images that do not say. */
export const DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

export function envOf(config: ImageConfig): Map<string, string> {
  const map = new Map<string, string>();
  for (const entry of config.Env ?? []) {
    const equals = entry.indexOf("=", 1);
    if (equals < 0) map.set(entry, "");
    else map.set(entry.slice(0, equals), entry.slice(equals + 1));
  }
  return map;
}

/** Expansion in a stage; a mistake is an error at `range`. */
export interface Expander {
  word(text: string): string;
  words(text: string): string[];
  variables: Variables;
}

export function expander(escapeChar: string, range: Range, variables: Variables): Expander {
  const guarded = <T>(work: () => T): T => {
    try {
      return work();
    } catch (error) {
      if (error instanceof DockerfileError) throw error;
      throw new DockerfileError(messageOf(error), range);
    }
  };
  return {
    variables,
    word: (text) => guarded(() => expandWord(text, escapeChar, variables)),
    words: (text) => guarded(() => expandWords(text, escapeChar, variables)),
  };
}

/** Variables of a stage; ENV counts before ARG. `unknown` hears of names that nobody declared. */
export function stageVariables(state: StageState, unknown: (name: string, declared: Iterable<string>) => void = () => {}): Variables {
  // Most instructions have no variables.
  let env: Map<string, string> | undefined;
  return (name, plain) => {
    env ??= envOf(state.config);
    const value = env.get(name) ?? state.args.get(name);
    if (plain && value === undefined && !state.args.has(name)) unknown(name, [...env.keys(), ...state.args.keys()]);
    return value;
  };
}

export function setEnv(config: ImageConfig, name: string, value: string): void {
  const env = [...(config.Env ?? [])];
  const at = env.findIndex((entry) => entry.startsWith(`${name}=`));
  if (at < 0) env.push(`${name}=${value}`);
  else env[at] = `${name}=${value}`;
  config.Env = env;
}
