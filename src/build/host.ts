// What the builder needs of the engine around it. It imports nothing of the engine: whoever makes a builder gives these.
import type { DatabaseSync } from "node:sqlite";
import type { Readable } from "node:stream";
import type { ImageConfig } from "../api/types.ts";
import type { ManagerClients } from "../containerd/index.ts";
import type { Descriptor, HistoryEntry, Platform } from "../oci/index.ts";

export interface Layer {
  descriptor: Descriptor;
  diffId: string;
}

/** An image that is here and unpacked. */
export interface BaseImage {
  /** Digest of its config. */
  id: string;
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
}

/** What belongs to one build. */
export interface BuildHost {
  /** Looks an image up, pulling it where it is not there or must be fresh. */
  resolveImage(ref: string, platform: string | undefined): Promise<BaseImage>;
  /** Network, user, devices, limits: all that a command needs to run. */
  prepareStep(request: StepRequest): Promise<PreparedStep>;
}
