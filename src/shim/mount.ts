// Mounting a root file system on the host, for runtimes that expect it ready in the bundle (mount(2)). Ours mounts it inside the container.
import { binding, check, MS_BIND, MS_REC, MS_REMOUNT, parseMountOptions, SYS } from "../linux/index.ts";
import type { RootMount } from "../runtime/face.ts";

const MNT_DETACH = 2;
/** Longer options than a page don't reach the kernel. */
const PAGE = 4096;

/** Mounts one over the other on `target`. */
export function mountAll(mounts: RootMount[], target: string): void {
  for (const mount of mounts) {
    const { flags, data: options } = parseMountOptions(mount.options);
    const what = `mount ${mount.type} on ${target}`;
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
