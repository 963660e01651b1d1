// The local driver: where a volume's files are. Without options that is its own directory; with `o=bind` the device itself, which needs no mount;
// any other file system (nfs, tmpfs, ext4 on a device) is mounted on the volume's directory while containers use it, as containers share it.

import { lookup } from "node:dns/promises";
import { lstatSync, readFileSync, readlinkSync } from "node:fs";
import { isIP } from "node:net";
import { invalidArgument, messageOf, unknown } from "../../lib/errors.ts";
import {
  binding,
  close,
  errno,
  errnoText,
  MS_BIND,
  MS_REC,
  MS_REMOUNT,
  O_PATH,
  open,
  openat2,
  parseMountOptions,
  RESOLVE_IN_ROOT,
  SYS,
  SystemError,
} from "../../linux/index.ts";
import type { StoredVolume } from "./store.ts";

function mounted(path: string): boolean {
  const escaped = path.replace(/[ \t\n\\]/g, (c) => `\\${c.charCodeAt(0).toString(8).padStart(3, "0")}`);
  return readFileSync("/proc/self/mountinfo", "utf8").includes(` ${escaped} `);
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
    const said = type === "nfs" || type === "cifs" ? await resolveAddress(o) : o;
    const { flags: all, data } = parseMountOptions(said.split(",").filter((each) => each !== ""));
    const bind = all & MS_BIND ? all & (MS_BIND | MS_REC) : 0;
    const flags = all & ~(MS_BIND | MS_REC);
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
