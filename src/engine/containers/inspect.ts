// GET /containers/{id}/json: everything about one container, each field present as Docker has it.
import type {
  ContainerConfig,
  ContainerInspectResponse,
  ContainerState,
  DriverData,
  HostConfig,
  NetworkSettings,
} from "../../api/types.ts";
import type { ContainerRecord } from "../context.ts";
import type { Core } from "./core.ts";
import { shownEndpoints } from "./endpoints.ts";
import { protectedPaths, securityOptions } from "./spec/security.ts";

type Full = Record<string, unknown>;

const HOST_DEFAULTS: Full = {
  Binds: null,
  ContainerIDFile: "",
  LogConfig: { Type: "json-file", Config: {} },
  NetworkMode: "default",
  PortBindings: {},
  RestartPolicy: { Name: "no", MaximumRetryCount: 0 },
  AutoRemove: false,
  VolumeDriver: "",
  VolumesFrom: null,
  ConsoleSize: [0, 0],
  CapAdd: null,
  CapDrop: null,
  CgroupnsMode: "host",
  Dns: [],
  DnsOptions: [],
  DnsSearch: [],
  ExtraHosts: null,
  GroupAdd: null,
  IpcMode: "private",
  Cgroup: "",
  Links: null,
  OomScoreAdj: 0,
  PidMode: "",
  Privileged: false,
  PublishAllPorts: false,
  ReadonlyRootfs: false,
  SecurityOpt: null,
  UTSMode: "",
  UsernsMode: "",
  ShmSize: 67108864,
  Runtime: "jubako",
  Isolation: "",
  CpuShares: 0,
  Memory: 0,
  NanoCpus: 0,
  CgroupParent: "",
  BlkioWeight: 0,
  BlkioWeightDevice: [],
  BlkioDeviceReadBps: [],
  BlkioDeviceWriteBps: [],
  BlkioDeviceReadIOps: [],
  BlkioDeviceWriteIOps: [],
  CpuPeriod: 0,
  CpuQuota: 0,
  CpuRealtimePeriod: 0,
  CpuRealtimeRuntime: 0,
  CpusetCpus: "",
  CpusetMems: "",
  Devices: [],
  DeviceCgroupRules: null,
  DeviceRequests: null,
  MemoryReservation: 0,
  MemorySwap: 0,
  MemorySwappiness: null,
  OomKillDisable: false,
  PidsLimit: null,
  Ulimits: [],
  CpuCount: 0,
  CpuPercent: 0,
  IOMaximumIOps: 0,
  IOMaximumBandwidth: 0,
};

export const CONFIG_DEFAULTS: Full = {
  Hostname: "",
  Domainname: "",
  User: "",
  AttachStdin: false,
  AttachStdout: false,
  AttachStderr: false,
  Tty: false,
  OpenStdin: false,
  StdinOnce: false,
  Env: [],
  Cmd: null,
  Image: "",
  Volumes: null,
  WorkingDir: "",
  Entrypoint: null,
  OnBuild: null,
  Labels: {},
};

export function fullHostConfig(host: HostConfig): HostConfig {
  const { masked, readonly } = protectedPaths(host);
  const paths = host.Privileged ? { MaskedPaths: null, ReadonlyPaths: null } : { MaskedPaths: masked, ReadonlyPaths: readonly };
  return { ...HOST_DEFAULTS, ...host, ...paths } as HostConfig;
}

export function stateOf(record: ContainerRecord): ContainerState {
  const {
    Status,
    Running,
    Paused,
    Restarting,
    OOMKilled,
    Dead,
    Pid,
    ExitCode,
    Error: problem,
    StartedAt,
    FinishedAt,
    Health,
  } = record.state;
  return {
    Status: Status ?? "created",
    Running: Running ?? false,
    Paused: Paused ?? false,
    Restarting: Restarting ?? false,
    OOMKilled: OOMKilled ?? false,
    Dead: Dead ?? false,
    Pid: Pid ?? 0,
    ExitCode: ExitCode ?? 0,
    Error: problem ?? "",
    StartedAt: StartedAt ?? "",
    FinishedAt: FinishedAt ?? "",
    ...(Health ? { Health } : {}),
  };
}

function networkSettings(record: ContainerRecord, version: number): NetworkSettings {
  const own = record.networkSettings;
  const settings: NetworkSettings & Full = {
    SandboxID: own.SandboxID ?? "",
    SandboxKey: own.SandboxKey ?? "",
    Ports: own.Ports ?? {},
    Networks: shownEndpoints(record.networks, version),
  };
  // Until API 1.51 the default bridge's endpoint stood beside the networks, too.
  if (version < 52) {
    const bridge = record.networks.bridge;
    Object.assign(settings, {
      Bridge: "",
      HairpinMode: false,
      LinkLocalIPv6Address: "",
      LinkLocalIPv6PrefixLen: 0,
      SecondaryIPAddresses: null,
      SecondaryIPv6Addresses: null,
      EndpointID: bridge?.EndpointID ?? "",
      Gateway: bridge?.Gateway ?? "",
      GlobalIPv6Address: bridge?.GlobalIPv6Address ?? "",
      GlobalIPv6PrefixLen: bridge?.GlobalIPv6PrefixLen ?? 0,
      IPAddress: bridge?.IPAddress ?? "",
      IPPrefixLen: bridge?.IPPrefixLen ?? 0,
      IPv6Gateway: bridge?.IPv6Gateway ?? "",
      MacAddress: bridge?.MacAddress ?? "",
    });
  }
  return settings;
}

export interface Sizes {
  SizeRw: number;
  SizeRootFs: number;
}

/** Bytes of a container's own layer, and with its image's. */
export async function sizesOf(core: Core, record: ContainerRecord): Promise<Sizes> {
  const { manager, images } = core.engine;
  const [usage, below] = await Promise.all([
    manager.snapshots.usage({ snapshotter: manager.snapshotter, key: record.snapshotKey }),
    images.layerSize(record.chainId),
  ]);
  const SizeRw = Number(usage.size);
  return { SizeRw, SizeRootFs: SizeRw + below };
}

/** Where a container's layers lie never changes, and asking for it is half of an inspect. */
const graphDrivers = new WeakMap<ContainerRecord, DriverData>();

async function graphDriver(core: Core, record: ContainerRecord): Promise<DriverData> {
  const known = graphDrivers.get(record);
  if (known) return known;
  const { manager } = core.engine;
  const { mounts } = await manager.snapshots.mounts({ snapshotter: manager.snapshotter, key: record.snapshotKey });
  const Data: Record<string, string> = {};
  for (const option of mounts[0]?.options ?? []) {
    const [name, value] = [option.slice(0, option.indexOf("=")), option.slice(option.indexOf("=") + 1)];
    if (name === "lowerdir") Data.LowerDir = value;
    else if (name === "upperdir") Data.UpperDir = value;
    else if (name === "workdir") Data.WorkDir = value;
  }
  const driver = { Name: manager.snapshotter, Data: { ID: record.id, ...Data } };
  graphDrivers.set(record, driver);
  return driver;
}

/** `null` for lists that are empty where Docker says so, and only then. */
function fullConfig(config: ContainerConfig): ContainerConfig {
  const full = { ...CONFIG_DEFAULTS, ...config } as ContainerConfig & Full;
  for (const name of ["Cmd", "Entrypoint", "Env"] as const) if (full[name]?.length === 0) (full as Full)[name] = null;
  if (full.Volumes && Object.keys(full.Volumes).length === 0) (full as Full).Volumes = null;
  if (full.ExposedPorts && Object.keys(full.ExposedPorts).length === 0) delete full.ExposedPorts;
  return full;
}

export async function inspectContainer(
  core: Core,
  record: ContainerRecord,
  options: { size: boolean; version: number },
): Promise<ContainerInspectResponse> {
  const { dir } = record;
  const sharing = record.hostConfig.NetworkMode?.startsWith("container:");
  const file = (name: string) => (record.state.StartedAt?.startsWith("0001") || sharing ? "" : `${dir}/${name}`);
  const [driver, sizes] = await Promise.all([
    graphDriver(core, record).catch(() => ({ Name: core.engine.manager.snapshotter, Data: {} })),
    options.size ? sizesOf(core, record) : undefined,
  ]);
  const storage: ContainerInspectResponse =
    options.version >= 52 ? { Storage: { RootFS: { Snapshot: { Name: core.engine.manager.snapshotter } } } } : { GraphDriver: driver };
  return {
    Id: record.id,
    Created: record.created,
    Path: record.path,
    Args: record.args,
    State: stateOf(record),
    Image: record.image.id,
    ResolvConfPath: file("resolv.conf"),
    HostnamePath: file("hostname"),
    HostsPath: file("hosts"),
    LogPath: record.logPath,
    Name: `/${record.name}`,
    RestartCount: record.restartCount,
    Driver: core.engine.manager.snapshotter,
    Platform: "linux",
    MountLabel: "",
    ProcessLabel: "",
    AppArmorProfile: record.apparmorProfile ?? securityOptions(record.hostConfig).apparmor ?? "",
    ExecIDs: record.execIds.length > 0 ? record.execIds : null,
    HostConfig: fullHostConfig(record.hostConfig),
    ...storage,
    ...(sizes ?? {}),
    Mounts: record.mounts,
    Config: fullConfig(record.config),
    NetworkSettings: networkSettings(record, options.version),
  };
}
