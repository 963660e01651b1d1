// The local driver: where a volume's files are. Without options that is its own directory; with `o=bind` the device itself, which needs no mount;
// any other file system (nfs, tmpfs, ext4 on a device) is mounted on the volume's directory while containers use it, as containers share it.

import { lookup } from "node:dns/promises";
import { lstatSync, readFileSync, readlinkSync } from "node:fs";
import { isIP } from "node:net";
import { invalidArgument, messageOf, unknown } from "../../lib/errors.ts";
import { binding, close, errno, errnoText, O_PATH, open, openat2, RESOLVE_IN_ROOT, SYS, SystemError } from "../../linux/index.ts";
import type { StoredVolume } from "./store.ts";

const FLAGS: Record<string, [set: number, clear: number]> = {
  ro: [1, 0],
  rw: [0, 1],
  nosuid: [2, 0],
  suid: [0, 2],
  nodev: [4, 0],
  dev: [0, 4],
  noexec: [8, 0],
  exec: [0, 8],
  sync: [16, 0],
  async: [0, 16],
  noatime: [1024, 0],
  nodiratime: [2048, 0],
  relatime: [1 << 21, 0],
  strictatime: [1 << 24, 0],
  defaults: [0, 0],
};

function mounted(path: string): boolean {
  const escaped = path.replace(/[ \t\n\\]/g, (c) => `\\${c.charCodeAt(0).toString(8).padStart(3, "0")}`);
  return readFileSync("/proc/self/mountinfo", "utf8").includes(` ${escaped} `);
}

const MS_REMOUNT = 32;
const MS_BIND = 4096;
const MS_REC = 16384;

/** mount(8)'s options as flags and what is for the file system itself. */
function parseOptions(text: string): { bind: number; flags: number; data: string } {
  let flags = 0;
  let bind = 0;
  const data: string[] = [];
  for (const option of text.split(",").filter((each) => each !== "")) {
    const flag = FLAGS[option];
    if (flag) flags = (flags | flag[0]) & ~flag[1];
    else if (option === "bind" || option === "rbind") bind |= option === "bind" ? MS_BIND : MS_BIND | MS_REC;
    else data.push(option);
  }
  return { bind, flags, data: data.join(",") };
}

/** The server's address of a network file system: the kernel takes no names. */
async function resolveAddress(options: string): Promise<string> {
  const name = /(?:^|,)addr=([^,]*)/.exec(options)?.[1];
  if (!name || isIP(name) !== 0) return options;
  try {
    return options.replace(`addr=${name}`, `addr=${(await lookup(name)).address}`);
  } catch (error) {
    throw unknown(`error resolving passed in network volume address: lookup ${name}: no such host`, error);
  }
}

/** The directory with the volume's files, mounted where it has to be. */
export async function mountVolume(volume: StoredVolume, path: string): Promise<string> {
  const { type, device, o = "" } = volume.options;
  if (!type && !device) return path;
  try {
    const { bind, flags, data } = parseOptions(type === "nfs" || type === "cifs" ? await resolveAddress(o) : o);
    const mount = (what: number) => {
      const result = binding.syscall(SYS.mount, device ?? type ?? "none", path, type ?? "none", what, data);
      if (result === 0) return;
      const details = `${what ? `, flags: 0x${what.toString(16)}` : ""}${data ? `, data: ${data.replace(/password=[^,]*/, "password=********")}` : ""}`;
      throw unknown(
        `failed to mount local volume: mount ${device}:${path}${details}: ${errnoText(-result)}`,
        new SystemError(`mount ${device} on ${path}`, -result),
      );
    };
    if (bind && !(device?.startsWith("/") && lstatSync(device, { throwIfNoEntry: false })))
      throw unknown(`failed to mount local volume: mount ${device}:${path}, flags: 0x${bind.toString(16)}: no such file or directory`);
    // The device itself, as good as a mount of it.
    if (bind && !flags) return device!;
    if (mounted(path)) return path;
    mount(bind || flags);
    if (bind) {
      try {
        mount(MS_REMOUNT | bind | flags);
      } catch (error) {
        unmountVolume(path);
        throw error;
      }
    }
    return path;
  } catch (error) {
    throw unknown(`error while mounting volume '${path}': ${messageOf(error)}`, error);
  }
}

/** Takes the mount away where there is one. */
export function unmountVolume(path: string): void {
  const MNT_DETACH = 2;
  const UMOUNT_NOFOLLOW = 8;
  const result = binding.syscall(SYS.umount2, path, MNT_DETACH | UMOUNT_NOFOLLOW);
  if (result < 0 && result !== -errno.EINVAL && result !== -errno.ENOENT) throw new SystemError(`umount ${path}`, -result);
}

/** `subpath` inside the volume, by its real path; links in it stay inside. */
export function sourceOf(dir: string, subpath: string): string {
  if (subpath === "") return dir;
  const root = open(dir, O_PATH);
  try {
    const fd = openat2(root, subpath, O_PATH, { resolve: RESOLVE_IN_ROOT });
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } finally {
      close(fd);
    }
  } catch (error) {
    if (error instanceof SystemError && error.errno === errno.ENOENT) {
      throw invalidArgument(`cannot access path ${dir}/${subpath}: lstat ${dir}/${subpath}: no such file or directory`);
    }
    throw error;
  } finally {
    close(root);
  }
}
