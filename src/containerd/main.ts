// jubako-containerd: the manager as a process of its own, with containerd's flags.
import { readFileSync } from "node:fs";
import { messageOf } from "../lib/errors.ts";
import { type Config, defaults, printDefaults, readConfig } from "./config.ts";
import { createManager, serve } from "./index.ts";
import type { Log } from "./state.ts";
import { REVISION, VERSION } from "./version.ts";

const USAGE = `Usage: jubako-containerd [OPTIONS] [config default]

The container manager: containerd's v1 API on a unix socket

Options:
  -c, --config FILE       configuration file (containerd's config.toml: root, state, [grpc] address, [debug] level)
  -a, --address SOCKET    address of the gRPC socket (default ${defaults.address})
      --root DIR          directory of persistent data (default ${defaults.root})
      --state DIR         directory of run-time state (default ${defaults.state})
  -l, --log-level LEVEL   debug, info, warn, error
  -v, --version           print the version
  -h, --help              print this
`;

const levels = ["debug", "info", "warn", "error"] as const;

export async function main(argv: string[]): Promise<number> {
  let config: Config;
  const warnings: string[] = [];
  try {
    const parsed = parse(argv);
    if (typeof parsed === "string") {
      process.stdout.write(parsed);
      return 0;
    }
    const file = parsed.file === undefined ? { config: {}, unknown: [] } : readConfig(readFileSync(parsed.file, "utf8"));
    warnings.push(...file.unknown);
    config = { ...defaults, ...file.config, ...parsed.flags };
  } catch (error) {
    process.stderr.write(`jubako-containerd: ${messageOf(error)}\n`);
    return 1;
  }
  const wanted = { trace: 0, debug: 0, info: 1, warn: 2, warning: 2, error: 3, fatal: 3, panic: 3 }[config.logLevel] ?? 1;
  const log: Log = (level, message, fields = {}) => {
    if (levels.indexOf(level) < wanted) return;
    const extra = Object.entries(fields).map(([key, value]) => ` ${key}=${JSON.stringify(value)}`);
    process.stderr.write(
      `time=${JSON.stringify(new Date().toISOString())} level=${level} msg=${JSON.stringify(message)}${extra.join("")}\n`,
    );
  };
  for (const warning of warnings) log("warn", warning);
  // From here on: what has been started by the time that somebody asks is to be ended, too.
  const asked = new Promise<void>((resolve) => {
    process.once("SIGTERM", resolve);
    process.once("SIGINT", resolve);
  });
  try {
    const manager = await createManager({ root: config.root, state: config.state, address: config.address, log });
    const server = await serve(manager, config.address).catch(async (error) => {
      await manager.close();
      throw error;
    });
    log("info", "containerd API served", { address: config.address, root: config.root, version: VERSION });
    await asked;
    await server.close();
    await manager.close();
    return 0;
  } catch (error) {
    process.stderr.write(`jubako-containerd: ${messageOf(error)}\n`);
    return 1;
  }
}

/** Flags as given, or the text to print. */
function parse(argv: string[]): { flags: Partial<Config>; file: string | undefined } | string {
  const flags: Partial<Config> = {};
  let file: string | undefined;
  const rest: string[] = [];
  for (let i = 0; i < argv.length; i++) {
    const arg = argv[i]!;
    if (!arg.startsWith("-")) {
      rest.push(arg);
      continue;
    }
    const [name, inline] = split(arg.replace(/^--?/, ""));
    const text = (): string => {
      const given = inline ?? argv[++i];
      if (given === undefined) throw new Error(`flag needs an argument: ${arg}`);
      return given;
    };
    if (name === "c" || name === "config") file = text();
    else if (name === "a" || name === "address") flags.address = text();
    else if (name === "root") flags.root = text();
    else if (name === "state") flags.state = text();
    else if (name === "l" || name === "log-level") flags.logLevel = text();
    else if (name === "v" || name === "version") return `jubako-containerd github.com/containerd/containerd v${VERSION} ${REVISION}\n`;
    else if (name === "h" || name === "help") return USAGE;
    else throw new Error(`flag provided but not defined: ${arg}`);
  }
  if (rest.length === 2 && rest[0] === "config" && rest[1] === "default") return printDefaults();
  if (rest.length > 0) throw new Error(`unknown command "${rest.join(" ")}"; there is "config default"`);
  return { flags, file };
}

function split(flag: string): [string, string | undefined] {
  const at = flag.indexOf("=");
  return at < 0 ? [flag, undefined] : [flag.slice(0, at), flag.slice(at + 1)];
}
