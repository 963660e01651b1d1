// A bundle: the directory a shim is given, STATE/io.containerd.runtime.v2.task/NAMESPACE/ID with config.json and an empty `rootfs`, on which the
// shim (never we) mounts. Removal never walks into `rootfs`: were something still mounted there, that would delete a container's files.
import { mkdirSync, readdirSync, rmdirSync, rmSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { entriesOf } from "../../lib/entries.ts";
import { alreadyExists } from "../../lib/errors.ts";
import { binding, errno, SYS } from "../../linux/index.ts";

const MNT_DETACH = 2;
const UMOUNT_NOFOLLOW = 8;

export function bundlePath(state: string, namespace: string, id: string): string {
  return join(state, "io.containerd.runtime.v2.task", namespace, id);
}

/** The bundles that are there. */
export function bundles(state: string): { namespace: string; id: string; path: string }[] {
  return entriesOf(bundlePath(state, "", "")).flatMap((namespace) =>
    entriesOf(bundlePath(state, namespace, "")).map((id) => ({ namespace, id, path: bundlePath(state, namespace, id) })),
  );
}

/** Makes the bundle; AlreadyExists where there is one. */
export function createBundle(path: string, config: Uint8Array): void {
  try {
    mkdirSync(path, 0o711);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === "EEXIST") throw alreadyExists(`bundle ${path}`);
    if (code !== "ENOENT") throw error;
    mkdirSync(join(path, ".."), { recursive: true, mode: 0o711 });
    mkdirSync(path, 0o711);
  }
  try {
    mkdirSync(join(path, "rootfs"), 0o711);
    writeFileSync(join(path, "config.json"), config, { mode: 0o600 });
  } catch (error) {
    removeBundle(path);
    throw error;
  }
}

/** Removes what is there of a bundle; what a dead shim left mounted is detached first. */
export function removeBundle(path: string): void {
  const rootfs = join(path, "rootfs");
  for (let tries = 0; tries < 16; tries++) {
    try {
      rmdirSync(rootfs);
      break;
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code;
      if (code === "ENOENT") break;
      // a mount point says EBUSY; a root file system that was mounted over says ENOTEMPTY
      if (code !== "EBUSY" && code !== "ENOTEMPTY") throw error;
      const result = binding.syscall(SYS.umount2, rootfs, MNT_DETACH | UMOUNT_NOFOLLOW);
      if (result === -errno.EINVAL && code === "ENOTEMPTY") break;
      if (result < 0 && result !== -errno.EINVAL) break;
    }
  }
  try {
    unlinkSync(join(path, "config.json"));
    rmdirSync(path);
  } catch {
    let names: string[] = [];
    try {
      names = readdirSync(path);
    } catch {
      return;
    }
    for (const name of names) if (name !== "rootfs") rmSync(join(path, name), { recursive: true, force: true });
    try {
      rmdirSync(path);
    } catch {
      // a rootfs that is not ours to delete stays, for somebody to look at
    }
  }
}
