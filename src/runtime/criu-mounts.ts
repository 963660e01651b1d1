// Mounts of a container that come from outside: CRIU does not write down what they hold, and is told at restore what to bind in their place.
import { statSync } from "node:fs";
import {
  binding,
  check,
  close,
  MS_BIND,
  MS_REC,
  MS_REMOUNT,
  O_DIRECTORY,
  O_PATH,
  open,
  openat2,
  openOverlay,
  parseMountOptions,
  RESOLVE_IN_ROOT,
  RESOLVE_NO_MAGICLINKS,
  SYS,
} from "../linux/index.ts";
import type { Spec } from "../oci/runtime-spec.ts";
import type { Cgroup } from "./cgroups/index.ts";
import type { RootMount } from "./face.ts";
import { makeInRoot } from "./missing.ts";
import { defaultDevices, ownsDev } from "./plan/devices.ts";
import { parseOptions } from "./plan/mount-options.ts";

export interface ExternalMount {
  /** Its path in the container, without links. */
  inside: string;
  /** What is bound there, on the host. */
  source: string;
}

const kindOf = (path: string) => (statSync(path).isDirectory() ? "directory" : "file");

/** Binds of the host's files, and cgroups. `root`: the container's, as it is mounted or as it lies on the host. */
export function externalMounts(spec: Spec, bundle: string, cgroup: Cgroup, root: string): ExternalMount[] {
  const fd = open(root, O_PATH | O_DIRECTORY);
  // What lies in a file system of the container's own is not there before CRIU makes it.
  const own = (spec.mounts ?? []).filter((m) => m.type === "tmpfs").map((m) => m.destination);
  const place = (path: string, source: string): ExternalMount => {
    const hidden = own.some((above) => path.startsWith(`${above}/`));
    return { inside: hidden ? path : makeInRoot(fd, path, kindOf(source)), source };
  };
  const seen = new Set<string>();
  try {
    const mounts = (spec.mounts ?? []).flatMap(({ destination, type, source = "", options = [] }): ExternalMount[] => {
      if (type === "cgroup" || type === "cgroup2") {
        if (seen.has("cgroup")) return [];
        seen.add("cgroup");
        const plan = cgroup.plan(spec.linux?.resources ?? {}, true);
        const namespace = spec.linux?.namespaces?.some((n) => n.type === "cgroup");
        return plan.mounts.map(({ name, directory, withoutNamespace = directory }) => ({
          inside: plan.version === 2 ? destination : `${destination}/${name}`,
          source: namespace ? directory : withoutNamespace,
        }));
      }
      if (type !== "bind" && !parseOptions(options).bind) return [];
      return [place(destination, source.startsWith("/") ? source : `${bundle}/${source}`)];
    });
    // In a user namespace device nodes are binds, too.
    if (!spec.linux?.namespaces?.some((n) => n.type === "user") || !ownsDev(spec)) return mounts;
    const devices = new Set([...defaultDevices, ...(spec.linux.devices ?? [])].map(({ path }) => path));
    return [...mounts, ...[...devices].map((path) => ({ inside: path, source: path }))];
  } finally {
    close(fd);
  }
}

const CLONE_NEWNS = 0x20000;
const MS_BIND_REC = 4096 | 16384;
const MS_SLAVE_REC = (1 << 19) | 16384;
const MNT_DETACH = 2;
const OPEN_TREE_CLONE_CLOEXEC_RECURSIVE = 1 | 0o2000000 | 0x8000;
const MOVE_MOUNT_F_EMPTY_PATH = 4;
const MOVE_MOUNT_F_EMPTY_PATH_T_EMPTY_PATH = MOVE_MOUNT_F_EMPTY_PATH | 0x40;

/**
 * Gives this thread, and with it CRIU, mounts of its own in which `rootfs` is one, as CRIU wants it, made by `mounts` where there are some; makes the
 * places where mounts will come, also those inside other binds. `look` finds these once the root is there. There is no way back: for a process that ends
 * with its command.
 */
export function prepareRoot(
  spec: Spec,
  rootfs: string,
  mounts: readonly RootMount[],
  look: () => ExternalMount[],
): readonly ExternalMount[] {
  check(binding.syscall(SYS.unshare, CLONE_NEWNS), "unshare mount namespace");
  // Not private: of a mount that followed one of the host's, CRIU takes what it follows from what is bound in its place.
  check(binding.syscall(SYS.mount, null, "/", null, MS_SLAVE_REC, null), "make mounts slaves");
  for (const each of mounts) mountRoot(each, rootfs);
  const external = look();
  const bindRoot = () => check(binding.syscall(SYS.mount, rootfs, rootfs, null, MS_BIND_REC, null), `bind ${rootfs}`);
  bindRoot();
  const root = open(rootfs, O_PATH | O_DIRECTORY);
  try {
    const own: string[] = [];
    const sources = new Map(external.map(({ inside, source }) => [inside, source]));
    for (const { destination, type } of spec.mounts ?? []) {
      if (own.some((above) => destination.startsWith(`${above}/`))) continue;
      const bound = sources.get(destination);
      const inside = makeInRoot(root, destination, bound === undefined ? "directory" : kindOf(bound));
      const source = sources.get(inside);
      if (type === "tmpfs" || type?.startsWith("cgroup")) own.push(destination);
      else if (source !== undefined) bindAt(root, inside, source);
    }
  } finally {
    close(root);
  }
  check(binding.syscall(SYS.umount2, rootfs, MNT_DETACH), `unmount ${rootfs}`);
  bindRoot();
  return external;
}

/** An overlay's many layers do not fit in the page of options that mount(2) takes. */
function mountRoot({ type, source, target = "", options }: RootMount, rootfs: string): void {
  const where = target === "" ? rootfs : `${rootfs}/${target}`;
  if (type === "overlay") {
    const valued = (key: string) => options.find((option) => option.startsWith(`${key}=`))?.slice(key.length + 1);
    const own = /^(lowerdir|upperdir|workdir)=|^(ro|rw)$/;
    const rest = options.filter((option) => !own.test(option));
    const lower = (valued("lowerdir") ?? "").split(":");
    const tree = openOverlay({ lower, upper: valued("upperdir"), work: valued("workdir"), rest });
    try {
      check(binding.syscall(SYS.move_mount, tree, "", -100, where, MOVE_MOUNT_F_EMPTY_PATH), `mount overlay on ${where}`);
    } finally {
      close(tree);
    }
    return;
  }
  const { flags, data } = parseMountOptions(options);
  const what = `mount ${source} on ${where}`;
  check(binding.syscall(SYS.mount, source, where, type, flags, data || null), what);
  if (flags & MS_BIND && flags & ~(MS_BIND | MS_REC))
    check(binding.syscall(SYS.mount, null, where, null, flags | MS_REMOUNT, null), `${what} (remount)`);
}

function bindAt(root: number, inside: string, source: string): void {
  const place = openat2(root, inside, O_PATH, { resolve: RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS });
  let tree = -1;
  try {
    tree = check(binding.syscall(SYS.open_tree, -100, source, OPEN_TREE_CLONE_CLOEXEC_RECURSIVE), `open ${source}`);
    check(binding.syscall(SYS.move_mount, tree, "", place, "", MOVE_MOUNT_F_EMPTY_PATH_T_EMPTY_PATH), `bind ${source} on ${inside}`);
  } finally {
    close(tree);
    close(place);
  }
}
