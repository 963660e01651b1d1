// jubako-registry: the distribution server's command line.
import { readFileSync } from "node:fs";
import { messageOf } from "../lib/errors.ts";
import { type Config, defaults, parseConfig, parseDuration, parseSize } from "./config.ts";
import type { Log } from "./server.ts";

const USAGE = `Usage: jubako-registry COMMAND [OPTIONS]

A registry of images and other artifacts: OCI distribution 1.1

Commands:
  serve               serve until SIGTERM
  garbage-collect     remove what nothing names; also while it is served

Options of both:
      --root DIR          where everything is kept (default ${defaults().root})
      --config FILE       configuration in the CNCF registry's format (YAML); a flag outweighs it

Options of serve:
      --addr HOST:PORT    address to listen on (default ${defaults().address})
      --debug-addr A      address for /metrics and /debug/health alone
      --tls-cert FILE, --tls-key FILE   serve TLS, with HTTP/2 for who can; --tls-client-ca FILE asks clients for certificates;
                          new files are taken up within a minute, at once by SIGHUP
      --htpasswd FILE     users and their passwords (bcrypt: htpasswd -B)
      --read-only         take no pushes and deletions
      --no-delete         take no deletions
      --proxy URL         be a pull-through cache of that registry
      --max-blob SIZE     largest blob that is taken (10GB)
      --gc-interval TIME  collect garbage so often (24h)
      --gc-grace TIME     what was asked for or brought lately is safe for so long (default 1h)
      --access-log        log every request
      --log-level LEVEL   debug, info, warn, error

Options of garbage-collect:
  -d, --dry-run           only say what would be removed
  -m, --delete-untagged   remove manifests too that no tag, index or subject leads to
      --grace TIME        instead of the server's grace time (offline only)
  -v, --version, -h, --help
`;

const VERSION = "0.1.0";
const LEVELS = ["debug", "info", "warn", "error"] as const;

interface Parsed {
  command: string;
  config: Config;
  unknown: string[];
  dryRun: boolean;
  deleteUntagged: boolean;
}

function parse(argv: string[]): Parsed | string {
  const flags = new Map<string, string>();
  const rest: string[] = [];
  const alone = new Set(["read-only", "no-delete", "access-log", "dry-run", "delete-untagged", "help", "version"]);
  const taking = new Set([
    "root",
    "config",
    "addr",
    "debug-addr",
    "tls-cert",
    "tls-key",
    "tls-client-ca",
    "htpasswd",
    "proxy",
    "max-blob",
    "gc-interval",
    "gc-grace",
    "grace",
    "log-level",
  ]);
  const short: Record<string, string> = { d: "dry-run", m: "delete-untagged", h: "help", v: "version" };
  for (let i = 0; i < argv.length; i++) {
    const arg = argv[i]!;
    if (!arg.startsWith("-")) {
      rest.push(arg);
      continue;
    }
    const equals = arg.indexOf("=");
    const raw = (equals < 0 ? arg : arg.slice(0, equals)).replace(/^--?/, "");
    const name = short[raw] ?? raw;
    if (alone.has(name)) flags.set(name, equals < 0 ? "true" : arg.slice(equals + 1));
    else if (taking.has(name)) {
      const value = equals < 0 ? argv[++i] : arg.slice(equals + 1);
      if (value === undefined) throw new Error(`flag needs an argument: ${arg}`);
      flags.set(name, value);
    } else throw new Error(`unknown flag: ${arg}`);
  }
  if (flags.has("version")) return `jubako-registry ${VERSION}\n`;
  const command = rest.shift();
  if (flags.has("help") || command === undefined || command === "help") return USAGE;
  if (command !== "serve" && command !== "garbage-collect")
    throw new Error(`unknown command: ${command}; there are serve and garbage-collect`);
  // The CNCF registry takes the file as an argument; both forms work.
  const file = flags.get("config") ?? rest.shift();
  if (rest.length > 0) throw new Error(`too many arguments: ${rest.join(" ")}`);
  const { config, unknown } = file === undefined ? { config: defaults(), unknown: [] } : parseConfig(readFileSync(file, "utf8"));
  const on = (name: string) => flags.has(name) && flags.get(name) !== "false";
  config.root = flags.get("root") ?? config.root;
  config.address = flags.get("addr") ?? config.address;
  config.debugAddress = flags.get("debug-addr") ?? config.debugAddress;
  const certificate = flags.get("tls-cert");
  const key = flags.get("tls-key");
  if ((certificate === undefined) !== (key === undefined)) throw new Error("--tls-cert and --tls-key go together");
  if (certificate !== undefined && key !== undefined) {
    const ca = flags.get("tls-client-ca");
    config.tls = { certificate, key, clientCAs: ca === undefined ? [] : [ca], minimum: "TLSv1.2", http2: true };
  }
  const htpasswd = flags.get("htpasswd");
  if (htpasswd !== undefined) config.htpasswd = { realm: "Registry Realm", path: htpasswd };
  if (on("read-only")) config.readOnly = true;
  if (on("no-delete")) config.mayDelete = false;
  const proxy = flags.get("proxy");
  if (proxy !== undefined) config.proxy = { remote: proxy, username: "", password: "", ttlMs: 168 * 3_600_000 };
  const blob = flags.get("max-blob");
  if (blob !== undefined) config.limits.blob = parseSize(blob, "--max-blob");
  const interval = flags.get("gc-interval");
  if (interval !== undefined) config.collectEveryMs = parseDuration(interval, "--gc-interval");
  const grace = flags.get("gc-grace") ?? flags.get("grace");
  if (grace !== undefined) config.graceMs = parseDuration(grace, "--gc-grace");
  if (on("access-log")) config.accessLog = true;
  const level = flags.get("log-level");
  if (level !== undefined) {
    const known = LEVELS.find((one) => one === level);
    if (!known) throw new Error(`--log-level: ${level} is not one of ${LEVELS.join(", ")}`);
    config.logLevel = known;
  }
  return { command, config, unknown, dryRun: on("dry-run"), deleteUntagged: on("delete-untagged") || config.deleteUntagged };
}

/** Lines of logfmt; those of one turn are written together. */
function createLog(wanted: Config["logLevel"]): Log {
  let pending = "";
  return (level, message, fields = {}) => {
    if (LEVELS.indexOf(level) < LEVELS.indexOf(wanted)) return;
    const extra = Object.entries(fields).map(([key, value]) => ` ${key}=${typeof value === "number" ? value : JSON.stringify(value)}`);
    if (pending === "")
      setImmediate(() => {
        const text = pending;
        pending = "";
        process.stderr.write(text);
      });
    pending += `time=${JSON.stringify(new Date().toISOString())} level=${level} msg=${JSON.stringify(message)}${extra.join("")}\n`;
  };
}

export async function main(argv: string[]): Promise<number> {
  try {
    const parsed = parse(argv);
    if (typeof parsed === "string") {
      process.stdout.write(parsed);
      return 0;
    }
    const { config } = parsed;
    const log = createLog(config.logLevel);
    for (const key of parsed.unknown) log("warn", `the configuration's ${key} has no meaning here`);
    const { collectOffline, createRegistry } = await import("./registry.ts");
    if (parsed.command === "garbage-collect") {
      const { dryRun, deleteUntagged } = parsed;
      await collectOffline(config, { dryRun, deleteUntagged, report: (line) => void process.stdout.write(`${line}\n`) });
      return 0;
    }
    const registry = await createRegistry(config, log);
    log("info", "registry served", { address: registry.address, root: config.root, version: VERSION });
    process.on("SIGHUP", () => registry.reload());
    await new Promise<void>((resolve) => {
      process.once("SIGTERM", resolve);
      process.once("SIGINT", resolve);
    });
    await registry.close();
    return 0;
  } catch (error) {
    process.stderr.write(`jubako-registry: ${messageOf(error)}\n`);
    return 1;
  }
}
