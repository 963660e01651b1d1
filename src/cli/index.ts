// jubako, the command line: a drop-in for docker's. It must never know how an engine works, only the client's methods.
//
// Protocol at its door: arguments, standard streams, signals and exit statuses, as docker's CLI has them; behind it the Engine API by way of
// client/. Rendering (formatter, table, template, units) is apart from requests (commands/).
//
// Nouns: a Command is usage, flags and arguments as data, and `run`; a Cli is what a command has at hand. One run: the global flags end at the
// first argument; it names an entry of commands.ts; only that command's file is loaded; its flags are parsed; it runs; what it throws becomes
// a message and an exit status (StatusError: its own; a wrong flag: 125; anything else: 1).
//
//   process.exit(await main(["run", "--rm", "busybox", "true"]));
import {
  type Client,
  configDirectory,
  contextName,
  createClient,
  isApiFailure,
  readConfig,
  resolveTarget,
  type TargetOptions,
} from "../client/index.ts";
import { COMMIT } from "../lib/build.ts";
import { messageOf } from "../lib/errors.ts";
import { type Arguments, type Cli, type Command, StatusError } from "./command.ts";
import { type Entry, find, isGroup, later, sections } from "./commands.ts";
import { bool, FlagError, HelpAsked, hidden, list, parseFlags, string, type Values } from "./flags.ts";
import { isTerminal, output } from "./output.ts";

export const VERSION = "0.1.0";
const NAME = "jubako";

export const globalFlags = {
  config: string("", "Location of client config files"),
  context: string(
    "c",
    'Name of the context to use to connect to the daemon (overrides DOCKER_HOST env var and default context set with "context use")',
  ),
  debug: bool("D", "Enable debug mode"),
  host: list("H", "Daemon socket to connect to"),
  "log-level": string("l", 'Set the logging level ("debug", "info", "warn", "error", "fatal")', "info"),
  tls: bool("", "Use TLS; implied by --tlsverify"),
  tlscacert: string("", "Trust certs signed only by this CA"),
  tlscert: string("", "Path to TLS certificate file"),
  tlskey: string("", "Path to TLS key file"),
  tlsverify: bool("", "Use TLS and verify the remote"),
  version: bool("v", "Print version information and quit"),
  help: hidden(bool("", "Print usage")),
};

export interface MainOptions {
  env?: Record<string, string | undefined>;
  /** Headers for every request: the trace context. */
  extraHeaders?: () => Record<string, string>;
  /** Wraps every request: a span. */
  around?: <T>(name: string, send: () => Promise<T>) => Promise<T>;
}

/** Runs one command line; resolves to the exit status. Where standard input was read the caller should exit, not wait for its end. */
export async function main(argv: string[], options: MainOptions = {}): Promise<number> {
  let path = NAME;
  let usage = "[OPTIONS] COMMAND [ARG...]";
  let words = argv;
  const clients: Client[] = [];
  try {
    const { values, args, changed } = parseFlags(globalFlags, argv, false);
    words = args;
    if (values.version) {
      output.out(`Jubako version ${VERSION}, build ${COMMIT}\n`);
      return 0;
    }
    if (args.length === 0 || values.help) return await help([]);
    if (args[0] === "help") return await help(args.slice(1));
    const found = locate(args);
    path = found.path;
    usage = "";
    if (isGroup(found.entry)) {
      if (found.rest.length > 0 && found.rest[0] !== "--help" && found.rest[0] !== "-h") {
        if (found.rest[0]!.startsWith("-")) throw new FlagError(`unknown flag: ${found.rest[0]}`);
        throw new StatusError(
          1,
          `${NAME}: unknown command: ${path} ${found.rest[0]}\n\nUsage:  ${path}\n\nRun '${path} --help' for more information`,
        );
      }
      return await help(args.slice(0, found.depth));
    }
    const definition = (await found.entry.load()).default as Command;
    usage = definition.use;
    const parsed = parseFlags(definition.flags, found.rest, definition.interspersed ?? true);
    checkArguments(definition.args, parsed.args.length, path, definition);
    const cli = createCli(values, changed, parsed.changed, path, options, clients);
    return (await definition.run(cli, parsed.values as never, parsed.args)) ?? 0;
  } catch (error) {
    if (error instanceof HelpAsked) return await help(words);
    return report(error, path, usage);
  } finally {
    for (const client of clients) client.close();
  }
}

function report(error: unknown, path: string, usage: string): number {
  if (error instanceof FlagError) {
    const [first, ...others] = usage.split("\n");
    const forms = [`${path}${first ? ` ${first}` : ""}`, ...others.map((form) => `\t${form.replace("%PATH%", path)}`)].join("\n");
    output.err(`${error.message}\n\nUsage:  ${forms}\n\nRun '${path} --help' for more information\n`);
    return 125;
  }
  if (error instanceof StatusError) {
    if (error.message) output.err(`${error.message}\n`);
    return error.status;
  }
  output.err(`${daemonMessage(error)}\n`);
  return 1;
}

/** The sentence for the user: what the engine refused is marked as the engine's. */
export function daemonMessage(error: unknown): string {
  return isApiFailure(error) ? `Error response from daemon: ${error.message}` : messageOf(error);
}

interface Found {
  entry: Entry;
  path: string;
  rest: string[];
  depth: number;
}

function locate(args: string[]): Found {
  const name = args[0]!;
  const entry = find(name);
  if (!entry) {
    const why = later[name];
    if (why) throw new StatusError(1, `${NAME}: '${NAME} ${name}' is not there: ${why}`);
    throw new StatusError(1, `${NAME}: unknown command: ${NAME} ${name}\n\nRun '${NAME} --help' for more information`);
  }
  if (!isGroup(entry)) return { entry, path: `${NAME} ${name}`, rest: args.slice(1), depth: 1 };
  const child = args[1] === undefined ? undefined : (entry.aliases[args[1]] ?? args[1]);
  if (child !== undefined && Object.hasOwn(entry.children, child)) {
    return { entry: entry.children[child]!, path: `${NAME} ${name} ${child}`, rest: args.slice(2), depth: 2 };
  }
  return { entry, path: `${NAME} ${name}`, rest: args.slice(1), depth: 1 };
}

async function help(words: string[]): Promise<number> {
  const { commandHelp, groupHelp, rootHelp } = await import("./help.ts");
  const names = words.filter((word) => !word.startsWith("-"));
  if (names.length === 0) {
    output.out(rootHelp(NAME, globalFlags));
    return 0;
  }
  if (!find(names[0]!)) {
    output.err(`unknown help topic: ${names.join(" ")}\n`);
    return 1;
  }
  const found = locate(names);
  if (isGroup(found.entry)) {
    output.out(groupHelp(found.entry, found.path));
    return 0;
  }
  const definition = (await found.entry.load()).default as Command;
  output.out(commandHelp(definition, found.path, allNames(found.entry)));
  return 0;
}

/** Every way to call a command: "jubako container ls, jubako container list, jubako ps". */
function allNames(leaf: Entry): string[] {
  const names: string[] = [];
  for (const { entries } of sections) {
    for (const [name, entry] of Object.entries(entries)) {
      if (entry === leaf) names.push(`${NAME} ${name}`);
      if (!isGroup(entry)) continue;
      for (const [child, candidate] of Object.entries(entry.children)) {
        if (candidate !== leaf) continue;
        names.push(`${NAME} ${name} ${child}`);
        for (const [alias, target] of Object.entries(entry.aliases)) if (target === child) names.push(`${NAME} ${name} ${alias}`);
      }
    }
  }
  return names.sort((a, b) => b.split(" ").length - a.split(" ").length);
}

function checkArguments([least, most]: Arguments, count: number, path: string, definition: Command): void {
  if (count >= least && count <= most) return;
  const plural = (n: number) => `${n} argument${n === 1 ? "" : "s"}`;
  let demand: string;
  if (most === 0) demand = "accepts no arguments";
  else if (least === most) demand = `requires ${plural(least)}`;
  else if (most === Number.POSITIVE_INFINITY) demand = `requires at least ${plural(least)}`;
  else if (least === 0) demand = `requires at most ${plural(most)}`;
  else demand = `requires at least ${least} and at most ${plural(most)}`;
  const see = most === Number.POSITIVE_INFINITY ? "See" : "Run";
  const [first, ...others] = definition.use.split("\n");
  const forms = [`${path} ${first}`, ...others.map((form) => `\t${form.replace("%PATH%", path)}`)].join("\n");
  throw new StatusError(1, `${NAME}: '${path}' ${demand}\n\nUsage:  ${forms}\n\n${see} '${path} --help' for more information`);
}

function createCli(
  globals: Values<typeof globalFlags>,
  given: Set<string>,
  changed: Set<string>,
  path: string,
  options: MainOptions,
  clients: Client[],
): Cli {
  const env = options.env ?? process.env;
  const configDir = globals.config || configDirectory(env);
  let config: Cli["config"] | undefined;
  let client: Promise<Client> | undefined;
  const getConfig = () => {
    if (!config) {
      try {
        config = readConfig(configDir);
      } catch (error) {
        output.err(`WARNING: Error loading config file: ${messageOf(error)}\n`);
        config = {};
      }
    }
    return config;
  };
  const targetOptions = (): TargetOptions => {
    if (globals.host.length > 1) throw new StatusError(1, "Failed to initialize: unable to resolve docker endpoint: specify only one -H");
    if (globals.host.length > 0 && globals.context)
      throw new StatusError(1, "conflicting options: either specify --host or --context, not both");
    const host = globals.host[0];
    return {
      host: host === undefined ? undefined : host.includes("://") ? host : `tcp://${host}`,
      context: globals.context || undefined,
      configDir,
      env,
      config: getConfig(),
      tls:
        globals.tls || globals.tlsverify || given.has("tlscacert")
          ? {
              enabled: true,
              verify: globals.tlsverify,
              ca: globals.tlscacert || undefined,
              cert: globals.tlscert || undefined,
              key: globals.tlskey || undefined,
            }
          : undefined,
    };
  };
  const connect = async () => {
    const target = await resolveTarget(targetOptions()).catch((error: unknown) => {
      throw new StatusError(1, `Failed to initialize: unable to resolve docker endpoint: ${messageOf(error)}`);
    });
    const made = createClient({
      target,
      version: env.DOCKER_API_VERSION || undefined,
      headers: getConfig().HttpHeaders,
      extraHeaders: options.extraHeaders,
      around: options.around,
    });
    clients.push(made);
    return made;
  };
  return {
    ...output,
    name: NAME,
    path,
    env,
    configDir,
    get config() {
      return getConfig();
    },
    client: () => {
      client ??= connect();
      return client;
    },
    contextName: () => contextName(targetOptions()),
    changed,
    isTty: isTerminal,
  };
}
