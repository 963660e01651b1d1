// Mounting a root file system on the host, for runtimes that expect it ready in the bundle (mount(2)). Ours mounts it inside the container.
import { binding, check, SYS } from "../linux/index.ts";
import type { RootMount } from "../runtime/face.ts";

const flagsOf: Record<string, [set: number, clear: number]> = {
  ro: [1, 0],
  rw: [0, 1],
  nosuid: [2, 0],
  suid: [0, 2],
  nodev: [4, 0],
  dev: [0, 4],
  noexec: [8, 0],
  exec: [0, 8],
  sync: [16, 0],
  noatime: [1024, 0],
  atime: [0, 1024],
  nodiratime: [2048, 0],
  bind: [4096, 0],
  rbind: [4096 | 16384, 0],
  relatime: [1 << 21, 0],
  strictatime: [1 << 24, 0],
  private: [1 << 18, 0],
  rprivate: [(1 << 18) | 16384, 0],
};
const MS_REMOUNT = 32;
const MS_BIND = 4096;
const MS_REC = 16384;
const MNT_DETACH = 2;
/** Longer options than a page don't reach the kernel. */
const PAGE = 4096;

/** Mounts one over the other on `target`. */
export function mountAll(mounts: RootMount[], target: string): void {
  for (const mount of mounts) {
    let flags = 0;
    const data: string[] = [];
    for (const option of mount.options) {
      const known = flagsOf[option];
      if (known) flags = (flags | known[0]) & ~known[1];
      else if (option !== "defaults") data.push(option);
    }
    const what = `mount ${mount.type} on ${target}`;
    const options = data.join(",");
    if (options.length >= PAGE) throw new Error(`${what}: the options are longer than a page`);
    const where = mount.target ? `${target}/${mount.target}` : target;
    check(binding.syscall(SYS.mount, mount.source, where, mount.type, flags, options || null), what);
    if (flags & MS_BIND && flags & ~(MS_BIND | MS_REC))
      check(binding.syscall(SYS.mount, null, where, null, flags | MS_REMOUNT, null), `${what} (remount)`);
  }
}

/** Unmounts all that is mounted on `target`. */
export function unmountAll(target: string): void {
  while (binding.syscall(SYS.umount2, target, MNT_DETACH) === 0);
}
