// Numbers of the kernel's headers with their names, as far as tapes use them (include/uapi/linux/{sched,mount,fs,prctl}.h and their kin).
import type { Named } from "../tape.ts";

/** A word of flags, printed by name. */
export function flags<T extends Record<string, number>>(table: T, ...set: (keyof T & string)[]): Named {
  let value = 0;
  for (const name of set) value += table[name]!;
  return {
    value,
    get name() {
      return set.join("|") || "0";
    },
  };
}

/** The flags of a number, printed by name; what has no name is printed as hexadecimal. Names are made only where someone reads them. */
export function named(table: Record<string, number>, value: number): Named {
  return {
    value,
    get name() {
      const names: string[] = [];
      let rest = value;
      for (const [name, bit] of Object.entries(table)) {
        if (bit && Math.floor(rest / bit) % 2 === 1) {
          names.push(name);
          rest -= bit;
        }
      }
      if (rest) names.push(`0x${rest.toString(16)}`);
      return names.join("|") || "0";
    },
  };
}

export const CLONE = {
  CLONE_NEWTIME: 0x80,
  CLONE_PIDFD: 0x1000,
  CLONE_PARENT: 0x8000,
  CLONE_NEWNS: 0x20000,
  CLONE_NEWCGROUP: 0x2000000,
  CLONE_NEWUTS: 0x4000000,
  CLONE_NEWIPC: 0x8000000,
  CLONE_NEWUSER: 0x10000000,
  CLONE_NEWPID: 0x20000000,
  CLONE_NEWNET: 0x40000000,
  CLONE_INTO_CGROUP: 0x200000000,
} as const;

export const MS = {
  MS_RDONLY: 1,
  MS_NOSUID: 2,
  MS_NODEV: 4,
  MS_NOEXEC: 8,
  MS_REMOUNT: 32,
  MS_BIND: 4096,
  MS_REC: 16384,
  MS_UNBINDABLE: 1 << 17,
  MS_PRIVATE: 1 << 18,
  MS_SLAVE: 1 << 19,
  MS_SHARED: 1 << 20,
} as const;

export const MOUNT_ATTR = {
  MOUNT_ATTR_RDONLY: 1,
  MOUNT_ATTR_NOSUID: 2,
  MOUNT_ATTR_NODEV: 4,
  MOUNT_ATTR_NOEXEC: 8,
  MOUNT_ATTR_NOATIME: 0x10,
  MOUNT_ATTR_STRICTATIME: 0x20,
  MOUNT_ATTR_NODIRATIME: 0x80,
  MOUNT_ATTR_IDMAP: 0x100000,
  MOUNT_ATTR_NOSYMFOLLOW: 0x200000,
} as const;
/** The field of access-time modes; RELATIME is 0. */
export const MOUNT_ATTR_ATIME = 0x70;

export const OPEN_TREE = { OPEN_TREE_CLONE: 1, AT_RECURSIVE: 0x8000, OPEN_TREE_CLOEXEC: 0o2000000, AT_EMPTY_PATH: 0x1000 } as const;
export const MOVE_MOUNT = { MOVE_MOUNT_F_EMPTY_PATH: 4, MOVE_MOUNT_T_SYMLINKS: 0x10, MOVE_MOUNT_T_EMPTY_PATH: 0x40 } as const;
export const FSCONFIG = {
  FSCONFIG_SET_FLAG: { value: 0, name: "FSCONFIG_SET_FLAG" },
  FSCONFIG_SET_STRING: { value: 1, name: "FSCONFIG_SET_STRING" },
  FSCONFIG_CMD_CREATE: { value: 6, name: "FSCONFIG_CMD_CREATE" },
} as const;
export const FSOPEN_CLOEXEC: Named = { value: 1, name: "FSOPEN_CLOEXEC" };
export const FSMOUNT_CLOEXEC: Named = { value: 1, name: "FSMOUNT_CLOEXEC" };

export const AT = { AT_SYMLINK_NOFOLLOW: 0x100, AT_EACCESS: 0x200, AT_EMPTY_PATH: 0x1000, AT_RECURSIVE: 0x8000 } as const;
export const AT_FDCWD: Named = { value: -100, name: "AT_FDCWD" };

export const O = {
  O_WRONLY: 1,
  O_RDWR: 2,
  O_CREAT: 0o100,
  O_EXCL: 0o200,
  O_NOCTTY: 0o400,
  O_TRUNC: 0o1000,
  O_NONBLOCK: 0o4000,
  O_DIRECTORY: 0o200000,
  O_NOFOLLOW: 0o400000,
  O_CLOEXEC: 0o2000000,
  O_PATH: 0o10000000,
} as const;

export const RESOLVE = { RESOLVE_NO_MAGICLINKS: 2, RESOLVE_NO_SYMLINKS: 4, RESOLVE_IN_ROOT: 0x10 } as const;

export const PR = {
  PR_SET_PDEATHSIG: { value: 1, name: "PR_SET_PDEATHSIG" },
  PR_SET_DUMPABLE: { value: 4, name: "PR_SET_DUMPABLE" },
  PR_SET_KEEPCAPS: { value: 8, name: "PR_SET_KEEPCAPS" },
  PR_SET_NAME: { value: 15, name: "PR_SET_NAME" },
  PR_CAPBSET_DROP: { value: 24, name: "PR_CAPBSET_DROP" },
  PR_SET_NO_NEW_PRIVS: { value: 38, name: "PR_SET_NO_NEW_PRIVS" },
  PR_CAP_AMBIENT: { value: 47, name: "PR_CAP_AMBIENT" },
  PR_CAP_AMBIENT_RAISE: { value: 2, name: "PR_CAP_AMBIENT_RAISE" },
  PR_CAP_AMBIENT_CLEAR_ALL: { value: 4, name: "PR_CAP_AMBIENT_CLEAR_ALL" },
} as const;

export const IOCTL = {
  TIOCSPTLCK: { value: 0x40045431, name: "TIOCSPTLCK" },
  TIOCGPTPEER: { value: 0x5441, name: "TIOCGPTPEER" },
  TIOCSCTTY: { value: 0x540e, name: "TIOCSCTTY" },
  TIOCSWINSZ: { value: 0x5414, name: "TIOCSWINSZ" },
  SIOCSIFFLAGS: { value: 0x8914, name: "SIOCSIFFLAGS" },
} as const;

export const S = { S_IFIFO: 0o10000, S_IFCHR: 0o20000, S_IFDIR: 0o40000, S_IFBLK: 0o60000, S_IFREG: 0o100000, S_IFMT: 0o170000 } as const;

/** Capability numbers (linux/capability.h). */
export const CAPABILITIES = [
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_DAC_READ_SEARCH",
  "CAP_FOWNER",
  "CAP_FSETID",
  "CAP_KILL",
  "CAP_SETGID",
  "CAP_SETUID",
  "CAP_SETPCAP",
  "CAP_LINUX_IMMUTABLE",
  "CAP_NET_BIND_SERVICE",
  "CAP_NET_BROADCAST",
  "CAP_NET_ADMIN",
  "CAP_NET_RAW",
  "CAP_IPC_LOCK",
  "CAP_IPC_OWNER",
  "CAP_SYS_MODULE",
  "CAP_SYS_RAWIO",
  "CAP_SYS_CHROOT",
  "CAP_SYS_PTRACE",
  "CAP_SYS_PACCT",
  "CAP_SYS_ADMIN",
  "CAP_SYS_BOOT",
  "CAP_SYS_NICE",
  "CAP_SYS_RESOURCE",
  "CAP_SYS_TIME",
  "CAP_SYS_TTY_CONFIG",
  "CAP_MKNOD",
  "CAP_LEASE",
  "CAP_AUDIT_WRITE",
  "CAP_AUDIT_CONTROL",
  "CAP_SETFCAP",
  "CAP_MAC_OVERRIDE",
  "CAP_MAC_ADMIN",
  "CAP_SYSLOG",
  "CAP_WAKE_ALARM",
  "CAP_BLOCK_SUSPEND",
  "CAP_AUDIT_READ",
  "CAP_PERFMON",
  "CAP_BPF",
  "CAP_CHECKPOINT_RESTORE",
] as const;

/** RLIMIT_… numbers (asm-generic/resource.h). */
export const RLIMITS = [
  "RLIMIT_CPU",
  "RLIMIT_FSIZE",
  "RLIMIT_DATA",
  "RLIMIT_STACK",
  "RLIMIT_CORE",
  "RLIMIT_RSS",
  "RLIMIT_NPROC",
  "RLIMIT_NOFILE",
  "RLIMIT_MEMLOCK",
  "RLIMIT_AS",
  "RLIMIT_LOCKS",
  "RLIMIT_SIGPENDING",
  "RLIMIT_MSGQUEUE",
  "RLIMIT_NICE",
  "RLIMIT_RTPRIO",
  "RLIMIT_RTTIME",
] as const;
