// RUN --mount: comma-separated fields, quoted as CSV is (Dockerfile reference, "RUN --mount"). Values stay unexpanded.
import { DockerfileError, type Range } from "./source.ts";
import type { RunMount } from "./types.ts";

const TYPES = ["bind", "cache", "tmpfs", "secret", "ssh"];
const ALIASES: Record<string, string> = { src: "source", dst: "target", destination: "target", ro: "readonly", rw: "readwrite" };
/** Which types know a key; a key that all know has none. */
const KEYS: Record<string, readonly string[] | undefined> = {
  type: undefined,
  from: undefined,
  source: undefined,
  target: undefined,
  readonly: undefined,
  readwrite: undefined,
  id: undefined,
  sharing: ["cache"],
  required: ["secret", "ssh"],
  size: ["tmpfs"],
  mode: ["secret", "ssh", "cache"],
  uid: ["secret", "ssh", "cache"],
  gid: ["secret", "ssh", "cache"],
  env: ["secret"],
};
const SWITCHES = ["readonly", "readwrite", "required"];

/** The fields of one record, with "quotes". */
export function csvFields(text: string): string[] {
  const fields: string[] = [];
  let field = "";
  let quoted = false;
  for (let i = 0; i < text.length; i++) {
    const c = text[i]!;
    if (quoted) {
      if (c !== '"') field += c;
      else if (text[i + 1] === '"') field += text[++i];
      else quoted = false;
    } else if (c === '"' && field === "") quoted = true;
    else if (c === ",") {
      fields.push(field);
      field = "";
    } else field += c;
  }
  return [...fields, field];
}

export function parseMount(text: string, range: Range): RunMount {
  const options: Record<string, string> = {};
  const written = new Map<string, string>();
  for (const field of csvFields(text)) {
    const equals = field.indexOf("=");
    const given = (equals < 0 ? field : field.slice(0, equals)).trim().toLowerCase();
    const name = ALIASES[given] ?? given;
    if (!Object.hasOwn(KEYS, name)) throw new DockerfileError(`unexpected key '${given}' in '${field}'`, range);
    if (equals < 0 && !SWITCHES.includes(name)) throw new DockerfileError(`invalid field '${field}' must be a key=value pair`, range);
    const value = equals < 0 ? "true" : field.slice(equals + 1);
    if (name === "from" && /\$./.test(value))
      throw new DockerfileError("'from' doesn't support variable expansion, define alias stage instead", range);
    options[name] = value;
    written.set(name, given);
  }
  const { type = "bind", ...rest } = options;
  if (!TYPES.includes(type)) throw new DockerfileError(`unsupported mount type ${JSON.stringify(type)}`, range);
  for (const name of Object.keys(rest)) {
    const types = KEYS[name];
    if (types && !types.includes(type)) throw new DockerfileError(`unexpected key '${written.get(name)}' for mount type '${type}'`, range);
  }
  if (type === "secret") {
    if (rest.from !== undefined) throw new DockerfileError("secret mount should not have a from", range);
    if (rest.source === undefined && rest.target === undefined && rest.id === undefined)
      throw new DockerfileError("invalid secret mount. one of source, target required", range);
    if (rest.source !== undefined && rest.id !== undefined) throw new DockerfileError("both source and id can't be set", range);
  }
  return { type: type as RunMount["type"], options: rest };
}
