// A container's processes as a directory of images, by CRIU.
import { closeSync, readlinkSync, statSync, writeFileSync, writeSync } from "node:fs";
import { isAbsolute, resolve } from "node:path";
import { failedPrecondition, invalidArgument } from "../lib/errors.ts";
import { openCgroup } from "./cgroups/index.ts";
import { type Message, OPTION, REQUEST, requestCriu } from "./criu.ts";
import { externalMounts } from "./criu-mounts.ts";
import {
  type CriuSettings,
  type CriuSubject,
  commonOptions,
  descriptorsOf,
  externalNamespaces,
  givenAgain,
  type Images,
  isHostsFile,
  openImages,
} from "./criu-options.ts";

export interface DumpSettings extends CriuSettings {
  leaveRunning?: boolean;
  /** Memory alone, ahead of a dump that then has less to write. */
  preDump?: boolean;
  /** An earlier dump, as a path relative to the images. */
  parent?: string | undefined;
  /** ADDRESS:PORT. */
  pageServer?: string | undefined;
  /** Gets a byte when the page server of a lazy dump can be asked, and is closed. */
  statusFd?: number | undefined;
}

function parentOf({ parent }: DumpSettings, images: Images): string | undefined {
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

/** Writes down the processes below `pid`, the container's first, which end unless they are to be left running. */
export async function dump(subject: CriuSubject, pid: number, settings: DumpSettings): Promise<void> {
  const images = openImages(settings);
  try {
    await dumpTo(images, subject, pid, settings);
  } finally {
    images.close();
  }
}

async function dumpTo(images: Images, subject: CriuSubject, pid: number, settings: DumpSettings): Promise<void> {
  const { spec, bundle, cgroup } = subject;
  const { preDump = false, leaveRunning = false, statusFd, criu } = settings;
  const descriptors = descriptorsOf(pid);
  const options: Message = [
    ...commonOptions(settings, images, subject, "dump.log"),
    [OPTION.pid, pid],
    [OPTION.leaveRunning, leaveRunning],
    [OPTION.parentImage, parentOf(settings, images)],
    [OPTION.trackMemory, preDump || settings.parent !== undefined ? true : undefined],
    [OPTION.pageServer, pageServerOf(settings.pageServer)],
    [OPTION.freezeCgroup, cgroup.version === 1 ? cgroup.directories.freezer : cgroup.directories[""]],
    ...externalNamespaces(spec).map(({ type, kind, name }): Message[number] => {
      const inode = /\[(\d+)\]/.exec(readlinkSync(`/proc/${pid}/ns/${kind}`))?.[1];
      if (!inode) throw failedPrecondition(`the ${type} namespace of the container cannot be read`);
      return [OPTION.external, `${kind}[${inode}]:${name}`];
    }),
    ...givenAgain(descriptors).flatMap(({ name }): Message => (isHostsFile(name) ? [[OPTION.external, name]] : [])),
    ...externalMounts(spec, bundle, openCgroup(cgroup), `/proc/${pid}/root`).map(({ inside }): Message[number] => [
      OPTION.externalMount,
      [
        [1, inside],
        [2, inside],
      ],
    ]),
  ];
  if (!preDump) writeFileSync(`${images.path}/descriptors.json`, JSON.stringify(descriptors), { mode: 0o600 });
  const log = `${images.work}/dump.log`;
  await requestCriu(
    { type: preDump ? REQUEST.preDump : REQUEST.dump, options, criu, log },
    () => [],
    ({ script }) => {
      if (script === "status-ready" && statusFd !== undefined) {
        writeSync(statusFd, new Uint8Array(1));
        closeSync(statusFd);
      }
    },
  );
}
