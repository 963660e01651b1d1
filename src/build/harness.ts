// For the tests: a builder on a manager of its own, with a host that has files, secrets and images at hand, and steps without a network; and words for graphs.
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { PassThrough, type Readable, type Writable } from "node:stream";
import { create } from "@bufbuild/protobuf";
import { createManager, inMemoryClients } from "../containerd/index.ts";
import { DefinitionSchema, NetMode } from "../gen/pb_pb.ts";
import { notFound } from "../lib/errors.ts";
import { chainIds, digestOf, hostPlatform } from "../oci/index.ts";
import { type Builder, createBuilder } from "./builder.ts";
import { writeBytes } from "./content.ts";
import { createGraph, type Edge, edge, type Graph, graphToDefinition } from "./graph/llb.ts";
import { execOp, type MountInit, sourceOp } from "./harness-operations.ts";
import type { BaseImage, BuilderHost, BuildHost, StepRequest } from "./host.ts";
import type { BuildEvent } from "./progress.ts";
import type { BuildSession, Ref, Result, SessionOptions } from "./session.ts";

export interface TestBuilder extends AsyncDisposable {
  dir: string;
  builder: Builder;
  host: BuilderHost;
  image: BaseImage;
  /** Requests of steps, in order. */
  steps: StepRequest[];
  /** Opens a session; its events are collected. */
  open(options?: Partial<SessionOptions>, host?: Partial<BuildHost>): Promise<BuildSession & { events: BuildEvent[] }>;
  /** Makes a directory of these files, by name; a context for localSource. */
  files(files: Record<string, string>): string;
}

/** A base image of one layer. */
export async function startBuilder(layer: Buffer): Promise<TestBuilder> {
  const dir = mkdtempSync(join(tmpdir(), "jubako-build-"));
  const manager = await createManager({ root: join(dir, "root"), state: join(dir, "state") });
  const clients = inMemoryClients(manager, "test");
  const db = new DatabaseSync(":memory:");
  let leases = 0;
  const host: BuilderHost = {
    manager: clients,
    db,
    dataDir: join(dir, "build"),
    runDir: join(dir, "run"),
    async withLease(work) {
      const id = `lease-${++leases}`;
      await clients.leases.create({ id });
      try {
        return await work({ headers: { "containerd-lease": id } });
      } finally {
        await clients.leases.delete({ id });
      }
    },
    async unpack(directory: number, tar: Readable) {
      const { spawn } = await import("node:child_process");
      const child = spawn("tar", ["-x", "-C", `/proc/${process.pid}/fd/${directory}`], { stdio: ["pipe", "ignore", "inherit"] });
      tar.pipe(child.stdin!);
      await new Promise((resolve) => child.once("close", resolve));
    },
    log: () => {},
  };
  const diffId = digestOf(layer);
  const mediaType = "application/vnd.oci.image.layer.v1.tar";
  const labels = { "containerd.io/gc.root": "test" };
  const descriptor = await host.withLease((lease) => writeBytes(clients, layer, { mediaType, labels, lease }));
  const image: BaseImage = {
    id: digestOf("image"),
    digest: digestOf("manifest"),
    config: { Env: ["PATH=/bin"] },
    layers: [{ descriptor, diffId }],
    history: [{ created_by: "base" }],
    platform: hostPlatform(),
    author: "",
  };
  const [top] = chainIds([diffId]);
  await clients.snapshots.prepare({ snapshotter: "overlayfs", key: "base", labels });
  const { mounts } = await clients.snapshots.mounts({ snapshotter: "overlayfs", key: "base" });
  await clients.diff.apply({ diff: { mediaType, digest: descriptor.digest, size: BigInt(descriptor.size) }, mounts });
  await clients.snapshots.commit({ snapshotter: "overlayfs", key: "base", name: top!, labels });
  const steps: StepRequest[] = [];
  const builder = createBuilder(host);
  return {
    dir,
    builder,
    host,
    image,
    steps,
    async open(options = {}, own = {}) {
      const events: BuildEvent[] = [];
      const session = await builder.open(
        {
          onEvent: (event) => void events.push(event),
          signal: new AbortController().signal,
          noCache: false,
          entitlements: new Set(),
          ...options,
        },
        {
          async resolveImage(ref) {
            if (!ref.startsWith("base")) throw notFound(`no image ${ref}`);
            return image;
          },
          async prepareStep(request) {
            steps.push(request);
            return { spec: specOf(request), runtime: { name: "io.containerd.jubako.v1" }, started: async () => {}, close: async () => {} };
          },
          ...own,
        },
      );
      return Object.assign(session, { events });
    },
    files(list) {
      const place = mkdtempSync(join(dir, "context-"));
      for (const [name, text] of Object.entries(list)) {
        mkdirSync(dirname(join(place, name)), { recursive: true });
        writeFileSync(join(place, name), text);
      }
      return place;
    },
    async [Symbol.asyncDispose]() {
      await manager.close();
      db.close();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

function specOf(request: StepRequest) {
  const capabilities = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_MKNOD", "CAP_SETUID", "CAP_SETGID"];
  return {
    ociVersion: "1.2.0",
    process: {
      user: { uid: Number(request.user) || 0, gid: 0 },
      args: request.args,
      env: request.env,
      cwd: request.cwd,
      capabilities: { bounding: capabilities, effective: capabilities, permitted: capabilities },
    },
    root: { path: "rootfs" },
    mounts: [
      { destination: "/proc", type: "proc", source: "proc" },
      { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["mode=755"] },
      ...request.mounts,
    ],
    linux: {
      namespaces: ["mount", "pid", "ipc", "uts", "network"].map((type) => ({ type })),
      cgroupsPath: `/jubako-build-test/${request.id}`,
    },
  };
}

/** Loads what `make` says of a graph. */
export function load(session: BuildSession, make: (graph: Graph) => Edge | undefined): Ref {
  const graph = createGraph();
  const definition = graphToDefinition(graph, make(graph));
  return session.load(create(DefinitionSchema, definition));
}

export const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString("utf8");
export const base = (graph: Graph): Edge => edge(graph.add(sourceOp("docker-image://base")));
/** A command upon a tree; output 0 is its root. */
export const sh = (
  graph: Graph,
  script: string,
  mounts: MountInit[] = [],
  more: object = {},
  source: Edge | undefined = base(graph),
): Edge =>
  edge(
    graph.add(
      execOp({ meta: { args: ["/bin/sh", "-c", script], env: ["PATH=/bin"], cwd: "/" }, network: NetMode.NONE, ...more }, [
        { dest: "/", source, output: 0 },
        ...mounts,
      ]),
    ),
  );
export const mkfile = (path: string, data: string, mode = 0o644) => ({ mkfile: { path, mode, data: Buffer.from(data) } });
export const resultOf = (ref: Result["ref"], config: object = {}): Result => ({
  ref,
  refs: new Map(),
  metadata: new Map([["containerimage.config", Buffer.from(JSON.stringify({ architecture: "amd64", os: "linux", config, history: [] }))]]),
  attestations: new Map(),
});
export const contextHost = (directory: string): Partial<BuildHost> => ({
  localSource: async () => ({ directory, release: async () => {} }),
});
export const read = async (session: BuildSession, make: (graph: Graph) => Edge, path: string): Promise<string> =>
  text(await load(session, make).readFile(path));

/** Where an export's bytes go. */
export function sink() {
  const stream = new PassThrough();
  const chunks: Buffer[] = [];
  stream.on("data", (chunk: Buffer) => chunks.push(chunk));
  return { stream: async (): Promise<Writable> => stream, bytes: () => Buffer.concat(chunks) };
}

/** What a builder has that should be gone when no session is open. */
export async function leftOf(t: TestBuilder): Promise<string[]> {
  const { snapshots } = t.host.manager;
  const names: string[] = [];
  for await (const { info } of snapshots.list({ snapshotter: "overlayfs" })) names.push(...info.map(({ name }) => name));
  const namesIn = (directory: string) => (existsSync(directory) ? readdirSync(directory) : []);
  return [
    ...names.filter((name) => name.startsWith("build-")),
    ...namesIn(t.host.dataDir).filter((name) => name !== "mounts"),
    ...namesIn(t.host.runDir),
    ...readFileSync("/proc/self/mounts", "utf8")
      .split("\n")
      .filter((line) => line.includes(t.dir)),
  ];
}
