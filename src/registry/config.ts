// The configuration: flags, or a file in the CNCF registry's format (YAML, "version: 0.1"), so that a machine's /etc/docker/registry/config.yml serves as
// it is. What is not understood there is said, not passed over.
import { invalidArgument, messageOf, unimplemented } from "../lib/errors.ts";
import { MAX_MANIFEST } from "../oci/index.ts";
import type { EndpointConfig } from "./events.ts";
import type { TlsFiles } from "./listen.ts";

export interface TokenConfig {
  realm: string;
  service: string;
  issuer: string;
  /** PEM file of certificates or public keys. */
  rootCertBundle?: string;
  /** JSON Web Key Set. */
  jwks?: string;
  autoRedirect: boolean;
}

export interface ProxyConfig {
  remote: string;
  username: string;
  password: string;
  /** How long what nobody asked for is kept; 0 for ever. */
  ttlMs: number;
}

export interface Config {
  root: string;
  address: string;
  /** Address of /metrics and /debug/health alone; they are on `address` where there is none. */
  debugAddress: string | undefined;
  tls: TlsFiles | undefined;
  headers: Record<string, string | string[]>;
  mayDelete: boolean;
  readOnly: boolean;
  htpasswd: { realm: string; path: string } | undefined;
  token: TokenConfig | undefined;
  proxy: ProxyConfig | undefined;
  endpoints: EndpointConfig[];
  limits: { blob: number; manifest: number; uploads: number; catalog: number };
  /** Time for which what was asked for or brought is safe from garbage collection. */
  graceMs: number;
  /** Time between garbage collections; 0: only when asked for. */
  collectEveryMs: number;
  deleteUntagged: boolean;
  /** Age at which an upload that nobody continued is removed. */
  uploadAgeMs: number;
  idleMs: number;
  drainMs: number;
  logLevel: "debug" | "info" | "warn" | "error";
  accessLog: boolean;
}

const HOUR = 3_600_000;

export function defaults(): Config {
  return {
    root: "/var/lib/jubako-registry",
    address: "127.0.0.1:5000",
    debugAddress: undefined,
    tls: undefined,
    headers: {},
    mayDelete: true,
    readOnly: false,
    htpasswd: undefined,
    token: undefined,
    proxy: undefined,
    endpoints: [],
    limits: { blob: 1e12, manifest: MAX_MANIFEST, uploads: 1000, catalog: 1000 },
    graceMs: HOUR,
    collectEveryMs: 0,
    deleteUntagged: false,
    uploadAgeMs: 168 * HOUR,
    idleMs: 300_000,
    drainMs: 10_000,
    logLevel: "info",
    accessLog: false,
  };
}

const UNITS: Record<string, number> = { ns: 1e-6, us: 1e-3, µs: 1e-3, ms: 1, s: 1000, m: 60_000, h: HOUR };

/** Milliseconds of "1h30m", "500ms" (Go's form); a bare number is nanoseconds in Go's files, and only 0 is taken. */
export function parseDuration(text: string, what: string): number {
  if (text === "0") return 0;
  let rest = text;
  let total = 0;
  while (rest) {
    const match = /^(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)/.exec(rest);
    if (!match) throw invalidArgument(`${what}: ${text} is not a duration such as 1h30m`);
    total += Number(match[1]) * UNITS[match[2]!]!;
    rest = rest.slice(match[0].length);
  }
  if (text === "") throw invalidArgument(`${what}: empty duration`);
  return total;
}

/** Bytes of "10GB", "512MiB", "1000". */
export function parseSize(text: string, what: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?$/i.exec(text.trim());
  if (!match) throw invalidArgument(`${what}: ${text} is not a size such as 10GB`);
  const power = " kmgt".indexOf(match[2]!.toLowerCase() || " ");
  return Math.floor(Number(match[1]) * (match[3] ? 1024 : 1000) ** power);
}

/** A mapping of the file, read key by key; what nobody read is reported. */
interface Section {
  text(key: string): string | undefined;
  needed(key: string): string;
  flag(key: string): boolean | undefined;
  duration(key: string): number | undefined;
  count(key: string): number | undefined;
  texts(key: string): string[];
  section(key: string): Section | undefined;
  sections(key: string): Section[];
  headers(key: string): Record<string, string | string[]>;
  /** Known, but of no meaning here. */
  skip(...keys: string[]): void;
  keys(): string[];
}

function section(value: unknown, path: string, unread: Set<string>): Section {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw invalidArgument(`${path || "the configuration"} is not a mapping`);
  const map = value as Record<string, unknown>;
  const at = (key: string) => (path ? `${path}.${key}` : key);
  for (const key of Object.keys(map)) unread.add(at(key));
  const take = (key: string): unknown => {
    unread.delete(at(key));
    return map[key] ?? undefined;
  };
  const scalar = (key: string): string | undefined => {
    const found = take(key);
    if (found === undefined) return undefined;
    if (typeof found === "object") throw invalidArgument(`${at(key)} is not a text`);
    return String(found);
  };
  const self: Section = {
    text: scalar,
    needed(key) {
      const found = scalar(key);
      if (!found) throw invalidArgument(`${at(key)} is missing`);
      return found;
    },
    flag(key) {
      const found = take(key);
      if (found === undefined || typeof found === "boolean") return found;
      throw invalidArgument(`${at(key)} is neither true nor false`);
    },
    duration(key) {
      const found = scalar(key);
      return found === undefined ? undefined : parseDuration(found, at(key));
    },
    count(key) {
      const found = take(key);
      if (found === undefined || (typeof found === "number" && Number.isSafeInteger(found) && found >= 0)) return found;
      throw invalidArgument(`${at(key)} is not a number`);
    },
    texts(key) {
      const found = take(key);
      if (found === undefined) return [];
      if (!Array.isArray(found) || found.some((one) => typeof one !== "string")) throw invalidArgument(`${at(key)} is not a list of texts`);
      return found as string[];
    },
    section(key) {
      const found = take(key);
      return found === undefined ? undefined : section(found, at(key), unread);
    },
    sections(key) {
      const found = take(key);
      if (found === undefined) return [];
      if (!Array.isArray(found)) throw invalidArgument(`${at(key)} is not a list`);
      return found.map((one, i) => section(one, `${at(key)}[${i}]`, unread));
    },
    headers(key) {
      const found = self.section(key);
      const out: Record<string, string | string[]> = {};
      for (const name of found?.keys() ?? []) {
        const one = map[key] as Record<string, unknown>;
        const given = one[name];
        unread.delete(`${at(key)}.${name}`);
        out[name] = Array.isArray(given) ? given.map(String) : String(given);
      }
      return out;
    },
    skip(...keys) {
      for (const key of keys) unread.delete(at(key));
    },
    keys: () => Object.keys(map),
  };
  return self;
}

const LEVELS: Record<string, Config["logLevel"]> = {
  debug: "debug",
  trace: "debug",
  info: "info",
  warn: "warn",
  warning: "warn",
  error: "error",
  fatal: "error",
  panic: "error",
};

/** Reads a file's text. `unknown` are the keys that have no meaning here. */
export function parseConfig(text: string): { config: Config; unknown: string[] } {
  let value: unknown;
  try {
    value = Bun.YAML.parse(text);
  } catch (error) {
    throw invalidArgument(`the configuration is not YAML: ${messageOf(error)}`);
  }
  const unread = new Set<string>();
  const config = defaults();
  const top = section(value, "", unread);
  const version = top.text("version");
  if (version !== "0.1") throw invalidArgument(`the configuration's version is ${version ?? "missing"}; it must be 0.1`);
  readStorage(config, top);
  readHttp(config, top.section("http"));
  readAuth(config, top.section("auth"));
  const log = top.section("log");
  if (log) {
    config.logLevel = LEVELS[log.text("level") ?? "info"] ?? "info";
    log.skip("formatter", "fields", "hooks");
    config.accessLog = !(log.section("accesslog")?.flag("disabled") ?? false);
  }
  const proxy = top.section("proxy");
  const remote = proxy?.text("remoteurl");
  if (proxy && remote) {
    config.proxy = {
      remote,
      username: proxy.text("username") ?? "",
      password: proxy.text("password") ?? "",
      ttlMs: proxy.duration("ttl") ?? 168 * HOUR,
    };
  }
  for (const endpoint of top.section("notifications")?.sections("endpoints") ?? []) {
    const ignore = endpoint.section("ignore");
    const disabled = endpoint.flag("disabled") ?? false;
    const one: EndpointConfig = {
      name: endpoint.needed("name"),
      url: endpoint.needed("url"),
      headers: endpoint.headers("headers"),
      timeoutMs: endpoint.duration("timeout") || 5000,
      threshold: endpoint.count("threshold") || 10,
      backoffMs: endpoint.duration("backoff") || 1000,
      ignoredMediaTypes: [...endpoint.texts("ignoredmediatypes"), ...(ignore?.texts("mediatypes") ?? [])],
      ignoredActions: ignore?.texts("actions") ?? [],
    };
    if (!disabled) config.endpoints.push(one);
  }
  const catalog = top.section("catalog")?.count("maxentries");
  if (catalog) config.limits.catalog = catalog;
  const limits = top.section("limits");
  const size = (key: string) => {
    const found = limits?.text(key);
    return found === undefined ? undefined : parseSize(found, `limits.${key}`);
  };
  config.limits.blob = size("blob") ?? config.limits.blob;
  config.limits.manifest = Math.min(size("manifest") ?? MAX_MANIFEST, MAX_MANIFEST);
  config.limits.uploads = limits?.count("uploads") ?? config.limits.uploads;
  const collect = top.section("garbagecollection");
  config.collectEveryMs = collect?.duration("interval") ?? 0;
  config.graceMs = collect?.duration("grace") ?? config.graceMs;
  config.deleteUntagged = collect?.flag("deleteuntagged") ?? false;
  top.skip("health", "validation", "loglevel");
  // A section whose keys were skipped as a whole leaves none of them behind.
  return { config, unknown: [...unread].sort() };
}

function readStorage(config: Config, top: Section): void {
  const storage = top.section("storage");
  const filesystem = storage?.section("filesystem");
  if (!storage || !filesystem) {
    const other = storage?.keys().find((key) => !["delete", "maintenance", "cache", "redirect", "tag"].includes(key));
    throw other
      ? unimplemented(`storage driver ${other}: only filesystem is there`)
      : invalidArgument("storage.filesystem.rootdirectory is missing");
  }
  config.root = filesystem.text("rootdirectory") ?? "/var/lib/registry";
  filesystem.skip("maxthreads");
  storage.skip("cache", "redirect", "tag");
  // With a file, as there: off unless it says so.
  config.mayDelete = storage.section("delete")?.flag("enabled") ?? false;
  const maintenance = storage.section("maintenance");
  config.readOnly = maintenance?.section("readonly")?.flag("enabled") ?? false;
  const purging = maintenance?.section("uploadpurging");
  if (purging) {
    const age = purging.duration("age") ?? config.uploadAgeMs;
    config.uploadAgeMs = purging.flag("enabled") === false ? 0 : age;
    purging.skip("interval", "dryrun");
  }
}

function readHttp(config: Config, http: Section | undefined): void {
  if (!http) return;
  const address = http.text("addr") ?? ":5000";
  config.address = address;
  if ((http.text("net") ?? "tcp") !== "tcp") throw unimplemented("http.net: only tcp is there");
  if ((http.text("prefix") ?? "/") !== "/") throw unimplemented("http.prefix");
  http.skip("secret", "relativeurls", "host");
  if (http.section("h2c")?.flag("enabled")) throw unimplemented("http.h2c: HTTP/2 without TLS");
  const http2 = !http.section("http2")?.flag("disabled");
  config.headers = http.headers("headers");
  config.drainMs = http.duration("draintimeout") || config.drainMs;
  config.debugAddress = http.section("debug")?.text("addr");
  const tls = http.section("tls");
  const certificate = tls?.text("certificate");
  if (tls?.section("letsencrypt")) throw unimplemented("http.tls.letsencrypt");
  if (tls && certificate) {
    config.tls = {
      certificate,
      key: tls.needed("key"),
      clientCAs: tls.texts("clientcas"),
      minimum: tls.text("minimumtls") === "tls1.3" ? "TLSv1.3" : "TLSv1.2",
      http2,
    };
    tls.skip("ciphersuites");
  }
}

function readAuth(config: Config, auth: Section | undefined): void {
  if (!auth) return;
  const htpasswd = auth.section("htpasswd");
  if (htpasswd) config.htpasswd = { realm: htpasswd.text("realm") ?? "basic-realm", path: htpasswd.needed("path") };
  const token = auth.section("token");
  if (token) {
    const bundle = token.text("rootcertbundle");
    const jwks = token.text("jwks");
    if (!bundle && !jwks) throw invalidArgument("auth.token needs rootcertbundle or jwks: the keys that tokens are signed with");
    config.token = {
      realm: token.needed("realm"),
      service: token.needed("service"),
      issuer: token.needed("issuer"),
      ...(bundle ? { rootCertBundle: bundle } : {}),
      ...(jwks ? { jwks } : {}),
      autoRedirect: token.flag("autoredirect") ?? false,
    };
    token.skip("autoredirectpath", "signingalgorithms");
  }
  if (auth.keys().includes("silly")) throw unimplemented("auth.silly");
  if (htpasswd && token) throw invalidArgument("auth has both htpasswd and token: choose one");
}
