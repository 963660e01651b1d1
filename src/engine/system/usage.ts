// GET /system/df: what images, containers, volumes (and the build cache) hold on disk, and how much of it could go.

import { stat } from "node:fs/promises";
import type { ContainerSummary, Volume } from "../../api/types.ts";
import { invalidArgument } from "../../lib/errors.ts";
import { statusText } from "../containers/status.ts";
import type { ContainerRecord, Engine } from "../context.ts";
import { logFiles } from "../logs/file.ts";
import { logSettings } from "../logs/options.ts";
import type { Call } from "../route.ts";

const TYPES = ["container", "image", "volume", "build-cache"];

interface ImageItem {
  Size?: number;
  SharedSize?: number;
  Containers?: number;
}

/** Bytes of a container's logs: they are not in its layer, and the commonest reason why a disk is full. */
async function logSize(record: ContainerRecord): Promise<number> {
  const settings = logSettings(record);
  if (!settings) return 0;
  const sizes = await Promise.all(logFiles(settings.path).map(async (file) => (await stat(file).catch(() => undefined))?.size ?? 0));
  return sizes.reduce((sum, size) => sum + size, 0);
}

async function containerItem(engine: Engine, record: ContainerRecord): Promise<ContainerSummary> {
  const { manager, images } = engine;
  const [usage, below, logs] = await Promise.all([
    manager.snapshots.usage({ snapshotter: manager.snapshotter, key: record.snapshotKey }).catch(() => undefined),
    images.layerSize(record.chainId).catch(() => 0),
    logSize(record),
  ]);
  const SizeRw = Number(usage?.size ?? 0n) + logs;
  const { state } = record;
  return {
    Id: record.id,
    Names: [`/${record.name}`],
    Image: record.config.Image ?? record.image.ref,
    ImageID: record.image.id,
    Command: [record.path, ...record.args].join(" "),
    Created: Math.floor(Date.parse(record.created) / 1000),
    Ports: [],
    SizeRw,
    SizeRootFs: SizeRw + below,
    Labels: record.config.Labels ?? {},
    State: state.Status ?? "created",
    Status: statusText(state),
    HostConfig: { NetworkMode: record.hostConfig.NetworkMode ?? "default" },
    NetworkSettings: null as unknown as NonNullable<ContainerSummary["NetworkSettings"]>,
    Mounts: record.mounts,
  };
}

const sum = <T>(items: T[], of: (item: T) => number) => items.reduce((total, item) => total + of(item), 0);

export async function diskUsage(engine: Engine, call: Call): Promise<Record<string, unknown>> {
  const asked = call.query.getAll("type");
  for (const type of asked) if (!TYPES.includes(type)) throw invalidArgument(`unknown object type: ${type}`);
  const wants = (type: string) => asked.length === 0 || asked.includes(type);
  const [images, containers, volumes] = await Promise.all([
    wants("image") ? engine.images.diskUsage() : undefined,
    wants("container") ? Promise.all(engine.containers.list().map((record) => containerItem(engine, record))) : undefined,
    wants("volume") ? engine.volumes.diskUsage() : undefined,
  ]);
  const cache = wants("build-cache") ? await (await import("../build/index.ts")).buildCache(engine) : undefined;
  const cacheSize = sum(cache ?? [], ({ Size }) => Size ?? 0);
  const imageItems = (images?.Images ?? []) as ImageItem[];
  const volumeItems = (volumes?.Volumes ?? []) as Volume[];
  if (call.version < 52) {
    return {
      LayersSize: images?.LayersSize ?? 0,
      Images: images ? imageItems : null,
      Containers: containers ?? null,
      Volumes: volumes ? volumeItems : null,
      BuildCache: cache ?? null,
      BuilderSize: cacheSize,
    };
  }
  const verbose = call.query.get("verbose") !== null && !["0", "false", ""].includes(call.query.get("verbose")!);
  const items = (list: unknown[]) => (verbose && list.length > 0 ? { Items: list } : {});
  const used = imageItems.filter((image) => (image.Containers ?? 0) > 0);
  const busy = (containers ?? []).filter(({ State }) => ["running", "paused", "restarting"].includes(State ?? ""));
  const held = volumeItems.filter((volume) => (volume.UsageData?.RefCount ?? 0) > 0);
  const volumeSize = (volume: Volume) => volume.UsageData?.Size ?? 0;
  return {
    ...(images
      ? {
          ImageUsage: {
            ActiveCount: used.length,
            TotalCount: imageItems.length,
            TotalSize: images.LayersSize,
            Reclaimable: Math.max(0, images.LayersSize - sum(used, (image) => (image.Size ?? 0) - Math.max(0, image.SharedSize ?? 0))),
            ...items(imageItems),
          },
        }
      : {}),
    ...(containers
      ? {
          ContainerUsage: {
            ActiveCount: busy.length,
            TotalCount: containers.length,
            TotalSize: sum(containers, (each) => each.SizeRw ?? 0),
            Reclaimable: sum(containers, (each) => (busy.includes(each) ? 0 : (each.SizeRw ?? 0))),
            ...items(containers),
          },
        }
      : {}),
    ...(volumes
      ? {
          VolumeUsage: {
            ActiveCount: held.length,
            TotalCount: volumeItems.length,
            TotalSize: sum(volumeItems, volumeSize),
            Reclaimable: sum(volumeItems, (volume) => (held.includes(volume) ? 0 : volumeSize(volume))),
            ...items(volumeItems),
          },
        }
      : {}),
    ...(cache
      ? { BuildCacheUsage: { ActiveCount: 0, TotalCount: cache.length, TotalSize: cacheSize, Reclaimable: cacheSize, ...items(cache) } }
      : {}),
  };
}
