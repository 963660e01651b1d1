// The engine's settings: dockerd's flags and daemon.json. The same setting in both is an error, as with dockerd; an unknown one too.
import { readFileSync } from "node:fs";
import { isIP } from "node:net";
import { resolve } from "node:path";
import { failedPrecondition, invalidArgument, messageOf } from "../lib/errors.ts";
import {
  type AddressPool,
  checkPool,
  checkUlimits,
  defaultNetwork,
  normalizeHost,
  parseBytes,
  parsePool,
  parseUlimit,
  tlsMode,
} from "./config-values.ts";
import type { EngineConfig } from "./context.ts";

type Kind = "text" | "list" | "bool" | "int" | "pairs" | "bytes" | "runtime" | "ulimit" | "pools";

interface Setting {
  flag: string;
  short?: string;
  /** Key in daemon.json; undefined where there is none. */
  key?: string;
  kind: Kind;
  help: string;
}

const SETTINGS: Setting[] = [
  {
    flag: "host",
    short: "H",
    key: "hosts",
    kind: "list",
    help: "Address to serve the API on: unix://PATH, tcp://HOST:PORT or fd:// (default unix:///run/jubako/docker.sock)",
  },
  {
    flag: "data-root",
    key: "data-root",
    kind: "text",
    help: "Directory of what is kept: images, containers, volumes (default /var/lib/jubako)",
  },
  { flag: "exec-root", key: "exec-root", kind: "text", help: "Directory of what lives as long as the machine runs (default /run/jubako)" },
  { flag: "pidfile", short: "p", key: "pidfile", kind: "text", help: "File for the process id (default EXEC_ROOT/jubakod.pid)" },
  { flag: "config-file", kind: "text", help: "Settings as JSON, with dockerd's keys (default /etc/jubako/daemon.json)" },
  { flag: "containerd", key: "containerd", kind: "text", help: "Address of a containerd to use instead of the built-in manager" },
  { flag: "add-runtime", key: "runtimes", kind: "runtime", help: "Register another OCI runtime" },
  { flag: "default-runtime", key: "default-runtime", kind: "text", help: "Runtime of containers that ask for none (default jubako)" },
  { flag: "bip", key: "bip", kind: "text", help: "Address and prefix length of the default bridge" },
  { flag: "bridge", short: "b", key: "bridge", kind: "text", help: "Name of the default bridge; none for no bridge (default jubako0)" },
  { flag: "ipv6", key: "ipv6", kind: "bool", help: "Give containers on the default bridge IPv6 addresses, too" },
  { flag: "fixed-cidr", key: "fixed-cidr", kind: "text", help: "Part of the default bridge's subnet for containers' addresses" },
  { flag: "fixed-cidr-v6", key: "fixed-cidr-v6", kind: "text", help: "IPv6 subnet of the default bridge (default: a unique local one)" },
  { flag: "mtu", key: "mtu", kind: "int", help: "Largest packet on the default bridge (default 1500)" },
  { flag: "icc", key: "icc", kind: "bool", help: "Let containers on the default bridge reach each other (default true)" },
  { flag: "ip-masq", key: "ip-masq", kind: "bool", help: "Hide the default bridge's addresses behind the host's (default true)" },
  { flag: "ip", key: "ip", kind: "text", help: "Address of the host for published ports of the default bridge (default 0.0.0.0)" },
  {
    flag: "default-address-pool",
    key: "default-address-pools",
    kind: "pools",
    help: "Range that networks' subnets are cut from, as base=10.10.0.0/16,size=24",
  },
  { flag: "debug", short: "D", key: "debug", kind: "bool", help: "Log what happens inside" },
  { flag: "log-level", short: "l", key: "log-level", kind: "text", help: "debug, info, warn, error or fatal (default info)" },
  { flag: "tls", key: "tls", kind: "bool", help: "Serve tcp with TLS; --tls=false serves it unprotected" },
  { flag: "tlsverify", key: "tlsverify", kind: "bool", help: "Serve tcp with TLS to clients with a certificate of --tlscacert" },
  { flag: "tlscacert", key: "tlscacert", kind: "text", help: "Certificates that clients' must be signed by (default /etc/jubako/ca.pem)" },
  { flag: "tlscert", key: "tlscert", kind: "text", help: "The engine's certificate (default /etc/jubako/server-cert.pem)" },
  { flag: "tlskey", key: "tlskey", kind: "text", help: "The key of --tlscert (default /etc/jubako/server-key.pem)" },
  { flag: "label", key: "labels", kind: "list", help: "Label of the engine, key=value" },
  { flag: "dns", key: "dns", kind: "list", help: "Name server of containers" },
  { flag: "dns-opt", key: "dns-opts", kind: "list", help: "Resolver option of containers" },
  { flag: "dns-search", key: "dns-search", kind: "list", help: "Search domain of containers" },
  { flag: "log-driver", key: "log-driver", kind: "text", help: "Log driver of containers that ask for none (default json-file)" },
  { flag: "log-opt", key: "log-opts", kind: "pairs", help: "Option of the default log driver" },
  {
    flag: "insecure-registry",
    key: "insecure-registries",
    kind: "list",
    help: "Registry, or CIDR of registries, that may be asked without TLS",
  },
  { flag: "registry-mirror", key: "registry-mirrors", kind: "list", help: "Mirror of Docker Hub to ask first" },
  { flag: "group", short: "G", key: "group", kind: "text", help: "Group of the unix sockets (default docker)" },
  { flag: "default-ulimit", key: "default-ulimits", kind: "ulimit", help: "Limit of containers, as nofile=1024:4096" },
  { flag: "init-path", key: "init-path", kind: "text", help: "Program for --init (default docker-init, or a built-in one)" },
  { flag: "init", key: "init", kind: "bool", help: "Run an init in every container" },
  { flag: "default-shm-size", key: "default-shm-size", kind: "bytes", help: "Size of /dev/shm (default 64m)" },
  { flag: "cgroup-parent", key: "cgroup-parent", kind: "text", help: "Parent cgroup of all containers" },
  { flag: "exec-opt", key: "exec-opts", kind: "list", help: "Option of the runtime: native.cgroupdriver=cgroupfs (default) or systemd" },
  { flag: "live-restore", key: "live-restore", kind: "bool", help: "Containers run on while the engine is stopped" },
  {
    flag: "shutdown-timeout",
    key: "shutdown-timeout",
    kind: "int",
    help: "Seconds that containers get to stop when the engine ends (default 15)",
  },
  {
    flag: "max-concurrent-downloads",
    key: "max-concurrent-downloads",
    kind: "int",
    help: "Layers of a pull that are fetched at once (default 3)",
  },
  {
    flag: "max-concurrent-uploads",
    key: "max-concurrent-uploads",
    kind: "int",
    help: "Layers of a push that are sent at once (default 5)",
  },
  {
    flag: "max-download-attempts",
    key: "max-download-attempts",
    kind: "int",
    help: "How often a registry is asked again while it fails (default 5)",
  },
  { flag: "http-proxy", key: "http-proxy", kind: "text", help: "Proxy for http:// registries (default: the environment's HTTP_PROXY)" },
  { flag: "https-proxy", key: "https-proxy", kind: "text", help: "Proxy for https:// registries (default: the environment's HTTPS_PROXY)" },
  { flag: "no-proxy", key: "no-proxy", kind: "text", help: "Hosts that are asked without a proxy (default: the environment's NO_PROXY)" },
  { flag: "warm-networks", key: "warm-networks", kind: "int", help: "Network namespaces that are kept ready (default 2)" },
  { flag: "validate", kind: "bool", help: "Check the settings and end" },
  { flag: "version", short: "v", kind: "bool", help: "Print the version and end" },
  { flag: "help", short: "h", kind: "bool", help: "Print this and end" },
];

/** How the value of a flag is shown. */
const VALUES: Record<Kind, string> = {
  text: " string",
  list: " list",
  bool: "",
  int: " int",
  pairs: " name=value",
  bytes: " bytes",
  runtime: " name=path",
  ulimit: " ulimit",
  pools: " pool",
};

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
  const { proxies = {}, builder = {}, features = {}, ...rest } = parsed as Record<string, unknown>;
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
