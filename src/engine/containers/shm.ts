// /dev/shm of a container that shares its IPC namespace (--ipc shareable). A mount inside its own mount namespace could not be handed to others, so this
// one lives on the host, below EXEC_ROOT/shm, while the container runs. All others have theirs inside.
import { mkdirSync, readdirSync, rmdirSync } from "node:fs";
import { AT_FDCWD, binding, check, close, errno, SYS } from "../../linux/index.ts";

const FSOPEN_CLOEXEC = 1;
const FSMOUNT_CLOEXEC = 1;
const FSCONFIG_SET_STRING = 1;
const FSCONFIG_CMD_CREATE = 6;
const MOVE_MOUNT_F_EMPTY_PATH = 4;
const MOUNT_ATTR_NOSUID_NODEV_NOEXEC = 2 | 4 | 8;
const MNT_DETACH = 2;
const UMOUNT_NOFOLLOW = 8;

export function shmPath(execRoot: string, id: string): string {
  return `${execRoot}/shm/${id}`;
}

/** Mounts it, unless it is there from a start before. */
export function mountShm(execRoot: string, id: string, size: number): string {
  const path = shmPath(execRoot, id);
  unmountShm(execRoot, id);
  mkdirSync(path, { recursive: true, mode: 0o700 });
  const context = check(binding.syscall(SYS.fsopen, "tmpfs", FSOPEN_CLOEXEC), "fsopen tmpfs");
  let mount = -1;
  try {
    for (const [key, value] of [
      ["source", "shm"],
      ["mode", "1777"],
      ["size", String(size)],
    ] as const) {
      check(binding.syscall(SYS.fsconfig, context, FSCONFIG_SET_STRING, key, value, 0), `tmpfs ${key}`);
    }
    check(binding.syscall(SYS.fsconfig, context, FSCONFIG_CMD_CREATE, null, null, 0), "mount tmpfs");
    mount = check(binding.syscall(SYS.fsmount, context, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID_NODEV_NOEXEC), "mount tmpfs");
    check(binding.syscall(SYS.move_mount, mount, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH), `mount ${path}`);
    return path;
  } finally {
    close(mount);
    close(context);
  }
}

/** Harmless where there is none. */
export function unmountShm(execRoot: string, id: string): void {
  const path = shmPath(execRoot, id);
  const result = binding.syscall(SYS.umount2, path, MNT_DETACH | UMOUNT_NOFOLLOW);
  if (result === -errno.ENOENT) return;
  try {
    rmdirSync(path);
  } catch {
    // not there, or not ours
  }
}

/** Takes away what belongs to no running container. */
export function sweepShm(execRoot: string, live: Set<string>): void {
  let names: string[];
  try {
    names = readdirSync(`${execRoot}/shm`);
  } catch {
    return;
  }
  for (const id of names) if (!live.has(id)) unmountShm(execRoot, id);
}
