// What plans must know of this machine, asked once.
import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync, type Stats, statSync } from "node:fs";
import { release } from "node:os";
import { invalidArgument, notFound } from "../lib/errors.ts";
import {
  close,
  O_DIRECTORY,
  O_PATH,
  open,
  openat2,
  RESOLVE_BENEATH,
  RESOLVE_IN_ROOT,
  RESOLVE_NO_MAGICLINKS,
  RESOLVE_NO_SYMLINKS,
  SystemError,
} from "../linux/index.ts";
import type { Entry } from "./plan/copyup.ts";
import type { Facts } from "./plan/facts.ts";

let cached: Facts | undefined;

/** "6.1.0-18-cloud-amd64" as 6.01, so that versions compare as numbers. */
export function kernelVersion(text: string): number {
  const [major = 0, minor = 0] = text.split(/[.-]/).map(Number);
  return major + minor / 100;
}

/** CapPrm of /proc/PID/status. */
export function permittedCapabilities(status: string): [low: number, high: number] {
  const hex = /^CapPrm:\t([0-9a-f]{16})$/m.exec(status)?.[1] ?? "ffffffffffffffff";
  return [Number.parseInt(hex.slice(8), 16) | 0, Number.parseInt(hex.slice(0, 8), 16) | 0];
}

export function facts(): Facts {
  cached ??= {
    kernel: kernelVersion(release()),
    capabilities: permittedCapabilities(readFileSync("/proc/self/status", "latin1")),
    lastCapability: Number(readFileSync("/proc/sys/kernel/cap_last_cap", "utf8")),
    ...identity(),
    apparmor: existsSync("/sys/kernel/security/apparmor"),
    selinux: existsSync("/sys/fs/selinux/enforce"),
    kindOf(path) {
      const stat = statSync(path, { throwIfNoEntry: false });
      if (!stat) throw notFound(`the bind mount's source ${path} does not exist: no such file or directory`);
      return stat.isDirectory() ? "directory" : "file";
    },
    entriesOf,
  };
  return cached;
}

const INITIAL_MAP = /^\s*0\s+0\s+4294967295\s*$/;

function identity(): Pick<Facts, "ordinaryUser" | "inUserNamespace" | "groupsDenied"> {
  const uid = process.geteuid?.() ?? 0;
  const inUserNamespace = !INITIAL_MAP.test(readFileSync("/proc/self/uid_map", "utf8"));
  return {
    ordinaryUser: uid === 0 ? undefined : { uid, gid: process.getegid?.() ?? 0 },
    inUserNamespace,
    groupsDenied: inUserNamespace && readFileSync("/proc/self/setgroups", "utf8").trim() === "deny",
  };
}

const MAX_ENTRIES = 10_000;

function entriesOf(rootPath: string, destination: string): Entry[] {
  const entries: Entry[] = [];
  const root = open(rootPath, O_PATH | O_DIRECTORY);
  let place = -1;
  try {
    place = openat2(root, destination, O_PATH | O_DIRECTORY, { resolve: RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS });
    const look = (path: string) => {
      const directory = openat2(place, path || ".", O_DIRECTORY, { resolve: RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS });
      try {
        const here = `/proc/self/fd/${directory}`;
        if (!path) entries.push({ path, ...statusOf(statSync(here)) });
        for (const name of readdirSync(here)) {
          if (entries.length > MAX_ENTRIES) throw invalidArgument(`tmpcopyup: more than ${MAX_ENTRIES} files in ${destination}`);
          const status = lstatSync(`${here}/${name}`);
          const target = status.isSymbolicLink() ? { target: readlinkSync(`${here}/${name}`) } : {};
          const inside = path ? `${path}/${name}` : name;
          entries.push({ path: inside, ...statusOf(status), ...target });
          if (status.isDirectory()) look(inside);
        }
      } finally {
        close(directory);
      }
    };
    look("");
  } catch (error) {
    if (!(error instanceof SystemError) || error.code !== "ENOENT" || entries.length > 0) throw error;
  } finally {
    close(place);
    close(root);
  }
  return entries;
}

function statusOf({ mode, uid, gid, rdev }: Stats): Omit<Entry, "path"> {
  return { mode, uid, gid, rdev };
}
