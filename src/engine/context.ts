// What the engine's resources see of each other: one face a resource, and the Engine that holds them. A resource folder (containers, exec,
// images, networks, volumes, system, …) exports `create…(engine): Face` and `routes(engine): Route[]`; main.ts puts them together. A resource
// reaches another one only through these faces.

import type { DatabaseSync } from "node:sqlite";
import type {
  ContainerConfig,
  ContainerState,
  EndpointSettings,
  EventMessage,
  HostConfig,
  ImageConfig,
  MountPoint,
  NetworkSettings,
} from "../api/types.ts";
import type { ManagerClients } from "../containerd/index.ts";
import type { ProxySettings } from "../distribution/index.ts";
import type { StoredEvent } from "./events/index.ts";
import type { ContainerStreams } from "./io/streams.ts";

/** The manager, through its service interface only: in memory, or a containerd on a unix socket. Every call is made in the namespace `moby`. */
export type Manager = ManagerClients;

/** The engine's settings, from flags and daemon.json (flags win; the same key in both is an error, as with dockerd). Paths are absolute. */
export interface EngineConfig {
  hosts: string[];
  dataRoot: string;
  execRoot: string;
  pidfile: string;
  debug: boolean;
  /** Least important messages to log; `debug` wins. */
  logLevel?: "debug" | "info" | "warn" | "error" | "fatal";
  /** Address of a containerd to use instead of our own in memory. */
  containerd: string | undefined;
  /** Name → OCI runtime binary (`--add-runtime name=path`) or shim v2 type. The built-in one is "jubako". */
  runtimes: Record<string, { path?: string; runtimeType?: string; options?: Record<string, unknown> }>;
  defaultRuntime: string;
  /** Name of the default bridge ("jubako0" unless said); "none" disables the default bridge. */
  bridge: string;
  /** Address of the default bridge with prefix length. */
  bip: string | undefined;
  /** The default bridge, beyond its name and address. */
  defaultNetwork: {
    ipv6: boolean;
    /** Part of the bridge's subnet that containers' addresses are taken from. */
    fixedCidr: string | undefined;
    /** The bridge's IPv6 subnet; one of the engine's own where it is not said. */
    fixedCidrV6: string | undefined;
    mtu: number;
    icc: boolean;
    masquerade: boolean;
    /** Address of the host that ports are published at unless said otherwise. */
    hostBinding: string;
  };
  /** What "host-gateway" in --add-host means; none: the default bridge's address. */
  hostGateways: string[];
  /** Whether the engine switches the kernel's forwarding on. */
  ipForward: boolean;
  /** What containers have that ask for nothing else. */
  containerDefaults: { noNewPrivileges: boolean; ipcMode: "private" | "shareable"; cgroupnsMode: "private" | "host" | undefined };
  /** What subnets are cut from where a network asks for none; undefined: Docker's ranges. */
  addressPools: { base: string; size: number }[] | undefined;
  dns: string[];
  dnsOptions: string[];
  dnsSearch: string[];
  logDriver: string;
  logOpts: Record<string, string>;
  labels: string[];
  insecureRegistries: string[];
  registryMirrors: string[];
  maxConcurrentDownloads: number;
  maxConcurrentUploads: number;
  maxDownloadAttempts: number;
  /** Of requests to registries; what is not said here the environment says. */
  proxies: ProxySettings;
  shutdownTimeout: number;
  /** Builds by BuildKit: what steps may be granted, and whether clients are told to prefer it. */
  builder?: { entitlements: string[]; preferred: boolean; collect: { enabled: boolean; reservedSpace: number | undefined } };
  initBinary: string | undefined;
  /** Run an init in every container that does not say otherwise. */
  init: boolean;
  /** Containers keep running when the engine is asked to end (SIGTERM); they always do when it is killed. */
  liveRestore: boolean;
  /** What Docker calls experimental is there: checkpoints. */
  experimental?: boolean;
  /** Group that may use the unix socket. */
  group: string;
  /** Of the tcp sockets; "unsaid" refuses to serve them. */
  tls: { mode: "verify" | "encrypt" | "off" | "unsaid"; ca: string; cert: string; key: string };
  defaultShmSize: number;
  defaultUlimits: Record<string, { Name: string; Soft: number; Hard: number }>;
  cgroupParent: string;
  /** Who makes containers' cgroups: the runtime by itself, or systemd for it (--exec-opt native.cgroupdriver). */
  cgroupDriver: "cgroupfs" | "systemd";
  /** Warm pools of network namespaces: how many to keep ready (0 switches them off). */
  warmNetworks: number;
}

/** A container as the engine stores it: one JSON document a container, written in one transaction with each change of state. */
export interface ContainerRecord {
  /** 64 hex digits. */
  id: string;
  /** Without the leading slash. */
  name: string;
  created: string;
  path: string;
  args: string[];
  config: ContainerConfig;
  hostConfig: HostConfig;
  state: ContainerState;
  /** Image id (sha256:…) and the reference the user gave. */
  image: { id: string; ref: string };
  snapshotKey: string;
  /** Chain id of the image's topmost layer, which the snapshot was prepared from. */
  chainId: string;
  mounts: MountPoint[];
  /** The images that are mounted in it, by destination: their ids, and which part of them ("": all). */
  imageMounts?: Record<string, { image: string; subpath: string }>;
  /** Endpoint settings by network name: what was asked for and, while running, what was assigned. */
  networks: Record<string, EndpointSettings>;
  /** What NetworkSettings of inspect says beyond `Networks`; written by the networks resource. */
  networkSettings: NetworkSettings;
  restartCount: number;
  /** The user stopped it: restart policies `always` and `unless-stopped` then leave it alone. */
  stoppedByUser: boolean;
  logPath: string;
  /** Directory of the container's own files: DATA/containers/ID. */
  dir: string;
  execIds: string[];
  /** Of AppArmor, since its last start; "": none. */
  apparmorProfile?: string;
}

/** How a container's process ended. `status` as a shell gives it (128 + signal). */
export interface ExitInfo {
  status: number;
  at: Date;
  oomKilled: boolean;
}

export interface ContainersFace {
  /** By full id, name (with or without "/"), or unambiguous id prefix, in this order. NotFound: "No such container: X"; InvalidArgument where a prefix is ambiguous. */
  get(ref: string): ContainerRecord;
  /** All, newest first. Never blocks: answers from memory. */
  list(): ContainerRecord[];
  /** Changes the record under its lock, stores it, and answers the new one. */
  update(id: string, change: (record: ContainerRecord) => void): ContainerRecord;
  /** Pid of the container's init in the host's pid namespace; 0 where it does not run. */
  pid(id: string): number;
  start(id: string, options?: { detachKeys?: string }): Promise<void>;
  stop(id: string, options: { timeout?: number; signal?: string; byUser: boolean }): Promise<void>;
  kill(id: string, signal: string): Promise<void>;
  remove(id: string, options: { force: boolean; volumes: boolean }): Promise<void>;
  /** The next exit after the call, or the last one where it does not run ("not-running"), or its removal. */
  wait(id: string, condition: "not-running" | "next-exit" | "removed", signal: AbortSignal): Promise<{ status: number; error?: string }>;
  /** A directory descriptor of the container's root file system, for files from outside: /proc/PID/root while it runs, a detached mount else. Close with `close`. */
  openRoot(id: string): Promise<{ fd: number; close(): Promise<void> }>;
}

/** Streams of one process: attach, logs and the log driver sit here. Owned by engine/io. */
export interface ProcessIo {
  /** Paths of the FIFOs for the task service; "" where there is none. */
  stdin: string;
  stdout: string;
  stderr: string;
  terminal: boolean;
  /** Resolves when the process' output has ended and everything is in the log. */
  drained: Promise<void>;
  /** Closes the write end of stdin; the caller then tells the task service CloseIO. */
  closeStdin(): void;
  /** Ends what is left and unlinks the FIFOs. */
  release(): Promise<void>;
  /** The process runs: what waited for it (the end of stdin) is told to it. Call after the task's or the exec's start. */
  started(): void;
}

export interface IoFace {
  /** Makes the FIFOs of a container's init below EXEC_ROOT and connects its log driver; call before the task is created. */
  open(record: ContainerRecord): Promise<ProcessIo>;
  /** After an engine restart: connects to the FIFOs of a running container again; output written meanwhile is read and logged. */
  reopen(record: ContainerRecord): Promise<ProcessIo>;
  get(id: string): ProcessIo | undefined;
  /** The container's streams for attach, exec and logs; they are there from the first use, before the first start too. */
  streams(id: string): ContainerStreams;
  /** FIFOs of an exec below its container's; output goes to `streams`. No log. "" in `use` where a stream is not wanted. */
  openExec(id: string, execId: string, streams: ContainerStreams, use: { stdin: boolean; output: boolean; terminal: boolean }): ProcessIo;
  /** Starts and ends the health monitor of a container (Config.Healthcheck); it writes State.Health. */
  startHealth(id: string): void;
  stopHealth(id: string): void;
  /** Refuses options that the log driver does not have: InvalidArgument. Fills in the engine's defaults. */
  checkLogConfig(hostConfig: HostConfig): void;
  /** Removes the logs. */
  removeLogs(record: ContainerRecord): Promise<void>;
}

/** An image that is there. */
export interface ImageRecord {
  /** sha256:… of the image's config. */
  id: string;
  /** Names with tag ("docker.io/library/busybox:latest"), and names with digest. */
  names: string[];
  /** The image config's `config` object, as the API shows it. */
  config: ImageConfig;
  os: string;
  architecture: string;
  /** Chain id of the topmost layer: the committed snapshot to prepare from; "" for an image without layers. */
  chainId: string;
  created: string | undefined;
}

export interface ImagesFace {
  /** By id, id prefix, name with or without tag, or name@digest. NotFound: "No such image: X". Unpacks where the snapshot is missing. */
  resolve(ref: string): Promise<ImageRecord>;
  /** The short form that `ps` shows: "busybox", "busybox:1.36", "host:5000/a/b:c". */
  familiar(ref: string): string;
  /** Bytes of the snapshots below a chain, for ps -s and df. */
  layerSize(chainId: string): Promise<number>;
  diskUsage(): Promise<{ LayersSize: number; Images: unknown[] }>;
}

/** A container's place in the network, made before its task. */
export interface NetworkAttachment {
  /** Path for the runtime spec's network namespace; undefined where the container shares the host's or another's by `join`. */
  netns: string | undefined;
  /** "host": the host's own; "container": the path of another container's namespace is in `netns`. */
  mode: "bridge" | "none" | "host" | "container";
  /** Files to bind at /etc/hosts, /etc/resolv.conf and /etc/hostname; undefined where the container shares another's (then those are given). */
  hostsPath: string;
  resolvConfPath: string;
  hostnamePath: string;
}

export interface NetworksFace {
  /** Refuses impossible networking at create time (unknown network mode combinations, bad addresses, bad port specs) and fills record.networks. */
  check(record: ContainerRecord, endpoints: Record<string, EndpointSettings> | undefined): Promise<void>;
  /** Makes the namespace, addresses, routes, published ports and files; updates record.networks and record.networkSettings in place. All or nothing. */
  attach(record: ContainerRecord): Promise<NetworkAttachment>;
  /** The task runs with this pid: the namespace now lives by the process; what was only held for the start is let go. */
  started(id: string, pid: number): Promise<void>;
  /** Takes ports, elements, addresses and links away; harmless where there are none. Clears what was assigned in the record. */
  detach(record: ContainerRecord): Promise<void>;
  /** At engine start: keeps what belongs to these running containers, removes everything else that is ours and orphaned. */
  restore(running: ContainerRecord[]): Promise<void>;
  /** Renames in names and aliases. */
  renamed(record: ContainerRecord, oldName: string): Promise<void>;
  diskUsage?(): Promise<unknown>;
}

export interface VolumesFace {
  /** Turns binds, mounts, anonymous volumes of the image, and volumes-from into mount points, creating volumes; InvalidArgument for bad ones. At create time. */
  resolve(record: ContainerRecord, image: ImageRecord): Promise<MountPoint[]>;
  /** Copies the image's content at a volume's destination into a volume that is new and empty (nocopy not set). Before the first start. */
  populate(record: ContainerRecord): Promise<void>;
  /** Host directory of a mount point; makes missing bind sources of `-v` (not of --mount). At start time. */
  source(mount: MountPoint, record: ContainerRecord): Promise<string>;
  /** The container stopped: mounts that no other one uses are taken away. */
  stopped(record: ContainerRecord): void;
  /** At the engine's start: takes away what containers that run no more left mounted. */
  sweep(running: ReadonlySet<string>): void;
  /** The container is gone: forget its use; with `removeAnonymous`, remove its anonymous volumes. */
  release(record: ContainerRecord, removeAnonymous: boolean): Promise<void>;
  /** Volume names in use, by container ids. */
  diskUsage(): Promise<{ Volumes: unknown[] }>;
}

export interface EventsFace {
  /** Publishes to everyone who listens at /events, and to the journal that `since` reads. Attributes as Docker's (image, name, labels, exitCode, signal, …). */
  publish(type: NonNullable<EventMessage["Type"]>, action: string, id: string, attributes: Record<string, string>): void;
  /** The usual attributes of a container event: image, name, and its labels. */
  containerAttributes(record: ContainerRecord): Record<string, string>;
  /** Calls back with each event from now on, until the answer is called. */
  listen(listener: (event: StoredEvent) => void): () => void;
  /** How many listen now. */
  listeners(): number;
  /** What the journal still has, oldest first. */
  journal(): readonly StoredEvent[];
}

export interface Engine {
  config: EngineConfig;
  /** The engine's database (WAL); each resource makes its own tables. */
  db: DatabaseSync;
  manager: Manager;
  containers: ContainersFace;
  io: IoFace;
  images: ImagesFace;
  networks: NetworksFace;
  volumes: VolumesFace;
  events: EventsFace;
  /** Unique id of this engine (`docker info` ID), stable over restarts. */
  id: string;
  startedAt: Date;
  /** Aborts when the engine shuts down. */
  signal: AbortSignal;
  log(level: "debug" | "info" | "warn" | "error", message: string, fields?: Record<string, unknown>): void;
}
