// The example that `spec` writes: a shell in a container with the usual mounts, as runc's.

import type { Namespace, Spec } from "../oci/runtime-spec.ts";
import { hierarchies } from "./cgroups/index.ts";

export function exampleSpec(): Spec {
  const capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
  // Where there is one hierarchy, its root is the container's own.
  const cgroup: Namespace[] = hierarchies().version === 2 ? [{ type: "cgroup" }] : [];
  return {
    ociVersion: "1.3.0",
    process: {
      terminal: true,
      user: { uid: 0, gid: 0 },
      args: ["sh"],
      env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
      cwd: "/",
      capabilities: { bounding: capabilities, effective: capabilities, permitted: capabilities },
      rlimits: [{ type: "RLIMIT_NOFILE", hard: 1024, soft: 1024 }],
      noNewPrivileges: true,
    },
    root: { path: "rootfs", readonly: true },
    hostname: "jubako",
    mounts: [
      { destination: "/proc", type: "proc", source: "proc" },
      { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["nosuid", "strictatime", "mode=755", "size=65536k"] },
      {
        destination: "/dev/pts",
        type: "devpts",
        source: "devpts",
        options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
      },
      { destination: "/dev/shm", type: "tmpfs", source: "shm", options: ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
      { destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: ["nosuid", "noexec", "nodev"] },
      { destination: "/sys", type: "sysfs", source: "sysfs", options: ["nosuid", "noexec", "nodev", "ro"] },
      { destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup", options: ["nosuid", "noexec", "nodev", "relatime", "ro"] },
    ],
    linux: {
      resources: { devices: [{ allow: false, access: "rwm" }] },
      namespaces: [{ type: "pid" }, { type: "network" }, { type: "ipc" }, { type: "uts" }, { type: "mount" }, ...cgroup],
      maskedPaths: [
        "/proc/acpi",
        "/proc/asound",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/sys/firmware",
        "/proc/scsi",
      ],
      readonlyPaths: ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    },
  };
}

/** The same for an ordinary user, who is root inside: the host's network and its /sys, no groups but his own, no limits. */
export function rootlessSpec(): Spec {
  const spec = exampleSpec();
  const linux = spec.linux!;
  linux.namespaces = [...linux.namespaces!.filter(({ type }) => type !== "network"), { type: "user" }];
  linux.uidMappings = [{ containerID: 0, hostID: process.geteuid!(), size: 1 }];
  linux.gidMappings = [{ containerID: 0, hostID: process.getegid!(), size: 1 }];
  delete linux.resources;
  spec.mounts = spec.mounts!.map((mount) =>
    mount.destination === "/sys"
      ? { destination: "/sys", type: "none", source: "/sys", options: ["rbind", "nosuid", "noexec", "nodev", "ro"] }
      : { ...mount, ...(mount.options ? { options: mount.options.filter((option) => !/^[ug]id=/.test(option)) } : {}) },
  );
  return spec;
}
