// The control groups of a container, behind one face for v1 (a hierarchy per controller) and v2 (one).
//
//   const location = locateCgroup(spec, id)      where they are to be; kept in the container's state
//   const cgroup = openCgroup(location)          nothing happens yet
//   cgroup.plan(resources)                       what a tape has to do: make, write limits, join
//   cgroup.stats() apply() freeze() onOom()      while it lives
//   await cgroup.remove(true)                    kills what is left, removes; fine where nothing is there
import { dirname } from "../../lib/paths.ts";
import { existsSync, isWritable, readFileSync } from "../../linux/index.ts";
import type { Resources, Spec } from "../../oci/runtime-spec.ts";
import type { CgroupStats } from "../face.ts";
import { controlGroupsV1 } from "./v1.ts";
import { controlGroupsV2 } from "./v2.ts";

/** What a tape does to make a container's cgroups. */
export interface CgroupPlan {
  version: 1 | 2;
  /** Directories to make, parents first; those that exist are fine. */
  directories: string[];
  writes: CgroupWrite[];
  /** v2: the directory that the process starts in. v1: directories whose `tasks` take it. */
  join: string[];
  /** Where clone3 puts the process: on v2 the same as `join`, on a hybrid machine its place in the v2 hierarchy. */
  into?: string;
  /** v2: the BPF program that decides on devices, to be attached to the last of `directories`. */
  devices?: Uint8Array;
  /** What a cgroup mount inside the container shows, and what it shows to one without a cgroup namespace. v2: one entry. */
  mounts: { name: string; links: string[]; directory: string; withoutNamespace?: string }[];
}

export interface CgroupWrite {
  file: string;
  value: string;
  why: string;
  ignore?: "all" | number[];
}

/** Where a container's cgroups are. */
export interface CgroupLocation {
  version: 1 | 2;
  /** v1: directory by controller, on a hybrid machine that in v2 under ""; v2: the one directory, under "". */
  directories: Record<string, string>;
  /** Made by a user without all rights: what cannot be made is gone without, as far as no limits are asked for. */
  rootless?: boolean;
  /** It is a unit of systemd's. */
  systemd?: SystemdUnit;
}

export interface SystemdUnit {
  /** NAME.scope, or NAME.slice. */
  unit: string;
  slice: string;
  /** Of the user's own systemd. */
  user: boolean;
}

export interface Cgroup {
  /**
   * Makes parents where they are missing (they stay), which is why it is not pure, unless it is a `rehearsal`; the container's own directories
   * are the tape's to make.
   */
  plan(resources: Resources, rehearsal?: boolean): CgroupPlan;
  /** What a further process of the container, whose init has that pid, has to join. */
  planJoin(init: number): CgroupPlan;
  pids(): number[];
  /** Changes limits while it lives, all or none. Device rules stay as they were made, as with runc. */
  apply(resources: Resources): void | Promise<void>;
  stats(): CgroupStats;
  /** Resolves once every process is frozen, or thawed. */
  freeze(on: boolean): Promise<void>;
  frozen(): boolean;
  /** Ends with the returned function, which tells what is not told yet. */
  onOom(callback: () => void): () => void;
  /** Idempotent. Rejects where processes stay although they were killed (or `force` is off and some run). */
  remove(force: boolean): Promise<void>;
}

/** A version's files, whoever made the directories. */
export interface ControlGroups extends Omit<Cgroup, "apply"> {
  /** As apply; what is returned gives the old limits back. */
  change(resources: Resources): () => void;
}

export interface Hierarchies {
  version: 1 | 2;
  /** v1: mount point by controller name (also "name=systemd"), on a hybrid machine that of v2 under ""; v2: under "". */
  mounts: Map<string, string>;
  /** This process' own cgroup by controller. */
  own: Map<string, string>;
}

let cached: Hierarchies | undefined;

export function hierarchies(): Hierarchies {
  cached ??= readHierarchies(readFileSync("/proc/self/mountinfo", "utf8"), readFileSync("/proc/self/cgroup", "utf8"));
  return cached;
}

const unescaped = (text: string) =>
  text.includes("\\") ? text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8))) : text;

const noController = ["rw", "ro", "xattr", "noprefix", "clone_children", "release_agent"];

/** Where systemd and those who follow it mount v2 beside v1's controllers. */
const HYBRID = "/sys/fs/cgroup/unified";

/** From /proc/self/mountinfo and /proc/self/cgroup. v2 only where /sys/fs/cgroup itself is it: a hybrid host keeps its controllers in v1. */
export function readHierarchies(mountinfo: string, cgroup: string): Hierarchies {
  const mounts = new Map<string, string>();
  let version: 1 | 2 = 1;
  for (let separator = mountinfo.indexOf(" - cgroup"); separator >= 0; separator = mountinfo.indexOf(" - cgroup", separator + 1)) {
    const end = mountinfo.indexOf("\n", separator);
    const line = mountinfo.slice(mountinfo.lastIndexOf("\n", separator) + 1, end < 0 ? undefined : end);
    const mountPoint = unescaped(line.split(" ", 5)[4] ?? "");
    const fields = line.slice(line.indexOf(" - cgroup") + 3).split(" ");
    const type = fields[0];
    const options = fields[2];
    if (type === "cgroup2" && mountPoint === "/sys/fs/cgroup") {
      version = 2;
      mounts.set("", mountPoint);
    } else if (type === "cgroup2" && mountPoint === HYBRID) {
      mounts.set("", mountPoint);
    } else if (type === "cgroup") {
      for (const option of (options ?? "").split(","))
        if (!noController.includes(option) && !mounts.has(option)) mounts.set(option, mountPoint);
    }
  }
  if (version === 2) for (const name of [...mounts.keys()]) if (name !== "") mounts.delete(name);
  return { version, mounts, own: pathsOf(cgroup) };
}

/** /proc/PID/cgroup: path by controller, v2's under "". */
export function pathsOf(cgroup: string): Map<string, string> {
  const paths = new Map<string, string>();
  for (const line of cgroup.split("\n")) {
    // ID:CONTROLLER,…:PATH
    const names = line.indexOf(":") + 1;
    const path = line.indexOf(":", names) + 1;
    if (names > 0 && path > 0) for (const name of line.slice(names, path - 1).split(",")) paths.set(name, line.slice(path));
  }
  return paths;
}

/** v1 hierarchies in which a container always gets a place (the last is for others to find it by); others only where its limits ask for them. */
export const V1_CONTROLLERS = ["cpuset", "cpu", "cpuacct", "memory", "devices", "freezer", "blkio", "pids", "name=systemd"];

/** Absolute paths count from the hierarchy's root, others (and the default, the id) from this process' own cgroup. */
export function locateCgroup(spec: Spec, id: string, rootless = false, all: Hierarchies = hierarchies()): CgroupLocation {
  const asked = spec.linux?.cgroupsPath || id;
  let clean = "";
  for (const part of asked.split("/")) if (part !== "" && part !== "." && part !== "..") clean += `/${part}`;
  const directories: Record<string, string> = {};
  const wanted = wantedControllers(spec, all.version);
  for (const [controller, mountPoint] of all.mounts) {
    if (!wanted.has(controller)) continue;
    const own = asked.startsWith("/") ? "" : (all.own.get(controller) ?? "");
    const directory = `${mountPoint}${own === "/" ? "" : own}${clean}`;
    // Of its own accord a user without rights takes what can be had. v2 beside v1's controllers is for the sake of others, who may do without.
    if (rootless && all.version === 1 && controller === "" && !(canMake(directory) && canMove(mountPoint, all.own.get(""), directory)))
      continue;
    if (rootless && !spec.linux?.cgroupsPath && !canMake(directory)) continue;
    directories[controller] = directory;
  }
  return { version: all.version, directories, ...(rootless ? { rootless } : {}) };
}

/** The hierarchies in which a container gets a place. */
export function wantedControllers({ linux }: Spec, version: 1 | 2): Set<string> {
  const resources = linux?.resources;
  const wanted = new Set(version === 2 ? [""] : ["", ...V1_CONTROLLERS]);
  if (version === 2) return wanted;
  if (resources?.network?.classID) wanted.add("net_cls");
  if (resources?.network?.priorities?.length) wanted.add("net_prio");
  if (resources?.hugepageLimits?.length) wanted.add("hugetlb");
  if (resources?.rdma) wanted.add("rdma");
  return wanted;
}

/** A process gets into a cgroup of v2 by who may write to the lowest that it and its old one are below (cgroup-v2.rst, "Delegation Containment"). */
function canMove(mountPoint: string, from: string | undefined, to: string): boolean {
  const own = `${mountPoint}${from ?? ""}/`;
  let common = to;
  while (common !== mountPoint && !own.startsWith(`${common}/`)) common = dirname(common);
  return isWritable(`${common}/cgroup.procs`);
}

function canMake(directory: string): boolean {
  let there = directory;
  while (there !== "/" && !existsSync(there)) there = dirname(there);
  return isWritable(there);
}

/** Where a process is that somebody else put there. */
export function locateProcess(pid: number): CgroupLocation {
  let text = "";
  try {
    text = readFileSync(`/proc/${pid}/cgroup`, "utf8");
  } catch {
    // it is gone
  }
  const { version, mounts } = hierarchies();
  const directories: Record<string, string> = {};
  for (const [controller, path] of pathsOf(text)) {
    const mountPoint = mounts.get(controller);
    if (mountPoint !== undefined) directories[controller] = `${mountPoint}${path}`;
  }
  return { version, directories };
}

export function openCgroup(location: CgroupLocation): Cgroup {
  const cgroup = location.version === 2 ? controlGroupsV2(location) : controlGroupsV1(location);
  const { systemd, version } = location;
  if (!systemd) return { ...cgroup, apply: (resources) => void cgroup.change(resources) };
  return {
    ...cgroup,
    async apply(resources) {
      const undo = cgroup.change(resources);
      try {
        await (await import("./systemd.ts")).updateUnit(systemd, resources, version);
      } catch (error) {
        undo();
        throw error;
      }
      // systemd has written them again, rounded.
      cgroup.change(resources);
    },
    async remove(force) {
      await cgroup.remove(force);
      await (await import("./systemd.ts")).stopUnit(systemd);
    },
  };
}

/** Whether any of the location's directories is there. */
export function cgroupExists(location: CgroupLocation): boolean {
  return Object.values(location.directories).some((directory) => existsSync(directory));
}
