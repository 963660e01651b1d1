// What plans must know of this machine, asked once.
import { invalidArgument, notFound, unimplemented } from "../lib/errors.ts";
import {
  binding,
  check,
  close,
  existsSync,
  hasApparmor,
  isInitialUserNamespace,
  kernelRelease,
  lstatSync,
  O_DIRECTORY,
  O_PATH,
  open,
  openat2,
  openOverlay,
  RESOLVE_BENEATH,
  RESOLVE_IN_ROOT,
  RESOLVE_NO_MAGICLINKS,
  RESOLVE_NO_SYMLINKS,
  readdirSync,
  readFileSync,
  readlinkSync,
  type Status,
  SYS,
  SystemError,
  statSync,
} from "../linux/index.ts";
import type { RootMount } from "./face.ts";
import type { Entry } from "./plan/copyup.ts";
import type { Facts } from "./plan/facts.ts";
import { splitLayers } from "./plan/layers.ts";

let cached: Facts | undefined;

/** "6.1.0-18-cloud-amd64" as 6.01, so that versions compare as numbers. */
export function kernelVersion(text: string): number {
  return (Number.parseInt(text, 10) || 0) + (Number.parseInt(text.slice(text.indexOf(".") + 1), 10) || 0) / 100;
}

const LINUX_CAPABILITY_VERSION_3 = 0x20080522;

/** This process' own (capget(2)). */
function permittedCapabilities(): [low: number, high: number] {
  const header = new Int32Array([LINUX_CAPABILITY_VERSION_3, 0]);
  // effective, permitted, inheritable; then the same for the capabilities from 32 on.
  const data = new Int32Array(6);
  check(binding.syscall(SYS.capget, header, data), "capget");
  return [data[1]!, data[4]!];
}

export function facts(): Facts {
  cached ??= {
    kernel: kernelVersion(kernelRelease()),
    capabilities: permittedCapabilities(),
    lastCapability: Number(readFileSync("/proc/sys/kernel/cap_last_cap", "utf8")),
    ...identity(),
    apparmor: hasApparmor(),
    resctrl: existsSync("/sys/fs/resctrl"),
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

function identity(): Pick<Facts, "ordinaryUser" | "inUserNamespace" | "groupsDenied"> {
  const uid = process.geteuid?.() ?? 0;
  const inUserNamespace = !isInitialUserNamespace();
  return {
    ordinaryUser: uid === 0 ? undefined : { uid, gid: process.getegid?.() ?? 0 },
    inUserNamespace,
    groupsDenied: inUserNamespace && readFileSync("/proc/self/setgroups", "utf8").trim() === "deny",
  };
}

const MAX_ENTRIES = 10_000;

/** What the mounts will show, as they are mounted later: an overlay's own upper directory is its topmost layer, only read. */
function openRoot(root: string | readonly RootMount[]): number {
  if (typeof root === "string") return open(root, O_PATH | O_DIRECTORY);
  const top = root.findLast(({ target }) => !target || target === "/");
  if (top?.type === "bind") return open(top.source, O_PATH | O_DIRECTORY);
  if (top?.type !== "overlay") throw unimplemented(`option tmpcopyup on a root file system of type ${top?.type} is not supported`);
  const value = (key: string) => top.options.find((option) => option.startsWith(`${key}=`))?.slice(key.length + 1);
  const layers = [...(value("upperdir") ? [value("upperdir")!] : []), ...splitLayers(value("lowerdir") ?? "")];
  return layers.length === 1 ? open(layers[0]!, O_PATH | O_DIRECTORY) : openOverlay({ lower: layers });
}

function entriesOf(from: string | readonly RootMount[], destination: string): Entry[] {
  const entries: Entry[] = [];
  const root = openRoot(from);
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

function statusOf({ mode, uid, gid, rdev }: Status): Omit<Entry, "path"> {
  return { mode, uid, gid, rdev };
}
