// What a dump and a restore have in common: where the images are, and what CRIU is told of the container.
import { closeSync, mkdirSync, openSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { Failure, invalidArgument } from "../lib/errors.ts";
import type { NamespaceType, Spec } from "../oci/runtime-spec.ts";
import type { CgroupLocation } from "./cgroups/index.ts";
import { type Message, OPTION } from "./criu.ts";

/** As a caller asks for them. */
export interface CriuSettings {
  /** Directory of the images, absolute. */
  images: string;
  /** Directory of CRIU's logs; that of the images unless told. */
  work?: string | undefined;
  shellJob?: boolean;
  externalUnixSockets?: boolean;
  tcpEstablished?: boolean;
  fileLocks?: boolean;
  autoDedup?: boolean;
  lazyPages?: boolean;
  cgroupsMode?: string | undefined;
  /** Namespaces that are written down without what is in them. */
  emptyNamespaces?: readonly string[];
  /** The program, instead of that in $PATH. */
  criu?: string | undefined;
}

/** The container that is written down, or made again. */
export interface CriuSubject {
  spec: Spec;
  bundle: string;
  /** The root file system's path on the host. */
  rootfs: string;
  cgroup: CgroupLocation;
}

/** Directories of images and logs. CRIU opens the descriptors by this process' /proc. */
export interface Images {
  path: string;
  directory: number;
  work: string;
  workDirectory: number | undefined;
  close(): void;
}

export function openImages({ images: path, work: asked }: CriuSettings): Images {
  const work = asked || path;
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

const cgroupModes: Record<string, number> = { ignore: 0, soft: 3, full: 4, strict: 5 };
const CLONE_NEWNET = 0x40000000;

/** Options of both directions. `log` is a name in the working directory. */
export function commonOptions(settings: CriuSettings, images: Images, { spec, rootfs }: CriuSubject, log: string): Message {
  const { cgroupsMode: mode, emptyNamespaces: empty = [] } = settings;
  if (mode && !Object.hasOwn(cgroupModes, mode)) throw invalidArgument("Invalid manage cgroups mode");
  if (empty.some((name) => name !== "network"))
    throw invalidArgument(`namespace ${JSON.stringify(empty.find((n) => n !== "network"))} is not supported`);
  return [
    [OPTION.imagesDir, images.directory],
    [OPTION.workDir, images.workDirectory],
    [OPTION.logLevel, 4],
    [OPTION.logFile, log],
    [OPTION.configFile, spec.annotations?.["org.criu.config"] || undefined],
    [OPTION.root, rootfs],
    [OPTION.notifyScripts, true],
    [OPTION.shellJob, settings.shellJob ?? false],
    [OPTION.externalUnixSockets, settings.externalUnixSockets ?? false],
    [OPTION.tcpEstablished, settings.tcpEstablished ?? false],
    [OPTION.fileLocks, settings.fileLocks ?? false],
    [OPTION.autoDedup, settings.autoDedup ?? false],
    [OPTION.lazyPages, settings.lazyPages ?? false],
    [OPTION.orphanTerminal, true],
    [OPTION.manageCgroups, true],
    [OPTION.manageCgroupsMode, mode ? cgroupModes[mode] : undefined],
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

/**
 * What stdin, stdout and stderr are, for descriptors.json, as runc has it: at restore others take the places of pipes. A FIFO or file of the host's
 * stands there under the name by which CRIU knows a file that is in no mount of the container's (criu(8), --external).
 */
export function descriptorsOf(pid: number): string[] {
  let mounts: Set<string> | undefined;
  return [0, 1, 2].map((fd) => {
    try {
      const path = readlinkSync(`/proc/${pid}/fd/${fd}`);
      if (!path.startsWith("/")) return path;
      mounts ??= new Set(
        readFileSync(`/proc/${pid}/mountinfo`, "utf8")
          .split("\n")
          .map((line) => line.split(" ", 1)[0]!),
      );
      const mount = /^mnt_id:\t(\d+)$/m.exec(readFileSync(`/proc/${pid}/fdinfo/${fd}`, "utf8"))?.[1];
      if (mount === undefined || mounts.has(mount)) return path;
      return `file[${Number(mount).toString(16)}:${statSync(`/proc/${pid}/fd/${fd}`, { bigint: true }).ino.toString(16)}]`;
    } catch {
      return "";
    }
  });
}

const ELSEWHERE = /^(pipe:|file\[)/;

/** Of those, what is not written down and given again at restore. */
export function givenAgain(descriptors: readonly string[]): { name: string; fd: number }[] {
  const all = descriptors.map((name, fd) => ({ name, fd }));
  return all.filter(({ name, fd }) => ELSEWHERE.test(name) && descriptors.indexOf(name) === fd);
}

export const isHostsFile = (name: string) => name.startsWith("file[");

export function readDescriptors(images: Images): string[] {
  let names: unknown;
  try {
    names = JSON.parse(readFileSync(`${images.path}/descriptors.json`, "utf8"));
  } catch (error) {
    if (error instanceof SyntaxError) throw invalidArgument(`descriptors.json: ${error.message}`);
    throw new Failure("NotFound", `${images.path} has no descriptors.json: it is no checkpoint of this runtime or of runc`);
  }
  if (!Array.isArray(names)) throw invalidArgument("descriptors.json is not a list");
  return names.slice(0, 3).map((name: unknown) => (typeof name === "string" ? name : ""));
}
