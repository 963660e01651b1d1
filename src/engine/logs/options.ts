// HostConfig.LogConfig, read: which driver, with which options. Unlike dockerd, json-file rotates unless told otherwise (max-size=10m,
// max-file=3; `max-size=-1` switches that off): a log that grows without bound is the commonest way a host's disk fills up.
import type { HostConfig } from "../../api/types.ts";
import { invalidArgument, messageOf } from "../../lib/errors.ts";
import type { ContainerRecord, EngineConfig } from "../context.ts";
import { type Codec, jsonFile, local } from "./codec.ts";
import type { RotationOptions } from "./file.ts";

const ATTRIBUTES = ["labels", "labels-regex", "env", "env-regex", "tag"];
// Options of every driver, about how the engine hands over; ours never blocks on a driver, so that both modes are the same.
const COMMON = ["mode", "max-buffer-size"];

const KNOWN: Record<string, string[]> = {
  "json-file": ["max-file", "max-size", "compress", ...ATTRIBUTES],
  local: ["max-file", "max-size", "compress", "labels", "labels-regex", "env", "env-regex", "tag"],
};
const OTHERS = ["syslog", "journald", "gelf", "fluentd", "awslogs", "splunk", "etwlogs", "gcplogs", "logentries"];

/** "10m" as dockerd reads sizes: powers of 1000. */
function parseSize(text: string): number {
  if (text === "-1") return Number.POSITIVE_INFINITY;
  const match = /^(\d+(?:\.\d+)?) ?(?:([kKmMgGtTpP])[iI]?)?[bB]?$/.exec(text);
  if (!match) throw invalidArgument(`invalid size: '${text}'`);
  const power = " kmgtp".indexOf((match[2] ?? " ").toLowerCase());
  return Math.floor(Number(match[1]) * 1000 ** power);
}

function parseBool(name: string, text: string): boolean {
  if (/^(1|t|T|true|TRUE|True)$/.test(text)) return true;
  if (/^(0|f|F|false|FALSE|False)$/.test(text)) return false;
  throw invalidArgument(`invalid value "${text}" for log opt ${name}: must be a boolean`);
}

function rotation(type: string, options: Record<string, string>): RotationOptions {
  const defaults = type === "local" ? { size: "20m", files: 5, compress: true } : { size: "10m", files: 3, compress: false };
  const maxSize = parseSize(options["max-size"] ?? defaults.size);
  if (maxSize <= 0) throw invalidArgument("max-size must be a positive number");
  const files = options["max-file"];
  if (files !== undefined && !/^-?\d+$/.test(files)) throw invalidArgument(`strconv.Atoi: parsing "${files}": invalid syntax`);
  const maxFiles = files === undefined ? defaults.files : Number(files);
  if (maxFiles < 1) throw invalidArgument("max-file cannot be less than 1");
  const asked = options.compress === undefined ? undefined : parseBool("compress", options.compress);
  if (asked && (maxFiles < 2 || maxSize === Number.POSITIVE_INFINITY)) {
    throw invalidArgument("compress cannot be true when max-file is less than 2 or max-size is not set");
  }
  return { maxSize, maxFiles, compress: (asked ?? defaults.compress) && maxFiles > 1 };
}

function expression(name: string, text: string): RegExp {
  try {
    return new RegExp(text);
  } catch (error) {
    throw invalidArgument(`error parsing log opt ${name}: ${messageOf(error)}`);
  }
}

const TAG = /\{\{\s*\.(\w+)\s*\}\}/g;

function tagOf(template: string, record: ContainerRecord): string {
  const image = record.image.id.replace(/^sha256:/, "");
  const values: Record<string, string> = {
    ID: record.id.slice(0, 12),
    FullID: record.id,
    Name: record.name,
    ImageID: image.slice(0, 12),
    ImageFullID: record.image.id,
    ImageName: record.config.Image ?? "",
    DaemonName: "docker",
  };
  return template.replace(TAG, (whole, name: string) => values[name] ?? whole);
}

/** What `labels`, `env` and their kin pick out of the container, for `docker logs --details`. */
export function logAttributes(record: ContainerRecord, options: Record<string, string>): Record<string, string> | undefined {
  if (!ATTRIBUTES.some((name) => options[name])) return undefined;
  const attrs: Record<string, string> = {};
  const pick = (all: Record<string, string>, list: string | undefined, regex: string | undefined, name: string) => {
    for (const key of list?.split(",") ?? []) if (all[key] !== undefined) attrs[key] = all[key];
    if (!regex) return;
    const matcher = expression(name, regex);
    for (const [key, value] of Object.entries(all)) if (matcher.test(key)) attrs[key] = value;
  };
  const env: Record<string, string> = {};
  for (const variable of record.config.Env ?? []) {
    const cut = variable.indexOf("=");
    if (cut > 0) env[variable.slice(0, cut)] = variable.slice(cut + 1);
  }
  pick(record.config.Labels ?? {}, options.labels, options["labels-regex"], "labels-regex");
  pick(env, options.env, options["env-regex"], "env-regex");
  if (options.tag) attrs.tag = tagOf(options.tag, record);
  // As encoding/json prints a map.
  return Object.fromEntries(Object.entries(attrs).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Refuses a driver or option that is not there, with dockerd's sentences; fills in the engine's default driver and its options. */
export function checkLogConfig(config: EngineConfig, hostConfig: HostConfig): void {
  const asked = hostConfig.LogConfig ?? {};
  const own = !asked.Type || asked.Type === config.logDriver;
  const type = asked.Type || config.logDriver || "json-file";
  const options = own ? { ...config.logOpts, ...asked.Config } : { ...asked.Config };
  hostConfig.LogConfig = { Type: type as NonNullable<typeof asked.Type>, Config: options };
  if (type === "none") return;
  const known = KNOWN[type];
  if (!known) {
    if (OTHERS.includes(type))
      throw invalidArgument(`logger: log driver '${type}' is not part of this engine (it has json-file, local and none)`);
    throw invalidArgument(`logger: no log driver named '${type}' is registered`);
  }
  for (const name of Object.keys(options)) {
    if (!known.includes(name) && !COMMON.includes(name)) throw invalidArgument(`unknown log opt '${name}' for ${type} log driver`);
  }
  if (options.mode && options.mode !== "blocking" && options.mode !== "non-blocking") {
    throw invalidArgument(`logger: logging mode not supported: ${options.mode}`);
  }
  if (options["max-buffer-size"]) {
    if (options.mode !== "non-blocking") throw invalidArgument("logger: max-buffer-size option is only supported with 'mode=non-blocking'");
    parseSize(options["max-buffer-size"]);
  }
  for (const name of ["labels-regex", "env-regex"]) if (options[name]) expression(name, options[name]);
  rotation(type, options);
}

export interface LogSettings {
  path: string;
  codec: Codec;
  rotation: RotationOptions;
}

/** How a container's log is kept; undefined for the driver `none`. */
export function logSettings(record: ContainerRecord): LogSettings | undefined {
  const type = record.hostConfig.LogConfig?.Type ?? "json-file";
  const options = record.hostConfig.LogConfig?.Config ?? {};
  if (type === "none") return undefined;
  if (type === "local")
    return { path: record.logPath || `${record.dir}/local-logs/container.log`, codec: local, rotation: rotation(type, options) };
  const path = record.logPath || `${record.dir}/${record.id}-json.log`;
  return { path, codec: jsonFile(logAttributes(record, options)), rotation: rotation("json-file", options) };
}
