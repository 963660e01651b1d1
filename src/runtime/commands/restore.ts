// restore: a container from the images that checkpoint wrote, running where it was.
import { closeSync, openSync, readFileSync } from "node:fs";
import { Failure, invalidArgument, unimplemented } from "../../lib/errors.ts";
import { binding, check, close, pidfdOpen, pidfdSignal, SYS } from "../../linux/index.ts";
import type { Spec } from "../../oci/runtime-spec.ts";
import { type Cgroup, openCgroup, pathsOf } from "../cgroups/index.ts";
import { type Message, type Notification, OPTION, REQUEST, requestCriu } from "../criu.ts";
import { type ExternalMount, externalMounts, prepareRoot } from "../criu-mounts.ts";
import { identityOf } from "../identity.ts";
import { planCgroup } from "../plan/cgroup.ts";
import { createPlanner } from "../plan/planner.ts";
import { rootPathOf } from "../plan/root-path.ts";
import { startPlayer } from "../player.ts";
import { hearNow } from "../reports.ts";
import { stepText } from "../tape.ts";
import { bundleOf, parseJson, readBundle } from "./bundle.ts";
import { commonOptions, criuFlags, externalNamespaces, type Images, openImages } from "./checkpoint.ts";
import type { Context } from "./context.ts";
import { checkConsole, ownerName } from "./create.ts";
import { type Flags, type FlagTable, idOf, parseFlags } from "./flags.ts";
import { attend } from "./foreground.ts";
import { reapNow, sendTerminal, writePidFile } from "./launch.ts";
import { locate, removeContainer } from "./life.ts";
import { type Stored, stateOf } from "./store.ts";

export const restoreFlags: FlagTable = {
  ...criuFlags,
  bundle: "value",
  b: { short: "bundle" },
  "console-socket": "value",
  detach: "boolean",
  d: { short: "detach" },
  "pid-file": "value",
  "no-subreaper": "boolean",
  "no-pivot": "boolean",
  "lsm-profile": "value",
  "lsm-mount-context": "value",
};

const PR_SET_CHILD_SUBREAPER = 36;

export async function restore(context: Context, argv: string[]): Promise<number> {
  const flags = parseFlags(argv, restoreFlags);
  const id = idOf("restore", flags);
  if (process.geteuid?.() !== 0) throw unimplemented("cannot restore a rootless container");
  const bundle = bundleOf(flags.value("bundle"));
  const spec = readBundle(bundle);
  if (!spec.process) throw invalidArgument("config.json has no process");
  const detached = flags.on("detach");
  checkConsole(spec.process, flags.value("console-socket"), detached);
  const { store } = context;
  store.reserve(id);
  let done = false;
  let stored: Stored | undefined;
  let images: Images | undefined;
  try {
    store.announce(id, spec);
    const location = await locate(context, spec, id);
    if (location.systemd) throw unimplemented("restore with systemd cgroups is not supported: use cgroupfs paths");
    stored = {
      ociVersion: spec.ociVersion,
      id,
      bundle,
      rootfs: rootPathOf(spec, bundle),
      created: new Date().toISOString(),
      init: { pid: 0, start: "" },
      cgroup: location,
      owner: ownerName(),
      ...(spec.annotations ? { annotations: spec.annotations } : {}),
    };
    const cgroup = openCgroup(location);
    const external = externalMounts(spec, bundle, cgroup, stored.rootfs);
    prepareRoot(spec, stored.rootfs, external);
    // Directories are opened in the mount namespace that CRIU will be in.
    images = openImages(flags);
    const { pid, terminal } = await revive(context, stored, spec, flags, images, cgroup, external);
    const pidfd = pidfdOpen(pid);
    try {
      stored.init = identityOf(pid) ?? stored.init;
      store.save(stored);
      const socket = flags.value("console-socket");
      if (socket && terminal !== undefined) sendTerminal(socket, terminal);
      writePidFile(flags.value("pid-file"), pid);
    } catch (error) {
      pidfdSignal(pidfd, 9);
      reapNow(pidfd);
      throw error;
    }
    done = true;
    if (detached) {
      if (terminal !== undefined) close(terminal);
      close(pidfd);
      return 0;
    }
    if (!flags.on("no-subreaper")) binding.syscall(SYS.prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    const status = await attend(pidfd, terminal);
    await removeContainer(context, stored, spec);
    return status;
  } finally {
    images?.close();
    if (!done) {
      if (stored) await openCgroup(stored.cgroup).remove(true);
      store.remove(id);
    }
  }
}

async function revive(
  context: Context,
  stored: Stored,
  spec: Spec,
  flags: Flags,
  images: Images,
  cgroup: Cgroup,
  external: readonly ExternalMount[],
): Promise<{ pid: number; terminal: number | undefined }> {
  const joins = makeCgroup(cgroup, spec);
  const inherited = externalNamespaces(spec).map(({ path, name }) => ({ name, fd: openSync(path, "r") }));
  let terminal: number | undefined;
  let done = false;
  try {
    const options = optionsOf(
      stored,
      flags,
      images,
      external,
      inherited.map(({ name }) => name),
    );
    const heard = async ({ script, pid, fd }: Notification) => {
      if (script === "setup-namespaces" && spec.hooks) {
        const { runHooks } = await import("../hooks.ts");
        const state = stateOf({ ...stored, init: { pid, start: "" } }, "creating");
        await runHooks("prestart", spec.hooks, state);
        await runHooks("createRuntime", spec.hooks, state);
      } else if (script === "orphan-pts-master" && fd !== undefined) terminal = fd;
      else if (fd !== undefined) close(fd);
    };
    const request = {
      type: REQUEST.restore,
      options,
      inherited: inherited.map(({ fd }) => fd),
      criu: context.criu,
      log: `${images.work}/restore.log`,
    };
    // CRIU's children begin where it is itself, and paths of cgroups that were written down count from there.
    const join = (pid: number): Message => {
      for (const directory of joins) writeProcs(directory, pid);
      const now = pathsOf(readFileSync(`/proc/${pid}/cgroup`, "utf8"));
      const { version, directories } = stored.cgroup;
      const names = version === 1 ? Object.keys(directories).filter((name) => name !== "") : [""];
      return names.flatMap((name) => {
        const path = now.get(name);
        return path === undefined ? [] : [[OPTION.cgroupRoot, pair(name || undefined, path)] satisfies Message[number]];
      });
    };
    const { pid } = await requestCriu(request, join, heard);
    done = true;
    return { pid, terminal };
  } finally {
    for (const { fd } of inherited) closeSync(fd);
    if (!done && terminal !== undefined) close(terminal);
  }
}

const pair = (key: string | undefined, value: string | number): Message => [
  [1, key],
  [2, value],
];

function optionsOf(stored: Stored, flags: Flags, images: Images, external: readonly ExternalMount[], inherited: string[]): Message {
  return [
    ...commonOptions(flags, images, stored, "restore.log"),
    [OPTION.evasiveDevices, true],
    [OPTION.sibling, true],
    [OPTION.securityProfile, flags.value("lsm-profile")],
    [OPTION.securityMountContext, flags.value("lsm-mount-context")],
    ...external.map(({ inside, source }): Message[number] => [OPTION.externalMount, pair(inside, source)]),
    ...pipesOf(images).map(({ name, fd }): Message[number] => [OPTION.inheritFd, pair(name, fd)]),
    ...inherited.map((name, i): Message[number] => [OPTION.inheritFd, pair(name, 4 + i)]),
  ];
}

/** This process' stdin, stdout and stderr take the places of the pipes that were there. */
function pipesOf(images: Images): { name: string; fd: number }[] {
  let text: string;
  try {
    text = readFileSync(`${images.path}/descriptors.json`, "utf8");
  } catch {
    throw new Failure("NotFound", `${images.path} has no descriptors.json: it is no checkpoint of this runtime or of runc`);
  }
  const names = parseJson(text, "descriptors.json");
  if (!Array.isArray(names)) throw invalidArgument("descriptors.json is not a list");
  return names.slice(0, 3).flatMap((name: unknown, fd) => (typeof name === "string" && name.startsWith("pipe:") ? [{ name, fd }] : []));
}

/** Makes the container's cgroups with their limits; gives the directories that its processes join. */
function makeCgroup(cgroup: Cgroup, spec: Spec): string[] {
  const p = createPlanner();
  const plan = cgroup.plan(spec.linux?.resources ?? {});
  planCgroup(p, plan);
  const none = { preserved: [], hold: [], holdStdin: -1, record: -1, notify: -1, control: -1, target: -1 };
  const player = startPlayer("jubako-runtime", p.tape.encode(), { stdio: [-1, -1, 2], ...none }, 0);
  try {
    let failed: string | undefined;
    hearNow(player.report, (report) => {
      if (report.tag === "failed") failed = stepText(p.tape.steps[report.index]!);
      return report.tag === "failed" || report.tag === "end";
    });
    reapNow(player.pidfd);
    if (failed) throw new Failure("Unknown", `make the container's cgroups: ${failed}`);
  } finally {
    player.close();
  }
  return plan.join;
}

function writeProcs(directory: string, pid: number): void {
  const fd = check(binding.syscall(SYS.openat, -100, `${directory}/cgroup.procs`, 1 | 0o2000000, 0), `open ${directory}/cgroup.procs`);
  const text = Buffer.from(String(pid));
  const written = binding.syscall(SYS.write, fd, text, text.length);
  close(fd);
  check(written, `put criu into ${directory}`);
}
