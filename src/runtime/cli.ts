// jubako-runtime: the OCI runtime's command line, with the commands and flags of runc, and `explain`.
//
// Its protocol is the bundle on one side and runc's conventions on the other (exit codes, --log, --console-socket, --pid-file), so that
// containerd, dockerd and podman take it for runc. Each command is loaded only when it is asked for.
import { Failure, messageOf } from "../lib/errors.ts";
import { appendFileSync, isInitialUserNamespace } from "../linux/index.ts";
import type { Context } from "./commands/context.ts";
import { parseFlags } from "./commands/flags.ts";
import { print } from "./commands/output.ts";

type Command = (context: Context, argv: string[]) => Promise<number>;

const commands: Record<string, () => Promise<Command>> = {
  create: async () => (await import("./commands/create.ts")).create,
  run: async () => (await import("./commands/create.ts")).run,
  start: async () => (await import("./commands/start.ts")).start,
  exec: async () => (await import("./commands/exec.ts")).exec,
  kill: async () => (await import("./commands/manage.ts")).kill,
  delete: async () => (await import("./commands/manage.ts")).remove,
  state: async () => (await import("./commands/manage.ts")).state,
  list: async () => (await import("./commands/manage.ts")).list,
  ps: async () => (await import("./commands/manage.ts")).ps,
  pause: async () => (await import("./commands/manage.ts")).pause,
  resume: async () => (await import("./commands/manage.ts")).resume,
  update: async () => (await import("./commands/manage.ts")).update,
  events: async () => (await import("./commands/inform.ts")).events,
  features: async () => (await import("./commands/inform.ts")).features,
  spec: async () => (await import("./commands/inform.ts")).spec,
  checkpoint: async () => (await import("./commands/checkpoint.ts")).checkpoint,
  restore: async () => (await import("./commands/restore.ts")).restore,
  "restore-kept": async () => (await import("./commands/restore-kept.ts")).restoreKept,
  seccomp: async () => (await import("./commands/seccomp.ts")).seccomp,
  explain: async () => (await import("./commands/inform.ts")).explain,
};

const globals = {
  root: "value",
  log: "value",
  "log-format": "value",
  debug: "boolean",
  criu: "value",
  "systemd-cgroup": "boolean",
  rootless: "value",
  version: "boolean",
  v: { short: "version" },
  help: "boolean",
  h: { short: "help" },
} as const;

/** Whether this is root, and not only of a user namespace. */
function isMachinesRoot(): boolean {
  return process.geteuid?.() === 0 && isInitialUserNamespace();
}

/** A user's containers are his own, also where he has become root of a user namespace. */
function defaultRoot(): string {
  const { XDG_RUNTIME_DIR, USER } = process.env;
  const own = XDG_RUNTIME_DIR && !isMachinesRoot() && (process.geteuid?.() !== 0 || USER !== "root");
  return own ? `${XDG_RUNTIME_DIR}/jubako/runtime` : "/run/jubako/runtime";
}

/** Whether cgroups are gone without where they cannot be had; as runc, it is so for everybody but the machine's own root. */
function isRootless(asked: string): boolean {
  if (asked === "auto") return !isMachinesRoot();
  if (["1", "t", "T", "true", "TRUE", "True"].includes(asked)) return true;
  if (["0", "f", "F", "false", "FALSE", "False"].includes(asked)) return false;
  throw new Failure("InvalidArgument", `strconv.ParseBool: parsing ${JSON.stringify(asked)}: invalid syntax`);
}

type Log = (level: "error" | "warning" | "debug", message: string) => void;

function openLog(file: string | undefined, format: string): Log {
  return (level, message) => {
    const time = `${new Date().toISOString().slice(0, 19)}Z`;
    const line =
      format === "json" ? JSON.stringify({ level, msg: message, time }) : `time="${time}" level=${level} msg=${JSON.stringify(message)}`;
    if (!file) {
      print(2, `${line}\n`);
      return;
    }
    try {
      appendFileSync(file, `${line}\n`);
    } catch (error) {
      print(2, `open ${file}: ${messageOf(error)}\n`);
    }
    // With a log of its own the sentence goes to stderr as well, for people.
    if (level === "error") print(2, `${message}\n`);
  };
}

/** `leave` is shown what a command failed with before anybody is told, and does not come back where another program is to do it instead. */
export async function main(argv: string[], leave?: (error: unknown) => void): Promise<number> {
  let log = openLog(undefined, "text");
  try {
    const flags = parseFlags(argv, globals);
    log = openLog(flags.value("log"), flags.value("log-format") ?? "text");
    const [name, ...rest] = flags.rest;
    if (flags.on("version")) {
      print(1, (await import("./commands/help.ts")).version());
      return 0;
    }
    if (!name || name === "help" || flags.on("help")) {
      const { commandUsage, usage } = await import("./commands/help.ts");
      print(1, name === "help" && rest[0] ? commandUsage(rest[0]) : usage());
      return 0;
    }
    const load = Object.hasOwn(commands, name) ? commands[name] : undefined;
    if (!load) throw new Failure("InvalidArgument", `No help topic for '${name}'`);
    if (rest[0] === "--help" || rest[0] === "-h") {
      print(1, (await import("./commands/help.ts")).commandUsage(name));
      return 0;
    }
    const [command, { openStore }] = await Promise.all([load(), import("./commands/store.ts")]);
    return await command(
      {
        store: openStore(flags.value("root") ?? defaultRoot()),
        rootGiven: flags.value("root") !== undefined,
        systemdCgroup: flags.on("systemd-cgroup"),
        rootless: isRootless(flags.value("rootless") ?? "auto"),
        criu: flags.value("criu"),
        warn: (message) => log("warning", message),
        debug: flags.on("debug") ? (message) => log("debug", message) : undefined,
      },
      rest,
    );
  } catch (error) {
    leave?.(error);
    log("error", messageOf(error));
    return (error as { exitCode?: number }).exitCode ?? 1;
  }
}
