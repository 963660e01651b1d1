import { command, none } from "../../command.ts";
import { bool } from "../../flags.ts";
import { confirm, describeImages, pruneFilters, pruneFlags, reclaimed } from "../../prune.ts";

export default command({
  use: "[OPTIONS]",
  short: "Remove unused images",
  args: none,
  flags: { ...pruneFlags, all: bool("a", "Remove all unused images, not just dangling ones") },
  async run(cli, flags) {
    const warning = flags.all
      ? "WARNING! This will remove all images without at least one container associated to them."
      : "WARNING! This will remove all dangling images.";
    if (!flags.force && !(await confirm(cli, warning))) return;
    const client = await cli.client();
    const report = await client.images.prune({ ...pruneFilters(cli, flags.filter), dangling: [String(!flags.all)] });
    cli.out(describeImages(report) + reclaimed(report.SpaceReclaimed ?? 0));
  },
});
