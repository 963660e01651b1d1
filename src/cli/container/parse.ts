// The flags of run and create as the body of POST /containers/create. Pure but for files that the user names (variables, labels, profiles).
import type { EndpointSettings, HostConfig } from "../../api/types.ts";
import type { CreateBody } from "../../client/index.ts";
import { StatusError } from "../command.ts";
import type { Values } from "../flags.ts";
import { parseVolumes } from "./mounts.ts";
import type { ContainerFlags } from "./options.ts";
import { expose, publish } from "./ports.ts";
import {
  checkDevice,
  checkLabel,
  isCdiDevice,
  type NetworkOption,
  parseDevice,
  parseRestart,
  parseSecurityOptions,
  readKeyValueFile,
} from "./values.ts";

export interface ParsedContainer {
  /** For API 1.44 and later; `forVersion` changes it for older engines. */
  body: CreateBody;
  /** Networks after the first, which engines before API 1.44 are asked to connect afterwards. */
  furtherNetworks: [name: string, endpoint: EndpointSettings][];
  warnings: string[];
}

type Flags = Values<ContainerFlags>;

/** Leaves out what is empty: an engine's answer is the same, and its error as well. */
function filled<T extends object>(object: T): T {
  for (const [key, value] of Object.entries(object)) {
    if (value === undefined || value === "" || value === 0 || value === false) delete (object as Record<string, unknown>)[key];
    else if (Array.isArray(value) ? value.length === 0 : typeof value === "object" && value !== null && Object.keys(value).length === 0)
      delete (object as Record<string, unknown>)[key];
  }
  return object;
}

function pairs(lines: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    lines.map((line) => {
      const at = line.indexOf("=");
      return at < 0 ? [line, ""] : [line.slice(0, at), line.slice(at + 1)];
    }),
  );
}

/** Throws a sentence where flags contradict each other or are malformed: exit status 125. */
export function parseContainer(
  flags: Flags,
  args: readonly string[],
  changed: ReadonlySet<string>,
  env: Record<string, string | undefined>,
  proxies: Record<string, string> = {},
): ParsedContainer {
  const [image = "", ...cmd] = args;
  const warnings: string[] = [];
  checkModes(flags, changed);

  let attachStdin = flags.attach.includes("stdin");
  let attachStdout = flags.attach.includes("stdout");
  let attachStderr = flags.attach.includes("stderr");
  if (flags.attach.length === 0) {
    attachStdout = true;
    attachStderr = true;
  }
  if (flags.interactive) attachStdin = true;

  const ports = publish(flags.publish);
  const exposed: Record<string, Record<string, never>> = { ...ports.exposed };
  for (const spec of flags.expose) for (const port of expose(spec)) exposed[port] = {};

  const { binds, volumes } = parseVolumes(flags.volume);
  const tmpfs = Object.fromEntries(
    flags.tmpfs.map((spec) => {
      const at = spec.indexOf(":");
      return at < 0 ? [spec, ""] : [spec.slice(0, at), spec.slice(at + 1)];
    }),
  );
  for (const device of flags.device) checkDevice(device);
  const devices = flags.device.filter((device) => !isCdiDevice(device)).map(parseDevice);
  const cdi = flags.device.filter(isCdiDevice);

  const variables = [
    ...proxyVariables(proxies, flags.env),
    ...flags["env-file"].flatMap((path) => readKeyValueFile(path, (name) => env[name])),
    ...flags.env,
  ];
  const labels = pairs([...flags["label-file"].flatMap((path) => readKeyValueFile(path, undefined).map(checkLabel)), ...flags.label]);
  const security = parseSecurityOptions(flags["security-opt"]);
  const logOpts = pairs(flags["log-opt"]);
  if (flags["log-driver"] === "none" && flags["log-opt"].length > 0) throw new Error("invalid logging opts for driver none");
  for (const option of flags["storage-opt"]) if (!option.includes("=")) throw new Error("invalid storage option");
  const restart = parseRestart(flags.restart);
  if (flags.rm && restart.Name && restart.Name !== "no") throw new Error("conflicting options: cannot specify both --restart and --rm");

  const body: CreateBody = filled({
    Hostname: flags.hostname,
    Domainname: flags.domainname,
    User: flags.user,
    AttachStdin: attachStdin,
    AttachStdout: attachStdout,
    AttachStderr: attachStderr,
    ExposedPorts: exposed,
    Tty: flags.tty,
    OpenStdin: flags.interactive,
    StdinOnce: flags.interactive && attachStdin,
    Env: variables,
    Cmd: cmd,
    Image: image,
    Volumes: volumes,
    WorkingDir: flags.workdir,
    Labels: labels,
    StopSignal: flags["stop-signal"],
  });
  if (changed.has("entrypoint")) body.Entrypoint = [flags.entrypoint];
  if (changed.has("stop-timeout")) body.StopTimeout = flags["stop-timeout"];
  const health = healthOf(flags);
  if (health) body.Healthcheck = health;

  const hostConfig: HostConfig = filled({
    Binds: binds,
    ContainerIDFile: flags.cidfile,
    LogConfig: filled({ Type: flags["log-driver"] as "none", Config: logOpts }),
    PortBindings: ports.bindings,
    RestartPolicy: restart,
    AutoRemove: flags.rm,
    VolumeDriver: flags["volume-driver"],
    VolumesFrom: flags["volumes-from"],
    Annotations: flags.annotation,
    CapAdd: capabilities(flags["cap-add"]),
    CapDrop: capabilities(flags["cap-drop"]),
    CgroupnsMode: flags.cgroupns as "host",
    Dns: flags.dns,
    DnsOptions: [...flags["dns-option"], ...flags["dns-opt"]],
    DnsSearch: flags["dns-search"],
    ExtraHosts: flags["add-host"],
    GroupAdd: flags["group-add"],
    IpcMode: flags.ipc,
    Links: flags.link,
    OomScoreAdj: flags["oom-score-adj"],
    PidMode: flags.pid,
    Privileged: flags.privileged,
    PublishAllPorts: flags["publish-all"],
    ReadonlyRootfs: flags["read-only"],
    SecurityOpt: security.options,
    StorageOpt: pairs(flags["storage-opt"]),
    Tmpfs: tmpfs,
    UTSMode: flags.uts,
    UsernsMode: flags.userns,
    ShmSize: flags["shm-size"],
    Sysctls: flags.sysctl,
    Runtime: flags.runtime,
    Isolation: flags.isolation as "",
    CpuShares: flags["cpu-shares"],
    Memory: flags.memory,
    NanoCpus: flags.cpus,
    CgroupParent: flags["cgroup-parent"],
    BlkioWeight: flags["blkio-weight"],
    BlkioWeightDevice: flags["blkio-weight-device"],
    BlkioDeviceReadBps: flags["device-read-bps"],
    BlkioDeviceWriteBps: flags["device-write-bps"],
    BlkioDeviceReadIOps: flags["device-read-iops"],
    BlkioDeviceWriteIOps: flags["device-write-iops"],
    CpuPeriod: flags["cpu-period"],
    CpuQuota: flags["cpu-quota"],
    CpuRealtimePeriod: flags["cpu-rt-period"],
    CpuRealtimeRuntime: flags["cpu-rt-runtime"],
    CpusetCpus: flags["cpuset-cpus"],
    CpusetMems: flags["cpuset-mems"],
    Devices: devices,
    DeviceCgroupRules: flags["device-cgroup-rule"],
    DeviceRequests: [...flags.gpus, ...(cdi.length > 0 ? [{ Driver: "cdi", DeviceIDs: cdi }] : [])],
    MemoryReservation: flags["memory-reservation"],
    MemorySwap: flags["memory-swap"],
    OomKillDisable: flags["oom-kill-disable"],
    PidsLimit: flags["pids-limit"],
    Ulimits: Object.values(flags.ulimit).sort((a, b) => (a.Name < b.Name ? -1 : 1)),
    CpuCount: flags["cpu-count"],
    CpuPercent: flags["cpu-percent"],
    IOMaximumIOps: flags["io-maxiops"],
    IOMaximumBandwidth: flags["io-maxbandwidth"],
    Mounts: flags.mount,
  });
  if (flags["memory-swappiness"] !== -1) hostConfig.MemorySwappiness = flags["memory-swappiness"];
  if (changed.has("init")) hostConfig.Init = flags.init;
  if (security.systemPathsUnconfined) {
    hostConfig.MaskedPaths = [];
    hostConfig.ReadonlyPaths = [];
  }
  if (flags.dns.some((address) => /^(127\.|::1$)/.test(address))) {
    const local = flags.dns.find((address) => /^(127\.|::1$)/.test(address));
    warnings.push(`WARNING: Localhost DNS (${local}) may fail in containers.`);
  }

  const endpoints = endpointsOf(flags);
  hostConfig.NetworkMode = endpoints[0]![0];
  body.HostConfig = hostConfig;
  const settings = endpoints.map(([name, endpoint]) => [name, filled(endpoint)] as [string, EndpointSettings]);
  // One network that is only named needs no settings: the mode says it.
  const named = flags.network.length + flags.net.length === 1 && Object.keys(settings[0]![1]).length === 0;
  body.NetworkingConfig = { EndpointsConfig: named ? {} : Object.fromEntries(settings) };
  return { body, furtherNetworks: settings.slice(1), warnings };
}

/** The body as an engine of that API version takes it. */
export function forVersion(parsed: ParsedContainer, version: number): CreateBody {
  if (version >= 44) return parsed.body;
  const { body } = parsed;
  const mode = body.HostConfig!.NetworkMode!;
  const { MacAddress, GwPriority: _, ...endpoint } = body.NetworkingConfig!.EndpointsConfig![mode] ?? {};
  // Before 1.44 the address stood beside the configuration, and one network could be given.
  return { ...body, ...(MacAddress ? { MacAddress } : {}), NetworkingConfig: { EndpointsConfig: { [mode]: endpoint } } };
}

/** What config.json says of proxies, as variables in both spellings; the user's own win. */
function proxyVariables(proxies: Record<string, string>, given: readonly string[]): string[] {
  const names: Record<string, string> = {
    httpProxy: "HTTP_PROXY",
    httpsProxy: "HTTPS_PROXY",
    noProxy: "NO_PROXY",
    ftpProxy: "FTP_PROXY",
    allProxy: "ALL_PROXY",
  };
  const own = new Set(given.map((line) => line.split("=")[0]));
  return Object.entries(names)
    .filter(([key]) => proxies[key])
    .flatMap(([key, name]) =>
      [name, name.toLowerCase()].filter((spelling) => !own.has(spelling)).map((spelling) => `${spelling}=${proxies[key]}`),
    );
}

/** "net_admin" as CAP_NET_ADMIN; in order, each once. */
function capabilities(names: readonly string[]): string[] {
  const full = names.map((name) => {
    const upper = name.trim().toUpperCase();
    return upper === "ALL" || upper.startsWith("CAP_") ? upper : `CAP_${upper}`;
  });
  if (full.includes("ALL")) return ["ALL"];
  return [...new Set(full)].sort();
}

const WINDOWS = ["cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops"];

function checkModes(flags: Flags, changed: ReadonlySet<string>): void {
  const container = (mode: string) => /^container:.+/.test(mode);
  if (flags.pid !== "" && flags.pid !== "host" && !container(flags.pid)) throw new Error("--pid: invalid PID mode");
  if (flags.uts !== "" && flags.uts !== "host") throw new Error("--uts: invalid UTS mode");
  if (flags.userns !== "" && flags.userns !== "host") throw new Error("--userns: invalid USER mode");
  if (!["", "host", "private"].includes(flags.cgroupns)) throw new Error("--cgroupns: invalid CGROUP mode");
  const swappiness = flags["memory-swappiness"];
  if (swappiness !== -1 && (swappiness < 0 || swappiness > 100))
    throw new Error(`invalid value: ${swappiness}. Valid memory swappiness range is 0-100`);
  if (changed.has("pull") && !["always", "missing", "never"].includes(flags.pull)) {
    throw new Error(`invalid pull option: '${flags.pull}': must be one of "always", "missing" or "never"`);
  }
  const windows = WINDOWS.filter((name) => changed.has(name));
  if (windows.length > 0) {
    throw new StatusError(
      1,
      windows
        .map((name) => `"--${name}" is only supported on a Docker daemon running on windows, but the Docker daemon is running on linux`)
        .join("\n"),
    );
  }
  if (flags["use-api-socket"]) throw new Error("--use-api-socket is not there: mount the socket with -v");
}

function healthOf(flags: Flags): CreateBody["Healthcheck"] {
  const any =
    flags["health-cmd"] !== "" ||
    flags["health-interval"] !== 0 ||
    flags["health-timeout"] !== 0 ||
    flags["health-start-period"] !== 0 ||
    flags["health-retries"] !== 0 ||
    flags["health-start-interval"] !== 0;
  if (flags["no-healthcheck"]) {
    if (any) throw new Error("--no-healthcheck conflicts with --health-* options");
    return { Test: ["NONE"] };
  }
  if (!any) return undefined;
  for (const name of ["health-interval", "health-timeout", "health-retries", "health-start-period", "health-start-interval"] as const) {
    if (flags[name] < 0) throw new Error(`--${name} cannot be negative`);
  }
  return filled({
    Test: flags["health-cmd"] === "" ? [] : ["CMD-SHELL", flags["health-cmd"]],
    Interval: flags["health-interval"],
    Timeout: flags["health-timeout"],
    StartPeriod: flags["health-start-period"],
    StartInterval: flags["health-start-interval"],
    Retries: flags["health-retries"],
  });
}

/** Endpoints in the order given; --ip, --link, --network-alias and their kin belong to the first. */
function endpointsOf(flags: Flags): [string, EndpointSettings][] {
  const networks: NetworkOption[] = [...flags.network, ...flags.net];
  const aliases = [...flags["network-alias"], ...flags["net-alias"]];
  const first: NetworkOption = networks[0] ?? { target: "default", aliases: [], driverOpts: {}, links: [], linkLocal: [] };
  const userDefined = !["default", "bridge", "host", "none"].includes(first.target) && !first.target.startsWith("container:");
  const twice = (flag: string, option: string) => {
    throw new Error(`conflicting options: cannot specify both --${flag} and per-network ${option}`);
  };
  const merged: NetworkOption = { ...first };
  if (aliases.length > 0 && !userDefined) throw new Error("network-scoped aliases are only supported for user-defined networks");
  if (aliases.length > 0) merged.aliases = first.aliases.length > 0 ? twice("network-alias", "alias") : aliases;
  if (flags.link.length > 0 && userDefined) merged.links = flags.link;
  if (flags.ip) merged.ipv4 = first.ipv4 ? twice("ip", "IPv4 address") : flags.ip;
  if (flags.ip6) merged.ipv6 = first.ipv6 ? twice("ip6", "IPv6 address") : flags.ip6;
  if (flags["mac-address"]) merged.mac = first.mac ? twice("mac-address", "MAC address") : flags["mac-address"];
  if (flags["link-local-ip"].length > 0)
    merged.linkLocal = first.linkLocal.length > 0 ? twice("link-local-ip", "link-local IP addresses") : flags["link-local-ip"];
  if (merged.mac && !/^([0-9a-f]{2}[:-]){5}[0-9a-f]{2}$/i.test(merged.mac)) throw new Error(`${merged.mac} is not a valid mac address`);
  const seen = new Set<string>();
  return [merged, ...networks.slice(1)].map((network) => {
    if (seen.has(network.target)) throw new Error(`network ${JSON.stringify(network.target)} is specified multiple times`);
    seen.add(network.target);
    if (networks.length > 1 && (network.target.startsWith("container:") || network.target === "host" || network.target === "none")) {
      throw new Error(`conflicting options: cannot attach both user-defined and non-user-defined network-modes`);
    }
    const ipam = filled({ IPv4Address: network.ipv4 ?? "", IPv6Address: network.ipv6 ?? "", LinkLocalIPs: network.linkLocal });
    return [
      network.target,
      {
        ...(Object.keys(ipam).length > 0 ? { IPAMConfig: ipam } : {}),
        Links: network.links,
        Aliases: network.aliases,
        MacAddress: network.mac ?? "",
        DriverOpts: network.driverOpts,
        GwPriority: network.priority ?? 0,
      },
    ];
  });
}
