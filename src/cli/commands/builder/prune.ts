import { command, none } from "../../command.ts";
import { bool, bytes } from "../../flags.ts";
import { confirm, describe, pruneFilters, pruneFlags, reclaimed } from "../../prune.ts";

export default command({
  use: "",
  short: "Remove build cache",
  args: none,
  flags: {
    ...pruneFlags,
    all: bool("a", "Remove all unused build cache, not just dangling ones"),
    "keep-storage": bytes("", "Amount of disk space to keep for cache"),
  },
  async run(cli, flags) {
    const warning = flags.all ? "WARNING! This will remove all build cache." : "WARNING! This will remove all dangling build cache.";
    if (!flags.force && !(await confirm(cli, warning))) return;
    const client = await cli.client();
    const report = await client.system.pruneBuildCache({
      all: flags.all,
      "keep-storage": flags["keep-storage"] || undefined,
      filters: pruneFilters(cli, flags.filter),
    });
    cli.out(describe("Deleted build cache objects", report.CachesDeleted));
    cli.out(reclaimed(report.SpaceReclaimed ?? 0));
  },
});
