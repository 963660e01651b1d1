// checkpoint: CRIU writes the container's processes to a directory of images.
import { closeSync, mkdirSync, openSync, readlinkSync, statSync, writeFileSync, writeSync } from "node:fs";
import { isAbsolute, resolve } from "node:path";
import { failedPrecondition, invalidArgument, unimplemented } from "../../lib/errors.ts";
import type { NamespaceType, Spec } from "../../oci/runtime-spec.ts";
import { type Message, OPTION, REQUEST, requestCriu } from "../criu.ts";
import { externalMounts } from "../criu-mounts.ts";
import type { Context } from "./context.ts";
import { type Flags, type FlagTable, idOf, parseFlags } from "./flags.ts";
import { removeContainer } from "./life.ts";
import { cgroupOf, type Stored, statusOf } from "./store.ts";

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

const cgroupModes: Record<string, number> = { ignore: 0, soft: 3, full: 4, strict: 5 };
const CLONE_NEWNET = 0x40000000;

/** Descriptors of the directories are this process', which CRIU opens by its /proc. */
export interface Images {
  path: string;
  directory: number;
  work: string;
  workDirectory: number | undefined;
  close(): void;
}

export function openImages(flags: Flags): Images {
  const path = resolve(flags.value("image-path") || "checkpoint");
  const asked = flags.value("work-path");
  const work = asked ? resolve(asked) : path;
  for (const each of new Set([path, work])) mkdirSync(each, { recursive: true, mode: 0o700 });
  const directory = openSync(path, "r");
  const workDirectory = asked ? openSync(work, "r") : undefined;
  return {
    path,
    directory,
    work,
    workDirectory,
    close() {
      for (const fd of [directory, workDirectory]) if (fd !== undefined) closeSync(fd);
    },
  };
}

/** Options of both directions. `log` is a name in the working directory. */
export function commonOptions(flags: Flags, images: Images, stored: Stored, log: string): Message {
  const mode = flags.value("manage-cgroups-mode");
  if (mode !== undefined && !Object.hasOwn(cgroupModes, mode)) throw invalidArgument("Invalid manage cgroups mode");
  const empty = flags.values("empty-ns");
  if (empty.some((name) => name !== "network"))
    throw invalidArgument(`namespace ${JSON.stringify(empty.find((n) => n !== "network"))} is not supported`);
  const config = stored.annotations?.["org.criu.config"];
  return [
    [OPTION.imagesDir, images.directory],
    [OPTION.workDir, images.workDirectory],
    [OPTION.logLevel, 4],
    [OPTION.logFile, log],
    [OPTION.configFile, config || undefined],
    [OPTION.root, stored.rootfs],
    [OPTION.notifyScripts, true],
    [OPTION.shellJob, flags.on("shell-job")],
    [OPTION.externalUnixSockets, flags.on("ext-unix-sk")],
    [OPTION.tcpEstablished, flags.on("tcp-established")],
    [OPTION.fileLocks, flags.on("file-locks")],
    [OPTION.autoDedup, flags.on("auto-dedup")],
    [OPTION.lazyPages, flags.on("lazy-pages")],
    [OPTION.orphanTerminal, true],
    [OPTION.manageCgroups, true],
    [OPTION.manageCgroupsMode, mode === undefined ? undefined : cgroupModes[mode]],
    [OPTION.emptyNamespaces, empty.length > 0 ? CLONE_NEWNET : undefined],
  ];
}

/** Namespaces that belong to others, with the name under which CRIU is given them again. */
export function externalNamespaces(spec: Spec): { type: NamespaceType; path: string; name: string; kind: string }[] {
  const names: Partial<Record<NamespaceType, [kind: string, name: string]>> = {
    network: ["net", "extRootNetNS"],
    pid: ["pid", "extRootPidNS"],
  };
  return (spec.linux?.namespaces ?? []).flatMap(({ type, path }) => {
    const known = names[type];
    return path && known ? [{ type, path, kind: known[0], name: known[1] }] : [];
  });
}

function parentOf(flags: Flags, images: Images): string | undefined {
  const parent = flags.value("parent-path");
  if (!parent) return undefined;
  if (isAbsolute(parent)) throw invalidArgument("--parent-path must be relative");
  if (!statSync(resolve(images.path, parent), { throwIfNoEntry: false })?.isDirectory())
    throw invalidArgument(`invalid --parent-path ${parent}: no such directory below --image-path`);
  return parent;
}

function pageServerOf(text: string | undefined): Message | undefined {
  if (!text) return undefined;
  const match = /^(.+):(\d+)$/.exec(text);
  if (!match) throw invalidArgument("Use --page-server ADDRESS:PORT to specify page server");
  return [
    [1, match[1]!],
    [2, Number(match[2])],
  ];
}

/** What stdin, stdout and stderr are: at restore CRIU is given others in the place of pipes. */
function descriptorsOf(pid: number): string[] {
  return [0, 1, 2].map((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`);
    } catch {
      return "";
    }
  });
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
    const images = openImages(flags);
    try {
      await dump(context, stored, spec, flags, images);
    } finally {
      images.close();
    }
    if (!flags.on("leave-running") && !flags.on("pre-dump")) await removeContainer(context, stored, spec);
  });
  return 0;
}

async function dump(context: Context, stored: Stored, spec: Spec, flags: Flags, images: Images): Promise<void> {
  const { pid } = stored.init;
  const { version, directories } = stored.cgroup;
  const preDump = flags.on("pre-dump");
  const options: Message = [
    ...commonOptions(flags, images, stored, "dump.log"),
    [OPTION.pid, pid],
    [OPTION.leaveRunning, flags.on("leave-running")],
    [OPTION.parentImage, parentOf(flags, images)],
    [OPTION.trackMemory, preDump || flags.value("parent-path") !== undefined ? true : undefined],
    [OPTION.pageServer, pageServerOf(flags.value("page-server"))],
    [OPTION.freezeCgroup, version === 1 ? directories.freezer : directories[""]],
    ...externalNamespaces(spec).map(({ type, kind, name }): Message[number] => {
      const inode = /\[(\d+)\]/.exec(readlinkSync(`/proc/${pid}/ns/${kind}`))?.[1];
      if (!inode) throw failedPrecondition(`the ${type} namespace of the container cannot be read`);
      return [OPTION.external, `${kind}[${inode}]:${name}`];
    }),
    ...externalMounts(spec, stored.bundle, cgroupOf(stored), `/proc/${pid}/root`).map(({ inside }): Message[number] => [
      OPTION.externalMount,
      [
        [1, inside],
        [2, inside],
      ],
    ]),
  ];
  if (!preDump) writeFileSync(`${images.path}/descriptors.json`, JSON.stringify(descriptorsOf(pid)), { mode: 0o600 });
  const log = `${images.work}/dump.log`;
  const statusFd = flags.number("status-fd");
  await requestCriu(
    { type: preDump ? REQUEST.preDump : REQUEST.dump, options, criu: context.criu, log },
    () => [],
    ({ script }) => {
      // The page server of a lazy dump can be asked from now on.
      if (script === "status-ready" && statusFd !== undefined) {
        writeSync(statusFd, new Uint8Array(1));
        closeSync(statusFd);
      }
    },
  );
}
