// The body of a create request: parsed from outside, merged with the image's config, checked with Docker's sentences.
import type { ContainerConfig, EndpointSettings, HealthConfig, HostConfig, ImageConfig } from "../../api/types.ts";
import { invalidArgument } from "../../lib/errors.ts";
import type { Engine } from "../context.ts";
import { capabilitySet } from "./spec/capabilities.ts";
import { checkDevices } from "./spec/devices.ts";
import { rlimits } from "./spec/resources.ts";
import { securityOptions } from "./spec/security.ts";

export interface CreateRequest {
  config: ContainerConfig;
  hostConfig: HostConfig;
  endpoints: Record<string, EndpointSettings> | undefined;
}

type Kind = "string" | "number" | "boolean" | "strings" | "map" | "object" | "objects";

/** What each field must be; null and absence are always allowed. */
const CONFIG_FIELDS: Record<string, Kind> = {
  Hostname: "string",
  Domainname: "string",
  User: "string",
  AttachStdin: "boolean",
  AttachStdout: "boolean",
  AttachStderr: "boolean",
  ExposedPorts: "object",
  Tty: "boolean",
  OpenStdin: "boolean",
  StdinOnce: "boolean",
  Env: "strings",
  Cmd: "strings",
  Healthcheck: "object",
  Image: "string",
  Volumes: "object",
  WorkingDir: "string",
  Entrypoint: "strings",
  NetworkDisabled: "boolean",
  OnBuild: "strings",
  Labels: "map",
  StopSignal: "string",
  StopTimeout: "number",
  Shell: "strings",
};

const HOST_FIELDS: Record<string, Kind> = {
  Binds: "strings",
  LogConfig: "object",
  NetworkMode: "string",
  PortBindings: "object",
  RestartPolicy: "object",
  AutoRemove: "boolean",
  VolumeDriver: "string",
  VolumesFrom: "strings",
  Mounts: "objects",
  CapAdd: "strings",
  CapDrop: "strings",
  CgroupnsMode: "string",
  Dns: "strings",
  DnsOptions: "strings",
  DnsSearch: "strings",
  ExtraHosts: "strings",
  GroupAdd: "strings",
  IpcMode: "string",
  Links: "strings",
  OomScoreAdj: "number",
  PidMode: "string",
  Privileged: "boolean",
  PublishAllPorts: "boolean",
  ReadonlyRootfs: "boolean",
  SecurityOpt: "strings",
  StorageOpt: "map",
  Tmpfs: "map",
  UTSMode: "string",
  UsernsMode: "string",
  ShmSize: "number",
  Sysctls: "map",
  Runtime: "string",
  Annotations: "map",
  MaskedPaths: "strings",
  ReadonlyPaths: "strings",
  CpuShares: "number",
  Memory: "number",
  CgroupParent: "string",
  BlkioWeight: "number",
  BlkioWeightDevice: "objects",
  BlkioDeviceReadBps: "objects",
  BlkioDeviceWriteBps: "objects",
  BlkioDeviceReadIOps: "objects",
  BlkioDeviceWriteIOps: "objects",
  CpuPeriod: "number",
  CpuQuota: "number",
  CpuRealtimePeriod: "number",
  CpuRealtimeRuntime: "number",
  CpusetCpus: "string",
  CpusetMems: "string",
  Devices: "objects",
  DeviceCgroupRules: "strings",
  DeviceRequests: "objects",
  MemoryReservation: "number",
  MemorySwap: "number",
  MemorySwappiness: "number",
  NanoCpus: "number",
  OomKillDisable: "boolean",
  Init: "boolean",
  PidsLimit: "number",
  Ulimits: "objects",
};

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null && !Array.isArray(value);

const CHECKS: Record<Kind, (value: unknown) => boolean> = {
  string: (value) => typeof value === "string",
  number: (value) => typeof value === "number" && Number.isFinite(value),
  boolean: (value) => typeof value === "boolean",
  strings: (value) => Array.isArray(value) && value.every((each) => typeof each === "string" && !each.includes("\0")),
  map: (value) => isObject(value) && Object.values(value).every((each) => typeof each === "string"),
  object: isObject,
  objects: (value) => Array.isArray(value) && value.every(isObject),
};

/** The known fields of an object, checked; unknown ones are dropped, as Docker does. */
function pick(value: Record<string, unknown>, fields: Record<string, Kind>, where: string): Record<string, unknown> {
  const result: Record<string, unknown> = {};
  for (const name in fields) {
    let given = value[name];
    if (given === undefined || given === null) continue;
    // Entrypoint and Cmd may be one string (a form of old clients).
    if ((name === "Cmd" || name === "Entrypoint") && typeof given === "string") given = [given];
    if (!CHECKS[fields[name]!](given)) throw invalidArgument(`invalid JSON: ${where}${name} has a value of the wrong type`);
    result[name] = given;
  }
  return result;
}

/** Checks the shape of HostConfig, or of the limits of an update. */
export function parseHostConfig(value: unknown): HostConfig {
  if (value === undefined || value === null) return {};
  if (!isObject(value)) throw invalidArgument("invalid JSON: HostConfig must be an object");
  const host = pick(value, HOST_FIELDS, "HostConfig.") as HostConfig;
  if (Array.isArray(value.ConsoleSize) && value.ConsoleSize.every((each) => Number.isInteger(each))) host.ConsoleSize = value.ConsoleSize as number[];
  return host;
}

export function parseCreate(body: unknown): CreateRequest {
  if (!isObject(body)) throw invalidArgument("config cannot be empty in order to create a container");
  const config = pick(body, CONFIG_FIELDS, "") as ContainerConfig;
  const networking = body.NetworkingConfig;
  const endpoints = isObject(networking) && isObject(networking.EndpointsConfig) ? networking.EndpointsConfig : undefined;
  return {
    config,
    hostConfig: parseHostConfig(body.HostConfig),
    endpoints: endpoints && (Object.fromEntries(Object.entries(endpoints).map(([name, each]) => [name, each ?? {}])) as Record<string, EndpointSettings>),
  };
}

function mergeHealth(own: HealthConfig | undefined, image: HealthConfig | undefined): HealthConfig | undefined {
  if (!own) return image;
  if (!image) return own;
  if (!own.Test?.length) {
    return {
      ...image,
      Interval: own.Interval || image.Interval || 0,
      Timeout: own.Timeout || image.Timeout || 0,
      StartPeriod: own.StartPeriod || image.StartPeriod || 0,
      StartInterval: own.StartInterval || image.StartInterval || 0,
      Retries: own.Retries || image.Retries || 0,
    };
  }
  return own;
}

const envName = (entry: string) => entry.split("=", 1)[0]!;

/** The user's config over the image's, as Docker merges them. */
export function mergeWithImage(config: ContainerConfig, image: ImageConfig): ContainerConfig {
  const merged = { ...config };
  merged.User ||= image.User ?? "";
  if (image.ExposedPorts) merged.ExposedPorts = { ...image.ExposedPorts, ...config.ExposedPorts };
  const names = new Set((config.Env ?? []).map(envName));
  merged.Env = [...(config.Env ?? []), ...(image.Env ?? []).filter((each) => !names.has(envName(each)))];
  merged.Labels = { ...image.Labels, ...config.Labels };
  if (!config.Entrypoint?.length) {
    if (!config.Cmd?.length) merged.Cmd = image.Cmd ?? [];
    if (config.Entrypoint === undefined && image.Entrypoint) merged.Entrypoint = image.Entrypoint;
  }
  if (image.Volumes) merged.Volumes = { ...image.Volumes, ...config.Volumes };
  merged.WorkingDir ||= image.WorkingDir ?? "";
  const stopSignal = config.StopSignal || image.StopSignal;
  if (stopSignal) merged.StopSignal = stopSignal;
  const health = mergeHealth(config.Healthcheck, image.Healthcheck);
  if (health) merged.Healthcheck = health;
  if (!config.Shell && image.Shell) merged.Shell = image.Shell;
  if (merged.Entrypoint?.length === 1 && merged.Entrypoint[0] === "") delete merged.Entrypoint;
  if (!merged.Entrypoint?.length && !merged.Cmd?.length) throw invalidArgument("no command specified");
  return merged;
}

const MIN_MEMORY = 6 * 1024 * 1024;

function checkMemory(host: HostConfig): void {
  const memory = host.Memory ?? 0;
  const swap = host.MemorySwap ?? 0;
  const reservation = host.MemoryReservation ?? 0;
  if (memory !== 0 && memory < MIN_MEMORY) throw invalidArgument("Minimum memory limit allowed is 6MB");
  if (memory > 0 && swap > 0 && swap < memory) {
    throw invalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage");
  }
  if (memory === 0 && swap > 0) throw invalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage");
  const swappiness = host.MemorySwappiness;
  if (swappiness !== undefined && (swappiness < -1 || swappiness > 100)) {
    throw invalidArgument(`Invalid value: ${swappiness}, valid memory swappiness range is 0-100`);
  }
  if (reservation > 0 && reservation < MIN_MEMORY) throw invalidArgument("Minimum memory reservation allowed is 6MB");
  if (memory > 0 && reservation > 0 && memory < reservation) {
    throw invalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage");
  }
}

function checkCpu(host: HostConfig, cpus: number): void {
  if (host.NanoCpus && host.CpuPeriod) throw invalidArgument("Conflicting options: Nano CPUs and CPU Period cannot both be set");
  if (host.NanoCpus && host.CpuQuota) throw invalidArgument("Conflicting options: Nano CPUs and CPU Quota cannot both be set");
  if (host.NanoCpus && (host.NanoCpus < 0 || host.NanoCpus > cpus * 1e9)) {
    throw invalidArgument(`range of CPUs is from 0.01 to ${cpus}.00, as there are only ${cpus} CPUs available`);
  }
  if ((host.CpuShares ?? 0) < 0) throw invalidArgument(`invalid CPU shares (${host.CpuShares}): value must be a positive integer`);
  if (host.CpuPeriod && (host.CpuPeriod < 1000 || host.CpuPeriod > 1000000)) {
    throw invalidArgument("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)");
  }
  if (host.CpuQuota && host.CpuQuota > 0 && host.CpuQuota < 1000) throw invalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)");
  for (const [name, value] of [
    ["cpuset.cpus", host.CpusetCpus],
    ["cpuset.mems", host.CpusetMems],
  ]) {
    if (value && !/^\d+(-\d+)?(,\d+(-\d+)?)*$/.test(value)) throw invalidArgument(`Invalid value ${value} for ${name}`);
  }
  const highest = Math.max(-1, ...(host.CpusetCpus ?? "").split(/[,-]/).filter(Boolean).map(Number));
  if (highest >= cpus) throw invalidArgument(`Requested CPUs are not available - requested ${host.CpusetCpus}, available: 0-${cpus - 1}`);
  if (host.BlkioWeight && (host.BlkioWeight < 10 || host.BlkioWeight > 1000)) throw invalidArgument("Range of blkio weight is from 10 to 1000");
}

/** Limits, for create and update. */
export function checkResources(host: HostConfig, cpus: number): void {
  checkMemory(host);
  checkCpu(host, cpus);
}

export function checkRestartPolicy(host: HostConfig): void {
  const policy = host.RestartPolicy;
  if (!policy?.Name) return;
  const maximum = policy.MaximumRetryCount ?? 0;
  if (!["no", "always", "unless-stopped", "on-failure"].includes(policy.Name)) {
    throw invalidArgument(
      `invalid restart policy: unknown policy '${policy.Name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'`,
    );
  }
  if (policy.Name !== "on-failure" && maximum !== 0) {
    throw invalidArgument(
      `invalid restart policy: maximum retry count can only be used with 'on-failure'${maximum < 0 ? " and cannot be negative" : ""}`,
    );
  }
  if (maximum < 0) throw invalidArgument("invalid restart policy: maximum retry count cannot be negative");
  if (host.AutoRemove && policy.Name !== "no") throw invalidArgument("can't create 'AutoRemove' container with restart policy");
}

function checkMode(name: string, value: string | undefined, allowed: string[]): void {
  if (!value || allowed.includes(value)) return;
  if (value.startsWith("container:") && allowed.includes("container:")) {
    if (value.length > "container:".length) return;
  }
  throw invalidArgument(`invalid ${name} mode: ${value}`);
}

const SIGNAL = /^(?:SIG)?[A-Z0-9+-]{2,12}$|^\d{1,2}$/i;

/** Refuses what can't be meant, fills in Docker's defaults, and gives warnings. */
export function checkSettings(engine: Engine, config: ContainerConfig, host: HostConfig, cpus: number, cgroupV2: boolean): string[] {
  const warnings: string[] = [];
  if (config.WorkingDir && !config.WorkingDir.startsWith("/")) {
    throw invalidArgument(`the working directory '${config.WorkingDir}' is invalid, it needs to be an absolute path`);
  }
  for (const each of config.Env ?? []) if (each === "" || each.startsWith("=")) throw invalidArgument(`invalid environment variable: ${each}`);
  if (config.Hostname && !/^[\w.-]{1,63}$/.test(config.Hostname)) throw invalidArgument(`invalid hostname format: ${config.Hostname}`);
  if (config.StopSignal && !SIGNAL.test(config.StopSignal)) throw invalidArgument(`Invalid signal: ${config.StopSignal}`);
  if (config.Healthcheck) {
    for (const field of ["Interval", "Timeout", "StartPeriod", "StartInterval"] as const) {
      const value = config.Healthcheck[field] ?? 0;
      if (value !== 0 && value < 1_000_000) throw invalidArgument(`${field} in Healthcheck cannot be less than 1ms`);
    }
    if ((config.Healthcheck.Retries ?? 0) < 0) throw invalidArgument("Retries in Healthcheck cannot be negative");
  }
  checkRestartPolicy(host);
  checkResources(host, cpus);
  checkDevices(host);
  capabilitySet({ add: host.CapAdd, drop: host.CapDrop, privileged: host.Privileged });
  rlimits(host, {});
  securityOptions(host);
  checkMode("PID", host.PidMode, ["host", "container:", "private"]);
  checkMode("IPC", host.IpcMode, ["none", "private", "shareable", "host", "container:"]);
  checkMode("UTS", host.UTSMode, ["host", "private"]);
  checkMode("user namespace", host.UsernsMode, ["host"]);
  checkMode("cgroup namespace", host.CgroupnsMode, ["host", "private"]);
  if ((host.ShmSize ?? 0) < 0) throw invalidArgument("SHM size can not be less than 0");
  if (host.OomScoreAdj !== undefined && Math.abs(host.OomScoreAdj) > 1000) {
    throw invalidArgument(`Invalid value ${host.OomScoreAdj}, range for oom score adj is [-1000, 1000]`);
  }
  if (host.UTSMode === "host" && config.Hostname) throw invalidArgument("conflicting options: hostname and the UTS mode");
  for (const name in host.Sysctls ?? {}) {
    if (host.NetworkMode === "host" && name.startsWith("net.")) throw invalidArgument(`sysctl '${name}' not allowed in host network namespace`);
  }
  for (const destination in host.Tmpfs ?? {}) {
    if (!destination.startsWith("/")) throw invalidArgument(`invalid mount path: '${destination}' mount path must be absolute`);
  }
  const runtime = host.Runtime || engine.config.defaultRuntime;
  if (runtime !== "jubako" && !engine.config.runtimes[runtime] && !runtime.startsWith("io.containerd.")) {
    throw invalidArgument(`unknown or invalid runtime name: ${runtime}`);
  }
  if (host.StorageOpt && Object.keys(host.StorageOpt).length > 0) {
    throw invalidArgument("--storage-opt is not supported by the overlayfs snapshotter");
  }
  host.Runtime = runtime;
  host.NetworkMode ||= "default";
  host.IpcMode ||= "private";
  host.CgroupnsMode ||= cgroupV2 ? "private" : "host";
  host.ShmSize ||= engine.config.defaultShmSize;
  if (host.Memory && !host.MemorySwap) host.MemorySwap = host.Memory * 2;
  host.RestartPolicy ??= { Name: "no", MaximumRetryCount: 0 };
  host.RestartPolicy.Name ||= "no";
  host.RestartPolicy.MaximumRetryCount ??= 0;
  if (host.OomKillDisable && !host.Memory) {
    warnings.push("OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.");
  }
  return warnings;
}
