// Refuses settings that can't be meant, with Docker's sentences, and fills in its defaults.
import { posix } from "node:path";
import type { ContainerConfig, HostConfig } from "../../api/types.ts";
import { invalidArgument } from "../../lib/errors.ts";
import type { EngineConfig } from "../context.ts";
import { signalNumber } from "./signals.ts";
import { capabilitySet } from "./spec/capabilities.ts";
import { checkDevices } from "./spec/devices.ts";
import { rlimits } from "./spec/resources.ts";
import { securityOptions } from "./spec/security.ts";

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
  if (host.CpuQuota && host.CpuQuota > 0 && host.CpuQuota < 1000)
    throw invalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)");
  for (const [name, value] of [
    ["cpuset.cpus", host.CpusetCpus],
    ["cpuset.mems", host.CpusetMems],
  ]) {
    if (value && !/^\d+(-\d+)?(,\d+(-\d+)?)*$/.test(value)) throw invalidArgument(`Invalid value ${value} for ${name}`);
  }
  const highest = Math.max(-1, ...(host.CpusetCpus ?? "").split(/[,-]/).filter(Boolean).map(Number));
  if (highest >= cpus) throw invalidArgument(`Requested CPUs are not available - requested ${host.CpusetCpus}, available: 0-${cpus - 1}`);
  if (host.BlkioWeight && (host.BlkioWeight < 10 || host.BlkioWeight > 1000))
    throw invalidArgument("Range of blkio weight is from 10 to 1000");
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

const TMPFS_VALUES = ["mode", "uid", "gid", "size", "nr_inodes", "nr_blocks", "mpol"];
const TMPFS_FLAGS = new Set(
  (
    "defaults ro rw suid nosuid dev nodev exec noexec sync async dirsync remount mand nomand atime noatime diratime nodiratime bind rbind " +
    "unbindable runbindable private rprivate shared rshared slave rslave relatime norelatime strictatime nostrictatime"
  ).split(" "),
);

/** `--tmpfs /x:OPTIONS`: what the kernel would only refuse when the container starts. */
function checkTmpfsOptions(options: string): void {
  for (const option of options.split(",").filter(Boolean)) {
    const [name, ...value] = option.split("=");
    const known = value.length > 0 ? TMPFS_VALUES.includes(name!) : TMPFS_FLAGS.has(name!);
    if (known) continue;
    const parts = value.length > 0 ? [name, value.join("=")] : [name];
    throw invalidArgument(`invalid tmpfs option [${parts.map((part) => JSON.stringify(part)).join(" ")}]`);
  }
}

/** Of the kernel (uname(2)). */
const MAX_HOSTNAME = 64;

/** Refuses what can't be meant, fills in Docker's defaults, and gives warnings. */
export function checkSettings(engine: EngineConfig, config: ContainerConfig, host: HostConfig, cpus: number, cgroupV2: boolean): string[] {
  const warnings: string[] = [];
  if (config.WorkingDir && !config.WorkingDir.startsWith("/")) {
    throw invalidArgument(`the working directory '${config.WorkingDir}' is invalid, it needs to be an absolute path`);
  }
  for (const each of config.Env ?? [])
    if (each === "" || each.startsWith("=")) throw invalidArgument(`invalid environment variable: ${each}`);
  if ((config.Hostname ?? "").length > MAX_HOSTNAME) throw invalidArgument(`invalid hostname format: ${config.Hostname}`);
  if (config.StopSignal) signalNumber(config.StopSignal);
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
  if (host.NetworkMode?.startsWith("container:") && config.Hostname) {
    throw invalidArgument("conflicting options: hostname and the network mode");
  }
  for (const name in host.Sysctls ?? {}) {
    if (host.NetworkMode === "host" && name.startsWith("net."))
      throw invalidArgument(`sysctl '${name}' not allowed in host network namespace`);
  }
  for (const destination in host.Tmpfs ?? {}) {
    if (!destination.startsWith("/")) throw invalidArgument(`invalid mount path: '${destination}' mount path must be absolute`);
    if (posix.normalize(destination) === "/") throw invalidArgument("invalid specification: destination can't be '/'");
    checkTmpfsOptions(host.Tmpfs![destination]!);
  }
  if (host.Isolation && host.Isolation !== "default") {
    throw invalidArgument(`invalid isolation (${host.Isolation}): linux only supports 'default'`);
  }
  const runtime = host.Runtime || engine.defaultRuntime;
  if (runtime !== "jubako" && !engine.runtimes[runtime] && !runtime.startsWith("io.containerd.")) {
    throw invalidArgument(`unknown or invalid runtime name: ${runtime}`);
  }
  if (host.StorageOpt && Object.keys(host.StorageOpt).length > 0) {
    throw invalidArgument("--storage-opt is not supported by the overlayfs snapshotter");
  }
  if (host.MemorySwappiness === -1) delete host.MemorySwappiness;
  if ((host.PidsLimit ?? 0) <= 0) delete host.PidsLimit;
  host.Runtime = runtime;
  host.NetworkMode ||= "default";
  host.IpcMode ||= engine.containerDefaults.ipcMode;
  host.CgroupnsMode ||= engine.containerDefaults.cgroupnsMode ?? (cgroupV2 ? "private" : "host");
  host.ShmSize ||= engine.defaultShmSize;
  if (host.Memory && !host.MemorySwap) host.MemorySwap = host.Memory * 2;
  host.RestartPolicy ??= { Name: "no", MaximumRetryCount: 0 };
  host.RestartPolicy.Name ||= "no";
  host.RestartPolicy.MaximumRetryCount ??= 0;
  if (host.NetworkMode === "host" && Object.keys(host.PortBindings ?? {}).length > 0) {
    warnings.push("Published ports are discarded when using host network mode");
  }
  if (host.OomKillDisable && !host.Memory) {
    warnings.push(
      "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.",
    );
  }
  return warnings;
}
