// The flags of `build` that have a language of their own: outputs, caches, secrets, agents, contexts.
import { existsSync, statSync } from "node:fs";
import { resolve } from "node:path";
import { csvFields } from "../flags.ts";

export interface Typed {
  type: string;
  attrs: Record<string, string>;
}

function fieldsOf(text: string, what: string): Record<string, string> {
  const attrs: Record<string, string> = {};
  for (const field of csvFields(text)) {
    const equals = field.indexOf("=");
    if (equals < 0) throw new Error(`invalid value ${JSON.stringify(field)} of ${what}: key=value is expected`);
    attrs[field.slice(0, equals).trim().toLowerCase()] = field.slice(equals + 1);
  }
  return attrs;
}

const OUTPUTS = ["local", "tar", "oci", "docker", "image", "registry"];

/** "DIR", "-", or "type=…,dest=…". */
export function parseOutput(text: string): Typed {
  if (text === "-") return { type: "tar", attrs: { dest: "-" } };
  if (!text.includes("=")) return { type: "local", attrs: { dest: text } };
  const { type, ...attrs } = fieldsOf(text, "--output");
  if (!type) throw new Error(`type is required for output ${JSON.stringify(text)}`);
  if (!OUTPUTS.includes(type)) throw new Error(`unknown output type ${JSON.stringify(type)}; there are ${OUTPUTS.join(", ")}`);
  if (type === "local" && !attrs.dest) throw new Error("dest is required for local output");
  return { type, attrs };
}

/** "type=…,…", or the name of an image. */
export function parseCache(text: string, flag: string): Typed {
  if (!text.includes("=")) return { type: "registry", attrs: { ref: text } };
  const { type, ...attrs } = fieldsOf(text, `--${flag}`);
  if (!type) throw new Error(`type is required for --${flag} ${JSON.stringify(text)}`);
  if (type === "local" && flag === "cache-to" && !attrs.dest)
    throw new Error("dest is required for the local cache exporter: --cache-to type=local,dest=DIR");
  if (type === "local" && flag === "cache-from" && !attrs.src)
    throw new Error("src is required for the local cache importer: --cache-from type=local,src=DIR");
  return { type, attrs };
}

export interface SecretSource {
  id: string;
  file?: string;
  variable?: string;
}

export function parseSecret(text: string, env: Record<string, string | undefined>): SecretSource {
  const { id, type, src, source, env: variable, ...rest } = fieldsOf(text, "--secret");
  const unknown = Object.keys(rest)[0];
  if (unknown) throw new Error(`unexpected key '${unknown}' in --secret ${JSON.stringify(text)}`);
  if (type !== undefined && type !== "file" && type !== "env") throw new Error(`unsupported secret type ${JSON.stringify(type)}`);
  const file = src ?? source;
  if (!id) throw new Error("secrets need an id: --secret id=NAME");
  if (variable !== undefined) return { id, variable };
  if (type === "env") return { id, variable: file ?? id };
  if (file !== undefined) return { id, file: resolve(file) };
  return env[id] === undefined ? { id, file: resolve(id) } : { id, variable: id };
}

/** "default", "NAME", "NAME=SOCKET". */
export function parseSsh(text: string, env: Record<string, string | undefined>): [name: string, socket: string] {
  const equals = text.indexOf("=");
  const name = equals < 0 ? text : text.slice(0, equals);
  const path = equals < 0 ? env.SSH_AUTH_SOCK : text.slice(equals + 1);
  if (!path) throw new Error(`invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set`);
  if (!existsSync(path)) throw new Error(`failed to parse ssh agent ${name}: ${path} is not there`);
  if (!statSync(path).isSocket())
    throw new Error(`--ssh ${name}: ${path} is no agent's socket; keys are lent by an agent (ssh-add ${path})`);
  return [name, path];
}

const REMOTE = /^(https?:\/\/|git:\/\/|ssh:\/\/|git@|github\.com\/)/;
export const isRemote = (text: string): boolean => REMOTE.test(text);

export interface NamedContext {
  name: string;
  value: string;
  directory: string | undefined;
  /** It is an image in an OCI layout: where, and which. */
  layout?: { directory: string; tag: string; digest: string | undefined };
}

/** A context with a name: where it is a directory, that directory goes with the build under a name of its own. */
export function parseBuildContext(text: string): NamedContext {
  const equals = text.indexOf("=");
  if (equals <= 0) throw new Error(`invalid context value ${JSON.stringify(text)}, expected key=value`);
  const name = text.slice(0, equals).trim();
  const value = text.slice(equals + 1);
  if (/^(docker-image|target|input):/.test(value) || isRemote(value)) return { name, value, directory: undefined };
  if (value.startsWith("oci-layout://")) {
    const match = /^(.+?)(?::([\w][\w.-]{0,127}))?(?:@(sha256:[0-9a-f]{64}))?$/.exec(value.slice("oci-layout://".length));
    if (!match) throw new Error(`invalid OCI layout ${value}`);
    const [, path = "", tag = "latest", digest] = match;
    return { name, value, directory: undefined, layout: { directory: resolve(path), tag, digest } };
  }
  const directory = resolve(value);
  if (!statSync(directory, { throwIfNoEntry: false })?.isDirectory())
    throw new Error(`failed to get build context ${name}: ${value} is no directory`);
  return { name, value: `local:${name}`, directory };
}

/** "nofile=1024:2048" */
export function parseUlimit(text: string): string {
  if (!/^[a-z]+=-?\d+(:-?\d+)?$/.test(text)) throw new Error(`invalid ulimit argument: ${text}`);
  return text;
}
