// What the builder needs of the engine around it. It imports nothing of the engine: whoever makes a builder gives these.
import type { DatabaseSync } from "node:sqlite";
import type { Readable } from "node:stream";
import type { ImageConfig } from "../api/types.ts";
import type { ManagerClients } from "../containerd/index.ts";
import type { Repository } from "../distribution/index.ts";
import type { HostIP, Ulimit } from "../gen/pb_pb.ts";
import type { Descriptor, HistoryEntry, Platform } from "../oci/index.ts";

export interface Layer {
  descriptor: Descriptor;
  diffId: string;
}

/** An image that is here, or where it is lazy, one that is known; fetchImage() then brings its layers. */
export interface BaseImage {
  /** Digest of its config. */
  id: string;
  /** Digest of what its name leads to: an index or a manifest. Absent: not known. */
  digest?: string;
  /** The bytes of its config, where they are not in the content store. */
  raw?: Uint8Array;
  /** Its layers are still to be fetched. */
  lazy?: boolean;
  /** What a source policy has put in place of the name that was asked for. */
  name?: string;
  config: ImageConfig;
  layers: Layer[];
  history: HistoryEntry[];
  platform: Platform;
  author: string;
}

/** Keeps what is made from being collected as garbage while it lives. */
export interface Lease {
  headers: Record<string, string>;
}

/** A command of a RUN step. */
export interface StepRequest {
  /** Names the container. */
  id: string;
  args: string[];
  env: string[];
  cwd: string;
  user: string;
  /** "default", "none", "host", or a network's name. */
  network: string;
  insecure: boolean;
  /** "" is the host's choice. */
  hostname?: string;
  extraHosts?: readonly Pick<HostIP, "Host" | "IP">[];
  ulimits?: readonly Pick<Ulimit, "Name" | "Soft" | "Hard">[];
  /** "" is the host's choice. */
  cgroupParent?: string;
  /** Of the metadata of a vertex: limits in bytes, shares, microseconds. */
  resources?: {
    memory?: number;
    memorySwap?: number;
    cpuShares?: number;
    cpuPeriod?: number;
    cpuQuota?: number;
    cpusetCpus?: string;
    cpusetMems?: string;
  };
  terminal?: boolean;
  /** Mounts of the snapshot that is the root. */
  rootfs: readonly { type: string; source: string; options: readonly string[] }[];
  mounts: { type: string; destination: string; source: string; options: string[] }[];
}

export interface PreparedStep {
  /** The OCI runtime specification. */
  spec: { mounts?: { destination: string }[] } & object;
  runtime: { name: string; options?: { typeUrl: string; value: Uint8Array } };
  started(pid: number): Promise<void>;
  /** Lets go of the network and its files. */
  close(): Promise<void>;
}

export interface BuilderHost {
  manager: ManagerClients;
  db: DatabaseSync;
  /** For contexts and mount caches, which may be large. */
  dataDir: string;
  /** For FIFOs. */
  runDir: string;
  withLease<T>(work: (lease: Lease) => Promise<T>): Promise<T>;
  /** Unpacks a tar (plain, gzip or zstd) below a directory; names can't lead out of it. */
  unpack(directory: number, tar: Readable, owner: { uid: number; gid: number } | undefined): Promise<void>;
  log(level: "debug" | "info" | "warn" | "error", message: string): void;
  /** Whether the cache shrinks by itself, and how many bytes it may have in any case (else a share of the disk). */
  collect?: { enabled: boolean; reservedSpace?: number | undefined };
}

/** Which files of a client's directory a build wants, in LLB's words (attributes local.* of a source). */
export interface LocalRequest {
  /** "context", "dockerfile", or as the client named it. */
  name: string;
  includePatterns: string[];
  excludePatterns: string[];
  followPaths: string[];
  /** Directories with the same hint are likely to hold the same files: what was sent for one may serve the next. */
  sharedKeyHint: string;
  /** "metadata" or "none": how the client may tell that a file is unchanged. */
  differ: string;
  /** Of the vertex that wants it, for progress. */
  vertex: string;
}

/** A directory on this host that holds still until it is released. */
export interface LocalDirectory {
  directory: string;
  release(): Promise<void>;
}

export interface ImageRequest {
  ref: string;
  platform: Platform | undefined;
  /** "default": from here where it is here; "pull": ask the registry whether it is fresh; "local": only from here. */
  mode: "default" | "pull" | "local";
}

/** How far something is, in bytes; the same id again replaces what was said of it. */
export interface Status {
  id: string;
  name: string;
  current: number;
  /** 0: not known. */
  total: number;
  completed: boolean;
}

/**
 * What belongs to one build: the client's side (files, secrets, an agent, credentials) and what the engine does for it. A function that is absent is one that
 * this door does not have; what needs it says so.
 */
export interface BuildHost {
  /** Looks an image up, pulling it where it is not there or must be fresh. NotFound where there is none. */
  resolveImage(ref: string, platform: string | undefined, mode?: ImageRequest["mode"]): Promise<BaseImage>;
  /** Makes a lazy image's layers be here and unpacked; a second call is cheap. Absent: no image is lazy. */
  fetchImage?(image: BaseImage, status: (status: Status) => void, signal: AbortSignal): Promise<void>;
  /** Network, user, devices, limits: all that a command needs to run. */
  prepareStep(request: StepRequest): Promise<PreparedStep>;
  /** The client's files. */
  localSource?(request: LocalRequest, status: (status: Status) => void, signal: AbortSignal): Promise<LocalDirectory>;
  /** An OCI layout that the client has: oci-layout:// sources and cache imports. Answers a directory in that layout that has at least what `digest` leads to. */
  ociLayout?(store: string, digest: string, signal: AbortSignal): Promise<LocalDirectory>;
  /** What the client has under http://buildkit-session/…: a context from its standard input. */
  upload?(url: string, signal: AbortSignal): AsyncIterable<Uint8Array>;
  /** A secret's bytes; undefined where the client has none of that name. */
  secret?(id: string): Promise<Uint8Array | undefined>;
  /** Path of a unix socket that leads to the client's ssh agent; undefined where the client has none of that name ("default"). */
  ssh?(id: string): Promise<{ path: string; release(): Promise<void> } | undefined>;
  /** A registry's repository, with the client's credentials: for cache imports and exports. */
  repository?(ref: string, options: { insecure: boolean; push: boolean }): Promise<Repository>;
}
