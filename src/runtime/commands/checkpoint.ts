// checkpoint: CRIU writes the container's processes to a directory of images.
import { resolve } from "node:path";
import { failedPrecondition, unimplemented } from "../../lib/errors.ts";
import { dump } from "../criu-dump.ts";
import type { CriuSettings } from "../criu-options.ts";
import type { Context } from "./context.ts";
import { type Flags, type FlagTable, idOf, parseFlags } from "./flags.ts";
import { removeContainer } from "./life.ts";
import { statusOf } from "./store.ts";

/** What checkpoint and restore have in common. */
export const criuFlags: FlagTable = {
  "image-path": "value",
  "work-path": "value",
  "tcp-established": "boolean",
  "ext-unix-sk": "boolean",
  "shell-job": "boolean",
  "file-locks": "boolean",
  "manage-cgroups-mode": "value",
  "empty-ns": "values",
  "auto-dedup": "boolean",
  "lazy-pages": "boolean",
};

export const checkpointFlags: FlagTable = {
  ...criuFlags,
  "parent-path": "value",
  "leave-running": "boolean",
  "status-fd": "value",
  "page-server": "value",
  "pre-dump": "boolean",
};

/** What both flags tables ask of CRIU. */
export function criuSettings(context: Context, flags: Flags): CriuSettings {
  const work = flags.value("work-path");
  return {
    images: resolve(flags.value("image-path") || "checkpoint"),
    work: work ? resolve(work) : undefined,
    shellJob: flags.on("shell-job"),
    externalUnixSockets: flags.on("ext-unix-sk"),
    tcpEstablished: flags.on("tcp-established"),
    fileLocks: flags.on("file-locks"),
    autoDedup: flags.on("auto-dedup"),
    lazyPages: flags.on("lazy-pages"),
    cgroupsMode: flags.value("manage-cgroups-mode"),
    emptyNamespaces: flags.values("empty-ns"),
    criu: context.criu,
  };
}

export async function checkpoint(context: Context, argv: string[]): Promise<number> {
  const flags = parseFlags(argv, checkpointFlags);
  const id = idOf("checkpoint", flags);
  if (process.geteuid?.() !== 0) throw unimplemented("cannot checkpoint a rootless container");
  await context.store.locked(id, async () => {
    const stored = context.store.load(id);
    const status = statusOf(stored);
    if (status === "created" || status === "stopped") throw failedPrecondition(`Container cannot be checkpointed in ${status} state`);
    const spec = context.store.spec(id);
    const subject = { spec, bundle: stored.bundle, rootfs: stored.rootfs, cgroup: stored.cgroup };
    await dump(subject, stored.init.pid, {
      ...criuSettings(context, flags),
      leaveRunning: flags.on("leave-running"),
      preDump: flags.on("pre-dump"),
      parent: flags.value("parent-path"),
      pageServer: flags.value("page-server"),
      statusFd: flags.number("status-fd"),
    });
    if (!flags.on("leave-running") && !flags.on("pre-dump")) await removeContainer(context, stored, spec);
  });
  return 0;
}
