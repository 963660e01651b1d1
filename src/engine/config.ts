// The engine's settings: dockerd's flags and daemon.json. The same setting in both is an error, as with dockerd; an unknown one too.
import { readFileSync } from "node:fs";
import { isIP } from "node:net";
import { resolve } from "node:path";
import { failedPrecondition, invalidArgument, messageOf } from "../lib/errors.ts";
import { SETTINGS, type Setting, VALUES } from "./config-table.ts";
import {
  type AddressPool,
  checkAlike,
  checkPool,
  checkUlimits,
  containerDefaults,
  defaultNetwork,
  normalizeHost,
  parseBytes,
  parsePool,
  parseUlimit,
  tlsMode,
} from "./config-values.ts";
import type { EngineConfig } from "./context.ts";

/** What was said, by flag name; lists keep their order. */
type Said = Record<string, unknown>;

/** What only the process itself needs, beside the resources' settings. */
export interface DaemonOptions {
  config: EngineConfig;
  configFile: string;
  action: "run" | "validate" | "version" | "help";
}

const DEFAULT_CONFIG_FILE = "/etc/jubako/daemon.json";

const LOG_LEVELS = ["debug", "info", "warn", "error", "fatal"];

function truth(name: string, text: string): boolean {
  if (/^(1|t|true)$/i.test(text)) return true;
  if (/^(0|f|false)$/i.test(text)) return false;
  throw invalidArgument(`invalid argument "${text}" for "--${name}" flag: not a boolean`);
}

function add(said: Said, setting: Setting, text: string): void {
  const name = setting.flag;
  const pair = () => {
    const equals = text.indexOf("=");
    if (equals <= 0) throw invalidArgument(`invalid argument "${text}" for "--${name}" flag: must be of the form name=value`);
    return [text.slice(0, equals), text.slice(equals + 1)] as const;
  };
  const map = () => {
    said[name] ??= {};
    return said[name] as Record<string, unknown>;
  };
  if (setting.kind === "bool") said[name] = truth(name, text);
  else if (setting.kind === "int") {
    if (!/^-?\d+$/.test(text)) throw invalidArgument(`invalid argument "${text}" for "--${name}" flag: not a number`);
    said[name] = Number(text);
  } else if (setting.kind === "bytes") said[name] = parseBytes(text);
  else if (setting.kind === "list") {
    said[name] ??= [];
    (said[name] as string[]).push(text);
  } else if (setting.kind === "pairs") {
    const [key, value] = pair();
    map()[key] = value;
  } else if (setting.kind === "runtime") {
    const [key, value] = pair();
    map()[key] = value.includes("/") || !value.startsWith("io.containerd.") ? { path: value } : { runtimeType: value };
  } else if (setting.kind === "ulimit") {
    const limit = parseUlimit(text);
    map()[limit.Name] = limit;
  } else if (setting.kind === "pools") {
    said[name] ??= [];
    (said[name] as AddressPool[]).push(parsePool(text));
  } else said[name] = text;
}

/** Reads flags: `--name value`, `--name=value`, `-n value`, `-n=value`, `-nvalue`, and several short switches in one. */
function readFlags(argv: string[]): Said {
  const said: Said = {};
  for (let i = 0; i < argv.length; i++) {
    const argument = argv[i]!;
    const take = (setting: Setting, inline: string | undefined, shown: string) => {
      if (inline !== undefined) return add(said, setting, inline);
      if (setting.kind === "bool") return add(said, setting, "true");
      const value = argv[++i];
      if (value === undefined) throw invalidArgument(`flag needs an argument: ${shown}`);
      add(said, setting, value);
    };
    if (argument.startsWith("--")) {
      const equals = argument.indexOf("=");
      const name = argument.slice(2, equals < 0 ? undefined : equals);
      const setting = SETTINGS.find((each) => each.flag === name);
      if (!setting) throw invalidArgument(`unknown flag: --${name}`);
      take(setting, equals < 0 ? undefined : argument.slice(equals + 1), `--${name}`);
    } else if (/^-[A-Za-z]/.test(argument)) {
      for (let at = 1; at < argument.length; at++) {
        const letter = argument[at]!;
        const setting = SETTINGS.find((each) => each.short === letter);
        if (!setting) throw invalidArgument(`unknown shorthand flag: '${letter}' in ${argument}`);
        const rest = argument.slice(at + 1);
        if (setting.kind === "bool" && !rest.startsWith("=")) {
          take(setting, undefined, `-${letter}`);
          continue;
        }
        take(setting, rest === "" ? undefined : rest.replace(/^=/, ""), `-${letter}`);
        break;
      }
    } else throw invalidArgument(`unknown argument: ${argument}; jubakod takes flags only`);
  }
  return said;
}

function wrong(key: string, expected: string): Error {
  return invalidArgument(`the setting "${key}" must be ${expected}`);
}

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null && !Array.isArray(value);

/** What daemon.json says of builds, by names that no flag has. Features that are not known here are not looked at, as with dockerd. */
function buildSettings(builder: unknown, features: unknown): Said {
  if (!isObject(builder)) throw wrong("builder", "an object");
  if (!isObject(features) || Object.values(features).some((each) => typeof each !== "boolean"))
    throw wrong("features", "an object of booleans");
  const { entitlements = {}, gc = {}, ...others } = builder;
  const [other] = Object.keys(others);
  if (other !== undefined) throw invalidArgument(`the setting "builder.${other}" is not supported`);
  if (!isObject(entitlements)) throw wrong("builder.entitlements", "an object");
  for (const [key, value] of Object.entries(entitlements)) {
    if (!["network-host", "security-insecure"].includes(key))
      throw invalidArgument(`the setting "builder.entitlements.${key}" is not supported`);
    if (typeof value !== "boolean") throw wrong(`builder.entitlements.${key}`, "true or false");
  }
  if (!isObject(gc)) throw wrong("builder.gc", "an object");
  const { enabled = true, defaultKeepStorage, defaultReservedSpace = defaultKeepStorage, ...policy } = gc;
  const [rule] = Object.keys(policy);
  if (rule !== undefined) throw invalidArgument(`the setting "builder.gc.${rule}" is not supported`);
  if (typeof enabled !== "boolean") throw wrong("builder.gc.enabled", "true or false");
  return {
    "build-collect": { enabled, reservedSpace: defaultReservedSpace === undefined ? undefined : parseBytes(String(defaultReservedSpace)) },
    "build-network-host": entitlements["network-host"] !== false,
    "build-security-insecure": entitlements["security-insecure"] === true,
    "build-by-default": features.buildkit !== false,
  };
}

/** daemon.json as what it says, by flag name. */
function readFile(file: string, text: string): Said {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw invalidArgument(`unable to configure the engine with file ${file}: ${messageOf(error)}`);
  }
  if (parsed === null || typeof parsed !== "object" || Array.isArray(parsed)) throw invalidArgument(`${file} must hold a JSON object`);
  const said: Said = {};
  const unknown: string[] = [];
  const { proxies = {}, builder = {}, features = {}, "host-gateway-ip": gateway, ...rest } = parsed as Record<string, unknown>;
  // Its name until several were allowed.
  if (gateway !== undefined) rest["host-gateway-ips"] ??= [gateway];
  if (!isObject(proxies)) throw wrong("proxies", "an object");
  Object.assign(said, buildSettings(builder, features));
  for (const [key, value] of Object.entries({ ...rest, ...proxies })) {
    const setting = SETTINGS.find((each) => each.key === key);
    if (!setting) {
      unknown.push(key);
      continue;
    }
    const strings = (list: unknown): list is string[] => Array.isArray(list) && list.every((each) => typeof each === "string");
    const object = typeof value === "object" && value !== null && !Array.isArray(value);
    if (setting.kind === "text" && typeof value !== "string") throw wrong(key, "a string");
    if (setting.kind === "bool" && typeof value !== "boolean") throw wrong(key, "true or false");
    if (setting.kind === "int" && !Number.isInteger(value)) throw wrong(key, "a number");
    if (setting.kind === "list" && !strings(value)) throw wrong(key, "a list of strings");
    if (["pairs", "runtime", "ulimit"].includes(setting.kind) && !object) throw wrong(key, "an object");
    if (setting.kind === "pools" && !Array.isArray(value)) throw wrong(key, "a list");
    if (setting.kind === "ulimit") said[setting.flag] = checkUlimits(value as Record<string, unknown>);
    else if (setting.kind === "bytes") said[setting.flag] = parseBytes(String(value));
    else said[setting.flag] = setting.kind === "pools" ? (value as unknown[]).map(checkPool) : value;
  }
  if (unknown.length > 0) {
    throw invalidArgument(
      `unable to configure the engine with file ${file}: the following directives don't match any configuration option: ${unknown.join(", ")}`,
    );
  }
  return said;
}

function assemble(said: Said): EngineConfig {
  const text = (name: string) => said[name] as string | undefined;
  const list = (name: string) => (said[name] as string[] | undefined) ?? [];
  const number = (name: string, absent: number) => (said[name] as number | undefined) ?? absent;
  const path = (name: string, absent: string) => resolve(text(name) || absent);
  const tls = said.tls === true || said.tlsverify === true;
  const hosts = (list("host").length > 0 ? list("host") : ["unix:///run/jubako/docker.sock"]).map((host) => normalizeHost(host, tls));
  const execRoot = path("exec-root", "/run/jubako");
  const level = text("log-level") ?? "info";
  if (!LOG_LEVELS.includes(level)) throw invalidArgument(`invalid logging level: ${level}`);
  const bip = text("bip");
  if (bip !== undefined && !/^(\d{1,3}\.){3}\d{1,3}\/\d{1,2}$/.test(bip)) throw invalidArgument(`invalid CIDR address: ${bip}`);
  if (bip !== undefined && text("bridge") !== undefined && text("bridge") === "none") {
    throw invalidArgument("you specified --bip and disabled the bridge with --bridge=none; the two exclude each other");
  }
  for (const address of list("dns")) if (isIP(address) === 0) throw invalidArgument(`${address} is not an ip address`);
  for (const label of list("label"))
    if (!/^[^=]+=/.test(label)) throw invalidArgument(`bad attribute format: ${label}: a label is key=value`);
  const runtimes = (said["add-runtime"] ?? {}) as EngineConfig["runtimes"];
  const defaultRuntime = text("default-runtime") || "jubako";
  if (defaultRuntime !== "jubako" && !runtimes[defaultRuntime] && !defaultRuntime.startsWith("io.containerd."))
    throw invalidArgument(`specified default runtime '${defaultRuntime}' does not exist`);
  for (const address of list("host-gateway-ip")) if (isIP(address) === 0) throw invalidArgument(`${address} is not an ip address`);
  checkAlike(said);
  const containerd = text("containerd");
  return {
    hosts,
    dataRoot: path("data-root", "/var/lib/jubako"),
    execRoot,
    pidfile: path("pidfile", `${execRoot}/jubakod.pid`),
    debug: said.debug === true || level === "debug",
    logLevel: level as NonNullable<EngineConfig["logLevel"]>,
    containerd: containerd ? resolve(containerd.replace(/^unix:\/\//, "")) : undefined,
    runtimes,
    defaultRuntime,
    bridge: text("bridge") || "jubako0",
    bip,
    defaultNetwork: defaultNetwork(said, bip),
    hostGateways: list("host-gateway-ip"),
    ipForward: said["ip-forward"] !== false,
    containerDefaults: containerDefaults(said),
    addressPools: said["default-address-pool"] as EngineConfig["addressPools"],
    dns: list("dns"),
    dnsOptions: list("dns-opt"),
    dnsSearch: list("dns-search"),
    logDriver: text("log-driver") ?? "json-file",
    logOpts: (said["log-opt"] ?? {}) as Record<string, string>,
    labels: list("label"),
    insecureRegistries: list("insecure-registry"),
    registryMirrors: list("registry-mirror"),
    maxConcurrentDownloads: number("max-concurrent-downloads", 3),
    maxConcurrentUploads: number("max-concurrent-uploads", 5),
    maxDownloadAttempts: number("max-download-attempts", 5),
    proxies: {
      ...(text("http-proxy") ? { http: text("http-proxy")! } : {}),
      ...(text("https-proxy") ? { https: text("https-proxy")! } : {}),
      ...(text("no-proxy") ? { none: text("no-proxy")! } : {}),
    },
    shutdownTimeout: number("shutdown-timeout", 15),
    builder: {
      entitlements: [
        ...(said["build-network-host"] === false ? [] : ["network.host"]),
        ...(said["build-security-insecure"] === true ? ["security.insecure"] : []),
      ],
      preferred: said["build-by-default"] !== false,
      collect: (said["build-collect"] as NonNullable<EngineConfig["builder"]>["collect"]) ?? { enabled: true, reservedSpace: undefined },
    },
    initBinary: text("init-path"),
    init: said.init === true,
    liveRestore: said["live-restore"] === true,
    experimental: said.experimental === true,
    group: text("group") ?? "docker",
    tls: {
      mode: tlsMode(said.tls, said.tlsverify),
      ca: path("tlscacert", "/etc/jubako/ca.pem"),
      cert: path("tlscert", "/etc/jubako/server-cert.pem"),
      key: path("tlskey", "/etc/jubako/server-key.pem"),
    },
    defaultShmSize: number("default-shm-size", 64 * 1024 * 1024),
    defaultUlimits: (said["default-ulimit"] ?? {}) as EngineConfig["defaultUlimits"],
    cgroupParent: text("cgroup-parent") ?? "",
    cgroupDriver: cgroupDriverOf(list("exec-opt")),
    warmNetworks: number("warm-networks", 2),
  };
}

/** In dockerd's words where it has some. */
function cgroupDriverOf(options: string[]): EngineConfig["cgroupDriver"] {
  let driver: EngineConfig["cgroupDriver"] = "cgroupfs";
  for (const option of options) {
    const [key, value] = option.includes("=")
      ? [option.slice(0, option.indexOf("=")), option.slice(option.indexOf("=") + 1)]
      : [option, ""];
    if (key.trim().toLowerCase() !== "native.cgroupdriver")
      throw invalidArgument(`exec-opt ${option} is not supported: there is native.cgroupdriver`);
    if (value !== "systemd" && value !== "cgroupfs")
      throw invalidArgument(`unknown cgroup driver ${JSON.stringify(value)}: it is cgroupfs or systemd`);
    driver = value;
  }
  return driver;
}

/** Flags and file to settings. `read` gives the text of daemon.json, or undefined where there is no such file. */
export function parseOptions(argv: string[], read: (file: string) => string | undefined = readIfThere): DaemonOptions {
  const flags = readFlags(argv);
  const configFile = (flags["config-file"] as string | undefined) ?? DEFAULT_CONFIG_FILE;
  const text = read(configFile);
  if (text === undefined && flags["config-file"] !== undefined) {
    throw failedPrecondition(`unable to configure the engine with file ${configFile}: open ${configFile}: no such file or directory`);
  }
  const file = text === undefined ? {} : readFile(configFile, text);
  const both = SETTINGS.filter((each) => each.flag in flags && each.flag in file && each.kind !== "runtime");
  if (both.length > 0) {
    const conflicts = both.map(({ flag, key }) => `${key}: (from flag: ${shown(flags[flag])}, from file: ${shown(file[flag])})`);
    throw invalidArgument(
      `unable to configure the engine with file ${configFile}: the following directives are specified both as a flag and in the configuration file: ${conflicts.join(", ")}`,
    );
  }
  const said: Said = { ...file, ...flags };
  if (file["add-runtime"] && flags["add-runtime"])
    said["add-runtime"] = { ...(file["add-runtime"] as object), ...(flags["add-runtime"] as object) };
  const action = said.help ? "help" : said.version ? "version" : said.validate ? "validate" : "run";
  return { config: assemble(said), configFile, action };
}

/** What SIGHUP changes in a running engine, as with dockerd. */
const RELOADABLE = [
  "debug",
  "labels",
  "liveRestore",
  "shutdownTimeout",
  "insecureRegistries",
  "registryMirrors",
  "maxConcurrentDownloads",
  "maxConcurrentUploads",
  "maxDownloadAttempts",
] as const;

/** Takes over the settings that can change while the engine runs; gives their names. */
export function reloadInto(config: EngineConfig, next: EngineConfig): string[] {
  const changed = RELOADABLE.filter((name) => JSON.stringify(config[name]) !== JSON.stringify(next[name]));
  for (const name of changed) Object.assign(config, { [name]: next[name] });
  return changed;
}

function shown(value: unknown): string {
  return Array.isArray(value) ? `[${value.join(" ")}]` : typeof value === "object" ? JSON.stringify(value) : String(value);
}

function readIfThere(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

export function usage(): string {
  const rows = SETTINGS.toSorted((a, b) => (a.flag < b.flag ? -1 : 1)).map(({ flag, short, kind, help }) => {
    const named = `  ${short ? `-${short}, ` : "    "}--${flag}${VALUES[kind]}`;
    return `${named.padEnd(40)} ${help}`;
  });
  return `Usage: jubakod [OPTIONS]\n\nThe container engine.\n\nOptions:\n${rows.join("\n")}\n`;
}
