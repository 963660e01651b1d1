// The body of a create request: parsed from outside, and merged with the image's config.
import type { ContainerConfig, EndpointSettings, HealthConfig, HostConfig, ImageConfig } from "../../api/types.ts";
import { invalidArgument } from "../../lib/errors.ts";

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
  Isolation: "string",
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
  if (Array.isArray(value.ConsoleSize) && value.ConsoleSize.every((each) => Number.isInteger(each)))
    host.ConsoleSize = value.ConsoleSize as number[];
  return host;
}

export function parseCreate(body: unknown): CreateRequest {
  if (!isObject(body)) throw invalidArgument("config cannot be empty in order to create a container");
  const config = pick(body, CONFIG_FIELDS, "") as ContainerConfig;
  if (Object.keys(config).length === 0) throw invalidArgument("config cannot be empty in order to create a container");
  const networking = body.NetworkingConfig;
  const endpoints = isObject(networking) && isObject(networking.EndpointsConfig) ? networking.EndpointsConfig : undefined;
  return {
    config,
    hostConfig: parseHostConfig(body.HostConfig),
    endpoints:
      endpoints &&
      (Object.fromEntries(Object.entries(endpoints).map(([name, each]) => [name, each ?? {}])) as Record<string, EndpointSettings>),
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
