// What is mounted in a container: the kernel's file systems, then the network's files, tmpfs, binds and volumes, parents before children.
import type { Mount as ApiMount, HostConfig, MountPoint } from "../../../api/types.ts";
import type { Mount } from "../../../oci/runtime-spec.ts";
import type { NetworkAttachment } from "../../context.ts";

export interface MountInput {
  host: HostConfig;
  /** Binds, volumes and tmpfs mounts with their directory on the host. */
  points: { point: MountPoint; source: string }[];
  files: Pick<NetworkAttachment, "hostsPath" | "resolvConfPath" | "hostnamePath">;
  shmSize: number;
  /** Bound at /dev/shm instead of an own tmpfs: of another container or the host. */
  shmPath: string | undefined;
  writableCgroups: boolean;
  /** The host's init program, bound at /sbin/docker-init. */
  initPath: string | undefined;
}

function kernelMounts(input: MountInput): Mount[] {
  const privileged = input.host.Privileged === true;
  const mounts: Mount[] = [
    { destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"] },
    { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["nosuid", "strictatime", "mode=755", "size=65536k"] },
    {
      destination: "/dev/pts",
      type: "devpts",
      source: "devpts",
      options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    { destination: "/sys", type: "sysfs", source: "sysfs", options: ["nosuid", "noexec", "nodev", ...(privileged ? [] : ["ro"])] },
    {
      destination: "/sys/fs/cgroup",
      type: "cgroup",
      source: "cgroup",
      options: [...(privileged || input.writableCgroups ? [] : ["ro"]), "nosuid", "noexec", "nodev"],
    },
    // Shows the queues of the IPC namespace that the container is in, also where that is the host's or another container's.
    { destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: ["nosuid", "noexec", "nodev"] },
  ];
  if (input.host.IpcMode !== "none") {
    mounts.push(
      input.shmPath
        ? { destination: "/dev/shm", type: "bind", source: input.shmPath, options: ["bind", "rprivate"] }
        : {
            destination: "/dev/shm",
            type: "tmpfs",
            source: "shm",
            options: ["nosuid", "noexec", "nodev", "mode=1777", `size=${input.shmSize}`],
          },
    );
  }
  return mounts;
}

const OPPOSITES: Record<string, string> = {
  rw: "ro",
  ro: "rw",
  exec: "noexec",
  noexec: "exec",
  suid: "nosuid",
  nosuid: "suid",
  dev: "nodev",
  nodev: "dev",
};

/** Options of a tmpfs; a later one replaces its opposite, and an earlier value of the same name. */
export function tmpfsOptions(base: string[], text: string): string[] {
  let result = [...base];
  for (const option of text.split(",").filter(Boolean)) {
    const name = option.split("=")[0]!;
    result = result.filter((each) => each !== OPPOSITES[option] && each.split("=")[0] !== name);
    result.push(option);
  }
  return result;
}

const TMPFS_BASE = ["nosuid", "nodev", "noexec"];

function tmpfsOfMount(mount: ApiMount | undefined, point: MountPoint): Mount {
  const options = [...TMPFS_BASE];
  if (mount?.ReadOnly) options.push("ro");
  const tmpfs = mount?.TmpfsOptions;
  if (tmpfs?.Mode) options.push(`mode=${tmpfs.Mode.toString(8)}`);
  if (tmpfs?.SizeBytes) options.push(`size=${tmpfs.SizeBytes}`);
  const extra = (tmpfs?.Options ?? []).map((pair) => pair.join("=")).join(",");
  return { destination: point.Destination ?? "", type: "tmpfs", source: "tmpfs", options: tmpfsOptions(options, extra) };
}

/** A bind or volume; `--mount` may say more than the mount point keeps. */
function bindOf(point: MountPoint, source: string, mount: ApiMount | undefined): Mount {
  const bind = mount?.BindOptions;
  const options = [bind?.NonRecursive ? "bind" : "rbind"];
  if (point.RW === false) {
    options.push("ro");
    // Docker makes a read-only bind recursive where the kernel can, unless told otherwise.
    if (!bind?.NonRecursive && !bind?.ReadOnlyNonRecursive) options.push("rro");
  }
  options.push(point.Propagation || "rprivate");
  return { destination: point.Destination ?? "", type: "bind", source, options };
}

/** Docker's order: by number of path components, so that a parent is mounted before what lies in it. */
function byDepth(a: Mount, b: Mount): number {
  const depth = (path: string) => path.split("/").filter(Boolean).length;
  return depth(a.destination) - depth(b.destination) || (a.destination < b.destination ? -1 : 1);
}

export function mounts(input: MountInput): Mount[] {
  const { host, files } = input;
  const given = new Map((host.Mounts ?? []).map((each) => [each.Target?.replace(/(.)\/+$/, "$1"), each]));
  const user: Mount[] = [];
  for (const { point, source } of input.points) {
    const mount = given.get(point.Destination);
    user.push(point.Type === "tmpfs" ? tmpfsOfMount(mount, point) : bindOf(point, source, mount));
  }
  for (const [destination, options] of Object.entries(host.Tmpfs ?? {})) {
    if (user.some((each) => each.destination === destination)) continue;
    user.push({ destination, type: "tmpfs", source: "tmpfs", options: tmpfsOptions(TMPFS_BASE, options) });
  }
  const taken = new Set(user.map((each) => each.destination));
  const access = host.ReadonlyRootfs ? ["ro"] : [];
  for (const [destination, source] of [
    ["/etc/resolv.conf", files.resolvConfPath],
    ["/etc/hostname", files.hostnamePath],
    ["/etc/hosts", files.hostsPath],
  ] as const) {
    if (source && !taken.has(destination)) user.push({ destination, type: "bind", source, options: ["rbind", ...access, "rprivate"] });
  }
  if (input.initPath) user.push({ destination: "/sbin/docker-init", type: "bind", source: input.initPath, options: ["bind", "ro"] });
  const kernel = kernelMounts(input).filter((each) => !taken.has(each.destination));
  if (host.ReadonlyRootfs) {
    for (const each of kernel) {
      if (each.destination === "/sys/fs/cgroup" && !each.options?.includes("ro")) each.options?.push("ro");
    }
  }
  return [...kernel, ...user.sort(byDepth)];
}
