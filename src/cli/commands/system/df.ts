import type { ContainerSummary, ImageSummary, Volume } from "../../../api/types.ts";
import type { DiskUsage } from "../../../client/index.ts";
import { command, none } from "../../command.ts";
import { bool, string } from "../../flags.ts";
import { contextOf, formatList, type ListFormat } from "../../formatter.ts";
import { compile, json } from "../../template/index.ts";
import { ago, humanSize, shortId } from "../../units.ts";
import { imageList, imageRows } from "../images.ts";
import { containerList, FORMAT_HELP } from "../ps.ts";
import { volumeList } from "../volume/ls.ts";

export default command({
  use: "[OPTIONS]",
  short: "Show docker disk usage",
  args: none,
  flags: {
    format: string("", FORMAT_HELP()),
    verbose: bool("v", "Show detailed information on space usage"),
  },
  async run(cli, flags) {
    const client = await cli.client();
    const usage = await client.system.df();
    if (flags.verbose) cli.out(verbose(usage, flags.format));
    else cli.out(formatList(summaryList, summarise(usage), { format: flags.format }));
  },
});

interface Summary {
  type: string;
  total: number;
  active: number;
  size: number;
  reclaimable: string;
}

const summaryList: ListFormat<Summary> = {
  type: "*formatter.diskUsageImagesContext",
  complaint: "template parsing error",
  table: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
  raw: "type: {{.Type}}\ntotal: {{.TotalCount}}\nactive: {{.Active}}\nsize: {{.Size}}\nreclaimable: {{.Reclaimable}}\n",
  columns: {
    Type: { header: "TYPE", value: (s) => s.type },
    TotalCount: { header: "TOTAL", value: (s) => String(s.total) },
    Active: { header: "ACTIVE", value: (s) => String(s.active) },
    Size: { header: "SIZE", value: (s) => humanSize(s.size) },
    Reclaimable: { header: "RECLAIMABLE", value: (s) => s.reclaimable },
  },
};

const share = (reclaimable: number, total: number) =>
  total > 0 ? `${humanSize(reclaimable)} (${Math.trunc((reclaimable * 100) / total)}%)` : humanSize(reclaimable);

type CacheRecord = {
  ID?: string;
  Type?: string;
  Size?: number;
  InUse?: boolean;
  Shared?: boolean;
  CreatedAt?: string;
  LastUsedAt?: string | null;
  UsageCount?: number;
};

function summarise(usage: DiskUsage): Summary[] {
  const images: ImageSummary[] = usage.Images ?? [];
  const containers: ContainerSummary[] = usage.Containers ?? [];
  const volumes: Volume[] = usage.Volumes ?? [];
  const cache = (usage.BuildCache ?? []) as CacheRecord[];
  const layers = usage.LayersSize ?? 0;
  let used = 0;
  for (const image of images) {
    if (image.Containers === 0 || image.Size === -1 || image.SharedSize === -1) continue;
    used += image.Size - image.SharedSize;
  }
  const reclaimImages = layers - used;
  const running = containers.filter((c) => ["running", "paused", "restarting"].includes(c.State ?? ""));
  const sum = (list: readonly ContainerSummary[]) => list.reduce((n, c) => n + (c.SizeRw ?? 0), 0);
  const containerSize = sum(containers);
  const reclaimContainers = containerSize - sum(running);
  let volumeSize = 0;
  let reclaimVolumes = 0;
  for (const { UsageData } of volumes) {
    if (!UsageData || UsageData.Size === -1) continue;
    if (UsageData.RefCount === 0) reclaimVolumes += UsageData.Size;
    volumeSize += UsageData.Size;
  }
  const cacheSize = cache.reduce((n, record) => n + (record.Shared ? 0 : (record.Size ?? 0)), 0);
  const cacheUsed = cache.reduce((n, record) => n + (record.Shared || !record.InUse ? 0 : (record.Size ?? 0)), 0);
  return [
    {
      type: "Images",
      total: images.length,
      active: images.filter((i) => i.Containers > 0).length,
      size: layers,
      reclaimable: share(reclaimImages, layers),
    },
    {
      type: "Containers",
      total: containers.length,
      active: running.length,
      size: containerSize,
      reclaimable: share(reclaimContainers, containerSize),
    },
    {
      type: "Local Volumes",
      total: volumes.length,
      active: volumes.filter((v) => (v.UsageData?.RefCount ?? 0) > 0).length,
      size: volumeSize,
      reclaimable: share(reclaimVolumes, volumeSize),
    },
    {
      type: "Build Cache",
      total: cache.length,
      active: cache.filter((record) => record.InUse).length,
      size: cacheSize,
      reclaimable: humanSize(cacheSize - cacheUsed),
    },
  ];
}

const cacheList: ListFormat<CacheRecord> = {
  type: "*formatter.buildCacheContext",
  table: "{{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}",
  columns: {
    ID: { header: "CACHE ID", value: (c) => shortId(c.ID ?? "") + (c.InUse ? "*" : "") },
    CacheType: { header: "CACHE TYPE", value: (c) => c.Type ?? "" },
    Size: { header: "SIZE", value: (c) => humanSize(c.Size ?? 0, 3) },
    CreatedSince: { header: "CREATED", value: (c) => ago(Date.parse(c.CreatedAt ?? "") / 1000) },
    LastUsedSince: { header: "LAST USED", value: (c) => (c.LastUsedAt ? ago(Date.parse(c.LastUsedAt) / 1000) : "") },
    UsageCount: { header: "USAGE", value: (c) => String(c.UsageCount ?? 0) },
    InUse: { header: "IN USE", value: (c) => String(c.InUse ?? false) },
    Shared: { header: "SHARED", value: (c) => String(c.Shared ?? false) },
  },
};

function verbose(usage: DiskUsage, format: string): string {
  const images = imageRows(usage.Images ?? [], false);
  const containers = usage.Containers ?? [];
  const volumes = usage.Volumes ?? [];
  const cache = (usage.BuildCache ?? []) as CacheRecord[];
  const imageFormat = imageList(true, false);
  const containerFormat = containerList(true, true);
  if (format !== "" && format !== "table") {
    const rows = <Row>(list: ListFormat<Row>, items: readonly Row[]) => items.map((item) => plain(list, item));
    const data = {
      Images: rows(imageFormat, images),
      Containers: rows(containerFormat, containers),
      Volumes: rows(volumeList, volumes),
      BuildCache: rows(cacheList, cache),
    };
    return `${format === "json" ? json(data, true) : compile(format)(data)}\n`;
  }
  const size = (c: ContainerSummary) => humanSize(c.SizeRw ?? 0, 3);
  const containerTable: ListFormat<ContainerSummary> = {
    ...containerFormat,
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}",
    columns: { ...containerFormat.columns, Size: { header: "SIZE", value: size } },
  };
  const imageTable = {
    ...imageFormat,
    table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}",
  };
  const options = { format: "" };
  const total = cache.reduce((n, record) => n + (record.Shared ? 0 : (record.Size ?? 0)), 0);
  return [
    `Images space usage:\n\n${formatList(imageTable, images, options)}`,
    `\nContainers space usage:\n\n${formatList(containerTable, containers, options)}`,
    `\nLocal Volumes space usage:\n\n${formatList({ ...volumeList, table: "{{.Name}}\t{{.Links}}\t{{.Size}}" }, volumes, options)}`,
    `\nBuild cache usage: ${humanSize(total)}\n\n${formatList(cacheList, cache, options)}`,
  ].join("");
}

/** A row as data, for templates over the whole report. */
function plain<Row>(list: ListFormat<Row>, row: Row): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(contextOf(list, row))
      .filter(([name]) => !list.columns[name]!.method)
      .map(([name, value]) => [name, (value as () => unknown)()]),
  );
}
