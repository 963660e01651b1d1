// Values of run's flags that need more than a look: ulimits, networks, devices, restart policies, files of variables, profiles.
import { readFileSync } from "node:fs";
import type { DeviceMapping, DeviceRequest, RestartPolicy } from "../../api/types.ts";
import { csvFields } from "../flags.ts";
import { parseBytes } from "../units.ts";
import { isAddress, isIPv4 } from "./ports.ts";

const ULIMITS = [
  "core",
  "cpu",
  "data",
  "fsize",
  "locks",
  "memlock",
  "msgqueue",
  "nice",
  "nofile",
  "nproc",
  "rss",
  "rtprio",
  "rttime",
  "sigpending",
  "stack",
];

export interface Ulimit {
  Name: string;
  Soft: number;
  Hard: number;
}

/** "nofile=1024:2048". */
export function parseUlimit(text: string): Ulimit {
  const equals = text.indexOf("=");
  if (equals < 0) throw new Error(`invalid ulimit argument: ${text}`);
  const name = text.slice(0, equals);
  const value = text.slice(equals + 1);
  if (!ULIMITS.includes(name)) throw new Error(`invalid ulimit type: ${name}`);
  const parts = value.split(":");
  if (parts.length > 2) throw new Error(`too many limit value arguments - ${value}, can only have up to two, \`soft[:hard]\``);
  const limits = parts.map((part) => {
    if (!/^-?\d+$/.test(part)) throw new Error(`strconv.ParseInt: parsing ${JSON.stringify(part)}: invalid syntax`);
    return Number(part);
  });
  const soft = limits[0]!;
  const hard = limits[1] ?? soft;
  if (hard !== -1 && soft > hard) throw new Error(`ulimit soft limit must be less than or equal to hard limit: ${soft} > ${hard}`);
  if (hard !== -1 && soft === -1)
    throw new Error(`ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: ${hard}`);
  return { Name: name, Soft: soft, Hard: hard };
}

export interface NetworkOption {
  target: string;
  aliases: string[];
  driverOpts: Record<string, string>;
  links: string[];
  ipv4?: string;
  ipv6?: string;
  linkLocal: string[];
  mac?: string;
  priority?: number;
}

/** --network: a name or mode, or "name=…,alias=…,ip=…". */
export function parseNetwork(text: string): NetworkOption {
  const option: NetworkOption = { target: "", aliases: [], driverOpts: {}, links: [], linkLocal: [] };
  if (!/^name=|,name=|=/.test(text)) return { ...option, target: text };
  for (const field of csvFields(text)) {
    const equals = field.indexOf("=");
    if (equals <= 0 || equals === field.length - 1) throw new Error(`invalid field ${field}`);
    const key = field.slice(0, equals).toLowerCase().trim();
    const value = field.slice(equals + 1).trim();
    if (key === "name") option.target = value;
    else if (key === "alias") option.aliases.push(value);
    else if (key === "ip") option.ipv4 = value;
    else if (key === "ip6") option.ipv6 = value;
    else if (key === "mac-address") option.mac = value;
    else if (key === "link-local-ip") option.linkLocal.push(value);
    else if (key === "gw-priority") {
      if (!/^-?\d+$/.test(value)) throw new Error(`invalid gw-priority: strconv.Atoi: parsing ${JSON.stringify(value)}: invalid syntax`);
      option.priority = Number(value);
    } else if (key === "driver-opt") {
      const at = value.indexOf("=");
      if (at <= 0) throw new Error("invalid key value pair format in driver options");
      option.driverOpts[value.slice(0, at).trim().toLowerCase()] = value.slice(at + 1).trim();
    } else throw new Error(`invalid field key ${key}`);
  }
  if (option.target === "") throw new Error("network name/id is not specified");
  return option;
}

/** --gpus: "all", a count, or "count=…,device=…,driver=…,capabilities=…". */
export function parseGpus(text: string): DeviceRequest {
  const request: DeviceRequest = {};
  const seen = new Set<string>();
  for (const field of csvFields(text)) {
    const equals = field.indexOf("=");
    const key = equals < 0 ? "count" : field.slice(0, equals);
    const value = equals < 0 ? field : field.slice(equals + 1);
    if (seen.has(key)) throw new Error(`gpu request key '${key}' can be specified only once`);
    seen.add(key);
    if (key === "driver") request.Driver = value;
    else if (key === "count") {
      if (value !== "all" && !/^-?\d+$/.test(value))
        throw new Error(`invalid count (${value}): value must be either "all" or an integer: invalid syntax`);
      request.Count = value === "all" ? -1 : Number(value);
    } else if (key === "device") request.DeviceIDs = value.split(",");
    else if (key === "capabilities") request.Capabilities = [[...value.split(","), "gpu"]];
    else if (key === "options") request.Options = Object.fromEntries(csvFields(value).map((o) => o.split("=", 2) as [string, string]));
    else throw new Error(`unexpected key '${key}' in '${field}'`);
  }
  if (!seen.has("count") && !request.DeviceIDs) request.Count = 1;
  request.Capabilities ??= [["gpu"]];
  return request;
}

/** "on-failure:3". */
export function parseRestart(text: string): RestartPolicy {
  if (text === "") return {};
  const [name, count, ...more] = text.split(":");
  if (more.length > 0) throw new Error("invalid restart policy format: too many colons");
  if (count === undefined || count === "") return { Name: name as "no", MaximumRetryCount: 0 };
  if (!/^-?\d+$/.test(count)) throw new Error("invalid restart policy format: maximum retry count must be an integer");
  if (name === "") throw new Error("invalid restart policy format: no policy provided before colon");
  return { Name: name as "no", MaximumRetryCount: Number(count) };
}

/** "/dev/sda:/dev/xvda:rwm". */
export function parseDevice(text: string): DeviceMapping {
  const parts = text.split(":");
  const mode = (part: string) => /^[rwm]{1,3}$/.test(part) && new Set(part).size === part.length;
  const [host = "", second, third] = parts;
  if (parts.length > 3) throw new Error(`invalid device specification: ${text}`);
  if (parts.length === 3) return { PathOnHost: host, PathInContainer: second!, CgroupPermissions: third! };
  if (second === undefined) return { PathOnHost: host, PathInContainer: host, CgroupPermissions: "rwm" };
  return mode(second)
    ? { PathOnHost: host, PathInContainer: host, CgroupPermissions: second }
    : { PathOnHost: host, PathInContainer: second, CgroupPermissions: "rwm" };
}

export function checkDevice(text: string): string {
  if (text.includes(",")) throw new Error(`bad format for path: ${text}`);
  if (isCdiDevice(text)) return text;
  const parts = text.split(":");
  if (parts.length > 3) throw new Error(`bad format for path: ${text}`);
  if (!parts[0]) throw new Error(`bad format for path: ${text}`);
  const last = parts.at(-1)!;
  if (parts.length === 3 && !(/^[rwm]{1,3}$/.test(last) && new Set(last).size === last.length))
    throw new Error(`bad mode specified: ${last}`);
  const target = parts.length > 1 && !(parts.length === 2 && /^[rwm]{1,3}$/.test(last)) ? parts[1]! : parts[0]!;
  if (!target.startsWith("/")) throw new Error(`${target} is not an absolute path`);
  return text;
}

/** A name of the Container Device Interface: "vendor.com/class=device". */
export function isCdiDevice(text: string): boolean {
  return /^[a-z][\w.-]*\/[a-z][\w.-]*=[\w.:-]+$/i.test(text) && !text.startsWith("/");
}

/** "/dev/sda:1mb" or "/dev/sda:1000". */
export function parseThrottle(text: string, bytes: boolean): { Path: string; Rate: number } {
  const [path, rate, ...more] = text.split(":");
  if (rate === undefined || more.length > 0) throw new Error(`bad format: ${text}`);
  if (!path!.startsWith("/dev/")) throw new Error(`bad format for device path: ${text}`);
  const value = bytes ? parseBytes(rate) : /^\d+$/.test(rate) ? Number(rate) : undefined;
  if (value === undefined) {
    throw new Error(
      bytes
        ? `invalid rate for device: ${text}. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb`
        : `invalid rate for device: ${text}. The correct format is <device-path>:<number>. Number must be a positive integer`,
    );
  }
  return { Path: path!, Rate: value };
}

export function parseWeight(text: string): { Path: string; Weight: number } {
  const [path, weight, ...more] = text.split(":");
  if (weight === undefined || more.length > 0) throw new Error(`bad format: ${text}`);
  if (!path!.startsWith("/dev/")) throw new Error(`bad format for device path: ${text}`);
  const value = Number(weight);
  if (!/^\d+$/.test(weight) || (value > 0 && (value < 10 || value > 1000))) throw new Error(`invalid weight for device: ${text}`);
  return { Path: path!, Weight: value };
}

export function checkAddress(text: string): string {
  if (!isAddress(text.trim())) throw new Error(`IP address is not correctly formatted: ${text}`);
  return text.trim();
}

/** "host:ip" or "host=ip", as the API wants it. */
export function checkExtraHost(text: string): string {
  const at = text.search(/[:=]/);
  if (at <= 0) throw new Error(`bad format for add-host: ${JSON.stringify(text)}`);
  const host = text.slice(0, at);
  const address = text.slice(at + 1).replace(/^\[(.*)\]$/, "$1");
  if (address !== "host-gateway" && !isAddress(address)) throw new Error(`invalid IP address in add-host: ${JSON.stringify(address)}`);
  return `${host}:${address}`;
}

export function checkDnsSearch(text: string): string {
  const domain = text.trim();
  if (domain === ".") return domain;
  if (!/^([a-zA-Z0-9]([a-zA-Z0-9_-]*[a-zA-Z0-9])?\.?)+$/.test(domain) || domain.length > 255)
    throw new Error(`${domain} is not a valid domain`);
  return domain;
}

export function checkLink(text: string): string {
  if (text === "") throw new Error("empty string specified for links");
  if (text.split(":").length > 2) throw new Error(`bad format for links: ${text}`);
  return text;
}

export function checkAttach(text: string): string {
  const stream = text.toLowerCase();
  if (!["stdin", "stdout", "stderr"].includes(stream)) throw new Error("valid streams are STDIN, STDOUT and STDERR");
  return stream;
}

export function checkLabel(text: string): string {
  if (text.startsWith("=")) throw new Error(`invalid label '${text}': empty name`);
  return text;
}

export function checkSysctl(text: string): string {
  const name = text.split("=")[0]!;
  const known = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
  ];
  if (!text.includes("=") || !(known.includes(name) || name.startsWith("net.") || name.startsWith("fs.mqueue."))) {
    throw new Error(`sysctl '${text}' is not allowed`);
  }
  return text;
}

export function checkCgroupRule(text: string): string {
  if (!/^[acb] ([0-9]+|\*):([0-9]+|\*) [rwm]{1,3}$/.test(text)) throw new Error(`invalid device cgroup format '${text}'`);
  return text;
}

/** "-e NAME" takes the value of our own environment, where it has one. */
export function environmentOf(env: Record<string, string | undefined>): (text: string) => string {
  return (text) => {
    if (text.startsWith("=") || text === "") throw new Error(`invalid environment variable: ${text}`);
    return text.includes("=") || env[text] === undefined ? text : `${text}=${env[text]}`;
  };
}

/** Lines of a file of variables or labels: comments and blank lines dropped; a bare name is looked up, or dropped. */
export function readKeyValueFile(path: string, lookup: ((name: string) => string | undefined) | undefined): string[] {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw new Error(
      `open ${path}: ${(error as { code?: string }).code === "ENOENT" ? "no such file or directory" : (error as Error).message}`,
    );
  }
  const lines: string[] = [];
  for (const raw of text.replace(/^\uFEFF/, "").split(/\r?\n/)) {
    const line = raw.trimStart();
    if (line === "" || line.startsWith("#")) continue;
    const equals = line.indexOf("=");
    const name = equals < 0 ? line : line.slice(0, equals);
    if (/\s/.test(name.trimStart()) && (equals >= 0 || name.trim().includes(" ")))
      throw new Error(`variable '${name}' contains whitespaces`);
    if (name === "") throw new Error(`no variable name on line '${line}'`);
    if (equals >= 0) lines.push(line);
    else if (!lookup) lines.push(name.trim());
    else {
      const value = lookup(name.trim());
      if (value !== undefined) lines.push(`${name.trim()}=${value}`);
    }
  }
  return lines;
}

/** --security-opt: profiles in files are read here, as the engine may be on another machine. */
export function parseSecurityOptions(options: readonly string[]): { options: string[]; systemPathsUnconfined: boolean } {
  const out: string[] = [];
  let systemPathsUnconfined = false;
  for (const option of options) {
    if (option === "systempaths=unconfined") {
      systemPathsUnconfined = true;
      continue;
    }
    const at = option.search(/[=:]/);
    const key = at < 0 ? option : option.slice(0, at);
    const value = at < 0 ? undefined : option.slice(at + 1);
    if (value === undefined && key !== "no-new-privileges") throw new Error(`Invalid --security-opt: ${JSON.stringify(option)}`);
    if (key === "seccomp" && value !== "unconfined" && value !== "builtin") {
      let text: string;
      try {
        text = readFileSync(value!, "utf8");
      } catch {
        throw new Error(`opening seccomp profile (${value}) failed: open ${value}: no such file or directory`);
      }
      try {
        out.push(`seccomp=${JSON.stringify(JSON.parse(text))}`);
      } catch (error) {
        throw new Error(`compacting json for seccomp profile (${value}) failed: ${(error as Error).message}`);
      }
      continue;
    }
    out.push(option);
  }
  return { options: out, systemPathsUnconfined };
}

export { isIPv4 };
