// exec: a further process in a running container.
import { Failure, invalidArgument, messageOf } from "../../lib/errors.ts";
import { close, existsSync, readFileSync } from "../../linux/index.ts";
import type { Process, Spec } from "../../oci/runtime-spec.ts";
import type { CgroupLocation, CgroupPlan } from "../cgroups/index.ts";
import { facts } from "../facts.ts";
import { openIdentity } from "../identity.ts";
import { planExec } from "../plan/exec.ts";
import { bitList } from "../plan/settings.ts";
import { compileSeccomp } from "../seccomp.ts";
import { checkProcess, parseJson } from "./bundle.ts";
import type { Context } from "./context.ts";
import { checkConsole } from "./create.ts";
import { type Flags, type FlagTable, parseFlags, usageError } from "./flags.ts";
import { launch, nullStdio, ownStdio, preservedFds, sendPidfd, sendTerminal, tellOfCapabilities, writePidFile } from "./launch.ts";
import { homeFor, openGateNow } from "./life.ts";
import { prepareStay } from "./stay.ts";
import { cgroupOf, stateOf, statusOf } from "./store.ts";

const table: FlagTable = {
  "console-socket": "value",
  cwd: "value",
  env: "values",
  e: { short: "env" },
  tty: "boolean",
  t: { short: "tty" },
  user: "value",
  u: { short: "user" },
  "additional-gids": "values",
  g: { short: "additional-gids" },
  process: "value",
  p: { short: "process" },
  detach: "boolean",
  d: { short: "detach" },
  "pid-file": "value",
  "pidfd-socket": "value",
  "process-label": "value",
  apparmor: "value",
  "no-new-privs": "boolean",
  cap: "values",
  c: { short: "cap" },
  "preserve-fds": "value",
  cgroup: "values",
  "ignore-paused": "boolean",
};

/** The container's own process with what the flags change. */
export function processOf(flags: Flags, spec: Spec): Process {
  const file = flags.value("process");
  if (file) return checkProcess(parseJson(readFileSync(file, "utf8"), file));
  const own = spec.process;
  if (!own) throw invalidArgument("the container has no process");
  const args = flags.rest.slice(1);
  if (args.length === 0) throw usageError("process args cannot be empty");
  const process: Process = { ...own, args, terminal: flags.on("tty") };
  const cwd = flags.value("cwd");
  if (cwd) process.cwd = cwd;
  process.env = [...(own.env ?? []), ...flags.values("env")];
  const [uid, gid] = (flags.value("user") ?? "").split(":");
  if (uid || gid) {
    for (const id of [uid, gid])
      if (id && !/^\d+$/.test(id)) throw invalidArgument(`parsing ${JSON.stringify(id)} as int for uid failed: invalid syntax`);
    process.user = { ...own.user, ...(uid ? { uid: Number(uid) } : {}), ...(gid ? { gid: Number(gid) } : {}) };
  }
  const groups = flags.values("additional-gids").map(Number);
  if (groups.length) process.user = { ...process.user, additionalGids: [...(process.user?.additionalGids ?? []), ...groups] };
  const caps = flags.values("cap");
  if (caps.length) {
    const add = (list: string[] | undefined) => [...new Set([...(list ?? []), ...caps])];
    const { bounding, effective, permitted, inheritable, ambient } = own.capabilities ?? {};
    process.capabilities = {
      bounding: add(bounding),
      effective: add(effective),
      permitted: add(permitted),
      ...(inheritable ? { inheritable: add(inheritable) } : {}),
      ...(ambient ? { ambient: add(ambient) } : {}),
    };
  }
  const apparmor = flags.value("apparmor");
  if (apparmor) process.apparmorProfile = apparmor;
  const label = flags.value("process-label");
  if (label) process.selinuxLabel = label;
  if (flags.value("no-new-privs") !== undefined) process.noNewPrivileges = flags.on("no-new-privs");
  return process;
}

export async function exec(context: Context, argv: string[]): Promise<number> {
  const flags = parseFlags(argv, table);
  const id = flags.rest[0];
  if (!id) throw usageError('jubako-runtime: "exec" requires a minimum of 1 argument(s)');
  try {
    return await execIn(context, id, flags);
  } catch (error) {
    const message = messageOf(error);
    const words = /^(exec|chdir)[ :]/.test(message) ? `unable to start container process: ${message}` : message;
    throw Object.assign(new Failure(error instanceof Failure ? error.kind : "Unknown", `exec failed: ${words}`, { cause: error }), {
      exitCode: 255,
    });
  }
}

/** --cgroup [CONTROLLER[,CONTROLLER]:]PATH: below the container's own, which must be there. */
export function joining(plan: CgroupPlan, { version, directories }: CgroupLocation, asked: string[]): CgroupPlan {
  if (asked.length === 0) return plan;
  const below = (directory: string, path: string) => {
    const names = path.split("/").filter((name) => name !== "" && name !== ".");
    if (names.includes("..")) throw invalidArgument(`bad sub cgroup path: ${path} is not a sub cgroup path`);
    const full = [directory, ...names].join("/");
    // In runc's words, which say the pid of a process that is not yet.
    if (!existsSync(full)) throw new Failure("NotFound", `adding pid 0 to cgroups: open ${full}/cgroup.procs: no such file or directory`);
    return full;
  };
  // On a hybrid machine clone3 sees to the v2 hierarchy, which has no controllers to be asked for.
  const chosen = new Map(Object.entries(directories).filter(([name]) => version === 2 || name !== ""));
  for (const each of asked) {
    const [controllers, path] = version === 1 && each.includes(":") ? each.split(":", 2) : [undefined, each];
    for (const name of controllers?.split(",") ?? chosen.keys()) {
      const directory = directories[name];
      if (directory === undefined) throw invalidArgument(`unknown controller ${name} in cgroup ${each}`);
      chosen.set(name, below(directory, path ?? ""));
    }
  }
  const into = chosen.get("");
  const join = version === 2 ? [...chosen.values()] : [...new Set(chosen.values())].filter((directory) => directory !== into);
  return { ...plan, join, ...(into === undefined ? {} : { into }) };
}

const hex = (bytes: number[]) =>
  bytes
    .map((byte) => byte.toString(16).padStart(2, "0"))
    .join("")
    .replace(/^0+/, "");
const bitMask = (cpus: string) => hex([...bitList(cpus, "execCPUAffinity.initial")].reverse());

async function execIn(context: Context, id: string, flags: Flags): Promise<number> {
  const { store } = context;
  const stored = store.load(id);
  const status = statusOf(stored);
  if (status === "stopped") throw new Failure("FailedPrecondition", "cannot exec in a stopped container");
  if (status === "paused" && !flags.on("ignore-paused"))
    throw new Failure("FailedPrecondition", "cannot exec in a paused container (use --ignore-paused to override)");
  const spec = store.spec(id);
  const process = processOf(flags, spec);
  if (flags.value("process")) (await import("../shape.ts")).checkProcessShape(process);
  const detached = flags.on("detach");
  checkConsole(process, flags.value("console-socket"), detached);
  tellOfCapabilities(process, context.warn);
  const preserved = preservedFds(flags.number("preserve-fds") ?? 0);
  const target = openIdentity(stored.init);
  if (target === undefined) throw new Failure("FailedPrecondition", "cannot exec in a stopped container");
  try {
    const cgroup = joining(cgroupOf(stored).planJoin(stored.init.pid), stored.cgroup, flags.values("cgroup"));
    const plan = planExec(
      {
        id,
        spec,
        state: stateOf(stored, "running"),
        process,
        cgroup,
        seccomp: spec.linux?.seccomp ? compileSeccomp(spec.linux.seccomp) : undefined,
        keeper: false,
        holds: 0,
        holdStdin: false,
        ownStdio: ownStdio(process),
        nullStdio: nullStdio(),
        preserved: preserved.fds.length,
      },
      facts(),
    );
    const { initial } = process.execCPUAffinity ?? spec.process?.execCPUAffinity ?? {};
    if (context.debug && initial) context.debug(`nsexec: affinity: 0x${bitMask(initial)}`);
    const launched = await launch(
      { encoded: plan.tape.encode(), plan: async () => plan },
      process,
      preserved.fds,
      target,
      undefined,
      undefined,
      context.debug,
    ).catch((error: unknown) => {
      // In runc's words: clone3 puts the process there, and it has no number yet.
      if (!messageOf(error).startsWith("start the process: EBUSY")) throw error;
      const words = `adding pid 0 to cgroups: write ${cgroup.into}/cgroup.procs: device or resource busy`;
      throw new Failure("FailedPrecondition", words, { cause: error });
    });
    const stay = !detached && launched.terminal === undefined ? prepareStay(undefined) : undefined;
    try {
      launched.made();
      context.debug?.(`setns_init: about to exec ${process.args?.[0]}`);
      const socket = flags.value("console-socket");
      if (socket && launched.terminal !== undefined) sendTerminal(socket, launched.terminal);
      if (!detached && launched.terminal !== undefined) (await import("./foreground.ts")).prepareTerminal(launched.terminal);
      sendPidfd(flags.value("pidfd-socket"), launched.pidfd);
      writePidFile(flags.value("pid-file"), launched.pid);
      stay?.hold();
      await openGateNow(homeFor(stored.init.pid, process), launched.gate, launched.report, launched.failure);
    } catch (error) {
      launched.abandon();
      throw error;
    }
    stay?.begin(launched.pidfd);
    if (!detached) return await (await import("./foreground.ts")).attend(launched.pidfd, launched.terminal);
    if (launched.terminal !== undefined) close(launched.terminal);
    return 0;
  } finally {
    close(target);
  }
}
