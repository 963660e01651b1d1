// The least policy that SELinux takes: three types, everything allowed that is not named (the machine is permissive anyway). Labels are what is tested, not rules.

/** Initial SIDs in the kernel's order (security/selinux/include/initial_sid_to_string.h). */
const SIDS = [
  ...["kernel", "security", "unlabeled", "fs", "file", "file_labels", "init", "any_socket", "port", "netif", "netmsg", "node"],
  ...[
    "igmp_packet",
    "icmp_socket",
    "tcp_socket",
    "sysctl_modprobe",
    "sysctl",
    "sysctl_fs",
    "sysctl_kernel",
    "sysctl_net",
    "sysctl_net_unix",
  ],
  ...["sysctl_vm", "sysctl_dev", "kmod", "policy", "scmp_packet", "devnull"],
];
const TYPES = ["kernel_t", "container_t", "other_t", "container_file_t"];

/** For secilc, in its language (CIL). */
export const POLICY: string = `
(handleunknown allow)
(mls true)
(sensitivity s0)
(sensitivityorder (s0))
(category c0)
(categoryorder (c0))
(sensitivitycategory s0 (c0))
(level low (s0))
(levelrange lowlow (low low))
(class process (fork transition setexec dyntransition))
(class file (read execute entrypoint))
(classorder (process file))
(role object_r)
(role system_r)
(user system_u)
(userrole system_u object_r)
(userrole system_u system_r)
(userlevel system_u low)
(userrange system_u lowlow)
${TYPES.map((type) => `(type ${type})\n(roletype object_r ${type})\n(roletype system_r ${type})`).join("\n")}
(allow kernel_t container_t (process (transition)))
(allow kernel_t other_t (process (transition)))
${SIDS.map((sid) => `(sid ${sid})`).join("\n")}
(sidorder (${SIDS.join(" ")}))
${SIDS.map((sid) => `(sidcontext ${sid} (system_u system_r kernel_t lowlow))`).join("\n")}
`;
