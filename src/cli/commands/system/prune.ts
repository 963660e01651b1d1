import { minor } from "../../../client/index.ts";
import { command, none } from "../../command.ts";
import { bool } from "../../flags.ts";
import { confirm, describe, describeImages, pruneFilters, pruneFlags, reclaimed } from "../../prune.ts";

export default command({
  use: "[OPTIONS]",
  short: "Remove unused data",
  args: none,
  flags: { ...pruneFlags, all: bool("a", "Remove all unused images not just dangling ones"), volumes: bool("", "Prune anonymous volumes") },
  async run(cli, flags) {
    const filters = pruneFilters(cli, flags.filter);
    if (flags.volumes && filters.until) throw new Error('The "until" filter is not supported with "--volumes"');
    if (!flags.force && !(await confirm(cli, warning(flags.all, flags.volumes, filters)))) return;
    const client = await cli.client();
    let space = 0;
    const say = (text: string, report: { SpaceReclaimed?: number }) => {
      space += report.SpaceReclaimed ?? 0;
      cli.out(text);
    };
    const containers = await client.containers.prune(filters);
    say(describe("Deleted Containers", containers.ContainersDeleted), containers);
    const networks = await client.networks.prune(filters);
    say(describe("Deleted Networks", networks.NetworksDeleted), networks);
    if (flags.volumes) {
      const volumes = await client.volumes.prune(filters);
      say(describe("Deleted Volumes", volumes.VolumesDeleted), volumes);
    }
    const images = await client.images.prune({ ...filters, dangling: [String(!flags.all)] });
    say(describeImages(images), images);
    if (minor(await client.version()) >= 31) {
      const cache = await client.system.pruneBuildCache({ all: flags.all, filters });
      say(describe("Deleted build cache objects", cache.CachesDeleted), cache);
    }
    cli.out(reclaimed(space));
  },
});

function warning(all: boolean, volumes: boolean, filters: Record<string, string[]>): string {
  const lines = [
    "WARNING! This will remove:",
    "  - all stopped containers",
    "  - all networks not used by at least one container",
    ...(volumes ? ["  - all anonymous volumes not used by at least one container"] : []),
    all ? "  - all images without at least one container associated to them" : "  - all dangling images",
    all ? "  - all build cache" : "  - unused build cache",
  ];
  const items = Object.entries(filters).flatMap(([key, values]) => values.map((value) => `  - ${key}=${value}`));
  if (items.length > 0) lines.push("", "  Items to be pruned will be filtered with:", ...items.sort());
  return `${lines.join("\n")}\n`;
}
