// GET /info: what the engine is, has and can, each value looked up.
import { availableParallelism, hostname, totalmem } from "node:os";
import type { SystemInfo } from "../../api/types.ts";
import { COMMIT } from "../../lib/build.ts";
import type { Engine } from "../context.ts";
import { formatNano, nanoNow } from "../logs/time.ts";
import { VERSION } from "../version.ts";
import {
  ARCHITECTURES,
  cgroupAbilities,
  ipv4Forwarding,
  kernelVersion,
  openDescriptors,
  operatingSystem,
  securityOptions,
} from "./host.ts";

function warnings(cgroup: ReturnType<typeof cgroupAbilities>, forwarding: boolean): string[] {
  const missing: [boolean, string][] = [
    [cgroup.memoryLimit, "No memory limit support"],
    [cgroup.swapLimit, "No swap limit support"],
    [cgroup.cpuCfs, "No cpu cfs quota support"],
    [cgroup.cpuCfs, "No cpu cfs period support"],
    [cgroup.cpuShares, "No cpu shares support"],
    [cgroup.cpuset, "No cpuset support"],
    [cgroup.pidsLimit, "No pids limit support"],
    [forwarding, "IPv4 forwarding is disabled"],
  ];
  const list = missing.filter(([there]) => !there).map(([, text]) => `WARNING: ${text}`);
  if (cgroup.version === "1")
    list.push(
      "WARNING: Support for cgroup v1 is deprecated and planned to be removed by no later than May 2029 (https://github.com/moby/moby/issues/51111)",
    );
  return list;
}

async function imageCount(engine: Engine): Promise<number> {
  const { images } = await engine.manager.images.list({});
  return new Set(images.map((image) => image.target?.digest)).size;
}

/** A proxy's address as it may be shown, as dockerd masks it. */
function withoutPassword(address = ""): string {
  return address.replace(/^([a-z]+:\/\/)?[^/@]*@/i, "$1xxxxx:xxxxx@");
}

export async function systemInfo(engine: Engine, listeners: number): Promise<SystemInfo> {
  const { config } = engine;
  const records = engine.containers.list();
  const running = records.filter(({ state }) => state.Running && !state.Paused).length;
  const paused = records.filter(({ state }) => state.Paused).length;
  const cgroup = cgroupAbilities();
  const forwarding = ipv4Forwarding();
  const os = operatingSystem();
  const [images, version] = await Promise.all([imageCount(engine), engine.manager.version.version({}).catch(() => undefined)]);
  const insecure = config.insecureRegistries;
  const runtimes: NonNullable<SystemInfo["Runtimes"]> = { jubako: { path: "jubako-runtime" } };
  for (const [name, runtime] of Object.entries(config.runtimes)) runtimes[name] = { path: runtime.path ?? runtime.runtimeType ?? "" };
  return {
    ID: engine.id,
    Containers: records.length,
    ContainersRunning: running,
    ContainersPaused: paused,
    ContainersStopped: records.length - running - paused,
    Images: images,
    Driver: engine.manager.snapshotter,
    DriverStatus: [["driver-type", "io.containerd.snapshotter.v1"]],
    Plugins: {
      Volume: ["local"],
      Network: ["bridge", "host", "null"],
      Authorization: null as unknown as string[],
      Log: ["json-file", "local", "none"],
    },
    MemoryLimit: cgroup.memoryLimit,
    SwapLimit: cgroup.swapLimit,
    CpuCfsPeriod: cgroup.cpuCfs,
    CpuCfsQuota: cgroup.cpuCfs,
    CPUShares: cgroup.cpuShares,
    CPUSet: cgroup.cpuset,
    PidsLimit: cgroup.pidsLimit,
    OomKillDisable: cgroup.oomKillDisable,
    IPv4Forwarding: forwarding,
    Debug: config.debug,
    NFd: openDescriptors(),
    NGoroutines: 0,
    SystemTime: formatNano(nanoNow()),
    LoggingDriver: config.logDriver || "json-file",
    CgroupDriver: config.cgroupDriver,
    CgroupVersion: cgroup.version,
    NEventsListener: listeners,
    KernelVersion: kernelVersion(),
    OperatingSystem: os.name,
    OSVersion: os.version,
    OSType: "linux",
    Architecture: ARCHITECTURES[process.arch] ?? process.arch,
    IndexServerAddress: "https://index.docker.io/v1/",
    RegistryConfig: {
      InsecureRegistryCIDRs: ["::1/128", "127.0.0.0/8", ...insecure.filter((entry) => entry.includes("/"))],
      IndexConfigs: {
        "docker.io": { Name: "docker.io", Mirrors: config.registryMirrors, Secure: true, Official: true },
        ...Object.fromEntries(
          insecure.filter((entry) => !entry.includes("/")).map((Name) => [Name, { Name, Mirrors: [], Secure: false, Official: false }]),
        ),
      },
      Mirrors: config.registryMirrors,
    },
    NCPU: availableParallelism(),
    MemTotal: totalmem(),
    GenericResources: null as unknown as [],
    DockerRootDir: config.dataRoot,
    HttpProxy: withoutPassword(config.proxies.http || process.env.HTTP_PROXY || process.env.http_proxy),
    HttpsProxy: withoutPassword(config.proxies.https || process.env.HTTPS_PROXY || process.env.https_proxy),
    NoProxy: config.proxies.none || process.env.NO_PROXY || process.env.no_proxy || "",
    Name: hostname(),
    Labels: config.labels,
    ExperimentalBuild: config.experimental === true,
    ServerVersion: VERSION,
    Runtimes: runtimes,
    DefaultRuntime: config.defaultRuntime,
    Swarm: {
      NodeID: "",
      NodeAddr: "",
      LocalNodeState: "inactive",
      ControlAvailable: false,
      Error: "",
      RemoteManagers: null as unknown as [],
    },
    LiveRestoreEnabled: config.liveRestore,
    Isolation: "",
    InitBinary: config.initBinary ?? "docker-init",
    ContainerdCommit: { ID: version?.revision || version?.version || VERSION },
    RuncCommit: { ID: COMMIT },
    InitCommit: { ID: "" },
    SecurityOptions: securityOptions(),
    FirewallBackend: { Driver: "nftables" },
    CDISpecDirs: [],
    ...(config.containerd
      ? { Containerd: { Address: config.containerd, Namespaces: { Containers: "moby", Plugins: "plugins.moby" } } }
      : {}),
    Warnings: warnings(cgroup, forwarding),
  };
}
