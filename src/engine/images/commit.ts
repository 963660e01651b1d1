// POST /commit: what a container changed becomes a layer on top of its image.
import type { ContainerConfig } from "../../api/types.ts";
import { failedPrecondition } from "../../lib/errors.ts";
import { chainId, type Descriptor, familiarReference, MEDIA, type Reference } from "../../oci/index.ts";
import type { ContainerRecord } from "../context.ts";
import type { Content } from "./catalogue.ts";
import { applyChanges, type Config } from "./changes.ts";
import { isMissing, type Lease, withLease } from "./content.ts";
import { type Core, keepDangling, publish, tagImage } from "./core.ts";
import { makeImage } from "./make.ts";
import { unpackLayers } from "./unpack.ts";

export interface CommitOptions {
  container: string;
  reference: Reference | undefined;
  comment: string;
  author: string;
  pause: boolean;
  changes: readonly string[];
  /** What the request's body says; wins over the container's own. */
  config: Config;
  signal: AbortSignal;
}

const UNIONS = ["ExposedPorts", "Volumes", "Labels"] as const;
const SIMPLE = ["User", "WorkingDir", "StopSignal", "Shell", "OnBuild", "Healthcheck", "ArgsEscaped"] as const;

const filled = (value: unknown): boolean =>
  value !== undefined && value !== null && value !== "" && value !== false && !(Array.isArray(value) && value.length === 0);

/** The config of the new image: `own` where it says something, else what the container ran with. */
export function mergeConfig(own: Config, container: ContainerConfig): Config {
  const from = container as Config;
  const out: Config = {};
  for (const key of SIMPLE) {
    const value = filled(own[key]) ? own[key] : from[key];
    if (filled(value)) out[key] = value;
  }
  for (const key of UNIONS) {
    const value = { ...(from[key] as object | null | undefined), ...(own[key] as object | null | undefined) };
    if (Object.keys(value).length) out[key] = value;
  }
  const env = [...((own.Env as string[] | undefined) ?? [])];
  const names = new Set(env.map((entry) => entry.split("=", 1)[0]));
  for (const entry of (from.Env as string[] | null | undefined) ?? []) if (!names.has(entry.split("=", 1)[0])) env.push(entry);
  if (env.length) out.Env = env;
  // A new entrypoint comes with its own command, or none.
  const entrypoint = filled(own.Entrypoint) ? own.Entrypoint : from.Entrypoint;
  const cmd = filled(own.Cmd) || filled(own.Entrypoint) ? own.Cmd : from.Cmd;
  if (filled(entrypoint)) out.Entrypoint = entrypoint;
  if (filled(cmd)) out.Cmd = cmd;
  return out;
}

/** Runs `work` while the container's processes stand still. */
async function paused<T>(core: Core, record: ContainerRecord, wanted: boolean, work: () => Promise<T>): Promise<T> {
  const { tasks } = core.engine.manager;
  if (!wanted || !record.state.Running || record.state.Paused) return work();
  await tasks.pause({ containerId: record.id });
  try {
    return await work();
  } finally {
    await tasks.resume({ containerId: record.id }).catch((error: unknown) => {
      if (!isMissing(error)) throw error;
    });
  }
}

/** The difference between the container's snapshot and its parent, as a layer in the content store, unpacked upon the image `below`. */
async function diffLayer(
  core: Core,
  record: ContainerRecord,
  below: Content,
  lease: Lease,
  signal: AbortSignal,
): Promise<{ layer: Descriptor; diffId: string }> {
  const { manager } = core.engine;
  const { snapshots, diff, content, snapshotter, layers: receiver } = manager;
  const { info } = await snapshots.stat({ snapshotter, key: record.snapshotKey });
  const parent = info?.parent ?? "";
  const view = `commit-${record.id}-${Date.now()}`;
  const left = parent === "" ? [] : (await snapshots.view({ snapshotter, key: view, parent }, { headers: lease.headers })).mounts;
  // plain: it is gzipped when, and if, it is pushed
  const mediaType = MEDIA.ociLayer;
  try {
    const right = (await snapshots.mounts({ snapshotter, key: record.snapshotKey })).mounts;
    if (receiver) {
      const open = () => receiver.changes(left, right, signal);
      const lowest = below.chain.length === 0;
      const received = await receiver.receive({
        descriptor: undefined,
        diffId: undefined,
        lowest,
        labels: {},
        lease: lease.id,
        signal,
        open,
      });
      received.commit(chainId([...below.config.diffIds, received.diffId]), below.chainId);
      return { layer: { mediaType, digest: received.digest, size: received.size }, diffId: received.diffId };
    }
    const made = await diff.diff({ left, right, mediaType, ref: view }, { headers: lease.headers, signal });
    if (!made.diff) throw failedPrecondition("the manager made no layer");
    const { digest, size } = made.diff;
    const diffId = (await content.info({ digest })).info?.labels["containerd.io/uncompressed"];
    if (!diffId) throw failedPrecondition(`the layer ${digest} does not say what it is when uncompressed`);
    const layer = { mediaType: made.diff.mediaType, digest, size: Number(size) };
    await unpackLayers(manager, [...below.manifest.layers, layer], [...below.config.diffIds, diffId], lease, {}, signal);
    return { layer, diffId };
  } finally {
    if (parent !== "") await snapshots.remove({ snapshotter, key: view });
  }
}

/** Answers the new image's id. */
export async function commit(core: Core, options: CommitOptions): Promise<string> {
  const record = core.engine.containers.get(options.container);
  const { content } = await core.catalogue.find(record.image.id);
  // without a config of the request, changes are made to the container's own environment, in its order
  const base = Object.keys(options.config).length > 0 ? options.config : { Env: record.config.Env ?? [] };
  const config = mergeConfig(applyChanges(base, options.changes), record.config);
  const id = await withLease(core.engine.manager, async (lease) => {
    const { layer, diffId } = await paused(core, record, options.pause, () => diffLayer(core, record, content, lease, options.signal));
    const layers = [...content.manifest.layers, layer];
    const diffIds = [...content.config.diffIds, diffId];
    const created = new Date().toISOString();
    const step = {
      created,
      created_by: [record.path, ...record.args].join(" "),
      ...(options.author ? { author: options.author } : {}),
      ...(options.comment ? { comment: options.comment } : {}),
    };
    const { os, architecture, variant } = content.config;
    const image = await makeImage(
      core,
      {
        config,
        diffIds,
        layers,
        history: [...content.config.history, step],
        author: options.author,
        comment: options.comment,
        platform: { os, architecture, ...(variant ? { variant } : {}) },
        extra: { container: record.id },
      },
      lease,
    );
    if (options.reference) await tagImage(core, options.reference, image.target, lease);
    else await keepDangling(core, image.target);
    return image.id;
  });
  if (options.reference) publish(core, "tag", id, familiarReference(options.reference));
  core.engine.events.publish("container", "commit", record.id, {
    ...core.engine.events.containerAttributes(record),
    comment: options.comment,
    imageID: id,
    imageRef: options.reference ? familiarReference(options.reference) : "",
  });
  return id;
}
