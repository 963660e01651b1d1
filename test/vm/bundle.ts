// Bundles for the virtual machine.
import type { Entry } from "./initramfs.ts";

export interface Bundle {
  args: string[];
  resources?: object;
  namespaces?: string[];
  cgroupsPath?: string;
  annotations?: Record<string, string>;
  /** A user without rights, who is root in a user namespace of the container's. */
  user?: number;
  /** What the machine's sh does while the container is made. */
  hook?: string;
  /** It may make cgroups below its own. */
  writable?: boolean;
}

/** A bundle's config.json on the machine's own busybox, with every capability that a device node needs. */
export function bundle({
  args,
  resources = {},
  namespaces = ["pid", "mount", "ipc", "uts", "cgroup"],
  cgroupsPath,
  annotations,
  user,
  hook,
  writable = false,
}: Bundle): Entry {
  const capabilities = ["CAP_MKNOD", "CAP_KILL", "CAP_SYS_ADMIN"];
  const maps = user === undefined ? undefined : [{ containerID: 0, hostID: user, size: 1 }];
  const types = maps ? [...namespaces, "user"] : namespaces;
  return {
    data: JSON.stringify({
      ociVersion: "1.2.0",
      process: {
        user: { uid: 0, gid: 0 },
        args,
        env: ["PATH=/bin"],
        cwd: "/",
        capabilities: { bounding: capabilities, effective: capabilities, permitted: capabilities },
      },
      root: { path: "/rootfs" },
      mounts: [
        { destination: "/proc", type: "proc", source: "proc" },
        { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["mode=755"] },
        {
          destination: "/sys/fs/cgroup",
          type: "cgroup",
          source: "cgroup",
          options: ["nosuid", "noexec", "nodev", "relatime", writable ? "rw" : "ro"],
        },
      ],
      ...(annotations ? { annotations } : {}),
      ...(hook ? { hooks: { createRuntime: [{ path: "/bin/sh", args: ["sh", "-c", hook], env: ["PATH=/bin"] }] } } : {}),
      linux: {
        namespaces: types.map((type) => ({ type })),
        resources,
        ...(maps ? { uidMappings: maps, gidMappings: maps } : {}),
        ...(cgroupsPath ? { cgroupsPath } : {}),
      },
    }),
  };
}
