// The user's config.json (~/.docker, or DOCKER_CONFIG): what is said there about credentials, headers, formats and keys.
import { chmodSync, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { invalidArgument } from "../lib/errors.ts";

export interface StoredAuth {
  auth?: string;
  username?: string;
  password?: string;
  identitytoken?: string;
  registrytoken?: string;
}

/** The keys that we read; others are kept as they are. */
export interface ConfigFile {
  auths?: Record<string, StoredAuth>;
  credsStore?: string;
  credHelpers?: Record<string, string>;
  HttpHeaders?: Record<string, string>;
  detachKeys?: string;
  psFormat?: string;
  imagesFormat?: string;
  networksFormat?: string;
  volumesFormat?: string;
  statsFormat?: string;
  pluginsFormat?: string;
  currentContext?: string;
  pruneFilters?: string[];
  proxies?: Record<string, Record<string, string>>;
  [other: string]: unknown;
}

export function configDirectory(env: Record<string, string | undefined>): string {
  return env.DOCKER_CONFIG || `${env.HOME || "/root"}/.docker`;
}

/** An empty configuration where there is no file; InvalidArgument where it is not JSON. */
export function readConfig(dir: string): ConfigFile {
  let text: string;
  try {
    text = readFileSync(`${dir}/config.json`, "utf8");
  } catch {
    return {};
  }
  try {
    return JSON.parse(text) as ConfigFile;
  } catch (error) {
    throw invalidArgument(`${dir}/config.json: ${(error as Error).message}`, error);
  }
}

/** Writes by rename, with the file's mode kept (0600 for a new one). */
export function writeConfig(dir: string, config: ConfigFile): void {
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const path = `${dir}/config.json`;
  let mode = 0o600;
  try {
    mode = statSync(path).mode & 0o777;
  } catch {}
  const temporary = `${path}.${process.pid}`;
  writeFileSync(temporary, JSON.stringify(config, null, "\t"), { mode });
  chmodSync(temporary, mode);
  renameSync(temporary, path);
}
