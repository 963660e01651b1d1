// What a stage has become after an instruction: a tree (a vertex), a config, a history, and the variables in force.
import type { ImageConfig } from "../../api/types.ts";
import { messageOf } from "../../lib/errors.ts";
import type { HistoryEntry } from "../../oci/index.ts";
import { DockerfileError, expandWord, expandWords, type Range } from "../dockerfile/index.ts";

export interface StageState {
  /** "" is the empty tree. */
  vertex: string;
  config: ImageConfig;
  author: string;
  history: { entry: HistoryEntry; vertex: string | undefined }[];
  platform: { os: string; architecture: string; variant?: string };
  /** ARGs in force, by name. */
  args: Map<string, string>;
  /** CMD was said in this stage, so that ENTRYPOINT keeps it. */
  cmdSet: boolean;
  /** Names all that was said so far: the base image's id, then a digest over the instructions. */
  said: string;
}

export const PROXIES = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"].flatMap((name) => [name, name.toLowerCase()]);

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
  variables(name: string): string | undefined;
}

export function expander(escapeChar: string, range: Range, variables: (name: string) => string | undefined): Expander {
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

export function stageVariables(state: StageState): (name: string) => string | undefined {
  const env = envOf(state.config);
  return (name) => env.get(name) ?? state.args.get(name);
}

export function setEnv(config: ImageConfig, name: string, value: string): void {
  const env = [...(config.Env ?? [])];
  const at = env.findIndex((entry) => entry.startsWith(`${name}=`));
  if (at < 0) env.push(`${name}=${value}`);
  else env[at] = `${name}=${value}`;
  config.Env = env;
}
