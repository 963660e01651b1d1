// A RUN step as a container that the engine does not list: its network, user, limits and specification.
import { mkdirSync } from "node:fs";
import { rm } from "node:fs/promises";
import type { ContainerConfig, HostConfig } from "../../api/types.ts";
import type { PreparedStep, StepRequest } from "../../build/index.ts";
import type { Spec } from "../../oci/runtime-spec.ts";
import { isCgroupV2 } from "../containers/host.ts";
import { accountFiles, type SnapshotMount } from "../containers/rootfs.ts";
import { runtimeOf } from "../containers/runtime.ts";
import { seccompFor } from "../containers/seccomp.ts";
import { capabilitySet } from "../containers/spec/capabilities.ts";
import { cgroupsPathOf } from "../containers/spec/cgroups-path.ts";
import { buildSpec } from "../containers/spec/index.ts";
import { securityOptions } from "../containers/spec/security.ts";
import { resolveUser } from "../containers/spec/user.ts";
import type { ContainerRecord, Engine } from "../context.ts";

const NEVER = "0001-01-01T00:00:00Z";

/** What the step itself asks for, above what the whole build has. */
function limitsOf({ resources = {}, ...request }: StepRequest, limits: HostConfig): HostConfig {
  const own: HostConfig = {};
  if (resources.memory) own.Memory = resources.memory;
  if (resources.memorySwap) own.MemorySwap = resources.memorySwap;
  if (resources.cpuShares) own.CpuShares = resources.cpuShares;
  if (resources.cpuPeriod) own.CpuPeriod = resources.cpuPeriod;
  if (resources.cpuQuota) own.CpuQuota = resources.cpuQuota;
  if (resources.cpusetCpus) own.CpusetCpus = resources.cpusetCpus;
  if (resources.cpusetMems) own.CpusetMems = resources.cpusetMems;
  if (request.cgroupParent) own.CgroupParent = request.cgroupParent;
  if (request.ulimits?.length)
    own.Ulimits = request.ulimits.map(({ Name, Soft, Hard }) => ({ Name, Soft: Number(Soft), Hard: Number(Hard) }));
  if (request.extraHosts?.length)
    own.ExtraHosts = [...(limits.ExtraHosts ?? []), ...request.extraHosts.map(({ Host, IP }) => `${Host}:${IP}`)];
  return own;
}

function recordOf(engine: Engine, request: StepRequest, limits: HostConfig): ContainerRecord {
  const { id } = request;
  const [path = "", ...args] = request.args;
  const short = id.slice(0, 12);
  const config: ContainerConfig = {
    Hostname: request.hostname || short,
    Env: request.env,
    User: request.user,
    WorkingDir: request.cwd,
    Cmd: request.args,
    ...(request.terminal ? { Tty: true } : {}),
  };
  const hostConfig: HostConfig = { ...limits, ...limitsOf(request, limits), NetworkMode: request.network || "default" };
  if (request.insecure) hostConfig.Privileged = true;
  return {
    id,
    name: `build-${short}`,
    created: new Date().toISOString(),
    path,
    args,
    config,
    hostConfig,
    state: { Status: "created", Running: false, Pid: 0, ExitCode: 0, StartedAt: NEVER, FinishedAt: NEVER },
    image: { id: "", ref: "" },
    snapshotKey: id,
    chainId: "",
    mounts: [],
    networks: {},
    networkSettings: {},
    restartCount: 0,
    stoppedByUser: false,
    logPath: "",
    dir: `${engine.config.execRoot}/build/${id}`,
    execIds: [],
  };
}

export async function prepareStep(engine: Engine, request: StepRequest, limits: HostConfig): Promise<PreparedStep> {
  const record = recordOf(engine, request, limits);
  const { hostConfig } = record;
  mkdirSync(record.dir, { recursive: true, mode: 0o700 });
  let attached = false;
  const close = async () => {
    if (attached) await engine.networks.detach(record);
    await rm(record.dir, { recursive: true, force: true });
  };
  try {
    await engine.networks.check(record, undefined);
    const user = resolveUser(request.user, [], accountFiles("", request.rootfs as unknown as SnapshotMount[]));
    const security = securityOptions(hostConfig);
    const seccomp = await seccompFor(security.seccomp, capabilitySet({ privileged: hostConfig.Privileged }));
    const attachment = await engine.networks.attach(record);
    attached = true;
    const spec: Spec = buildSpec({
      record,
      user,
      security,
      seccomp,
      attachment,
      mounts: { points: [], shmSize: hostConfig.ShmSize || engine.config.defaultShmSize, shmPath: undefined, initPath: undefined },
      pidOf: { pid: undefined, ipc: undefined },
      hostname: record.config.Hostname ?? "",
      cgroupsPath: cgroupsPathOf(engine.config, hostConfig.CgroupParent, record.id),
      cgroupV2: isCgroupV2(),
      defaultUlimits: engine.config.defaultUlimits,
    });
    spec.mounts = [...(spec.mounts ?? []), ...request.mounts];
    return {
      spec: spec as PreparedStep["spec"],
      runtime: runtimeOf(engine.config, undefined) as PreparedStep["runtime"],
      started: (pid) => engine.networks.started(record.id, pid),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}
