// The settings there are: dockerd's flags with their keys in daemon.json.

type Kind = "text" | "list" | "bool" | "int" | "pairs" | "bytes" | "runtime" | "ulimit" | "pools";

export interface Setting {
  flag: string;
  short?: string;
  /** Key in daemon.json; undefined where there is none. */
  key?: string;
  kind: Kind;
  help: string;
}

/** Settings of dockerd's that are understood and change nothing here: as they are in many a daemon.json. Values that would mean something are refused. */
const ALIKE: Setting[] = [
  { flag: "storage-driver", short: "s", key: "storage-driver", kind: "text", help: "overlay2 or overlayfs: there is no other" },
  { flag: "iptables", key: "iptables", kind: "bool", help: "Has no meaning but true: the packet filter is nftables', and needed" },
  { flag: "ip6tables", key: "ip6tables", kind: "bool", help: "The same for IPv6" },
  {
    flag: "userland-proxy",
    key: "userland-proxy",
    kind: "bool",
    help: "Has no meaning: no program stands between a published port and its container",
  },
  { flag: "selinux-enabled", key: "selinux-enabled", kind: "bool", help: "Has no meaning but false" },
];

export const SETTINGS: Setting[] = [
  {
    flag: "host",
    short: "H",
    key: "hosts",
    kind: "list",
    help: "Address to serve the API on: unix://PATH, tcp://HOST:PORT or fd:// (default unix:///run/jubako/docker.sock)",
  },
  {
    flag: "data-root",
    key: "data-root",
    kind: "text",
    help: "Directory of what is kept: images, containers, volumes (default /var/lib/jubako)",
  },
  { flag: "exec-root", key: "exec-root", kind: "text", help: "Directory of what lives as long as the machine runs (default /run/jubako)" },
  { flag: "pidfile", short: "p", key: "pidfile", kind: "text", help: "File for the process id (default EXEC_ROOT/jubakod.pid)" },
  { flag: "config-file", kind: "text", help: "Settings as JSON, with dockerd's keys (default /etc/jubako/daemon.json)" },
  { flag: "containerd", key: "containerd", kind: "text", help: "Address of a containerd to use instead of the built-in manager" },
  { flag: "add-runtime", key: "runtimes", kind: "runtime", help: "Register another OCI runtime" },
  { flag: "default-runtime", key: "default-runtime", kind: "text", help: "Runtime of containers that ask for none (default jubako)" },
  { flag: "bip", key: "bip", kind: "text", help: "Address and prefix length of the default bridge" },
  { flag: "bridge", short: "b", key: "bridge", kind: "text", help: "Name of the default bridge; none for no bridge (default jubako0)" },
  { flag: "ipv6", key: "ipv6", kind: "bool", help: "Give containers on the default bridge IPv6 addresses, too" },
  { flag: "fixed-cidr", key: "fixed-cidr", kind: "text", help: "Part of the default bridge's subnet for containers' addresses" },
  { flag: "fixed-cidr-v6", key: "fixed-cidr-v6", kind: "text", help: "IPv6 subnet of the default bridge (default: a unique local one)" },
  { flag: "mtu", key: "mtu", kind: "int", help: "Largest packet on the default bridge (default 1500)" },
  { flag: "icc", key: "icc", kind: "bool", help: "Let containers on the default bridge reach each other (default true)" },
  { flag: "ip-masq", key: "ip-masq", kind: "bool", help: "Hide the default bridge's addresses behind the host's (default true)" },
  { flag: "ip", key: "ip", kind: "text", help: "Address of the host for published ports of the default bridge (default 0.0.0.0)" },
  {
    flag: "default-address-pool",
    key: "default-address-pools",
    kind: "pools",
    help: "Range that networks' subnets are cut from, as base=10.10.0.0/16,size=24",
  },
  { flag: "ip-forward", key: "ip-forward", kind: "bool", help: "Switch the kernel's forwarding on (default true)" },
  {
    flag: "host-gateway-ip",
    key: "host-gateway-ips",
    kind: "list",
    help: "What host-gateway in --add-host means (default: the bridge's address)",
  },
  { flag: "no-new-privileges", key: "no-new-privileges", kind: "bool", help: "Containers' programs gain no rights by execve" },
  { flag: "default-ipc-mode", key: "default-ipc-mode", kind: "text", help: "private (default) or shareable" },
  {
    flag: "default-cgroupns-mode",
    key: "default-cgroupns-mode",
    kind: "text",
    help: "host or private (default: as the host's cgroup version)",
  },
  ...ALIKE,
  { flag: "debug", short: "D", key: "debug", kind: "bool", help: "Log what happens inside" },
  { flag: "log-level", short: "l", key: "log-level", kind: "text", help: "debug, info, warn, error or fatal (default info)" },
  { flag: "tls", key: "tls", kind: "bool", help: "Serve tcp with TLS; --tls=false serves it unprotected" },
  { flag: "tlsverify", key: "tlsverify", kind: "bool", help: "Serve tcp with TLS to clients with a certificate of --tlscacert" },
  { flag: "tlscacert", key: "tlscacert", kind: "text", help: "Certificates that clients' must be signed by (default /etc/jubako/ca.pem)" },
  { flag: "tlscert", key: "tlscert", kind: "text", help: "The engine's certificate (default /etc/jubako/server-cert.pem)" },
  { flag: "tlskey", key: "tlskey", kind: "text", help: "The key of --tlscert (default /etc/jubako/server-key.pem)" },
  { flag: "label", key: "labels", kind: "list", help: "Label of the engine, key=value" },
  { flag: "dns", key: "dns", kind: "list", help: "Name server of containers" },
  { flag: "dns-opt", key: "dns-opts", kind: "list", help: "Resolver option of containers" },
  { flag: "dns-search", key: "dns-search", kind: "list", help: "Search domain of containers" },
  { flag: "log-driver", key: "log-driver", kind: "text", help: "Log driver of containers that ask for none (default json-file)" },
  { flag: "log-opt", key: "log-opts", kind: "pairs", help: "Option of the default log driver" },
  {
    flag: "insecure-registry",
    key: "insecure-registries",
    kind: "list",
    help: "Registry, or CIDR of registries, that may be asked without TLS",
  },
  { flag: "registry-mirror", key: "registry-mirrors", kind: "list", help: "Mirror of Docker Hub to ask first" },
  { flag: "group", short: "G", key: "group", kind: "text", help: "Group of the unix sockets (default docker)" },
  { flag: "default-ulimit", key: "default-ulimits", kind: "ulimit", help: "Limit of containers, as nofile=1024:4096" },
  { flag: "init-path", key: "init-path", kind: "text", help: "Program for --init (default docker-init, or a built-in one)" },
  { flag: "init", key: "init", kind: "bool", help: "Run an init in every container" },
  { flag: "default-shm-size", key: "default-shm-size", kind: "bytes", help: "Size of /dev/shm (default 64m)" },
  { flag: "cgroup-parent", key: "cgroup-parent", kind: "text", help: "Parent cgroup of all containers" },
  { flag: "exec-opt", key: "exec-opts", kind: "list", help: "Option of the runtime: native.cgroupdriver=cgroupfs (default) or systemd" },
  { flag: "experimental", key: "experimental", kind: "bool", help: "Checkpoints of containers" },
  { flag: "live-restore", key: "live-restore", kind: "bool", help: "Containers run on while the engine is stopped" },
  {
    flag: "shutdown-timeout",
    key: "shutdown-timeout",
    kind: "int",
    help: "Seconds that containers get to stop when the engine ends (default 15)",
  },
  {
    flag: "max-concurrent-downloads",
    key: "max-concurrent-downloads",
    kind: "int",
    help: "Layers of a pull that are fetched at once (default 3)",
  },
  {
    flag: "max-concurrent-uploads",
    key: "max-concurrent-uploads",
    kind: "int",
    help: "Layers of a push that are sent at once (default 5)",
  },
  {
    flag: "max-download-attempts",
    key: "max-download-attempts",
    kind: "int",
    help: "How often a registry is asked again while it fails (default 5)",
  },
  { flag: "http-proxy", key: "http-proxy", kind: "text", help: "Proxy for http:// registries (default: the environment's HTTP_PROXY)" },
  { flag: "https-proxy", key: "https-proxy", kind: "text", help: "Proxy for https:// registries (default: the environment's HTTPS_PROXY)" },
  { flag: "no-proxy", key: "no-proxy", kind: "text", help: "Hosts that are asked without a proxy (default: the environment's NO_PROXY)" },
  { flag: "warm-networks", key: "warm-networks", kind: "int", help: "Network namespaces that are kept ready (default 2)" },
  { flag: "validate", kind: "bool", help: "Check the settings and end" },
  { flag: "version", short: "v", kind: "bool", help: "Print the version and end" },
  { flag: "help", short: "h", kind: "bool", help: "Print this and end" },
];

/** How the value of a flag is shown. */
export const VALUES: Record<Kind, string> = {
  text: " string",
  list: " list",
  bool: "",
  int: " int",
  pairs: " name=value",
  bytes: " bytes",
  runtime: " name=path",
  ulimit: " ulimit",
  pools: " pool",
};
