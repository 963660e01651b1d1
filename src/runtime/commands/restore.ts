// restore: a container from the images that checkpoint wrote, running where it was.
import { invalidArgument, unimplemented } from "../../lib/errors.ts";
import { binding, close, pidfdOpen, pidfdSignal, SYS } from "../../linux/index.ts";
import { openCgroup } from "../cgroups/index.ts";
import { restoreProcess } from "../criu-restore.ts";
import { identityOf } from "../identity.ts";
import { rootPathOf } from "../plan/root-path.ts";
import { bundleOf, readBundle } from "./bundle.ts";
import { criuFlags, criuSettings } from "./checkpoint.ts";
import type { Context } from "./context.ts";
import { checkConsole, ownerName } from "./create.ts";
import { type FlagTable, idOf, parseFlags } from "./flags.ts";
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
  try {
    store.announce(id, spec);
    const location = await locate(context, spec, id);
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
    const subject = { spec, bundle, rootfs: stored.rootfs, cgroup: location };
    const settings = {
      ...criuSettings(context, flags),
      lsmProfile: flags.value("lsm-profile"),
      lsmMountContext: flags.value("lsm-mount-context"),
    };
    const { pid, terminal } = await restoreProcess(subject, [], settings, async (pid) => {
      if (!spec.hooks) return;
      const { runHooks } = await import("../hooks.ts");
      const state = stateOf({ ...stored!, init: { pid, start: "" } }, "creating");
      await runHooks("prestart", spec.hooks, state);
      await runHooks("createRuntime", spec.hooks, state);
    });
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
    if (!done) {
      if (stored) await openCgroup(stored.cgroup).remove(true);
      store.remove(id);
    }
  }
}
