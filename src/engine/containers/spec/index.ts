// config.json of a container: what the user asked for, as the runtime specification says it. Pure: everything that had to be looked up (user, paths,
// the network's files, the seccomp profile) comes in with the input.
import type { HostConfig } from "../../../api/types.ts";
import { KEEP_STDIN } from "../../../lib/annotations.ts";
import type { Namespace, Process, Resources, Seccomp, Spec } from "../../../oci/runtime-spec.ts";
import type { ContainerRecord, NetworkAttachment } from "../../context.ts";
import { capabilitySet, processCapabilities } from "./capabilities.ts";
import { devices } from "./devices.ts";
import { processEnv } from "./env.ts";
import { type MountInput, mounts } from "./mounts.ts";
import { resources, rlimits } from "./resources.ts";
import { protectedPaths, type SecurityOptions } from "./security.ts";
import type { ResolvedUser } from "./user.ts";

export interface SpecInput {
  record: ContainerRecord;
  user: ResolvedUser;
  security: SecurityOptions;
  /** Resolved for this container's capabilities; undefined: unconfined. */
  seccomp: Seccomp | undefined;
  attachment: NetworkAttachment;
  mounts: Omit<MountInput, "host" | "files" | "writableCgroups">;
  /** Pid of the container whose namespaces are joined by --pid container: and --ipc container:. */
  pidOf: { pid: number | undefined; ipc: number | undefined };
  hostname: string;
  cgroupsPath: string;
  /** Whether the host runs the pure cgroup v2 hierarchy: then a container has a cgroup namespace unless told otherwise. */
  cgroupV2: boolean;
  defaultUlimits: Record<string, { Name: string; Soft: number; Hard: number }>;
}

function namespaces(input: SpecInput): Namespace[] {
  const host = input.record.hostConfig;
  const list: Namespace[] = [{ type: "mount" }];
  if (input.attachment.mode !== "host") {
    list.push(input.attachment.netns ? { type: "network", path: input.attachment.netns } : { type: "network" });
  }
  if (host.UTSMode !== "host") list.push({ type: "uts" });
  if (input.pidOf.pid) list.push({ type: "pid", path: `/proc/${input.pidOf.pid}/ns/pid` });
  else if (host.PidMode !== "host") list.push({ type: "pid" });
  if (input.pidOf.ipc) list.push({ type: "ipc", path: `/proc/${input.pidOf.ipc}/ns/ipc` });
  else if (host.IpcMode !== "host") list.push({ type: "ipc" });
  if (privateCgroup(host, input.cgroupV2)) list.push({ type: "cgroup" });
  return list;
}

export function privateCgroup(host: HostConfig, cgroupV2: boolean): boolean {
  return host.CgroupnsMode ? host.CgroupnsMode === "private" : cgroupV2 && !host.Privileged;
}

function sysctls(input: SpecInput): Record<string, string> {
  const host = input.record.hostConfig;
  const result: Record<string, string> = {};
  // Binding low ports and ping need no capability in a network namespace of one's own.
  if (input.attachment.mode === "bridge" || input.attachment.mode === "none") {
    result["net.ipv4.ip_unprivileged_port_start"] = "0";
    result["net.ipv4.ping_group_range"] = "0 2147483647";
  }
  return { ...result, ...host.Sysctls };
}

function processOf(input: SpecInput): Process {
  const { record, user, security } = input;
  const { config, hostConfig } = record;
  const args = [record.path, ...record.args];
  const process: Process = {
    user: { uid: user.uid, gid: user.gid, ...(user.additionalGids.length > 0 ? { additionalGids: user.additionalGids } : {}) },
    args: input.mounts.initPath ? ["/sbin/docker-init", "--", ...args] : args,
    env: processEnv({ hostname: input.hostname, tty: config.Tty === true, env: config.Env ?? [], home: user.home }),
    cwd: config.WorkingDir || "/",
    capabilities: processCapabilities(
      capabilitySet({ add: hostConfig.CapAdd, drop: hostConfig.CapDrop, privileged: hostConfig.Privileged }),
      user.uid,
    ),
    oomScoreAdj: hostConfig.OomScoreAdj ?? 0,
  };
  if (config.Tty) {
    process.terminal = true;
    const [height, width] = hostConfig.ConsoleSize ?? [];
    if (height && width) process.consoleSize = { height, width };
  }
  if (security.noNewPrivileges) process.noNewPrivileges = true;
  if (security.apparmor && security.apparmor !== "unconfined") process.apparmorProfile = security.apparmor;
  const limits = rlimits(hostConfig, input.defaultUlimits);
  if (limits.length > 0) process.rlimits = limits;
  return process;
}

export function buildSpec(input: SpecInput): Spec {
  const { record, security } = input;
  const { config, hostConfig } = record;
  const { masked, readonly } = protectedPaths(hostConfig);
  const nodes = devices(hostConfig);
  const limits: Resources = { ...resources(hostConfig), devices: nodes.rules };
  const sysctl = sysctls(input);
  const spec: Spec = {
    // What is newer in it, runtimes take by name; crun before 1.9 refuses any version but 1.0.
    ociVersion: "1.0.2",
    process: processOf(input),
    root: { path: "rootfs", ...(hostConfig.ReadonlyRootfs ? { readonly: true } : {}) },
    mounts: mounts({ ...input.mounts, host: hostConfig, files: input.attachment, writableCgroups: security.writableCgroups }),
    linux: {
      resources: limits,
      cgroupsPath: input.cgroupsPath,
      namespaces: namespaces(input),
      ...(Object.keys(sysctl).length > 0 ? { sysctl } : {}),
      ...(nodes.devices.length > 0 ? { devices: nodes.devices } : {}),
      ...(input.seccomp ? { seccomp: input.seccomp } : {}),
      ...(masked.length > 0 ? { maskedPaths: masked } : {}),
      ...(readonly.length > 0 ? { readonlyPaths: readonly } : {}),
    },
  };
  if (hostConfig.UTSMode !== "host") {
    spec.hostname = input.hostname;
    if (config.Domainname) spec.domainname = config.Domainname;
  }
  const propagation = rootPropagation(spec);
  if (propagation) spec.linux!.rootfsPropagation = propagation;
  // Input outlives a killed engine, whose clients come back.
  spec.annotations = { ...hostConfig.Annotations, [KEEP_STDIN]: "true" };
  return spec;
}

/** A bind that shares or receives mounts needs a root that lets them through. */
function rootPropagation(spec: Spec): string | undefined {
  const options = (spec.mounts ?? []).flatMap((each) => each.options ?? []);
  if (options.includes("shared") || options.includes("rshared")) return "shared";
  return options.includes("slave") || options.includes("rslave") ? "slave" : undefined;
}
